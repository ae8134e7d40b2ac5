// Pure: no runtime, no clock, no socket, no random numbers.

//! What goes into the engine and what comes out of it: [`Settings`], [`Event`], [`Action`], [`Picture`].

use std::time::Duration;

use crate::{
    backend::{self, SessionId},
    error::{Error, holder::Holder},
    group::member::{Member, Ours, Payload},
    member::MemberId,
};

/// The settings of a membership.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) group: String,
    pub(crate) me: MemberId,
    /// What we write into our znode.
    pub(crate) ours: Ours,
    /// Whether this engine lists the group. Otherwise it only joins and leaves, and who runs it knows the members.
    pub(crate) lists: bool,
    pub(crate) retry: Duration,
    pub(crate) max_retry: Duration,
    /// How often the group is checked for a change that no watch has reported.
    pub(crate) check: Duration,
    /// A change is adopted when no further one has come for this long.
    pub(crate) settle: Duration,
}

/// What the driver has to do. Each action has one of the named events as its outcome.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Action {
    /// Create the group's znode: [`Event::GroupReady`], [`Event::Failed`].
    CreateGroup,
    /// Create and set our znode in one transaction: [`Event::Joined`], [`Event::Occupied`],
    /// [`Event::GroupMissing`], [`Event::Failed`].
    Join,
    /// Read the znode that has the path of ours, with a watch: [`Event::Occupant`], [`Event::Failed`].
    Inspect,
    /// Delete the znode if it has this version, and join, in one transaction: [`Event::Joined`],
    /// [`Event::Occupied`] if it has changed, [`Event::Failed`].
    TakeOver { version: i32 },
    /// List the members, with a new watch, and read those that are new: [`Event::Listed`], [`Event::GroupMissing`],
    /// [`Event::Failed`].
    List,
    /// List them only if the group has changed since the last list: [`Event::Unchanged`], or the outcome of
    /// [`Action::List`].
    Check,
    /// Delete our znode if it is ours: [`Event::HasLeft`], [`Event::Failed`].
    Leave,
}

/// What has happened.
#[derive(Debug, Clone)]
pub(crate) enum Event {
    /// There is a new session. `lifetime` is the longest time for which the znode of a dead process can stay.
    SessionUp {
        session: SessionId,
        lifetime: Duration,
    },
    SessionLost,
    /// The session has a connection again.
    Connected,
    /// A heartbeat has found that our znode is gone.
    Gone,
    /// This member is in the group for good, as its heartbeats show. Only without lists, which show it otherwise.
    Settled,
    /// The group has changed, or the znode that has the path of ours.
    WatchFired,
    /// A caller wants to leave.
    Leave,
    GroupReady,
    GroupMissing,
    Joined {
        czxid: i64,
        version: i32,
    },
    Occupied,
    Occupant(Option<Occupant>),
    Listed {
        epoch: i64,
        members: Vec<Member>,
    },
    Unchanged,
    HasLeft,
    Failed(backend::Error, Error),
}

/// The znode that has the path of ours.
#[derive(Debug, Clone)]
pub(crate) struct Occupant {
    pub(crate) owner: Option<SessionId>,
    pub(crate) czxid: i64,
    pub(crate) version: i32,
    /// The time of its creation by the clock of the server, in milliseconds since 1970.
    pub(crate) created_ms: i64,
    pub(crate) payload: Payload,
    /// It is the znode of a process of this host that has certainly ended.
    pub(crate) dead: bool,
}

impl Occupant {
    /// Which process has our member id, for the caller and an operator.
    pub(super) fn holder(&self) -> Holder {
        let process = self.payload.process();
        Holder {
            host: process.map(|process| process.host.clone()),
            pid: process.map(|process| process.pid),
            session: self.owner,
            since_ms: self.created_ms,
        }
    }
}

/// Our znode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Own {
    pub(crate) czxid: i64,
    pub(crate) version: i32,
}

/// What the engine knows: the input of a view.
#[derive(Debug, Clone, Default)]
pub(crate) struct Picture {
    /// Counts the changes of the picture.
    pub(crate) revision: u64,
    /// `pzxid` of the group.
    pub(crate) epoch: i64,
    /// Sorted by id.
    pub(crate) members: Vec<Member>,
    /// Whether the group was read at all.
    pub(crate) is_read: bool,
    /// Our znode, once a list with it was adopted.
    pub(crate) own: Option<Own>,
    /// There is a list with our znode. It is adopted when the membership has settled.
    pub(crate) is_settling: bool,
    /// Another process has our member id. It is waited for, because it may be dead.
    pub(crate) blocked: Option<Error>,
    /// Why this member cannot be in the group, or has no share although it is.
    pub(crate) refusal: Option<Error>,
    pub(crate) has_left: bool,
}
