//! Members in groups with Python members that use the ring of tooz: either all have one ring, or ours have no share and
//! say why.

use std::time::Duration;

use apportion::{
    Config, Error, Group, HashRing, KeySet, Label, PartitionCoordinator,
    backend::Op,
    group::{Standing, Unclear},
};
use rmpv::Value;
use tracing::Level;

use crate::support::{
    MS, SECOND,
    events::Events,
    fleet::{Agent, Store, in_both_modes, in_both_modes_on_both_backends, sees, settles_within, universe},
    until,
};

in_both_modes_on_both_backends!(
    weights_of_python_members_count_as_tooz_counts_them,
    a_member_that_python_members_may_count_differently_is_named_until_it_leaves,
    ids_that_python_cannot_use_are_refused_beside_python,
    a_python_member_that_changes_its_weight_in_place_is_named,
    a_member_that_joins_after_a_weight_has_changed_has_no_share,
    members_with_the_rings_of_aodh_and_tooz_share_nothing_together,
    members_of_this_library_divide_a_key_set_by_their_weights,
);

fn tooz(config: Config) -> Config {
    config.label(Label::Tooz).replicas(32)
}

async fn agent(store: &Store, id: &str) -> Agent {
    store.agent_with(id, tooz).await
}

/// The data of a Python member with this weight.
fn weight(weight: impl Into<Value>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let map = Value::Map(vec![("weight".into(), weight.into())]);
    rmpv::encode::write_value(&mut bytes, &map).expect("a vector takes every write");
    bytes
}

/// Waits until the group has a share again, or none.
async fn stands(store: &Store, group: &Group, standing: Standing) {
    until("the standing changes", 2 * store.round(), || group.view().standing() == standing).await;
}

/// The member that is named, and why.
fn unclear(group: &Group) -> (String, Unclear) {
    match group.view().refusal() {
        Some(Error::RingUnclear { member, reason, .. }) => (member.to_string(), reason.clone()),
        other => panic!("{other:?}"),
    }
}

/// Checks that this member owns exactly what a Python member gives it.
fn owns_as_python_says(group: &Group, members: &[(&str, u32)]) {
    let add = |ring: apportion::ring::HashRingBuilder, (id, weight): &(&str, u32)| {
        ring.weighted_member(*id, *weight)
    };
    let theirs = members.iter().fold(HashRing::builder().tooz(32), add).build().unwrap();
    let view = group.view();
    assert_eq!(*view.ring(), theirs);
    for key in universe() {
        assert_eq!(view.owns(&key), theirs.owner(&key) == Some(view.me().as_str()), "{key}");
    }
}

async fn weights_of_python_members_count_as_tooz_counts_them(store: Store) {
    let (a, b) = (agent(&store, "a").await, agent(&store, "b").await);
    let in_a = a.joining("g").weight(3).await.unwrap();
    let in_b = b.join("g").await;
    let _peers = [
        store.plain("g", "two", &weight(2)).await,
        store.plain("g", "none", &weight(0)).await,
        store.plain("g", "less", &weight(-7)).await,
        store.plain("g", "default", b"\x80").await,
    ];
    for group in [&in_a, &in_b] {
        sees(group, 2 * store.round(), &["a", "b", "default", "less", "none", "two"]).await;
        stands(&store, group, Standing::Member).await;
        owns_as_python_says(group, &[("a", 3), ("b", 1), ("default", 1), ("two", 2)]);
    }
}

async fn a_member_that_python_members_may_count_differently_is_named_until_it_leaves(store: Store) {
    let a = agent(&store, "a").await;
    let in_a = a.join("g").await;
    let _python = store.plain("g", "python", &weight(1)).await;
    sees(&in_a, 2 * store.round(), &["a", "python"]).await;
    let cases = [
        (b"\xc0".to_vec(), Unclear::NoMap),
        (b"".to_vec(), Unclear::NoMap),
        (b"\xc4\x00".to_vec(), Unclear::NoMap),
        (b"\xa1x".to_vec(), Unclear::NoMap),
        (b"\xff garbage".to_vec(), Unclear::NoMap),
        (weight("3"), Unclear::Weight),
        (weight(1.5), Unclear::Weight),
        (weight(Value::Nil), Unclear::Weight),
        (weight(u64::MAX), Unclear::Weight),
        (weight(u32::MAX), Unclear::TooManyPoints),
    ];
    for (data, expected) in cases {
        let odd = store.plain("g", "odd", &data).await;
        stands(&store, &in_a, Standing::Refused).await;
        let (member, reason) = unclear(&in_a);
        assert_eq!(reason, expected, "{data:02x?}");
        assert!(member == "odd" || expected == Unclear::TooManyPoints, "{member}");
        let outcome = in_a.extract_my_subset(universe()).await;
        assert!(matches!(outcome, Err(Error::RingUnclear { .. })), "{outcome:?}");
        assert!(universe().iter().all(|key| !in_a.view().owns(key)));
        odd.close().await;
        stands(&store, &in_a, Standing::Member).await;
        owns_as_python_says(&in_a, &[("a", 1), ("python", 1)]);
    }
}

async fn ids_that_python_cannot_use_are_refused_beside_python(store: Store) {
    let a = agent(&store, "a").await;
    let in_a = a.join("g").await;
    let repeated = store.plain("g", "aa", &weight(1)).await;
    stands(&store, &in_a, Standing::Refused).await;
    assert_eq!(unclear(&in_a), ("aa".into(), Unclear::RepeatedId("a".parse().unwrap())));
    repeated.close().await;
    stands(&store, &in_a, Standing::Member).await;
    let foreign = store.plain("g", "группа", &weight(1)).await;
    stands(&store, &in_a, Standing::Refused).await;
    assert_eq!(unclear(&in_a), ("группа".into(), Unclear::NotAscii));
    foreign.close().await;
    stands(&store, &in_a, Standing::Member).await;
    // Among members of this library, ids that repeat each other do no harm.
    let twin = agent(&store, "aa").await;
    let in_twin = twin.join("g").await;
    settles_within(2 * store.round(), &[&in_a, &in_twin]).await;
}

async fn a_python_member_that_changes_its_weight_in_place_is_named(store: Store) {
    let checks = |config: Config| tooz(config).membership_check(200 * MS);
    let a = store.agent_with("a", checks).await;
    let in_a = a.join("g").await;
    let python = store.plain("g", "python", &weight(1)).await;
    sees(&in_a, 2 * store.round(), &["a", "python"]).await;
    stands(&store, &in_a, Standing::Member).await;
    let own = store.path("g/python");
    python.commit(vec![Op::set(&own, weight(5), None)]).await.unwrap();
    stands(&store, &in_a, Standing::Refused).await;
    assert_eq!(unclear(&in_a), ("python".into(), Unclear::Changed));
    python.close().await;
    stands(&store, &in_a, Standing::Member).await;
    let _again = store.plain("g", "python", &weight(5)).await;
    sees(&in_a, 2 * store.round(), &["a", "python"]).await;
    owns_as_python_says(&in_a, &[("a", 1), ("python", 5)]);
}

async fn a_member_that_joins_after_a_weight_has_changed_has_no_share(store: Store) {
    // The check is far away: only the list that the join causes can show the change.
    let rarely = |config: Config| tooz(config).membership_check(1000 * SECOND);
    let a = store.agent_with("a", rarely).await;
    let in_a = a.join("g").await;
    let python = store.plain("g", "python", &weight(1)).await;
    sees(&in_a, 2 * store.round(), &["a", "python"]).await;
    python.commit(vec![Op::set(&store.path("g/python"), weight(5), None)]).await.unwrap();
    let (config, _line) = store.prepare("b").await;
    let b = PartitionCoordinator::start(tooz(config)).unwrap();
    let in_b = store.join(&b, "g").await.unwrap();
    for group in [&in_a, &in_b] {
        stands(&store, group, Standing::Refused).await;
        assert_eq!(unclear(group), ("python".into(), Unclear::Changed));
    }
}

async fn members_with_the_rings_of_aodh_and_tooz_share_nothing_together(store: Store) {
    let a = agent(&store, "a").await;
    let in_a = a.join("g").await;
    settles_within(store.round(), &[&in_a]).await;
    let (config, _line) = store.prepare("b").await;
    let b = PartitionCoordinator::start(config.label(Label::PythonBytes).replicas(32)).unwrap();
    let in_b = store.join(&b, "g").await.unwrap();
    // Where keys are handed over, the ring of a group is that of the members which were there first.
    let refused = if store.is_immediate { vec![&in_a, &in_b] } else { vec![&in_b] };
    for group in refused {
        stands(&store, group, Standing::Refused).await;
        let refusal = group.view().refusal().map(ToString::to_string).unwrap();
        assert!(refusal.contains("labelled tooz"), "{refusal}");
    }
    assert!(universe().iter().all(|key| !in_b.view().owns(key)));
    assert!(store.is_immediate || universe().iter().all(|key| in_a.view().owns(key)));
    b.shutdown().await.unwrap();
    stands(&store, &in_a, Standing::Member).await;
}

async fn members_of_this_library_divide_a_key_set_by_their_weights(store: Store) {
    let keys: KeySet<String> = (0..2000).map(|number| format!("resource-{number}")).collect();
    let a = agent(&store, "a").await;
    let in_a = a.join("g").await;
    let mut rebalances = in_a.rebalances();
    let first = rebalances.next().await.unwrap();
    assert_eq!(first.gained_of(&keys).len(), keys.len());
    let b = agent(&store, "b").await;
    let in_b = b.joining("g").weight(3).await.unwrap();
    settles_within(2 * store.round(), &[&in_a, &in_b]).await;
    let change = rebalances.next().await.unwrap();
    let theirs = in_b.share(&keys).await.unwrap();
    assert_eq!(change.lost_of(&keys), theirs.to_vec(), "what one loses, the other has");
    assert!(keys.iter().all(|key| change.is_lost(key) == in_b.view().owns(key)));
    let mine = in_a.share(&keys).await.unwrap();
    assert_eq!(mine.len() + theirs.len(), keys.len());
    assert!((1200..1800).contains(&theirs.len()), "about three quarters: {}", theirs.len());
    assert_eq!(in_a.view().ring().weight("b"), Some(3));
    drop((mine, theirs));
    b.coordinator.shutdown().await.unwrap();
    // Where keys are handed over, the new membership comes first, and the keys when the other one has released them.
    let mut back = 0;
    while back < change.lost_of(&keys).len() {
        back += rebalances.next().await.unwrap().gained_of(&keys).len();
    }
    assert_eq!(back, change.lost_of(&keys).len());
}

mod in_memory {
    use super::{
        a_key_beside_a_point_is_acted_on_by_one_member_at_a_time,
        a_ring_of_aodh_warns_once_beside_a_member_that_announces_a_weight,
        a_ring_of_tooz_does_not_warn_of_weights, in_both_modes,
    };

    in_both_modes!(
        a_ring_of_aodh_warns_once_beside_a_member_that_announces_a_weight,
        a_ring_of_tooz_does_not_warn_of_weights,
        a_key_beside_a_point_is_acted_on_by_one_member_at_a_time,
    );
}

async fn a_ring_of_aodh_warns_once_beside_a_member_that_announces_a_weight(store: Store) {
    let events = Events::of("apportion::group::view");
    let a = store.agent_with("a", |config| config.label(Label::PythonBytes)).await;
    let in_a = a.join("g").await;
    let aodh = store.plain("g", "aodh", b"\xc0").await;
    sees(&in_a, store.round(), &["a", "aodh"]).await;
    assert_eq!(events.take(Level::WARN), [""; 0]);
    for _ in 0..2 {
        let other = store.plain("g", "ceilometer", &weight(1)).await;
        sees(&in_a, store.round(), &["a", "aodh", "ceilometer"]).await;
        assert_eq!(in_a.view().standing(), Standing::Member, "it is a hint only");
        other.close().await;
        sees(&in_a, store.round(), &["a", "aodh"]).await;
    }
    aodh.close().await;
    let warnings = events.take(Level::WARN);
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let expected = ["group=g ", "member=ceilometer ", "hint=\"tooz-ring\" "];
    assert!(expected.iter().all(|part| warnings[0].contains(part)), "{warnings:?}");
}

async fn a_ring_of_tooz_does_not_warn_of_weights(store: Store) {
    let events = Events::of("apportion::group::view");
    let a = agent(&store, "a").await;
    let in_a = a.join("g").await;
    let _other = store.plain("g", "ceilometer", &weight(1)).await;
    sees(&in_a, store.round(), &["a", "ceilometer"]).await;
    assert_eq!(events.take(Level::WARN), [""; 0]);
}

/// Keys whose hash begins with the same 32 bits as a point of the members `host-1` to `host-3` with the weight 100.
const CLOSE: [&str; 12] = [
    "k623042", "k829689", "k893886", "k1366080", "k2303409", "k2719974", "k4797048", "k5723662", "k6235566",
    "k6722232", "k7190429", "k8998985",
];

async fn a_key_beside_a_point_is_acted_on_by_one_member_at_a_time(store: Store) {
    let mut agents = Vec::new();
    for id in ["host-1", "host-2", "host-3"] {
        agents.push(agent(&store, id).await);
    }
    let mut groups = Vec::new();
    let mut first = Vec::new();
    for (number, agent) in agents.iter().enumerate() {
        groups.push(agent.joining("g").weight(100).await.unwrap());
        if number == 0 {
            let all = groups[0].extract_my_subset(CLOSE).await.unwrap();
            first.extend(all);
            assert_eq!(first.len(), CLOSE.len(), "there is no other member");
        }
    }
    let members: Vec<&Group> = groups.iter().collect();
    for group in &members {
        sees(group, 2 * store.round(), &["host-1", "host-2", "host-3"]).await;
    }
    let theirs = [("host-1", 100), ("host-2", 100), ("host-3", 100)];
    let add =
        |ring: apportion::ring::HashRingBuilder, (id, weight): (&str, u32)| ring.weighted_member(id, weight);
    let ring = theirs.into_iter().fold(HashRing::builder().tooz(32), add).build().unwrap();
    // What is in progress at the first member goes on there. In an immediate group, what it has lost ends, and perhaps
    // also a key that is beside a point of another member.
    for held in &first {
        let is_its_own = ring.owner(**held) == Some("host-1");
        assert!(if store.is_immediate { is_its_own || !held.is_valid() } else { held.is_valid() }, "{held}");
        for (group, id) in members.iter().zip(["host-1", "host-2", "host-3"]).skip(1) {
            let starts = group.extract_my_subset([**held]).await.unwrap().into_iter().count();
            let may = store.is_immediate && ring.owner(**held) == Some(id);
            assert_eq!(starts, usize::from(may), "{held} at {id}");
        }
    }
    drop(first);
    until("each has its key", 2 * store.round(), || {
        CLOSE.iter().all(|key| members.iter().filter(|group| group.view().owns(*key)).count() == 1)
    })
    .await;
    for key in CLOSE {
        for (group, id) in members.iter().zip(["host-1", "host-2", "host-3"]) {
            let share = group.extract_my_subset([key]).await.unwrap();
            let starts = share.into_iter().count();
            assert_eq!(starts, usize::from(ring.owner(key) == Some(id)), "{key} at {id}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_an_unclear_ring_each_key_waits_for_the_python_members_that_may_have_had_it() {
    const GRACE: Duration = Duration::from_secs(30);
    let store = Store::memory();
    let a = agent(&store, "a").await;
    let in_a = a.coordinator.join("g").plain_grace(GRACE).await.unwrap();
    let _python = store.plain("g", "python", &weight(1)).await;
    sees(&in_a, 2 * store.round(), &["a", "python"]).await;
    owns_as_python_says(&in_a, &[("a", 1), ("python", 1)]);
    let odd = store.plain("g", "odd", b"\xc0").await;
    stands(&store, &in_a, Standing::Refused).await;
    odd.close().await;
    stands(&store, &in_a, Standing::Member).await;
    let clock = store.connector().clock();
    let cleared = clock.now();
    assert!(!in_a.view().is_exclusive() && universe().iter().all(|key| !in_a.view().owns(key)));
    let owns_some = || universe().iter().any(|key| in_a.view().owns(key));
    until("the grace is over", 2 * GRACE, owns_some).await;
    let waited = clock.now().saturating_since(cleared);
    assert!(waited > GRACE - 2 * store.round(), "{waited:?}");
    owns_as_python_says(&in_a, &[("a", 1), ("python", 1)]);
}
