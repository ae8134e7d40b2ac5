// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Outcome`]: the value that a task gave.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::message::request::TaskResult;

/// The value that a task gave. From awaiting a [`Submitted`](super::Submitted).
///
/// ```
/// use apportion::worker::Outcome;
///
/// let outcome = Outcome::from("thumbnail-120.png");
/// assert_eq!(outcome.get::<String>()?, "thumbnail-120.png");
/// assert!(outcome.get::<u32>().is_err());
/// # Ok::<(), serde_json::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Outcome(Value);

impl Outcome {
    /// The value as a `T`.
    ///
    /// # Errors
    ///
    /// The error of serde if it is not a `T`.
    pub fn get<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.0)
    }

    /// The value as JSON.
    pub fn as_value(&self) -> &Value {
        &self.0
    }

    /// The value as JSON.
    pub fn into_value(self) -> Value {
        self.0
    }
}

/// For tests of code that reads outcomes.
impl<T: Into<Value>> From<T> for Outcome {
    fn from(value: T) -> Self {
        Outcome(value.into())
    }
}

/// For a request to revert the task.
impl From<Outcome> for TaskResult {
    fn from(outcome: Outcome) -> Self {
        TaskResult::Success(outcome.0)
    }
}

/// The value as JSON.
impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}
