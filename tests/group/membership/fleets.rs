//! Many members, in memory under paused time: agreement, the price of a storm, settling, twins.

use std::time::Duration;

use apportion::{Config, Group, PartitionCoordinator, backend::Memory, group::Standing, testing::Faults};

use crate::support::{
    eventually,
    fleet::{MS, SECOND, Store, next_change, settles_within, universe, znode},
};

/// As many members as asked for, all on their way into one group.
async fn crowd(
    store: &Store,
    count: usize,
    change: impl Fn(Config) -> Config,
) -> Vec<(Faults, PartitionCoordinator, Group)> {
    let mut members = Vec::new();
    for number in 0..count {
        let faults = Faults::new(store.connector());
        let config = change(store.config_via(faults.clone(), &format!("member-{number:04}")));
        let coordinator = PartitionCoordinator::start(config).unwrap();
        let group = coordinator.join("g").await.unwrap();
        members.push((faults, coordinator, group));
    }
    members
}

/// Waits until all of `groups` count `count` members by the same ring.
async fn agree_within(bound: Duration, groups: &[&Group], count: usize) {
    let agree = || async {
        let digest = groups[0].view().ring().digest();
        let agrees = |group: &&Group| {
            let view = group.view();
            view.standing() == Standing::Member
                && view.members().len() == count
                && view.ring().digest() == digest
        };
        groups.iter().all(agrees).then_some(())
    };
    let agreed = tokio::time::timeout(bound, eventually("agreed", 2 * bound, agree)).await;
    assert!(agreed.is_ok(), "no agreement of {count} within {bound:?}");
}

#[tokio::test(start_paused = true)]
async fn two_hundred_members_share_every_key_by_one_ring_while_some_leave_and_crash() {
    let store = Store::memory();
    // Ten points each: the rings are as good for this and take a tenth of the time.
    let mut members = crowd(&store, 200, |config| config.replicas(10)).await;
    let groups: Vec<_> = members.iter().map(|(.., group)| group).collect();
    agree_within(3 * SECOND, &groups, 200).await;
    settles_within(SECOND, &groups).await;

    for (.., group) in members.drain(..20) {
        group.leave().await.unwrap();
    }
    for (_, coordinator, _) in members.drain(..20) {
        store.ensemble().suspend(coordinator.session_id().unwrap());
    }
    let groups: Vec<_> = members.iter().map(|(.., group)| group).collect();
    agree_within(store.expiry() + 3 * SECOND, &groups, 160).await;
    settles_within(SECOND, &groups).await;
}

/// A thousand in a release build. Each member reads each other one a few times, and a debug build takes a hundred
/// seconds to decode those millions of payloads; the number of lists depends on how long the storm lasts only.
const STORM: usize = if cfg!(debug_assertions) { 120 } else { 1000 };

#[tokio::test(start_paused = true)]
async fn a_storm_of_joins_costs_each_member_a_handful_of_lists() {
    let store = Store::memory();
    let members = crowd(&store, STORM, |config| config.replicas(1)).await;
    let groups: Vec<_> = members.iter().map(|(.., group)| group).collect();
    agree_within(3 * SECOND, &groups, STORM).await;
    tokio::time::sleep(2 * SECOND).await;
    let lists: Vec<_> = members.iter().map(|(faults, ..)| faults.calls().lists).collect();
    assert!(*lists.iter().max().unwrap() <= 5, "{lists:?}");

    // Spread over ten seconds, the storm costs at most one list a second.
    for (.., group) in &members[..100] {
        group.clone().leave().await.unwrap();
        tokio::time::sleep(100 * MS).await;
    }
    let last = &members[STORM - 1].0;
    let before = lists[STORM - 1];
    agree_within(3 * SECOND, &groups[100..], STORM - 100).await;
    let cost = last.calls().lists - before;
    assert!((1..=25).contains(&cost), "{cost} lists for a hundred leaves in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_group_is_listed_by_the_periodic_check_alone() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    tokio::time::sleep(SECOND).await;
    let before = agent.faults().calls();
    tokio::time::sleep(100 * SECOND).await;
    let after = agent.faults().calls();
    let (lists, heartbeats) = (after.lists - before.lists, after.commits - before.commits);
    assert!((8..=13).contains(&lists), "every ten seconds: {lists}");
    assert!((99..=101).contains(&heartbeats), "every second: {heartbeats}");
    assert_eq!(after.writes, before.writes);
    assert_eq!(group.view().standing(), Standing::Member);
}

#[tokio::test(start_paused = true)]
async fn a_rolling_restart_within_the_settling_time_moves_keys_once() {
    let store = Store::memory();
    let settle = 3 * SECOND;
    let watcher = store.agent("a").await;
    let in_a = watcher.coordinator.join("g").settle(settle).await.unwrap();
    let mut olds = Vec::new();
    for id in ["b-1", "c-1"] {
        let agent = store.agent(id).await;
        let group = agent.coordinator.join("g").settle(settle).await.unwrap();
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
        news.push((new.coordinator.join("g").settle(settle).await.unwrap(), new));
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

#[tokio::test(start_paused = true)]
async fn a_restart_under_the_same_ids_within_the_settling_time_moves_nothing() {
    let store = Store::memory();
    let settle = 3 * SECOND;
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let in_a = a.coordinator.join("g").settle(settle).await.unwrap();
    let _in_b = b.coordinator.join("g").settle(settle).await.unwrap();
    tokio::time::sleep(2 * settle).await;
    let mut rebalances = in_a.rebalances();
    assert_eq!(next_change(&mut rebalances).await.members(), (0, 2));
    b.coordinator.shutdown().await.unwrap();
    tokio::time::sleep(SECOND).await;
    let b = store.started("b").await;
    let in_b = b.coordinator.join("g").settle(settle).await.unwrap();
    let moved = tokio::time::timeout(10 * settle, rebalances.next()).await;
    assert!(moved.is_err(), "{moved:?}");
    settles_within(settle, &[&in_a, &in_b]).await;
}

#[tokio::test(start_paused = true)]
async fn a_membership_that_never_settles_is_adopted_after_five_settling_times() {
    let store = Store::memory();
    let settle = 2 * SECOND;
    let a = store.agent("a").await;
    let in_a = a.coordinator.join("g").settle(settle).await.unwrap();
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

#[tokio::test(start_paused = true)]
async fn the_znode_of_our_own_dying_session_is_taken_over() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let old = agent.coordinator.session_id().unwrap();
    // The ensemble last hears of the session half a second after its last confirmed heartbeat. So half a second
    // before the session expires, its client gives it up.
    tokio::time::sleep(5500 * MS).await;
    agent.suspend();
    tokio::time::sleep(store.session_timeout - 100 * MS).await;
    let admin = store.session().await;
    let (_, stat) = znode(&*admin, &store.path("g/a")).await;
    assert!(store.ensemble().sessions().contains(&old), "the old session still lives");
    assert_ne!(stat.ephemeral_owner, Some(old));
    assert_eq!(stat.ephemeral_owner, agent.coordinator.session_id());
    settles_within(50 * MS, &[&group]).await;
    // Its end takes nothing along.
    tokio::time::sleep(SECOND).await;
    assert!(!store.ensemble().sessions().contains(&old));
    settles_within(10 * MS, &[&group]).await;
}

#[tokio::test(start_paused = true)]
async fn an_ensemble_that_comes_late_is_found() {
    let store = Store::memory();
    let ensemble: &Memory = store.ensemble();
    ensemble.refuse_connections(true);
    let agent = store.started("a").await;
    let clock = store.connector().clock();
    let begin = clock.now();
    let group = agent.join("g").await;
    for _ in 0..100 {
        let share = group.extract_my_subset(universe()).await.unwrap();
        assert!(share.is_empty() && !share.is_valid());
        let share = agent.coordinator.extract_my_subset("h", universe()).await.unwrap();
        assert!(share.is_empty() && !share.is_valid());
    }
    assert_eq!(clock.now(), begin, "nothing waits");
    tokio::time::sleep(300 * SECOND).await;
    assert!(group.extract_my_subset(universe()).await.unwrap().is_empty());
    ensemble.refuse_connections(false);
    // The longest delay between two attempts.
    settles_within(30 * SECOND + store.round(), &[&group]).await;
}
