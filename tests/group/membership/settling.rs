//! A group whose members wait until a change has settled before they move keys.

use std::time::Duration;

use tokio::time::{sleep, timeout};

use crate::support::{
    SECOND,
    fleet::{Store, in_both_modes, next_change, settles_within},
    until,
};

in_both_modes!(
    a_rolling_restart_within_the_settling_time_moves_keys_once,
    a_restart_under_the_same_ids_within_the_settling_time_moves_nothing,
    a_membership_that_never_settles_is_adopted_after_five_settling_times,
    a_member_that_waits_for_its_first_membership_to_settle_has_an_empty_share,
    a_settling_time_without_end_is_waited_for_and_nothing_panics,
);

async fn a_rolling_restart_within_the_settling_time_moves_keys_once(store: Store) {
    let settle = 3 * SECOND;
    let watcher = store.agent("a").await;
    let in_a = watcher.joining("g").settle(settle).await.unwrap();
    let mut olds = Vec::new();
    for id in ["b-1", "c-1"] {
        let agent = store.agent(id).await;
        let group = agent.joining("g").settle(settle).await.unwrap();
        olds.push((agent, group));
    }
    tokio::time::sleep(2 * settle).await;
    settles_within(settle, &[&in_a, &olds[0].1, &olds[1].1]).await;
    let mut rebalances = in_a.rebalances();
    next_change(&mut rebalances).await;

    let mut news = Vec::new();
    for ((agent, _), id) in olds.into_iter().zip(["b-2", "c-2"]) {
        agent.coordinator.shutdown().await.unwrap();
        tokio::time::sleep(SECOND / 2).await;
        let new = store.started(id).await;
        news.push((new.joining("g").settle(settle).await.unwrap(), new));
        tokio::time::sleep(SECOND / 2).await;
    }
    let change = tokio::time::timeout(3 * settle, rebalances.next()).await.unwrap().unwrap();
    assert_eq!(change.members(), (3, 3));
    let members: Vec<_> = in_a.view().members().iter().map(|member| member.id().to_string()).collect();
    assert_eq!(members, ["a", "b-2", "c-2"]);
    let further = tokio::time::timeout(10 * settle, rebalances.next()).await;
    assert!(further.is_err(), "keys moved again: {further:?}");
    settles_within(settle, &[&in_a, &news[0].0, &news[1].0]).await;
}

async fn a_restart_under_the_same_ids_within_the_settling_time_moves_nothing(store: Store) {
    let settle = 3 * SECOND;
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let in_a = a.joining("g").settle(settle).await.unwrap();
    let _in_b = b.joining("g").settle(settle).await.unwrap();
    tokio::time::sleep(2 * settle).await;
    let mut rebalances = in_a.rebalances();
    assert_eq!(next_change(&mut rebalances).await.members(), (0, 2));
    b.coordinator.shutdown().await.unwrap();
    tokio::time::sleep(SECOND).await;
    let b = store.started("b").await;
    let in_b = b.joining("g").settle(settle).await.unwrap();
    let moved = tokio::time::timeout(10 * settle, rebalances.next()).await;
    assert!(moved.is_err(), "{moved:?}");
    settles_within(settle, &[&in_a, &in_b]).await;
}

async fn a_membership_that_never_settles_is_adopted_after_five_settling_times(store: Store) {
    let settle = 2 * SECOND;
    let a = store.agent("a").await;
    let in_a = a.joining("g").settle(settle).await.unwrap();
    let _b = store.plain("g", "b", b"\xc0").await;
    let clock = store.connector().clock();
    let begin = clock.now();
    while in_a.view().members().len() == 1 {
        let flapping = store.plain("g", "flapping", b"\xc0").await;
        tokio::time::sleep(settle / 4).await;
        flapping.close().await;
        tokio::time::sleep(settle / 4).await;
        let waited = clock.now().saturating_since(begin);
        assert!(waited <= 5 * settle + 2 * SECOND, "still not adopted after {waited:?}");
    }
    let waited = clock.now().saturating_since(begin);
    assert!(waited >= settle, "adopted while it was flapping: {waited:?}");
}

async fn a_settling_time_without_end_is_waited_for_and_nothing_panics(store: Store) {
    let agent = store.agent("a").await;
    let join = agent.joining("g").settle(Duration::MAX);
    assert!(timeout(600 * SECOND, join.into_future()).await.is_err(), "it can never settle");
}

async fn a_member_that_waits_for_its_first_membership_to_settle_has_an_empty_share(store: Store) {
    let agent = store.agent("a").await;
    let group = agent.joining("g").settle(60 * SECOND).await.unwrap();
    let session = agent.coordinator.session_id();
    agent.expire(&store).await;
    until("a new session", 120 * SECOND, || ![session, None].contains(&agent.coordinator.session_id())).await;
    for _ in 0..10 {
        let share = group.extract_my_subset(["x"]).await.unwrap();
        assert!(share.is_empty() && !share.is_valid());
        sleep(SECOND).await;
    }
    until("settled", 120 * SECOND, || group.view().owns("x")).await;
}
