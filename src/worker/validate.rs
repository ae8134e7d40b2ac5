// Pure: no runtime, no clock, no socket, no random numbers.

//! Validates messages: accepts exactly those that TaskFlow's validators accept.
//!
//! The types of [`message`](super::message) validate what they read. These functions are for tools that check messages
//! without reading them.
//!
//! JSON is not read exactly as in Python, because Python also writes what JSON does not have:
//!
//! - The bare words `NaN`, `Infinity` and `-Infinity`, and numbers too large for a double, are read as `null`. That is
//!   how they are written here.
//! - Half of a surrogate pair is read as U+FFFD.
//! - An integer beyond 64 bits becomes the nearest double.
//! - A body whose lists and objects are nested in more than 127 levels is refused.
//!
//! Source: `taskflow.engines.worker_based.protocol`, `taskflow.types.failure`.

use std::{borrow::Cow, fmt};

use serde_json::{Map, Value};

use super::{message::Action, state::RequestState};

/// The only existing version of the format of failures.
pub(super) const FAILURE_VERSION: u64 = 1;

/// Why a message is refused: the field, and the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message} {reason}", if field.is_empty() { "the ".into() } else { format!("`{field}` of the ") })]
pub struct FormatError {
    message: &'static str,
    field: String,
    reason: String,
}

impl FormatError {
    /// The path of the field in the message, for instance `failures.x.causes[0].version`; empty for the whole message.
    pub fn field(&self) -> &str {
        &self.field
    }

    /// The reason, for instance `is missing`.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    pub(super) fn not_json(error: &serde_json::Error) -> Self {
        FormatError { message: "message", field: String::new(), reason: format!("is not JSON: {error}") }
    }
}

/// Accepts the message by which an executor asks a worker for its tasks: an empty object.
///
/// # Errors
///
/// [`FormatError`] names the first field that is wrong.
pub fn notify(message: &Value) -> Result<(), FormatError> {
    only(object(message, At::Message("notify"))?, &[], At::Message("notify"))
}

/// Accepts the answer of a worker: its topic and its tasks, nothing else.
///
/// # Errors
///
/// [`FormatError`] names the first field that is wrong.
pub fn notify_reply(message: &Value) -> Result<(), FormatError> {
    let at = At::Message("notify reply");
    let fields = object(message, at)?;
    text(fields, "topic", at)?;
    texts(required(fields, "tasks", at)?, At::Key(&at, "tasks"))?;
    only(fields, &["topic", "tasks"], at)
}

/// Accepts a request, with all the failures in it.
///
/// # Errors
///
/// [`FormatError`] names the first field that is wrong.
pub fn request(message: &Value) -> Result<(), FormatError> {
    let at = At::Message("request");
    let fields = object(message, at)?;
    text(fields, "task_cls", at)?;
    text(fields, "task_name", at)?;
    match required(fields, "task_version", at)? {
        Value::String(_) | Value::Array(_) => {}
        _ => return Err(At::Key(&at, "task_version").is("is neither a text nor a list")),
    }
    if text(fields, "action", at)?.parse::<Action>().is_err() {
        return Err(At::Key(&at, "action").is("is neither `execute` nor `revert`"));
    }
    for key in ["arguments", "failures"] {
        if let Some(value) = fields.get(key) {
            object(value, At::Key(&at, key))?;
        }
    }
    each_failure(fields, at, check_failure)
}

/// Accepts a response. Whether its data fits its state is not checked: see
/// [`WireResponse::decode`](super::message::WireResponse::decode).
///
/// # Errors
///
/// [`FormatError`] names the first field that is wrong.
pub fn response(message: &Value) -> Result<(), FormatError> {
    let at = At::Message("response");
    let fields = object(message, at)?;
    let state = text(fields, "state", at)?;
    if state != "EVENT" && state.parse::<RequestState>().is_err() {
        return Err(At::Key(&at, "state").is("is not a state of a response"));
    }
    let at_data = At::Key(&at, "data");
    let data = object(required(fields, "data", at)?, at_data)?;
    if data.contains_key("event_type") || data.contains_key("details") {
        text(data, "event_type", at_data)?;
        object(required(data, "details", at_data)?, At::Key(&at_data, "details"))?;
        only(data, &["event_type", "details"], at_data)?;
    } else {
        only(data, &["result"], at_data)?;
    }
    only(fields, &["state", "data"], at)
}

/// Accepts a failure, with all its causes. One of another version than
/// [`Failure::VERSION`](super::Failure::VERSION) is valid, although no release of TaskFlow reads it.
///
/// # Errors
///
/// [`FormatError`] names the first field that is wrong.
pub fn failure(message: &Value) -> Result<(), FormatError> {
    check_failure(message, At::Message("failure"))
}

/// Accepts a valid failure that can be read: it and its causes have the version [`FAILURE_VERSION`].
pub(super) fn readable_failure(message: &Value) -> Result<(), FormatError> {
    check_readable(message, At::Message("failure"))
}

/// The same for all failures in a valid request.
pub(super) fn readable_request(message: &Value) -> Result<(), FormatError> {
    let at = At::Message("request");
    each_failure(object(message, at)?, at, check_readable)
}

/// Accepts the data of a response that says FAILURE.
pub(super) fn failure_data(data: &Map<String, Value>) -> Result<(), FormatError> {
    let at = At::Message("response");
    let at = At::Key(&at, "data");
    let failure = required(data, "result", at)?;
    check_failure(failure, At::Key(&at, "result"))?;
    check_readable(failure, At::Key(&at, "result"))
}

/// The error for a response whose data lacks a field that its state demands.
pub(super) fn missing_data(key: &str) -> FormatError {
    let at = At::Message("response");
    let at = At::Key(&at, "data");
    At::Key(&at, key).is("is missing")
}

/// The `result` of a request. In Python it is any value that can be unpacked into two; `null` is none.
pub(super) enum ResultPair<'a> {
    None,
    Success(Cow<'a, Value>),
    Failure(&'a Value),
}

fn each_failure(
    fields: &Map<String, Value>,
    at: At<'_>,
    check: fn(&Value, At<'_>) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    let at_failures = At::Key(&at, "failures");
    for (name, failure) in fields.get("failures").and_then(Value::as_object).into_iter().flatten() {
        check(failure, At::Key(&at_failures, name))?;
    }
    let at_result = At::Key(&at, "result");
    match result_pair(fields.get("result"), at_result)? {
        ResultPair::Failure(failure) => check(failure, At::Index(&at_result, 1)),
        ResultPair::None | ResultPair::Success(_) => Ok(()),
    }
}

/// Unpacks `result` as Python does. A text of two characters and an object of two keys are pairs, too.
fn result_pair<'a>(result: Option<&'a Value>, at: At<'_>) -> Result<ResultPair<'a>, FormatError> {
    let unpaired = || at.is("is not a pair of a kind and a value");
    match result {
        None | Some(Value::Null) => Ok(ResultPair::None),
        Some(Value::Array(items)) => match &items[..] {
            [kind, value] if kind == "failure" => Ok(ResultPair::Failure(value)),
            [_, value] => Ok(ResultPair::Success(Cow::Borrowed(value))),
            _ => Err(unpaired()),
        },
        Some(Value::String(text)) => {
            let mut chars = text.chars();
            match (chars.next(), chars.next(), chars.next()) {
                (Some(_), Some(value), None) => {
                    Ok(ResultPair::Success(Cow::Owned(Value::from(value.to_string()))))
                }
                _ => Err(unpaired()),
            }
        }
        Some(Value::Object(fields)) => {
            let mut keys = fields.keys();
            match (keys.next(), keys.next(), keys.next()) {
                (Some(kind), Some(_), None) if kind == "failure" => {
                    Err(At::Index(&at, 1).is("is not an object"))
                }
                (Some(_), Some(value), None) => {
                    Ok(ResultPair::Success(Cow::Owned(Value::from(value.as_str()))))
                }
                _ => Err(unpaired()),
            }
        }
        Some(_) => Err(unpaired()),
    }
}

/// The `result` of a valid request.
pub(super) fn valid_result(fields: &Map<String, Value>) -> Result<ResultPair<'_>, FormatError> {
    let at = At::Message("request");
    result_pair(fields.get("result"), At::Key(&at, "result"))
}

fn check_failure(failure: &Value, at: At<'_>) -> Result<(), FormatError> {
    let fields = object(failure, at)?;
    text(fields, "exception_str", at)?;
    text(fields, "traceback_str", at)?;
    let at_names = At::Key(&at, "exc_type_names");
    let names = texts(required(fields, "exc_type_names", at)?, at_names)?;
    match names.last().and_then(Value::as_str) {
        None => return Err(at_names.is("is empty")),
        Some("Exception" | "BaseException") => {}
        Some(_) => return Err(at_names.is("ends neither with `Exception` nor with `BaseException`")),
    }
    if fields.get("version").is_some_and(|version| !is_count(version)) {
        return Err(At::Key(&at, "version").is("is not an integer from 0 on"));
    }
    if let Some(args) = fields.get("exc_args") {
        list(args, At::Key(&at, "exc_args"))?;
    }
    each_cause(fields, at, check_failure)
}

fn check_readable(failure: &Value, at: At<'_>) -> Result<(), FormatError> {
    let fields = object(failure, at)?;
    let version = required(fields, "version", at)?;
    #[allow(clippy::float_cmp, reason = "1.0 is 1 in Python, and nothing else is")]
    if version.as_f64() != Some(1.0) {
        let expected = FAILURE_VERSION;
        return Err(At::Key(&at, "version").is(format!("is {version}, and only {expected} can be read")));
    }
    each_cause(fields, at, check_readable)
}

fn each_cause(
    failure: &Map<String, Value>,
    at: At<'_>,
    check: fn(&Value, At<'_>) -> Result<(), FormatError>,
) -> Result<(), FormatError> {
    let at_causes = At::Key(&at, "causes");
    let causes = failure.get("causes").map(|causes| list(causes, at_causes)).transpose()?;
    for (index, cause) in causes.into_iter().flatten().enumerate() {
        check(cause, At::Index(&at_causes, index))?;
    }
    Ok(())
}

/// Whether it is an integer by JSON schema: `1.0` is one, `true` is not.
fn is_count(value: &Value) -> bool {
    value.as_u64().is_some() || value.as_f64().is_some_and(|value| value >= 0.0 && value.fract() == 0.0)
}

/// The place of a value in a message. It is on the stack, so that a valid message needs no allocation.
#[derive(Clone, Copy)]
enum At<'a> {
    Message(&'static str),
    Key(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

impl At<'_> {
    /// The error for the value at this place.
    fn is(&self, reason: impl Into<String>) -> FormatError {
        FormatError { message: self.message(), field: self.to_string(), reason: reason.into() }
    }

    fn message(&self) -> &'static str {
        match self {
            At::Message(message) => message,
            At::Key(parent, _) | At::Index(parent, _) => parent.message(),
        }
    }
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// Keys are cut, because another process chose them and they are written into a log.
        const LONGEST: usize = 64;
        match self {
            At::Message(_) => Ok(()),
            At::Index(parent, index) => write!(f, "{parent}[{index}]"),
            At::Key(parent, key) => {
                let dot = if matches!(parent, At::Message(_)) { "" } else { "." };
                let cut = key.char_indices().nth(LONGEST).map(|(end, _)| end);
                let (key, rest) = cut.map_or((*key, ""), |end| (&key[..end], "..."));
                write!(f, "{parent}{dot}{}{rest}", key.escape_debug())
            }
        }
    }
}

/// The value as an object.
fn object<'v>(value: &'v Value, at: At<'_>) -> Result<&'v Map<String, Value>, FormatError> {
    value.as_object().ok_or_else(|| at.is("is not an object"))
}

/// The value as a list.
fn list<'v>(value: &'v Value, at: At<'_>) -> Result<&'v Vec<Value>, FormatError> {
    value.as_array().ok_or_else(|| at.is("is not a list"))
}

/// The value as a list of texts.
fn texts<'v>(value: &'v Value, at: At<'_>) -> Result<&'v Vec<Value>, FormatError> {
    let texts = list(value, at)?;
    match texts.iter().position(|text| !text.is_string()) {
        Some(index) => Err(At::Index(&at, index).is("is not a text")),
        None => Ok(texts),
    }
}

/// The required field `key`.
fn required<'v>(fields: &'v Map<String, Value>, key: &str, at: At<'_>) -> Result<&'v Value, FormatError> {
    fields.get(key).ok_or_else(|| At::Key(&at, key).is("is missing"))
}

/// The text in the required field `key`.
fn text<'v>(fields: &'v Map<String, Value>, key: &str, at: At<'_>) -> Result<&'v str, FormatError> {
    required(fields, key, at)?.as_str().ok_or_else(|| At::Key(&at, key).is("is not a text"))
}

/// Refuses fields that are not `known`.
fn only(fields: &Map<String, Value>, known: &[&str], at: At<'_>) -> Result<(), FormatError> {
    match fields.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(At::Key(&at, key).is("is not expected there")),
        None => Ok(()),
    }
}
