use proptest::prelude::*;

use super::*;

fn process() -> Process {
    Process {
        host: "web-1".into(),
        boot_id: "ea34e20a-2624-4215-ab10-381e10925596".into(),
        pid_namespace: "pid:[4026531836]".into(),
        pid: 4711,
        start: 127_371,
    }
}

fn ours() -> Ours {
    Ours {
        version: Ours::VERSION,
        label: Some(Label::PythonBytes),
        replicas: Some(100),
        nonce: Some(Uuid::from_u128(7)),
        process: Some(process()),
        handover: None,
    }
}

fn plain(weight: u32) -> Payload {
    Payload { weight, ours: None }
}

fn encode(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    bytes
}

fn hex(hex: &str) -> Vec<u8> {
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn golden() -> serde_json::Value {
    serde_json::from_str(include_str!("../../../tests/golden/group.json")).unwrap()
}

#[test]
fn a_member_id_is_any_text_that_can_name_a_znode() {
    for good in ["a", "host-1:8080", "b'x'", "alarm evaluator", "группа", "leader", "a%2Fb", "..."] {
        let id: MemberId = good.parse().unwrap();
        assert_eq!(
            (id.as_str(), id.to_string(), format!("{id:?}")),
            (good, good.into(), format!("{good:?}"))
        );
    }
    for bad in ["", "/", "a/b", ".", "..", "a\0", "a\n", "\u{7f}", "\u{e000}", "\u{1f600}"] {
        let error = MemberId::try_from(bad).unwrap_err();
        assert_eq!(error.id, bad);
        assert!(!error.to_string().contains(['\0', '\n']), "{error:?} prints control characters");
    }
    assert_eq!(MemberId::from(Uuid::from_u128(1)), "00000000-0000-0000-0000-000000000001");
}

#[test]
fn python_capabilities_are_read_with_the_weight_that_the_partitioner_gives_them() {
    let golden = golden();
    let rows = golden["capabilities"].as_array().unwrap();
    assert!(rows.len() >= 70);
    for row in rows {
        let bytes = hex(row["hex"].as_str().unwrap());
        let weight = u32::try_from(row["partitioner_weight"].as_u64().unwrap()).unwrap();
        assert_eq!(Payload::decode(&bytes), plain(weight), "{row}");
    }
}

#[test]
fn foreign_bytes_are_a_plain_member_of_weight_one() {
    let golden = golden();
    for row in golden["foreign_capabilities"].as_array().unwrap() {
        assert_eq!(Payload::decode(&hex(row["hex"].as_str().unwrap())), plain(1), "{row}");
    }
    for bytes in ["", "c0", "c400", "80", "90", "81a677656967687405c0", "81a6776569676874"] {
        assert_eq!(Payload::decode(&hex(bytes)), plain(1), "{bytes}");
    }
}

#[test]
fn without_our_key_the_bytes_are_those_of_python() {
    for row in golden()["capabilities"].as_array().unwrap() {
        let Some(weight) = row["value"]["weight"].as_u64() else { continue };
        let payload = plain(u32::try_from(weight).unwrap());
        assert_eq!(payload.encode(), hex(row["hex"].as_str().unwrap()), "{row}");
    }
    // With it only the number of keys in front differs.
    let bytes = Payload::new(300, ours()).encode();
    assert_eq!(bytes[..11], hex("82a6776569676874cd012c"));
}

#[test]
fn a_payload_is_read_as_it_was_written() {
    let full = Payload::new(3, ours());
    assert_eq!(Payload::decode(&full.encode()), full);
    let bare = Payload::new(MAX_WEIGHT, Ours { version: 1, ..Ours::default() });
    assert_eq!(Payload::decode(&bare.encode()), bare);
}

#[test]
fn the_written_form_does_not_change() {
    let ours = Ours {
        version: 1,
        label: Some(Label::Plain),
        replicas: Some(100),
        nonce: None,
        process: None,
        handover: None,
    };
    let bytes = Payload::new(1, ours).encode();
    let text = b"\x82\xa6weight\x01\xa9apportion\x83\xa1v\x01\xa5label\xa5plain\xa8replicas\x64";
    assert_eq!(bytes, text);
}

#[test]
fn payloads_that_were_encoded_twice_or_with_keys_as_bytes_are_read() {
    let once = hex("81a677656967687405");
    let twice = encode(&Value::Binary(once.clone()));
    assert_eq!(Payload::decode(&twice), plain(5));
    assert_eq!(Payload::decode(&encode(&Value::Binary(twice))), plain(1), "three times is not a format");
    // Before msgpack had a type for bytes they were written as text, which here is no valid UTF-8.
    assert_eq!(Payload::decode(&[&[0xa9], &once[..]].concat()), plain(5));
    let bytes_key = Value::Map(vec![(Value::Binary(b"weight".to_vec()), 7.into())]);
    assert_eq!(Payload::decode(&encode(&bytes_key)), plain(7));
}

#[test]
fn an_invalid_weight_is_one() {
    let limit = i64::from(MAX_WEIGHT);
    for (weight, read) in [
        (Value::from(limit), MAX_WEIGHT),
        (Value::from(limit + 1), 1),
        (Value::from(u64::MAX), 1),
        (Value::from(0), 1),
        (Value::from(-3), 1),
        (Value::from(2.0), 1),
        (Value::from(true), 1),
        (Value::from("5"), 1),
        (Value::Nil, 1),
        (Value::Map(vec![]), 1),
    ] {
        let map = Value::Map(vec![("weight".into(), weight.clone())]);
        assert_eq!(Payload::decode(&encode(&map)), plain(read), "{weight}");
    }
    let twice = Value::Map(vec![("weight".into(), 2.into()), ("weight".into(), 3.into())]);
    assert_eq!(Payload::decode(&encode(&twice)), plain(3));
}

#[test]
fn a_newer_version_keeps_what_can_be_read() {
    let newer = Value::Map(vec![
        ("v".into(), 9.into()),
        ("label".into(), "sha-256".into()),
        ("replicas".into(), 64.into()),
        ("nonce".into(), 12.into()),
        ("zone".into(), Value::Array(vec![1.into(), Value::Nil])),
        ("host".into(), "web-1".into()),
    ]);
    let map = Value::Map(vec![("weight".into(), 4.into()), ("apportion".into(), newer)]);
    let payload = Payload::decode(&encode(&map));
    let expected = Ours { version: 9, replicas: Some(64), ..Ours::default() };
    assert_eq!(payload, Payload::new(4, expected.clone()));
    let other =
        |payload: &Payload, ours: &Ours| Member::read("m", &payload.encode(), 1).unwrap().other_ring(ours);
    let different = other(&Payload::new(1, ours()), &expected).unwrap();
    assert_eq!(different, "100 replicas labelled python-bytes", "an unknown label is no known one");
    assert_eq!(other(&Payload::new(1, ours()), &ours()), None);
    assert!(other(&Payload::new(1, ours()), &Ours { replicas: Some(101), ..ours() }).is_some());
}

#[test]
fn our_key_with_something_else_under_it_is_a_plain_member() {
    for other in [Value::Nil, 3.into(), Value::Map(vec![]), Value::Map(vec![("v".into(), "1".into())])] {
        let map = Value::Map(vec![("weight".into(), 4.into()), ("apportion".into(), other)]);
        assert_eq!(Payload::decode(&encode(&map)), plain(4));
    }
}

#[test]
fn processes_are_on_one_host_only_if_host_boot_and_namespace_are_equal_and_not_empty() {
    let one = process();
    assert!(one.same_host(&Process { pid: 1, start: 2, ..one.clone() }));
    assert!(!one.same_host(&Process { host: "web-2".into(), ..one.clone() }));
    assert!(!one.same_host(&Process { boot_id: "x".into(), ..one.clone() }));
    assert!(!one.same_host(&Process { pid_namespace: "x".into(), ..one.clone() }));
    let unknown = Process { boot_id: String::new(), ..one };
    assert!(!unknown.same_host(&unknown));
}

#[test]
fn deep_nesting_and_huge_claimed_lengths_cost_nothing() {
    let inside_of = |opening: &[u8]| opening.iter().copied().cycle().take(1_000_000).collect::<Vec<u8>>();
    for invalid in [
        inside_of(&[0x91]),
        inside_of(&[0x81, 0xc0]),
        inside_of(&[0xdd, 0xff, 0xff, 0xff, 0xff]),
        inside_of(&[0xdf, 0xff, 0xff, 0xff, 0xff]),
        hex("c6ffffffff00"),
        hex("dbffffffff00"),
        hex("c9ffffffff0000"),
    ] {
        assert_eq!(Payload::decode(&invalid), plain(1));
    }
    // On a thread with a quarter of the usual stack: the deepest nesting that is read.
    let levels = usize::from(MAX_DEPTH / 2) - 1;
    let mut deep = Value::Nil;
    for _ in 0..levels - 1 {
        deep = Value::Array(vec![deep]);
    }
    let map = Value::Map(vec![("weight".into(), 6.into()), ("deep".into(), deep)]);
    let bytes = encode(&map);
    let small = std::thread::Builder::new().stack_size(512 * 1024);
    let payload = small.spawn(move || Payload::decode(&bytes)).unwrap().join().unwrap();
    assert_eq!(payload, plain(6));
}

proptest! {
    #[test]
    fn any_bytes_are_read_as_some_member(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let payload = Payload::decode(&bytes);
        prop_assert!((1..=MAX_WEIGHT).contains(&payload.weight));
    }

    #[test]
    fn a_payload_with_a_few_bytes_changed_is_read_as_some_member(
        changes in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<proptest::sample::Index>(),
    ) {
        let mut bytes = Payload::new(3, ours()).encode();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        bytes.truncate(bytes.len() - cut.index(8));
        prop_assert!((1..=MAX_WEIGHT).contains(&Payload::decode(&bytes).weight));
    }

    #[test]
    fn any_text_is_a_member_id_or_a_typed_error(text in any::<String>()) {
        match MemberId::new(&text) {
            Ok(id) => prop_assert_eq!(id.as_str(), text),
            Err(error) => prop_assert_eq!(error.id, text),
        }
    }
}
