// Pure: no runtime, no clock, no socket, no random numbers.

//! JSON as Python writes and reads it with default options.

use std::io;

use serde::Serialize;
use serde_json::{Serializer, Value, ser::Formatter};

/// Writes JSON as Python's `json.dumps` does by default.
pub(super) fn to_python_json(value: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::new();
    let mut serializer = Serializer::with_formatter(&mut out, Python);
    value.serialize(&mut serializer).expect("values have text keys, and a Vec takes all that is written");
    out
}

/// Python's separators, escapes and floats.
struct Python;

impl Formatter for Python {
    fn begin_array_value<W: io::Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_key<W: io::Write + ?Sized>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }

    fn begin_object_value<W: io::Write + ?Sized>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b": ")
    }

    fn write_string_fragment<W: io::Write + ?Sized>(&mut self, out: &mut W, text: &str) -> io::Result<()> {
        let mut units = [0; 2];
        let mut rest = text;
        while let Some(at) = rest.find(|c: char| !matches!(c, ' '..='~')) {
            let (plain, special) = rest.split_at(at);
            out.write_all(plain.as_bytes())?;
            let mut chars = special.chars();
            for unit in chars.next().into_iter().flat_map(|c| c.encode_utf16(&mut units).to_vec()) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = chars.as_str();
        }
        out.write_all(rest.as_bytes())
    }

    fn write_f64<W: io::Write + ?Sized>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        // Rust and Python both write the shortest digits that read back the same. Python's exponent has a sign and at
        // least two digits.
        let shortest = format!("{value:e}");
        let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
        match exponent.parse::<i32>() {
            Ok(small) if (-4..16).contains(&small) => write!(out, "{value:?}"),
            Ok(exponent) => write!(out, "{digits}e{exponent:+03}"),
            Err(_) => write!(out, "{value:?}"),
        }
    }
}

/// Reads JSON as Python's `json.loads` does. Numbers that JSON does not have are read as `null`.
pub(super) fn from_python_json(data: &[u8]) -> Result<Value, String> {
    from_python_json_with(data, "null")
}

/// The same, with another value for numbers that JSON does not have.
pub(super) fn from_python_json_with(data: &[u8], nan: &'static str) -> Result<Value, String> {
    let strict = match serde_json::from_slice(data) {
        Ok(value) => return Ok(value),
        Err(error) => error.to_string(),
    };
    let text = std::str::from_utf8(data).map_err(|error| error.to_string())?;
    serde_json::from_str(&without_python(text, nan)).map_err(|_| strict)
}

/// Replaces what Python accepts and JSON does not have.
fn without_python(text: &str, nan: &'static str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut is_quoted = false;
    while let Some(c) = rest.chars().next() {
        let (mut length, mut instead) = (c.len_utf8(), None);
        match c {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => (length, instead) = escape(rest),
            _ if is_quoted => {}
            'N' | 'I' | '-' | '0'..='9' => (length, instead) = number(rest, nan),
            _ => {}
        }
        out.push_str(instead.unwrap_or(&rest[..length]));
        rest = &rest[length..];
    }
    out
}

/// The length of the escape at the start of `text`, and what to write in its place.
fn escape(text: &str) -> (usize, Option<&'static str>) {
    let unit = |at: usize| {
        let digits = text.get(at..)?.strip_prefix("\\u")?.get(..4)?;
        u16::from_str_radix(digits, 16).ok()
    };
    match (unit(0), unit(6)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => (12, None),
        (Some(0xd800..=0xdfff), _) => (6, Some("\\ufffd")),
        (Some(_), _) => (6, None),
        (None, _) => (1 + text[1..].chars().next().map_or(0, char::len_utf8), None),
    }
}

/// The length of the number at the start of `text`, and what to write in its place.
fn number(text: &str, nan: &'static str) -> (usize, Option<&'static str>) {
    if let Some(word) = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| text.starts_with(word)) {
        return (word.len(), Some(nan));
    }
    let is_part = |c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
    let length = text.find(|c| !is_part(c)).unwrap_or(text.len()).max(1);
    let is_huge = text[..length].parse().is_ok_and(f64::is_infinite);
    (length, is_huge.then_some(nan))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn python(value: &Value) -> String {
        String::from_utf8(to_python_json(value)).unwrap()
    }

    #[test]
    fn json_is_written_as_python_writes_it() {
        // Each right side was written by json.dumps of Python 3.11.
        for (value, text) in [
            (json!({}), "{}"),
            (json!({"a": [], "b": {}}), r#"{"a": [], "b": {}}"#),
            (json!({"b": [1, true, null], "a": "x/y"}), r#"{"b": [1, true, null], "a": "x/y"}"#),
            (json!("é字\u{1f40d}\u{7f}~ \u{2028}"), r#""\u00e9\u5b57\ud83d\udc0d\u007f~ \u2028""#),
            (json!("\"\\\u{8}\u{c}\n\r\t\u{0}\u{1f}"), r#""\"\\\b\f\n\r\t\u0000\u001f""#),
            (json!({"ключ": 1}), r#"{"\u043a\u043b\u044e\u0447": 1}"#),
            (
                json!([1.0, -0.0, 0.1, 1e15, 123456789012345.6]),
                "[1.0, -0.0, 0.1, 1000000000000000.0, 123456789012345.6]",
            ),
            (json!([1e16, 1.5e300, 1e-4, 1e-5, 1.25e-7]), "[1e+16, 1.5e+300, 0.0001, 1e-05, 1.25e-07]"),
            (json!([u64::MAX, i64::MIN]), "[18446744073709551615, -9223372036854775808]"),
        ] {
            assert_eq!(python(&value), text);
        }
    }

    #[test]
    fn values_that_only_python_accepts_are_read_as_the_nearest_json_value() {
        for (text, value) in [
            ("[NaN, Infinity, -Infinity, 1]", json!([null, null, null, 1])),
            (
                "{\"NaN\": \"NaN -Infinity 1e999\", \"x\": 1e999}",
                json!({"NaN": "NaN -Infinity 1e999", "x": null}),
            ),
            (
                r#"["\ud83d", "\ud83d\udc0d", "\udc0d\ud83d", "\\ud83d", "\"NaN", NaN]"#,
                json!(["\u{fffd}", "\u{1f40d}", "\u{fffd}\u{fffd}", "\\ud83d", "\"NaN", null]),
            ),
        ] {
            assert_eq!(from_python_json(text.as_bytes()), Ok(value), "{text}");
        }
        for bad in ["", "{", "nan", "[NaN", "NaNx", "\"\\", "\"\\u12", "-", "[1 2]", "\"a\nb\"", "-é", "\\"]
        {
            assert!(from_python_json(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(from_python_json(b"\"\xff\"").is_err());
    }
}
