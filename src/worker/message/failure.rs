// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Failure`]: the error of a task, in a form that a process in another language can read.

use std::{any::type_name, error::Error, fmt};

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};
use serde_json::Value;

use super::json;
use crate::worker::validate::{self, FormatError};

/// The error of a task, with its causes.
///
/// It consists of texts, so that a process in another language can read it: TaskFlow reads it as its own `Failure`, and
/// this type reads that of TaskFlow. It is also an [`Error`], so that a task can return one.
///
/// ```
/// use apportion::worker::Failure;
///
/// let error = "seven".parse::<u32>().unwrap_err();
/// let failure = Failure::of(&error);
/// assert_eq!(failure.exc_type_names(), ["core::num::error::ParseIntError", "Exception"]);
/// assert_eq!(failure.to_string(), "core::num::error::ParseIntError: invalid digit found in string");
/// ```
///
/// Source: `taskflow.types.failure`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub struct Failure {
    exception_str: String,
    traceback_str: String,
    exc_type_names: Vec<String>,
    exc_args: Vec<Value>,
    causes: Vec<Failure>,
}

impl Failure {
    /// The only existing version of the format.
    pub const VERSION: u64 = validate::FAILURE_VERSION;

    /// The base type of Python's exceptions, and the last name in every failure of this crate.
    const ROOT: &'static str = "Exception";

    /// The length at which a chain of causes is cut: JSON must not be nested too deeply, and a chain may be endless.
    const CAUSES: usize = 16;

    /// A failure of the type `name` with this message. If the name is empty, the type is `Exception`.
    pub fn new(name: impl Into<String>, message: impl Into<String>) -> Self {
        let (name, message) = (name.into(), message.into());
        let own_name = Some(name).filter(|name| !name.is_empty() && name != Failure::ROOT);
        Failure {
            exc_args: vec![Value::from(message.as_str())],
            exception_str: message,
            traceback_str: String::new(),
            exc_type_names: own_name.into_iter().chain([Failure::ROOT.to_owned()]).collect(),
            causes: Vec::new(),
        }
    }

    /// Describes `error`, with the errors that caused it (the first 16 of them).
    ///
    /// The type of the failure is the name of the type of `error`, or `Exception` for a `dyn Error`. The causes are all
    /// `Exception`.
    pub fn of<E: Error + ?Sized>(error: &E) -> Self {
        let name = type_name::<E>();
        let name = if name.starts_with("dyn ") { "" } else { name };
        let causes = std::iter::successors(error.source(), |cause: &&dyn Error| (*cause).source())
            .take(Failure::CAUSES);
        let causes: Vec<_> = causes.map(|cause| Failure::new("", cause.to_string())).collect();
        let cause = causes.into_iter().rev().reduce(|inner, outer| outer.caused_by(inner));
        let failure = Failure::new(name, error.to_string());
        match cause {
            Some(cause) => failure.caused_by(cause),
            None => failure,
        }
    }

    /// The same with `cause` as one more cause.
    #[must_use]
    pub fn caused_by(mut self, cause: Failure) -> Self {
        self.causes.push(cause);
        self
    }

    /// The same with these arguments of the exception. The default is one argument, the message.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = Value>) -> Self {
        self.exc_args = args.into_iter().collect();
        self
    }

    /// The same with a traceback: a text that says where the error happened.
    #[must_use]
    pub fn traceback(mut self, traceback: impl Into<String>) -> Self {
        self.traceback_str = traceback.into();
        self
    }

    /// The message of the error.
    pub fn exception_str(&self) -> &str {
        &self.exception_str
    }

    /// The traceback, a text in the format of the process that reported the error. It may be empty.
    pub fn traceback_str(&self) -> &str {
        &self.traceback_str
    }

    /// The type of the error, then its base types. There is at least one; the last is `Exception` or `BaseException`.
    pub fn exc_type_names(&self) -> &[String] {
        &self.exc_type_names
    }

    /// The arguments of the exception.
    pub fn exc_args(&self) -> &[Value] {
        &self.exc_args
    }

    /// The causes. The first is the direct cause. A failure from TaskFlow repeats the causes of the first one after it.
    pub fn causes(&self) -> &[Failure] {
        &self.causes
    }

    /// The failure as JSON.
    pub fn to_json(&self) -> Vec<u8> {
        json::write(self)
    }

    /// Reads a failure from JSON.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if TaskFlow would refuse it, or if its version is not [`VERSION`](Failure::VERSION), the only
    /// one that TaskFlow can read.
    pub fn from_json(json: &[u8]) -> Result<Self, FormatError> {
        json::read(json)?.try_into()
    }

    /// Whether its JSON has more levels than `levels`.
    pub(super) fn is_deeper(&self, levels: usize) -> bool {
        let Some(inside) = levels.checked_sub(2) else { return true };
        self.exc_args.iter().any(|arg| json::is_deeper(arg, inside))
            || self.causes.iter().any(|cause| cause.is_deeper(inside))
    }

    /// The same with neither arguments nor causes.
    pub(super) fn shallow(&self) -> Self {
        Failure { exc_args: Vec::new(), causes: Vec::new(), ..self.clone() }
    }

    /// The failure in `value`, which [`validate::readable_failure`] has accepted.
    pub(super) fn from_readable(value: Value) -> Self {
        let Value::Object(mut fields) = value else {
            unreachable!("a failure was validated to be an object")
        };
        let mut list = |key: &str| match fields.remove(key) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        let (exc_args, causes) = (list("exc_args"), list("causes"));
        let names = list("exc_type_names").into_iter().map(json::into_text);
        Failure {
            exc_args,
            causes: causes.into_iter().map(Failure::from_readable).collect(),
            exc_type_names: names.collect(),
            exception_str: json::take_text(&mut fields, "exception_str"),
            traceback_str: json::take_text(&mut fields, "traceback_str"),
        }
    }
}

impl TryFrom<Value> for Failure {
    type Error = FormatError;

    fn try_from(value: Value) -> Result<Self, FormatError> {
        validate::failure(&value)?;
        validate::readable_failure(&value)?;
        Ok(Failure::from_readable(value))
    }
}

/// As [`Failure::of`]. A [`Failure`] in the box is returned unchanged.
impl From<Box<dyn Error + Send + Sync>> for Failure {
    fn from(error: Box<dyn Error + Send + Sync>) -> Self {
        match error.downcast::<Failure>() {
            Ok(failure) => *failure,
            Err(error) => Failure::of(&*error),
        }
    }
}

impl Serialize for Failure {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut fields = serializer.serialize_struct("Failure", 6)?;
        fields.serialize_field("exception_str", &self.exception_str)?;
        fields.serialize_field("traceback_str", &self.traceback_str)?;
        fields.serialize_field("exc_type_names", &self.exc_type_names)?;
        fields.serialize_field("version", &Failure::VERSION)?;
        fields.serialize_field("exc_args", &self.exc_args)?;
        fields.serialize_field("causes", &self.causes)?;
        fields.end()
    }
}

/// The type and the message of the failure, then those of its cause, and so on down to the first cause.
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut chain = std::iter::successors(Some(self), |failure| failure.causes.first()).peekable();
        while let Some(failure) = chain.next() {
            match failure.exc_type_names.first() {
                Some(name) if name != Failure::ROOT => write!(f, "{name}: ")?,
                _ => {}
            }
            f.write_str(&failure.exception_str)?;
            if chain.peek().is_some() {
                f.write_str(", caused by ")?;
            }
        }
        Ok(())
    }
}

/// `source` returns `None`, because `Display` shows the whole chain.
impl Error for Failure {}
