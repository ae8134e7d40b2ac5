// Pure: no runtime, no clock, no socket, no random numbers.

//! The data of postings, locks and entities: written in the format of TaskFlow to the byte, and read from any writer.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::python_json::{from_python_json, from_python_json_with, to_python_json};
use crate::backend::MAX_REQUEST_BYTES;

/// The size of the largest posting that can be posted or claimed, in bytes, unless
/// [`Config::max_request_bytes`](crate::Config::max_request_bytes) sets another limit. A claim writes the posting and
/// the lock in one request, which has to stay below [`MAX_REQUEST_BYTES`].
pub const MAX_POSTING_BYTES: usize = 1_000_000;

/// The size of the largest posting for a given limit of requests, in bytes.
pub(super) const fn max_posting_bytes(max_request_bytes: usize) -> usize {
    max_request_bytes.saturating_sub(MAX_REQUEST_BYTES - MAX_POSTING_BYTES)
}

/// The priority of a job. Ordered: a higher priority is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Priority {
    /// Claimed after all others.
    VeryLow,
    /// Claimed after normal ones.
    Low,
    /// The usual one; also that of postings without a priority, as older versions of TaskFlow write them.
    #[default]
    Normal,
    /// Claimed before normal ones.
    High,
    /// Claimed before all others.
    VeryHigh,
}

impl Priority {
    /// The text that stands in a posting, for instance `VERY_HIGH`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Priority::VeryLow => "VERY_LOW",
            Priority::Low => "LOW",
            Priority::Normal => "NORMAL",
            Priority::High => "HIGH",
            Priority::VeryHigh => "VERY_HIGH",
        }
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Priority {
    type Err = PostingError;

    /// Accepts upper and lower case, as TaskFlow does.
    fn from_str(text: &str) -> Result<Self, PostingError> {
        use Priority::{High, Low, Normal, VeryHigh, VeryLow};
        let upper = text.to_uppercase();
        let found = [VeryLow, Low, Normal, High, VeryHigh].into_iter().find(|it| it.as_str() == upper);
        found.ok_or_else(|| PostingError::Priority(format!("{text:?}")))
    }
}

/// Why a znode of a board cannot be read as a job, or not be claimed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostingError {
    /// It is not JSON, not even as Python writes it.
    #[error("it is not JSON: {0}")]
    Json(String),
    /// It is JSON, but not an object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// A required key is missing.
    #[error("it has no `{0}`")]
    Missing(&'static str),
    /// Its priority is not one of TaskFlow's.
    #[error("its priority, {0}, is not valid")]
    Priority(String),
    /// It is too large to be claimed.
    #[error("its {bytes} bytes exceed the limit of {limit}")]
    TooLarge {
        /// The size of the posting, in bytes.
        bytes: usize,
        /// The limit in bytes: [`MAX_POSTING_BYTES`], unless
        /// [`Config::max_request_bytes`](crate::Config::max_request_bytes) sets another one.
        limit: usize,
    },
    /// The name of the znode starts with `job`, but no number follows.
    #[error("its name has no number")]
    Name,
    /// An access control list denies access to this client.
    #[error("permission denied by ACL")]
    NotPermitted,
    /// A znode is below it, so it can never be taken off the board.
    #[error("a znode is below it, so that it cannot be removed")]
    HasChild,
    /// It can be read, but the server refuses to write it again, as a claim does.
    #[error("it cannot be claimed: {0}")]
    Unchangeable(String),
}

/// The posting of a job. Its uuid, name and details may be any JSON value, because other writers do not check them.
///
/// Python can write values that JSON does not have. They are read as `null` (`NaN`, infinities, numbers beyond the
/// range of an `f64`) or as U+FFFD (half of a surrogate pair). The bytes in the store are not changed.
#[derive(Debug, Clone, PartialEq)]
pub struct Posting {
    pub(super) uuid: Value,
    pub(super) name: Value,
    pub(super) priority: Priority,
    pub(super) details: Value,
    pub(super) book: Option<Value>,
    /// Before when it is not to be claimed, in milliseconds since 1970. Not known to TaskFlow.
    pub(super) not_before: Option<u64>,
}

impl Posting {
    /// Reads a posting as TaskFlow does: unknown keys are ignored, details may be missing. Where Python takes a value for
    /// false, such as `""`, `0` or `[]`, there are no details, no book and no uuid.
    ///
    /// # Errors
    ///
    /// [`PostingError`] if `data` is not a posting.
    pub fn decode(data: &[u8]) -> Result<Self, PostingError> {
        let Value::Object(mut map) = from_python_json(data).map_err(PostingError::Json)? else {
            return Err(PostingError::NotAnObject);
        };
        // `NaN` is read as `null`, and Python takes it for true.
        let is_nan = |key: &str, value: &Value| value.is_null() && has_nan_at(data, key);
        let is_true = |key: &str, value: &Value| is_true_in_python(value) || is_nan(key, value);
        let mut take = |key: &'static str| map.shift_remove(key);
        let priority = match take("priority") {
            None => Priority::Normal,
            Some(Value::String(text)) => text.parse()?,
            Some(other) => return Err(PostingError::Priority(other.to_string())),
        };
        Ok(Posting {
            uuid: Some(take("uuid").ok_or(PostingError::Missing("uuid"))?)
                .filter(is_true_in_python)
                .unwrap_or(Value::Null),
            name: take("name").ok_or(PostingError::Missing("name"))?,
            priority,
            details: take("details").filter(|it| is_true("details", it)).unwrap_or_else(|| Map::new().into()),
            book: take("book").filter(|it| is_true("book", it)),
            not_before: take("not_before").and_then(|it| it.as_u64()),
        })
    }

    /// Writes the posting as TaskFlow does, to the byte.
    pub fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Written<'a> {
            uuid: &'a Value,
            name: &'a Value,
            priority: &'static str,
            details: &'a Value,
            #[serde(skip_serializing_if = "Option::is_none")]
            book: Option<&'a Value>,
            #[serde(skip_serializing_if = "Option::is_none")]
            not_before: Option<u64>,
        }
        to_python_json(&Written {
            uuid: &self.uuid,
            name: &self.name,
            priority: self.priority.as_str(),
            details: &self.details,
            book: self.book.as_ref(),
            not_before: self.not_before,
        })
    }

    /// The uuid as it stands in the posting, usually a text; `null` if it is empty.
    pub fn uuid(&self) -> &Value {
        &self.uuid
    }

    /// The uuid; `None` if the posting has something else in its place.
    pub fn parsed_uuid(&self) -> Option<Uuid> {
        self.uuid.as_str()?.parse().ok()
    }

    /// The name. A name that is not a text is shown as JSON.
    pub fn name(&self) -> Cow<'_, str> {
        as_text(&self.name)
    }

    /// The priority.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// The details for the worker: an object, unless a foreign poster wrote another JSON value.
    pub fn details(&self) -> &Value {
        &self.details
    }

    /// The TaskFlow logbook that belongs to the job, as it stands in the posting: an object with `name` and `uuid`.
    pub fn book(&self) -> Option<&Value> {
        self.book.as_ref()
    }
}

/// Whether Python takes a value for true.
fn is_true_in_python(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(is) => *is,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        Value::Object(fields) => !fields.is_empty(),
    }
}

/// Whether a posting has a number of Python at this key that JSON does not have, such as `NaN`.
fn has_nan_at(data: &[u8], key: &str) -> bool {
    from_python_json_with(data, "true").is_ok_and(|value| value.get(key) == Some(&Value::Bool(true)))
}

/// A text as it is, anything else as JSON.
pub(super) fn as_text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// The data of a lock.
pub(super) fn lock_data(owner: &str) -> Vec<u8> {
    to_python_json(&serde_json::json!({ "owner": owner }))
}

/// The owner that a lock names. A lock without an owner does not count as a claim, as in TaskFlow. If a lock is not
/// JSON, its whole text is the owner, because a process does hold the job.
pub(super) fn owner_of(lock: &[u8]) -> Option<String> {
    match from_python_json(lock) {
        Ok(Value::Object(map)) => {
            map.get("owner").filter(|it| !it.is_null()).map(|it| as_text(it).into_owned())
        }
        _ => Some(String::from_utf8_lossy(lock).into_owned()),
    }
}

/// The data of a registered entity.
pub(super) fn entity_data(kind: &str, name: &str, metadata: &Value) -> Vec<u8> {
    to_python_json(&serde_json::json!({ "kind": kind, "name": name, "metadata": metadata }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_posting_needs_a_uuid_and_a_name_of_any_type() {
        let read = |text: &str| Posting::decode(text.as_bytes());
        let posting = read(r#"{"name": [1], "uuid": null, "x": 1, "details": null, "book": null}"#).unwrap();
        assert_eq!((posting.name(), posting.uuid()), ("[1]".into(), &Value::Null));
        assert_eq!((posting.priority(), posting.book()), (Priority::Normal, None));
        assert_eq!(posting.details(), &json!({}));
        assert_eq!(read(r#"{"uuid": 1}"#), Err(PostingError::Missing("name")));
        assert_eq!(read(r#"{"name": 1}"#), Err(PostingError::Missing("uuid")));
        assert_eq!(read("[]"), Err(PostingError::NotAnObject));
        assert!(matches!(read(""), Err(PostingError::Json(_))));
        for bad in ["null", "1", "{}", r#""""#, r#""URGENT""#, r#"" HIGH""#] {
            let text = format!(r#"{{"uuid": 1, "name": 1, "priority": {bad}}}"#);
            assert!(matches!(read(&text), Err(PostingError::Priority(_))), "{bad}");
        }
    }

    #[test]
    fn priorities_are_ordered_and_read_in_any_case() {
        use Priority::{High, Low, Normal, VeryHigh, VeryLow};
        assert!(VeryLow < Low && Low < Normal && Normal < High && High < VeryHigh);
        for priority in [VeryLow, Low, Normal, High, VeryHigh] {
            assert_eq!(priority.to_string().parse(), Ok(priority));
            assert_eq!(priority.to_string().to_lowercase().parse(), Ok(priority));
        }
    }

    #[test]
    fn a_lock_without_an_owner_is_no_claim_and_one_that_is_not_json_is_its_own_owner() {
        assert_eq!(owner_of(&lock_data("wörker")).as_deref(), Some("wörker"));
        assert_eq!(lock_data("ö"), br#"{"owner": "\u00f6"}"#);
        assert_eq!(owner_of(b"{}"), None);
        assert_eq!(owner_of(b"{\"owner\": 7}").as_deref(), Some("7"));
        assert_eq!(owner_of(b"x\xff").as_deref(), Some("x\u{fffd}"));
        assert_eq!(owner_of(b"").as_deref(), Some(""));
    }
}
