//! JSON as Python writes it, and JSON that is invalid.

use apportion::worker::{
    Request,
    message::{Response, WireResponse},
};
use serde_json::{Value, json};

/// The result in a response that a worker has written as `result`.
fn read(result: &str) -> Result<Value, String> {
    let body = format!(r#"{{"state": "SUCCESS", "data": {{"result": {result}}}}}"#);
    match WireResponse::from_json(body.as_bytes()).map_err(|error| error.to_string())?.decode() {
        Ok(Response::Success(value)) => Ok(value),
        other => panic!("{other:?}"),
    }
}

#[test]
fn values_that_json_does_not_have_are_read_as_null() {
    let huge = "9".repeat(400);
    let result =
        format!(r#"[NaN, Infinity, -Infinity, {huge}, -{huge}, "NaN Infinity \"NaN\" {huge}", 1e30]"#);
    let text = format!("NaN Infinity \"NaN\" {huge}");
    assert_eq!(read(&result), Ok(json!([null, null, null, null, null, text, 1e30])));
}

#[test]
fn half_a_surrogate_pair_is_read_as_the_replacement_character() {
    // `os.fsdecode(b"caf\xe9")`, a whole pair, an escaped backslash, both halves alone.
    let result = r#"["caf\udce9", "\ud83d\ude80", "\\udce9", "\ud83dx", "\ud83d\ud83d\ude80", "\ud83d\n"]"#;
    let fixed = ["caf\u{fffd}", "\u{1f680}", "\\udce9", "\u{fffd}x", "\u{fffd}\u{1f680}", "\u{fffd}\n"];
    assert_eq!(read(result), Ok(json!(fixed)));
}

#[test]
fn json_that_python_does_not_write_is_refused() {
    for result in [
        "nan",
        "inf",
        "+1",
        "01",
        "1.",
        ".5",
        "'x'",
        "-NaN",
        "NaNa",
        "1NaN",
        "[1,]",
        "\"\\ud8\"",
        "\"\\u+123\"",
        "\"\n\"",
    ] {
        let refused = read(result).unwrap_err();
        assert!(refused.starts_with("the message is not JSON: "), "{result}: {refused}");
    }
    for body in [
        &b""[..],
        b"\xff",
        b"{",
        b"\"",
        b"\"\\",
        b"\"\\u",
        b"\"\\ud83d",
        b"\"\\ud83d\\u",
        b"{} {}",
        b"\xef\xbb\xbf{}",
    ] {
        assert!(Request::from_json(body).is_err());
    }
}

#[test]
fn of_two_fields_with_one_name_the_last_counts() {
    assert_eq!(read(r#"{"a": 1, "b": 2, "a": 3}"#), Ok(json!({"a": 3, "b": 2})));
}

#[test]
fn deep_nesting_is_refused_without_a_panic() {
    let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
    assert!(read(&nested(125)).is_ok());
    for levels in [126, 127, 1_000_000] {
        let refused = read(&nested(levels)).unwrap_err();
        assert!(refused.contains("recursion limit exceeded"), "{refused}");
    }
    assert!(WireResponse::from_json("[".repeat(1_000_000).as_bytes()).is_err());
    assert!(WireResponse::from_json("{\"a\":NaN,\"a\":".repeat(1_000_000).as_bytes()).is_err());
}
