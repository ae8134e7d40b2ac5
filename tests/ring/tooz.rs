//! The ring of tooz against answers recorded from it, and against its rules written as Python has them.

use std::collections::{BTreeMap, BTreeSet};

use apportion::{
    HashRing, KeySet, Label,
    ring::{HashRingBuilder, RingError},
};
use md5::{Digest, Md5};
use proptest::{collection, prelude::*, sample};
use serde_json::Value;

use crate::support::golden::{golden, list, text, texts};

fn number(value: &Value) -> usize {
    value.as_u64().and_then(|number| usize::try_from(number).ok()).expect("a number")
}

fn small(value: &Value) -> u32 {
    number(value).try_into().expect("it fits")
}

/// The ring of these members with their weights, in the order in which Python has added them.
fn ring<'a>(partitions: u32, members: impl IntoIterator<Item = (&'a str, u32)>) -> HashRing {
    let add = |ring: HashRingBuilder, (id, weight): (&str, u32)| ring.weighted_member(id, weight);
    let builder = members.into_iter().fold(HashRing::builder().tooz(partitions), add);
    builder.keep_order().build().expect("the recorded rings are valid")
}

/// The first `count` owners of a key, as a set: Python returns one.
fn owners<'a>(ring: &'a HashRing, key: &str, count: usize, ignored: &[&str]) -> BTreeSet<&'a str> {
    ring.owners(key).ignoring(ignored).take(count).collect()
}

#[test]
fn every_key_has_the_owners_that_tooz_gives_it() {
    let golden = golden("ring_tooz.json");
    let keys = texts(&golden["keys"]);
    let mut answers = 0;
    for case in list(&golden["cases"]) {
        let name = text(&case["name"]);
        if text(&case["hash"]) != "md5" {
            let refused = HashRing::builder().ironic(5, text(&case["hash"])).unwrap_err();
            assert_eq!(refused, RingError::HashAlgorithm { algorithm: text(&case["hash"]).into() });
            continue;
        }
        let members = texts(&case["members"]);
        let weights = list(&case["weights"]).iter().map(small);
        let ring = ring(small(&case["partitions"]), members.iter().copied().zip(weights));
        assert_eq!(ring.points(), number(&case["ring"]["points"]), "{name}");
        let ids =
            |row: &Value| -> BTreeSet<&str> { list(row).iter().map(|at| members[number(at)]).collect() };
        let ignored: Vec<&str> = case
            .get("ignore")
            .map_or(vec![], |rows| list(rows).iter().map(|at| members[number(at)]).collect());
        let more = members.len() + 5;
        for (field, count, ignored) in [
            ("replicas1", 1, &[][..]),
            ("replicas2", 2, &[]),
            ("replicas3", 3, &[]),
            ("replicas1_ignore", 1, &ignored[..]),
            ("replicas2_ignore", 2, &ignored[..]),
            ("replicas_more_than_members", more, &[]),
            ("ignore_all", 1, &members[..]),
            ("ignore_unknown", 1, &["no such member"]),
        ] {
            for (key, row) in keys.iter().zip(case.get(field).map_or(&[][..], |rows| list(rows))) {
                assert_eq!(owners(&ring, key, count, ignored), ids(row), "{name}, {field}: {key:?}");
                if count == 1 && ignored.is_empty() {
                    let owner = ring.owner(*key).expect("there are members");
                    assert!(ring.is_owner(owner, *key) && ids(row).contains(owner));
                }
                answers += 1;
            }
        }
        // The same answers in batches.
        let single: Vec<_> = keys.iter().map(|key| ring.owner(*key)).collect();
        assert_eq!(ring.each_owner(&keys).map(|(_, owner)| owner).collect::<Vec<_>>(), single, "{name}");
    }
    assert!(answers > 10_000, "{answers} answers only");
}

#[test]
fn a_ring_whose_members_change_is_that_of_tooz_except_where_tooz_keeps_points_of_an_old_weight() {
    let golden = golden("ring_tooz.json");
    let keys = texts(&golden["keys"]);
    let (mut as_tooz, mut cleaner) = (0, 0);
    for history in list(&golden["histories"]) {
        let members = texts(&history["members"]);
        let mut changed = ring(32, list(&history["start"]).iter().map(|at| (members[number(at)], 1)));
        for op in list(&history["ops"]) {
            let member = members[number(&op[1])];
            changed = match text(&op[0]) {
                "add" => changed.with_member(member, small(&op[2])).unwrap(),
                "remove" => changed.without_member(member),
                other => panic!("unknown operation {other}"),
            };
        }
        let nodes: BTreeMap<&str, u32> = history["nodes"]
            .as_object()
            .unwrap()
            .iter()
            .map(|(at, weight)| (members[at.parse::<usize>().unwrap()], small(weight)))
            .collect();
        for (member, weight) in &nodes {
            assert_eq!(changed.weight(member), Some(*weight));
        }
        // A repeated `add` with a smaller weight leaves the old points in tooz: its ring is then not that of its members.
        let clean = 32 * nodes.values().sum::<u32>() as usize;
        assert_eq!((changed.len(), changed.points()), (nodes.len(), clean));
        if number(&history["ring"]["points"]) != clean {
            cleaner += 1;
            continue;
        }
        as_tooz += 1;
        for (key, row) in keys.iter().zip(list(&history["replicas1"])) {
            assert_eq!(changed.owner(*key), Some(members[number(&row[0])]), "{key:?}");
        }
    }
    assert_eq!((as_tooz, cleaner), (2, 4));
}

/// Keys whose hash begins with the same 32 bits as a point of [`close_fleet`]: one in 400,000 does. The second text is
/// the owner. For some, the first 32 bits alone would give another one.
const CLOSE: [(&str, &str); 24] = [
    ("k623042", "host-1"),
    ("k829689", "host-1"),
    ("k893886", "host-3"),
    ("k1366080", "host-1"),
    ("k2303409", "host-1"),
    ("k2694504", "host-1"),
    ("k2719974", "host-2"),
    ("k3856740", "host-1"),
    ("k4030864", "host-1"),
    ("k4297296", "host-1"),
    ("k4423070", "host-1"),
    ("k4797048", "host-3"),
    ("k5723662", "host-2"),
    ("k6218096", "host-1"),
    ("k6235566", "host-3"),
    ("k6722232", "host-3"),
    ("k7190429", "host-2"),
    ("k7535427", "host-1"),
    ("k7827963", "host-3"),
    ("k8014026", "host-3"),
    ("k8064732", "host-2"),
    ("k8115150", "host-3"),
    ("k8998985", "host-2"),
    ("k9135437", "host-2"),
];

fn close_fleet() -> BTreeMap<String, u32> {
    ["host-1", "host-2", "host-3"].map(|id| (id.to_owned(), 100)).into()
}

/// The reference, written as Python writes it.
fn model(partitions: u32, fleet: &BTreeMap<String, u32>) -> BTreeMap<u128, &str> {
    let mut points = BTreeMap::new();
    for (id, weight) in fleet {
        let mut repeated = id.clone();
        for _ in 0..partitions * weight {
            repeated += id;
            points.insert(position(&repeated), id.as_str());
        }
    }
    points
}

fn position(text: &str) -> u128 {
    u128::from_be_bytes(Md5::digest(text).into())
}

fn owner_by<'a>(model: &BTreeMap<u128, &'a str>, key: &str) -> Option<&'a str> {
    let next = position(key).checked_add(1).and_then(|next| model.range(next..).next());
    next.or_else(|| model.first_key_value()).map(|(_, id)| *id)
}

/// Checks every way to find the owners of keys against the model.
fn check(partitions: u32, fleet: &BTreeMap<String, u32>, keys: &[String]) {
    let model = model(partitions, fleet);
    let ring = ring(partitions, fleet.iter().map(|(id, weight)| (id.as_str(), *weight)));
    assert_eq!(ring.points(), model.len());
    let expected: Vec<Option<&str>> = keys.iter().map(|key| owner_by(&model, key)).collect();
    assert_eq!(keys.iter().map(|key| ring.owner(key)).collect::<Vec<_>>(), expected);
    assert_eq!(keys.iter().map(|key| ring.owners(key).next()).collect::<Vec<_>>(), expected);
    assert_eq!(ring.each_owner(keys).map(|(_, owner)| owner).collect::<Vec<_>>(), expected);
    let set: KeySet<&String> = keys.iter().collect();
    let mut grown = KeySet::default();
    keys.iter().for_each(|key| grown.insert(key));
    let mut fraction = 0.0;
    for id in fleet.keys() {
        let mine: Vec<&String> =
            keys.iter().zip(&expected).filter(|(_, owner)| **owner == Some(id)).map(|(key, _)| key).collect();
        assert_eq!(ring.extract(id, keys), mine);
        assert_eq!(set.owned_by(&ring, id).into_iter().copied().collect::<Vec<_>>(), mine);
        assert_eq!(grown.owned_by(&ring, id).into_iter().copied().collect::<Vec<_>>(), mine);
        let ranges = ring.ranges(id);
        assert!(keys.iter().all(|key| ranges.contains(key) == mine.contains(&key)));
        assert_eq!(ranges.clone().select(keys).collect::<Vec<_>>(), mine);
        let mut within: Vec<&String> = set.within(&ranges).copied().collect();
        assert!(within.is_sorted_by_key(|key| position(key) >> 96));
        within.sort();
        let mut sorted = mine.clone();
        sorted.sort();
        assert_eq!(within, sorted);
        fraction += ring.fraction(id);
    }
    assert!(fleet.is_empty() || fraction == 1.0, "{fraction}");
}

#[test]
fn a_key_beside_a_point_has_the_owner_that_all_128_bits_give_it() {
    let close: Vec<String> = CLOSE.iter().map(|(key, _)| (*key).to_owned()).collect();
    let fleet = close_fleet();
    let model = model(32, &fleet);
    let prefixes: BTreeSet<u128> = model.keys().map(|point| point >> 96).collect();
    assert!(close.iter().all(|key| prefixes.contains(&(position(key) >> 96))));
    assert!(CLOSE.iter().all(|(key, owner)| owner_by(&model, key) == Some(owner)));
    // Alone, and among others, so that they are hashed in blocks.
    let others = (0..1000).map(|number| format!("alarm-{number}"));
    check(32, &fleet, &close);
    check(32, &fleet, &close.iter().cloned().chain(others).collect::<Vec<_>>());
}

#[test]
fn a_key_beside_a_point_moves_when_its_owner_leaves() {
    let fleet = close_fleet();
    let before = ring(32, fleet.iter().map(|(id, weight)| (id.as_str(), *weight)));
    let set: KeySet<&str> = CLOSE.iter().map(|(key, _)| *key).collect();
    for gone in fleet.keys() {
        let after = before.without_member(gone);
        for id in fleet.keys() {
            let gained = after.ranges(id).difference(&before.ranges(id));
            let lost = before.ranges(id).difference(&after.ranges(id));
            for (key, owner) in CLOSE {
                assert_eq!(lost.contains(key), owner == gone && id == gone, "{key}");
                assert_eq!(gained.contains(key), owner == gone && after.owner(key) == Some(id), "{key}");
            }
            let of = |wanted: &dyn Fn(&str) -> bool| set.iter().filter(|key| wanted(key)).collect::<Vec<_>>();
            assert_eq!(set.select(&gained), of(&|key| gained.contains(key)));
            assert_eq!(set.select(&lost), of(&|key| lost.contains(key)));
        }
    }
}

#[test]
fn ids_that_repeat_each_other_have_one_owner_for_each_point_in_any_order_of_changes() {
    let fleet: BTreeMap<String, u32> = ["1", "11", "111", "2"].map(|id| (id.to_owned(), 2)).into();
    let keys: Vec<String> = (0..300).map(|number| format!("key-{number}")).collect();
    check(32, &fleet, &keys);
    let weights = || fleet.iter().map(|(id, weight)| (id.as_str(), *weight));
    let build = |members: Vec<(&str, u32)>| {
        let add = |ring: HashRingBuilder, (id, weight): (&str, u32)| ring.weighted_member(id, weight);
        members.into_iter().fold(HashRing::builder().tooz(32), add).build().unwrap()
    };
    let all = build(weights().collect());
    assert!(all.points() < 4 * 64, "some points are shared");
    for (gone, weight) in weights() {
        let rest = build(weights().filter(|(id, _)| *id != gone).collect());
        assert_eq!(all.without_member(gone).points(), rest.points());
        assert!(keys.iter().all(|key| all.without_member(gone).owner(key) == rest.owner(key)));
        assert_eq!(rest.with_member(gone, weight).unwrap().points(), all.points());
        assert!(keys.iter().all(|key| rest.with_member(gone, weight).unwrap().owner(key) == all.owner(key)));
    }
}

#[test]
fn ironic_has_two_to_the_power_of_the_exponent_partitions_and_md5_only() {
    for (exponent, partitions) in [(0, 1), (5, 32), (16, 65_536)] {
        let ring = HashRing::builder().ironic(exponent, "md5").unwrap().member("conductor").build().unwrap();
        assert_eq!((ring.replicas(), ring.points()), (partitions, partitions as usize));
        assert_eq!(ring, HashRing::builder().tooz(partitions).member("conductor").build().unwrap());
    }
    for exponent in [25, 31, 32, 63, 64, u32::MAX] {
        let refused = HashRing::builder().ironic(exponent, "md5").unwrap_err();
        assert!(matches!(refused, RingError::TooManyPoints { .. }), "{refused:?}");
    }
    for algorithm in ["sha1", "sha256", "MD5", ""] {
        let refused = HashRing::builder().ironic(5, algorithm).unwrap_err();
        assert_eq!(refused, RingError::HashAlgorithm { algorithm: algorithm.into() });
        assert!(refused.to_string().contains("only `md5`"));
    }
    assert_eq!(HashRing::builder().tooz(0).build().unwrap_err(), RingError::ZeroReplicas);
}

#[test]
fn a_ring_of_tooz_is_not_that_of_another_label() {
    let members = ["a", "b", "c"];
    let tooz = HashRing::builder().tooz(32).members(members).build().unwrap();
    assert_eq!(tooz.label(), Label::Tooz);
    for label in [Label::Plain, Label::PythonBytes] {
        let other = HashRing::builder().label(label).replicas(32).members(members).build().unwrap();
        assert!(other != tooz && other.digest() != tooz.digest());
        // From one to the other, everything moves that has another owner.
        let keys: Vec<String> = (0..500).map(|number| format!("key-{number}")).collect();
        let moved = keys.iter().filter(|key| other.owner(key) != tooz.owner(key)).count();
        let mut seen = 0;
        for member in members {
            let lost = other.ranges(member).difference(&tooz.ranges(member));
            seen += lost.select(&keys).count();
        }
        assert!(moved > 100 && seen == moved);
        let part = |moves: Vec<apportion::ring::Move<'_>>| -> u64 {
            moves.iter().map(|moved| u64::from(moved.range.end() - moved.range.start()) + 1).sum()
        };
        let there = part(other.moves(&tooz));
        assert!((0.3..1.0).contains(&(there as f64 / 2_f64.powi(32))), "{there}");
        assert_eq!(part(tooz.moves(&other)), there);
    }
}

fn fleets() -> impl Strategy<Value = (u32, BTreeMap<String, u32>)> {
    (1..20u32, collection::btree_map(".{0,12}", 1..4u32, 0..8))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_way_to_find_an_owner_agrees_with_the_rules_of_tooz(
        (partitions, fleet) in fleets(),
        keys in collection::vec(".{0,40}", 0..80),
    ) {
        check(partitions, &fleet, &keys);
    }

    #[test]
    fn a_change_gives_the_ring_that_a_build_gives_and_moves_only_what_it_must(
        (partitions, fleet) in fleets(),
        id in sample::select(vec!["", "new", "11", "host-1"]),
        weight in 1..4u32,
        keys in collection::vec(".{0,20}", 50),
    ) {
        let mut larger = fleet.clone();
        larger.insert(id.to_owned(), weight);
        let build = |fleet: &BTreeMap<String, u32>| {
            ring(partitions, fleet.iter().map(|(id, weight)| (id.as_str(), *weight)))
        };
        let sorted = |fleet: &BTreeMap<String, u32>| {
            let add = |ring: HashRingBuilder, (id, weight): (&String, &u32)| ring.weighted_member(id, *weight);
            fleet.iter().fold(HashRing::builder().tooz(partitions), add).build().unwrap()
        };
        let (before, after) = (sorted(&fleet), sorted(&larger));
        prop_assert_eq!(&before.with_member(id, weight).unwrap(), &after);
        let mut smaller = fleet.clone();
        smaller.remove(id);
        prop_assert_eq!(after.without_member(id), sorted(&smaller));
        prop_assert_eq!(build(&larger).points(), after.points());
        let moves = before.moves(&after);
        for key in &keys {
            let (from, to) = (before.owner(key), after.owner(key));
            let at = (position(key) >> 96) as u32;
            let is_moved = moves.iter().any(|it| it.range.contains(&at) && (it.from, it.to) == (from, to));
            prop_assert_eq!(from != to, is_moved);
            for member in larger.keys() {
                let lost = before.ranges(member).difference(&after.ranges(member));
                prop_assert_eq!(lost.contains(key), from == Some(member) && to != Some(member));
            }
        }
    }
}
