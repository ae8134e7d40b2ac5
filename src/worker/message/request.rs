// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Request`], what an executor wants of a worker.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::Action;
use crate::worker::{
    failure::Failure,
    json,
    validate::{self, FormatError, Outcome},
};

/// What became of a task: its value, or how it failed.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskResult {
    /// The value that it gave.
    Success(Value),
    /// How it failed.
    Failure(Failure),
}

/// The pair that it is on the wire.
impl Serialize for TaskResult {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            TaskResult::Success(value) => ("success", value).serialize(serializer),
            TaskResult::Failure(failure) => ("failure", failure).serialize(serializer),
        }
    }
}

/// The version of a task, as its author writes it. Workers do not look at it.
#[derive(Debug, Clone, PartialEq, Serialize)]
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

/// An executor wants a task executed or reverted.
///
/// ```
/// use apportion::worker::message::{Request, TaskResult};
///
/// let request = Request::execute("images.Resize").with_task_name("thumbnail").argument("width", 120);
/// assert_eq!(
///     String::from_utf8(request.to_json()).unwrap(),
///     r#"{"task_cls":"images.Resize","task_name":"thumbnail","task_version":[1,0],"action":"execute","arguments":{"width":120}}"#
/// );
///
/// // To undo something one tells what had come of it.
/// let undo = Request::revert("images.Resize", TaskResult::Success("thumbnail.png".into())).argument("width", 120);
/// assert_eq!(Request::from_json(&undo.to_json()), Ok(undo));
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
}

impl Request {
    /// The `type` of such a message.
    pub const KIND: &'static str = "REQUEST";

    /// Asks to execute the task that workers list as `task_cls`.
    pub fn execute(task_cls: impl Into<String>) -> Self {
        Request::new(Action::Execute, task_cls.into())
    }

    /// Asks to revert that task, which gave `result`.
    ///
    /// The message always has `failures`, be it empty. TaskFlow's executor omits it then, and its worker cannot
    /// revert without.
    pub fn revert(task_cls: impl Into<String>, result: TaskResult) -> Self {
        Request {
            result: Some(result),
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
        }
    }

    /// The same with a name for this use of the task; by default it is that of the task.
    #[must_use]
    pub fn with_task_name(mut self, name: impl Into<String>) -> Self {
        self.task_name = name.into();
        self
    }

    /// The same with another version of the task; by default it is `[1, 0]`.
    #[must_use]
    pub fn with_task_version(mut self, version: impl Into<TaskVersion>) -> Self {
        self.task_version = version.into();
        self
    }

    /// The same with one more argument for the task.
    #[must_use]
    pub fn argument(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.arguments.insert(name.into(), value.into());
        self
    }

    /// The same with these arguments in the place of all others.
    #[must_use]
    pub fn with_arguments(mut self, arguments: Map<String, Value>) -> Self {
        self.arguments = arguments;
        self
    }

    /// The same with one more failure because of which the flow is reverted; `atom` is the task that failed. Only
    /// for a request to revert: the worker of TaskFlow cannot execute with it.
    #[must_use]
    pub fn failure(mut self, atom: impl Into<String>, failure: Failure) -> Self {
        self.failures.get_or_insert_default().insert(atom.into(), failure);
        self
    }

    /// The task, as workers list it.
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

    /// What is asked of the task.
    pub fn action(&self) -> Action {
        self.action
    }

    /// The arguments of the task.
    pub fn arguments(&self) -> &Map<String, Value> {
        &self.arguments
    }

    /// What had come of the task that is to be reverted.
    pub fn result(&self) -> Option<&TaskResult> {
        self.result.as_ref()
    }

    /// The failures because of which it is to be reverted, by the name of the task that failed.
    pub fn failures(&self) -> &BTreeMap<String, Failure> {
        static NONE: BTreeMap<String, Failure> = BTreeMap::new();
        self.failures.as_ref().unwrap_or(&NONE)
    }

    /// The body of the message.
    pub fn to_json(&self) -> Vec<u8> {
        json::write(self)
    }

    /// Reads the body of a message.
    ///
    /// # Errors
    ///
    /// [`FormatError`] where TaskFlow would refuse it, or would not be able to read a failure in it.
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
        let result = match validate::valid_outcome(&fields)? {
            Outcome::None => None,
            Outcome::Success(value) => Some(TaskResult::Success(value.into_owned())),
            Outcome::Failure(failure) => Some(TaskResult::Failure(Failure::from_readable(failure.clone()))),
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
        })
    }
}
