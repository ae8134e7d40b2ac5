use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::*;
use crate::{
    backend::{BoxFuture, CreateMode, memory::LostReply},
    config::Config,
    random::Random,
    session::{
        Keeper,
        tests::{Bench, T, create, path},
    },
    testing::{Call, Hook, Intercept, Outcome},
};

fn is_there(found: Option<&Znode>) -> Verdict {
    if found.is_some() { Verdict::Applied } else { Verdict::NotApplied }
}

async fn commit(bench: &Bench, op: Op) -> Result<Applied, Unapplied> {
    let at = op.path().clone();
    bench.live().await.commit_once(&[op], Evidence::new(&at, &is_there)).await
}

#[tokio::test(start_paused = true)]
async fn a_transaction_is_applied_once_whatever_reply_is_lost() {
    for lost in [LostReply::BeforeApplying, LostReply::AfterApplying] {
        let bench = Bench::new().await;
        bench.faults.lose_nth_write(bench.faults.calls().writes + 1, lost);
        let applied = commit(&bench, create("/ns/x")).await.unwrap();
        assert_eq!(matches!(applied, Applied::Seen(Some(_))), lost == LostReply::AfterApplying, "{lost:?}");
        assert_eq!(bench.names("/ns").await, ["x"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_lost_each_time_is_sent_a_few_times_with_growing_pauses_and_then_fails() {
    let bench = Bench::new().await;
    let before = bench.faults.calls().writes;
    for n in 1..=1000 {
        bench.faults.lose_nth_write(before + n, LostReply::BeforeApplying);
    }
    let clock = bench.memory.clock();
    let began = crate::clock::Clock::now(&*clock);
    let refused = commit(&bench, create("/ns/x")).await.unwrap_err();
    assert!(matches!(refused, Unapplied::Failed(backend::Error::Unreachable(_))), "{refused:?}");
    let took = crate::clock::Clock::now(&*clock).saturating_since(began);
    assert!(took >= PAUSE * 15 && took < PAUSE * 20, "{took:?}");
    let large = Op::create(&path("/ns/x"), vec![0; SMALL_REQUEST_BYTES], CreateMode::Persistent);
    let refused = commit(&bench, large).await.unwrap_err();
    let dropped = matches!(refused, Unapplied::Failed(backend::Error::Dropped { attempts: ATTEMPTS, .. }));
    assert!(dropped, "{refused:?}");
    assert!(bench.names("/ns").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_another_process_has_done_meanwhile_is_not_done_again() {
    let bench = Bench::new().await;
    bench.faults.lose_nth_write(bench.faults.calls().writes + 1, LostReply::BeforeApplying);
    let live = bench.live().await;
    let judge = |_: Option<&Znode>| Verdict::Overtaken;
    let at = path("/ns/x");
    let refused = live.commit_once(&[create("/ns/x")], Evidence::new(&at, &judge)).await;
    assert_eq!(refused.unwrap_err(), Unapplied::Overtaken);
    assert!(bench.names("/ns").await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_names_the_operation_and_the_end_of_the_session_leaves_the_outcome_unknown() {
    let bench = Bench::new().await;
    commit(&bench, create("/ns/x")).await.unwrap();
    let refused = commit(&bench, create("/ns/x")).await.unwrap_err();
    assert_eq!(
        refused,
        Unapplied::Refused { index: 0, path: path("/ns/x"), error: backend::Error::NodeExists }
    );
    let live = bench.live().await;
    bench.memory.suspend(live.id());
    let at = path("/ns/y");
    let committing = async { live.commit_once(&[create("/ns/y")], Evidence::new(&at, &is_there)).await };
    let (unknown, ()) = tokio::join!(committing, async { bench.memory.expire(live.id()) });
    assert!(matches!(unknown, Err(Unapplied::Unknown(backend::Error::Lost(_)))), "{unknown:?}");
}

#[tokio::test(start_paused = true)]
async fn a_missing_folder_is_created_and_numbers_that_are_taken_are_skipped() {
    let bench = Bench::new().await;
    let sequential = || Op::create(&path("/ns/a/b/n-"), [], CreateMode::PersistentSequential);
    commit(&bench, sequential()).await.unwrap();
    assert_eq!(bench.names("/ns/a/b").await, ["n-0000000000"]);
    // As in a tree that was restored from a backup: the names exist, and the numbers start again.
    for number in 1501..3001 {
        bench.observer.commit(vec![create(&format!("/ns/c-{number:010}"))]).await.unwrap();
    }
    let taken = Op::create(&path("/ns/c-"), [], CreateMode::PersistentSequential);
    let applied = commit(&bench, taken).await.unwrap();
    let created = applied.created(0).expect("the store has replied");
    assert!(created.name() > "c-0000003000", "{created}");
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_is_removed_again_and_again_is_not_created_without_a_pause() {
    let memory = crate::backend::Memory::new();
    let hook = Arc::new(Vanishing(AtomicUsize::new(0)));
    let connector = Arc::new(Intercept::new(Arc::new(memory.clone()), hook.clone()));
    let keeper = Keeper::start(connector, Config::default(), path("/ns"), Random::new(Some(7)));
    let live = keeper.access(T).live().await.unwrap();
    let clock = memory.clock();
    let began = crate::clock::Clock::now(&*clock);
    let at = path("/ns/x");
    let refused = live.commit_once(&[create("/ns/x")], Evidence::new(&at, &is_there)).await.unwrap_err();
    assert!(matches!(refused, Unapplied::Refused { error: backend::Error::NoNode, .. }), "{refused:?}");
    let tries = hook.0.load(Ordering::SeqCst);
    let took = crate::clock::Clock::now(&*clock).saturating_since(began);
    assert!(tries <= 17 && took >= PAUSE * 20, "{tries} tries in {took:?}");
}

/// Refuses to create `/ns/x`, as if its folder was gone each time.
struct Vanishing(AtomicUsize);

impl Hook for Vanishing {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        if call.request().is_write() && call.request().paths() == [&path("/ns/x")] {
            self.0.fetch_add(1, Ordering::SeqCst);
            let error = backend::Error::NoNode;
            return Box::pin(async { Err(CommitError { index: Some(0), error }) });
        }
        call.send()
    }
}
