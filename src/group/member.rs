// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Member`], and the payload: what a member writes into its znode, and how it reads the payloads of others.
//!
//! The payload is a msgpack map. `weight` is what the Python peers read; everything of ours is under one key
//! that they ignore:
//!
//! ```text
//! {"weight": 3, "apportion": {"v": 1, "label": "plain", "replicas": 100, "nonce": "<uuid>",
//!                             "host": .., "boot": .., "pidns": .., "pid": .., "start": ..}}
//! ```
//!
//! Anybody can write a member znode, so reading never fails: whatever is not understood is a plain member of
//! weight 1.

use rmpv::Value;
use uuid::Uuid;

use crate::{
    member::{MAX_WEIGHT, MemberId},
    ring::Label,
};

/// A process as others can recognize it: pids repeat, pids with their start time do not.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Process {
    /// The host name.
    pub(crate) host: String,
    /// Drawn anew at each boot of the host.
    pub(crate) boot_id: String,
    /// Within which `pid` and `start` mean something: containers of one host have their own.
    pub(crate) pid_namespace: String,
    /// The process id.
    pub(crate) pid: u32,
    /// The start time, in clock ticks since boot.
    pub(crate) start: u64,
}

impl Process {
    /// Whether the pids of both mean the same: one host, not rebooted in between, one pid namespace.
    pub(crate) fn same_host(&self, other: &Process) -> bool {
        let place = |p: &Process| [p.host.clone(), p.boot_id.clone(), p.pid_namespace.clone()];
        place(self) == place(other) && !place(self).iter().any(String::is_empty)
    }
}

/// What the znode of a member says about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Payload {
    /// Its share of the work relative to others, in `1..=MAX_WEIGHT`.
    pub(crate) weight: u32,
    /// `None` for a plain member: a Python peer, or a stranger.
    pub(crate) ours: Option<Ours>,
}

impl Payload {
    /// Whether the same coordinator wrote both, in whatever session.
    pub(crate) fn is_by(&self, ours: &Ours) -> bool {
        ours.nonce.is_some() && self.ours.as_ref().is_some_and(|theirs| theirs.nonce == ours.nonce)
    }

    /// The process that wrote it, if it says so.
    pub(crate) fn process(&self) -> Option<&Process> {
        self.ours.as_ref()?.process.as_ref()
    }
}

/// A member of a group, as its znode shows it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Member {
    id: MemberId,
    weight: u32,
    czxid: i64,
    /// Label and replicas by which it builds its ring; `None` for a plain member.
    ring: Option<RingParameters>,
}

/// What two members must have in common to agree on who owns what. `None`: not known to this version.
type RingParameters = (Option<Label>, Option<u32>);

impl Member {
    /// The member whose znode is called `name`, with this data and creation transaction. `None` for a name that
    /// we could not have.
    pub(crate) fn read(name: &str, data: &[u8], czxid: i64) -> Option<Member> {
        let payload = Payload::decode(data);
        let ring = payload.ours.map(|ours| (ours.label, ours.replicas));
        Some(Member { id: MemberId::new(name).ok()?, weight: payload.weight, czxid, ring })
    }

    /// A member that nobody else can see.
    pub(crate) fn alone(id: &MemberId) -> Member {
        Member { id: id.clone(), weight: 1, czxid: 0, ring: None }
    }

    /// Its id.
    pub fn id(&self) -> &MemberId {
        &self.id
    }

    /// Its weight as it announces it. Weights count while no member is [plain](Member::is_plain).
    pub fn weight(&self) -> u32 {
        self.weight
    }

    /// The transaction that created its znode: tells the incarnations of one member id apart.
    pub fn incarnation(&self) -> i64 {
        self.czxid
    }

    /// Whether it is a Python peer or a stranger, rather than a member of this library.
    pub fn is_plain(&self) -> bool {
        self.ring.is_none()
    }

    /// Its ring parameters in words, if they are not those of `ours`. Nothing is held against a plain member.
    pub(crate) fn other_ring(&self, ours: &Ours) -> Option<String> {
        let theirs = self.ring.as_ref().filter(|theirs| **theirs != (ours.label, ours.replicas))?;
        Some(in_words(*theirs))
    }
}

impl Ours {
    /// Its ring parameters in words.
    pub(crate) fn ring_in_words(&self) -> String {
        in_words((self.label, self.replicas))
    }
}

fn in_words((label, replicas): RingParameters) -> String {
    let label = label.map_or("unknown".into(), |label| label.to_string());
    let replicas = replicas.map_or("an unknown number of".into(), |replicas| replicas.to_string());
    format!("{replicas} replicas labelled {label}")
}

/// What only members of this library write.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(crate) struct Ours {
    /// The version of the format; a newer one may say more than is read here.
    pub(crate) version: u64,
    /// How the member labels ring points; `None` if it says nothing that this version knows.
    pub(crate) label: Option<Label>,
    /// How many ring points it gives a member of weight 1.
    pub(crate) replicas: Option<u32>,
    /// Drawn anew for each join: tells the incarnations of one member id apart.
    pub(crate) nonce: Option<Uuid>,
    /// The process that wrote it, if its system could tell.
    pub(crate) process: Option<Process>,
}

impl Ours {
    /// The version that this library writes.
    pub(crate) const VERSION: u64 = 1;
}

/// Twice the deepest nesting that is read (the decoder counts each level twice). The stack of a worker thread is
/// small, and no payload worth reading is deep.
const MAX_DEPTH: u16 = 128;

/// The key of everything that is ours.
const OURS: &str = "apportion";

impl Payload {
    /// The payload of a member of this library.
    pub(crate) fn new(weight: u32, ours: Ours) -> Payload {
        Payload { weight, ours: Some(ours) }
    }

    /// The bytes for the znode.
    pub(crate) fn encode(&self) -> Vec<u8> {
        // `weight` first: then the bytes are, but for the number of keys, what Python writes.
        let mut map = vec![(Value::from("weight"), Value::from(self.weight))];
        if let Some(ours) = &self.ours {
            map.push((Value::from(OURS), ours.to_value()));
        }
        let mut bytes = Vec::new();
        rmpv::encode::write_value(&mut bytes, &Value::Map(map)).expect("a vector takes every write");
        bytes
    }

    /// Reads the data of a member znode. Never fails: what is not understood is a plain member of weight 1.
    pub(crate) fn decode(bytes: &[u8]) -> Payload {
        let map = match read(bytes) {
            Some(Value::Map(map)) => Some(map),
            // tooz before 1.57.3 encoded twice.
            Some(Value::Binary(inner)) => read(&inner).and_then(into_map),
            Some(Value::String(inner)) => read(inner.as_bytes()).and_then(into_map),
            _ => None,
        };
        let map = map.unwrap_or_default();
        Payload {
            weight: get(&map, "weight").and_then(weight).unwrap_or(1),
            ours: get(&map, OURS).and_then(|value| Ours::from_map(value.as_map()?)),
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
        Value::Map(map)
    }

    /// `None` if not even the version is there. A newer version is read as far as it is understood.
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
        })
    }
}

/// The value that `bytes` encode from the first to the last byte.
fn read(mut bytes: &[u8]) -> Option<Value> {
    let value = rmpv::decode::read_value_with_max_depth(&mut bytes, MAX_DEPTH.into()).ok()?;
    bytes.is_empty().then_some(value)
}

fn into_map(value: Value) -> Option<Vec<(Value, Value)>> {
    if let Value::Map(map) = value { Some(map) } else { None }
}

/// The value of a key, which old peers write as bytes. The last one counts if there are several, as in Python.
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
