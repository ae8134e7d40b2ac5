// Pure: no runtime, no clock, no socket, no random numbers.

//! The messages between executor and worker, from and to JSON.
//!
//! An executor sends [`Notify`] and a worker answers [`NotifyReply`]; an executor sends a [`Request`] and a worker
//! answers with several [`Response`]s. Reading accepts what TaskFlow accepts and refuses what it refuses (see
//! [`super::validate`]); writing gives what its workers and executors accept.

mod request;
mod response;

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use serde_json::Value;

pub use self::{
    request::{Request, TaskResult, TaskVersion},
    response::{OddResponse, Response, WireResponse},
};
use super::{
    json,
    validate::{self, FormatError},
};

/// What is asked of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Do it.
    Execute,
    /// Undo it.
    Revert,
}

impl Action {
    /// The name on the wire: `execute` or `revert`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Execute => "execute",
            Action::Revert => "revert",
        }
    }

    /// What a TaskFlow engine calls the outcome: `executed` or `reverted`.
    pub const fn event(self) -> &'static str {
        match self {
            Action::Execute => "executed",
            Action::Revert => "reverted",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not the name of an [`Action`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not an action", .0.escape_debug())]
pub struct UnknownAction(pub String);

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(name: &str) -> Result<Self, UnknownAction> {
        [Action::Execute, Action::Revert]
            .into_iter()
            .find(|action| action.as_str() == name)
            .ok_or_else(|| UnknownAction(name.chars().take(64).collect()))
    }
}

/// An executor asks who is there: sent to the topic of a worker, answered by [`NotifyReply`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Notify {}

impl Notify {
    /// The `type` of such a message, and of the answer to it.
    pub const KIND: &'static str = "NOTIFY";

    /// The body of the message.
    pub fn to_json(&self) -> Vec<u8> {
        json::write(self)
    }

    /// Reads the body of a message.
    ///
    /// # Errors
    ///
    /// [`FormatError`] where TaskFlow would refuse it.
    pub fn from_json(json: &[u8]) -> Result<Self, FormatError> {
        json::read(json)?.try_into()
    }
}

impl TryFrom<Value> for Notify {
    type Error = FormatError;

    fn try_from(value: Value) -> Result<Self, FormatError> {
        validate::notify(&value).map(|()| Notify {})
    }
}

/// A worker says where it is and what it can run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct NotifyReply {
    topic: String,
    tasks: Vec<String>,
}

impl NotifyReply {
    /// The `type` of such a message, and of the question that it answers.
    pub const KIND: &'static str = Notify::KIND;

    /// A worker that takes requests for `tasks` at `topic`.
    pub fn new<T: Into<String>>(topic: impl Into<String>, tasks: impl IntoIterator<Item = T>) -> Self {
        NotifyReply { topic: topic.into(), tasks: tasks.into_iter().map(Into::into).collect() }
    }

    /// Where the worker takes requests.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The tasks that the worker can run.
    pub fn tasks(&self) -> &[String] {
        &self.tasks
    }

    /// The body of the message.
    pub fn to_json(&self) -> Vec<u8> {
        json::write(self)
    }

    /// Reads the body of a message.
    ///
    /// # Errors
    ///
    /// [`FormatError`] where TaskFlow would refuse it.
    pub fn from_json(json: &[u8]) -> Result<Self, FormatError> {
        json::read(json)?.try_into()
    }
}

impl TryFrom<Value> for NotifyReply {
    type Error = FormatError;

    fn try_from(mut value: Value) -> Result<Self, FormatError> {
        validate::notify_reply(&value)?;
        let Value::Array(tasks) = value["tasks"].take() else { unreachable!("validated to be a list") };
        Ok(NotifyReply {
            topic: json::into_text(value["topic"].take()),
            tasks: tasks.into_iter().map(json::into_text).collect(),
        })
    }
}
