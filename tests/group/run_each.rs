//! One task for each key that a member owns, in memory and on a real server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use apportion::{
    Config, Error, Group, HashRing, KeySet, Label, PartitionCoordinator,
    run::{EachCounts, Failure, KeyState, KeyTask, Keys, RunEach},
};
use md5::{Digest, Md5};
use tokio::{sync::oneshot, task::JoinSet, time::timeout};

use crate::support::{
    MS, SECOND, eventually,
    fleet::{Agent, Store, immediate_on_both_backends, on_both_backends, sees, universe},
    until,
};

/// Counts the tasks of each key, of all members, as the tasks themselves see it.
#[derive(Debug, Clone, Default)]
struct Census(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    running: BTreeMap<String, Vec<String>>,
    /// Keys that had two tasks at once.
    twice: Vec<String>,
    starts: usize,
}

/// A task that runs. Dropped with its future.
struct Here(Census, String, String);

impl Census {
    fn enter(&self, member: &str, key: &str) -> Here {
        let mut state = self.0.lock().unwrap();
        state.starts += 1;
        let running = state.running.entry(key.into()).or_default();
        running.push(member.into());
        if running.len() > 1 {
            state.twice.push(key.into());
        }
        Here(self.clone(), member.into(), key.into())
    }

    /// How many keys have exactly one task, that of a member among these.
    fn served_by(&self, members: &[&str]) -> usize {
        let state = self.0.lock().unwrap();
        let is_one = |on: &&Vec<String>| matches!(&on[..], [one] if members.contains(&one.as_str()));
        state.running.values().filter(is_one).count()
    }

    /// The members that have a task for this key.
    fn members(&self, key: &str) -> Vec<String> {
        self.0.lock().unwrap().running.get(key).cloned().unwrap_or_default()
    }

    /// How many tasks this key has.
    fn of(&self, key: &str) -> usize {
        self.members(key).len()
    }

    fn running(&self) -> usize {
        self.0.lock().unwrap().running.values().map(Vec::len).sum()
    }

    fn starts(&self) -> usize {
        self.0.lock().unwrap().starts
    }

    fn never_had_two(&self) {
        let twice = &self.0.lock().unwrap().twice;
        assert!(twice.is_empty(), "{} keys, for instance {:?}", twice.len(), twice.first());
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        let mut state = self.0.0.lock().unwrap();
        let running = state.running.get_mut(&self.2).unwrap();
        let at = running.iter().position(|member| *member == self.1).unwrap();
        running.remove(at);
    }
}

/// The runner of one member.
struct Service {
    agent: Agent,
    group: Group,
    keys: Keys<String>,
    stop: Option<oneshot::Sender<()>>,
    run: JoinSet<Result<EachCounts, Error>>,
}

impl Service {
    async fn start<F, T>(store: &Store, id: &str, keys: Vec<String>, task: F) -> Service
    where
        F: Fn(KeyTask<String>) -> T + Send + Sync + 'static,
        T: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        Self::start_with(store, id, keys, task, |run| run).await
    }

    async fn start_with<F, T>(
        store: &Store,
        id: &str,
        keys: Vec<String>,
        task: F,
        set: impl FnOnce(RunEach<String, F>) -> RunEach<String, F>,
    ) -> Service
    where
        F: Fn(KeyTask<String>) -> T + Send + Sync + 'static,
        T: Future<Output = Result<(), Failure>> + Send + 'static,
    {
        let agent = store.agent(id).await;
        let group = agent.join("g").await;
        let (stop, stopped) = oneshot::channel::<()>();
        let run = set(group.run_each(keys, task).starts_per_second(None).until(stopped));
        let keys = run.keys();
        let mut running = JoinSet::new();
        running.spawn(run.into_future());
        Service { agent, group, keys, stop: Some(stop), run: running }
    }

    /// Ends the runner, and waits for it.
    async fn stop(&mut self) -> EachCounts {
        drop(self.stop.take());
        self.ended().await.unwrap()
    }

    async fn ended(&mut self) -> Result<EachCounts, Error> {
        timeout(120 * SECOND, self.run.join_next()).await.expect("it ends").unwrap().unwrap()
    }
}

/// A task that runs until it is asked to stop.
fn obedient(
    census: &Census,
    id: &'static str,
) -> impl Fn(KeyTask<String>) -> BoxTask + Send + Sync + use<> + 'static {
    let census = census.clone();
    move |key| {
        let census = census.clone();
        Box::pin(async move {
            let _here = census.enter(id, &key);
            key.stopping().await;
            Ok(())
        })
    }
}

type BoxTask = std::pin::Pin<Box<dyn Future<Output = Result<(), Failure>> + Send>>;

/// All keys have one task each among these members.
async fn all_served(census: &Census, keys: usize, bound: Duration, members: &[&str]) {
    until("each key has one task", bound, || census.served_by(members) == keys).await;
    assert_eq!(census.running(), keys, "and no more");
}

async fn each_key_has_one_task_while_members_come_leave_and_crash(store: Store) {
    let (census, keys) = (Census::default(), universe());
    let mut a = Service::start(&store, "a", keys.clone(), obedient(&census, "a")).await;
    all_served(&census, 100, store.round(), &["a"]).await;
    let mut b = Service::start(&store, "b", keys.clone(), obedient(&census, "b")).await;
    let c = Service::start(&store, "c", keys.clone(), obedient(&census, "c")).await;
    let spread = || census.served_by(&["b"]) > 10 && census.served_by(&["c"]) > 10;
    until("all take part", 3 * store.round(), spread).await;
    all_served(&census, 100, store.round(), &["a", "b", "c"]).await;

    let counts = b.stop().await;
    assert_eq!((counts.forced, counts.failed, counts.stuck), (0, 0, 0));
    // Those of an immediate group have no time to stop when their keys are lost.
    assert!(counts.started == counts.finished + counts.lost && (store.is_immediate || counts.lost == 0));
    assert_eq!(census.served_by(&["b"]), 0, "it has waited for them");
    b.agent.coordinator.shutdown().await.unwrap();
    all_served(&census, 100, 3 * store.round(), &["a", "c"]).await;

    // Its tasks end by the clock of this process, before the others get its keys.
    let _line = c.agent.crash();
    all_served(&census, 100, store.expiry() + 3 * store.round(), &["a"]).await;
    assert_eq!(a.keys.states().iter().filter(|(_, state)| is_running(state)).count(), 100);
    a.stop().await;
    assert_eq!(census.running(), 0);
    if !store.is_immediate {
        census.never_had_two();
    }
}

fn is_running(state: &KeyState) -> bool {
    matches!(state, KeyState::Running { .. })
}

/// Another member starts on a key only when the task of it has ended.
async fn the_handover_waits_for_a_task_that_takes_its_time_to_stop(store: Store) {
    let census = Census::default();
    let slow = {
        let census = census.clone();
        move |key: KeyTask<String>| -> BoxTask {
            let census = census.clone();
            Box::pin(async move {
                let _here = census.enter("a", &key);
                key.stopping().await;
                assert!(key.is_stopping() && key.is_valid(), "there is time");
                tokio::time::sleep(SECOND).await;
                Ok(())
            })
        }
    };
    let mut a = Service::start(&store, "a", universe(), slow).await;
    all_served(&census, 100, store.round(), &["a"]).await;
    let mut b = Service::start(&store, "b", universe(), obedient(&census, "b")).await;
    let stopping = || a.keys.states().iter().any(|(_, state)| matches!(state, KeyState::Stopping { .. }));
    until("they are asked to stop", store.round(), stopping).await;
    assert_eq!(census.served_by(&["b"]), 0);
    until("b has its part", SECOND + 2 * store.round(), || census.served_by(&["b"]) > 20).await;
    all_served(&census, 100, store.round(), &["a", "b"]).await;
    assert_eq!((a.stop().await.forced, b.stop().await.forced), (0, 0));
    census.never_had_two();
}

async fn a_task_that_ignores_that_it_is_to_stop_is_dropped_at_the_end_of_the_drain(store: Store) {
    let census = Census::default();
    let stubborn = {
        let census = census.clone();
        move |key: KeyTask<String>| -> BoxTask {
            let census = census.clone();
            Box::pin(async move {
                let _here = census.enter("a", &key);
                std::future::pending().await
            })
        }
    };
    let mut a = Service::start_with(&store, "a", universe(), stubborn, |run| run.drain(SECOND)).await;
    all_served(&census, 100, store.round(), &["a"]).await;
    let mut b = Service::start(&store, "b", universe(), obedient(&census, "b")).await;
    until("b has its part", SECOND + 3 * store.round(), || census.served_by(&["b"]) > 20).await;
    all_served(&census, 100, store.round(), &["a", "b"]).await;
    let forced = a.keys.counts().forced;
    assert_eq!((a.stop().await.forced, forced + census.served_by(&["b"]) as u64), (100, 2 * forced));
    b.stop().await;
    census.never_had_two();
}

async fn the_tasks_of_a_session_that_is_lost_end_and_start_again_with_the_next_one(store: Store) {
    let census = Census::default();
    let mut a = Service::start(&store, "a", universe(), obedient(&census, "a")).await;
    all_served(&census, 100, store.round(), &["a"]).await;
    a.agent.expire(&store).await;
    let again = || async { (census.starts() >= 200 && census.served_by(&["a"]) == 100).then_some(()) };
    eventually("all run again", 30 * SECOND, again).await;
    assert!(a.keys.counts().lost >= 100);
    a.stop().await;
    census.never_had_two();
}

on_both_backends!(
    each_key_has_one_task_while_members_come_leave_and_crash,
    the_handover_waits_for_a_task_that_takes_its_time_to_stop,
    a_task_that_ignores_that_it_is_to_stop_is_dropped_at_the_end_of_the_drain,
    the_tasks_of_a_session_that_is_lost_end_and_start_again_with_the_next_one,
);
immediate_on_both_backends!(each_key_has_one_task_while_members_come_leave_and_crash);

/// Ten thousand keys over four members; five per cent of the tasks fail all the time.
#[tokio::test(start_paused = true)]
async fn ten_thousand_keys_have_one_task_each_beside_five_per_cent_that_fail() {
    const KEYS: usize = 10_000;
    let (store, census, failing) = (Store::memory(), Census::default(), Census::default());
    let keys: Vec<String> = (0..KEYS).map(|number| format!("shard-{number}")).collect();
    let fails = |key: &str| key.trim_start_matches("shard-").parse::<usize>().unwrap() % 20 == 0;
    let task = |id: &'static str| {
        let (census, failing) = (census.clone(), failing.clone());
        move |key: KeyTask<String>| -> BoxTask {
            let (census, failing) = (census.clone(), failing.clone());
            Box::pin(async move {
                if fails(&key) {
                    let _here = failing.enter(id, &key);
                    tokio::time::sleep(100 * MS).await;
                    if key.len().is_multiple_of(2) {
                        // Without a message on the screen.
                        std::panic::resume_unwind(Box::new("a panic for a test"));
                    }
                    return Err(Failure::new("an error for a test"));
                }
                let _here = census.enter(id, &key);
                key.stopping().await;
                Ok(())
            })
        }
    };
    let good = KEYS - KEYS / 20;
    let mut members = Vec::new();
    for id in ["a", "b", "c", "d"] {
        members.push(Service::start(&store, id, keys.clone(), task(id)).await);
    }
    let spread = || ["a", "b", "c", "d"].iter().all(|id| census.served_by(&[id]) > KEYS / 10);
    until("all take part", 5 * store.round(), spread).await;
    tokio::time::sleep(5 * SECOND).await;
    all_served(&census, good, SECOND, &["a", "b", "c", "d"]).await;
    let starts = census.starts();
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!((census.starts(), census.served_by(&["a", "b", "c", "d"])), (starts, good), "not disturbed");
    let restarting = |member: &Service| {
        let states = member.keys.states().into_iter();
        states
            .filter(|(key, state)| fails(key) && matches!(state, KeyState::Restarting { errors: 2.., .. }))
            .count()
    };
    let restarting: usize = members.iter().map(restarting).sum();
    assert!(restarting > KEYS / 20 / 2, "{restarting}: most of them are in a pause, which has grown");

    let mut d = members.pop().unwrap();
    let counts = d.stop().await;
    assert!(counts.failed > 0 && counts.forced == 0, "{counts:?}");
    d.agent.coordinator.shutdown().await.unwrap();
    all_served(&census, good, 3 * store.round(), &["a", "b", "c"]).await;

    let c = members.pop().unwrap();
    let _line = c.agent.crash();
    all_served(&census, good, store.expiry() + 3 * store.round(), &["a", "b"]).await;
    for mut member in members {
        member.stop().await;
    }
    assert!(failing.starts() > 5 * KEYS / 20, "{} starts of those that fail", failing.starts());
    for census in [census, failing] {
        assert_eq!(census.running(), 0);
        census.never_had_two();
    }
}

#[tokio::test(start_paused = true)]
async fn the_pauses_after_failures_are_those_that_the_caller_sets() {
    let store = Store::memory();
    let starts = Arc::new(Mutex::new(Vec::new()));
    let task = {
        let starts = starts.clone();
        #[expect(clippy::disallowed_methods, reason = "on the paused clock")]
        move |_: KeyTask<String>| -> BoxTask {
            starts.lock().unwrap().push(tokio::time::Instant::now());
            Box::pin(async { Err(Failure::new("as always")) })
        }
    };
    let set = |run: RunEach<String, _>| run.pauses(10 * SECOND, 40 * SECOND);
    let mut a = Service::start_with(&store, "a", vec!["key".into()], task, set).await;
    until("it has failed", 300 * SECOND, || starts.lock().unwrap().len() == 6).await;
    a.stop().await;
    let gaps: Vec<_> = starts.lock().unwrap().windows(2).map(|pair| pair[1] - pair[0]).collect();
    for (gap, longest) in gaps.iter().zip([10, 20, 40, 40, 40]) {
        let longest = longest * SECOND;
        assert!(*gap >= longest / 2 && *gap <= longest + 10 * MS, "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_fails_or_panics_is_started_again_and_the_end_does_not_wait_for_its_pause() {
    let store = Store::memory();
    let starts = Arc::new(AtomicUsize::new(0));
    let task = {
        let starts = starts.clone();
        move |_: KeyTask<String>| -> BoxTask {
            let start = starts.fetch_add(1, Ordering::SeqCst);
            assert!(start != 1, "a panic before its future is made");
            Box::pin(async move {
                assert!(start != 2, "a panic in its future");
                Err(Failure::new("as always"))
            })
        }
    };
    let mut a = Service::start(&store, "a", vec!["key".into()], task).await;
    until("it has failed five times", 60 * SECOND, || starts.load(Ordering::SeqCst) == 5).await;
    let state = || a.keys.state("key").unwrap();
    until("it is in a pause", SECOND, || matches!(state(), KeyState::Restarting { errors: 5, .. })).await;
    let KeyState::Restarting { pause, error, .. } = state() else { panic!() };
    assert!(pause > 7 * SECOND && pause <= 16 * SECOND && error == "as always", "{pause:?}: {error}");
    let counts = timeout(SECOND, a.stop()).await.expect("the pause is not waited for");
    assert_eq!((counts.started, counts.failed), (5, 5));
    assert_eq!(starts.load(Ordering::SeqCst), 5);
}

/// Its thread cannot be taken from it: the others go on, and its key stays until it has returned.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_task_that_blocks_its_thread_keeps_its_key_and_is_reported() {
    let store = Store::memory();
    let census = Census::default();
    let (release, is_blocked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let task = {
        let (census, release, is_blocked) = (census.clone(), release.clone(), is_blocked.clone());
        move |key: KeyTask<String>| -> BoxTask {
            let (census, release, is_blocked) = (census.clone(), release.clone(), is_blocked.clone());
            Box::pin(async move {
                if *key == "alarm-7" {
                    is_blocked.store(true, Ordering::SeqCst);
                    while !release.load(Ordering::SeqCst) {
                        std::thread::sleep(MS);
                    }
                    return Ok(());
                }
                let _here = census.enter("a", &key);
                key.stopping().await;
                Ok(())
            })
        }
    };
    let mut a = Service::start_with(&store, "a", universe(), task, |run| run.drain(100 * MS)).await;
    until("the others run", 10 * SECOND, || census.running() == 99 && is_blocked.load(Ordering::SeqCst))
        .await;
    let counts = a.stop().await;
    assert_eq!((counts.stuck, counts.finished, census.running()), (1, 99, 0));
    assert_eq!(a.group.status().in_progress, 1, "its guard");
    release.store(true, Ordering::SeqCst);
    until("it has returned", 10 * SECOND, || a.group.status().in_progress == 0).await;
}

#[tokio::test(start_paused = true)]
async fn the_set_of_keys_can_change_and_starts_are_bounded() {
    let (store, census) = (Store::memory(), Census::default());
    let task = obedient(&census, "a");
    let mut a = Service::start_with(&store, "a", universe(), task, |run| run.starts_per_second(50)).await;
    until("the first ones", SECOND, || census.running() > 0).await;
    assert!(census.running() <= 10, "{}", census.running());
    until("all", 3 * SECOND, || census.running() == 100).await;

    let keys = a.keys.clone();
    assert!(keys.remove("alarm-5") && !keys.remove("alarm-5") && keys.insert("alarm-100".into()));
    let changed = || census.running() == 100 && is_running(&keys.state("alarm-100").unwrap());
    until("one more and one less", SECOND, changed).await;
    assert_eq!((keys.state("alarm-5"), keys.len(), keys.counts().finished), (None, 100, 1));
    let starts = census.starts();
    keys.replace(&universe()[..60]);
    until("replaced", 2 * SECOND, || census.running() == 60).await;
    assert_eq!(census.starts(), starts + 1, "only that of alarm-5; the others went on");
    a.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_group_that_is_left_ends_the_run_after_its_tasks() {
    let (store, census) = (Store::memory(), Census::default());
    let mut a = Service::start(&store, "a", universe(), obedient(&census, "a")).await;
    all_served(&census, 100, store.round(), &["a"]).await;
    timeout(5 * SECOND, a.group.clone().leave()).await.expect("it waits for the tasks only").unwrap();
    assert_eq!(census.running(), 0);
    assert!(matches!(a.ended().await, Err(Error::Closed { group }) if group == "g"));

    let mut b = Service::start(&store, "b", universe(), obedient(&census, "b")).await;
    all_served(&census, 100, store.round(), &["b"]).await;
    b.agent.coordinator.shutdown().await.unwrap();
    assert!(b.ended().await.unwrap_err().is_closed() && census.running() == 0);
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_dropped_drops_its_tasks_and_releases_their_keys() {
    let (store, census) = (Store::memory(), Census::default());
    let mut a = Service::start(&store, "a", universe(), obedient(&census, "a")).await;
    all_served(&census, 100, store.round(), &["a"]).await;
    a.run.shutdown().await;
    until("all are gone", SECOND, || census.running() == 0).await;
    assert_eq!(a.group.status().in_progress, 0);
    // Others in the same process can go on with them.
    let mut counts = JoinSet::new();
    counts.spawn(
        a.group.run_each(universe(), obedient(&census, "a")).until(tokio::time::sleep(SECOND)).into_future(),
    );
    assert_eq!(counts.join_next().await.unwrap().unwrap().unwrap().finished, 100);
    census.never_had_two();
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_without_a_backend_runs_all_keys() {
    let alone = PartitionCoordinator::standalone();
    let group = alone.join("g").await.unwrap();
    let census = Census::default();
    let set = KeySet::new(["x".to_string(), "y".to_string()]);
    let run = group.run_each(&set, obedient(&census, "a"));
    let keys = run.keys();
    let counts = run.until(tokio::time::sleep(SECOND)).await.unwrap();
    assert_eq!((counts.started, counts.finished, keys.running()), (2, 2, 0));
}

/// What it has begun elsewhere keeps the guard, so the key still has this task.
#[tokio::test(start_paused = true)]
async fn a_key_gets_no_second_task_before_the_work_elsewhere_that_has_the_first_one_has_ended() {
    let (store, census, release) = (Store::memory(), Census::default(), Arc::new(tokio::sync::Notify::new()));
    let elsewhere = Arc::new(Mutex::new(JoinSet::new()));
    let task = {
        let (census, release) = (census.clone(), release.clone());
        move |key: KeyTask<String>| -> BoxTask {
            let (census, release, elsewhere) = (census.clone(), release.clone(), elsewhere.clone());
            Box::pin(async move {
                elsewhere.lock().unwrap().spawn(async move {
                    let _here = census.enter("a", &key);
                    release.notified().await;
                });
                std::future::pending().await
            })
        }
    };
    let mut a = Service::start_with(&store, "a", vec!["key".into()], task, |run| run.drain(SECOND)).await;
    until("its work runs", store.round(), || census.running() == 1).await;
    assert!(a.keys.remove("key"));
    tokio::time::sleep(2 * SECOND).await;
    assert!(a.keys.insert("key".into()));
    tokio::time::sleep(60 * SECOND).await;
    assert_eq!((census.starts(), census.running(), a.keys.running()), (1, 1, 1));
    release.notify_one();
    until("the next one runs", SECOND, || census.starts() == 2 && census.running() == 1).await;
    let counts = a.stop().await;
    assert_eq!((counts.forced, counts.stuck), (1, 1), "the second one goes on after the end of the run");
    census.never_had_two();
}

#[tokio::test(start_paused = true)]
async fn a_task_is_dropped_when_its_guard_ends_although_its_drain_is_longer() {
    let (store, census) = (Store::memory(), Census::default());
    let ignores = |census: &Census| {
        let census = census.clone();
        move |key: KeyTask<String>| -> BoxTask {
            let here = census.enter("a", &key);
            Box::pin(async move {
                let _here = here;
                std::future::pending().await
            })
        }
    };
    let agent = store.agent("a").await;
    let group = agent.joining("g").max_drain(3 * SECOND).await.unwrap();
    let run = group.run_each(universe(), ignores(&census)).drain(300 * SECOND);
    let keys = run.keys();
    let mut running = JoinSet::new();
    running.spawn(run.into_future());
    until("all run", store.round(), || census.running() == 100).await;

    // A key that was lost.
    let b = store.agent("b").await;
    let other = b.join("g").await;
    sees(&other, 2 * store.round(), &["a", "b"]).await;
    until("what b has is dropped", 10 * SECOND, || census.running() < 80).await;
    let counts = keys.counts();
    assert!(
        counts.forced > 0 && counts.lost == 0,
        "at the end of the drain, before their guards end: {counts:?}"
    );

    // A session that ends while a task is asked to stop: nothing else would wake it.
    let mine = keys.states().into_iter().find(|(_, state)| is_running(state)).unwrap().0;
    let before = keys.counts().lost;
    keys.remove(&*mine);
    agent.expire(&store).await;
    let lost = || keys.counts().lost > before && census.of(&mine) == 0;
    until("it is dropped", 8 * SECOND, lost).await;
    running.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_ends_during_the_last_drain_ends_tasks_that_ignore_it() {
    let (store, census) = (Store::memory(), Census::default());
    let ignores = {
        let census = census.clone();
        move |key: KeyTask<String>| -> BoxTask {
            let here = census.enter("a", &key);
            Box::pin(async move {
                let _here = here;
                std::future::pending().await
            })
        }
    };
    let agent = store.agent("a").await;
    let group = agent.joining("g").max_drain(600 * SECOND).await.unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let mut running = JoinSet::new();
    let run = group.run_each(universe(), ignores).drain(600 * SECOND).until(stopped);
    running.spawn(run.into_future());
    until("all run", store.round(), || census.running() == 100).await;
    drop(stop);
    tokio::time::sleep(SECOND).await;
    agent.expire(&store).await;
    let ended = timeout(10 * SECOND, running.join_next()).await.expect("it does not wait for the drain");
    let counts = ended.unwrap().unwrap().unwrap();
    assert_eq!((counts.lost, counts.forced, counts.stuck, census.running()), (100, 0, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_key_that_was_lost_for_a_moment_that_the_runner_has_not_seen_gets_a_new_task() {
    let (store, census) = (Store::memory(), Census::default());
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let mut run = group.run_each(universe(), obedient(&census, "a")).into_future();
    tokio::select! {
        ended = &mut run => panic!("{ended:?}"),
        () = until("all run", store.round(), || census.running() == 100) => {}
    }
    // It is not polled while another member comes and goes.
    let b = store.agent("b").await;
    let _theirs = b.join("g").await;
    sees(&group, 2 * store.round(), &["a", "b"]).await;
    b.coordinator.shutdown().await.unwrap();
    sees(&group, 2 * store.round(), &["a"]).await;
    assert_eq!((census.starts(), census.running()), (100, 100));
    tokio::select! {
        ended = &mut run => panic!("{ended:?}"),
        () = until("new tasks", 8 * SECOND, || census.starts() > 120 && census.running() == 100) => {}
    }
    census.never_had_two();
}

/// So that a run can be repeated. The runner learns from the guards alone that they were lost, as above.
#[tokio::test(start_paused = true)]
async fn tasks_whose_guards_were_lost_are_asked_to_stop_in_the_order_of_their_keys() {
    let (store, asked) = (Store::memory(), Arc::new(Mutex::new(Vec::new())));
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let noting = asked.clone();
    let run = group.run_each(universe(), move |key: KeyTask<String>| {
        let asked = noting.clone();
        async move {
            key.stopping().await;
            asked.lock().unwrap().push(key.to_string());
        }
    });
    let keys = run.keys();
    let mut run = run.into_future();
    tokio::select! {
        ended = &mut run => panic!("{ended:?}"),
        () = until("all run", store.round(), || keys.states().iter().all(|(_, state)| is_running(state))) => {}
    }
    let b = store.agent("b").await;
    let _theirs = b.join("g").await;
    sees(&group, 2 * store.round(), &["a", "b"]).await;
    b.coordinator.shutdown().await.unwrap();
    sees(&group, 2 * store.round(), &["a"]).await;
    tokio::select! {
        ended = &mut run => panic!("{ended:?}"),
        () = until("they are asked", 8 * SECOND, || asked.lock().unwrap().len() > 20) => {}
    }
    let asked = asked.lock().unwrap();
    let in_order = keys.states().into_iter().map(|(key, _)| key.to_string());
    assert_eq!(*asked, in_order.filter(|key| asked.contains(key)).collect::<Vec<_>>());
}

/// The keys are at positions whose first 32 bits are those of a point as well.
#[tokio::test(start_paused = true)]
async fn keys_beside_a_point_of_a_ring_of_tooz_run_as_all_others() {
    let (store, census) = (Store::memory(), Census::default());
    let divided = ["key-11291720", "key-13382537", "key-13748044"].map(String::from);
    let ring = HashRing::builder().tooz(1000).members(["a", "b"]).build().unwrap();
    for key in &divided {
        let hash: [u8; 16] = Md5::digest(key).into();
        let position = u32::from_be_bytes(*hash.first_chunk().unwrap());
        assert!(!["a", "b"].iter().any(|id| ring.ranges(id).contains_position(position)));
    }
    let config = |config: Config| config.label(Label::Tooz).replicas(1000);
    let mut running = JoinSet::new();
    let mut agents = Vec::new();
    for id in ["a", "b"] {
        let agent = store.agent_with(id, config).await;
        let group = agent.join("g").await;
        let (work, has_failed) = (obedient(&census, id), Arc::new(Mutex::new(BTreeSet::new())));
        // Starts again after a failure, too.
        let task = move |key: KeyTask<String>| -> BoxTask {
            let is_first = has_failed.lock().unwrap().insert(key.clone());
            if is_first { Box::pin(async { Err(Failure::new("once")) }) } else { work(key) }
        };
        let run = group.run_each(&divided[..1], task);
        agents.push((agent, group, run.keys()));
        running.spawn(run.into_future());
    }
    for (_, group, keys) in &agents {
        sees(group, 4 * store.round(), &["a", "b"]).await;
        assert!(keys.insert(divided[1].clone()) && keys.insert(divided[2].clone()));
    }
    assert_eq!(divided.each_ref().map(|key| ring.owner(key).unwrap()), ["a", "b", "a"]);
    let at_their_owners = || divided.iter().all(|key| census.members(key) == [ring.owner(key).unwrap()]);
    until("each has a task of its owner", 10 * SECOND + 4 * store.round(), at_their_owners).await;
    census.never_had_two();
    running.shutdown().await;
}
