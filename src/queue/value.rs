// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Value`]: the data of an entry, a JSON object with the fields of the original and fields of this crate.
//!
//! The original has `dataset`, `groupid`, `state` and, once the entry is owned, `worker`. This crate adds `payload`,
//! which the user put; `attempt`, how often the entry was delivered; `claim`, the name of the claim of its worker;
//! `result` and `error`, how it ended. Unknown fields are kept unchanged. A value that is not a JSON object has no
//! place for fields: when it is taken it is wrapped in an object, and its bytes are in the field `foreign`.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value as Json, json};

/// The state of an entry. The numbers are those of the original. From [`Finished::state`](super::Finished::state).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum State {
    /// It waits to be taken.
    Pending = 1,
    /// It is being prepared. Only the original writes this state.
    Staging = 2,
    /// A worker has taken it.
    Running = 3,
    /// It has ended with a result.
    Successful = 4,
    /// It has ended with an error.
    Failed = 5,
}

impl State {
    /// The number in the store.
    pub const fn number(self) -> u8 {
        self as u8
    }

    fn from_number(number: u64) -> Option<Self> {
        [State::Pending, State::Staging, State::Running, State::Successful, State::Failed]
            .into_iter()
            .find(|state| u64::from(state.number()) == number)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            State::Pending => "pending",
            State::Staging => "staging",
            State::Running => "running",
            State::Successful => "successful",
            State::Failed => "failed",
        })
    }
}

/// The value of an entry.
#[derive(Clone, PartialEq)]
pub(crate) struct Value {
    fields: Map<String, Json>,
    /// The payload that the user put, or the whole of a foreign value.
    payload: Option<Json>,
    raw: Vec<u8>,
}

impl Value {
    /// The value of a new entry.
    pub(crate) fn new(label: &str, payload: Json) -> Self {
        // The group comes last, and the data set may contain colons, as in the names of the golden data.
        let (dataset, group) = label.rsplit_once(':').unwrap_or((label, ""));
        let mut fields = Map::new();
        fields.insert("dataset".into(), dataset.into());
        fields.insert("groupid".into(), group.into());
        fields.insert("state".into(), State::Pending.number().into());
        fields.insert("payload".into(), payload);
        let raw = text(&fields);
        let payload = fields.get("payload").cloned();
        Value { fields, payload, raw }
    }

    /// Reads the data of a znode, of any writer.
    pub(crate) fn read(data: &[u8]) -> Self {
        let (fields, raw) = match serde_json::from_slice(data) {
            Ok(Json::Object(fields)) => {
                let unwrapped = fields.get("foreign").and_then(unwrap);
                (fields, unwrapped.unwrap_or_else(|| data.to_vec()))
            }
            _ => (Map::from_iter([("foreign".into(), wrap(data))]), data.to_vec()),
        };
        let payload = fields.get("payload").cloned().or_else(|| serde_json::from_slice(&raw).ok());
        Value { fields, payload, raw }
    }

    /// The data of the znode.
    pub(crate) fn data(&self) -> Vec<u8> {
        text(&self.fields)
    }

    pub(crate) fn payload(&self) -> Option<&Json> {
        self.payload.as_ref()
    }

    pub(crate) fn payload_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        match self.payload() {
            Some(payload) => T::deserialize(payload),
            None => serde_json::from_slice(self.raw()),
        }
    }

    /// The bytes that were put or read, without the object that wraps a foreign value.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    pub(crate) fn state(&self) -> Option<State> {
        State::from_number(self.fields.get("state")?.as_u64()?)
    }

    pub(crate) fn worker(&self) -> Option<&str> {
        self.fields.get("worker")?.as_str()
    }

    pub(crate) fn claim(&self) -> Option<&str> {
        self.fields.get("claim")?.as_str()
    }

    /// How often it was delivered.
    pub(crate) fn attempt(&self) -> u32 {
        let attempt = self.fields.get("attempt").and_then(Json::as_u64).unwrap_or(0);
        u32::try_from(attempt).unwrap_or(u32::MAX)
    }

    pub(crate) fn result(&self) -> Option<&Json> {
        self.fields.get("result")
    }

    pub(crate) fn error(&self) -> Option<&str> {
        self.fields.get("error")?.as_str()
    }

    /// The same, taken by `worker` under `claim`, with one more attempt.
    pub(crate) fn taken(&self, worker: &str, claim: &str) -> Value {
        self.with([
            ("state", State::Running.number().into()),
            ("worker", worker.into()),
            ("claim", claim.into()),
            ("attempt", self.attempt().saturating_add(1).into()),
        ])
    }

    /// The same with another payload.
    pub(crate) fn updated(&self, payload: Json) -> Value {
        Value { payload: Some(payload.clone()), ..self.with([("payload", payload)]) }
    }

    /// The same, to be taken again after `attempt` deliveries.
    pub(crate) fn given_back(&self, attempt: u32) -> Value {
        let mut back = self.with([("state", State::Pending.number().into()), ("attempt", attempt.into())]);
        back.fields.shift_remove("worker");
        back.fields.shift_remove("claim");
        back
    }

    /// The same, ended with a result or an error.
    pub(crate) fn ended(&self, outcome: Result<Json, String>) -> Value {
        match outcome {
            Ok(result) => self.with([("state", State::Successful.number().into()), ("result", result)]),
            Err(error) => self.with([("state", State::Failed.number().into()), ("error", error.into())]),
        }
    }

    fn with<const N: usize>(&self, changes: [(&str, Json); N]) -> Value {
        let mut changed = self.clone();
        for (key, value) in changes {
            changed.fields.insert(key.into(), value);
        }
        changed
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(&self.fields).finish()
    }
}

fn text(fields: &Map<String, Json>) -> Vec<u8> {
    serde_json::to_vec(fields).expect("a map with text for keys is JSON")
}

/// Wraps bytes in a JSON object.
fn wrap(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() }),
    }
}

fn unwrap(wrapped: &Json) -> Option<Vec<u8>> {
    let fields = wrapped.as_object().filter(|fields| fields.len() == 1)?;
    if let Some(text) = fields.get("text") {
        return Some(text.as_str()?.as_bytes().to_vec());
    }
    let hex = fields.get("hex")?.as_str()?.as_bytes();
    hex.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_new_value_is_that_of_the_original_with_a_payload() {
        let value = Value::new("a:b:18", json!({ "x": [1, null] }));
        let text = r#"{"dataset":"a:b","groupid":"18","state":1,"payload":{"x":[1,null]}}"#;
        assert_eq!(String::from_utf8(value.data()).unwrap(), text);
        assert_eq!(Value::read(text.as_bytes()), value);
        let taken = value.taken("w", "c");
        let text = concat!(
            r#"{"dataset":"a:b","groupid":"18","state":3,"payload":{"x":[1,null]},"#,
            r#""worker":"w","claim":"c","attempt":1}"#
        );
        assert_eq!(String::from_utf8(taken.data()).unwrap(), text);
        assert_eq!((taken.attempt(), taken.claim(), taken.worker()), (1, Some("c"), Some("w")));
        let back = taken.given_back(taken.attempt());
        assert_eq!((back.attempt(), back.claim(), back.worker()), (1, None, None));
        assert_eq!(back.payload(), value.payload());
        let done = taken.updated(json!(2)).ended(Ok(json!("fine")));
        assert_eq!((done.state(), done.result()), (Some(State::Successful), Some(&json!("fine"))));
        assert_eq!(done.payload(), Some(&json!(2)));
        let failed = taken.ended(Err("boom".into()));
        assert_eq!((failed.state(), failed.error()), (Some(State::Failed), Some("boom")));
    }

    #[test]
    fn a_value_of_the_original_is_its_own_payload_and_keeps_its_fields() {
        let python = br#"{"groupid": 18, "state": 1, "dataset": "taxi", "extra": {"b": 1, "a": 2}}"#;
        let value = Value::read(python);
        let whole: Json = serde_json::from_slice(python).unwrap();
        assert_eq!(value.payload(), Some(&whole));
        let back = value.taken("w", "c").given_back(1);
        let mut expected = whole;
        expected["attempt"] = json!(1);
        assert_eq!(serde_json::from_slice::<Json>(&back.data()).unwrap(), expected);
    }

    #[test]
    fn data_that_is_not_an_object_is_wrapped_and_read_unchanged() {
        for (bytes, payload) in [
            (&b"[1, 2]"[..], Some(json!([1, 2]))),
            (b"", None),
            (b"not json", None),
            (b"\xff\x00\x7f", None),
            (b"\"text\"", Some(json!("text"))),
            (b"NaN", None),
        ] {
            let value = Value::read(bytes);
            assert_eq!((value.raw(), value.payload()), (bytes, payload.as_ref()), "{bytes:?}");
            let taken = Value::read(&value.taken("w", "c").data());
            assert_eq!((taken.raw(), taken.attempt(), taken.payload()), (bytes, 1, payload.as_ref()));
            let again = Value::read(&taken.given_back(1).data());
            assert_eq!((again.raw(), again.attempt()), (bytes, 1));
        }
    }

    #[test]
    fn fields_of_a_wrong_type_count_as_missing() {
        let value = Value::read(
            br#"{"attempt": -1, "claim": 7, "worker": null, "state": "x", "foreign": {"hex": "0"}}"#,
        );
        assert_eq!((value.attempt(), value.claim(), value.worker(), value.state()), (0, None, None, None));
        assert_eq!(Value::read(br#"{"state": 9, "attempt": 99999999999}"#).attempt(), u32::MAX);
    }
}
