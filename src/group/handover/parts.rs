// Pure: no runtime, no clock, no socket, no random numbers.

//! The parts of the state of a membership.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    history::History,
    types::{Action, Cause, Epoch, Head, HeadRead, Incarnation, MemberRead, Part, Presence, Purpose, Write},
};
use crate::{
    clock::Moment,
    member::MemberId,
    ring::Ranges,
    session::{deadline::Deadline, timing::Timing},
};

/// The reads of head and snapshot that are under way or wanted.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeadReading {
    pub(super) wanted: bool,
    /// A head is being read. Whether its answer counts: it does not if our znode was created after it was asked for.
    pub(super) under_way: Option<bool>,
    /// The lease had lapsed when the read that is under way was asked for.
    pub(super) after_lapse: bool,
    /// A head whose snapshot is being read.
    pub(super) waits: Option<HeadRead>,
    pub(super) not_before: Moment,
    /// When the head is read again even if no watch fires.
    pub(super) recheck: Moment,
    /// There is no head: make one.
    pub(super) is_missing: bool,
    pub(super) is_creating: bool,
    /// How often in a row it could not be made.
    pub(super) failures: u32,
    /// How often in a row what was read could not be used, although each part of it can be read.
    pub(super) misfits: u32,
    /// The snapshot that is missing although the head names it.
    pub(super) missing: Option<u64>,
    /// We have no znode, and wait for one.
    pub(super) join_wanted: bool,
    pub(super) join_asked: bool,
    /// Our presence when it was asked for: what our znode says when it is created, or something older.
    pub(super) joins_as: Presence,
}

impl HeadReading {
    /// Whether the head is being read, or is to be read.
    pub(super) fn is_open(&self) -> bool {
        self.wanted || self.under_way.is_some() || self.waits.is_some()
    }

    /// Our znode was created: read anew.
    pub(super) fn restart(&mut self) {
        *self = HeadReading {
            wanted: true,
            under_way: self.under_way.map(|_| false),
            is_creating: self.is_creating,
            ..HeadReading::default()
        };
    }
}

/// The lease of the current session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lease {
    pub(super) deadline: Moment,
    /// It has passed since it was last extended, or was never extended.
    pub(super) has_lapsed: bool,
    /// The head was asked for and read since then.
    pub(super) has_reread: bool,
    pub(super) counted: Option<Deadline>,
    pub(super) under_way: Option<Sent>,
    /// The last heartbeat, or write, has found another head: the next one is sent once that is adopted.
    pub(super) is_refused: bool,
    /// When the next heartbeat is due.
    pub(super) next: Moment,
}

/// A transaction that counts as a heartbeat.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sent {
    pub(super) at: Moment,
    /// It may extend a lease that has lapsed. One that was sent before may not: it does not prove that the head is the
    /// one that was read.
    pub(super) revives: bool,
    /// The epoch whose head it checks.
    pub(super) view: Epoch,
}

impl Lease {
    pub(super) fn new(timing: Timing, asked: Moment) -> Lease {
        Lease { has_lapsed: true, counted: Some(Deadline::new(timing, asked, asked)), ..Lease::default() }
    }

    /// Our znode is gone. The session may go on.
    pub(super) fn end(&mut self) {
        *self = Lease { has_lapsed: true, counted: self.counted.take(), ..Lease::default() };
    }

    pub(super) fn sent(&self, at: Moment, view: Epoch) -> Sent {
        Sent { at, revives: self.has_lapsed && self.has_reread, view }
    }
}

/// Our own znode.
#[derive(Clone, Debug)]
pub(crate) struct Own {
    pub(super) me: Incarnation,
    pub(super) version: i32,
    /// What it says, as far as is confirmed.
    pub(super) part: Part,
    pub(super) write: Option<OwnWrite>,
    /// The result of the last write is not known, or the version is another one: read it before the next write.
    pub(super) is_uncertain: bool,
    /// Another process has overwritten it, so that others cannot read our part: it has to be written again.
    pub(super) is_overwritten: bool,
    pub(super) is_reading: bool,
    pub(super) is_deleting: bool,
    /// Nothing is asked for again before this moment.
    pub(super) not_before: Moment,
    /// When the end of kept work has to be written.
    pub(super) bundled: Option<Moment>,
}

/// A write whose result is not known yet.
#[derive(Clone, Debug)]
pub(crate) struct OwnWrite {
    pub(super) part: Part,
    /// The newest mark when it was sent.
    pub(super) mark: u64,
    pub(super) sent: Sent,
    /// The version that it expects.
    pub(super) version: i32,
    /// The answer was that the result is not known. No other answer will come.
    pub(super) is_unknown: bool,
}

impl Own {
    pub(super) fn new(me: Incarnation, version: i32, part: Part) -> Own {
        Own {
            me,
            version,
            part,
            write: None,
            is_uncertain: false,
            is_overwritten: false,
            is_reading: false,
            is_deleting: false,
            not_before: Moment::default(),
            bundled: None,
        }
    }

    /// Whether its version is known.
    pub(super) fn is_settled(&self) -> bool {
        self.write.is_none() && !self.is_uncertain && !self.is_deleting
    }

    /// Deletes it.
    pub(super) fn delete(&mut self, now: Moment, retry: Duration, actions: &mut Vec<Action>) {
        if self.is_settled() && now >= self.not_before {
            self.is_deleting = true;
            self.not_before = now + retry;
            let writes = vec![Write::DeleteOwn { version: self.version }];
            actions.push(Action::Commit { purpose: Purpose::Leave, writes });
        }
    }
}

/// What is known of those who had keys before.
#[derive(Clone, Debug, Default)]
pub(crate) struct Donors {
    /// What each member lost at each epoch after the floor, without what it has released since. Not only of our keys:
    /// they may become ours at a later epoch. What was released stays so.
    pub(super) unreleased: BTreeMap<(i32, Incarnation), Arc<Ranges>>,
    /// Plain members among them.
    pub(super) plain: BTreeSet<Incarnation>,
    /// What members keep that the floor has passed. `None`: not read since the newest head.
    pub(super) carried: BTreeMap<Incarnation, Option<Ranges>>,
    /// The znodes as last read in this session.
    pub(super) read: BTreeMap<MemberId, DonorRead>,
    /// The members that are being read, and the epoch at which they were asked for.
    pub(super) under_way: Option<(Epoch, BTreeSet<MemberId>)>,
    /// Members that may not be read, and when that is tried again.
    pub(super) denied: BTreeMap<MemberId, Denied>,
    /// The check that is under way, and for which epochs it releases.
    pub(super) check: Option<Check>,
    /// Nothing is asked for again before this moment.
    pub(super) not_before: Moment,
    /// What keeps positions of ours from us: computed with `startable`.
    pub(super) blocking: Vec<Blocking>,
    /// The positions on which work may start.
    pub(super) startable: Ranges,
}

/// Positions of ours that another member may still act on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Blocking {
    pub(super) who: Incarnation,
    /// When it lost them. `None`: at the floor or before, and it is carried.
    pub(super) version: Option<i32>,
    pub(super) ranges: Ranges,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct DonorRead {
    /// The newest epoch when it was asked for.
    pub(super) at: Epoch,
    pub(super) read: Option<MemberRead>,
}

#[derive(Clone, Debug)]
pub(crate) struct Denied {
    /// It grows.
    pub(super) pause: Duration,
    pub(super) until: Moment,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Check {
    pub(super) donor: Incarnation,
    pub(super) epochs: Vec<i32>,
    pub(super) head: i64,
}

impl Donors {
    /// Reads in another session do not count. What was released stays released.
    pub(super) fn end_session(&mut self) {
        let (unreleased, plain) = (std::mem::take(&mut self.unreleased), std::mem::take(&mut self.plain));
        *self = Donors { unreleased, plain, ..Donors::default() };
    }

    /// Reads a member again: it has changed.
    pub(super) fn forget(&mut self, id: &MemberId) {
        self.read.remove(id);
        if let Some((_, ids)) = &mut self.under_way {
            // The answer may be older than the change.
            ids.remove(id);
        }
    }

    pub(super) fn adopt(&mut self, next: &History, known: Option<i32>, reset: bool) {
        if reset {
            self.unreleased.clear();
            self.plain.clear();
        }
        for (version, losses) in next.losses_after(known.unwrap_or(next.floor()).max(next.floor())) {
            for (who, ranges) in losses {
                self.unreleased.insert((version, who.clone()), ranges.clone());
                if next.was_plain(version, who) {
                    self.plain.insert(who.clone());
                }
            }
        }
        let floor = next.floor();
        let released: BTreeSet<&Incarnation> = next.released().collect();
        self.unreleased.retain(|(version, who), _| *version > floor && !released.contains(who));
        if !self.plain.is_empty() {
            let losers: BTreeSet<&Incarnation> = self.unreleased.keys().map(|(_, who)| who).collect();
            self.plain.retain(|who| losers.contains(who));
        }
    }
}

/// A handover that has not ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ongoing {
    pub(super) cause: Cause,
    pub(super) since: Moment,
}

/// A member that joined more often than this within [`FLAPPING`] is held back.
const JOINS: usize = 5;
const FLAPPING: Duration = Duration::from_secs(60);

#[derive(Clone, Debug, Default)]
pub(crate) struct Publisher {
    /// When the next attempt is due.
    pub(super) due: Option<Moment>,
    pub(super) stage: Stage,
    /// The pause in which changes are collected. It grows while changes go on.
    pub(super) settle: Duration,
    /// When the last epoch was adopted.
    pub(super) last: Moment,
    /// The first change since the group was last listed.
    pub(super) first_change: Option<Moment>,
    /// When a change was first seen that is in no epoch yet.
    pub(super) changed: Option<Moment>,
    /// When the group is compared with the head.
    pub(super) compare: Moment,
    pub(super) is_comparing: bool,
    pub(super) is_watching: bool,
    /// The attempt that is due may be made needless by another member: it is void once an epoch is adopted.
    pub(super) helps: bool,
    /// The group is not read again before this moment.
    pub(super) not_before: Moment,
    /// The newest change of the group that is known.
    pub(super) newest: i64,
    /// How many children the group had when it was read last.
    pub(super) children: usize,
    /// Over how many times their usual time the attempts of members that do not watch are spread, when ours was planned.
    pub(super) spread: u32,
    /// The first epoch of a large group: the stat of the group is being read to see whether more members come.
    pub(super) is_probing: bool,
    /// It was read before, in the same turn.
    pub(super) has_probed: bool,
    /// No more have come.
    pub(super) is_quiet: bool,
    /// An operator wants this.
    pub(super) pause: Option<bool>,
    /// The group as it was listed last: the transaction that changed it.
    pub(super) listed: Option<i64>,
    /// Since when most members are missing.
    pub(super) mass_loss: Option<Moment>,
    /// When our znode was created, if we were ready then.
    pub(super) joined: Option<Moment>,
    /// When each id joined, in the last minute.
    pub(super) joins: BTreeMap<MemberId, VecDeque<Moment>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub(crate) enum Stage {
    #[default]
    Idle,
    /// The members are being listed, since this epoch was read.
    Listing(Epoch),
    Committing,
}

impl Publisher {
    pub(super) fn end_session(&mut self) {
        let joins = std::mem::take(&mut self.joins);
        *self = Publisher { joins, pause: self.pause, mass_loss: self.mass_loss, ..Publisher::default() };
    }

    pub(super) fn join(&mut self, now: Moment, is_ready: bool) {
        self.compare = now;
        self.joined = is_ready.then_some(now);
        if self.pause.is_some() {
            self.due = Some(now);
        }
    }

    /// Notes who joined at the epochs of `next` that are new. `known`: the newest one before, under the same head.
    pub(super) fn see(&mut self, now: Moment, known: Option<i32>, next: &History) {
        let Some(known) = known else { return };
        let new = usize::try_from(known - next.head.base).unwrap_or(0);
        for change in next.head.log.iter().skip(new) {
            for (id, entry) in &change.add {
                let is_new = !change.del.iter().any(|it| it.id == *id && it.czxid == entry.czxid);
                if is_new && !entry.is_plain {
                    self.joins.entry(id.clone()).or_default().push_back(now);
                }
            }
        }
        self.joins.retain(|_, joins| {
            joins.retain(|joined| now.saturating_since(*joined) < FLAPPING);
            !joins.is_empty()
        });
    }

    /// Until when we leave it to the others to let us in. An epoch that was made from a list with our znode, and does
    /// not have us, shows that they hold us back. We do not know why if we have just started.
    pub(super) fn is_held_until(&self, head: &Head, czxid: i64) -> Option<Moment> {
        self.joined.filter(|_| head.pzxid >= czxid).map(|joined| joined + FLAPPING)
    }

    /// Until when a member that joins again and again is held back.
    pub(super) fn held_until(&self, id: &MemberId) -> Option<Moment> {
        let joins = self.joins.get(id).filter(|joins| joins.len() > JOINS)?;
        let power = u32::try_from(joins.len() - JOINS).unwrap_or(u32::MAX).min(6);
        joins.back().map(|last| *last + Duration::from_secs(1 << power).min(FLAPPING))
    }
}
