//! Links that fail for a while, or in one direction: which outage changes nothing, and how long the keys of a member that
//! is cut off have no owner.

use std::time::Duration;

use apportion::{Group, group::Standing};

use super::{two_members, watch_takeover};
use crate::support::{
    MS, Mode, SECOND,
    fleet::{Agent, Store, next_change, settles_within},
};

/// With this timeout a heartbeat is sent each second, and its validity is five seconds.
const T: Duration = Duration::from_secs(10);

async fn members(store: &Store, count: usize) -> Vec<(Agent, Group)> {
    let mut members = Vec::new();
    for number in 0..count {
        let agent = store.agent(&format!("member-{number}")).await;
        let group = agent.join("g").await;
        members.push((agent, group));
        // So that their heartbeats are in different phases.
        tokio::time::sleep(70 * MS).await;
    }
    let groups: Vec<_> = members.iter().map(|(_, group)| group).collect();
    settles_within(store.round() + SECOND, &groups).await;
    members
}

/// How many of the members have no share at some moment of an outage of this length and the two seconds after it.
async fn lapses(members: &[(Agent, Group)], mode: Mode, outage: Duration) -> usize {
    let mut has_lapsed = vec![false; members.len()];
    let mut watch = async |span: Duration| {
        let steps = span.as_millis() / 20;
        for _ in 0..steps {
            tokio::time::sleep(20 * MS).await;
            for (lapsed, (_, group)) in has_lapsed.iter_mut().zip(members) {
                *lapsed |= group.view().standing() != Standing::Member;
            }
        }
    };
    members.iter().for_each(|(agent, _)| agent.proxy().set(mode));
    watch(outage).await;
    members.iter().for_each(|(agent, _)| agent.proxy().set(Mode::Pass));
    watch(2 * SECOND).await;
    has_lapsed.into_iter().filter(|lapsed| *lapsed).count()
}

#[tokio::test]
async fn an_outage_that_ends_a_heartbeat_before_the_validity_changes_nothing() {
    let store = Store { session_timeout: T, ..Store::shared("short-outage").await };
    let members = members(&store, 20).await;
    let sessions: Vec<_> = members.iter().map(|(agent, _)| agent.coordinator.session_id()).collect();
    let mut lost = Vec::new();
    for (mode, outage) in [
        (Mode::Cut, 1000 * MS),
        (Mode::Cut, 2000 * MS),
        // A second less than the bound, for a machine that is busy.
        (Mode::Cut, 2700 * MS),
        (Mode::BlackHole, 1500 * MS),
        (Mode::BlackHole, 3000 * MS),
    ] {
        lost.push((mode, outage, lapses(&members, mode, outage).await));
    }
    assert!(lost.iter().all(|(.., lapsed)| *lapsed == 0), "members without a share: {lost:?}");
    let after: Vec<_> = members.iter().map(|(agent, _)| agent.coordinator.session_id()).collect();
    assert_eq!(after, sessions, "no session was lost");
}

#[tokio::test]
async fn a_round_trip_of_a_fifth_of_the_session_timeout_can_connect_and_keeps_its_share() {
    let store = Store { session_timeout: T, ..Store::shared("slow-from-the-start").await };
    let immediate = store.elsewhere("slow-from-the-start-immediate".into()).immediate();
    // An exclusive join takes more requests, one after another.
    tokio::join!(a_slow_start(store, 8 * T), a_slow_start(immediate, 4 * T));
}

async fn a_slow_start(store: Store, bound: Duration) {
    let (config, line) = store.prepare("a").await;
    let agent = Agent {
        coordinator: apportion::PartitionCoordinator::start(config).unwrap(),
        line,
        is_immediate: store.is_immediate,
    };
    agent.proxy().set(Mode::Delay(T / 10));
    let group = agent.join("g").await;
    settles_within(bound, &[&group]).await;
    let mut rebalances = group.rebalances();
    next_change(&mut rebalances).await;
    let change = tokio::time::timeout(T, rebalances.next()).await;
    assert!(change.is_err(), "{change:?}");
}

/// After how long the keys of a member whose link is in this `mode` have another owner, in seconds.
async fn takeover(mode: Mode, namespace: &str) -> f64 {
    let store = Store { session_timeout: 4 * SECOND, ..Store::shared(namespace).await };
    let clock = store.connector().clock();
    let (a, in_a, _b, in_b) = two_members(&store).await;
    // In the middle between two heartbeats.
    tokio::time::sleep(300 * MS).await;
    let begin = clock.now();
    a.proxy().set(mode);
    let outage = watch_takeover(&*clock, begin, &in_a, &in_b, 5 * store.session_timeout).await;
    a.proxy().set(Mode::Pass);
    settles_within(10 * SECOND, &[&in_a, &in_b]).await;
    outage.taken.expect("it was taken over").as_secs_f64()
}

#[tokio::test]
async fn the_keys_of_a_member_that_is_cut_off_in_any_direction_have_another_owner_in_time() {
    let (timeout, slow) = (4.0, 1.2);
    let (both, to_server, to_client, reset, delayed) = tokio::join!(
        takeover(Mode::BlackHole, "cut-both"),
        takeover(Mode::SwallowToServer, "cut-to-server"),
        takeover(Mode::SwallowToClient, "cut-to-client"),
        takeover(Mode::Cut, "cut-reset"),
        takeover(Mode::Delay(Duration::from_secs_f64(slow)), "cut-delayed"),
    );
    let found = format!(
        "both {both:.1}, to the server {to_server:.1}, to the client {to_client:.1}, reset {reset:.1}, delay of 0.3 T \
         {delayed:.1}"
    );
    println!("{found}");
    // The ticks of the server, and what a loaded machine adds.
    let slack = 0.2 + 0.3 + 0.7;
    assert!(both < timeout + slack && to_server < timeout + slack && reset < timeout + slack, "{found}");
    // The server may receive one more request when the member connects again.
    let last = 1.3 * timeout;
    assert!(to_client < last + slack && delayed < last + slow + slack, "{found}");
}

#[tokio::test]
async fn a_member_whose_server_opens_another_session_at_a_reconnect_joins_again() {
    let store = Store { session_timeout: 4 * SECOND, ..Store::shared("forgetful").await };
    let (a, in_a, _b, in_b) = two_members(&store).await;
    let before = a.coordinator.session_id();
    let share = in_a.extract_my_subset(crate::support::fleet::universe()).await.unwrap();
    a.proxy().set(Mode::Cut);
    a.proxy().set(Mode::Forget);
    crate::support::until("the old session is left", 2 * SECOND, || !share.is_valid()).await;
    settles_within(store.expiry() + store.round(), &[&in_a, &in_b]).await;
    assert_ne!(a.coordinator.session_id(), before);
}
