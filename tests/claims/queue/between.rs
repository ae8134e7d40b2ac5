//! What happens between two readings of one look.

use std::sync::Arc;

use apportion::{
    PartitionCoordinator,
    queue::{QueueError, WorkQueue},
    testing::Request,
};

use super::{counts, root, soon, worker};
use crate::support::{
    fleet::{SECOND, Store},
    hold::Hold,
};

/// A process whose listings can be held back.
async fn slow(store: &Store) -> (PartitionCoordinator, WorkQueue, Arc<Hold>) {
    let (connector, hold) = Hold::on(store.ensemble());
    let coordinator = PartitionCoordinator::connect(store.config_via(connector, "slow")).await.unwrap();
    let queue = coordinator.queue(root(store)).await.unwrap();
    (coordinator, queue, hold)
}

/// Whether it lists one of these folders of the queue.
pub(crate) fn lists(folders: &'static [&'static str]) -> impl Fn(&Request<'_>) -> bool {
    |request| request.is_list() && request.paths().iter().any(|path| folders.contains(&path.name()))
}

#[tokio::test(start_paused = true)]
async fn what_is_taken_in_the_middle_of_a_look_is_not_taken_for_abandoned() {
    let store = Store::memory();
    let (_agent, queue) = worker(&store, "a").await;
    for number in 0..2 {
        queue.put(number).await.unwrap();
    }
    let (_coordinator, _queue, hold) = slow(&store).await;
    tokio::time::sleep(2 * SECOND).await;
    let mut held = hold.after(1, lists(&["owned", "claims"]));
    // A change of the claims has it looked.
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
