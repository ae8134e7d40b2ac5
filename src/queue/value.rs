// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Value`]: the data of an entry, a JSON object with the fields of the original and fields of this crate.
//!
//! The original has `dataset`, `groupid`, `state` and, once the entry is owned, `worker`. This crate adds `payload`,
//! which the user put; `attempt`, how often the entry was delivered; `claim`, the name of the claim of its worker;
//! `result` and `error`, how it ended; `id`, which entry it is; `not_before`, when it may be taken; `last_error`, why the
//! last delivery has failed.
//!
//! A value of another program keeps its text. The fields of this crate are added after it, beginning with `foreign`, the
//! number of members that are not ours. (Its `state` is changed in place if it was pending.) A value that is not a JSON
//! object has no place for fields: when it is taken it is wrapped in an object, and its bytes are in the field `foreign`.

use std::fmt;

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value as Json;

use super::object::Object;
use crate::lease::kept;

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
    object: Object,
    writer: Writer,
    /// The payload that the user put, or the whole of a foreign value.
    payload: Option<Json>,
    raw: Vec<u8>,
}

/// Who wrote the value first.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Writer {
    /// This crate, or the value is not an object and was wrapped: all members are fields of this crate.
    Ours,
    /// Another program, and no field was added so far.
    Foreign,
    /// Another program: so many members are its own. Those after them are fields of this crate.
    Marked(usize),
}

/// How an entry is given back.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Back {
    /// How many deliveries count so far.
    pub(crate) attempt: u32,
    /// Why the last one has failed. `None`: what is known of those before stays.
    pub(crate) reason: Option<String>,
    /// Whether there was a reason for which there is no room: that of an earlier delivery must not stand for it.
    pub(crate) has_no_room: bool,
    /// Before when it is not to be taken again, in milliseconds since 1970.
    pub(crate) not_before: Option<u64>,
}

impl Back {
    /// The same with as much of its reason as there is room for.
    pub(super) fn with_reason(&self, reason: Option<&str>) -> Back {
        let has_no_room = self.reason.is_some() && reason.is_none();
        Back { reason: reason.map(str::to_owned), has_no_room, ..self.clone() }
    }
}

impl Value {
    /// The value of a new entry.
    pub(crate) fn new(label: &str, payload: Json) -> Self {
        // The group comes last, and the data set may contain colons, as in the names of the golden data.
        let (dataset, group) = label.rsplit_once(':').unwrap_or((label, ""));
        let mut value = Value { object: Object::new(), writer: Writer::Ours, payload: None, raw: Vec::new() };
        value.set("dataset", &dataset.into());
        value.set("groupid", &group.into());
        value.set_state(State::Pending);
        value.set("payload", &payload);
        value.raw = value.data();
        Value { payload: Some(payload), ..value }
    }

    /// The same with an id.
    pub(crate) fn with_id(mut self, id: &str) -> Self {
        self.set("id", &id.into());
        self
    }

    /// The same, not to be taken before this time, in milliseconds since 1970.
    pub(crate) fn delayed_until(mut self, unix_ms: u64) -> Self {
        self.set("not_before", &unix_ms.into());
        self
    }

    /// Reads the data of a znode, of any writer.
    pub(crate) fn read(data: &[u8]) -> Self {
        let object = std::str::from_utf8(data).ok().and_then(Object::read);
        let Some(object) = object else {
            let mut object = Object::new();
            object.set(0, FOREIGN, wrap(data).to_string());
            let payload = serde_json::from_slice(data).ok();
            return Value { object, writer: Writer::Ours, payload, raw: data.to_vec() };
        };
        let foreign = object.get(0, FOREIGN).and_then(|text| serde_json::from_str::<Json>(text).ok());
        let count = foreign.as_ref().and_then(Json::as_u64).and_then(|count| usize::try_from(count).ok());
        let (writer, raw) = match (count.filter(|count| *count < object.len()), foreign.as_ref()) {
            (Some(count), _) => (Writer::Marked(count), original(&object, count)),
            (None, Some(wrapped)) => (Writer::Ours, unwrap(wrapped).unwrap_or_else(|| data.to_vec())),
            (None, None) if object.get(0, "payload").is_some() => (Writer::Ours, data.to_vec()),
            (None, None) => (Writer::Foreign, data.to_vec()),
        };
        let mut value = Value { object, writer, payload: None, raw };
        value.payload = serde_json::from_slice(value.payload_text()).ok();
        value
    }

    /// The payload as text: that which the user put, or the whole of a foreign value.
    fn payload_text(&self) -> &[u8] {
        let put = match self.writer {
            Writer::Ours | Writer::Marked(_) => self.object.get(self.own_from(), "payload"),
            Writer::Foreign => None,
        };
        put.map_or(&*self.raw, str::as_bytes)
    }

    /// The data of the znode.
    pub(crate) fn data(&self) -> Vec<u8> {
        self.object.text().into_bytes()
    }

    pub(crate) fn payload(&self) -> Option<&Json> {
        self.payload.as_ref()
    }

    pub(crate) fn payload_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        // Not from the value: there, numbers that do not fit are rounded.
        serde_json::from_slice(self.payload_text())
    }

    /// The bytes that were put or read, without the fields and the object that this crate has added to a foreign value.
    pub(crate) fn raw(&self) -> &[u8] {
        &self.raw
    }

    pub(crate) fn state(&self) -> Option<State> {
        State::from_number(json(self.object.get(0, "state")?)?.as_u64()?)
    }

    pub(crate) fn worker(&self) -> Option<String> {
        json(self.object.get(0, "worker")?)?.as_str().map(str::to_owned)
    }

    pub(crate) fn claim(&self) -> Option<String> {
        self.field("claim")?.as_str().map(str::to_owned)
    }

    pub(crate) fn id(&self) -> Option<String> {
        self.field("id")?.as_str().map(str::to_owned)
    }

    /// Before when it is not to be taken, in milliseconds since 1970.
    pub(crate) fn not_before(&self) -> Option<u64> {
        self.field("not_before")?.as_u64()
    }

    /// How often it was delivered.
    pub(crate) fn attempt(&self) -> u32 {
        let attempt = self.field("attempt").and_then(|it| it.as_u64()).unwrap_or(0);
        u32::try_from(attempt).unwrap_or(u32::MAX)
    }

    pub(crate) fn result(&self) -> Option<Json> {
        self.field("result")
    }

    /// Why it has failed: for good, or the last time.
    pub(crate) fn error(&self) -> Option<String> {
        let error = self.field("error").or_else(|| self.field("last_error"))?;
        error.as_str().map(str::to_owned)
    }

    /// The same, taken by `worker` under `claim`, with one more attempt.
    pub(crate) fn taken(&self, worker: &str, claim: &str) -> Value {
        let attempt = self.attempt().saturating_add(1);
        let mut taken = self.clone();
        taken.set_state(State::Running);
        taken.set("worker", &worker.into());
        taken.set("claim", &claim.into());
        taken.set("attempt", &attempt.into());
        taken.remove("not_before");
        taken
    }

    /// The same with another payload.
    pub(crate) fn updated(&self, payload: Json) -> Value {
        let mut updated = self.clone();
        updated.set("payload", &payload);
        Value { payload: Some(payload), ..updated }
    }

    /// The same, to be taken again.
    pub(crate) fn given_back(&self, back: &Back) -> Value {
        let mut given = self.clone();
        given.set_state(State::Pending);
        for key in ["worker", "claim"] {
            given.remove(key);
        }
        given.set("attempt", &back.attempt.into());
        given.explain(back);
        match back.not_before {
            Some(unix_ms) => given.delayed_until(unix_ms),
            None => given,
        }
    }

    /// The same as a dead letter. It keeps the worker that had it last.
    pub(crate) fn dead(&self, back: &Back) -> Value {
        let mut dead = self.clone();
        dead.set_state(State::Pending);
        dead.remove("claim");
        dead.set("attempt", &back.attempt.into());
        dead.explain(back);
        dead
    }

    /// The same as if it had never been delivered.
    pub(crate) fn revived(&self) -> Value {
        let mut revived = self.given_back(&Back::default());
        revived.remove("last_error");
        revived
    }

    /// The same, ended with a result or an error.
    pub(crate) fn ended(&self, outcome: Result<Json, String>) -> Value {
        let mut ended = self.clone();
        ended.remove("last_error");
        match outcome {
            Ok(result) => {
                ended.set_state(State::Successful);
                ended.set("result", &result);
            }
            Err(error) => {
                ended.set_state(State::Failed);
                ended.set("error", &error.into());
            }
        }
        ended
    }

    fn explain(&mut self, back: &Back) {
        if back.has_no_room {
            self.remove("last_error");
        }
        if let Some(reason) = &back.reason {
            self.set("last_error", &kept(reason).into());
        }
    }

    /// A field of this crate.
    fn field(&self, key: &str) -> Option<Json> {
        json(self.object.get(self.own_from(), key)?)
    }

    /// The number of the first field of this crate. In a value without a mark, another program may have written any.
    fn own_from(&self) -> usize {
        match self.writer {
            Writer::Ours | Writer::Foreign => 0,
            Writer::Marked(count) => count,
        }
    }

    /// Sets a field of this crate. Members of another program stay as they are.
    fn set(&mut self, key: &str, value: &Json) {
        if self.writer == Writer::Foreign {
            let count = self.object.len();
            self.object.set(count, FOREIGN, count.to_string());
            self.writer = Writer::Marked(count);
        }
        self.object.set(self.own_from(), key, value.to_string());
    }

    fn remove(&mut self, key: &str) {
        if self.writer != Writer::Foreign {
            self.object.remove(self.own_from(), key);
        }
    }

    /// Sets the state. That of another program is set in place if it was pending, so that [`original`] can restore it.
    fn set_state(&mut self, state: State) {
        let from = self.own_from();
        let is_restorable = match self.writer {
            Writer::Ours => true,
            Writer::Foreign => self.object.get(0, "state") == Some(PENDING),
            Writer::Marked(_) => {
                self.object.get(from, "state").is_none() && self.object.get(0, "state").is_some()
            }
        };
        if is_restorable && self.writer != Writer::Ours {
            self.object.set(0, "state", state.number().to_string());
        } else {
            self.set("state", &state.number().into());
        }
    }
}

/// The field that marks a value of another program: how many members are its own, or the bytes of one that is not an
/// object.
const FOREIGN: &str = "foreign";

/// The text of [`State::Pending`].
const PENDING: &str = "1";

/// The text that another program wrote, whose first `count` members these are. See [`Value::set_state`].
fn original(object: &Object, count: usize) -> Vec<u8> {
    let mut object = object.clone();
    let is_in_place = object.get(count, "state").is_none();
    if is_in_place && object.get(0, "state").is_some() {
        object.set(0, "state", PENDING.into());
    }
    object.text_of(count).into_bytes()
}

fn json(text: &str) -> Option<Json> {
    serde_json::from_str(text).ok()
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.object.text())
    }
}

/// Wraps bytes in a JSON object.
fn wrap(bytes: &[u8]) -> Json {
    match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::json!({ "text": text }),
        Err(_) => {
            serde_json::json!({ "hex": bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>() })
        }
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
mod tests;
