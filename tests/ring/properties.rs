//! Properties of every ring, and the few figures that the documentation states.

use std::collections::{BTreeMap, BTreeSet};

use apportion::{
    HashRing, Label,
    ring::{HashRingBuilder, RingError},
};
use md5::{Digest, Md5};
use proptest::{collection, prelude::*, sample};

/// No generated fleet has this member: its id is too long.
const NOT_A_MEMBER: &str = "a member that is in no fleet";

/// Members with their weights, and the settings of their ring.
#[derive(Debug, Clone)]
struct Fleet {
    weights: BTreeMap<String, u32>,
    replicas: u32,
    label: Label,
}

impl Fleet {
    fn builder(&self) -> HashRingBuilder {
        HashRing::builder().replicas(self.replicas).label(self.label)
    }

    fn ring(&self) -> HashRing {
        build(
            self.weights
                .iter()
                .fold(self.builder(), |builder, (id, weight)| builder.weighted_member(id, *weight)),
        )
    }

    fn without(&self, member: &str) -> Fleet {
        let mut fleet = self.clone();
        fleet.weights.remove(member);
        fleet
    }

    fn with(&self, member: &str, weight: u32) -> Fleet {
        let mut fleet = self.clone();
        fleet.weights.insert(member.into(), weight);
        fleet
    }
}

fn build(builder: HashRingBuilder) -> HashRing {
    builder.build().expect("the settings are valid")
}

fn fleets(members: std::ops::Range<usize>) -> impl Strategy<Value = Fleet> {
    (
        collection::btree_map(".{0,12}", 1..4u32, members),
        1..30u32,
        sample::select(vec![Label::Plain, Label::PythonBytes]),
    )
        .prop_map(|(weights, replicas, label)| Fleet { weights, replicas, label })
}

/// A fleet with at least one member, and one of its members.
fn fleets_and_a_member() -> impl Strategy<Value = (Fleet, String)> {
    fleets(1..8).prop_flat_map(|fleet| {
        let ids: Vec<String> = fleet.weights.keys().cloned().collect();
        (Just(fleet), sample::select(ids))
    })
}

fn keys() -> impl Strategy<Value = Vec<String>> {
    collection::vec(".{0,40}", 100)
}

/// The reference, written as Python writes it: a map from point to member, filled in the order of the members.
fn model(fleet: &Fleet) -> BTreeMap<u32, &str> {
    let mut points = BTreeMap::new();
    for (id, weight) in &fleet.weights {
        let label = match fleet.label {
            Label::PythonBytes => python_repr(id),
            _ => id.clone(),
        };
        for replica in 0..fleet.replicas * weight {
            points.insert(position(&format!("{label}-{replica}")), id.as_str());
        }
    }
    points
}

fn position(text: &str) -> u32 {
    u32::from_be_bytes(Md5::digest(text)[..4].try_into().expect("four bytes"))
}

fn python_repr(id: &str) -> String {
    let quote = if id.contains('\'') && !id.contains('"') { '"' } else { '\'' };
    let mut text = format!("b{quote}");
    for byte in id.bytes() {
        match char::from(byte) {
            '\t' => text += "\\t",
            '\n' => text += "\\n",
            '\r' => text += "\\r",
            c if c == quote || c == '\\' => text.extend(['\\', c]),
            c if c == ' ' || c.is_ascii_graphic() => text.push(c),
            _ => text += &format!("\\x{byte:02x}"),
        }
    }
    text.push(quote);
    text
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_key_has_exactly_one_owner_and_it_is_the_one_of_the_reference(fleet in fleets(0..8), keys in keys()) {
        let (ring, model) = (fleet.ring(), model(&fleet));
        prop_assert_eq!(ring.points(), model.len());
        for key in &keys {
            let expected = model.range(position(key)..).find(|(point, _)| **point != position(key));
            let expected = expected.or_else(|| model.first_key_value()).map(|(_, id)| *id);
            prop_assert_eq!(ring.owner(key), expected);
            let owners = ring.members().filter(|member| ring.is_owner(member, key)).count();
            prop_assert_eq!(owners, usize::from(!ring.is_empty()));
            prop_assert!(!ring.is_owner(NOT_A_MEMBER, key));
        }
    }

    #[test]
    fn the_order_in_which_members_are_added_does_not_matter(
        fleet in fleets(0..8),
        shuffle in any::<prop::sample::Index>(),
        keys in keys(),
    ) {
        let ring = fleet.ring();
        let mut members: Vec<_> = fleet.weights.iter().collect();
        members.reverse();
        if !members.is_empty() {
            let by = shuffle.index(members.len());
            members.rotate_left(by);
        }
        let add = |builder: HashRingBuilder, (id, weight): &(&String, &u32)| builder.weighted_member(*id, **weight);
        let other = build(members.iter().fold(fleet.builder(), add));
        prop_assert_eq!(&other, &ring);
        prop_assert_eq!(other.digest(), ring.digest());
        for key in &keys {
            prop_assert_eq!(other.owner(key), ring.owner(key));
        }
    }

    #[test]
    fn a_member_that_leaves_gives_away_its_own_keys_alone((fleet, leaver) in fleets_and_a_member(), keys in keys()) {
        let (before, after) = (fleet.ring(), fleet.without(&leaver).ring());
        for key in &keys {
            if before.owner(key) == Some(&leaver) {
                prop_assert_ne!(after.owner(key), Some(&*leaver));
                let heir: Option<&str> = before.owners(key).nth(1);
                prop_assert_eq!(after.owner(key), heir, "the heir is the next owner clockwise");
            } else {
                prop_assert_eq!(after.owner(key), before.owner(key));
            }
        }
    }

    #[test]
    fn a_member_that_joins_takes_keys_for_itself_alone((fleet, joiner) in fleets_and_a_member(), keys in keys()) {
        let (before, after) = (fleet.without(&joiner).ring(), fleet.ring());
        for key in &keys {
            if after.owner(key) != Some(&joiner) {
                prop_assert_eq!(after.owner(key), before.owner(key));
            }
        }
    }

    #[test]
    fn a_weight_that_grows_moves_keys_to_that_member_alone((fleet, member) in fleets_and_a_member(), keys in keys()) {
        let weight = fleet.weights[&member];
        let (before, after) = (fleet.ring(), fleet.with(&member, weight + 2).ring());
        prop_assert_eq!(before.weight(&member), Some(weight));
        prop_assert_eq!(after.weight(&member), Some(weight + 2));
        prop_assert_eq!(after.points(), model(&fleet.with(&member, weight + 2)).len());
        prop_assert!(after.fraction(&member) >= before.fraction(&member));
        for key in &keys {
            if after.owner(key) != Some(&member) {
                prop_assert_eq!(after.owner(key), before.owner(key));
            }
        }
    }

    #[test]
    fn owners_are_all_members_once_from_the_owner_on(fleet in fleets(0..8), keys in keys()) {
        let ring = fleet.ring();
        for key in &keys {
            let owners: Vec<&str> = ring.owners(key).collect();
            prop_assert_eq!(owners.first().copied(), ring.owner(key));
            prop_assert_eq!(owners.len(), ring.len());
            let distinct: BTreeSet<&str> = owners.iter().copied().collect();
            prop_assert!(distinct.into_iter().eq(ring.members()));
        }
    }

    #[test]
    fn ignored_members_are_left_out_and_the_others_keep_their_order(
        fleet in fleets(0..8),
        ignored in collection::vec(any::<prop::sample::Index>(), 0..4),
        keys in keys(),
    ) {
        let ring = fleet.ring();
        let members: Vec<&str> = ring.members().collect();
        let mut ignored: Vec<&str> =
            if members.is_empty() { Vec::new() } else { ignored.iter().map(|i| *i.get(&members)).collect() };
        ignored.push(NOT_A_MEMBER);
        for key in &keys {
            let expected: Vec<&str> = ring.owners(key).filter(|owner| !ignored.contains(owner)).collect();
            prop_assert_eq!(ring.owners(key).ignoring(&ignored).collect::<Vec<_>>(), expected);
            prop_assert_eq!(ring.owners(key).ignoring(ring.members()).next(), None);
        }
    }

    #[test]
    fn fractions_are_the_lengths_of_the_arcs_and_add_up_to_one(fleet in fleets(1..8)) {
        let (ring, model) = (fleet.ring(), model(&fleet));
        let mut arcs: BTreeMap<&str, u64> = BTreeMap::new();
        let mut start = 0;
        for (&point, id) in &model {
            *arcs.entry(id).or_default() += u64::from(point) - start;
            start = u64::from(point);
        }
        *arcs.entry(model.first_key_value().unwrap().1).or_default() += (1 << 32) - start;
        for member in ring.members() {
            let arc = arcs.get(member).copied().unwrap_or(0);
            prop_assert_eq!(ring.fraction(member), arc as f64 / (1u64 << 32) as f64);
        }
        prop_assert_eq!(ring.members().map(|member| ring.fraction(member)).sum::<f64>(), 1.0);
        prop_assert_eq!(ring.fraction(NOT_A_MEMBER), 0.0);
    }

    #[test]
    fn any_two_different_rings_have_different_digests((fleet, member) in fleets_and_a_member()) {
        let ring = fleet.ring();
        let mut others = vec![fleet.without(&member), fleet.with(&member, fleet.weights[&member] + 1)];
        others.push(fleet.with(NOT_A_MEMBER, 1));
        others.push(fleet.without(&member).with(NOT_A_MEMBER, fleet.weights[&member]));
        others.push(Fleet { replicas: fleet.replicas + 1, ..fleet.clone() });
        let label = if fleet.label == Label::Plain { Label::PythonBytes } else { Label::Plain };
        others.push(Fleet { label, ..fleet.clone() });
        prop_assert_eq!(fleet.clone().ring().digest(), ring.digest());
        for other in others {
            prop_assert_ne!(other.ring().digest(), ring.digest());
            prop_assert_ne!(&other.ring(), &ring);
        }
    }
}

#[test]
fn an_empty_ring_owns_nothing() {
    let ring = build(HashRing::builder());
    assert!(ring.is_empty());
    assert_eq!((ring.len(), ring.points(), ring.members().count()), (0, 0, 0));
    assert_eq!(ring.owner("key"), None);
    assert!(!ring.is_owner("", "key"));
    assert_eq!(ring.owners("key").ignoring(["a"]).next(), None);
    assert_eq!((ring.fraction(""), ring.weight(""), ring.contains("")), (0.0, None, false));
}

#[test]
fn one_member_owns_everything() {
    for replicas in [1, 100] {
        let ring = build(HashRing::builder().replicas(replicas).member(""));
        assert_eq!(ring.fraction(""), 1.0);
        assert!((0..1000).all(|key| ring.is_owner("", &key)));
    }
}

#[test]
fn settings_that_make_no_ring_are_refused_by_name() {
    let refusal = |builder: HashRingBuilder| builder.build().unwrap_err();
    let builder = HashRing::builder;
    assert_eq!(refusal(builder().replicas(0)), RingError::ZeroReplicas);
    let error = refusal(builder().member("a").weighted_member("b\n", 0));
    assert_eq!(error, RingError::ZeroWeight { member: "b\n".into() });
    assert_eq!(error.to_string(), r"the weight of member `b\n` is zero");

    let error = refusal(builder().weighted_member("a", u32::MAX).member("b"));
    let points = 100 * (u64::from(u32::MAX) + 1);
    assert_eq!(error, RingError::TooManyPoints { points });
    let all = (0..9)
        .fold(builder().replicas(u32::MAX), |builder, id| builder.weighted_member(id.to_string(), u32::MAX));
    assert_eq!(refusal(all), RingError::TooManyPoints { points: u64::MAX }, "the sum does not wrap around");
    let limit = u32::try_from(HashRingBuilder::MAX_POINTS).unwrap();
    let error = refusal(builder().replicas(1).weighted_member("a", limit).member("b"));
    assert_eq!(error.to_string(), "the ring would have 16777217 points, and the limit is 16777216");
}

#[test]
fn a_repeated_id_is_one_member_with_its_last_weight_and_place() {
    let ring = build(HashRing::builder().weighted_member("a", 5).member("b").weighted_member("a", 2));
    assert_eq!(ring, build(HashRing::builder().weighted_member("a", 2).member("b")));
    assert_eq!((ring.len(), ring.weight("a"), ring.points()), (2, Some(2), 300));

    let kept = build(HashRing::builder().members(["a", "b", "a"]).keep_order());
    assert_eq!(kept, build(HashRing::builder().members(["b", "a"]).keep_order()));
    assert_ne!(kept.digest(), build(HashRing::builder().members(["a", "b"])).digest());
    let sorted = build(HashRing::builder().members(["a", "b"]).keep_order());
    assert_eq!(sorted, build(HashRing::builder().members(["b", "a"])), "the kept order was the sorted one");
}

#[test]
fn the_digest_is_the_same_in_every_version() {
    let ring =
        HashRing::builder().label(Label::PythonBytes).weighted_member("host-é", 3).member("a b\n1 1 c");
    assert_eq!(format!("{:016x}", build(ring).digest()), "7080bbd4bb7ce1e3");
    assert_eq!(format!("{:016x}", build(HashRing::builder()).digest()), "6d05744e673fc2a8");
}

#[test]
fn an_id_with_separators_has_another_digest_than_two_members() {
    let one = build(HashRing::builder().member("a\n1 1 b"));
    let two = build(HashRing::builder().members(["a", "b"]));
    assert_ne!(one.digest(), two.digest());
}

#[test]
fn weights_decide_how_much_a_member_owns() {
    let ring =
        build(HashRing::builder().replicas(400).member("a").weighted_member("b", 2).weighted_member("c", 5));
    for (member, ideal) in [("a", 1.0 / 8.0), ("b", 2.0 / 8.0), ("c", 5.0 / 8.0)] {
        let fraction = ring.fraction(member);
        assert!((fraction / ideal - 1.0).abs() < 0.15, "{member} has {fraction} instead of {ideal}");
        let owned = (0..20_000).filter(|key| ring.is_owner(member, key)).count() as f64 / 20_000.0;
        assert!(
            (owned - fraction).abs() < 0.015,
            "{member} owns {owned} of the keys, {fraction} of the ring"
        );
    }
}

#[test]
fn ten_members_share_a_thousand_keys_and_an_eleventh_takes_less_than_a_tenth() {
    let members: Vec<String> = (0..10).map(|number| format!("agent-{number}")).collect();
    let keys: Vec<String> = (0..1000).map(|number| format!("alarm-{number}")).collect();
    for label in [Label::Plain, Label::PythonBytes] {
        let ring = build(HashRing::builder().label(label).members(&members));
        let owned =
            |ring: &HashRing, member: &str| keys.iter().filter(|key| ring.is_owner(member, *key)).count();
        let counts: Vec<usize> = members.iter().map(|member| owned(&ring, member)).collect();
        assert_eq!(counts.iter().sum::<usize>(), keys.len());
        assert!(counts.iter().all(|count| (60..=150).contains(count)), "{counts:?}");

        let grown = build(HashRing::builder().label(label).members(&members).member("agent-10"));
        let moved = keys.iter().filter(|key| grown.owner(*key) != ring.owner(*key)).count();
        assert_eq!(moved, owned(&grown, "agent-10"));
        assert!((40..100).contains(&moved), "{moved} keys moved");
    }
}

#[test]
fn the_balance_of_a_hundred_replicas_is_what_the_documentation_says() {
    let mut deviations = Vec::new();
    for trial in 0..40 {
        let ring = build(HashRing::builder().members((0..10).map(|number| format!("host-{trial}-{number}"))));
        let fractions: Vec<f64> = ring.members().map(|member| ring.fraction(member)).collect();
        let variance = fractions.iter().map(|fraction| (fraction / 0.1 - 1.0).powi(2)).sum::<f64>() / 10.0;
        deviations.push(variance.sqrt());
    }
    let mean = deviations.iter().sum::<f64>() / deviations.len() as f64;
    assert!((0.08..0.11).contains(&mean), "the shares of equal members differ by {mean}");
}
