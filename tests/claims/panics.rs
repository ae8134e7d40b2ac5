//! Panics in tasks of the library: a caller that waits gets an error and does not wait for ever.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use apportion::{
    Config, Error, PartitionCoordinator,
    backend::{BoxFuture, Memory},
    board::BoardError,
    testing::{Call, Hook, Intercept, Outcome},
};
use tokio::task::JoinSet;

use crate::{setup::AtOnce as _, support::SECOND};

/// Panics when a folder with this end of its path is listed, once it is switched on.
struct PanicAt {
    folder: &'static str,
    is_on: AtomicBool,
}

impl Hook for PanicAt {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        let is_there = call.request().is_list()
            && call.request().paths().iter().any(|path| path.as_str().ends_with(self.folder));
        assert!(!(is_there && self.is_on.load(Ordering::SeqCst)), "a panic for a test");
        call.send()
    }
}

/// A coordinator whose tasks panic when they list this folder, as soon as the switch is on.
async fn coordinator(folder: &'static str) -> (PartitionCoordinator, Arc<PanicAt>) {
    coordinator_on(Memory::new(), folder).await
}

async fn coordinator_on(memory: Memory, folder: &'static str) -> (PartitionCoordinator, Arc<PanicAt>) {
    let hook = Arc::new(PanicAt { folder, is_on: AtomicBool::new(false) });
    let backend = Intercept::new(Arc::new(memory), hook.clone());
    (PartitionCoordinator::connect(Config::for_backend(backend)).await.unwrap(), hook)
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(60 * SECOND, future).await.expect("it returns")
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_list_task_of_a_board_closes_it_for_callers_that_wait_for_a_job() {
    let (coordinator, hook) = coordinator("/jobs").await;
    let board = coordinator.job_board("/jobs").at_once().await.unwrap();
    let mut waiting = JoinSet::new();
    waiting.spawn({
        let board = board.clone();
        async move { board.claim_next().await.map(drop) }
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    hook.is_on.store(true, Ordering::SeqCst);
    let refreshed = in_time(async { board.jobs().ensure_fresh().await.map(drop) }).await;
    assert!(matches!(refreshed, Err(BoardError::Closed { .. })), "{refreshed:?}");
    let waited = in_time(waiting.join_next()).await.unwrap().unwrap();
    assert!(matches!(waited, Err(BoardError::Closed { .. })), "{waited:?}");
    assert!(!board.is_connected());
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_task_of_a_queue_closes_it_for_callers_that_wait_for_an_entry() {
    for folder in ["/unowned", "/owned"] {
        let (coordinator, hook) = coordinator(folder).await;
        let queue = coordinator.queue("/reports").at_once().await.unwrap();
        hook.is_on.store(true, Ordering::SeqCst);
        // Each entry that is taken changes what the tasks list.
        let closed = async {
            loop {
                match queue.take().await {
                    Ok(delivery) => delivery.done(()).await.unwrap_or_default(),
                    Err(error) => return error,
                }
            }
        };
        let putting = async {
            loop {
                let _ = queue.put("x").await;
                tokio::time::sleep(SECOND).await;
            }
        };
        let error = tokio::select! {
            error = in_time(closed) => error,
            () = putting => unreachable!(),
        };
        assert!(error.is_closed(), "{folder}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_the_task_of_a_group_closes_it() {
    let memory = Memory::new();
    let (coordinator, hook) = coordinator_on(memory.clone(), "/group").await;
    let group = coordinator.join("group").await.unwrap();
    assert_eq!(group.extract_my_subset(["a"]).await.unwrap().len(), 1);
    hook.is_on.store(true, Ordering::SeqCst);
    // The task lists the group because there is another member.
    let other = PartitionCoordinator::connect(Config::for_backend(memory)).await.unwrap();
    let _member = other.join("group").await.unwrap();
    let closed = async {
        loop {
            match group.extract_my_subset(["a"]).await {
                Ok(_) => tokio::time::sleep(SECOND).await,
                Err(error) => return error,
            }
        }
    };
    let error = in_time(closed).await;
    assert!(matches!(error, Error::Closed { .. }), "{error}");
}
