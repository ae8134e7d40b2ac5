//! Pure: what is written about a job, in TaskFlow's format to the byte, and read from whoever wrote it.

use std::{borrow::Cow, fmt, io, str::FromStr};

use serde::Serialize;
use serde_json::{Map, Serializer, Value, ser::Formatter};
use uuid::Uuid;

/// Largest posting that is posted or claimed, in bytes: a claim writes it again, beside the lock, in one request
/// that has to stay below [`MAX_REQUEST_BYTES`](crate::backend::MAX_REQUEST_BYTES).
pub const MAX_POSTING_BYTES: usize = 1_000_000;

/// How urgent a job is. Ordered: a higher priority is greater.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub enum Priority {
    /// After everything else.
    VeryLow,
    /// After most.
    Low,
    /// The usual one; also of postings that name none, as older versions of TaskFlow write them.
    #[default]
    Normal,
    /// Before most.
    High,
    /// Before everything else.
    VeryHigh,
}

impl Priority {
    /// As it is written in a posting, for instance `VERY_HIGH`.
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

    /// In upper or lower case, as TaskFlow reads it.
    fn from_str(text: &str) -> Result<Self, PostingError> {
        use Priority::{High, Low, Normal, VeryHigh, VeryLow};
        let upper = text.to_uppercase();
        let found = [VeryLow, Low, Normal, High, VeryHigh].into_iter().find(|it| it.as_str() == upper);
        found.ok_or_else(|| PostingError::Priority(format!("{text:?}")))
    }
}

/// Why what stands on a board cannot be read as a job.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PostingError {
    /// No JSON, not even as Python writes it.
    #[error("it is not JSON: {0}")]
    Json(String),
    /// JSON, but no object.
    #[error("it is not a JSON object")]
    NotAnObject,
    /// A key without which there is no job.
    #[error("it has no `{0}`")]
    Missing(&'static str),
    /// A priority that is none.
    #[error("its priority is {0}")]
    Priority(String),
    /// More than [`MAX_POSTING_BYTES`]: it could not be claimed.
    #[error("its {bytes} bytes exceed the limit of {MAX_POSTING_BYTES}")]
    TooLarge {
        /// The size of the posting.
        bytes: usize,
    },
    /// A name that starts like that of a job and goes on as none does.
    #[error("its name has no number")]
    Name,
    /// An access control list keeps it from us.
    #[error("it is not permitted to us")]
    NotPermitted,
}

/// What is written about a job. Its uuid, name and details may be any JSON: foreign boards do not check them.
///
/// Where Python wrote what JSON cannot say, reading shows the nearest that it can: `null` for `NaN`, for
/// infinities and for numbers beyond the range of an `f64`, and U+FFFD for half of a surrogate pair. What is
/// written stays as it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Posting {
    pub(super) uuid: Value,
    pub(super) name: Value,
    pub(super) priority: Priority,
    pub(super) details: Value,
    pub(super) book: Option<Value>,
}

impl Posting {
    /// Reads a posting as TaskFlow does: unknown keys are ignored, details may be missing.
    ///
    /// # Errors
    ///
    /// [`PostingError`] if it is none.
    pub fn decode(data: &[u8]) -> Result<Self, PostingError> {
        if data.len() > MAX_POSTING_BYTES {
            return Err(PostingError::TooLarge { bytes: data.len() });
        }
        let Value::Object(mut map) = from_python_json(data).map_err(PostingError::Json)? else {
            return Err(PostingError::NotAnObject);
        };
        let mut take = |key: &'static str| map.shift_remove(key);
        let priority = match take("priority") {
            None => Priority::Normal,
            Some(Value::String(text)) => text.parse()?,
            Some(other) => return Err(PostingError::Priority(other.to_string())),
        };
        Ok(Posting {
            uuid: take("uuid").ok_or(PostingError::Missing("uuid"))?,
            name: take("name").ok_or(PostingError::Missing("name"))?,
            priority,
            details: take("details").filter(|it| !it.is_null()).unwrap_or_else(|| Map::new().into()),
            book: take("book").filter(|it| !it.is_null()),
        })
    }

    /// As TaskFlow writes it.
    pub fn encode(&self) -> Vec<u8> {
        #[derive(Serialize)]
        struct Written<'a> {
            uuid: &'a Value,
            name: &'a Value,
            priority: &'static str,
            details: &'a Value,
            #[serde(skip_serializing_if = "Option::is_none")]
            book: Option<&'a Value>,
        }
        to_python_json(&Written {
            uuid: &self.uuid,
            name: &self.name,
            priority: self.priority.as_str(),
            details: &self.details,
            book: self.book.as_ref(),
        })
    }

    /// The uuid as it is written, usually a text.
    pub fn uuid(&self) -> &Value {
        &self.uuid
    }

    /// The uuid, if it is one.
    pub fn parsed_uuid(&self) -> Option<Uuid> {
        self.uuid.as_str()?.parse().ok()
    }

    /// The name; one that is not a text as JSON.
    pub fn name(&self) -> Cow<'_, str> {
        as_text(&self.name)
    }

    /// How urgent it is.
    pub fn priority(&self) -> Priority {
        self.priority
    }

    /// What the poster has to say about the work: an object, unless a foreign poster wrote something else.
    pub fn details(&self) -> &Value {
        &self.details
    }

    /// The TaskFlow logbook that belongs to it, as it is written: an object with `name` and `uuid`.
    pub fn book(&self) -> Option<&Value> {
        self.book.as_ref()
    }
}

/// A text as it is, anything else as JSON.
pub(super) fn as_text(value: &Value) -> Cow<'_, str> {
    match value {
        Value::String(text) => Cow::Borrowed(text),
        other => Cow::Owned(other.to_string()),
    }
}

/// What a lock says about its holder.
pub(super) fn lock_data(owner: &str) -> Vec<u8> {
    to_python_json(&serde_json::json!({ "owner": owner }))
}

/// Who holds a job, by its lock. A lock without an owner is none, as in TaskFlow; of one that cannot be read, all
/// of it is the owner, since somebody does hold the job.
pub(super) fn owner_of(lock: &[u8]) -> Option<String> {
    match from_python_json(lock) {
        Ok(Value::Object(map)) => {
            map.get("owner").filter(|it| !it.is_null()).map(|it| as_text(it).into_owned())
        }
        _ => Some(String::from_utf8_lossy(lock).into_owned()),
    }
}

/// What is written about a registered entity.
pub(super) fn entity_data(kind: &str, name: &str, metadata: &Value) -> Vec<u8> {
    to_python_json(&serde_json::json!({ "kind": kind, "name": name, "metadata": metadata }))
}

/// Writes JSON as Python's `json.dumps` does by default.
fn to_python_json(value: &impl Serialize) -> Vec<u8> {
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
            let (plain, strange) = rest.split_at(at);
            out.write_all(plain.as_bytes())?;
            let mut chars = strange.chars();
            for unit in chars.next().into_iter().flat_map(|c| c.encode_utf16(&mut units).to_vec()) {
                write!(out, "\\u{unit:04x}")?;
            }
            rest = chars.as_str();
        }
        out.write_all(rest.as_bytes())
    }

    fn write_f64<W: io::Write + ?Sized>(&mut self, out: &mut W, value: f64) -> io::Result<()> {
        // Both write the shortest digits that read back the same; Python's exponent has a sign and two digits.
        let shortest = format!("{value:e}");
        let (digits, exponent) = shortest.split_once('e').unwrap_or((&shortest, "0"));
        match exponent.parse::<i32>() {
            Ok(small) if (-4..16).contains(&small) => write!(out, "{value:?}"),
            Ok(exponent) => write!(out, "{digits}e{exponent:+03}"),
            Err(_) => write!(out, "{value:?}"),
        }
    }
}

/// Reads JSON as Python's `json.loads` does.
fn from_python_json(data: &[u8]) -> Result<Value, String> {
    let strict = match serde_json::from_slice(data) {
        Ok(value) => return Ok(value),
        Err(error) => error.to_string(),
    };
    let text = std::str::from_utf8(data).map_err(|error| error.to_string())?;
    serde_json::from_str(&without_python(text)).map_err(|_| strict)
}

/// Replaces what Python reads and JSON does not know.
fn without_python(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut is_quoted = false;
    while let Some(c) = rest.chars().next() {
        let (mut length, mut instead) = (c.len_utf8(), None);
        match c {
            '"' => is_quoted = !is_quoted,
            '\\' if is_quoted => (length, instead) = escape(rest),
            _ if is_quoted => {}
            'N' | 'I' | '-' | '0'..='9' => (length, instead) = number(rest),
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
fn number(text: &str) -> (usize, Option<&'static str>) {
    if let Some(word) = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| text.starts_with(word)) {
        return (word.len(), Some("null"));
    }
    let is_part = |c: char| matches!(c, '0'..='9' | '+' | '-' | '.' | 'e' | 'E');
    let length = text.find(|c| !is_part(c)).unwrap_or(text.len()).max(1);
    let is_huge = text[..length].parse().is_ok_and(f64::is_infinite);
    (length, is_huge.then_some("null"))
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
        // Each right side is what json.dumps of Python 3.11 gave.
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
    fn what_only_python_reads_is_read_as_the_nearest_that_json_can_say() {
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

    #[test]
    fn a_posting_needs_a_uuid_and_a_name_of_whatever_type() {
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
        let large = format!(r#"{{"uuid": 1, "name": "{}"}}"#, "x".repeat(MAX_POSTING_BYTES));
        assert!(matches!(read(&large), Err(PostingError::TooLarge { .. })));
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
    fn a_lock_without_an_owner_is_nobodys_and_one_that_cannot_be_read_is_somebodys() {
        assert_eq!(owner_of(&lock_data("wörker")).as_deref(), Some("wörker"));
        assert_eq!(lock_data("ö"), br#"{"owner": "\u00f6"}"#);
        assert_eq!(owner_of(b"{}"), None);
        assert_eq!(owner_of(b"{\"owner\": 7}").as_deref(), Some("7"));
        assert_eq!(owner_of(b"x\xff").as_deref(), Some("x\u{fffd}"));
        assert_eq!(owner_of(b"").as_deref(), Some(""));
    }
}
