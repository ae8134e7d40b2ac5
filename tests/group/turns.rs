//! Long work lets the runtime serve others in between.

use std::{
    pin::pin,
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use apportion::{Config, Error, Group, PartitionCoordinator, backend::Memory, group::Standing};

use crate::support::{MS, SECOND, fleet::Store, until};

/// How often an extraction yields.
async fn yields(keys: &[String]) -> usize {
    let coordinator = PartitionCoordinator::connect(Config::for_backend(Memory::new())).await.unwrap();
    let group = coordinator.join("g").await.unwrap();
    let mut extraction = pin!(group.extract_my_subset(keys));
    let mut context = Context::from_waker(Waker::noop());
    let mut yields = 0;
    loop {
        match extraction.as_mut().poll(&mut context) {
            Poll::Ready(share) => {
                assert_eq!(share.unwrap().len(), keys.len());
                return yields;
            }
            Poll::Pending => yields += 1,
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_extraction_yields_after_many_keys_and_after_many_bytes() {
    let small: Vec<_> = (0..10_240).map(|number| format!("key-{number}")).collect();
    assert_eq!(yields(&small).await, 10);
    let large: Vec<_> = (0..320).map(|number| format!("{number}{}", "x".repeat(100_000))).collect();
    assert!(yields(&large).await >= 9, "32 MB of keys");
}

async fn member(store: &Store, id: &str, weight: u32, replicas: u32) -> (PartitionCoordinator, Group) {
    let config = Config::for_backend(store.ensemble().clone()).member_id(id).replicas(replicas);
    let coordinator = PartitionCoordinator::start(config).unwrap();
    let group = store.join(&coordinator, "g").weight(weight).await.unwrap();
    (coordinator, group)
}

#[tokio::test(start_paused = true)]
async fn a_member_for_whose_points_there_is_no_room_is_refused_alone() {
    for store in [Store::memory(), Store::memory().immediate()] {
        one_without_room_is_refused_alone(store).await;
    }
}

async fn one_without_room_is_refused_alone(store: Store) {
    let (_first, in_first) = member(&store, "first", 3, 200).await;
    until("a share", SECOND, || in_first.view().standing() == Standing::Member).await;
    // 20 million points, and its id sorts before the others.
    let (_large, in_large) = member(&store, "a-large-one", 100_000, 200).await;
    until("refused", SECOND, || in_large.view().standing() == Standing::Refused).await;
    let outcome = in_large.extract_my_subset(["x"]).await;
    assert!(matches!(outcome, Err(Error::Ring { .. })), "{outcome:?}");
    let (_third, in_third) = member(&store, "third", 1, 200).await;
    for group in [&in_first, &in_third] {
        until("the others have shares", SECOND, || group.view().ring().len() == 2).await;
        // An exclusive group is published without it.
        let members = if store.is_immediate { 3 } else { 2 };
        assert_eq!((group.view().standing(), group.view().members().len()), (Standing::Member, members));
        assert_eq!(group.view().ring().members().collect::<Vec<_>>(), ["first", "third"]);
        assert!(group.extract_my_subset(["x"]).await.is_ok());
    }
}

/// A ring that takes two seconds to build in a debug build.
const LARGE: u32 = if cfg!(debug_assertions) { 5_000 } else { 50_000 };

#[tokio::test]
async fn a_large_ring_is_built_while_the_runtime_serves_others() {
    for store in [Store::memory(), Store::memory().immediate()] {
        a_large_ring_is_built(store).await;
    }
}

async fn a_large_ring_is_built(store: Store) {
    let (_a, group) = member(&store, "a", LARGE, 100).await;
    // The runtime has one thread. This task measures for how long it did not run.
    let (mut longest, mut turns) = (Duration::ZERO, 0);
    #[allow(clippy::disallowed_methods, reason = "it measures real time")]
    let begin = Instant::now();
    let mut last = begin;
    while group.view().standing() != Standing::Member {
        assert!(begin.elapsed() < 120 * SECOND, "no ring");
        tokio::time::sleep(MS).await;
        longest = longest.max(last.elapsed());
        last += last.elapsed();
        turns += 1;
    }
    let all = begin.elapsed();
    assert_eq!(group.view().ring().weight("a"), Some(LARGE));
    assert!(turns > 20 && longest < all / 2, "{turns} turns, the longest {longest:?} of {all:?}");
}
