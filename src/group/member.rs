// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Member`], and the payload: what a member writes into its znode and reads from those of other members.
//!
//! The payload is a msgpack map. Python peers read `weight`. Everything that only this library reads is under one key,
//! which they ignore:
//!
//! ```text
//! {"weight": 3, "apportion": {"v": 1, "label": "plain", "replicas": 100, "nonce": "<uuid>",
//!                             "host": .., "boot": .., "pidns": .., "pid": .., "start": ..,
//!                             "handover": {"state": "ready", "ack": [17, 4], "keep": [9, 9], "lease": 5000}}}
//! ```
//!
//! Any process can write a member znode, so reading never fails: a payload that cannot be decoded is a plain member of
//! weight 1.

use rmpv::Value;
use uuid::Uuid;

use super::{
    handover::{Part, codec},
    python::Peer,
    weight::Weight,
};
use crate::{
    error::unclear::Unclear,
    member::{MAX_WEIGHT, MemberId},
    ring::{HashRing, Label},
};

/// A process, so that others can recognize it. A pid can be used again; a pid with its start time is unique.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Process {
    /// The host name.
    pub(crate) host: String,
    /// A new one at each boot of the host.
    pub(crate) boot_id: String,
    /// The namespace of `pid` and `start`: containers of one host have their own.
    pub(crate) pid_namespace: String,
    /// The process id.
    pub(crate) pid: u32,
    /// The start time, in clock ticks since boot.
    pub(crate) start: u64,
}

impl Process {
    /// Whether the pids of both can be compared: one host, not rebooted in between, and one pid namespace.
    #[cfg(any(test, target_os = "linux"))]
    pub(crate) fn same_host(&self, other: &Process) -> bool {
        let place = |p: &Process| [p.host.clone(), p.boot_id.clone(), p.pid_namespace.clone()];
        place(self) == place(other) && !place(self).iter().any(String::is_empty)
    }
}

/// What the znode of a member says about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Payload {
    /// The weight, in `1..=MAX_WEIGHT`.
    pub(crate) weight: u32,
    /// `None` for a plain member: one that does not use this library.
    pub(crate) ours: Option<Ours>,
}

impl Payload {
    /// Whether the same coordinator wrote both, in any session.
    pub(crate) fn is_by(&self, ours: &Ours) -> bool {
        ours.nonce.is_some() && self.ours.as_ref().is_some_and(|theirs| theirs.nonce == ours.nonce)
    }

    /// The process that wrote it, if the payload names it.
    pub(crate) fn process(&self) -> Option<&Process> {
        self.ours.as_ref()?.process.as_ref()
    }
}

/// A member of a group, as read from its znode.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    id: MemberId,
    weight: u32,
    czxid: i64,
    /// The parameters of its ring; `None` for a plain member.
    ring: Option<RingParameters>,
    /// What Python members give it on a ring of tooz.
    python_weight: Weight,
}

/// The parameters that two members must have in common to agree on who owns what. `None`: not known to this version.
type RingParameters = (Option<Label>, Option<u32>);

impl Member {
    /// The member whose znode has the name `name`, this data, and this creation transaction. `None` if no member can
    /// have this name.
    pub(crate) fn read(name: &str, data: &[u8], czxid: i64) -> Option<Member> {
        let (payload, python_weight) = Payload::decode_with_weight(data);
        let ring = payload.ours.map(|ours| (ours.label, ours.replicas));
        let id = MemberId::new(name).ok()?;
        Some(Member { id, weight: payload.weight, czxid, ring, python_weight })
    }

    /// The member, if its znode has this version: how often its data was set.
    pub(crate) fn with_version(mut self, version: i32) -> Member {
        // Python creates a znode with its data. Members of this library set it often, and never change their weight.
        if version > 0 && self.is_plain() {
            self.python_weight = Weight::Unclear(Unclear::Changed);
        }
        self
    }

    /// The member whose znode has the name `name` and cannot be read: a plain one. `None` as for [`Member::read`].
    pub(crate) fn denied(name: &str) -> Option<Member> {
        Member::read(name, &[], 0)
    }

    /// A member of a published membership. `ours` has its ring parameters; `None` for a plain member.
    pub(crate) fn published(id: &MemberId, weight: u32, czxid: i64, ours: Option<&Ours>) -> Member {
        let ring = ours.map(|ours| (ours.label, ours.replicas));
        Member { id: id.clone(), weight, czxid, ring, python_weight: Weight::Announced(weight) }
    }

    /// The only member of a group without a backend.
    pub(crate) fn alone(id: &MemberId, ring: &HashRing) -> Member {
        let ours = Ours { label: Some(ring.label()), replicas: Some(ring.replicas()), ..Ours::default() };
        Member::published(id, 1, 0, Some(&ours))
    }

    /// The id of the member.
    pub fn id(&self) -> &MemberId {
        &self.id
    }

    /// The weight that the member announces, 1 if that cannot be read. On the ring of tooz
    /// ([`Config::tooz`](crate::Config::tooz)) weights always count; on other rings only while no member is
    /// [plain](Member::is_plain). [`HashRing::weight`](crate::HashRing::weight) gives the one that counts.
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// Whether its znode has a weight, as those of tooz's partitioned groups have, and those of aodh have not.
    pub fn announces_weight(&self) -> bool {
        matches!(self.python_weight, Weight::Announced(_))
    }

    /// What Python members give it on a ring of tooz.
    pub(crate) fn python_weight(&self) -> &Weight {
        &self.python_weight
    }

    pub(crate) fn as_peer(&self) -> Peer<'_> {
        let unclear = match &self.python_weight {
            Weight::Unclear(why) => Some(why),
            Weight::Announced(_) | Weight::Default => None,
        };
        Peer { id: &self.id, weight: self.python_weight.for_ring(), unclear, is_plain: self.is_plain() }
    }

    /// The transaction that created the znode of the member. It is different each time a member with this id joins. 0 if
    /// an access control list denies reading the znode; then it stays 0 when another member with this id joins.
    pub fn incarnation(&self) -> i64 {
        self.czxid
    }

    /// Whether the member does not use this library, as a Python peer.
    pub fn is_plain(&self) -> bool {
        self.ring.is_none()
    }

    /// Its ring parameters as text, if they are not those of `ours`. `None` for a plain member.
    pub(crate) fn other_ring(&self, ours: &Ours) -> Option<String> {
        let theirs = self.ring.as_ref().filter(|theirs| **theirs != (ours.label, ours.replicas))?;
        Some(ring_text(*theirs))
    }
}

impl Ours {
    /// The ring parameters as text.
    pub(crate) fn ring_as_text(&self) -> String {
        ring_text((self.label, self.replicas))
    }
}

fn ring_text((label, replicas): RingParameters) -> String {
    let label = label.map_or("unknown".into(), |label| label.to_string());
    let replicas = replicas.map_or("an unknown number of".into(), |replicas| replicas.to_string());
    format!("{replicas} replicas labelled {label}")
}

/// What only members of this library write.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ours {
    /// The version of the format. A newer one may have keys that this version does not read.
    pub(crate) version: u64,
    /// How the member labels ring points; `None` if it is missing or not known to this version.
    pub(crate) label: Option<Label>,
    /// How many ring points it gives a member of weight 1.
    pub(crate) replicas: Option<u32>,
    /// A new one for each coordinator: it distinguishes the coordinators that use one member id.
    pub(crate) nonce: Option<Uuid>,
    /// The process that wrote it, if its system can identify processes.
    pub(crate) process: Option<Process>,
    /// What it says for the handover of keys; `None` if it does not take part in that.
    pub(crate) handover: Option<Part>,
}

impl Ours {
    /// The version that this library writes.
    pub(crate) const VERSION: u64 = 1;
}

/// Twice the deepest nesting that is read (the decoder counts each level twice). The stack of a worker thread is small,
/// and no valid payload is deep.
const MAX_DEPTH: u16 = 128;

/// The key of everything that only this library reads.
const OURS: &str = "apportion";

impl Payload {
    /// The payload of a member of this library.
    pub(crate) fn new(weight: u32, ours: Ours) -> Payload {
        Payload { weight, ours: Some(ours) }
    }

    /// The bytes for the znode.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // `weight` first: then the bytes are those that Python writes, except for the number of keys.
        let mut map = vec![(Value::from("weight"), Value::from(self.weight))];
        if let Some(ours) = &self.ours {
            map.push((Value::from(OURS), ours.to_value()));
        }
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &Value::Map(map)).expect("a vector takes every write");
        bytes
    }

    /// Reads the data of a member znode. Never fails: data that cannot be decoded is a plain member of weight 1.
    pub(crate) fn decode(bytes: &[u8]) -> Payload {
        Payload::of(&map(bytes).unwrap_or_default())
    }

    /// The same, and what Python members of a group of tooz read in it as a weight.
    pub(crate) fn decode_with_weight(bytes: &[u8]) -> (Payload, Weight) {
        let map = map(bytes);
        let weight = Weight::read(map.is_some(), map.as_deref().and_then(|map| get(map, "weight")));
        (Payload::of(&map.unwrap_or_default()), weight)
    }

    fn of(map: &[(Value, Value)]) -> Payload {
        Payload {
            weight: get(map, "weight").and_then(weight).unwrap_or(1),
            ours: get(map, OURS).and_then(|value| Ours::from_map(value.as_map()?)),
        }
    }
}

impl Ours {
    fn to_value(&self) -> Value {
        let mut map = vec![(Value::from("v"), Value::from(self.version))];
        let mut put = |key: &str, value: Option<Value>| map.extend(value.map(|value| (key.into(), value)));
        put("label", self.label.map(|label| label.to_string().into()));
        put("replicas", self.replicas.map(Value::from));
        put("nonce", self.nonce.map(|nonce| nonce.hyphenated().to_string().into()));
        if let Some(process) = &self.process {
            put("host", Some(process.host.as_str().into()));
            put("boot", Some(process.boot_id.as_str().into()));
            put("pidns", Some(process.pid_namespace.as_str().into()));
            put("pid", Some(process.pid.into()));
            put("start", Some(process.start.into()));
        }
        put("handover", self.handover.as_ref().map(codec::part_value));
        Value::Map(map)
    }

    /// `None` if the version is missing. Of a newer version, the keys that this one knows are read.
    fn from_map(map: &[(Value, Value)]) -> Option<Ours> {
        let number = |key| get(map, key).and_then(Value::as_u64);
        let small = |key| number(key).and_then(|number| u32::try_from(number).ok());
        let text = |key| get(map, key).and_then(text);
        let process = || {
            Some(Process {
                host: text("host")?.to_owned(),
                boot_id: text("boot")?.to_owned(),
                pid_namespace: text("pidns")?.to_owned(),
                pid: small("pid")?,
                start: number("start")?,
            })
        };
        Some(Ours {
            version: number("v")?,
            label: text("label").and_then(|label| label.parse().ok()),
            replicas: small("replicas"),
            nonce: text("nonce").and_then(|nonce| Uuid::parse_str(nonce).ok()),
            process: process(),
            handover: get(map, "handover").and_then(codec::part_from),
        })
    }
}

/// The capabilities in the data of a member znode; `None` if they are not a map, or cannot be read.
fn map(bytes: &[u8]) -> Option<Vec<(Value, Value)>> {
    match read(bytes)? {
        Value::Map(map) => Some(map),
        // tooz before 1.57.3 encoded twice.
        Value::Binary(inner) => read(&inner).and_then(into_map),
        Value::String(inner) => read(inner.as_bytes()).and_then(into_map),
        _ => None,
    }
}

/// The value in `bytes`; `None` if there are bytes after it.
fn read(mut bytes: &[u8]) -> Option<Value> {
    let value = rmpv::decode::read_value_with_max_depth(&mut bytes, MAX_DEPTH.into()).ok()?;
    bytes.is_empty().then_some(value)
}

fn into_map(value: Value) -> Option<Vec<(Value, Value)>> {
    if let Value::Map(map) = value { Some(map) } else { None }
}

/// The value of a key, which old peers write as bytes. If there are several, the last one counts, as in Python.
fn get<'a>(map: &'a [(Value, Value)], key: &str) -> Option<&'a Value> {
    map.iter().rev().find(|(k, _)| text(k) == Some(key)).map(|(_, value)| value)
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::String(text) => text.as_str(),
        Value::Binary(bytes) => std::str::from_utf8(bytes).ok(),
        _ => None,
    }
}

fn weight(value: &Value) -> Option<u32> {
    let weight = u32::try_from(value.as_u64()?).ok()?;
    (1..=MAX_WEIGHT).contains(&weight).then_some(weight)
}

#[cfg(test)]
mod tests;
