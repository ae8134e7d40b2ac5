// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Response`], what a worker says of a request.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};
use serde_json::{Map, Value};

use crate::worker::{
    failure::Failure,
    json,
    lifecycle::State,
    validate::{self, FormatError},
};

/// A worker says how far it is with a request.
///
/// Source: `taskflow.engines.worker_based.protocol.Response`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Response {
    /// It has started.
    Running,
    /// Something happened on the way.
    Event {
        /// What happened, for instance [`Response::PROGRESS`].
        event_type: String,
        /// More of it.
        details: Map<String, Value>,
    },
    /// It is over, and this is the result.
    Success(Value),
    /// It is over, and this is how it failed.
    Failure(Failure),
}

impl Response {
    /// The `type` of such a message.
    pub const KIND: &'static str = "RESPONSE";

    /// The event that tells how much of a task is done.
    pub const PROGRESS: &'static str = "update_progress";

    /// How many levels are around a result.
    const LEVELS: usize = 2;

    /// The event that says that `fraction` of the task is done, between 0 and 1.
    pub fn progress(fraction: f64) -> Self {
        let details = Map::from_iter([("progress".to_owned(), Value::from(fraction))]);
        Response::Event { event_type: Response::PROGRESS.to_owned(), details }
    }

    /// How much of the task is done, if this is an event that says so.
    pub fn as_progress(&self) -> Option<f64> {
        match self {
            Response::Event { event_type, details } if event_type == Response::PROGRESS => {
                details.get("progress").and_then(Value::as_f64)
            }
            _ => None,
        }
    }

    /// Where the request stands after this; `None` for an event, after which it stands where it stood.
    pub fn state(&self) -> Option<State> {
        match self {
            Response::Running => Some(State::Running),
            Response::Event { .. } => None,
            Response::Success(_) => Some(State::Success),
            Response::Failure(_) => Some(State::Failure),
        }
    }

    /// The body of the message. To read one, see [`WireResponse`].
    ///
    /// A result or failure that is nested in so many levels that no executor would read it becomes a failure that
    /// says so: otherwise the executor would wait for ever.
    pub fn to_json(&self) -> Vec<u8> {
        let levels = json::LEVELS - Response::LEVELS;
        match self {
            Response::Success(result) if json::is_deeper(result, levels) => {
                let message = format!("the result is nested in more than {levels} levels");
                json::write(&Response::Failure(Failure::new("ValueError", message)))
            }
            Response::Failure(failure) if failure.is_deeper(levels) => {
                json::write(&Response::Failure(failure.shallow()))
            }
            _ => json::write(self),
        }
    }
}

impl Serialize for Response {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct Nothing {}
        #[derive(Serialize)]
        struct Event<'a> {
            event_type: &'a str,
            details: &'a Map<String, Value>,
        }
        #[derive(Serialize)]
        struct Outcome<T> {
            result: T,
        }
        let mut fields = serializer.serialize_struct("Response", 2)?;
        fields.serialize_field("state", self.state().map_or("EVENT", State::as_str))?;
        match self {
            Response::Running => fields.serialize_field("data", &Nothing {})?,
            Response::Event { event_type, details } => {
                fields.serialize_field("data", &Event { event_type, details })?;
            }
            Response::Success(result) => fields.serialize_field("data", &Outcome { result })?,
            Response::Failure(result) => fields.serialize_field("data", &Outcome { result })?,
        }
        fields.end()
    }
}

/// A response as it came: valid, but what it says may not fit its state.
///
/// TaskFlow looks at the two one after the other as well, but not expecting that the second look may fail: its
/// executor dies of a response that is valid and means nothing.
///
/// ```
/// use apportion::worker::message::{OddResponse, Response, WireResponse};
///
/// let response = WireResponse::from_json(br#"{"state": "SUCCESS", "data": {"result": 1}}"#)?;
/// assert_eq!(response.meaning(), Ok(Response::Success(1.into())));
///
/// let odd = WireResponse::from_json(br#"{"state": "SUCCESS", "data": {}}"#)?.meaning().unwrap_err();
/// assert!(matches!(&odd, OddResponse::Outcome { .. }));
/// assert_eq!(odd.to_string(), "SUCCESS without a usable outcome: `data.result` of the response is missing");
/// # Ok::<(), apportion::worker::validate::FormatError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub struct WireResponse {
    /// `None` is an event.
    state: Option<State>,
    data: Map<String, Value>,
}

impl WireResponse {
    /// Reads the body of a message.
    ///
    /// # Errors
    ///
    /// [`FormatError`] where TaskFlow would refuse it.
    pub fn from_json(json: &[u8]) -> Result<Self, FormatError> {
        json::read(json)?.try_into()
    }

    /// What the worker says.
    ///
    /// # Errors
    ///
    /// [`OddResponse`] if the data does not fit the state, or no worker reports that state.
    pub fn meaning(mut self) -> Result<Response, OddResponse> {
        match self.state {
            Some(state @ (State::Waiting | State::Pending)) => Err(OddResponse::State(state)),
            Some(State::Running) => Ok(Response::Running),
            None => match (self.data.remove("event_type"), self.data.remove("details")) {
                (Some(Value::String(event_type)), Some(Value::Object(details))) => {
                    Ok(Response::Event { event_type, details })
                }
                _ => Err(OddResponse::Event(validate::missing_data("event_type"))),
            },
            Some(state @ State::Success) => match self.data.remove("result") {
                Some(result) => Ok(Response::Success(result)),
                None => Err(OddResponse::Outcome { state, reason: validate::missing_data("result") }),
            },
            Some(state @ State::Failure) => match validate::failure_data(&self.data) {
                Ok(()) => {
                    let failure = self.data.remove("result").unwrap_or_default();
                    Ok(Response::Failure(Failure::from_readable(failure)))
                }
                Err(reason) => Err(OddResponse::Outcome { state, reason }),
            },
        }
    }
}

impl TryFrom<Value> for WireResponse {
    type Error = FormatError;

    fn try_from(mut value: Value) -> Result<Self, FormatError> {
        validate::response(&value)?;
        let Value::Object(data) = value["data"].take() else { unreachable!("validated to be an object") };
        Ok(WireResponse { state: json::into_text(value["state"].take()).parse().ok(), data })
    }
}

/// A valid response that means nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum OddResponse {
    /// It reports a state that is not the worker's to report. To be ignored.
    #[error("{0} is not for a worker to report")]
    State(State),
    /// It reports an event and does not say which. The request goes on.
    #[error("EVENT without an event: {0}")]
    Event(FormatError),
    /// It says that the request is over, and the result or failure is missing or cannot be read. Nothing else will
    /// come: the request has failed.
    #[error("{state} without a usable outcome: {reason}")]
    Outcome {
        /// What the worker says has become of the request.
        state: State,
        /// What is wrong with the outcome.
        reason: FormatError,
    },
}
