// Pure: no runtime, no clock, no socket, no random numbers.

//! What a membership shows: [`Startable`] for shares, [`Status`] for operators.

use std::sync::Arc;

use super::{
    settings::Problem,
    types::{Ended, Epoch, Incarnation, Members},
};
use crate::{
    clock::Moment,
    error::unclear::Unclear,
    member::MemberId,
    ring::{HashRing, Ranges},
};

/// What work may start on while the lease lasts.
#[derive(Clone, Debug)]
pub(crate) struct Startable {
    /// The epoch that this member follows; `None` if it follows none.
    pub(crate) epoch: Option<Epoch>,
    /// The fencing token of the epoch: the transaction that wrote it. From one owner of a key to the next it grows.
    pub(crate) token: i64,
    /// The members of the epoch.
    pub(crate) members: Option<Arc<Members>>,
    /// The ring of the epoch.
    pub(crate) ring: Option<Arc<HashRing>>,
    /// The positions on which work may start.
    pub(crate) ranges: Ranges,
    /// With the ring of tooz: a member because of which no member may act, since Python members may not agree on the ring.
    pub(crate) unclear: Option<(MemberId, Unclear)>,
    /// Whether no other process can act on them. False while a plain member is there, or is waited for.
    pub(crate) is_exclusive: bool,
}

/// How a membership is.
#[derive(Clone, Debug)]
pub(crate) struct Status {
    /// How many ranges of lost keys guards may still act on.
    pub(crate) kept: usize,
    pub(crate) waiting: Vec<Waiting>,
    pub(crate) is_paused: bool,
    pub(crate) problem: Option<Problem>,
    /// A plain member that seems to use the ring of tooz, while this one does not.
    pub(crate) tooz_hint: Option<MemberId>,
    /// The last handover to this member that has ended.
    pub(crate) ended: Option<Ended>,
}

/// One member that this one waits for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Waiting {
    pub(crate) member: Incarnation,
    pub(crate) ranges: Ranges,
    /// Since when.
    pub(crate) since: Moment,
    pub(crate) why: Why,
}

/// Why a key has to wait for a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Why {
    /// It has not acknowledged that it lost the key.
    NotAcknowledged,
    /// It still works on something at these positions.
    StillAtWork,
    /// It is gone, and its lease may not have ended.
    Gone,
    /// It is a plain member, which acknowledges nothing.
    Plain,
}
