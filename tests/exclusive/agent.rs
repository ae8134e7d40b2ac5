//! An agent: a process that acts on the keys of its shares, and writes down when.
//!
//! It is this binary, which runs one test, with an [`Order`] in its environment. SIGTERM lets it leave, SIGUSR1 lets its
//! next action take a minute, SIGUSR2 lets it print its status.

use std::{
    collections::HashSet,
    env,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use apportion::{
    Config, Group, Held, KeySet, PartitionCoordinator,
    clock::{BootClock, Clock as _},
};
use fastrand::Rng;
use serde::{Deserialize, Serialize};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    task::JoinSet,
    time::sleep,
};
use tokio_util::sync::CancellationToken;

use crate::{
    journal::{Action, Journal, Place, State},
    support::{Example, MS, SECOND, eventually, files::Folder},
};

/// The variable of the environment that has the order.
pub(crate) const ORDER: &str = "APPORTION_EXCLUSIVE_AGENT";
/// The test that an agent runs.
pub(crate) const TEST: &str = "agent::an_agent_acts_until_it_is_told_to_leave";
/// The group of all agents.
pub(crate) const GROUP: &str = "g";
/// For how long a stuck action goes on.
const STUCK: Duration = Duration::from_secs(60);
/// An action checks its guard this often.
const CHECK: Duration = Duration::from_millis(20);
/// One of so many actions takes longer than the others, by this factor.
pub(crate) const LONG: (u32, u32) = (16, 8);
/// A longer action becomes several lines.
const LONGEST_LINE: u64 = 500_000_000;

/// What an agent has to do.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(crate) struct Order {
    /// Where the servers are; empty: no server.
    pub(crate) url: String,
    pub(crate) id: String,
    pub(crate) namespace: String,
    pub(crate) journal: PathBuf,
    pub(crate) mode: Mode,
    /// The keys are the numbers below this.
    pub(crate) keys: u32,
    /// How many actions go on at once.
    pub(crate) actions: usize,
    /// How long an action takes, in milliseconds.
    pub(crate) work: (u64, u64),
    pub(crate) seed: u64,
}

/// The mode of the group.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Debug)]
pub(crate) enum Mode {
    Fast,
    Strict,
    Immediate,
}

/// For how long the keys of a plain member wait when it is gone.
pub(crate) const PLAIN_GRACE: Duration = Duration::from_millis(300);

/// The host's clock, in nanoseconds.
pub(crate) fn now() -> u64 {
    u64::try_from(BootClock.now().since_origin().as_nanos()).expect("584 years fit")
}

/// The process of an order.
pub(crate) fn process(order: &Order, out: &std::path::Path) -> Example {
    let program = env::current_exe().expect("a test has a file");
    let order = serde_json::to_string(order).expect("it has text keys");
    let args = ["--exact", TEST, "--nocapture", "--test-threads=1"];
    Example::start_program(&program, out, &args, &[(ORDER, &order)])
}

#[test]
fn an_agent_acts_until_it_is_told_to_leave() {
    let workers = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if let Ok(order) = env::var(ORDER) {
        workers.block_on(run(serde_json::from_str(&order).unwrap()));
        return;
    }
    // Without an order: an agent without servers, which owns all keys.
    workers.block_on(async {
        let folder = Folder::new();
        let order = Order {
            url: String::new(),
            id: "alone".into(),
            namespace: String::new(),
            journal: folder.path().join("journal"),
            mode: Mode::Fast,
            keys: 20,
            actions: 4,
            work: (1, 5),
            seed: 1,
        };
        let agent = process(&order, &folder.path().join("out"));
        eventually("it has acted on each key", 20 * SECOND, || async {
            let keys: HashSet<_> =
                crate::journal::read(&order.journal, None).iter().map(|it| it.key).collect();
            (keys.len() == 20).then_some(())
        })
        .await;
        agent.signal("TERM");
        let code = eventually("it ends", 20 * SECOND, || async { agent.exit_code() }).await;
        assert_eq!(code, 0, "{}", agent.output());
        let actions = crate::journal::read(&order.journal, None);
        assert!(actions.iter().all(|it| it.state == State::Done && it.start <= it.end && it.is_exclusive));
    });
}

/// What all actions of an agent share.
struct Work {
    order: Order,
    journal: Journal,
    /// The keys that are acted on: no second action of this process begins on them.
    busy: Mutex<HashSet<u32>>,
    sticks: AtomicBool,
    leaves: CancellationToken,
}

async fn run(order: Order) {
    let [mut terminate, mut stick, mut show] =
        [SignalKind::terminate(), SignalKind::user_defined1(), SignalKind::user_defined2()]
            .map(|kind| signal(kind).unwrap());
    let work = Arc::new(Work {
        journal: Journal::create(&order.journal).unwrap(),
        order,
        busy: Mutex::default(),
        sticks: AtomicBool::new(false),
        leaves: CancellationToken::new(),
    });
    let mut signals = JoinSet::new();
    signals.spawn({
        let work = work.clone();
        async move {
            loop {
                tokio::select! {
                    _ = terminate.recv() => work.leaves.cancel(),
                    _ = stick.recv() => work.sticks.store(true, Ordering::SeqCst),
                }
            }
        }
    });
    let coordinator = coordinator(&work.order);
    let Some(Some(group)) = work.leaves.run_until_cancelled(join(&coordinator, work.order.mode)).await else {
        let _ = coordinator.shutdown().await;
        return;
    };
    signals.spawn({
        let group = group.clone();
        async move {
            while show.recv().await.is_some() {
                println!("{}", serde_json::to_string(&group.status()).unwrap());
            }
        }
    });
    work_on_shares(&work, &group).await;
    // Not waited for: how long the end takes is measured by the gaps.
    if let Err(error) = coordinator.shutdown().await {
        println!("shutdown: {error}");
    }
}

fn coordinator(order: &Order) -> PartitionCoordinator {
    if order.url.is_empty() {
        return PartitionCoordinator::standalone();
    }
    let config = Config::from_url(&order.url).unwrap().member_id(&*order.id).namespace(&*order.namespace);
    PartitionCoordinator::start(config).unwrap()
}

/// Joins, as often as it takes.
async fn join(coordinator: &PartitionCoordinator, mode: Mode) -> Option<Group> {
    loop {
        let join = coordinator.join(GROUP);
        let outcome = match mode {
            Mode::Fast => join.plain_grace(PLAIN_GRACE).await,
            Mode::Strict => join.strict().plain_grace(PLAIN_GRACE).await,
            Mode::Immediate => join.immediate().await,
        };
        match outcome {
            Ok(group) => return Some(group),
            Err(error) => println!("{} join: {error}", now()),
        }
        sleep(100 * MS).await;
    }
}

/// Acts on all keys of one share after the other, some at once, until it has to leave.
async fn work_on_shares(work: &Arc<Work>, group: &Group) {
    let keys: &'static KeySet<u32> = Box::leak(Box::new((0..work.order.keys).collect::<KeySet<u32>>()));
    let places = Arc::new(Semaphore::new(work.order.actions));
    let mut rng = Rng::with_seed(work.order.seed);
    let mut actions = JoinSet::new();
    while !work.leaves.is_cancelled() {
        let share = match group.share(keys).await {
            Ok(share) => share,
            Err(error) => {
                println!("{} share: {error}", now());
                sleep(50 * MS).await;
                continue;
            }
        };
        let is_exclusive = share.is_exclusive();
        // Sometimes it reads its share slowly, so that the share is old.
        let is_slow = rng.u32(0..20) == 0;
        for held in share {
            let place = places.clone().acquire_owned();
            let Some(place) = work.leaves.run_until_cancelled(place).await else { break };
            let place = place.expect("it is not closed");
            if !work.busy.lock().unwrap().insert(**held) {
                continue;
            }
            let (work, of_action) = (work.clone(), Rng::with_seed(rng.u64(..)));
            actions.spawn(async move {
                let key = **held;
                work.act(held, is_exclusive, of_action).await;
                work.busy.lock().unwrap().remove(&key);
                drop(place);
            });
            if is_slow {
                sleep(MS * rng.u32(0..20)).await;
            }
            while actions.try_join_next().is_some() {}
        }
        sleep(5 * MS).await;
    }
    while actions.join_next().await.is_some() {}
}

impl Work {
    /// Acts on a key for a while, as long as it is held.
    async fn act(&self, held: Held<&u32>, is_exclusive: bool, mut rng: Rng) {
        let mut work = Duration::from_millis(rng.u64(self.order.work.0..=self.order.work.1));
        if rng.u32(0..LONG.0) == 0 {
            work *= LONG.1;
        }
        if self.sticks.swap(false, Ordering::SeqCst) {
            work = STUCK;
            println!("{} sticks in {}", now(), **held);
        }
        if !held.is_valid() {
            return;
        }
        let start = now();
        let mut line = Line::new(self, **held, held.token().get(), start, is_exclusive);
        let until = start + u64::try_from(work.as_nanos()).expect("a minute fits");
        let is_guarded = rng.bool();
        while line.action.end < until {
            let pause = Duration::from_nanos(until - line.action.end).min(CHECK);
            let pausing = async {
                if self.leaves.run_until_cancelled(sleep(pause)).await.is_none() && work < STUCK {
                    sleep(pause).await;
                }
            };
            let is_lost = if is_guarded {
                held.while_held(pausing).await.is_err()
            } else {
                pausing.await;
                false
            };
            // Read first: the guard is valid at this moment or a later one.
            let at = now();
            if is_lost || !held.is_valid() {
                return line.write(State::Lost);
            }
            line.goes_on(at);
            if work == STUCK && self.leaves.is_cancelled() {
                break;
            }
        }
        line.write(State::Done);
    }
}

/// The current line of an action.
struct Line<'a> {
    journal: &'a Journal,
    place: Place,
    action: Action,
}

impl<'a> Line<'a> {
    fn new(work: &'a Work, key: u32, token: u64, start: u64, is_exclusive: bool) -> Line<'a> {
        let action = Action { key, start, end: start, token, state: State::Running, is_exclusive };
        let line = Line { journal: &work.journal, place: work.journal.place(), action };
        line.write(State::Running);
        line
    }

    fn goes_on(&mut self, at: u64) {
        self.action.end = at;
        if at - self.action.start < LONGEST_LINE {
            return self.write(State::Running);
        }
        self.write(State::Done);
        self.place = self.journal.place();
        self.action.start = at;
        self.write(State::Running);
    }

    fn write(&self, state: State) {
        self.journal.write(self.place, Action { state, ..self.action });
    }
}
