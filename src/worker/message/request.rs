// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Request`]: an executor asks a worker to execute or revert a task.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _, ser::Error as _};
use serde_json::{Map, Value};

use super::{action::Action, failure::Failure, json};
use crate::worker::{
    arguments::ArgumentError,
    validate::{self, FormatError, ResultPair},
};

/// The result of a task: its value, or its failure. As JSON it is a pair, as on the wire, for instance
/// `["success", 42]`.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskResult {
    /// The value that the task returned.
    Success(Value),
    /// The failure of the task.
    Failure(Failure),
}

impl From<Value> for TaskResult {
    fn from(value: Value) -> Self {
        TaskResult::Success(value)
    }
}

impl From<Failure> for TaskResult {
    fn from(failure: Failure) -> Self {
        TaskResult::Failure(failure)
    }
}

impl Serialize for TaskResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            TaskResult::Success(value) => ("success", value).serialize(serializer),
            TaskResult::Failure(failure) => ("failure", failure).serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for TaskResult {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (kind, value) = <(String, Value)>::deserialize(deserializer)?;
        match &*kind {
            "success" => Ok(TaskResult::Success(value)),
            "failure" => value.try_into().map(TaskResult::Failure).map_err(D::Error::custom),
            _ => Err(D::Error::custom("the kind of a result is neither `success` nor `failure`")),
        }
    }
}

/// The version of a task, as its author writes it. Workers ignore it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum TaskVersion {
    /// For instance `"1.0"`.
    Text(String),
    /// For instance `[1, 0]`, which is the default.
    Parts(Vec<Value>),
}

impl Default for TaskVersion {
    fn default() -> Self {
        TaskVersion::Parts(vec![1.into(), 0.into()])
    }
}

impl From<&str> for TaskVersion {
    fn from(text: &str) -> Self {
        TaskVersion::Text(text.to_owned())
    }
}

impl<const N: usize> From<[u64; N]> for TaskVersion {
    fn from(parts: [u64; N]) -> Self {
        TaskVersion::Parts(parts.into_iter().map(Value::from).collect())
    }
}

/// A request to a worker to execute or revert a task. [`Executor::submit`](crate::worker::Executor::submit) sends it.
///
/// ```
/// use apportion::worker::Request;
/// use serde_json::json;
///
/// let request = Request::execute("images.Resize").with_task_name("thumbnail").argument("width", 120);
/// assert_eq!(
///     String::from_utf8(request.to_json()?).unwrap(),
///     r#"{"task_cls":"images.Resize","task_name":"thumbnail","task_version":[1,0],"action":"execute","arguments":{"width":120}}"#
/// );
///
/// // A request to revert a task contains the result of the task.
/// let revert = Request::revert("images.Resize", json!("thumbnail.png")).argument("width", 120);
/// assert_eq!(Request::from_json(&revert.to_json()?), Ok(revert));
/// # Ok::<(), apportion::worker::ArgumentError>(())
/// ```
///
/// Source: `taskflow.engines.worker_based.protocol.Request`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Request {
    task_cls: String,
    task_name: String,
    task_version: TaskVersion,
    action: Action,
    arguments: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<TaskResult>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failures: Option<BTreeMap<String, Failure>>,
    /// The first argument that could not be written as JSON. It is reported when the request is submitted or written.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "refuse")]
    invalid: Option<ArgumentError>,
}

/// A request with an invalid argument must not be sent without it.
fn refuse<S: Serializer>(invalid: &Option<ArgumentError>, _: S) -> Result<S::Ok, S::Error> {
    Err(S::Error::custom(invalid.as_ref().map_or_else(String::new, ToString::to_string)))
}

impl Request {
    /// The `type` of such a message.
    pub const KIND: &'static str = "REQUEST";

    /// A request to execute the task that workers list as `task_cls`.
    pub fn execute(task_cls: impl Into<String>) -> Self {
        Request::new(Action::Execute, task_cls.into())
    }

    /// A request to revert that task. `result` is the result of the task: an [`Outcome`](crate::worker::Outcome),
    /// another value, or the [`Failure`] that it ended with.
    ///
    /// The message always has the field `failures`, also if it is empty. TaskFlow's executor omits an empty one,
    /// although its worker cannot revert without it.
    pub fn revert(task_cls: impl Into<String>, result: impl Into<TaskResult>) -> Self {
        Request {
            result: Some(result.into()),
            failures: Some(BTreeMap::new()),
            ..Request::new(Action::Revert, task_cls.into())
        }
    }

    fn new(action: Action, task_cls: String) -> Self {
        Request {
            task_name: task_cls.clone(),
            task_cls,
            task_version: TaskVersion::default(),
            action,
            arguments: Map::new(),
            result: None,
            failures: None,
            invalid: None,
        }
    }

    /// The same with a name for this use of the task. Default: the name of the task.
    #[must_use]
    pub fn with_task_name(mut self, name: impl Into<String>) -> Self {
        self.task_name = name.into();
        self
    }

    /// The same with another version of the task. Default: `[1, 0]`.
    #[must_use]
    pub fn with_task_version(mut self, version: impl Into<TaskVersion>) -> Self {
        self.task_version = version.into();
        self
    }

    /// The same with one more argument for the task: anything that can be written as JSON. If it cannot, the request
    /// ends with [`RequestError::Argument`](crate::worker::RequestError::Argument) when it is submitted.
    #[must_use]
    pub fn argument(mut self, name: impl Into<String>, value: impl Serialize) -> Self {
        let name = name.into();
        match serde_json::to_value(value) {
            Ok(value) => {
                self.arguments.insert(name, value);
            }
            Err(error) => {
                self.invalid.get_or_insert_with(|| ArgumentError::new(&name, error.to_string()));
            }
        }
        self
    }

    /// The same with these arguments in the place of all others.
    #[must_use]
    pub fn with_arguments(mut self, arguments: Map<String, Value>) -> Self {
        self.arguments = arguments;
        self.invalid = None;
        self
    }

    /// The same with one more failure that is a reason to revert; `atom` is the name of the task that failed. For a
    /// request to revert only: a worker of TaskFlow cannot execute a request with failures.
    #[must_use]
    pub fn failure(mut self, atom: impl Into<String>, failure: Failure) -> Self {
        self.failures.get_or_insert_default().insert(atom.into(), failure);
        self
    }

    /// The task, by the name under which workers list it.
    pub fn task_cls(&self) -> &str {
        &self.task_cls
    }

    /// The name of this use of the task.
    pub fn task_name(&self) -> &str {
        &self.task_name
    }

    /// The version of the task.
    pub fn task_version(&self) -> &TaskVersion {
        &self.task_version
    }

    /// Whether the task is to be executed or reverted.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The arguments of the task.
    pub fn arguments(&self) -> &Map<String, Value> {
        &self.arguments
    }

    /// The result of the task that is to be reverted; `None` in a request to execute.
    pub fn result(&self) -> Option<&TaskResult> {
        self.result.as_ref()
    }

    /// The failures that are the reason to revert, by the name of the task that failed.
    pub fn failures(&self) -> &BTreeMap<String, Failure> {
        static NONE: BTreeMap<String, Failure> = BTreeMap::new();
        self.failures.as_ref().unwrap_or(&NONE)
    }

    /// The body of the message.
    ///
    /// # Errors
    ///
    /// [`ArgumentError`] for the first argument that cannot be written as JSON.
    pub fn to_json(&self) -> Result<Vec<u8>, ArgumentError> {
        match &self.invalid {
            Some(error) => Err(error.clone()),
            None => Ok(json::write(self)),
        }
    }

    /// Reads the body of a message.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if TaskFlow would refuse it, or could not read a failure in it.
    pub fn from_json(json: &[u8]) -> Result<Self, FormatError> {
        json::read(json)?.try_into()
    }
}

impl TryFrom<Value> for Request {
    type Error = FormatError;

    fn try_from(value: Value) -> Result<Self, FormatError> {
        validate::request(&value)?;
        validate::readable_request(&value)?;
        let Value::Object(mut fields) = value else { unreachable!("validated to be an object") };
        let result = match validate::valid_result(&fields)? {
            ResultPair::None => None,
            ResultPair::Success(value) => Some(TaskResult::Success(value.into_owned())),
            ResultPair::Failure(failure) => {
                Some(TaskResult::Failure(Failure::from_readable(failure.clone())))
            }
        };
        let failures = match fields.remove("failures") {
            Some(Value::Object(failures)) => Some(
                failures.into_iter().map(|(atom, failure)| (atom, Failure::from_readable(failure))).collect(),
            ),
            _ => None,
        };
        Ok(Request {
            action: json::take_text(&mut fields, "action").parse().expect("validated to be an action"),
            task_cls: json::take_text(&mut fields, "task_cls"),
            task_name: json::take_text(&mut fields, "task_name"),
            task_version: match fields.remove("task_version") {
                Some(Value::Array(parts)) => TaskVersion::Parts(parts),
                version => TaskVersion::Text(json::into_text(version.unwrap_or_default())),
            },
            arguments: match fields.remove("arguments") {
                Some(Value::Object(arguments)) => arguments,
                _ => Map::new(),
            },
            result,
            failures,
            invalid: None,
        })
    }
}
