// Pure: no runtime, no clock, no socket, no random numbers.

//! The bytes of head, snapshot, and our part of the payload of a member. All are msgpack.
//!
//! ```text
//! head     [1, label, replicas, lease_ms, is_paused, floor, [carried..], snapshot, base, [change..], digest, pzxid]
//! snapshot [1, epoch, [entry..]]
//! change   [[entry..], [carried..], [carried..]]  added, deleted, released; the last is left out if it is empty
//! entry    [id, czxid, weight, is_plain, zone]    zone: text or nil; on a ring of tooz perhaps [.., zone, unclear]:
//!                                             "no map", "weight" or "changed", why Python peers may disagree
//! carried  [id, czxid]
//! part     {"state": "warming" | "ready" | "draining" | "drained", "ack": [head, version], "keep": [first, last, first, last, ..],
//!           "zone": text, "lease": milliseconds}
//! ```
//!
//! The first number of head and snapshot is the format. A later version may append values to any of these arrays; what
//! is appended is not read.

use std::{sync::Arc, time::Duration};

use rmpv::Value;

use super::types::{
    Change, Common, Entry, Epoch, FORMAT, FormatError, Head, Incarnation, MAX_BYTES, MAX_KEEP, Members, Part,
    Presence, Snapshot,
};
use crate::{
    error::unclear::Unclear,
    member::{MAX_WEIGHT, MemberId},
    ring::{Label, Ranges},
};

type Result<T> = std::result::Result<T, FormatError>;

/// In milliseconds: session timeouts are 32-bit numbers of them, 24 days at most.
const LONGEST_LEASE: u64 = i32::MAX as u64;
/// Twice the deepest nesting that is read, as the decoder counts.
const MAX_DEPTH: usize = 32;

/// The bytes of `head`.
///
/// # Errors
///
/// [`FormatError::TooLarge`].
pub(crate) fn encode_head(head: &Head) -> Result<Vec<u8>> {
    let carried = head.carried.iter().map(incarnation_value).collect();
    let log = head.log.iter().map(|change| {
        let add = change.add.iter().map(|(id, entry)| entry_value(id, entry)).collect();
        let del = change.del.iter().map(incarnation_value).collect();
        let mut parts = vec![Value::Array(add), Value::Array(del)];
        if !change.released.is_empty() {
            parts.push(Value::Array(change.released.iter().map(incarnation_value).collect()));
        }
        Value::Array(parts)
    });
    bytes(&Value::Array(vec![
        FORMAT.into(),
        head.common.label.to_string().into(),
        head.common.replicas.into(),
        milliseconds(head.common.lease).into(),
        head.is_paused.into(),
        head.floor.into(),
        Value::Array(carried),
        head.snapshot.into(),
        head.base.into(),
        Value::Array(log.collect()),
        head.digest.into(),
        head.pzxid.into(),
    ]))
}

/// Reads what [`encode_head`] wrote.
///
/// # Errors
///
/// [`FormatError`]
pub(crate) fn decode_head(data: &[u8]) -> Result<Head> {
    let values = values(data)?;
    let at = |place: usize| values.get(place).unwrap_or(&Value::Nil);
    let head = Head {
        common: Common {
            label: text(at(1))?
                .parse::<Label>()
                .map_err(|_| FormatError::Garbage("its label is not known"))?,
            replicas: small(at(2))?,
            lease: lease(at(3)).ok_or(FormatError::Garbage("its lease is out of range"))?,
        },
        is_paused: at(4).as_bool().ok_or(FormatError::Garbage("a flag is missing"))?,
        floor: version(at(5))?,
        carried: each(at(6), incarnation)?,
        snapshot: at(7).as_u64().ok_or(NUMBER)?,
        base: version(at(8))?,
        log: each(at(9), |change| {
            let [add, del, more @ ..] = list(change)? else { return Err(LIST) };
            let released = more.first().map_or(Ok(Vec::new()), |released| each(released, incarnation))?;
            Ok(Change { add: each(add, entry)?, del: each(del, incarnation)?, released })
        })?,
        digest: at(10).as_u64().ok_or(NUMBER)?,
        pzxid: at(11).as_i64().ok_or(NUMBER)?,
    };
    if head.floor > head.version() {
        return Err(FormatError::Garbage("its floor is newer than its log"));
    }
    Ok(head)
}

/// The bytes of `snapshot`.
///
/// # Errors
///
/// [`FormatError::TooLarge`].
pub(crate) fn encode_snapshot(snapshot: &Snapshot) -> Result<Vec<u8>> {
    let members = snapshot.members.iter().map(|(id, entry)| entry_value(id, entry)).collect();
    bytes(&Value::Array(vec![FORMAT.into(), snapshot.epoch.into(), Value::Array(members)]))
}

/// Reads what [`encode_snapshot`] wrote.
///
/// # Errors
///
/// [`FormatError`]
pub(crate) fn decode_snapshot(data: &[u8]) -> Result<Snapshot> {
    let values = values(data)?;
    let [_, epoch, members, ..] = &values[..] else { return Err(LIST) };
    let members: Members = each(members, entry)?.into_iter().collect();
    Ok(Snapshot { epoch: version(epoch)?, members })
}

/// A limit of the bytes of a snapshot with one more entry for `id`, to add up without encoding.
pub(crate) fn entry_bytes(id: &MemberId, entry: &Entry) -> usize {
    32 + id.as_str().len() + entry.zone.as_ref().map_or(0, |zone| zone.len())
}

/// Our part of the payload of a member.
pub(crate) fn part_value(part: &Part) -> Value {
    let state = match part.presence {
        Presence::Warming => "warming",
        Presence::Ready => "ready",
        Presence::Draining => "draining",
        Presence::Drained => "drained",
    };
    let mut map = vec![("state".into(), Value::from(state))];
    if let Some(ack) = part.ack {
        map.push(("ack".into(), Value::Array(vec![ack.head.into(), ack.version.into()])));
    }
    if !part.keep.is_empty() {
        let ends = part.keep.iter().flat_map(|range| [*range.start(), *range.end()]);
        map.push(("keep".into(), Value::Array(ends.map(Value::from).collect())));
    }
    if let Some(zone) = &part.zone {
        map.push(("zone".into(), (&**zone).into()));
    }
    map.extend(part.lease.map(|lease| ("lease".into(), milliseconds(lease).into())));
    Value::Map(map)
}

/// Reads what [`part_value`] made. `None` if it is not such a part: then the member is a plain one, which acknowledges
/// nothing. A state that is not known counts as draining, because such a member expects no keys of this version. An
/// acknowledgement without a readable list of what is kept is none.
pub(crate) fn part_from(value: &Value) -> Option<Part> {
    let map = value.as_map()?;
    let get =
        |key: &str| map.iter().rev().find(|(name, _)| name.as_str() == Some(key)).map(|(_, value)| value);
    let presence = match get("state")?.as_str()? {
        "warming" => Presence::Warming,
        "ready" => Presence::Ready,
        "drained" => Presence::Drained,
        _ => Presence::Draining,
    };
    let keep = get("keep").map_or(Some(Ranges::default()), keep);
    let ack = get("ack").and_then(|ack| {
        let [head, version, ..] = ack.as_array()?.as_slice() else { return None };
        Some(Epoch { head: head.as_i64()?, version: i32::try_from(version.as_i64()?).ok()? })
    });
    let zone = get("zone").and_then(Value::as_str).map(Arc::from);
    let lease = get("lease").and_then(lease);
    Some(match keep {
        Some(keep) => Part { presence, ack, keep, zone, lease },
        None => Part { presence, ack: None, keep: Ranges::all(), zone, lease },
    })
}

fn milliseconds(lease: Duration) -> u64 {
    u64::try_from(lease.as_millis()).unwrap_or(u64::MAX).max(1)
}

/// Others wait for as long, so no longer one is believed than sessions can have.
fn lease(value: &Value) -> Option<Duration> {
    value.as_u64().filter(|lease| (1..=LONGEST_LEASE).contains(lease)).map(Duration::from_millis)
}

fn keep(value: &Value) -> Option<Ranges> {
    let ends = value.as_array()?;
    if ends.len() % 2 != 0 || ends.len() > 4 * MAX_KEEP {
        return None;
    }
    let ends: Option<Vec<u32>> = ends.iter().map(|end| small(end).ok()).collect();
    let ends = ends?;
    let pairs = ends.chunks_exact(2).map(|pair| (pair[0], pair[1]));
    pairs.clone().all(|(first, last)| first <= last).then(|| Ranges::from_parts(pairs))
}

const NUMBER: FormatError = FormatError::Garbage("a number is missing or out of range");
const LIST: FormatError = FormatError::Garbage("a list is missing");

fn bytes(value: &Value) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).expect("a vector takes every write");
    if bytes.len() > MAX_BYTES { Err(FormatError::TooLarge(bytes.len())) } else { Ok(bytes) }
}

/// The values of an array that begins with a format which this version reads.
fn values(mut data: &[u8]) -> Result<Vec<Value>> {
    if data.len() > 2 * MAX_BYTES {
        return Err(FormatError::TooLarge(data.len()));
    }
    let value = rmpv::decode::read_value_with_max_depth(&mut data, MAX_DEPTH)
        .map_err(|_| FormatError::Garbage("it is not msgpack"))?;
    let Value::Array(values) = value else { return Err(LIST) };
    match values.first().and_then(Value::as_u64) {
        Some(FORMAT) => Ok(values),
        Some(newer) if newer > FORMAT => Err(FormatError::Newer(newer)),
        _ => Err(FormatError::Garbage("it has no format")),
    }
}

fn incarnation_value(it: &Incarnation) -> Value {
    Value::Array(vec![it.id.as_str().into(), it.czxid.into()])
}

fn entry_value(id: &MemberId, entry: &Entry) -> Value {
    let zone = entry.zone.as_ref().map_or(Value::Nil, |zone| (&**zone).into());
    let mut values =
        vec![id.as_str().into(), entry.czxid.into(), entry.weight.into(), entry.is_plain.into(), zone];
    values.extend(entry.unclear.as_ref().map(|unclear| unclear_text(unclear).into()));
    Value::Array(values)
}

fn unclear_text(unclear: &Unclear) -> &'static str {
    match unclear {
        Unclear::Weight => "weight",
        Unclear::Changed => "changed",
        // The others follow from all members, and are not written.
        _ => "no map",
    }
}

fn incarnation(value: &Value) -> Result<Incarnation> {
    let [id, czxid, ..] = list(value)? else { return Err(LIST) };
    Ok(Incarnation { id: member(id)?, czxid: czxid.as_i64().ok_or(NUMBER)? })
}

fn entry(value: &Value) -> Result<(MemberId, Entry)> {
    let [id, czxid, weight, is_plain, zone, appended @ ..] = list(value)? else { return Err(LIST) };
    let weight = small(weight)?;
    let is_plain = is_plain.as_bool().ok_or(FormatError::Garbage("a flag is missing"))?;
    // Python sets no limits to the weight of a member of tooz.
    if !is_plain && (weight == 0 || weight > MAX_WEIGHT) {
        return Err(FormatError::Garbage("a weight is out of range"));
    }
    let unclear = appended.first().and_then(Value::as_str).map(|text| match text {
        "weight" => Unclear::Weight,
        "changed" => Unclear::Changed,
        _ => Unclear::NoMap,
    });
    let entry = Entry {
        czxid: czxid.as_i64().ok_or(NUMBER)?,
        weight,
        is_plain,
        zone: zone.as_str().map(Arc::from),
        unclear,
    };
    Ok((member(id)?, entry))
}

fn member(value: &Value) -> Result<MemberId> {
    MemberId::new(text(value)?).map_err(|_| FormatError::Garbage("an id cannot be that of a member"))
}

fn each<T>(value: &Value, read: impl Fn(&Value) -> Result<T>) -> Result<Vec<T>> {
    list(value)?.iter().map(read).collect()
}

fn list(value: &Value) -> Result<&[Value]> {
    value.as_array().map(Vec::as_slice).ok_or(LIST)
}

fn text(value: &Value) -> Result<&str> {
    value.as_str().ok_or(FormatError::Garbage("a text is missing"))
}

fn small(value: &Value) -> Result<u32> {
    value.as_u64().and_then(|number| u32::try_from(number).ok()).ok_or(NUMBER)
}

fn version(value: &Value) -> Result<i32> {
    value.as_i64().and_then(|number| i32::try_from(number).ok()).filter(|number| *number >= 0).ok_or(NUMBER)
}
