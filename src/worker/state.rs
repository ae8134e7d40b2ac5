// Pure: no runtime, no clock, no socket, no random numbers.

//! [`RequestState`]: the state of a request.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The state of a request. From [`Submitted::state`](super::Submitted::state).
///
/// Source: `taskflow.engines.worker_based.protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum RequestState {
    /// The executor does not know a worker yet that lists the task.
    Waiting,
    /// It was sent to a worker, which has not started on it yet.
    Pending,
    /// A worker runs it.
    Running,
    /// It has ended with a result.
    Success,
    /// It has ended without a result.
    Failure,
}

impl RequestState {
    /// Every state, in the order in which a request goes through them.
    pub const ALL: [RequestState; 5] = [
        RequestState::Waiting,
        RequestState::Pending,
        RequestState::Running,
        RequestState::Success,
        RequestState::Failure,
    ];

    /// The name on the wire: `WAITING`, `PENDING`, `RUNNING`, `SUCCESS` or `FAILURE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            RequestState::Waiting => "WAITING",
            RequestState::Pending => "PENDING",
            RequestState::Running => "RUNNING",
            RequestState::Success => "SUCCESS",
            RequestState::Failure => "FAILURE",
        }
    }

    /// Whether the request may still expire: no worker has started on it.
    pub const fn is_waiting(self) -> bool {
        matches!(self, RequestState::Waiting | RequestState::Pending)
    }

    /// Whether the request has ended.
    pub const fn is_final(self) -> bool {
        matches!(self, RequestState::Success | RequestState::Failure)
    }

    /// Whether `next` may follow this state. No state follows itself.
    pub const fn allows(self, next: RequestState) -> bool {
        matches!(
            (self, next),
            (RequestState::Waiting, RequestState::Pending | RequestState::Failure)
                | (RequestState::Pending, RequestState::Running | RequestState::Failure)
                | (RequestState::Running, RequestState::Success | RequestState::Failure)
        )
    }
}

impl fmt::Display for RequestState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not the name of a [`RequestState`]. From parsing one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a state of a request", .0.escape_debug())]
pub struct UnknownState(pub String);

impl FromStr for RequestState {
    type Err = UnknownState;

    /// Reads a name as it is on the wire, in capitals only. TaskFlow also accepts `running` by accident, and then the
    /// request can still expire.
    fn from_str(name: &str) -> Result<Self, UnknownState> {
        RequestState::ALL
            .into_iter()
            .find(|state| state.as_str() == name)
            .ok_or_else(|| UnknownState(name.chars().take(64).collect()))
    }
}
