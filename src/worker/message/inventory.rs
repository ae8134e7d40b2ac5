// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Inventory`]: a worker of this crate tells an executor of this crate which of its requests it has.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::json;
use crate::worker::validate::FormatError;

/// The requests of one executor that a worker has. TaskFlow has no such message: only processes of this crate send it
/// to each other.
///
/// A worker sends it periodically to each executor that has asked for its tasks, and at once when it has consumed its
/// topic again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    topic: String,
    waiting: Vec<String>,
    running: Vec<String>,
    has_room: bool,
    /// In seconds.
    every: f64,
}

impl Inventory {
    /// The `type` of such a message.
    pub const KIND: &'static str = "INVENTORY";

    /// The inventory of the worker at `topic`, which sends one `every` so often. `has_room` says whether it could have
    /// taken more requests all the time since the last inventory: then none wait at the broker.
    pub fn new(topic: impl Into<String>, has_room: bool, every: Duration) -> Self {
        let every = every.as_secs_f64();
        Inventory { topic: topic.into(), waiting: Vec::new(), running: Vec::new(), has_room, every }
    }

    /// The same with the ids of the requests that wait at the worker.
    #[must_use]
    pub fn with_waiting(mut self, ids: impl IntoIterator<Item = String>) -> Self {
        self.waiting.extend(ids);
        self
    }

    /// The same with the ids of the requests that run, or whose end is being reported.
    #[must_use]
    pub fn with_running(mut self, ids: impl IntoIterator<Item = String>) -> Self {
        self.running.extend(ids);
        self
    }

    /// The topic where the worker takes requests.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The ids of the requests that wait at the worker.
    pub fn waiting(&self) -> &[String] {
        &self.waiting
    }

    /// The ids of the requests that run, or whose end is being reported.
    pub fn running(&self) -> &[String] {
        &self.running
    }

    /// Whether the worker could have taken more requests all the time since the last inventory.
    pub fn has_room(&self) -> bool {
        self.has_room
    }

    /// How often the worker sends an inventory, an hour at most.
    pub fn every(&self) -> Duration {
        Duration::try_from_secs_f64(self.every).unwrap_or_default().min(Duration::from_secs(3600))
    }

    /// The body of the message.
    pub fn to_json(&self) -> Vec<u8> {
        json::write(self)
    }

    /// Reads the body of a message.
    ///
    /// # Errors
    ///
    /// [`FormatError`] if it is not an inventory.
    pub fn from_json(json: &[u8]) -> Result<Self, FormatError> {
        serde_json::from_slice(json).map_err(|error| FormatError::not_json(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inventory_is_read_as_it_was_written_and_other_json_is_refused() {
        let inventory = Inventory::new("w", true, Duration::from_secs(5))
            .with_waiting(["a".to_owned()])
            .with_running(["b".to_owned()]);
        assert_eq!(Inventory::from_json(&inventory.to_json()), Ok(inventory));
        for json in ["", "[]", "{}", r#"{"topic": 1}"#] {
            assert!(Inventory::from_json(json.as_bytes()).is_err(), "{json}");
        }
        for (every, read) in [(-1.0, 0), (f64::NAN, 0), (1e12, 3600), (2.0, 2)] {
            let inventory = Inventory { every, ..Inventory::new("w", true, Duration::ZERO) };
            assert_eq!(inventory.every(), Duration::from_secs(read));
        }
    }
}
