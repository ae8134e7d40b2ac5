//! [`Known`]: what was read of a group, and what follows from it for each member.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, SystemTime},
};

use super::{
    observation::{MemberState, ObservedMember},
    pending,
};
use crate::{
    backend::Stat,
    error::Error,
    group::{
        handover::{HeadRead, History, Incarnation, Part, Presence},
        member::{Member, Ours, Payload},
        placement::Rings,
    },
    member::MemberId,
};

/// What was read in the current session.
#[derive(Debug, Default)]
pub(super) struct Known {
    pub(super) history: Option<History>,
    /// What was wrong with the head when it was read last.
    pub(super) head_problem: Option<Error>,
    /// When the epochs of the current head were published, of those that were seen, in milliseconds since 1970.
    pub(super) published: BTreeMap<i32, i64>,
    /// The stat of the group at the last list; `None` if it does not exist.
    pub(super) group: Option<Stat>,
    /// `None` while a child has not been read.
    pub(super) children: BTreeMap<MemberId, Option<Child>>,
}

/// A member as its znode shows it.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) member: Member,
    pub(super) payload: Payload,
    /// `None` if permission is denied.
    pub(super) stat: Option<Stat>,
}

impl Child {
    pub(super) fn part(&self) -> Option<&Part> {
        self.payload.ours.as_ref()?.handover.as_ref()
    }

    /// Its state while no epoch names it.
    fn before_its_epoch(&self) -> MemberState {
        match self.part().map(|part| part.presence) {
            Some(Presence::Warming) => MemberState::Warming,
            Some(Presence::Draining | Presence::Drained) => MemberState::Draining,
            Some(Presence::Ready) | None => MemberState::Joining,
        }
    }

    pub(super) fn observed(&self, state: MemberState) -> ObservedMember {
        let process = self.payload.process();
        ObservedMember {
            member: self.member.clone(),
            state,
            owned: 0.0,
            hands_over: self.part().is_some(),
            is_behind: false,
            kept: self.part().map_or(0, |part| part.keep.len()),
            session: self.stat.and_then(|stat| stat.ephemeral_owner),
            host: process.map(|process| process.host.clone()),
            pid: process.map(|process| process.pid),
            joined: self.stat.map(|stat| wall_clock(stat.created_ms)),
        }
    }
}

impl Known {
    pub(super) fn forget_head(&mut self) {
        self.history = None;
        self.published.clear();
    }

    pub(super) fn follow(&mut self, history: History, read: &HeadRead, modified_ms: i64) {
        if self.history.as_ref().is_none_or(|known| known.epoch.head != read.czxid) {
            self.published.clear();
        }
        let floor = history.floor();
        self.published.retain(|version, _| *version >= floor);
        self.published.insert(read.version, modified_ms);
        self.history = Some(history);
    }

    /// When an epoch was published; if it was not seen, when the oldest later one was that was seen.
    pub(super) fn published_at(&self, version: i32) -> i64 {
        self.published.range(version..).next().map_or(0, |(_, ms)| *ms)
    }

    pub(super) fn oldest(&self) -> i64 {
        self.published.first_key_value().map_or(0, |(_, ms)| *ms)
    }

    /// Takes a list of the members. If the names that came and went do not explain the count of changes, a znode was
    /// replaced by another one of the same name, and all are read again.
    pub(super) fn list(&mut self, names: &[String], stat: Stat) {
        let ids: BTreeSet<_> = names.iter().filter_map(|name| MemberId::new(name).ok()).collect();
        let gone = self.children.keys().filter(|id| !ids.contains(*id)).count();
        let new = ids.iter().filter(|id| !self.children.contains_key(*id)).count();
        let grown = self
            .group
            .map(|before| (before.czxid == stat.czxid).then(|| stat.cversion.wrapping_sub(before.cversion)));
        let is_explained = grown.flatten().and_then(|grown| usize::try_from(grown).ok()) == Some(gone + new);
        self.children.retain(|id, _| ids.contains(id));
        if !is_explained {
            self.children.values_mut().for_each(|child| *child = None);
        }
        for id in ids {
            self.children.entry(id).or_default();
        }
        self.group = Some(stat);
    }

    pub(super) fn unread(&self) -> impl Iterator<Item = MemberId> {
        self.children.iter().filter(|(_, child)| child.is_none()).map(|(id, _)| id.clone())
    }

    /// Whether the znode of this incarnation is there.
    pub(super) fn has(&self, who: &Incarnation) -> bool {
        let child = self.children.get(&who.id).and_then(Option::as_ref);
        child.is_some_and(|child| child.stat.is_none_or(|stat| stat.czxid == who.czxid))
    }

    /// The ring parameters that the first member of this library announces.
    pub(super) fn announced(&self) -> Option<Rings> {
        self.children.values().flatten().find_map(|child| {
            let ours = child.payload.ours.as_ref()?;
            Some(Rings { label: ours.label?, replicas: ours.replicas? })
        })
    }

    /// Whether members wait for an epoch, of which there is none. While the head may not be read, that is not known.
    pub(super) fn lacks_epoch(&self) -> bool {
        let is_known = !matches!(self.head_problem, Some(Error::NotPermitted { .. }));
        is_known && self.history.is_none() && self.children.values().flatten().any(|it| it.part().is_some())
    }

    /// A member of a group of which no epoch is known. One that hands keys over acts on none without an epoch.
    pub(super) fn unnamed(&self, child: &Child) -> ObservedMember {
        let waits = self.lacks_epoch() && child.part().is_some();
        child.observed(if waits { child.before_its_epoch() } else { MemberState::Member })
    }

    pub(super) fn is_read(&self, problem: Option<&Error>) -> bool {
        problem.is_none() || self.group.is_some()
    }

    /// The members that the newest epoch names, and those whose znode it does not name yet.
    pub(super) fn named(&self, history: &History) -> Vec<ObservedMember> {
        let common = &history.head.common;
        let ours = Ours { label: Some(common.label), replicas: Some(common.replicas), ..Ours::default() };
        let mut members = Vec::new();
        for (id, entry) in history.members().iter() {
            let who = Incarnation { id: id.clone(), czxid: entry.czxid };
            let child = self.children.get(id).and_then(Option::as_ref).filter(|_| self.has(&who));
            members.push(match child {
                Some(child) => {
                    let leaves =
                        |part: &Part| matches!(part.presence, Presence::Draining | Presence::Drained);
                    let draining = child.part().is_some_and(leaves);
                    let state = if draining { MemberState::Draining } else { MemberState::Member };
                    let is_behind = child.part().is_some_and(|part| pending::is_behind(history, &who, part));
                    let observed = child.observed(state);
                    let kept = if is_behind { 0 } else { observed.kept };
                    ObservedMember { hands_over: !entry.is_plain, is_behind, kept, ..observed }
                }
                None => {
                    let ours = Some(&ours).filter(|_| !entry.is_plain);
                    let member = Member::published(id, entry.weight, entry.czxid, ours);
                    let gone = ObservedMember::without_znode(member, MemberState::Gone);
                    ObservedMember { hands_over: !entry.is_plain, ..gone }
                }
            });
        }
        for (id, child) in &self.children {
            let Some(child) = child else { continue };
            let entry = history.members().get(id);
            if entry.is_some_and(|entry| child.stat.is_none_or(|stat| stat.czxid == entry.czxid)) {
                continue;
            }
            members.push(child.observed(child.before_its_epoch()));
        }
        members.sort_by(|a, b| {
            (a.member.id(), a.member.incarnation()).cmp(&(b.member.id(), b.member.incarnation()))
        });
        members
    }
}

pub(super) fn since_1970(ms: i64) -> Duration {
    Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}

/// A time of the server.
pub(super) fn wall_clock(ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + since_1970(ms)
}
