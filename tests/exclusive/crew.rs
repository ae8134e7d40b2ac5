//! The agents of one season: their processes, their ways to the servers, and what they did.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::PathBuf,
    time::Duration,
};

use apportion::backend::{Connector as _, Session};

use crate::{
    agent::{self, Mode, Order, now},
    journal,
    oracle::{Act, Acts, actors, all_since},
    support::{Ensemble, Example, MS, Mode as Link, Proxy, SECOND, eventually, files::Folder, zookeeper},
};

/// The ids that agents have.
pub(crate) const IDS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
/// How many keys there are.
pub(crate) const KEYS: u32 = 96;
/// The session timeout that the agents ask for.
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_secs(2);
/// The tick of the servers.
pub(crate) const TICK: Duration = Duration::from_millis(200);
/// How long most actions take, in milliseconds, and how many an agent does at once: so most keys are acted on all the time.
pub(crate) const WORK: (u64, u64) = (20, 200);
const ACTIONS: usize = 16;
/// All is settled when each key had one owner for this long.
const SETTLED: Duration = Duration::from_millis(800);

/// The agents on one ensemble, in a namespace of their own. Dropping it kills them.
pub(crate) struct Crew<'a> {
    pub(crate) ensemble: &'a mut Ensemble,
    pub(crate) mode: Mode,
    namespace: String,
    /// The way of each id to each server.
    ways: BTreeMap<&'static str, Vec<Proxy>>,
    running: BTreeMap<&'static str, Running>,
    /// Second processes of ids whose first ones run.
    twins: BTreeMap<&'static str, Running>,
    /// Every process so far: its id and its journal.
    processes: Vec<(&'static str, PathBuf)>,
    /// When each id joined.
    joins: BTreeMap<&'static str, Vec<u64>>,
    seed: u64,
    folder: Folder,
}

struct Running {
    number: usize,
    process: Example,
    is_stopped: bool,
}

/// What is wrong with a crew that does not settle.
#[derive(Debug)]
pub(crate) struct Unsettled {
    pub(crate) what: String,
    /// An agent without keys, if each key has an owner all the same.
    pub(crate) idle: Option<&'static str>,
}

impl<'a> Crew<'a> {
    /// No agents so far. `namespace` must be a new one.
    pub(crate) async fn new(
        ensemble: &'a mut Ensemble,
        mode: Mode,
        namespace: String,
        seed: u64,
    ) -> Crew<'a> {
        let mut ways = BTreeMap::new();
        for id in IDS {
            let mut proxies = Vec::new();
            for server in 0..3 {
                proxies.push(Proxy::start(ensemble.server(server).port()).await);
            }
            ways.insert(id, proxies);
        }
        let (running, twins, joins) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Crew {
            ensemble,
            mode,
            namespace,
            ways,
            running,
            twins,
            processes: Vec::new(),
            joins,
            seed,
            folder: Folder::new(),
        }
    }

    /// Starts a process under this id. The one before has to be gone.
    pub(crate) fn start(&mut self, id: &'static str) {
        self.start_with(id, WORK, ACTIONS);
    }

    /// Like [`Crew::start`], with another length of actions, in milliseconds, and another number of them at once.
    pub(crate) fn start_with(&mut self, id: &'static str, work: (u64, u64), actions: usize) {
        self.set(id, Link::Pass);
        let running = self.process(id, work, actions);
        self.running.insert(id, running);
        self.will_join(id);
    }

    /// Starts a second process under this id, while the first one runs.
    pub(crate) fn start_twin(&mut self, id: &'static str) {
        let twin = self.process(id, WORK, ACTIONS);
        self.twins.insert(id, twin);
    }

    /// Kills the second process of this id.
    pub(crate) async fn kill_twin(&mut self, id: &'static str) {
        let twin = self.twins.remove(id).expect("it was started");
        twin.process.signal("KILL");
        eventually("it is gone", 10 * SECOND, || async { twin.process.exit_code() }).await;
    }

    fn process(&mut self, id: &'static str, work: (u64, u64), actions: usize) -> Running {
        let number = self.processes.len();
        let hosts: Vec<_> = self.ways[id].iter().map(Proxy::connect_string).collect();
        let url = format!(
            "zookeeper://{}?timeout={}ms&server_tick={}ms&retry_backoff=50ms&max_retry_interval=500ms",
            hosts.join(","),
            SESSION_TIMEOUT.as_millis(),
            TICK.as_millis()
        );
        let journal = self.folder.path().join(format!("{number}-{id}.journal"));
        let order = Order {
            url,
            id: id.to_owned(),
            namespace: self.namespace.clone(),
            journal: journal.clone(),
            mode: self.mode,
            keys: KEYS,
            actions,
            work,
            seed: self.seed.wrapping_add(number as u64),
        };
        let process = agent::process(&order, &self.folder.path().join(format!("{number}-{id}.out")));
        self.processes.push((id, journal));
        Running { number, process, is_stopped: false }
    }

    /// Notes that the member will join again: one that does so too often is held back for a while.
    pub(crate) fn will_join(&mut self, id: &'static str) {
        self.joins.entry(id).or_default().push(now());
    }

    /// How often it joined in the last minute.
    pub(crate) fn recent_joins(&self, id: &str) -> usize {
        let minute_ago = now().saturating_sub(60_000_000_000);
        self.joins.get(id).map_or(0, |joins| joins.iter().filter(|at| **at > minute_ago).count())
    }

    /// The ids that have a process.
    pub(crate) fn ids(&self) -> Vec<&'static str> {
        self.running.keys().copied().collect()
    }

    /// Sends a signal to an agent.
    pub(crate) fn signal(&mut self, id: &str, signal: &str) {
        let running = self.running.get_mut(id).expect("it runs");
        running.process.signal(signal);
        match signal {
            "STOP" => running.is_stopped = true,
            "CONT" => running.is_stopped = false,
            _ => {}
        }
    }

    /// Kills an agent, and waits until it is gone.
    pub(crate) async fn kill(&mut self, id: &'static str) {
        let running = self.running.remove(id).expect("it runs");
        running.process.signal("KILL");
        eventually("it is gone", 10 * SECOND, || async { running.process.exit_code() }).await;
    }

    /// Lets an agent leave, and waits until its process has ended.
    pub(crate) async fn leave(&mut self, id: &'static str) {
        let running = self.running.remove(id).expect("it runs");
        running.process.signal("TERM");
        let code = eventually("it has left", 45 * SECOND, || async { running.process.exit_code() }).await;
        assert_eq!(code, 0, "{}", running.process.output());
    }

    /// Changes the way of an agent to all servers.
    pub(crate) fn set(&self, id: &str, link: Link) {
        self.ways[id].iter().for_each(|way| way.set(link));
    }

    /// Its ways to the servers.
    pub(crate) fn ways(&self, id: &str) -> &[Proxy] {
        &self.ways[id]
    }

    /// A session of an operator.
    pub(crate) async fn operator(&self) -> std::sync::Arc<dyn Session> {
        let servers = zookeeper(&self.ensemble.connect_string());
        eventually("an operator is connected", 20 * SECOND, || async {
            tokio::time::timeout(5 * SECOND, servers.open(10 * SECOND)).await.ok()?.ok()
        })
        .await
    }

    /// The path of something of the group: `""` for its folder, `".ring"` for the folder of the heads.
    pub(crate) fn path(&self, beside: &str, below: &str) -> apportion::backend::path::ZnodePath {
        crate::support::path(&format!("/{}{beside}/{}{below}", self.namespace, agent::GROUP))
    }

    /// Waits until each key has exactly one owner for a while, and each agent owns a key. Returns when all of them had
    /// acted; else what is wrong.
    pub(crate) async fn settles(&self, within: Duration) -> Result<u64, Unsettled> {
        let begin = now();
        let mut wrong = Unsettled { what: "nothing was read".to_owned(), idle: None };
        while now() - begin < nanos(within + SETTLED) {
            tokio::time::sleep(40 * MS).await;
            let since = now().saturating_sub(nanos(SETTLED));
            if since < begin {
                continue;
            }
            match self.is_settled(since) {
                Ok(at) => return Ok(at),
                Err(what) => wrong = what,
            }
        }
        wrong.what = format!("not settled within {within:?}: {}", wrong.what);
        Err(wrong)
    }

    fn is_settled(&self, since: u64) -> Result<u64, Unsettled> {
        let acts: Vec<_> = self.running.values().flat_map(|it| self.read(it.number, Some(400))).collect();
        let actors = actors(&acts, KEYS, since);
        let names = |numbers: &[usize]| numbers.iter().map(|it| self.processes[*it].0).collect::<Vec<_>>();
        let wrong: Vec<_> = actors.iter().filter(|(_, by)| by.len() != 1).collect();
        if !wrong.is_empty() {
            let some: Vec<_> = wrong.iter().take(8).map(|(key, by)| (**key, names(by))).collect();
            return Err(Unsettled { what: format!("{} keys, among them {some:?}", wrong.len()), idle: None });
        }
        let active: BTreeSet<_> = actors.into_values().flatten().collect();
        let idle: Vec<_> = self.running.values().filter(|it| !active.contains(&it.number)).collect();
        match idle.first() {
            Some(idle) if idle.is_stopped => {
                Err(Unsettled { what: "an agent is stopped".to_owned(), idle: None })
            }
            Some(idle) => {
                let id = self.processes[idle.number].0;
                if let Some(code) = idle.process.exit_code() {
                    return Err(Unsettled { what: format!("{id} has ended with {code}"), idle: None });
                }
                Err(Unsettled { what: format!("{id} owns nothing"), idle: Some(id) })
            }
            None => Ok(all_since(&acts, since)),
        }
    }

    fn read(&self, number: usize, most: Option<u64>) -> impl Iterator<Item = Act> + use<> {
        let actions = journal::read(&self.processes[number].1, most);
        actions.into_iter().map(move |action| Act { process: number, action })
    }

    /// All that was done so far.
    pub(crate) fn acts(&self) -> Acts {
        Acts::new((0..self.processes.len()).flat_map(|number| self.read(number, None)))
    }

    /// The id of each process so far.
    pub(crate) fn names(&self) -> Vec<&'static str> {
        self.processes.iter().map(|(id, _)| *id).collect()
    }

    /// The last lines that each running agent has printed, its status among them, for the message of a failure.
    pub(crate) async fn outputs(&self) -> String {
        let is_there = |running: &&Running| running.process.exit_code().is_none();
        self.running.values().filter(is_there).for_each(|running| running.process.signal("USR2"));
        tokio::time::sleep(SECOND).await;
        let mut text = String::new();
        for running in self.running.values() {
            let (id, journal) = &self.processes[running.number];
            let out = fs::read_to_string(journal.with_extension("out")).unwrap_or_default();
            let from = out.lines().count().saturating_sub(12);
            text += &format!("-- {id} ({})\n", running.number);
            out.lines().skip(from).for_each(|line| text += &format!("{line}\n"));
        }
        text
    }
}

/// A duration in nanoseconds.
pub(crate) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).expect("584 years fit")
}
