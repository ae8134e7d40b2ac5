//! Handles of a coordinator and of a group: clones, the end, and changes as a stream.

use std::{pin::pin, time::Duration};

use apportion::{Config, PartitionCoordinator, backend::Memory};
use futures_util::{FutureExt as _, StreamExt};
use tokio::task::JoinSet;

async fn member(memory: &Memory, id: &str) -> PartitionCoordinator {
    PartitionCoordinator::connect(Config::for_backend(memory.clone()).member_id(id)).await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn clones_are_one_member_until_the_last_of_them_is_dropped() {
    let memory = Memory::new();
    let first = member(&memory, "a").await;
    let second = first.clone();
    let group = first.join("g").await.unwrap();
    assert_eq!((second.member_id(), second.session_id()), (first.member_id(), first.session_id()));
    let mut closed = pin!(second.closed());
    drop(first);
    assert!(closed.as_mut().now_or_never().is_none());
    assert_eq!(second.extract_my_subset("g", ["x"]).await.unwrap().len(), 1);
    drop(second);
    closed.await;
    let over = async {
        while group.extract_my_subset(["x"]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        group.extract_my_subset(["x"]).await.unwrap_err()
    };
    assert!(tokio::time::timeout(Duration::from_secs(1), over).await.unwrap().is_closed());
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_waits_for_the_end_learns_of_a_shutdown_by_another_clone() {
    for coordinator in [member(&Memory::new(), "a").await, PartitionCoordinator::standalone()] {
        let mut closed = JoinSet::new();
        closed.spawn(coordinator.closed());
        coordinator.clone().shutdown().await.unwrap();
        tokio::time::timeout(Duration::from_secs(1), closed.join_next()).await.unwrap().unwrap().unwrap();
        assert!(!coordinator.is_active());
    }
}

#[tokio::test(start_paused = true)]
async fn the_changes_of_a_share_are_a_stream_that_ends_with_the_group() {
    let memory = Memory::new();
    let a = member(&memory, "a").await;
    let group = a.join("g").await.unwrap();
    let mut changes = group.rebalances();
    let first = StreamExt::next(&mut changes).await.unwrap();
    assert_eq!(first.members(), (0, 1));
    let b = member(&memory, "b").await;
    // Half-way through, `next` and the stream go on where the other has stopped.
    assert!(changes.next().now_or_never().is_none());
    let _theirs = b.join("g").await.unwrap();
    let second = StreamExt::next(&mut changes).await.unwrap();
    assert_eq!(second.members(), (1, 2));
    group.leave().await.unwrap();
    let rest: Vec<_> = changes.by_ref().collect().await;
    assert!(rest.len() == 1 && rest[0].is_total_loss(), "{rest:?}");
    assert!(changes.next().await.is_none() && changes.next().await.is_none());
}
