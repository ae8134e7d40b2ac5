//! [`Observation`]: a group as the store shows it to a process that is no member.

use std::{collections::BTreeMap, fmt, sync::Arc, time::SystemTime};

use serde::{Deserialize, Serialize};

use crate::{
    backend::SessionId,
    error::Error,
    group::{
        member::Member,
        placement::{counted_weight, left_out},
        status::Why,
    },
    member::MemberId,
    ring::{HashRing, Label, Ranges, RingError, RingKey},
};

/// An immutable snapshot of a group, as the store shows it. From [`Observer`](super::Observer). Its methods do no I/O.
#[derive(Clone)]
pub struct Observation {
    pub(super) group: Arc<str>,
    /// Whether the store was read at all.
    pub(super) is_read: bool,
    pub(super) exists: bool,
    pub(super) is_current: bool,
    pub(super) hands_over: bool,
    pub(super) lacks_epoch: bool,
    pub(super) is_exclusive: bool,
    /// Whether keys have owners: not while the members do not agree on the ring.
    pub(super) is_owned: bool,
    pub(super) is_paused: bool,
    pub(super) epoch: i64,
    pub(super) since: SystemTime,
    pub(super) members: Arc<[ObservedMember]>,
    pub(super) ring: Arc<HashRing>,
    pub(super) pending: Arc<[PendingHandover]>,
    pub(super) problem: Option<Error>,
}

/// A member of a group as a process sees it that is none.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct ObservedMember {
    /// Its id, weight and incarnation.
    pub member: Member,
    /// Whether it takes part.
    pub state: MemberState,
    /// The part of all keys that it owns by the ring, from 0 to 1.
    pub owned: f64,
    /// Whether it hands its keys over. False for a Python member, and for one that joined with
    /// [`immediate`](crate::Join::immediate).
    pub hands_over: bool,
    /// Whether it has lost keys and has not acknowledged that. If it does not, others wait until its lease has ended. It
    /// does not act beyond its lease, on any key, until it follows the newest epoch.
    pub is_behind: bool,
    /// How many ranges of keys that it has lost it still works on.
    pub kept: usize,
    /// The session that owns its znode. `None` if the znode is gone or may not be read.
    pub session: Option<SessionId>,
    /// The host of its process, if its znode names it.
    pub host: Option<String>,
    /// The process id on that host.
    pub pid: Option<u32>,
    /// When its znode was created, by the wall clock of the server. `None` if the znode is gone or may not be read.
    pub joined: Option<SystemTime>,
}

impl ObservedMember {
    /// A member of which there is no znode to read.
    pub(super) fn without_znode(member: Member, state: MemberState) -> ObservedMember {
        ObservedMember {
            member,
            state,
            owned: 0.0,
            hands_over: false,
            is_behind: false,
            kept: 0,
            session: None,
            host: None,
            pid: None,
            joined: None,
        }
    }
}

/// The state of an observed member.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum MemberState {
    /// Its znode is there, and no epoch names it yet.
    Joining,
    /// It gets ready and wants no keys yet: see [`Join::warming`](crate::Join::warming).
    Warming,
    /// It owns keys.
    Member,
    /// It leaves, and ends its work before that.
    Draining,
    /// Its znode is gone, and the newest epoch still names it: no member acts on its keys until the next epoch.
    Gone,
}

impl MemberState {
    /// All of them.
    pub const ALL: &'static [MemberState] = &[
        MemberState::Joining,
        MemberState::Warming,
        MemberState::Member,
        MemberState::Draining,
        MemberState::Gone,
    ];

    /// In one word, as in the serialized form.
    pub const fn as_str(self) -> &'static str {
        match self {
            MemberState::Joining => "joining",
            MemberState::Warming => "warming",
            MemberState::Member => "member",
            MemberState::Draining => "draining",
            MemberState::Gone => "gone",
        }
    }
}

impl fmt::Display for MemberState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Keys whose owner waits for another member, which had them before.
#[derive(Clone, PartialEq, Debug)]
#[non_exhaustive]
pub struct PendingHandover {
    /// The member that had them.
    pub member: MemberId,
    /// Its incarnation: [`Member::incarnation`].
    pub incarnation: i64,
    /// Whether the znode of that incarnation is there, so that its session lives as far as the store knows.
    pub is_present: bool,
    /// The part of all keys that wait for it, from 0 to 1.
    pub fraction: f64,
    /// Since when, at the latest, by the wall clock of the server: the epoch at which it lost them. If that epoch was not
    /// seen, the oldest later one that was.
    pub since: SystemTime,
    /// Why they wait.
    pub why: Why,
    pub(super) ranges: Ranges,
}

impl PendingHandover {
    /// Whether `key` waits for that member.
    pub fn has<K: RingKey + ?Sized>(&self, key: &K) -> bool {
        self.ranges.contains(key)
    }

    /// Whether it waits for the position of `key` alone, not for a range around it. Under [`Why::StillAtWork`] that is a
    /// guard of this key. A range is what a member announces that works on more than 64 lost items: whether on this one,
    /// only that member knows.
    pub fn is_exact<K: RingKey + ?Sized>(&self, key: &K) -> bool {
        self.ranges.has_alone(key)
    }
}

impl Observation {
    /// Before anything was read.
    pub(super) fn nothing(group: Arc<str>, ring: Arc<HashRing>) -> Observation {
        Observation {
            group,
            is_read: false,
            exists: false,
            is_current: false,
            hands_over: false,
            lacks_epoch: false,
            is_exclusive: false,
            is_owned: true,
            is_paused: false,
            epoch: 0,
            since: SystemTime::UNIX_EPOCH,
            members: [].into(),
            ring,
            pending: [].into(),
            problem: None,
        }
    }

    /// A group without a backend, with this member alone.
    pub(super) fn of_one(group: &str, me: &MemberId, ring: HashRing) -> Observation {
        let member = ObservedMember {
            owned: 1.0,
            ..ObservedMember::without_znode(Member::alone(me, &ring), MemberState::Member)
        };
        Observation {
            is_read: true,
            exists: true,
            is_current: true,
            is_exclusive: true,
            members: [member].into(),
            ..Observation::nothing(group.into(), ring.into())
        }
    }

    /// The name of the group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// Whether the znode of the group exists. Its members make it; a group that was never joined has none.
    pub fn exists(&self) -> bool {
        self.exists
    }

    /// Whether this is read in the session that is live now. If not, it is the last that was known before the connection
    /// was lost or denied.
    pub fn is_current(&self) -> bool {
        self.is_current
    }

    /// Whether the members hand keys over, so that there are epochs that all of them follow. False in an
    /// [immediate](crate::Join::immediate) group, in one of Python members alone, and as long as
    /// [no epoch](Observation::lacks_epoch) names the members.
    pub fn hands_over(&self) -> bool {
        self.hands_over
    }

    /// Whether there are members that hand keys over, and no epoch names them, so that none of these acts. The first one is
    /// published within seconds, unless the members may not write the head, which is beside the namespace.
    pub fn lacks_epoch(&self) -> bool {
        self.lacks_epoch
    }

    /// Whether no two members act on one key. False while the newest epoch names a member that hands no keys over, and
    /// while keys wait for one that is gone.
    pub fn is_exclusive(&self) -> bool {
        self.is_exclusive
    }

    /// Whether an operator has [paused](crate::Group::pause) the group.
    pub fn is_paused(&self) -> bool {
        self.is_paused
    }

    /// The generation of the membership: as [`View::epoch`](super::super::View::epoch).
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// When that generation began, by the wall clock of the server. 1970 if that is not known.
    pub fn since(&self) -> SystemTime {
        self.since
    }

    /// The members, sorted by id: those that own keys, those that are to get some, and those that leave. If a member was
    /// replaced by another one with its id, both are there until an epoch names the new one.
    pub fn members(&self) -> &[ObservedMember] {
        &self.members
    }

    /// The ring of the newest epoch; where keys are not handed over, that of the members.
    pub fn ring(&self) -> &HashRing {
        &self.ring
    }

    /// The ring if these members left, and these joined, each with its weight. Those that join use this library; one that is
    /// in the ring already gets its new weight. Each member has the weight that counts then: beside a Python member all
    /// count as 1, unless the ring is one of tooz. Where keys are handed over, members of the
    /// group that have no place in the ring yet get none.
    ///
    /// # Errors
    ///
    /// [`RingError`] if a weight is zero, or if the points of a member that joins have no room.
    pub fn ring_after(&self, leave: &[&str], join: &[(&str, u32)]) -> Result<HashRing, RingError> {
        let (ring, label) = (&self.ring, self.ring.label());
        // A member that was replaced is there twice. The older one is in the ring, and comes first.
        let mut stay: BTreeMap<&MemberId, &ObservedMember> = BTreeMap::new();
        for it in &*self.members {
            let id = it.member.id();
            let is_placed = !self.hands_over || ring.contains(id.as_str());
            let changes = leave.contains(&id.as_str()) || join.iter().any(|(new, _)| *new == id.as_str());
            if is_placed && !changes {
                stay.entry(id).or_insert(it);
            }
        }
        // The members of an epoch decide by the first, those of a group without epochs by the second.
        let is_plain = |it: &ObservedMember| match self.hands_over {
            true => !it.hands_over,
            false => it.member.is_plain(),
        };
        let has_plain = stay.values().any(|it| is_plain(it));
        let weight = |it: &ObservedMember| match label {
            Label::Tooz => it.member.python_weight().for_ring(),
            label => counted_weight(label, has_plain, it.member.weight()),
        };
        let left_out =
            left_out(ring.replicas(), stay.iter().map(|(id, it)| (it.member.incarnation(), *id, weight(it))));
        let has_place = |(id, it): &(&&MemberId, &&ObservedMember)| {
            weight(it) > 0 && !left_out.iter().any(|(left, _)| left == **id)
        };
        let mut builder = HashRing::builder().replicas(ring.replicas()).label(label);
        for (id, it) in stay.iter().filter(has_place) {
            builder = builder.weighted_member(id.as_str(), weight(it));
        }
        let join: BTreeMap<&str, u32> = join.iter().copied().collect();
        for (id, asked) in join {
            builder = builder.weighted_member(id, counted_weight(label, has_plain && asked > 0, asked));
        }
        builder.build()
    }

    /// The member that owns `key` by the ring; `None` as well while the members do not agree on the ring: then
    /// [`Observation::problem`] says why. Whether it may act on it yet says [`Observation::pending_for`].
    pub fn owner<K: RingKey + ?Sized>(&self, key: &K) -> Option<&ObservedMember> {
        let id = self.ring.owner(key).filter(|_| self.is_owned)?;
        let named = |it: &&ObservedMember| it.member.id().as_str() == id && it.state != MemberState::Joining;
        self.members.iter().find(named)
    }

    /// Who waits for whom: the members that may still act on keys which they own no more, as far as the store shows it.
    /// [Strict](crate::Join::strict) groups also wait for members that are gone, which the store does not show.
    pub fn pending(&self) -> &[PendingHandover] {
        &self.pending
    }

    /// The members for which the owner of `key` waits.
    pub fn pending_for<'a, K: RingKey + ?Sized>(
        &'a self,
        key: &'a K,
    ) -> impl Iterator<Item = &'a PendingHandover> {
        self.pending.iter().filter(|it| it.has(key))
    }

    /// What keeps the observer from seeing all of it.
    pub fn problem(&self) -> Option<&Error> {
        self.problem.as_ref()
    }

    /// Whether a caller sees the same in both.
    pub(super) fn is_same(&self, other: &Observation) -> bool {
        let flags = |it: &Observation| (it.is_read, it.exists, it.is_current, it.is_exclusive, it.is_owned);
        let epoch = |it: &Observation| (it.hands_over, it.lacks_epoch, it.is_paused, it.epoch, it.since);
        let problem = |it: &Observation| it.problem.as_ref().map(ToString::to_string);
        flags(self) == flags(other)
            && epoch(self) == epoch(other)
            && self.members == other.members
            && self.pending == other.pending
            && self.ring.digest() == other.ring.digest()
            && problem(self) == problem(other)
    }
}

impl fmt::Debug for Observation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observation")
            .field("group", &self.group)
            .field("exists", &self.exists)
            .field("is_current", &self.is_current)
            .field("hands_over", &self.hands_over)
            .field("epoch", &self.epoch)
            .field("members", &self.members)
            .field("pending", &self.pending)
            .field("problem", &self.problem)
            .finish_non_exhaustive()
    }
}
