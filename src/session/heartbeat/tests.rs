use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::Duration,
};

use tokio::time::timeout;

use super::*;
use crate::{
    backend::{BoxFuture, Connector as _, CreateMode, Memory},
    config::Config,
    random::Random,
    session::{
        Keeper,
        tests::{T, create, path},
    },
    testing::{Call, Hook, Intercept, Outcome},
};

/// Delays every request, and panics at one when it is told to.
#[derive(Default)]
struct Slow {
    millis: AtomicU64,
    panics: AtomicBool,
}

impl Hook for Slow {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            assert!(!self.panics.load(Ordering::SeqCst), "a panic for a test");
            sleep(Duration::from_millis(self.millis.load(Ordering::SeqCst))).await;
            call.send().await
        })
    }
}

fn keeper(memory: &Memory) -> (Keeper, Arc<Slow>) {
    let hook = Arc::<Slow>::default();
    let connector = Arc::new(Intercept::new(Arc::new(memory.clone()), hook.clone()));
    (Keeper::start(connector, Config::default(), path("/ns"), Random::new(Some(7))), hook)
}

#[tokio::test(start_paused = true)]
async fn many_locks_that_are_deleted_at_once_end_together_and_do_not_cost_the_session() {
    const COUNT: usize = 2000;
    let memory = Memory::new();
    let (keeper, hook) = keeper(&memory);
    let live = keeper.access(T).live().await.unwrap();
    let observer = memory.open(100 * T).await.unwrap();
    let kept = [path("/ns/kept-first"), path("/ns/kept-last")];
    let lost: Vec<_> = (0..COUNT).map(|number| path(&format!("/ns/lock-{number}"))).collect();
    let all: Vec<_> = kept[..1].iter().chain(&lost).chain(&kept[1..]).collect();
    let creates = all.iter().map(|at| Op::create(at, [], CreateMode::Persistent)).collect();
    observer.commit(creates).await.unwrap();
    let validities: Vec<_> = all.iter().map(|at| live.validity_of(at, 0)).collect();
    sleep(T).await;
    assert!(validities.iter().all(Validity::is_valid));
    hook.millis.store(200, Ordering::SeqCst);
    observer.commit(lost.iter().map(|at| Op::delete(at, None)).collect()).await.unwrap();
    let ended = async {
        for validity in &validities[1..=COUNT] {
            validity.ended().await;
        }
    };
    timeout(T / 2, ended).await.expect("they are found in a few round trips");
    sleep(2 * T).await;
    assert!(validities[0].is_valid() && validities[COUNT + 1].is_valid(), "the others are not affected");
    assert_eq!(keeper.live().map(|live| live.id()), Some(live.id()), "the session was lost");
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_task_ends_the_session_for_all_that_wait_for_it() {
    let memory = Memory::new();
    let (keeper, hook) = keeper(&memory);
    let access = keeper.access(T);
    let live = access.live().await.unwrap();
    let observer = memory.open(100 * T).await.unwrap();
    observer.commit(vec![create("/ns/lock")]).await.unwrap();
    let validity = live.validity_of(&path("/ns/lock"), 0);
    sleep(T / 20).await;
    memory.suspend(live.id());
    sleep(T * 7 / 10).await;
    assert!(!validity.is_valid() && !validity.has_ended());
    hook.panics.store(true, Ordering::SeqCst);
    memory.resume(live.id());
    // What a lease waits for that was taken after an outage.
    timeout(T, validity.changed(false)).await.expect("it does not wait for ever");
    assert!(validity.has_ended());
    let gone = timeout(T, access.live()).await.expect("it does not wait for ever");
    assert!(gone.is_err_and(|error| error.is_closed()));
}
