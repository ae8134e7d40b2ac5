//! [`Error`]: why a coordinator or a group could not do what the caller asked.

pub(crate) mod holder;
pub(crate) mod unclear;

use std::{convert::Infallible, time::Duration};

use self::{holder::Holder, unclear::Unclear};
use crate::{
    backend::{self, Loss, path::PathError, path::ZnodePath},
    config::ConfigError,
    member::MemberId,
    ring::RingError,
};

/// Why a coordinator or a group could not do what the caller asked. A caller does something different for each variant.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The configuration, or its URL, is invalid. Retrying cannot help.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No server answered. Try again later; a coordinator that was opened with
    /// [`start`](crate::PartitionCoordinator::start) does that by itself.
    #[error("the backend is unreachable: {reason}")]
    Unreachable {
        /// What was tried, and how it failed.
        reason: String,
    },
    /// The server refused the credentials. Retrying cannot help.
    #[error("the server refused the credentials of this client")]
    AuthFailed,
    /// Permission denied by an access control list. The library tries again in the background, at most once a second.
    /// An operator has to change the list or the credentials.
    #[error("not permitted on znode `{path}`: check its access control list and the credentials in the URL")]
    NotPermitted {
        /// The znode.
        path: String,
    },
    /// The name of the group cannot be the name of a znode. Retrying cannot help.
    #[error("`{}` cannot be the name of a group: {reason}", group.escape_debug())]
    GroupName {
        /// The name as given.
        group: String,
        /// What is wrong with it.
        reason: PathError,
    },
    /// The weight is zero or too large. Retrying cannot help.
    #[error("a weight of {weight} in group `{group}` is not in 1..={max}", max = crate::member::MAX_WEIGHT)]
    Weight {
        /// The group.
        group: String,
        /// The weight as given.
        weight: u32,
    },
    /// This coordinator has joined the group already, with other options. Use that handle, or leave first.
    #[error("group `{group}` is joined already, with other options")]
    JoinedDifferently {
        /// The group.
        group: String,
    },
    /// Five tries did not bring the znode of this member back into the group. The membership is re-joined in the
    /// background, so a later call may succeed. If this repeats, alert an operator.
    #[error("member `{member}` is missing from group `{group}`, {}", known(members.as_deref()))]
    NotInGroup {
        /// The group.
        group: String,
        /// The id of this member.
        member: MemberId,
        /// The members that the group had when it was read last; `None` if it was not read yet.
        members: Option<Vec<MemberId>>,
    },
    /// Another process uses the id of this member. Give one of the two an id of its own. The library tries again in the
    /// background: at once when the other znode is gone, and from time to time.
    #[error("member id `{member}` is already in use in group `{group}` by {holder}; it is tried again")]
    MemberIdTaken {
        /// The group.
        group: String,
        /// The id.
        member: MemberId,
        /// Who uses it.
        holder: Box<Holder>,
    },
    /// Another member uses a ring with other parameters, so the two would not agree on who owns what. No member has a
    /// share until one of the two leaves.
    #[error("member `{member}` of group `{group}` uses a ring of {theirs}, this one a ring of {ours}")]
    RingMismatch {
        /// The group.
        group: String,
        /// The other member.
        member: MemberId,
        /// Its ring parameters.
        theirs: String,
        /// The ring parameters of this member.
        ours: String,
    },
    /// With [`Config::tooz`](crate::Config::tooz): the members may not agree on who owns what, because it is not certain
    /// which ring the Python members of the group have. No member of this library has a share until the named member
    /// leaves.
    #[error("the ring of group `{group}` is not certain: member `{member}` {reason}")]
    RingUnclear {
        /// The group.
        group: String,
        /// The member that is the reason.
        member: MemberId,
        /// Why.
        reason: Unclear,
    },
    /// The members that joined before this one leave too little room in the ring for the points of its weight. It gets
    /// a share when there is room. The others are not affected.
    #[error("no place in the ring of group `{group}`: {reason}")]
    Ring {
        /// The group.
        group: String,
        /// Why there is no place.
        reason: RingError,
    },
    /// The head of the group, a znode beside it with its published membership, cannot be used. So no member of this
    /// version has a share. [`guide::handover`](crate::guide::handover) has the recovery for each reason; to delete that
    /// znode is safe, and its members make a new one.
    #[error("the membership of group `{group}` in znode `{path}` cannot be used: {reason}")]
    Head {
        /// The group.
        group: String,
        /// The znode.
        path: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An operator has [paused](crate::Group::pause) the group: no member that comes gets a share until it is resumed.
    #[error("group `{group}` is paused: no new member gets a share until it is resumed")]
    Paused {
        /// The group.
        group: String,
    },
    /// The group was left, or the coordinator is shut down.
    #[error("{}the coordinator is shut down", left(group))]
    Closed {
        /// The group; empty for the coordinator itself.
        group: String,
    },
    /// Anything else that went wrong at the backend.
    #[error("at znode `{path}`: {error}")]
    Backend {
        /// The znode.
        path: String,
        /// The error of the backend.
        error: backend::Error,
    },
}

impl Error {
    /// Whether trying again later may help, with nothing changed by an operator.
    pub const fn is_transient(&self) -> bool {
        match self {
            Error::Backend { error, .. } => !error.is_too_large(),
            _ => matches!(self, Error::Unreachable { .. } | Error::NotInGroup { .. }),
        }
    }

    /// Whether it is about one request only, which is too large: other work goes on.
    pub(crate) const fn is_of_one_request(&self) -> bool {
        matches!(self, Error::Backend { error, .. } if error.is_too_large())
    }

    /// Whether the group was left, or the coordinator is shut down.
    pub const fn is_closed(&self) -> bool {
        matches!(self, Error::Closed { .. })
    }

    /// The coordinator is shut down.
    pub(crate) fn closed() -> Error {
        Error::Closed { group: String::new() }
    }

    pub(crate) fn unreachable_after(timeout: Duration, last: Option<&Error>) -> Error {
        match last {
            Some(Error::Unreachable { reason }) => Error::Unreachable { reason: reason.clone() },
            // The last session ended and there is no new one yet, so a caller may try again.
            Some(Error::Backend { path, error }) if error.is_unknown() => Error::Unreachable {
                reason: format!("no answer within {timeout:?}, at last at `{path}`: {error}"),
            },
            Some(other) => other.clone(),
            None => Error::Unreachable { reason: format!("no session within {timeout:?}") },
        }
    }

    pub(crate) fn from_open(error: backend::Error) -> Error {
        match error {
            backend::Error::Unreachable(reason) => Error::Unreachable { reason },
            other => Error::from_backend(other, &ZnodePath::root()),
        }
    }

    pub(crate) fn from_backend(error: backend::Error, path: &ZnodePath) -> Error {
        match error {
            backend::Error::NotPermitted => Error::NotPermitted { path: path.to_string() },
            backend::Error::Lost(Loss::AuthFailed) => Error::AuthFailed,
            backend::Error::Unreachable(reason) => Error::Unreachable { reason },
            error => Error::Backend { path: path.to_string(), error },
        }
    }
}

fn known(members: Option<&[MemberId]>) -> String {
    match members {
        None => "which was not read yet".into(),
        Some([]) => "which has no members".into(),
        Some([one]) => format!("which has the member `{one}`"),
        Some(members) => format!("which has {} members", members.len()),
    }
}

fn left(group: &str) -> String {
    if group.is_empty() { String::new() } else { format!("group `{group}` was left, or ") }
}

impl From<Infallible> for Error {
    fn from(never: Infallible) -> Self {
        match never {}
    }
}
