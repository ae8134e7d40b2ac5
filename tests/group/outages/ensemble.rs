//! Members of an ensemble of three servers that loses its leader, its majority or a link.

use std::{sync::Arc, time::Duration};

use apportion::{
    Config, Group, PartitionCoordinator,
    backend::{Connector, path::ZnodePath},
    group::Member,
};

use super::watch_takeover;
use crate::support::{
    Ensemble, MS, SECOND,
    fleet::{Via, exists, owners, settles_within, universe},
    until, zookeeper,
};

const ENSEMBLE_TIMEOUT: Duration = Duration::from_secs(4);

fn ensemble_config(hosts: &str, id: &str) -> Config {
    Config::for_backend(Via(Arc::new(zookeeper(hosts))))
        .member_id(id)
        .namespace("ensemble")
        .session_timeout(ENSEMBLE_TIMEOUT)
        .server_tick(100 * MS)
        .retry_backoff(100 * MS)
        .max_retry_interval(500 * MS)
}

#[tokio::test]
async fn the_death_of_a_leader_ends_no_membership_and_without_a_majority_no_member_acts() {
    let mut ensemble = Ensemble::start(100 * MS).await;
    let hosts = ensemble.connect_string();
    let mut members = Vec::new();
    for id in ["a", "b", "c"] {
        let coordinator = PartitionCoordinator::connect(ensemble_config(&hosts, id)).await.unwrap();
        let group = coordinator.join("g").await.unwrap();
        members.push((coordinator, group));
    }
    let groups: Vec<_> = members.iter().map(|(_, group)| group).collect();
    settles_within(5 * SECOND, &groups).await;
    let incarnations = |groups: &[&Group]| -> Vec<i64> {
        groups[0].view().members().iter().map(Member::incarnation).collect()
    };
    let before = incarnations(&groups);
    let leader = ensemble.leader().await;
    ensemble.kill(leader);
    ensemble.leader().await;
    settles_within(10 * SECOND, &groups).await;
    // Only a leader ends sessions, and a new leader gives all of them their full timeout.
    tokio::time::sleep(ENSEMBLE_TIMEOUT + SECOND / 2).await;
    settles_within(5 * SECOND, &groups).await;
    assert_eq!(incarnations(&groups), before, "a member had to join again");

    // Without a majority no member may act, and none does.
    let second = ensemble.leader().await;
    ensemble.kill(second);
    until("no member acts", ENSEMBLE_TIMEOUT / 2 + SECOND, || owners(&groups).values().all(Vec::is_empty))
        .await;
    ensemble.restart(second).await;
    settles_within(20 * SECOND, &groups).await;
}

#[tokio::test]
async fn a_member_on_a_follower_that_is_cut_from_its_leader_stops_although_its_reads_succeed() {
    let ensemble = Ensemble::start(100 * MS).await;
    let follower = ensemble.followers().await[0];
    let leader = ensemble.leader().await;
    let [at_follower, at_leader] = [follower, leader].map(|index| ensemble.server(index).connect_string());
    let a = PartitionCoordinator::connect(ensemble_config(&at_follower, "a")).await.unwrap();
    let b = PartitionCoordinator::connect(ensemble_config(&at_leader, "b")).await.unwrap();
    let (in_a, in_b) = (a.join("g").await.unwrap(), b.join("g").await.unwrap());
    settles_within(5 * SECOND, &[&in_a, &in_b]).await;
    let share = in_a.extract_my_subset(universe()).await.unwrap();
    let reader = zookeeper(&at_follower).open(20 * SECOND).await.unwrap();
    let own = ZnodePath::parse("/ensemble/g/a").unwrap();

    let clock = zookeeper(&at_follower).clock();
    let begin = clock.now();
    ensemble.cut_from_leader(follower).await;
    until("lapsed", ENSEMBLE_TIMEOUT, || !share.is_valid()).await;
    let stopped = clock.now().saturating_since(begin);
    assert!(stopped <= ENSEMBLE_TIMEOUT / 2 + SECOND / 2, "{stopped:?}");
    assert!(in_a.extract_my_subset(universe()).await.unwrap().is_empty());
    // The follower still answers reads: a member that trusted them would go on.
    let (_, stat) = reader.get(&own).await.unwrap().expect("the follower still shows the znode");
    assert_eq!(stat.ephemeral_owner, a.session_id());

    let outage = watch_takeover(&*clock, begin, &in_a, &in_b, ENSEMBLE_TIMEOUT + 5 * SECOND).await;
    assert!(outage.taken.unwrap() > stopped, "{outage:?}");
    let admin = zookeeper(&at_leader).open(20 * SECOND).await.unwrap();
    assert!(!exists(&*admin, &own).await);
    ensemble.heal();
    settles_within(20 * SECOND, &[&in_a, &in_b]).await;
}
