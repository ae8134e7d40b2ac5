//! What a simulation consists of: its processes, their sessions, and what happens at a moment.

use std::{collections::BTreeMap, time::Duration};

use super::super::{
    super::{
        places::Places,
        rules::Rules,
        settings::Settings,
        state::Handover,
        types::{Event, Purpose},
    },
    register::Register,
};
use crate::{
    backend::{Op, path::ZnodePath},
    group::member::{Ours, Payload},
    member::MemberId,
    ring::Label,
};

/// Microseconds since the start.
pub(super) type Time = u64;

pub(super) const MS: Time = 1000;
pub(super) const SECOND: Time = 1000 * MS;
/// The session timeout, and the durations that fit it.
pub(super) const TIMEOUT: Time = 3 * SECOND;
pub(super) const SERVER_TICK: Time = 500 * MS;
pub(super) const HEARTBEAT: Time = 300 * MS;
pub(super) const LEASE: Time = 1400 * MS;
/// Three heartbeats.
const SHORTEST_LEASE: Time = 900 * MS;
pub(super) const MARGIN: Time = 100 * MS;
/// When the head and the group are read again, give or take a half.
pub(super) const RECHECK: Time = 2 * SECOND;
/// For how long work may go on after its key was lost.
const MAX_DRAIN: Time = 5 * SECOND;
/// How long faults come, and how long the fleet is watched after that.
pub(super) const FAULTS: Time = 14 * SECOND;
pub(super) const REST: Time = 12 * SECOND;
/// Within which time it comes to rest: the session of a member that is gone ends, a member whose watch was lost finds out
/// and publishes, another one finds that out, and the lease of a member that does not acknowledge ends.
pub(super) const SETTLES: Time = TIMEOUT + SERVER_TICK + LEASE + MARGIN + 2 * RECHECK;
pub(super) const REPLICAS: u32 = 4;

/// What kind of run a seed is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Profile {
    pub(super) processes: usize,
    pub(super) keys: usize,
    pub(super) is_strict: bool,
    /// Operators delete the head, and in strict mode znodes of members.
    pub(super) deletes: bool,
    /// Restarts and holds follow each other quickly.
    pub(super) is_hectic: bool,
    /// Weights change all the time.
    pub(super) is_restless: bool,
    /// Leases differ, members warm up, watches get lost, plain members come and go, and operators pause the group and deny
    /// access to the head.
    pub(super) is_wide: bool,
    /// The ring of all.
    pub(super) label: Label,
}

/// A session as the leader knows it.
pub(super) struct Session {
    pub(super) touched: Time,
    pub(super) is_over: bool,
    pub(super) server: usize,
}

pub(super) struct Process {
    pub(super) id: MemberId,
    pub(super) core: Handover,
    pub(super) register: Register,
    pub(super) places: Places,
    pub(super) rules: Rules,
    /// It runs; otherwise it has crashed or left.
    pub(super) is_alive: bool,
    /// Counts its lives, so that what belongs to an earlier one is dropped.
    pub(super) life: u64,
    pub(super) paused_until: Time,
    /// How long its lease is.
    pub(super) lease: Time,
    /// Until then an access control list denies it the head.
    pub(super) denied_until: Time,
    pub(super) session: Option<i64>,
    /// Counts sessions and breaks of the connection.
    pub(super) connection: u64,
    pub(super) reconnects_at: Time,
    /// What the session has seen, in transactions: it goes only to servers that have as much.
    pub(super) seen: usize,
    /// The newest transaction when its last one was committed.
    pub(super) wrote: usize,
    pub(super) under_way: BTreeMap<u64, Asked>,
    pub(super) last_reply: Time,
    pub(super) last_confirmed: Time,
    pub(super) wake: Time,
    /// The clock: how far ahead, and how many millionths too fast.
    pub(super) offset: Time,
    pub(super) drift: i64,
    /// What was seen, and whether the event is on its way.
    pub(super) watches: BTreeMap<Watched, (i64, bool)>,
    pub(super) is_joining: bool,
    pub(super) leaves: bool,
    /// Steps within the current second.
    pub(super) busy: (Time, u64),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Watched {
    Head,
    Member(MemberId),
    Children,
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Asked {
    Head,
    Snapshot(u64),
    Members(Vec<MemberId>),
    List(bool),
    Stat(bool),
    Own,
    Commit(Purpose),
    Join,
}

/// What waits under the number of a request.
pub(super) enum Ready {
    /// Of a session.
    Ops(i64, Vec<Op>),
    Event(Event),
}

/// What happens at a moment. The numbers are process, life or connection, and request.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Queued {
    /// A request arrives at the server of the process.
    Arrive(usize, u64, u64),
    /// A transaction arrives at the leader.
    AtLeader(usize, u64, u64),
    /// The answer arrives.
    Answer(usize, u64, u64),
    Watch(usize, u64, Watched),
    Wake(usize, u64),
    Open(usize, u64),
    Work(usize, u64),
    End(usize, u64, u64),
    Start(usize, u64),
    /// It has warmed up.
    Warm(usize, u64),
    SessionLost(usize, u64),
    Replicate(usize),
    LeaderTick,
    Fault,
    Repair(usize),
    /// A plain member leaves.
    EndPlain,
    Heal,
    Check,
}

pub(super) fn duration(time: Time) -> Duration {
    Duration::from_micros(time)
}

pub(super) fn settings(id: &MemberId, profile: Profile, rules: Rules) -> Settings {
    Settings {
        is_strict: profile.is_strict,
        max_drain: duration(MAX_DRAIN),
        plain_grace: duration(300 * MS),
        settle: duration(20 * MS),
        max_settle: duration(200 * MS),
        recheck: duration(RECHECK),
        joiner_delay: duration(400 * MS),
        log_limit: 3,
        hold_down: false,
        rules,
        ..Settings::new(id.clone(), profile.label, REPLICAS)
    }
}

pub(super) fn process(
    number: usize,
    namespace: &ZnodePath,
    profile: Profile,
    rules: &Rules,
    rng: &mut fastrand::Rng,
) -> Process {
    let id = MemberId::new(["a", "b", "c", "d"][number]).expect("a name");
    let ours = Ours { version: 1, label: Some(profile.label), replicas: Some(REPLICAS), ..Ours::default() };
    let places = Places::new(namespace, "group", &id, Payload::new(1, ours)).expect("names");
    Process {
        core: Handover::new(settings(&id, profile, rules.clone())),
        id,
        register: Register::default(),
        places,
        rules: rules.clone(),
        is_alive: false,
        life: 0,
        paused_until: 0,
        lease: if profile.is_wide { rng.u64(SHORTEST_LEASE..=LEASE) } else { LEASE },
        denied_until: 0,
        session: None,
        connection: 0,
        reconnects_at: 0,
        seen: 0,
        wrote: 0,
        under_way: BTreeMap::new(),
        last_reply: 0,
        last_confirmed: 0,
        wake: 0,
        offset: rng.u64(100..2000) * SECOND,
        drift: 0,
        watches: BTreeMap::new(),
        is_joining: false,
        leaves: false,
        busy: (0, 0),
    }
}
