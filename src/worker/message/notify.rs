// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Notify`] and [`NotifyReply`]: an executor asks a worker for its tasks.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::json;
use crate::worker::validate::{self, FormatError};

/// The message by which an executor asks a worker for its tasks. It is sent to the topic of the worker, which answers
/// with a [`NotifyReply`].
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
    /// [`FormatError`] if TaskFlow would refuse it.
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

/// The message by which a worker reports its topic and its tasks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct NotifyReply {
    topic: String,
    tasks: Vec<String>,
}

impl NotifyReply {
    /// The `type` of such a message, and of the message that it answers.
    pub const KIND: &'static str = Notify::KIND;

    /// A worker that takes requests for `tasks` at `topic`.
    pub fn new<T: Into<String>>(topic: impl Into<String>, tasks: impl IntoIterator<Item = T>) -> Self {
        NotifyReply { topic: topic.into(), tasks: tasks.into_iter().map(Into::into).collect() }
    }

    /// The topic where the worker takes requests.
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
    /// [`FormatError`] if TaskFlow would refuse it.
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
