//! Many members, in memory under paused time: that they agree, and what many joins at once cost.

use std::{collections::BTreeMap, time::Duration};

use apportion::{
    Config, Group, PartitionCoordinator,
    group::Standing,
    testing::{Faults, Request},
};

use crate::support::{
    MS, SECOND, eventually,
    fleet::{Store, settles_within},
    hold::Hold,
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
        let group = store.join(&coordinator, "g").await.unwrap();
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
    two_hundred(Store::memory()).await;
}

#[tokio::test(start_paused = true)]
async fn two_hundred_immediate_members_share_every_key_by_one_ring_while_some_leave_and_crash() {
    two_hundred(Store::memory().immediate()).await;
}

async fn two_hundred(store: Store) {
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
/// seconds to decode those millions of payloads; the number of lists depends only on how long the joins take.
const MANY: usize = if cfg!(debug_assertions) { 120 } else { 1000 };

#[tokio::test(start_paused = true)]
async fn many_joins_at_once_cost_each_member_few_lists() {
    let store = Store::memory().immediate();
    let members = crowd(&store, MANY, |config| config.replicas(1)).await;
    let groups: Vec<_> = members.iter().map(|(.., group)| group).collect();
    agree_within(3 * SECOND, &groups, MANY).await;
    tokio::time::sleep(2 * SECOND).await;
    let lists: Vec<_> = members.iter().map(|(faults, ..)| faults.calls().lists).collect();
    assert!(*lists.iter().max().unwrap() <= 5, "{lists:?}");

    // Spread over ten seconds, the joins cost at most one list a second.
    for (.., group) in &members[..100] {
        group.clone().leave().await.unwrap();
        tokio::time::sleep(100 * MS).await;
    }
    let last = &members[MANY - 1].0;
    let before = lists[MANY - 1];
    agree_within(3 * SECOND, &groups[100..], MANY - 100).await;
    let cost = last.calls().lists - before;
    assert!((1..=25).contains(&cost), "{cost} lists for a hundred leaves in ten seconds");
}

#[tokio::test(start_paused = true)]
async fn a_quiet_group_is_checked_now_and_then_and_not_read() {
    let store = Store::memory().immediate();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    tokio::time::sleep(SECOND).await;
    let before = agent.faults().calls();
    tokio::time::sleep(100 * SECOND).await;
    let after = agent.faults().calls();
    let (checks, heartbeats) = (after.gets - before.gets, after.commits - before.commits);
    assert!((8..=13).contains(&checks), "every ten seconds: {checks}");
    assert_eq!((after.lists, after.get_manys), (before.lists, before.get_manys));
    assert!((99..=101).contains(&heartbeats), "every second: {heartbeats}");
    assert_eq!(after.writes, before.writes);
    assert_eq!(group.view().standing(), Standing::Member);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_exclusive_group_costs_a_heartbeat_and_few_checks() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    tokio::time::sleep(SECOND).await;
    let before = agent.faults().calls();
    tokio::time::sleep(100 * SECOND).await;
    let after = agent.faults().calls();
    let checks = after.gets + after.node_watches - before.gets - before.node_watches;
    let heartbeats = after.commits - before.commits;
    assert!((15..=27).contains(&checks), "the head and the group, every ten seconds each: {checks}");
    assert_eq!((after.lists, after.get_manys), (before.lists, before.get_manys));
    assert!((99..=102).contains(&heartbeats), "those of the group count for the session: {heartbeats}");
    assert_eq!(after.writes, before.writes);
    assert_eq!(group.view().standing(), Standing::Member);
}

#[tokio::test(start_paused = true)]
async fn many_joins_at_once_to_an_exclusive_group_are_published_together() {
    let store = Store::memory();
    let members = crowd(&store, MANY, |config| config.replicas(1)).await;
    let groups: Vec<_> = members.iter().map(|(.., group)| group).collect();
    agree_within(5 * SECOND, &groups, MANY).await;
    tokio::time::sleep(2 * SECOND).await;
    let lists: Vec<_> = members.iter().map(|(faults, ..)| faults.calls().lists).collect();
    // Each lists the group when it finds no other member, and the first members for each change that they see.
    assert!(*lists.iter().max().unwrap() <= 12, "{lists:?}");
    assert!(lists.iter().sum::<u64>() <= 3 * MANY as u64, "{lists:?}");
}

#[tokio::test(start_paused = true)]
async fn one_epoch_gives_one_ring_also_to_a_member_that_reads_while_another_leaves() {
    for store in [Store::memory(), Store::memory().immediate()] {
        one_epoch_gives_one_ring(store).await;
    }
}

async fn one_epoch_gives_one_ring(store: Store) {
    let (connector, hold) = Hold::on(store.ensemble());
    // One of the first three members lists an exclusive group, and `z` is not one of them.
    let a = store.connect(connector.clone(), "a").await;
    let b = store.connect(connector.clone(), "b").await;
    let c = store.connect(connector, "c").await;
    let z = store.agent("z").await;
    let (in_a, in_b) = (store.join(&a, "g").await.unwrap(), store.join(&b, "g").await.unwrap());
    let (in_c, in_z) = (store.join(&c, "g").await.unwrap(), z.join("g").await);
    agree_within(store.round(), &[&in_a, &in_b, &in_c, &in_z], 4).await;

    let mut of_epoch = BTreeMap::new();
    let compare = |of_epoch: &mut BTreeMap<i64, u64>| {
        for view in [in_a.view(), in_b.view(), in_c.view()] {
            let digest = *of_epoch.entry(view.epoch()).or_insert(view.ring().digest());
            assert_eq!(digest, view.ring().digest(), "epoch {} of {}", view.epoch(), view.me());
        }
    };
    // The next list is that of the arrival of `d`, and `z` goes before its znode is read. Meanwhile the others had the
    // time to adopt the membership with `z`.
    let mut held = hold.after(0, |request| matches!(request, Request::GetMany(_)));
    let leave = async {
        held.reached().await;
        tokio::time::sleep(200 * MS).await;
        z.coordinator.shutdown().await.unwrap();
        drop(in_z);
        held.release();
    };
    let d = store.agent("d").await;
    let in_d = d.join("g").await;
    let comparing = async {
        for _ in 0..500 {
            compare(&mut of_epoch);
            tokio::time::sleep(5 * MS).await;
        }
    };
    tokio::join!(leave, comparing);
    assert!(of_epoch.len() >= 3, "{of_epoch:?}");
    assert_eq!(in_d.view().members().len(), 4);
}
