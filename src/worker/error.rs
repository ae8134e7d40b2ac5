// Pure: no runtime, no clock, no socket, no random numbers.

//! [`RequestError`]: why a request ended without a result.

use std::time::Duration;

use super::{arguments::ArgumentError, message::failure::Failure, validate::FormatError};

/// Why a request ended without a result. There is one variant for each case that a caller would handle differently.
/// From awaiting a [`Submitted`](super::Submitted).
///
/// To try again, submit the request again. [`is_transient`](Self::is_transient) says whether that may help, and
/// [`may_have_run`](Self::may_have_run) whether it may run the task a second time.
///
/// `source` returns `None`, because `Display` shows all causes.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The task failed, or the worker refused the request. The task may have run, in part or in full.
    #[error("the task failed: {0}")]
    Failed(Failure),
    /// No worker has started on the request in time. If it was sent, a worker may still start on it, or has started and
    /// its message was lost. If it was not sent, the task has not run and will not.
    #[error("{} within {timeout:?}", if *.was_sent {
        "the worker has not started on the request"
    } else {
        "no worker was found for the request"
    })]
    Expired {
        /// How long the executor waited.
        timeout: Duration,
        /// Whether a worker was found, and may have got the request. False if it is certain that it has lost it.
        was_sent: bool,
    },
    /// Workers are known, and none of them lists the task: its name is wrong, or its worker has not come in time. The
    /// task has not run and will not.
    #[error("no worker has the task {task:?} within {timeout:?}; the workers have {offered:?}")]
    UnknownTask {
        /// The task of the request.
        task: String,
        /// The tasks that the workers list, sorted.
        offered: Vec<String>,
        /// How long the executor waited.
        timeout: Duration,
    },
    /// A worker had the request and is gone, or was silent for too long. The task may have run, in part or in full.
    #[error("the worker at {topic:?} has vanished with the request")]
    WorkerVanished {
        /// The topic of the worker.
        topic: String,
    },
    /// A worker had started on the request and did not finish within the [run timeout](super::Submission::run_timeout).
    /// The task has run in part, and may still finish.
    #[error("the request was not finished within {timeout:?} from its start")]
    Overdue {
        /// The run timeout.
        timeout: Duration,
    },
    /// An argument cannot be written as JSON. Nothing was sent: the task has not run and will not.
    #[error(transparent)]
    Argument(#[from] ArgumentError),
    /// The broker refuses the request for good: it is too large, or not permitted. The task has not run and will not.
    #[error("the broker refused the request: {reason}")]
    Refused {
        /// The reason that the broker gave.
        reason: String,
    },
    /// The broker did not confirm the request: it was sent or not. Or its worker lives, and does not report the request
    /// any more. The task may have run.
    #[error("whether the request has run is unknown: {reason}")]
    OutcomeUnknown {
        /// The error of the last attempt, or what the worker does not report.
        reason: String,
    },
    /// The worker reported the end of the request, and its result cannot be read. The task may have run.
    #[error("the response of the worker is invalid: {0}")]
    InvalidResponse(FormatError),
    /// The executor was shut down, or its transport closed. The task may have run, or may still run.
    #[error("the executor was shut down or its transport closed")]
    Closed,
}

impl RequestError {
    /// Whether the task may have run, in part or in full, or may still run. Then a second attempt may run it twice. If
    /// false, it is certain that the task has not run and will not.
    pub const fn may_have_run(&self) -> bool {
        match self {
            RequestError::Expired { was_sent, .. } => *was_sent,
            RequestError::UnknownTask { .. } | RequestError::Argument(_) | RequestError::Refused { .. } => {
                false
            }
            RequestError::Failed(_)
            | RequestError::WorkerVanished { .. }
            | RequestError::Overdue { .. }
            | RequestError::OutcomeUnknown { .. }
            | RequestError::InvalidResponse(_)
            | RequestError::Closed => true,
        }
    }

    /// In one word, for the count of the ends.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            RequestError::Failed(_) => "failed",
            RequestError::Expired { .. } => "expired",
            RequestError::UnknownTask { .. } => "unknown_task",
            RequestError::WorkerVanished { .. } => "worker_vanished",
            RequestError::Overdue { .. } => "overdue",
            RequestError::Argument(_) => "argument",
            RequestError::Refused { .. } => "refused",
            RequestError::OutcomeUnknown { .. } => "outcome_unknown",
            RequestError::InvalidResponse(_) => "invalid_response",
            RequestError::Closed => "closed",
        }
    }

    /// Whether trying again later may help, with nothing changed by an operator: workers or the broker were unreachable
    /// or too slow. If false, the worker has answered, the request cannot be sent as it is, or the executor has ended.
    pub const fn is_transient(&self) -> bool {
        match self {
            RequestError::Expired { .. }
            | RequestError::UnknownTask { .. }
            | RequestError::WorkerVanished { .. }
            | RequestError::Overdue { .. }
            | RequestError::OutcomeUnknown { .. } => true,
            RequestError::Failed(_)
            | RequestError::Argument(_)
            | RequestError::Refused { .. }
            | RequestError::InvalidResponse(_)
            | RequestError::Closed => false,
        }
    }
}
