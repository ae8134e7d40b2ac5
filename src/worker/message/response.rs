// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Response`]: a report of a worker about a request.

use serde::{Deserialize, Serialize, Serializer, ser::SerializeStruct};
use serde_json::{Map, Value};

use super::{event::Event, failure::Failure, json};
use crate::worker::{
    state::RequestState,
    validate::{self, FormatError},
};

/// A report of a worker about a request.
///
/// Source: `taskflow.engines.worker_based.protocol.Response`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "WireResponse")]
#[non_exhaustive]
pub enum Response {
    /// The worker has started on the request.
    Running,
    /// An event while the request runs.
    Event(Event),
    /// The request has ended with this result.
    Success(Value),
    /// The request has ended with this failure.
    Failure(Failure),
}

impl Response {
    /// The `type` of such a message.
    pub const KIND: &'static str = "RESPONSE";

    /// How many levels of JSON are around a result.
    const LEVELS: usize = 2;

    /// The state of the request after this; `None` for an event, which does not change it.
    pub fn state(&self) -> Option<RequestState> {
        match self {
            Response::Running => Some(RequestState::Running),
            Response::Event(_) => None,
            Response::Success(_) => Some(RequestState::Success),
            Response::Failure(_) => Some(RequestState::Failure),
        }
    }

    /// The body of the message. To read one, see [`WireResponse`].
    ///
    /// A result or failure with too many levels of nesting, which no executor could read, is replaced by a failure that
    /// says so. Otherwise the executor would wait for ever.
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
        struct Ended<T> {
            result: T,
        }
        let mut fields = serializer.serialize_struct("Response", 2)?;
        fields.serialize_field("state", self.state().map_or("EVENT", RequestState::as_str))?;
        match self {
            Response::Running => fields.serialize_field("data", &Nothing {})?,
            Response::Event(event) => fields.serialize_field("data", event)?,
            Response::Success(result) => fields.serialize_field("data", &Ended { result })?,
            Response::Failure(result) => fields.serialize_field("data", &Ended { result })?,
        }
        fields.end()
    }
}

/// A response as it was received. It is valid for TaskFlow, but its data may not fit its state.
///
/// Reading has two steps, as in TaskFlow: a response is validated first, and its data is read later. An executor of
/// TaskFlow ends if the second step fails.
///
/// ```
/// use apportion::worker::message::{InvalidResponse, Response, WireResponse};
///
/// let response = WireResponse::from_json(br#"{"state": "SUCCESS", "data": {"result": 1}}"#)?;
/// assert_eq!(response.decode(), Ok(Response::Success(1.into())));
///
/// let invalid = WireResponse::from_json(br#"{"state": "SUCCESS", "data": {}}"#)?.decode().unwrap_err();
/// assert!(matches!(&invalid, InvalidResponse::Result { .. }));
/// assert_eq!(invalid.to_string(), "SUCCESS without a readable result: `data.result` of the response is missing");
/// # Ok::<(), apportion::worker::validate::FormatError>(())
/// ```
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub struct WireResponse {
    /// `None` is an event.
    state: Option<RequestState>,
    data: Map<String, Value>,
}

impl WireResponse {
    /// Reads the body of a message.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if TaskFlow would refuse it.
    pub fn from_json(json: &[u8]) -> Result<Self, FormatError> {
        json::read(json)?.try_into()
    }

    /// Decodes the report of the worker.
    ///
    /// # Errors
    ///
    /// [`InvalidResponse`] if the data does not fit the state, or if workers never report that state.
    pub fn decode(mut self) -> Result<Response, InvalidResponse> {
        match self.state {
            Some(state @ (RequestState::Waiting | RequestState::Pending)) => {
                Err(InvalidResponse::State(state))
            }
            Some(RequestState::Running) => Ok(Response::Running),
            None => match (self.data.remove("event_type"), self.data.remove("details")) {
                (Some(Value::String(event_type)), Some(Value::Object(details))) => {
                    Ok(Response::Event(Event::from_parts(event_type, details)))
                }
                _ => Err(InvalidResponse::Event(validate::missing_data("event_type"))),
            },
            Some(state @ RequestState::Success) => match self.data.remove("result") {
                Some(result) => Ok(Response::Success(result)),
                None => Err(InvalidResponse::Result { state, reason: validate::missing_data("result") }),
            },
            Some(state @ RequestState::Failure) => match validate::failure_data(&self.data) {
                Ok(()) => {
                    let failure = self.data.remove("result").unwrap_or_default();
                    Ok(Response::Failure(Failure::from_readable(failure)))
                }
                Err(reason) => Err(InvalidResponse::Result { state, reason }),
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

impl TryFrom<WireResponse> for Response {
    type Error = InvalidResponse;

    fn try_from(response: WireResponse) -> Result<Self, InvalidResponse> {
        response.decode()
    }
}

/// A response that is valid for TaskFlow, but whose data does not fit its state. From [`WireResponse::decode`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidResponse {
    /// It reports a state that a worker never reports. It can be ignored.
    #[error("{0} is not a state that a worker reports")]
    State(RequestState),
    /// It reports an event without its type. The request goes on.
    #[error("EVENT without an event: {0}")]
    Event(FormatError),
    /// It reports the end of the request, and the result or failure is missing or cannot be read. No further response
    /// will come: the request has failed.
    #[error("{state} without a readable result: {reason}")]
    Result {
        /// The state that the worker reports.
        state: RequestState,
        /// What is wrong with the result.
        reason: FormatError,
    },
}
