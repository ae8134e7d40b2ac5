//! A coordinator without a backend: everything is its own.

use apportion::{ConfigError, Error, PartitionCoordinator, group::Standing};
use tokio::time::timeout;

use super::keys;
use crate::support::{
    alive_tasks,
    fleet::{MS, SECOND, is_over, next_change},
};

#[tokio::test(start_paused = true)]
async fn without_a_backend_everything_is_mine() {
    let alone = PartitionCoordinator::standalone();
    assert!(!alone.is_active() && alone.session_id().is_none());
    let mine = alone.extract_my_subset("g", keys(50)).await.unwrap();
    assert_eq!(mine.to_vec(), keys(50));
    assert!(mine.is_valid());
    let group = alone.join("h").weight(7).await.unwrap();
    assert_eq!(group.extract_my_subset(keys(50)).await.unwrap().len(), 50);
    let view = group.view();
    assert!(view.owns("anything") && view.members().len() == 1);
    assert_eq!(view.standing(), Standing::Member);
}

#[tokio::test(start_paused = true)]
async fn a_standalone_group_is_joined_and_left_like_any_other() {
    let alone = PartitionCoordinator::standalone();
    let group = alone.join("g").weight(7).await.unwrap();
    assert!(matches!(alone.join("").await, Err(Error::GroupName { .. })));
    assert!(matches!(alone.join("g").weight(0).await, Err(Error::Weight { .. })));
    assert!(matches!(alone.join("g").weight(8).await, Err(Error::JoinedDifferently { .. })));
    let same = alone.join("g").weight(7).await.unwrap();
    group.leave().await.unwrap();
    assert!(matches!(same.extract_my_subset(keys(5)).await, Err(Error::Closed { .. })));
    let again = alone.join("g").weight(8).await.unwrap();
    assert_eq!(again.extract_my_subset(keys(5)).await.unwrap().len(), 5);
    alone.shutdown().await.unwrap();
    assert!(matches!(again.extract_my_subset(keys(5)).await, Err(Error::Closed { .. })));
    assert!(matches!(alone.join("g").await, Err(Error::Closed { .. })));
    alone.shutdown().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_standalone_member_gains_all_at_once_and_then_waits() {
    let alone = PartitionCoordinator::standalone();
    // The handle is not kept: the membership lasts as long as the coordinator.
    let mut rebalances = alone.join("g").await.unwrap().rebalances();
    let first = next_change(&mut rebalances).await;
    assert_eq!((first.gained(keys(50)).count(), first.lost(keys(50)).count()), (50, 0));
    let (begin, polled) = (alive_tasks(), std::cell::Cell::new(0));
    let counted = std::future::poll_fn({
        let mut next = Box::pin(rebalances.next());
        let polled = &polled;
        move |context| {
            polled.set(polled.get() + 1);
            next.as_mut().poll(context)
        }
    });
    let waited = tokio::time::timeout(3600 * SECOND, counted).await;
    assert!(waited.is_err(), "it ended: {waited:?}");
    assert!(polled.get() < 10, "polled {} times in an idle hour", polled.get());
    assert_eq!(alive_tasks(), begin);
    alone.join("g").await.unwrap().leave().await.unwrap();
    assert!(next_change(&mut rebalances).await.is_total_loss());
    assert!(is_over(&mut rebalances).await);
}

#[tokio::test(start_paused = true)]
async fn connecting_to_nothing_is_refused_with_the_way_out() {
    let outcome = PartitionCoordinator::connect("").await;
    let Err(Error::Config(error @ ConfigError::NoBackend)) = outcome else { panic!("{outcome:?}") };
    assert!(error.to_string().contains("standalone()"), "{error}");
    let outcome = PartitionCoordinator::start("");
    assert!(matches!(outcome, Err(Error::Config(ConfigError::NoBackend))), "{outcome:?}");
}

#[tokio::test]
async fn a_group_without_a_backend_lives_as_long_as_one_with_a_backend() {
    let alone = PartitionCoordinator::standalone();
    let mut rebalances = alone.join("g").await.unwrap().rebalances();
    assert!(rebalances.next().await.unwrap().is_gained("x"));
    // The handle is gone, the membership is not.
    assert!(timeout(20 * MS, rebalances.next()).await.is_err());

    let group = alone.join("g").await.unwrap();
    let same = alone.join("g").await.unwrap();
    assert!(matches!(alone.join("g").weight(2).await, Err(Error::JoinedDifferently { .. })));
    group.leave().await.unwrap();
    assert!(matches!(same.extract_my_subset(["x"]).await, Err(Error::Closed { .. })), "it is the same group");
    assert!(rebalances.next().await.unwrap().is_total_loss());
    assert!(rebalances.next().await.is_none());

    let again = alone.join("g").await.unwrap();
    assert_eq!(again.extract_my_subset(["x"]).await.unwrap().len(), 1);
    alone.shutdown().await.unwrap();
    assert!(matches!(again.extract_my_subset(["x"]).await, Err(Error::Closed { .. })));
    assert!(matches!(alone.join("g").await, Err(Error::Closed { .. })));

    let dropped = PartitionCoordinator::standalone().join("g").await.unwrap();
    assert!(
        matches!(dropped.extract_my_subset(["x"]).await, Err(Error::Closed { .. })),
        "so is its coordinator"
    );
}
