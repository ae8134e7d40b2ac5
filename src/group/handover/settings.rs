// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Settings`] of a membership, and [`Problem`]: why it cannot act.

use std::{sync::Arc, time::Duration};

use super::{
    rules::Rules,
    types::{FormatError, Presence},
};
use crate::{member::MemberId, ring::Label};

/// The settings of a membership.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) me: MemberId,
    pub(crate) label: Label,
    pub(crate) replicas: u32,
    pub(crate) zone: Option<Arc<str>>,
    /// [`Presence::Ready`], or [`Presence::Warming`] until [`Event::Ready`](super::Event::Ready).
    pub(crate) presence: Presence,
    /// A member that is gone is released only a lease later, so that a deleted znode does no harm.
    pub(crate) is_strict: bool,
    /// For how long work may go on after its key was lost.
    pub(crate) max_drain: Duration,
    /// For how long a plain member is waited for.
    pub(crate) plain_grace: Duration,
    /// Changes within this time are published together.
    pub(crate) settle: Duration,
    /// Up to which `settle` grows while changes go on.
    pub(crate) max_settle: Duration,
    /// If more than 1, a change is published when no further one has come for `settle`, and at the latest after so many
    /// times that.
    pub(crate) settles: u32,
    /// How often head and group are read again even if no watch fired, give or take a half.
    pub(crate) recheck: Duration,
    /// After which time a joiner publishes itself.
    pub(crate) joiner_delay: Duration,
    /// For how long a publisher of the rank `n` leaves the change to those before it: `n` times this.
    pub(crate) rank_delay: Duration,
    /// The end of kept work is written after this time, together with others.
    pub(crate) bundle: Duration,
    /// The pause before something that failed is tried again.
    pub(crate) retry: Duration,
    /// Up to which that pause grows while the first head cannot be made.
    pub(crate) max_retry: Duration,
    /// A new snapshot is written when the log has as many entries.
    pub(crate) log_limit: usize,
    /// Whether a member that joins again and again is held back.
    pub(crate) hold_down: bool,
    /// How long a loss of most members must last before it is published. `None`: not at all.
    pub(crate) mass_loss: Option<Duration>,
    pub(crate) rules: Rules,
}

impl Settings {
    /// The settings that a group has if its caller sets none.
    pub(crate) fn new(me: MemberId, label: Label, replicas: u32) -> Settings {
        Settings {
            me,
            label,
            replicas,
            zone: None,
            presence: Presence::Ready,
            is_strict: false,
            max_drain: Duration::from_secs(300),
            plain_grace: Duration::from_secs(60),
            settle: Duration::from_millis(50),
            max_settle: Duration::from_secs(1),
            settles: 1,
            recheck: Duration::from_secs(5),
            joiner_delay: Duration::from_secs(1),
            rank_delay: Duration::from_millis(200),
            bundle: Duration::from_millis(100),
            retry: Duration::from_millis(100),
            max_retry: Duration::from_secs(30),
            log_limit: 16,
            hold_down: true,
            mass_loss: None,
            rules: Rules::default(),
        }
    }
}

/// Why a member cannot act, or cannot publish. It is tried again all the time.
#[derive(Clone, PartialEq, Eq, Hash, Debug, thiserror::Error)]
pub(crate) enum Problem {
    /// Recovery: members of that newer version go on; upgrade this one.
    #[error("the head cannot be read: {0}")]
    Format(FormatError),
    /// Recovery: an operator deletes the head; the members make a new one.
    #[error("the head contradicts itself: {0}")]
    Inconsistent(&'static str),
    /// Recovery: as above. A server that lags behind shows it for a moment.
    #[error("the head has version {found}, and version {known} was read before")]
    WentBack { found: i32, known: i32 },
    #[error("an access control list denies what a member has to read or write")]
    NotPermitted,
    /// Recovery: give all members of the group the same credentials.
    #[error("the other members are not permitted to read the znode of this member")]
    Unreadable,
    /// Recovery: give all members the same ring parameters, or delete the head when those of this one are right.
    #[error("the group has {replicas} replicas labelled {label}, and this member is set to others")]
    OtherRing { label: Label, replicas: u32 },
    #[error("the group has a lease of {group:?}, which is too short for three heartbeats of {heartbeat:?}")]
    LeaseTooShort { group: Duration, heartbeat: Duration },
    #[error("the members have too many ring points together")]
    TooManyPoints,
    #[error("the members of the group do not fit into one znode")]
    TooLarge,
}
