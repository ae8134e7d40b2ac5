use std::{future::pending, sync::Arc, time::Duration};

use tokio::time::timeout;

use super::*;
use crate::{
    backend::{self, Connector, CreateMode, Memory, Session, memory::LostReply},
    config::Config,
    random::Random,
    session::{
        Keeper,
        commit::{Applied, Unapplied},
    },
    task::Tasks,
    testing::Faults,
};

/// A process of a fleet, and another session that reads and changes the store.
struct Bench {
    memory: Memory,
    faults: Faults,
    keeper: Keeper,
    leases: Arc<Leases>,
    observer: Arc<dyn Session>,
}

const T: Duration = Duration::from_secs(10);

fn path(text: &str) -> ZnodePath {
    text.parse().unwrap()
}

impl Bench {
    async fn new() -> Bench {
        let memory = Memory::new();
        let observer = memory.open(Duration::from_secs(3600)).await.unwrap();
        for at in ["/ns", "/thing"] {
            observer.commit(vec![Op::create(&path(at), [], CreateMode::Persistent)]).await.unwrap();
        }
        let faults = Faults::new(Arc::new(memory.clone()));
        let keeper = {
            let connector = Arc::new(faults.clone());
            Keeper::start(connector, Config::default(), path("/ns"), Random::new(Some(7)))
        };
        let access = keeper.access(T);
        access.live().await.unwrap();
        let leases = Leases::start(access, "me".parse().unwrap(), Arc::new(Tasks::new()));
        Bench { memory, faults, keeper, leases, observer }
    }

    /// Takes `/thing` as it is now.
    async fn take(&self) -> Result<(LeaseGuard, Applied), Unapplied> {
        let version = self.version("/thing").await.unwrap_or(0);
        let request = Request {
            lock: path("/thing.lock"),
            data: b"me".into(),
            with: Around { before: vec![Op::set(&path("/thing"), [], Some(version))], after: Vec::new() },
            subject: Some((path("/thing"), version + 1)),
        };
        self.leases.acquire(&self.leases.access().live().await.unwrap(), request).await
    }

    async fn version(&self, at: &str) -> Option<i32> {
        self.observer.get(&path(at)).await.unwrap().map(|(_, stat)| stat.version)
    }

    async fn gone(&self, at: &str) {
        let at = path(at);
        let gone = async {
            loop {
                let (stat, mut watch) = self.observer.watch_node(&at).await.unwrap();
                if stat.is_none() {
                    return;
                }
                watch.fired().await;
            }
        };
        timeout(Duration::from_secs(60), gone).await.expect("it goes in time");
    }

    fn consume(version: i32) -> Around {
        Around { before: Vec::new(), after: vec![Op::delete(&path("/thing"), Some(version))] }
    }

    async fn delete_lock(&self) {
        self.observer.commit(vec![Op::delete(&path("/thing.lock"), None)]).await.unwrap();
    }

    fn lose_next(&self, lost: LostReply) {
        self.faults.lose_nth_write(self.faults.calls().writes + 1, lost);
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_exclusive_and_its_tokens_only_grow() {
    let bench = Bench::new().await;
    let (first, _) = bench.take().await.unwrap();
    assert!(first.lease().is_held());
    assert!(matches!(bench.take().await, Err(Unapplied::Overtaken)));
    let token = first.lease().token();
    drop(first);
    bench.gone("/thing.lock").await;
    let (second, _) = bench.take().await.unwrap();
    assert!(second.lease().token() > token);
}

#[tokio::test(start_paused = true)]
async fn another_process_is_refused_by_the_store() {
    let bench = Bench::new().await;
    let foreign = Op::create(&path("/thing.lock"), [], CreateMode::Ephemeral);
    bench.observer.commit(vec![foreign]).await.unwrap();
    assert!(matches!(bench.take().await, Err(Unapplied::Overtaken)));
    assert_eq!(bench.version("/thing").await, Some(0), "nothing was done");
}

#[tokio::test(start_paused = true)]
async fn a_lost_reply_leaves_one_lease_or_none() {
    for lost in [LostReply::BeforeApplying, LostReply::AfterApplying] {
        let bench = Bench::new().await;
        bench.lose_next(lost);
        let (guard, applied) = bench.take().await.unwrap();
        assert_eq!(matches!(applied, Applied::Seen(_)), lost == LostReply::AfterApplying, "{lost:?}");
        assert_eq!(bench.version("/thing").await, Some(1), "{lost:?}");
        bench.lose_next(lost);
        let finished = guard.finish(Bench::consume(1), Some(path("/thing"))).await.unwrap();
        assert!(finished.is_ok(), "{lost:?} {finished:?}");
        assert_eq!(
            (bench.version("/thing").await, bench.version("/thing.lock").await),
            (None, None),
            "{lost:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_lease_lapses_before_the_session_can_expire() {
    let bench = Bench::new().await;
    let (guard, _) = bench.take().await.unwrap();
    let lease = guard.lease().clone();
    let session = lease.session_id();
    bench.memory.suspend(session);
    let lost = lease.lost().await;
    assert_eq!(lost.lock, "/thing.lock");
    assert!(bench.memory.sessions().contains(&session), "the lock is still ours");
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_is_taken_after_an_outage_is_held_when_it_is_handed_out() {
    let bench = Bench::new().await;
    let session = bench.leases.access().live().await.unwrap().id();
    bench.memory.suspend(session);
    // Longer than the heartbeat validity, shorter than the session timeout: the session lives, without a confirmed
    // heartbeat.
    tokio::time::sleep(T * 7 / 10).await;
    bench.memory.resume(session);
    let (guard, _) = bench.take().await.unwrap();
    assert_eq!(guard.lease().session_id(), session);
    assert!(guard.lease().is_held());
    assert_eq!(guard.lease().while_held(async { 7 }).await, Ok(7));
}

#[tokio::test(start_paused = true)]
async fn work_is_dropped_when_the_lease_is_lost() {
    let bench = Bench::new().await;
    let (guard, _) = bench.take().await.unwrap();
    assert_eq!(guard.lease().while_held(async { 7 }).await, Ok(7));
    bench.memory.expire(guard.lease().session_id());
    assert!(guard.lease().while_held(pending::<()>()).await.is_err());
    let mut steps = 0;
    assert!(guard.lease().while_held(async { steps += 1 }).await.is_err());
    assert_eq!(steps, 0, "no step is taken after the loss");
}

#[tokio::test(start_paused = true)]
async fn after_a_suspension_of_the_host_the_work_takes_no_further_step_although_no_timer_has_fired() {
    let bench = Bench::new().await;
    let (guard, _) = bench.take().await.unwrap();
    let mut steps = 0;
    let work = async {
        bench.memory.clock().jump(Duration::from_secs(60));
        tokio::task::yield_now().await;
        steps += 1;
    };
    assert!(guard.lease().while_held(work).await.is_err());
    assert_eq!(steps, 0);
}

#[tokio::test(start_paused = true)]
async fn a_stale_holder_cannot_finish() {
    let bench = Bench::new().await;
    let (stale, _) = bench.take().await.unwrap();
    let session = stale.lease().session_id();
    bench.memory.expire(session);
    bench.gone("/thing.lock").await;
    let finished = stale.finish(Bench::consume(1), Some(path("/thing"))).await.unwrap();
    assert!(matches!(finished, Err(Unapplied::Overtaken)), "{finished:?}");
    assert!(bench.version("/thing").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_holder_whose_lock_was_replaced_is_refused_though_its_session_lives() {
    let bench = Bench::new().await;
    let (stale, _) = bench.take().await.unwrap();
    // An operator deletes the lock, and a Python peer takes it: version 0.
    let lock = path("/thing.lock");
    let ops = vec![Op::delete(&lock, None), Op::create(&lock, [], CreateMode::Ephemeral)];
    bench.observer.commit(ops).await.unwrap();
    let checks = stale.lease().checks();
    assert!(bench.observer.commit(checks).await.is_err());
    let finished = stale.finish(Bench::consume(1), Some(path("/thing"))).await.unwrap();
    assert!(matches!(finished, Err(Unapplied::Overtaken)), "{finished:?}");
    assert!(bench.version("/thing.lock").await.is_some() && bench.version("/thing").await.is_some());
}

#[tokio::test(start_paused = true)]
async fn a_refused_end_gives_the_thing_back() {
    let bench = Bench::new().await;
    let (guard, _) = bench.take().await.unwrap();
    let child = Op::create(&path("/thing/child"), [], CreateMode::Persistent);
    bench.observer.commit(vec![child]).await.unwrap();
    let finished = guard.finish(Bench::consume(1), Some(path("/thing"))).await.unwrap();
    assert!(
        matches!(finished, Err(Unapplied::Refused { index: 1, error: backend::Error::NotEmpty, .. })),
        "{finished:?}"
    );
    bench.gone("/thing.lock").await;
    assert!(bench.take().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_given_back_even_if_the_thing_has_changed() {
    let bench = Bench::new().await;
    let (mut guard, _) = bench.take().await.unwrap();
    guard.set_back(Around {
        before: vec![Op::Check { path: path("/thing"), version: Some(1) }],
        after: Vec::new(),
    });
    bench.observer.commit(vec![Op::set(&path("/thing"), [], None)]).await.unwrap();
    drop(guard);
    bench.gone("/thing.lock").await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_no_caller_waits_for_is_given_back() {
    let bench = Arc::new(Bench::new().await);
    let taker = bench.clone();
    let leases = bench.leases.clone();
    bench.memory.suspend(bench.leases.access().live().await.unwrap().id());
    let taking = leases.run("take", async move { taker.take().await.map(|(guard, _)| guard) });
    assert!(timeout(Duration::from_millis(10), taking).await.is_err(), "the store hangs");
    bench.memory.resume(bench.leases.access().live().await.unwrap().id());
    // Taken and given back: the lock was created and deleted, and the thing was marked once.
    let marked = async {
        while bench.version("/thing").await != Some(1) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(60), marked).await.expect("the request goes on");
    bench.gone("/thing.lock").await;
    while !bench.leases.holds_nothing() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_an_operator_deletes_ends_the_lease_at_the_next_heartbeat() {
    let bench = Bench::new().await;
    let (guard, _) = bench.take().await.unwrap();
    bench.observer.commit(vec![Op::delete(&path("/thing.lock"), None)]).await.unwrap();
    timeout(T, guard.lease().lost()).await.expect("a heartbeat finds it");
    assert!(bench.keeper.live().is_some_and(|live| live.id() == guard.lease().session_id()));
}

#[tokio::test(start_paused = true)]
async fn a_lock_that_an_operator_has_changed_does_not_stay() {
    for ends in [true, false] {
        let bench = Bench::new().await;
        let (guard, _) = bench.take().await.unwrap();
        bench.observer.commit(vec![Op::set(&path("/thing.lock"), b"x", None)]).await.unwrap();
        if ends {
            let finished = guard.finish(Bench::consume(1), Some(path("/thing"))).await.unwrap();
            assert!(matches!(finished, Err(Unapplied::Overtaken)), "{finished:?}");
        } else {
            drop(guard);
        }
        bench.gone("/thing.lock").await;
        assert!(bench.take().await.is_ok(), "{ends}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_an_operator_removed_is_created_again_by_the_end_of_a_lease() {
    for lost in [None, Some(LostReply::BeforeApplying), Some(LostReply::AfterApplying)] {
        let bench = Bench::new().await;
        let (guard, _) = bench.take().await.unwrap();
        let done = path("/done/deeper/entry-");
        let ops = Around {
            before: vec![Op::create(&done, [], CreateMode::PersistentSequential)],
            after: vec![Op::delete(&path("/thing"), Some(1))],
        };
        if let Some(lost) = lost {
            bench.lose_next(lost);
        }
        let finished = guard.finish(ops, Some(path("/thing"))).await.unwrap();
        assert!(finished.is_ok(), "{lost:?} {finished:?}");
        let (names, _) = bench.observer.children(&path("/done/deeper")).await.unwrap();
        assert_eq!(names, ["entry-0000000000"], "{lost:?}");
        assert_eq!(bench.version("/thing").await, None, "{lost:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_session_is_kept_however_many_leases_there_are() {
    let bench = Bench::new().await;
    let long = path(&format!("/{}", "x".repeat(1000)));
    bench.observer.commit(vec![Op::create(&long, [], CreateMode::Persistent)]).await.unwrap();
    let live = bench.leases.access().live().await.unwrap();
    let validities: Vec<_> = (0..5_000).map(|_| live.validity_of(&long, 0)).collect();
    let (guard, _) = bench.take().await.unwrap();
    tokio::time::sleep(6 * T).await;
    assert_eq!(bench.leases.access().live().await.unwrap().id(), live.id());
    assert!(guard.lease().is_held() && validities.iter().all(Validity::is_valid));
    bench.observer.commit(vec![Op::delete(&path("/thing.lock"), None)]).await.unwrap();
    timeout(T, guard.lease().lost()).await.expect("a heartbeat finds it");
    assert!(validities.iter().all(Validity::is_valid));
}

#[tokio::test(start_paused = true)]
async fn what_is_written_under_a_lease_is_written_while_it_is_held_and_never_after() {
    let bench = Bench::new().await;
    let (guard, _) = bench.take().await.unwrap();
    let lease = guard.lease().clone();
    let note = |version| vec![Op::set(&path("/ns"), "x", Some(version))];
    let done = lease.commit(note(0)).await.unwrap();
    assert!(matches!(done[..], [backend::Done::Set(_)]), "{done:?}");
    let refused = lease.commit(note(0)).await.unwrap_err();
    assert_eq!(refused, LeaseError::Refused { index: 0, error: backend::Error::BadVersion });
    bench.lose_next(LostReply::AfterApplying);
    let unknown = lease.commit(note(1)).await.unwrap_err();
    assert!(matches!(unknown, LeaseError::OutcomeUnknown(_)), "{unknown}");
    assert_eq!(bench.version("/ns").await, Some(2));
    // Deleted by an operator: the store refuses the write before a heartbeat of this process finds it.
    bench.delete_lock().await;
    let lost = lease.commit(note(2)).await.unwrap_err();
    assert_eq!(lost, LeaseError::Lost(LeaseLost { lock: "/thing.lock".into() }));
    bench.memory.expire(lease.session_id());
    lease.lost().await;
    assert!(matches!(lease.commit(note(2)).await, Err(LeaseError::Lost(_))));
    assert_eq!(bench.version("/ns").await, Some(2));
}
