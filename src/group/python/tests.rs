use rmpv::Value;

use super::*;
use crate::{
    group::{
        member::{Member, Ours, Payload},
        weight::Weight,
    },
    ring::{HashRing, Label},
};

fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    bytes
}

/// A member that wrote `{"weight": weight}`.
fn plain(id: &str, weight: impl Into<Value>) -> Member {
    Member::read(id, &encode(&Value::Map(vec![("weight".into(), weight.into())])), 1).unwrap()
}

fn ours(id: &str, weight: u32) -> Member {
    let ours = Ours { version: 1, label: Some(Label::Tooz), replicas: Some(32), ..Ours::default() };
    Member::read(id, &Payload::new(weight, ours).encode(), 1).unwrap()
}

fn why(members: &[Member]) -> Option<Unclear> {
    unclear(members.iter().map(Member::as_peer), 32).map(|(_, why)| why)
}

#[test]
fn a_weight_is_read_as_python_reads_it_or_is_unclear() {
    let weight = |value: Value| plain("a", value).python_weight().clone();
    for (value, expected) in [
        (Value::from(3), 3),
        (300.into(), 300),
        (u32::MAX.into(), u32::MAX),
        (0.into(), 0),
        ((-5).into(), 0),
        (i64::MIN.into(), 0),
        (true.into(), 1),
        (false.into(), 0),
    ] {
        assert_eq!(weight(value.clone()), Weight::Announced(expected), "{value}");
    }
    let list = Value::Array(vec![1.into()]);
    for value in [1.5.into(), 1.0.into(), "3".into(), Value::Nil, list, u64::MAX.into(), vec![51_u8].into()] {
        assert_eq!(weight(value.clone()), Weight::Unclear(Unclear::Weight), "{value}");
    }
}

#[test]
fn capabilities_that_are_no_map_are_unclear_and_a_map_without_a_weight_is_one() {
    let read = |value: &Value| Member::read("a", &encode(value), 1).unwrap().python_weight().clone();
    for value in
        [Value::Nil, Value::from(3), "weight".into(), Value::Binary(Vec::new()), Value::Array(vec![])]
    {
        assert_eq!(read(&value), Weight::Unclear(Unclear::NoMap), "{value}");
    }
    let nothing = Member::read("a", b"", 1).unwrap();
    assert_eq!(*nothing.python_weight(), Weight::Unclear(Unclear::NoMap));
    assert_eq!(read(&Value::Map(vec![])), Weight::Default);
    assert_eq!(read(&Value::Map(vec![("other".into(), 7.into())])), Weight::Default);
    // An old tooz encodes twice.
    let inner = encode(&Value::Map(vec![("weight".into(), 4.into())]));
    assert_eq!(read(&Value::Binary(inner)), Weight::Announced(4));
}

#[test]
fn the_recorded_capabilities_of_python_have_the_weight_that_the_partitioner_gives_them() {
    let golden: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/golden/group.json")).unwrap();
    let hex = |hex: &str| -> Vec<u8> {
        (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
    };
    let mut maps = 0;
    for row in golden["capabilities"].as_array().unwrap() {
        let member = Member::read("a", &hex(row["hex"].as_str().unwrap()), 1).unwrap();
        let is_map = row["value"].is_object() && row["value"].get("__bytes_hex__").is_none();
        if is_map {
            maps += 1;
            assert_eq!(u64::from(member.python_weight().for_ring()), row["partitioner_weight"], "{row}");
        } else {
            assert_eq!(*member.python_weight(), Weight::Unclear(Unclear::NoMap), "{row}");
        }
    }
    assert!(maps > 20);
}

#[test]
fn a_python_member_that_was_set_after_it_had_joined_is_unclear() {
    assert_eq!(why(&[plain("a", 1).with_version(0), ours("b", 2).with_version(1)]), None);
    assert_eq!(why(&[plain("a", 1).with_version(1), ours("b", 2)]), Some(Unclear::Changed));
    assert_eq!(why(&[plain("a", 1), ours("b", 2).with_version(2)]), None, "it acknowledges epochs there");
}

#[test]
fn beside_python_an_id_has_to_be_ascii_and_the_ring_has_to_have_room() {
    assert_eq!(why(&[plain("a", 1), plain("é", 1)]), Some(Unclear::NotAscii));
    assert_eq!(why(&[plain("a", 1), ours("é", 1)]), Some(Unclear::NotAscii));
    let most = u32::try_from(HashRingBuilder::MAX_POINTS / 32).unwrap();
    assert_eq!(why(&[plain("a", 1), plain("b", most - 1)]), None);
    assert_eq!(why(&[plain("a", 1), plain("b", most)]), Some(Unclear::TooManyPoints));
    assert_eq!(why(&[plain("a", u32::MAX), plain("b", u32::MAX)]), Some(Unclear::TooManyPoints));
}

#[test]
fn without_python_members_nothing_is_unclear() {
    let none = Member::read("a", b"\xc0", 1).unwrap();
    assert!(none.is_plain());
    assert_eq!(why(&[ours("1", 1), ours("11", 1), ours("é", 1)]), None);
    assert_eq!(why(&[]), None);
}

#[test]
fn ids_that_repeat_one_text_are_unclear_exactly_if_their_rings_share_a_point() {
    let ids =
        ["1", "11", "111", "1111", "ab", "abab", "ababab", "a", "aba", "host-1", "host-11", "5a5a5", "55"];
    for partitions in [1, 2, 3, 32] {
        for (at, one) in ids.iter().enumerate() {
            for other in &ids[at + 1..] {
                for (weight, more) in [(1, 1), (1, 3), (3, 1), (0, 1)] {
                    let ring = |members: &[(&str, u32)]| {
                        let members = members.iter().filter(|(_, weight)| *weight > 0);
                        let add = |ring: HashRingBuilder, (id, weight): &(&str, u32)| {
                            ring.weighted_member(*id, *weight)
                        };
                        members.fold(HashRing::builder().tooz(partitions), add).build().unwrap().points()
                    };
                    let both = ring(&[(one, weight), (other, more)]);
                    let shares = both < ring(&[(one, weight)]) + ring(&[(other, more)]);
                    let members = [plain(one, weight), plain(other, more)];
                    let is_unclear = unclear(members.iter().map(Member::as_peer), partitions).is_some();
                    assert_eq!(is_unclear, shares, "{one} x {weight}, {other} x {more}, {partitions} points");
                }
            }
        }
    }
}
