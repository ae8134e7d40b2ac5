//! Pure: bytes to JSON values and back, with the liberties that Python takes.

use serde::Serialize;
use serde_json::{Map, Value};

use super::validate::FormatError;

/// Reads JSON.
pub(super) fn read(bytes: &[u8]) -> Result<Value, FormatError> {
    serde_json::from_slice(bytes).map_err(|error| FormatError::not_json(&error))
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
