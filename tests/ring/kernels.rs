//! Each way to hash gives a key the same owner: each kernel, one key or many, one thread or several.

use std::collections::BTreeSet;

use apportion::{
    HashRing, Label, RingKey,
    ring::{HashRingBuilder, Kernel, KeySet, Ranges},
};
use md5::{Digest, Md5};
use proptest::{collection, prelude::*, sample};
use uuid::Uuid;

use crate::golden::{keys_of, label};
use crate::support::golden::{golden, list, text, texts};

fn reference_position(key: &[u8]) -> u32 {
    u32::from_be_bytes(Md5::digest(key)[..4].try_into().expect("four bytes"))
}

/// A straightforward ring: all points in order and a search.
struct Plain {
    points: Vec<(u32, String)>,
}

impl Plain {
    fn new(members: &[(String, u32)], replicas: u32) -> Plain {
        let mut points = Vec::new();
        for (member, weight) in members {
            points.extend(
                (0..replicas * weight)
                    .map(|r| (reference_position(format!("{member}-{r}").as_bytes()), member.clone())),
            );
        }
        points.sort_by_key(|(position, _)| *position);
        points.dedup_by(|later, kept| {
            let collide = later.0 == kept.0;
            if collide {
                std::mem::swap(later, kept);
            }
            collide
        });
        Plain { points }
    }

    fn owner(&self, position: u32) -> Option<&str> {
        let next = self.points.partition_point(|(point, _)| *point <= position);
        self.points.get(next).or(self.points.first()).map(|(_, member)| &**member)
    }
}

fn builder(members: &[(String, u32)], replicas: u32) -> HashRingBuilder {
    members.iter().fold(HashRing::builder().replicas(replicas).keep_order(), |builder, (id, weight)| {
        builder.weighted_member(id, *weight)
    })
}

fn fleets() -> impl Strategy<Value = (Vec<(String, u32)>, u32)> {
    (collection::btree_map(".{0,60}", 1..4u32, 0..6), 1..150u32)
        .prop_map(|(members, replicas)| (members.into_iter().collect(), replicas))
        .prop_shuffle_members()
}

trait ShuffleMembers: Strategy<Value = (Vec<(String, u32)>, u32)> + Sized {
    fn prop_shuffle_members(self) -> impl Strategy<Value = (Vec<(String, u32)>, u32)> {
        self.prop_flat_map(|(members, replicas)| (Just(members).prop_shuffle(), Just(replicas)))
    }
}

impl<S: Strategy<Value = (Vec<(String, u32)>, u32)>> ShuffleMembers for S {}

/// Keys of every kind of length, among them runs of uuids.
fn keys() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let any_bytes = |len| collection::vec(any::<u8>(), len);
    prop_oneof![
        collection::vec(any_bytes(0..70), 0..400),
        collection::vec(any::<u128>().prop_map(|id| Uuid::from_u128(id).to_string().into_bytes()), 0..400),
        collection::vec(any_bytes(0..600), 0..70),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_way_to_ask_gives_every_key_the_same_owner((members, replicas) in fleets(), keys in keys()) {
        let plain = Plain::new(&members, replicas);
        let expected: Vec<Option<&str>> = keys.iter().map(|key| plain.owner(reference_position(key))).collect();
        for kernel in Kernel::all() {
            let ring = builder(&members, replicas).kernel(kernel).build().unwrap();
            prop_assert_eq!(ring.points(), plain.points.len(), "{:?}", kernel);
            let owners: Vec<Option<&str>> = ring.each_owner(&keys).map(|(_, owner)| owner).collect();
            prop_assert_eq!(&owners, &expected, "{:?}", kernel);
            for (member, _) in &members {
                let mine: Vec<&Vec<u8>> = keys.iter().zip(&expected).filter(|(_, o)| **o == Some(member)).map(|(k, _)| k).collect();
                prop_assert_eq!(ring.extract(member, &keys), mine, "{:?}", kernel);
            }
            prop_assert!(ring.extract("a member that is in no fleet, far too long to be in one of them at all", &keys).is_empty());
        }
        let ring = builder(&members, replicas).build().unwrap();
        let owners: Vec<Option<&str>> = keys.iter().map(|key| ring.owner(key)).collect();
        prop_assert_eq!(&owners, &expected);
        let set: KeySet<&Vec<u8>> = keys.iter().collect();
        for (member, _) in &members {
            let mine = ring.extract(member, &keys);
            prop_assert_eq!(set.owned_by(&ring, member), mine.iter().collect::<Vec<_>>());
            let ranges = ring.ranges(member);
            prop_assert_eq!(ranges.clone().select(&keys).collect::<Vec<_>>(), mine);
            prop_assert!(keys.iter().all(|key| ranges.contains(key) == ring.is_owner(member, key)));
        }
    }

    #[test]
    fn at_the_points_and_beside_them_all_agree((members, replicas) in fleets()) {
        let (plain, ring) = (Plain::new(&members, replicas), builder(&members, replicas).build().unwrap());
        let ranges: Vec<(&String, Ranges)> = members.iter().map(|(id, _)| (id, ring.ranges(id))).collect();
        let ends = [0, 1, u32::MAX - 1, u32::MAX];
        let around = |point: &(u32, String)| [point.0.wrapping_sub(1), point.0, point.0.wrapping_add(1)];
        for position in plain.points.iter().flat_map(around).chain(ends) {
            let owners: Vec<&str> =
                ranges.iter().filter(|(_, r)| r.contains_position(position)).map(|(id, _)| id.as_str()).collect();
            prop_assert_eq!(owners, plain.owner(position).into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn a_ring_that_changed_is_the_ring_built_anew(
        (members, replicas) in fleets(),
        joiner in ".{0,12}",
        weight in 1..4u32,
        keep_order in any::<bool>(),
    ) {
        let build = |members: &[(String, u32)]| {
            let builder = members.iter().fold(HashRing::builder().replicas(replicas), |b, (id, w)| b.weighted_member(id, *w));
            if keep_order { builder.keep_order() } else { builder }.build().unwrap()
        };
        let ring = build(&members);
        let mut joined: Vec<_> = members.iter().filter(|(id, _)| *id != joiner).cloned().collect();
        joined.push((joiner.clone(), weight));
        same(&ring.with_member(&joiner, weight).unwrap(), &build(&joined))?;
        for (leaver, _) in &members {
            let left: Vec<_> = members.iter().filter(|(id, _)| id != leaver).cloned().collect();
            same(&ring.without_member(leaver), &build(&left))?;
        }
        same(&ring.without_member("a member that is in no fleet, far too long to be in one of them at all"), &ring)?;
    }

    #[test]
    fn what_moves_is_what_changes_its_owner(
        (before, replicas) in fleets(),
        (after, _) in fleets(),
        kind in sample::select(vec!["leave", "join", "jump"]),
        keys in keys(),
    ) {
        let both: Vec<_> = before.iter().chain(after.iter().filter(|(id, _)| before.iter().all(|(b, _)| b != id))).cloned().collect();
        let (one, other) = match kind {
            "leave" => (&both, &before),
            "join" => (&before, &both),
            _ => (&before, &after),
        };
        let build = |members: &[(String, u32)]| builder(members, replicas).build().unwrap();
        let (one, other) = (build(one), build(other));
        let moves = one.moves(&other);
        prop_assert!(moves.iter().all(|moved| moved.from != moved.to));
        prop_assert!(moves.is_sorted_by(|a, b| a.range.end() < b.range.start()), "in order, without overlap");
        prop_assert!(
            moves.iter().zip(moves.iter().skip(1)).all(|(a, b)| {
                a.range.end() + 1 < *b.range.start() || (a.from, a.to) != (b.from, b.to)
            }),
            "as few as possible"
        );
        for key in &keys {
            let position = reference_position(key);
            let owners = (one.owner(key), other.owner(key));
            match moves.iter().find(|moved| moved.range.contains(&position)) {
                Some(moved) => prop_assert_eq!((moved.from, moved.to), owners),
                None => prop_assert_eq!(owners.0, owners.1),
            }
        }
        for (member, _) in &both {
            let sum = |side: fn(&apportion::ring::Move<'_>) -> Option<String>| {
                moves.iter().filter(|m| side(m).as_deref() == Some(member)).map(|m| u64::from(m.range.end() - m.range.start()) + 1).sum::<u64>() as f64 / (1u64 << 32) as f64
            };
            let (old, new) = (one.ranges(member), other.ranges(member));
            prop_assert_eq!(old.difference(&new).fraction(), sum(|m| m.from.map(String::from)), "lost");
            prop_assert_eq!(new.difference(&old).fraction(), sum(|m| m.to.map(String::from)), "gained");
        }
    }

    #[test]
    fn a_key_set_agrees_with_a_list_of_items_and_their_owners(
        first in collection::vec(0..60u8, 0..80),
        changes in collection::vec((any::<bool>(), 0..60u8), 0..300),
    ) {
        let ring = HashRing::builder().members(["a", "b", "c"]).build().unwrap();
        let (mut list, mut set) = (first.clone(), first.into_iter().collect::<KeySet<u8>>());
        for (insert, key) in changes {
            prop_assert_eq!(set.contains(&key), list.contains(&key));
            if insert {
                list.push(key);
                set.insert(key);
            } else {
                let last = list.iter().rposition(|other| *other == key);
                prop_assert_eq!(set.remove(&key), last.map(|last| list.remove(last)));
            }
        }
        set.extend(list[..list.len() / 2].iter().copied());
        list.extend_from_within(..list.len() / 2);
        prop_assert_eq!((set.len(), set.is_empty()), (list.len(), list.is_empty()));
        prop_assert_eq!(set.iter().len(), list.len());
        prop_assert!(set.iter().eq(&list));
        let mine = ring.extract("b", &list);
        prop_assert_eq!(&set.owned_by(&ring, "b"), &mine);
        let mut within: Vec<&u8> = set.within(&ring.ranges("b")).collect();
        prop_assert!(within.is_sorted_by_key(|key| reference_position(key.to_string().as_bytes())));
        within.sort();
        prop_assert!(within.iter().eq(mine.iter().collect::<std::collections::BinaryHeap<_>>().into_sorted_vec()));
    }
}

/// Equal, and not only by what they were made of.
fn same(one: &HashRing, other: &HashRing) -> Result<(), TestCaseError> {
    prop_assert_eq!(one, other);
    prop_assert_eq!((one.digest(), one.points()), (other.digest(), other.points()));
    prop_assert!(one.members().eq(other.members()));
    for member in other.members() {
        prop_assert_eq!(one.ranges(member), other.ranges(member));
        prop_assert_eq!(one.weight(member), other.weight(member));
    }
    prop_assert!(one.moves(other).is_empty());
    Ok(())
}

#[test]
fn the_owners_of_the_reference_come_out_of_every_kernel() {
    let golden = golden("ring_aodh.json");
    let mut answers = 0;
    for case in list(&golden["cases"]) {
        let members = texts(&golden["membersets"][text(&case["members"])]);
        let keys = keys_of(&golden, text(&case["keys"]));
        let owners = list(&case["owners"]).iter();
        let expected: Vec<Option<&str>> =
            owners.map(|owner| owner.as_u64().map(|owner| members[owner as usize])).collect();
        for kernel in Kernel::all() {
            let ring = HashRing::builder()
                .kernel(kernel)
                .label(label(&case["labels"]))
                .replicas(case["replicas"].as_u64().unwrap().try_into().unwrap())
                .members(members.iter().copied())
                .keep_order()
                .build()
                .unwrap();
            let owners: Vec<Option<&str>> = ring.each_owner(&keys).map(|(_, owner)| owner).collect();
            assert_eq!(owners, expected, "{kernel:?}: {}", case["name"]);
            answers += owners.len();
        }
    }
    assert_eq!(answers, 64 * 277 * Kernel::all().len(), "nothing was skipped");
}

#[test]
fn the_loser_of_a_collision_has_its_point_back_when_the_winner_leaves() {
    let golden = golden("ring_aodh.json");
    for case in golden["collisions"].as_array().unwrap() {
        let label = if case["labels"] == "bytes" { Label::PythonBytes } else { Label::Plain };
        let text = |name: &str| case[name].as_str().unwrap();
        let (loser, winner) = (text("a").min(text("b")), text("a").max(text("b")));
        let point = u32::try_from(case["point"].as_u64().unwrap()).unwrap();
        let alone = HashRing::builder().label(label).members(["x", loser]).build().unwrap();
        let both = alone.with_member(winner, 1).unwrap();
        assert_eq!(both.points(), 299, "one of 300 points has collided");
        assert!(both.ranges(winner).contains_position(point - 1));
        assert!(alone.moves(&both).iter().any(|moved| moved.from == Some(loser)
            && moved.to == Some(winner)
            && moved.range.contains(&(point - 1))));
        let again = both.without_member(winner);
        assert_eq!(again.points(), 200);
        assert!(again.ranges(loser).contains_position(point - 1));
        assert_eq!(both.moves(&again), both.moves(&alone));

        // A kept order decides otherwise: the later member wins, with any name.
        let kept = HashRing::builder().label(label).members(["x", winner]).keep_order().build().unwrap();
        let kept = kept.with_member(loser, 1).unwrap();
        assert!(kept.ranges(loser).contains_position(point - 1));
        assert!(kept.without_member(loser).ranges(winner).contains_position(point - 1));
    }
}

#[test]
fn a_stray_key_of_many_kilobytes_and_an_empty_one_have_owners_like_all_others() {
    let ring = HashRing::builder().members(["a", "b", "c"]).build().unwrap();
    let mut keys: Vec<Vec<u8>> = (0..100).map(|number| format!("key-{number}").into_bytes()).collect();
    keys[7] = vec![b'x'; 300_000];
    keys[50] = Vec::new();
    for (key, owner) in ring.each_owner(&keys) {
        assert_eq!(owner, ring.owner(key));
    }
    assert_eq!(ring.extract("a", [""; 0]), [""; 0], "nothing comes of nothing");
}

#[test]
fn keys_that_have_to_be_written_first_are_hashed_like_their_text() {
    let ring = HashRing::builder().members(["a", "b", "c"]).build().unwrap();
    let numbers = (0..500u64).map(|number| number * 0x0123_4567_89ab);
    let uuids = (0..500u128).map(|number| Uuid::from_u128(number * 0x0123_4567_89ab_cdef_0123));
    assert!(
        numbers
            .clone()
            .zip(ring.each_owner(numbers))
            .all(|(n, (_, owner))| owner == ring.owner(&n.to_string()))
    );
    assert!(
        uuids.clone().zip(ring.each_owner(uuids)).all(|(n, (_, owner))| owner == ring.owner(&n.to_string()))
    );

    /// Implements only the required method.
    struct Alarm(u32);
    impl RingKey for Alarm {
        fn ring_key(&self) -> std::borrow::Cow<'_, [u8]> {
            format!("alarm-{}", self.0).into_bytes().into()
        }
    }
    for (alarm, owner) in ring.each_owner((0..500).map(Alarm)) {
        assert_eq!(owner, ring.owner(&format!("alarm-{}", alarm.0)));
    }
}

#[test]
fn a_thousand_members_of_weight_a_hundred_make_a_ring_in_reasonable_time() {
    let members = (0..1000).map(|number| (format!("host-{number}"), 100));
    let builder = members
        .fold(HashRing::builder().replicas(10), |builder, (id, weight)| builder.weighted_member(id, weight));
    let ring = builder.build().unwrap();
    assert_eq!(ring.len(), 1000);
    assert!((999_000..=1_000_000).contains(&ring.points()), "{} distinct points", ring.points());
    let left = ring.without_member("host-500");
    assert!(ring.moves(&left).iter().all(|moved| moved.from == Some("host-500")));
    assert_eq!(left.with_member("host-500", 100).unwrap().ranges("host-500"), ring.ranges("host-500"));
}

#[test]
fn a_key_set_of_one_key_over_and_over_takes_no_quadratic_time() {
    let mut set: KeySet<&str> = KeySet::default();
    for _ in 0..100_000 {
        set.insert("same");
    }
    assert_eq!(set.len(), 100_000);
    for left in (0..100_000).rev() {
        assert_eq!(set.remove("same"), Some("same"));
        assert_eq!(set.len(), left);
    }
    assert_eq!(set.remove("same"), None);
}

#[test]
fn no_key_moves_between_two_members_that_stay() {
    let ring = HashRing::builder().members((0..50).map(|number| number.to_string())).build().unwrap();
    let after = ring.without_member("7").with_member("new", 2).unwrap();
    let moves = ring.moves(&after);
    assert!(moves.iter().all(|moved| moved.from == Some("7") || moved.to == Some("new")));
    let owners: BTreeSet<_> = moves.iter().filter_map(|moved| moved.to).collect();
    assert!(owners.len() > 20, "the leaver's keys go to many");
}

#[cfg(feature = "rayon")]
#[test]
fn several_threads_find_the_same_in_the_same_order() {
    let ring = HashRing::builder().members(["a", "b", "c"]).build().unwrap();
    for count in [0, 1, 32_767, 32_768, 100_001] {
        let keys: Vec<String> = (0..count).map(|number| format!("key-{number}")).collect();
        assert_eq!(ring.par_extract("b", &keys), ring.extract("b", &keys));
        let (one, several) = (KeySet::new(keys.clone()), KeySet::par_new(keys));
        assert!(one.iter().eq(several.iter()));
        assert_eq!(one.owned_by(&ring, "b"), several.owned_by(&ring, "b"));
        assert!(one.within(&ring.ranges("c")).eq(several.within(&ring.ranges("c"))));
    }
}
