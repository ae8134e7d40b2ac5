// Pure: no runtime, no clock, no socket, no random numbers.

//! Reads and writes JSON, and reads what Python writes beyond JSON.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::worker::validate::FormatError;

/// How deeply lists and objects may be nested in a message. A message with more levels is refused when it is read.
pub(super) const LEVELS: usize = 127;

/// Reads JSON, and what Python writes beyond JSON: see [`crate::worker::validate`].
pub(super) fn read(bytes: &[u8]) -> Result<Value, FormatError> {
    let value = serde_json::from_slice(bytes);
    match value.or_else(|error| repair(bytes).map_or(Err(error), |bytes| serde_json::from_slice(&bytes))) {
        Ok(value) => Ok(value),
        Err(error) => Err(FormatError::not_json(&error)),
    }
}

/// Writes JSON.
pub(super) fn write<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("messages are made of texts, values and maps with texts as keys")
}

/// The text in `value`, which was validated to be one.
pub(super) fn into_text(value: Value) -> String {
    let Value::String(text) = value else { unreachable!("validated to be a text") };
    text
}

/// Takes the text out of `fields`, which were validated to have it.
pub(super) fn take_text(fields: &mut Map<String, Value>, key: &str) -> String {
    into_text(fields.remove(key).unwrap_or_default())
}

/// Whether lists and objects in `value` are nested in more than `levels` levels.
pub(super) fn is_deeper(value: &Value, levels: usize) -> bool {
    let is_deep = |inside| is_deeper(inside, levels - 1);
    match value {
        Value::Array(items) => levels == 0 || items.iter().any(is_deep),
        Value::Object(fields) => levels == 0 || fields.values().any(is_deep),
        _ => false,
    }
}

/// `bytes` with what only Python writes replaced by JSON; `None` if there is nothing to replace.
fn repair(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut repaired = Vec::with_capacity(bytes.len());
    let (mut rest, mut in_text) = (bytes, false);
    while let Some(&first) = rest.first() {
        let (length, instead) = if in_text { in_a_text(rest) } else { between_texts(rest) };
        in_text ^= first == b'"';
        let (taken, left) = rest.split_at(length);
        repaired.extend_from_slice(instead.unwrap_or(taken));
        rest = left;
    }
    (repaired != bytes).then_some(repaired)
}

/// How many bytes to skip, and what to write in their place.
type Replaced = (usize, Option<&'static [u8]>);

fn between_texts(rest: &[u8]) -> Replaced {
    for name in [&b"NaN"[..], b"Infinity", b"-Infinity"] {
        if rest.starts_with(name) {
            return (name.len(), Some(b"null"));
        }
    }
    let is_number = |byte: &u8| byte.is_ascii_digit() || b"+-.eE".contains(byte);
    let number = &rest[..rest.iter().position(|byte| !is_number(byte)).unwrap_or(rest.len())];
    let digits = number.strip_prefix(b"-").unwrap_or(number);
    let is_integer =
        digits.iter().all(u8::is_ascii_digit) && digits.first().is_some_and(|&first| first != b'0');
    let is_infinite =
        is_integer && str::from_utf8(digits).is_ok_and(|digits| digits.parse().is_ok_and(f64::is_infinite));
    (number.len().max(1), is_infinite.then_some(b"null"))
}

fn in_a_text(rest: &[u8]) -> Replaced {
    let unit = |rest: &[u8]| {
        let digits = rest.strip_prefix(b"\\u")?.get(..4)?;
        u16::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()
    };
    match unit(rest) {
        Some(0xD800..=0xDBFF) => match unit(&rest[6..]) {
            Some(0xDC00..=0xDFFF) => (12, None),
            _ => (6, Some(b"\\ufffd")),
        },
        Some(0xDC00..=0xDFFF) => (6, Some(b"\\ufffd")),
        Some(_) => (6, None),
        None if rest[0] == b'\\' => (rest.len().min(2), None),
        None => (1, None),
    }
}
