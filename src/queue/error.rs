//! [`QueueError`]: what a caller sees of a queue.

use super::entry::{LabelError, MAX_PRIORITY};
use crate::{
    backend::{MAX_REQUEST_BYTES, path::PathError, path::ZnodePath},
    error::Error,
    lease::LeaseLost,
};

/// What of a request is kept for what is added to a value when it is taken: worker, claim.
pub(super) const RESERVED_BYTES: usize = 16 * 1024;

/// The largest value of an entry, unless [`Config::max_request_bytes`](crate::Config::max_request_bytes) says otherwise.
pub const MAX_VALUE_BYTES: usize = MAX_REQUEST_BYTES - RESERVED_BYTES;

/// What went wrong at a queue. A variant exists where a caller would act differently.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// There is no backend: a queue is for several processes.
    #[error(
        "a work queue needs a backend: connect to one, or to `backend::Memory`, an ensemble in the process"
    )]
    NoBackend,
    /// The path can be that of no queue. Choose another.
    #[error("`{}` cannot be the path of a queue: {reason}", path.escape_debug())]
    Path {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        reason: PathError,
    },
    /// The label cannot be part of a name.
    #[error("`{}` cannot be a label: {reason}", label.escape_debug())]
    Label {
        /// As given.
        label: String,
        /// What is wrong with it.
        reason: LabelError,
    },
    /// The priority has more than three digits.
    #[error("a priority of {priority} is not in 0..={MAX_PRIORITY}")]
    Priority {
        /// As given.
        priority: u16,
    },
    /// The payload or the result cannot be written as JSON. Nothing was sent.
    #[error("the value cannot be written as JSON: {reason}")]
    Payload {
        /// What is wrong with it.
        reason: String,
    },
    /// The value is larger than the store takes. It was not sent.
    #[error("a value of {bytes} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// The size of the value.
        bytes: usize,
        /// The limit: [`MAX_VALUE_BYTES`], or less or more with other servers.
        limit: usize,
    },
    /// The queue is as long as it may be. Nothing was put; try again when something was taken.
    #[error("the queue has {len} entries and may have {max_len}")]
    Full {
        /// How long it is.
        len: usize,
        /// How long it may be.
        max_len: usize,
    },
    /// An entry with this label waits or is being worked on. Nothing was put.
    #[error("an entry with the label `{}` is queued already", label.escape_debug())]
    AlreadyQueued {
        /// The label.
        label: String,
    },
    /// The delivery was lost before: another worker may have it now. Nothing was done.
    #[error(transparent)]
    Lost(#[from] LeaseLost),
    /// The session ended before the reply came. Of a put: it was put or not. Of the end of a delivery: it has ended, or
    /// will be delivered again.
    #[error("the session ended before the reply came: what became of `{path}` is unknown")]
    OutcomeUnknown {
        /// The znode.
        path: String,
    },
    /// The queue or its coordinator is closed.
    #[error("the work queue `{queue}` is closed")]
    Closed {
        /// The path of the queue.
        queue: String,
    },
    /// An error of the whole service: see [`Error`].
    #[error(transparent)]
    Service(#[from] Error),
}

impl QueueError {
    /// Whether trying again later may help, with nothing changed by an operator.
    pub const fn is_transient(&self) -> bool {
        match self {
            QueueError::Service(error) => error.is_transient(),
            QueueError::Full { .. } | QueueError::AlreadyQueued { .. } => true,
            _ => false,
        }
    }

    /// Whether the entry may be another worker's by now, or done: go on with the next one.
    pub const fn may_be_lost(&self) -> bool {
        matches!(self, QueueError::Lost(_) | QueueError::OutcomeUnknown { .. })
    }

    /// Whether the queue or its coordinator is closed.
    pub const fn is_closed(&self) -> bool {
        matches!(self, QueueError::Closed { .. } | QueueError::Service(Error::Closed { .. }))
    }

    pub(crate) fn at(path: &ZnodePath) -> impl Fn(crate::backend::Error) -> QueueError + '_ {
        move |error| QueueError::Service(Error::from_backend(error, path))
    }
}
