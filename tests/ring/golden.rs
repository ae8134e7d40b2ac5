//! The ring against answers recorded from aodh: the owners of keys on rings of every kind.

use apportion::{HashRing, Label, RingKey, ring::PyBytes};
use serde_json::Value;

use crate::support::golden::{golden, list, text, texts};

fn number(value: &Value) -> usize {
    value.as_u64().and_then(|number| usize::try_from(number).ok()).expect("a number")
}

pub(crate) fn label(value: &Value) -> Label {
    match text(value) {
        "str" => Label::Plain,
        "bytes" => Label::PythonBytes,
        other => panic!("unknown label {other}"),
    }
}

/// `mixed` or, for its beginning, `mixed[:150]`.
pub(crate) fn keys_of<'a>(golden: &'a Value, name: &str) -> Vec<&'a str> {
    let (name, end) = name.strip_suffix(']').and_then(|name| name.split_once("[:")).unwrap_or((name, ""));
    let mut keys = texts(&golden["keysets"][name]);
    keys.truncate(end.parse().unwrap_or(usize::MAX));
    keys
}

/// The members as given, each of which is the owner that a number in the data means.
fn ring(labels: &Value, members: &[impl AsRef<str>], replicas: usize) -> HashRing {
    HashRing::builder()
        .label(label(labels))
        .replicas(u32::try_from(replicas).expect("it fits"))
        .members(members.iter().map(AsRef::as_ref))
        .keep_order()
        .build()
        .expect("the recorded rings are valid")
}

#[test]
fn every_key_has_the_owner_that_the_reference_gives_it() {
    let golden = golden("ring_aodh.json");
    let mut answers = 0;
    for case in list(&golden["cases"]) {
        let members = texts(&golden["membersets"][text(&case["members"])]);
        let ring = ring(&case["labels"], &members, number(&case["replicas"]));
        let keys = keys_of(&golden, text(&case["keys"]));
        assert_eq!(keys.len(), list(&case["owners"]).len());
        for (key, owner) in keys.iter().zip(list(&case["owners"])) {
            let owner = owner.as_u64().map(|_| members[number(owner)]);
            assert_eq!(ring.owner(*key), owner, "{}: {key:?}", case["name"]);
            answers += 1;
        }
    }
    assert_eq!(answers, 64 * 277, "nothing was skipped");
}

#[test]
fn a_key_that_hashes_to_a_point_belongs_to_the_next_point() {
    let golden = golden("ring_aodh.json");
    for case in list(&golden["equality"]) {
        let members = texts(&case["members"]);
        let ring = ring(&case["labels"], &members, 100);
        for row in list(&case["rows"]) {
            assert_eq!(ring.owner(text(&row["key"])), Some(members[number(&row["owner"])]), "{row}");
        }
    }
    assert_eq!(list(&golden["equality"]).len(), 6);
}

#[test]
fn the_later_member_owns_the_keys_before_a_collided_point() {
    let golden = golden("ring_aodh.json");
    let mut answers = 0;
    for case in list(&golden["collisions"]) {
        for row in list(&case["rings"]) {
            let members = texts(&row["members"]);
            let ring = ring(&case["labels"], &members, 100);
            assert_eq!(ring.points(), number(&row["distinct_points"]));
            for pair in list(&row["keys_just_before_point"]).iter().chain(list(&row["keys_equal_to_point"])) {
                assert_eq!(ring.owner(text(&pair[0])), Some(members[number(&pair[1])]), "{pair}");
                answers += 1;
            }
        }
    }
    assert!(answers >= 12 * 4 * 2, "{answers} answers only");
}

#[test]
fn by_default_the_order_of_members_does_not_decide_a_collision() {
    let golden = golden("ring_aodh.json");
    for case in list(&golden["collisions"]) {
        let later = text(&case["a"]).max(text(&case["b"]));
        for row in list(&case["rings"]) {
            let ring = HashRing::builder()
                .label(label(&case["labels"]))
                .members(texts(&row["members"]))
                .build()
                .unwrap();
            for pair in list(&row["keys_just_before_point"]) {
                assert_eq!(ring.owner(text(&pair[0])), Some(later), "{pair}");
            }
        }
    }
}

#[test]
fn a_thousand_members_agree_with_the_reference_in_every_order() {
    let golden = golden("ring_aodh.json");
    for case in list(&golden["thousand"]) {
        let pool = text(&case["members_pool"]);
        let given: Vec<String> =
            list(&case["members"]).iter().map(|id| format!("{pool}{}", number(id))).collect();
        let builder = HashRing::builder().label(label(&case["labels"]));
        let ring = match text(&case["order"]) {
            "given" => builder.members(&given).keep_order(),
            "reversed" => builder.members(given.iter().rev()).keep_order(),
            "sorted" => builder.members(&given),
            other => panic!("unknown order {other}"),
        }
        .build()
        .unwrap();
        assert_eq!(ring.points(), number(&case["distinct_points"]));
        let keys = keys_of(&golden, text(&case["keys"]));
        assert_eq!((keys.len(), list(&case["owners"]).len()), (150, 150));
        for (key, owner) in keys.iter().zip(list(&case["owners"])) {
            assert_eq!(ring.owner(*key), Some(&*given[number(owner)]), "{}: {key:?}", case["order"]);
        }
    }
    assert_eq!(list(&golden["thousand"]).len(), 6);
}

#[test]
fn bytes_are_written_as_python_writes_them() {
    let golden = golden("py_bytes_repr.json");
    let rows = list(&golden["rows"]);
    assert_eq!(rows.len(), 120);
    for row in rows {
        let hex = text(&row[0]);
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let written = PyBytes(bytes).ring_key().into_owned();
        assert_eq!(String::from_utf8(written).unwrap(), text(&row[1]));
    }
}
