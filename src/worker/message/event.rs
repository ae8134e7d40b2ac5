// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Event`]: a report of a task while it runs.

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::failure::Failure;

/// A report of a task while it runs, for instance of progress. From [`Progress`](crate::worker::Progress).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    event_type: String,
    details: Map<String, Value>,
}

/// The details of an event cannot be written as a JSON object. From [`Event::new`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the details of event {event_type:?}: {reason}")]
pub struct EventError {
    event_type: String,
    reason: String,
}

impl Event {
    /// The type of events for progress.
    pub const PROGRESS: &'static str = "update_progress";

    /// An event of a type that the caller chooses. `details` are a map or a struct.
    ///
    /// # Errors
    ///
    /// [`EventError`] if `details` cannot be written as a JSON object.
    pub fn new(event_type: impl Into<String>, details: impl Serialize) -> Result<Self, EventError> {
        let event_type = event_type.into();
        match serde_json::to_value(details) {
            Ok(Value::Object(details)) => Ok(Event { event_type, details }),
            Ok(_) => Err(EventError { event_type, reason: "they are not a JSON object".into() }),
            Err(error) => Err(EventError { event_type, reason: error.to_string() }),
        }
    }

    /// The event for progress: `fraction` of the task is done, from 0 to 1.
    pub fn progress(fraction: f64) -> Self {
        let details = Map::from_iter([("progress".to_owned(), Value::from(fraction))]);
        Event { event_type: Event::PROGRESS.to_owned(), details }
    }

    pub(super) fn from_parts(event_type: String, details: Map<String, Value>) -> Self {
        Event { event_type, details }
    }

    /// The type of the event, for instance [`Event::PROGRESS`].
    pub fn event_type(&self) -> &str {
        &self.event_type
    }

    /// How much of the task is done, from 0 to 1; `None` if this is another type of event.
    pub fn as_progress(&self) -> Option<f64> {
        if self.event_type == Event::PROGRESS { self.details.get("progress")?.as_f64() } else { None }
    }

    /// The details as one value with a field for each.
    ///
    /// # Errors
    ///
    /// The error of serde if they are not a `T`.
    pub fn details_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(&self.details)
    }

    /// The details as JSON.
    pub fn details(&self) -> &Map<String, Value> {
        &self.details
    }
}

impl From<EventError> for Failure {
    fn from(error: EventError) -> Self {
        Failure::of(&error)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn details_are_any_value_that_is_a_json_object() {
        let event = Event::new("copied", BTreeMap::from([("bytes", 7)])).unwrap();
        assert_eq!(
            event.details_as::<BTreeMap<String, u32>>().unwrap(),
            BTreeMap::from([("bytes".into(), 7)])
        );
        assert_eq!(event.as_progress(), None);
        let error = Event::new("copied", 7).unwrap_err();
        assert_eq!(error.to_string(), r#"the details of event "copied": they are not a JSON object"#);
        let error = Event::new("copied", BTreeMap::from([([1, 2], 3)])).unwrap_err();
        assert_eq!(error.to_string(), r#"the details of event "copied": key must be a string"#);
    }
}
