//! Changes between two reads of one check of the claims.

use std::sync::Arc;

use apportion::{
    PartitionCoordinator,
    queue::{QueueError, WorkQueue},
    testing::Request,
};

use super::{counts, root, worker};
use crate::{
    setup::AtOnce as _,
    support::{SECOND, eventually, fleet::Store, hold::Hold, path, soon},
};

/// A process whose listings can be held back.
async fn slow(store: &Store) -> (PartitionCoordinator, WorkQueue, Arc<Hold>) {
    let (connector, hold) = Hold::on(store.ensemble());
    let coordinator = PartitionCoordinator::connect(store.config_via(connector, "slow")).await.unwrap();
    let queue = coordinator.queue(root(store)).at_once().await.unwrap();
    (coordinator, queue, hold)
}

/// Whether it lists one of these folders of the queue.
pub(crate) fn lists(folders: &'static [&'static str]) -> impl Fn(&Request<'_>) -> bool {
    |request| request.is_list() && request.paths().iter().any(|path| folders.contains(&path.name()))
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_taken_during_a_check_is_not_given_back() {
    let store = Store::memory();
    let (_agent, queue) = worker(&store, "a").await;
    for number in 0..2 {
        queue.put(number).await.unwrap();
    }
    let (_coordinator, _queue, hold) = slow(&store).await;
    tokio::time::sleep(2 * SECOND).await;
    let mut held = hold.after(1, lists(&["owned", "claims"]));
    // A change of the claims starts a check.
    let first = soon(queue.take()).await.unwrap();
    soon(held.reached()).await;
    let second = soon(queue.take()).await.unwrap();
    held.release();
    tokio::time::sleep(5 * SECOND).await;
    assert_eq!(counts(&store).await, [0, 2, 0, 0, 2]);
    first.done(()).await.unwrap();
    second.done(()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_moves_between_the_folders_is_not_missed_by_unless_queued() {
    for is_taken_first in [true, false] {
        let store = Store::memory();
        let (_agent, queue) = worker(&store, "a").await;
        queue.put("x").unless_queued("l:1").await.unwrap();
        let (_coordinator, slow, hold) = slow(&store).await;
        tokio::time::sleep(2 * SECOND).await;
        let taken = if is_taken_first { Some(soon(queue.take()).await.unwrap()) } else { None };
        tokio::time::sleep(2 * SECOND).await;
        let mut held = hold.after(1, lists(&["unowned", "owned"]));
        let mut put = Box::pin(slow.put("y").unless_queued("l:1").into_future());
        let early = tokio::select! {
            () = held.reached() => None,
            outcome = put.as_mut() => Some(outcome),
        };
        let outcome = match early {
            Some(outcome) => outcome,
            None => {
                let _taken = match taken {
                    Some(delivery) => {
                        delivery.release().await.unwrap();
                        None
                    }
                    None => Some(soon(queue.take()).await.unwrap()),
                };
                held.release();
                soon(put).await
            }
        };
        assert!(matches!(outcome, Err(QueueError::AlreadyQueued { .. })), "{is_taken_first} {outcome:?}");
    }
}

/// A bug: an entry that was taken and abandoned between two reads of a check stayed owned until a claim changed again.
#[tokio::test(start_paused = true)]
async fn an_entry_that_is_taken_and_abandoned_during_a_check_is_given_back() {
    for passing in 0..2 {
        let store = Store::memory();
        let (connector, hold) = Hold::on(store.ensemble());
        let heir = PartitionCoordinator::connect(store.config_via(connector, "heir")).await.unwrap();
        let _heirs = heir.queue("/queue").at_once().await.unwrap();
        let doomed = store.agent("doomed").await;
        let queue = doomed.coordinator.queue("/queue").at_once().await.unwrap();
        for name in ["x", "y"] {
            queue.put(name).await.unwrap();
        }
        tokio::time::sleep(2 * SECOND).await;
        let mut held = hold.after(passing, lists(&["owned", "claims"]));
        // A change of the claims starts a check of the heir; another check may be the one that is held back.
        queue.take().await.unwrap().done(()).await.unwrap();
        tokio::time::timeout(10 * SECOND, held.reached()).await.expect("it checks");
        std::mem::forget(queue.take().await.unwrap());
        let _line = doomed.crash();
        tokio::time::sleep(2 * store.session_timeout).await;
        held.release();
        let (observer, unowned) = (store.session().await, path("/queue/unowned"));
        let back = || async { (observer.children(&unowned).await.unwrap().0.len() == 1).then_some(()) };
        eventually("it is given back", 60 * SECOND, back).await;
    }
}
