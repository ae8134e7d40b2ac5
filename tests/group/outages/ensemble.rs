//! Members of an ensemble of three servers that loses its leader, its majority or a link.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use apportion::{
    Config, Group, PartitionCoordinator, Share,
    backend::{Connector, CreateMode, Op, path::ZnodePath},
    clock::{Clock, Moment},
    group::Member,
};
use futures_util::future::join_all;

use super::watch_takeover;
use crate::support::{
    Ensemble, MS, SECOND, eventually,
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

/// When a member began each of its actions.
type Beginnings = Mutex<Vec<Moment>>;

/// Acts on one key after the other, and notes when. Only the end of its lease makes a pause.
async fn act(group: &Group, clock: &dyn Clock, beginnings: &Beginnings) {
    loop {
        for held in group.extract_my_subset(universe()).await.unwrap() {
            assert!(held.is_valid());
            beginnings.lock().unwrap().push(clock.now());
            tokio::time::sleep(5 * MS).await;
        }
    }
}

/// The longest time without a beginning, of all that began or ended between `from` and `to`.
fn longest_pause(beginnings: &Beginnings, from: Moment, to: Moment) -> Duration {
    let mut all = beginnings.lock().unwrap().clone();
    all.push(to);
    let pauses = all.windows(2).filter(|pair| pair[1] > from && pair[0] < to);
    pauses.map(|pair| pair[1].saturating_since(pair[0])).max().expect("it acts")
}

#[tokio::test]
async fn the_election_of_a_leader_ends_no_share_and_pauses_no_action() {
    const TIMEOUT: Duration = Duration::from_secs(10);
    let mut ensemble = Ensemble::start(100 * MS).await;
    let hosts = ensemble.connect_string();
    let mut members = Vec::new();
    for id in ["a", "b", "c"] {
        let config = ensemble_config(&hosts, id).namespace("election").session_timeout(TIMEOUT);
        let coordinator = PartitionCoordinator::connect(config).await.unwrap();
        let group = coordinator.join("g").await.unwrap();
        members.push((coordinator, group));
    }
    let groups: Vec<_> = members.iter().map(|(_, group)| group).collect();
    settles_within(5 * SECOND, &groups).await;

    let servers = zookeeper(&hosts);
    let clock = servers.clock();
    let operator = servers.open(20 * SECOND).await.unwrap();
    let written = ZnodePath::parse("/written").unwrap();
    operator.commit(vec![Op::create(&written, "", CreateMode::Persistent)]).await.unwrap();
    let beginnings = [(); 3].map(|()| Beginnings::default());
    let acting = groups.iter().zip(&beginnings).map(|(group, beginnings)| act(group, &*clock, beginnings));
    let acting = join_all(acting);
    let elections = async {
        for _ in 0..3 {
            // Held from before the election until after it.
            let mut shares = Vec::new();
            for group in &groups {
                shares.push(group.extract_my_subset(universe()).await.unwrap());
            }
            let leader = ensemble.leader().await;
            let calm = clock.now();
            tokio::time::sleep(SECOND / 2).await;
            let killed = clock.now();
            ensemble.kill(leader);
            eventually("a write succeeds", 20 * SECOND, || async {
                assert!(shares.iter().all(Share::is_valid), "a share was lost");
                operator.commit(vec![Op::set(&written, "", None)]).await.ok()
            })
            .await;
            let elected = clock.now();
            let longest = |from, to| beginnings.iter().map(|it| longest_pause(it, from, to)).max().unwrap();
            let (usual, pause) = (longest(calm, killed), longest(killed, elected));
            let outage = elected.saturating_since(killed);
            println!("no write for {outage:?}: at most {pause:?} without an action, {usual:?} before");
            assert!(pause <= usual + SECOND / 4, "{pause:?} in {outage:?}, and {usual:?} before");
            ensemble.restart(leader).await;
            assert!(shares.iter().all(Share::is_valid), "a share was lost");
        }
    };
    tokio::select! {
        biased;
        () = elections => {}
        _ = acting => unreachable!("they act until the end"),
    }
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
