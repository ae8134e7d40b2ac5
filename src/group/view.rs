//! [`View`]: the members of a group and what each owns, as of one moment.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::{handover, member::Member, rebalance::Part, register::Register};
use crate::{
    clock::Clock,
    error::Error,
    member::MemberId,
    ring::{HashRing, Ranges, RingError, RingKey},
    session::validity::Validity,
    share::Grant,
};

/// An immutable snapshot of a group: its members, their ring, and the standing of this member. Its methods do no I/O.
///
/// Only the *validity* of the share depends on the moment of the call: [`View::owns`] is false from the deadline on.
#[derive(Clone)]
pub struct View {
    pub(crate) group: Arc<str>,
    pub(crate) me: MemberId,
    pub(crate) epoch: i64,
    pub(crate) members: Arc<[Member]>,
    pub(crate) ring: Arc<HashRing>,
    /// What this member owns and may start.
    pub(crate) mine: Arc<Ranges>,
    /// Whether no other member can act on that.
    pub(crate) is_exclusive: bool,
    /// The members that have no place in the ring, and why.
    pub(crate) left_out: Arc<[(MemberId, RingError)]>,
    /// Whether the group was read at all.
    pub(crate) is_read: bool,
    /// The validity of our share; `None` while our znode is not in the group.
    pub(crate) validity: Option<Validity>,
    /// Our work in progress; `None` while our znode is not in the group.
    pub(crate) register: Option<Arc<Register>>,
    /// Our znode is in the group, and the first membership with it has not settled yet.
    pub(crate) is_settling: bool,
    /// Our znode is in the group, and waits for the caller to say that this member is ready.
    pub(crate) is_warming: bool,
    /// Another process has our member id. It is waited for, because it may be dead.
    pub(crate) blocked: Option<Error>,
    pub(crate) refusal: Option<Error>,
    pub(crate) has_left: bool,
    /// What the handover of keys shows; `None` in an immediate group.
    pub(crate) shown: Option<Shown>,
}

/// What the handover of keys shows.
#[derive(Clone)]
pub(crate) struct Shown {
    pub(crate) status: handover::Status,
    pub(crate) clock: Arc<dyn Clock>,
}

/// The standing of a member in its group.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Standing {
    /// Not in the group yet: its znode does not exist, or no list has shown it yet, or the membership has not
    /// [settled](crate::Join::settle) yet. It owns nothing.
    Joining,
    /// In the group, with a share.
    Member,
    /// The deadline has passed without a confirmed heartbeat. Another member may own its share now, so it owns nothing
    /// until a heartbeat is confirmed or it has re-joined.
    Lapsed,
    /// It cannot be in the group, or has no share; [`View::refusal`] gives the reason.
    Refused,
    /// It has left.
    Left,
}

impl Standing {
    /// All of them.
    pub const ALL: &'static [Standing] =
        &[Standing::Joining, Standing::Member, Standing::Lapsed, Standing::Refused, Standing::Left];

    /// In one word, as in the serialized form.
    pub const fn as_str(self) -> &'static str {
        match self {
            Standing::Joining => "joining",
            Standing::Member => "member",
            Standing::Lapsed => "lapsed",
            Standing::Refused => "refused",
            Standing::Left => "left",
        }
    }
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl View {
    /// The view before the group was read.
    pub(crate) fn before_joining(group: &str, me: &MemberId) -> View {
        let of_one = View::of_one(group, me, empty_ring());
        View {
            validity: None,
            register: None,
            members: [].into(),
            is_read: false,
            is_exclusive: false,
            ..of_one
        }
    }

    /// A group with this member alone, which no other member can join.
    pub(crate) fn of_one(group: &str, me: &MemberId, ring: HashRing) -> View {
        let (group, validity) = (Arc::<str>::from(group), Validity::unlimited());
        let register = Register::alone(group.clone(), validity.clone());
        View {
            group,
            me: me.clone(),
            epoch: 0,
            members: [Member::alone(me, &ring)].into(),
            mine: Arc::new(ring.ranges(me.as_str())),
            ring: Arc::new(ring),
            is_exclusive: true,
            left_out: [].into(),
            is_read: true,
            validity: Some(validity),
            register: Some(register),
            is_settling: false,
            is_warming: false,
            shown: None,
            blocked: None,
            refusal: None,
            has_left: false,
        }
    }

    /// The name of the group.
    pub fn group(&self) -> &str {
        &self.group
    }

    /// The id of this member.
    pub fn me(&self) -> &MemberId {
        &self.me
    }

    /// The generation of the membership: the transaction that wrote it; in an [immediate](crate::Join::immediate) group
    /// the `pzxid` of the group's znode. All members that follow the same membership have the same number, and a later
    /// membership has a larger one.
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// The last known members, sorted by id. This member is one of them if it is in the group.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The ring over the members. A member for whose points there was no room is not in it: see [`Error::Ring`].
    pub fn ring(&self) -> &HashRing {
        &self.ring
    }

    /// The standing of this member at this moment.
    pub fn standing(&self) -> Standing {
        match &self.validity {
            _ if self.has_left => Standing::Left,
            _ if self.refusal.is_some() => Standing::Refused,
            None => Standing::Joining,
            Some(validity) if validity.has_ended() => Standing::Joining,
            Some(validity) if validity.is_valid() => Standing::Member,
            Some(_) => Standing::Lapsed,
        }
    }

    /// Why this member cannot be in the group, or has no share, if there is such a reason.
    pub fn refusal(&self) -> Option<&Error> {
        self.refusal.as_ref()
    }

    /// Whether this member owns `key` and may act on it at this moment.
    pub fn owns<K: RingKey + ?Sized>(&self, key: &K) -> bool {
        self.standing() == Standing::Member && self.mine.contains(key)
    }

    /// Whether no other member can act on what this one [owns](View::owns) while its share is valid.
    ///
    /// True in a group whose members all hand keys over, and without a backend. False for a member that joined with
    /// [`Join::immediate`](crate::Join::immediate), and while a member is there that does not hand keys over, as a
    /// Python peer.
    pub fn is_exclusive(&self) -> bool {
        self.is_exclusive
    }

    /// The validity under which this member has a share.
    pub(crate) fn acting(&self) -> Option<&Validity> {
        self.validity.as_ref().filter(|_| !self.has_left && self.refusal.is_none())
    }

    /// What this member may act on, for a comparison with another view.
    pub(crate) fn part(&self) -> Part {
        Part { ranges: self.mine.clone(), ring: self.ring.digest(), members: self.ring.len() }
    }

    /// What a share of this view rests on.
    pub(crate) fn grant(&self, has_share: bool) -> Grant {
        // A share that is empty because of the deadline must not become valid with a later heartbeat.
        let register = self.register.clone().filter(|_| has_share);
        Grant {
            group: self.group.clone(),
            epoch: self.epoch,
            is_exclusive: self.is_exclusive,
            ranges: self.mine.clone(),
            register,
        }
    }
}

/// Logs what has changed, each problem once.
pub(crate) fn report(view: &View, previous: &View) {
    let View { group, me, epoch, .. } = view;
    let problem = |view: &View| view.refusal.as_ref().or(view.blocked.as_ref()).map(ToString::to_string);
    match problem(view) {
        Some(error) if problem(previous).as_ref() == Some(&error) => {}
        Some(error) => warn!(%group, member = %me, %error, "without a share"),
        None => {
            let (standing, members) = (view.standing(), view.members.len());
            info!(%group, member = %me, %standing, epoch, members, "membership");
        }
    }
    if !view.left_out.is_empty() && view.left_out != previous.left_out {
        warn!(%group, left_out = ?view.left_out, "there is no room in the ring for members of so large a weight");
    }
}

/// Warns that a Python peer seems to use the ring of tooz, and this member does not.
pub(crate) fn hint_at_tooz(view: &View, other: &MemberId) {
    warn!(
        group = %view.group,
        member = %other,
        hint = "tooz-ring",
        "a Python member announces a weight: if it uses the ring of tooz, keys have two owners or none; see Config::tooz"
    );
}

/// A ring without members.
pub(crate) fn empty_ring() -> HashRing {
    HashRing::builder().build().expect("an empty ring is within all limits")
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("View")
            .field("group", &self.group)
            .field("me", &self.me)
            .field("epoch", &self.epoch)
            .field("standing", &self.standing())
            .field("members", &self.members.iter().map(Member::id).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
