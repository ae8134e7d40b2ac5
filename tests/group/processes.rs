//! Real processes of the example `alarm_evaluator` on a real server: killed, stopped, suspended, restarted; and the
//! example to copy, `hello_group`.
//!
//! Everything is judged by the evaluations that the processes log, one by one: who evaluated which alarm when, by
//! which generation of the membership.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use apportion::backend::{Connector as _, path::ZnodePath};

use crate::support::{
    Example, Server, eventually,
    example::{Processes, SERVER_TICK, SESSION_TIMEOUT, TIMEOUT, url},
    shared_server, until, zookeeper,
};

const CYCLE: Duration = Duration::from_millis(400);
const HEARTBEAT_VALIDITY: Duration = SESSION_TIMEOUT.checked_div(2).expect("two is not zero");

#[tokio::test]
async fn the_alarms_of_a_killed_evaluator_are_evaluated_by_the_others_a_session_timeout_later() {
    let mut fleet = Fleet::of(shared_server().await, ["a", "b", "c"]);
    let theirs = fleet.settled(["a", "b", "c"]).await.of("b");
    let killed = fleet.signal("b", "KILL");
    let took = fleet.taken_over("b", &theirs, killed).await;
    show("kill -9: evaluated by others after", took);
    assert!(took <= SESSION_TIMEOUT + SERVER_TICK + Duration::from_millis(300) + CYCLE, "{took:?}");
    fleet.settled(["a", "c"]).await;
    fleet.check_all_settled_cycles();
}

#[tokio::test]
async fn the_alarms_of_an_evaluator_that_shuts_down_are_evaluated_by_the_others_at_once() {
    let mut fleet = Fleet::of(shared_server().await, ["a", "b", "c"]);
    let theirs = fleet.settled(["a", "b", "c"]).await.of("b");
    let asked = fleet.signal("b", "TERM");
    let took = fleet.taken_over("b", &theirs, asked).await;
    show("SIGTERM: evaluated by others after", took);
    assert!(took <= Duration::from_millis(500) + CYCLE, "{took:?}");
    until("b says goodbye", TIMEOUT, || fleet.processes["b"].output().contains("stopped; the others know"))
        .await;
    fleet.settled(["a", "c"]).await;
    fleet.check_all_settled_cycles();
}

#[tokio::test]
async fn a_killed_evaluator_that_is_restarted_under_its_id_works_within_half_a_second() {
    let server = shared_server().await;
    let mut fleet = Fleet::of(server, ["a", "b", "c"]);
    let observer = zookeeper(&server.connect_string()).open(Duration::from_secs(10)).await.unwrap();
    let znode = ZnodePath::parse(&format!("/{}/alarm-evaluator/b", fleet.namespace)).unwrap();
    fleet.settled(["a", "b", "c"]).await;
    for _ in 0..3 {
        let killed = fleet.signal("b", "KILL");
        let (_, of_the_dead) = observer.get(&znode).await.unwrap().expect("the session of the dead lives on");
        let started = now();
        fleet.start("b");
        let first = eventually("b evaluates", TIMEOUT, || async {
            fleet
                .lines()
                .iter()
                .filter(|line| line.member == "b" && line.at >= started)
                .map(|line| line.at)
                .min()
        })
        .await;
        let (_, of_the_living) = observer.get(&znode).await.unwrap().expect("b is back");
        show("restart after kill -9: first evaluation after", first - started);
        assert!(first - started <= Duration::from_millis(500), "{:?}", first - started);
        assert!(first - killed < SESSION_TIMEOUT, "too late to show that the dead were not waited for");
        assert_ne!(of_the_dead.ephemeral_owner, of_the_living.ephemeral_owner);
        fleet.settled(["a", "b", "c"]).await;
    }
    fleet.check_all_settled_cycles();
    observer.close().await;
}

#[tokio::test]
async fn all_evaluators_come_back_by_themselves_when_the_server_does() {
    let mut server = Server::start().await;
    let fleet = Fleet::of(&server, ["a", "b", "c"]);
    fleet.settled(["a", "b", "c"]).await;

    let bound = SESSION_TIMEOUT * 2 + CYCLE * 2;

    // Down for less than the session timeout.
    server.restart().await;
    let up = now();
    let took = fleet.settled(["a", "b", "c"]).await.end.saturating_sub(up);
    show("server restarted at once: complete again after", took);
    assert!(took <= bound, "{took:?} > {bound:?}");

    // Down for longer.
    let down = now();
    server.kill();
    tokio::time::sleep(SESSION_TIMEOUT + Duration::from_millis(500)).await;
    let empty = down + HEARTBEAT_VALIDITY + Duration::from_millis(50)..now();
    server.restart().await;
    let up = now();
    let took = fleet.settled(["a", "b", "c"]).await.end.saturating_sub(up);
    show("server down for longer than the session timeout: complete again after", took);
    assert!(took <= bound, "{took:?} > {bound:?}");

    // Meanwhile no member acted: no heartbeat could be confirmed.
    let late: Vec<_> = fleet.lines().into_iter().filter(|line| empty.contains(&line.at)).collect();
    assert_eq!(late, [], "evaluated after the deadline");
    fleet.check_all_settled_cycles();
}

#[tokio::test]
async fn an_evaluator_that_was_suspended_evaluates_nothing_until_it_has_rejoined() {
    let mut fleet = Fleet::of(shared_server().await, ["a", "b", "c"]);
    let theirs = fleet.settled(["a", "b", "c"]).await.of("b");
    let stopped = fleet.signal("b", "STOP");
    let took = fleet.taken_over("b", &theirs, stopped).await;
    show("SIGSTOP: evaluated by others after", took);
    let without = fleet.settled(["a", "c"]).await;
    let woken = fleet.signal("b", "CONT");
    let again = fleet.settled(["a", "b", "c"]).await;
    show("SIGCONT: re-joined and complete after", again.end.saturating_sub(woken));
    let stale = |line: &Line| line.member == "b" && line.at >= woken && line.epoch <= without.epoch;
    let stale: Vec<_> = fleet.lines().into_iter().filter(stale).collect();
    assert_eq!(stale, [], "evaluated by a membership that was over");
    fleet.check_all_settled_cycles();
}

#[tokio::test]
async fn hello_group_divides_its_tasks_in_memory_and_at_a_server() {
    let url = format!("zookeeper://{}", shared_server().await.connect_string());
    for args in [&[][..], &[&*url]] {
        let text = Example::run("hello_group", args).await;
        // Who has what, before and after the leave.
        let mut divisions: Vec<BTreeMap<&str, BTreeSet<&str>>> = Vec::new();
        for line in text.lines() {
            match line.split_once(" has ") {
                Some((member, tasks)) => {
                    let division = divisions.last_mut().unwrap();
                    division.insert(member.trim(), tasks.split(", ").collect());
                }
                None => divisions.push(BTreeMap::new()),
            }
        }
        let [before, after] = &divisions[..] else { panic!("{text}") };
        assert_eq!(before.keys().copied().collect::<String>(), "abc", "{text}");
        assert_eq!(after.keys().copied().collect::<String>(), "ac", "{text}");
        for division in [before, after] {
            let mut tasks: Vec<_> = division.values().flatten().collect();
            tasks.sort_unstable();
            tasks.dedup();
            let shares: usize = division.values().map(BTreeSet::len).sum();
            assert_eq!((tasks.len(), shares), (10, 10), "{text}");
        }
        assert!(after.iter().all(|(member, tasks)| tasks.is_superset(&before[member])), "{text}");
    }
}

/// Three processes, or however many still live.
struct Fleet {
    url: String,
    namespace: String,
    processes: Processes,
    logs: Vec<PathBuf>,
    alarms: BTreeSet<String>,
}

/// One evaluation.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
struct Line {
    /// Since 1970.
    #[serde(rename = "at_ms", deserialize_with = "milliseconds")]
    at: Duration,
    alarm: String,
    member: String,
    epoch: i64,
    /// How many members the membership of that epoch has, the dead ones that still count included.
    members: Option<usize>,
    cycle: u64,
}

/// A cycle during which the membership stood still.
#[derive(Debug)]
struct Settled {
    number: u64,
    epoch: i64,
    /// When its last alarm was evaluated.
    end: Duration,
    by: BTreeMap<String, Vec<String>>,
}

impl Settled {
    fn of(&self, member: &str) -> BTreeSet<String> {
        let is_theirs = |by: &Vec<String>| by.iter().any(|it| it == member);
        self.by.iter().filter(|(_, by)| is_theirs(by)).map(|(alarm, _)| alarm.clone()).collect()
    }
}

impl Fleet {
    fn of<const N: usize>(server: &Server, members: [&str; N]) -> Fleet {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("fleet-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let url = format!("{}&namespace={namespace}", url(&server.connect_string()));
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/alarms.json");
        let alarms: Vec<serde_json::Value> = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
        let alarms = alarms.iter().map(|alarm| alarm["id"].as_str().unwrap().to_owned()).collect();
        let mut fleet = Fleet { url, namespace, processes: Processes::new(), logs: Vec::new(), alarms };
        members.iter().for_each(|id| fleet.start(id));
        fleet
    }

    fn start(&mut self, id: &str) {
        let log = self.processes.folder().join(format!("{id}-{}.jsonl", self.logs.len()));
        let (cycle, file) = (format!("{}ms", CYCLE.as_millis()), log.to_string_lossy());
        let args = ["--backend", &self.url, "--member-id", id, "--cycle", &cycle, "--log-evaluations", &file];
        self.processes.start(id, "alarm_evaluator", &args);
        self.logs.push(log);
    }

    /// Sends a signal; returns when.
    fn signal(&mut self, id: &str, signal: &str) -> Duration {
        let at = now();
        self.processes[id].signal(signal);
        at
    }

    /// All evaluations so far.
    fn lines(&self) -> Vec<Line> {
        let mut lines = Vec::new();
        for log in &self.logs {
            let text = fs::read_to_string(log).unwrap_or_default();
            // The last line may be half written.
            let whole = text.rfind('\n').map_or("", |end| &text[..end]);
            lines.extend(whole.lines().map(|line| serde_json::from_str::<Line>(line).unwrap()));
        }
        lines
    }

    /// Waits until all of `theirs` were evaluated by another process since `since`; returns how long it took.
    async fn taken_over(&self, from: &str, theirs: &BTreeSet<String>, since: Duration) -> Duration {
        assert!(!theirs.is_empty());
        let at = eventually("the alarms are taken over", TIMEOUT, || async {
            let mut first: BTreeMap<String, Duration> = BTreeMap::new();
            for line in self.lines() {
                if line.member != from && line.at >= since && theirs.contains(&line.alarm) {
                    let at = first.entry(line.alarm).or_insert(line.at);
                    *at = line.at.min(*at);
                }
            }
            (first.len() == theirs.len()).then(|| first.into_values().max().unwrap())
        })
        .await;
        at - since
    }

    /// Waits for the first settled cycle of exactly `members` that starts from now on, in which every alarm has to
    /// be evaluated exactly once.
    async fn settled<const N: usize>(&self, members: [&str; N]) -> Settled {
        let members: BTreeSet<String> = members.into_iter().map(str::to_owned).collect();
        let from = now().as_millis().div_ceil(CYCLE.as_millis());
        let what = format!("a settled cycle of {members:?}");
        let probe = || async {
            let settled = settled_cycles(&self.lines());
            settled.into_iter().find(|(of, it)| *of == members && u128::from(it.number) >= from)
        };
        let found = tokio::time::timeout(TIMEOUT, eventually(&what, TIMEOUT * 2, probe)).await;
        let Ok((_, settled)) = found else {
            panic!("not within {TIMEOUT:?}: {what}\n{}", self.processes.report());
        };
        self.check(&settled);
        settled
    }

    fn check_all_settled_cycles(&self) {
        let settled = settled_cycles(&self.lines());
        assert!(!settled.is_empty());
        settled.iter().for_each(|(_, settled)| self.check(settled));
    }

    fn check(&self, settled: &Settled) {
        let missing: Vec<_> = self.alarms.iter().filter(|alarm| !settled.by.contains_key(*alarm)).collect();
        assert!(missing.is_empty(), "in cycle {} no process evaluated {missing:?}", settled.number);
        let twice: Vec<_> = settled.by.iter().filter(|(_, by)| by.len() != 1).collect();
        assert!(twice.is_empty(), "in cycle {} evaluated twice: {twice:?}", settled.number);
    }
}

/// The cycles in which all members took part, by one and the same membership, as they did in the next one; so they
/// were done with it.
fn settled_cycles(lines: &[Line]) -> Vec<(BTreeSet<String>, Settled)> {
    let mut cycles: BTreeMap<u64, Vec<&Line>> = BTreeMap::new();
    for line in lines {
        cycles.entry(line.cycle).or_default().push(line);
    }
    let view = |lines: &[&Line]| {
        let epochs: BTreeSet<_> = lines.iter().map(|line| (line.epoch, line.members)).collect();
        let members: BTreeSet<String> = lines.iter().map(|line| line.member.clone()).collect();
        (epochs, members)
    };
    let mut settled = Vec::new();
    for (&number, lines) in &cycles {
        let Some(next) = cycles.get(&(number + 1)) else { continue };
        let (epochs, members) = view(lines);
        let all = epochs.iter().all(|(_, number)| *number == Some(members.len()));
        if !all || epochs.len() != 1 || view(next) != (epochs, members.clone()) {
            continue;
        }
        let mut by: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for line in lines {
            by.entry(line.alarm.clone()).or_default().push(line.member.clone());
        }
        let end = lines.iter().map(|line| line.at).max().unwrap();
        settled.push((members, Settled { number, epoch: lines[0].epoch, end, by }));
    }
    settled
}

fn show(what: &str, took: Duration) {
    println!("measured: {what} {:.2} s", took.as_secs_f64());
}

#[expect(clippy::disallowed_methods, reason = "compared with what other processes log")]
fn now() -> Duration {
    Duration::from_millis(
        SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis().try_into().unwrap(),
    )
}

fn milliseconds<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    serde::Deserialize::deserialize(from).map(Duration::from_millis)
}
