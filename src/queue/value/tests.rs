use serde_json::json;

use super::*;

fn back(attempt: u32) -> Back {
    Back { attempt, ..Back::default() }
}

#[test]
fn a_new_value_is_that_of_the_original_with_a_payload() {
    let value = Value::new("a:b:18", json!({ "x": [1, null] }));
    let text = r#"{"dataset":"a:b","groupid":"18","state":1,"payload":{"x":[1,null]}}"#;
    assert_eq!(String::from_utf8(value.data()).unwrap(), text);
    assert_eq!(Value::read(text.as_bytes()), value);
    let taken = value.taken("w", "c");
    let text = concat!(
        r#"{"dataset":"a:b","groupid":"18","state":3,"payload":{"x":[1,null]},"#,
        r#""worker":"w","claim":"c","attempt":1}"#
    );
    assert_eq!(String::from_utf8(taken.data()).unwrap(), text);
    assert_eq!((taken.attempt(), taken.claim(), taken.worker()), (1, Some("c".into()), Some("w".into())));
    let given = taken.given_back(&back(taken.attempt()));
    assert_eq!((given.attempt(), given.claim(), given.worker()), (1, None, None));
    assert_eq!(given.payload(), value.payload());
    let done = taken.updated(json!(2)).ended(Ok(json!("fine")));
    assert_eq!((done.state(), done.result()), (Some(State::Successful), Some(json!("fine"))));
    assert_eq!(done.payload(), Some(&json!(2)));
    let failed = taken.ended(Err("boom".into()));
    assert_eq!((failed.state(), failed.error()), (Some(State::Failed), Some("boom".into())));
}

#[test]
fn a_value_of_another_program_keeps_its_text_to_the_byte() {
    for text in [
        r#"{"groupid": 18, "state": 1, "dataset": "taxi", "extra": {"b": 1, "a": 2}}"#,
        r#" { "n" : 123456789012345678901234567890 , "x": 12345678901234567.89, "n": 1e400, "n": 7 } "#,
        r#"{"attempt": 3, "claim": "theirs", "error": "theirs", "result": 1, "state": 2, "worker": "w0"}"#,
        r#"{"state":1,"state": 1}"#,
        "{}",
    ] {
        let value = Value::read(text.as_bytes());
        assert_eq!(value.raw(), text.as_bytes());
        let taken = Value::read(&value.taken("w", "c").data());
        assert_eq!((taken.raw(), taken.claim()), (text.as_bytes(), Some("c".into())));
        assert_eq!((taken.state(), taken.worker()), (Some(State::Running), Some("w".into())), "{text}");
        assert_eq!(taken.payload(), value.payload());
        let (attempt, reason) = (taken.attempt(), Some("no".to_owned()));
        let given = taken.given_back(&Back { attempt, reason, not_before: Some(5), ..Back::default() });
        let given = Value::read(&given.data());
        assert_eq!((given.raw(), given.not_before()), (text.as_bytes(), Some(5)));
        assert_eq!((given.claim(), given.error()), (None, Some("no".into())));
        let again = Value::read(&given.taken("w", "c").data());
        assert_eq!((again.attempt(), again.raw()), (attempt + 1, text.as_bytes()));
        let done = Value::read(&again.ended(Ok(json!([1]))).data());
        assert_eq!((done.raw(), done.result(), done.error()), (text.as_bytes(), Some(json!([1])), None));
        assert_eq!(done.state(), Some(State::Successful));
    }
}

#[test]
fn a_value_of_the_original_is_still_one_for_its_programs() {
    let python = br#"{"groupid": 18, "state": 1, "dataset": "taxi"}"#;
    let taken = Value::read(python).taken("w", "c");
    let text = String::from_utf8(taken.data()).unwrap();
    let own = r#","foreign":3,"worker":"w","claim":"c","attempt":1}"#;
    assert_eq!(text, format!(r#"{{"groupid": 18, "state": 3, "dataset": "taxi"{own}"#));
    let back = String::from_utf8(taken.given_back(&back(1)).data()).unwrap();
    assert_eq!(back, r#"{"groupid": 18, "state": 1, "dataset": "taxi","foreign":3,"attempt":1}"#);
    let updated = Value::read(&taken.updated(json!(7)).data());
    assert_eq!((updated.payload(), updated.raw(), updated.attempt()), (Some(&json!(7)), &python[..], 1));
}

#[test]
fn a_dead_letter_says_why_and_who_until_it_is_revived() {
    let value = Value::new("a", json!(1)).with_id("7");
    let dead = value.taken("w", "c").dead(&Back { reason: Some("x".repeat(5000)), ..back(3) });
    let dead = Value::read(&dead.data());
    assert_eq!(
        (dead.error().map(|it| it.len()), dead.worker(), dead.claim()),
        (Some(1000), Some("w".into()), None)
    );
    let revived = Value::read(&dead.revived().data());
    assert_eq!((revived.error(), revived.worker(), revived.attempt()), (None, None, 0));
    assert_eq!((revived.id(), revived.payload()), (Some("7".into()), Some(&json!(1))));
}

#[test]
fn data_that_is_not_an_object_is_wrapped_and_read_unchanged() {
    for (bytes, payload) in [
        (&b"[1, 2]"[..], Some(json!([1, 2]))),
        (b"", None),
        (b"not json", None),
        (b"\xff\x00\x7f", None),
        (b"\"text\"", Some(json!("text"))),
        (b"NaN", None),
    ] {
        let value = Value::read(bytes);
        assert_eq!((value.raw(), value.payload()), (bytes, payload.as_ref()), "{bytes:?}");
        let taken = Value::read(&value.taken("w", "c").data());
        assert_eq!((taken.raw(), taken.attempt(), taken.payload()), (bytes, 1, payload.as_ref()));
        let again = Value::read(&taken.given_back(&back(1)).data());
        assert_eq!((again.raw(), again.attempt()), (bytes, 1));
    }
}

#[test]
fn fields_of_a_wrong_type_count_as_missing() {
    let value =
        Value::read(br#"{"attempt": -1, "claim": 7, "worker": null, "state": "x", "foreign": {"hex": "0"}}"#);
    assert_eq!((value.attempt(), value.claim(), value.worker(), value.state()), (0, None, None, None));
    assert_eq!(Value::read(br#"{"state": 9, "attempt": 99999999999}"#).attempt(), u32::MAX);
}

#[test]
fn a_reason_for_which_there_is_no_room_leaves_none_of_an_earlier_delivery() {
    let because = |reason: &str| Back { reason: Some(reason.into()), ..back(1) };
    let value = Value::new("a:1", 7.into()).given_back(&because("first"));
    assert_eq!(value.given_back(&back(2)).error().as_deref(), Some("first"), "nothing new is known");
    let without = because("second").with_reason(None);
    assert_eq!((value.given_back(&without).error(), value.dead(&without).error()), (None, None));
}
