//! [`QueueError`]: the errors of a queue.

use super::entry::{LabelError, MAX_PRIORITY};
use crate::{
    backend::{MAX_REQUEST_BYTES, path::PathError, path::ZnodePath},
    error::Error,
    lease::LeaseLost,
};

/// How many bytes of a request are reserved beside a value that is put, for all that is added to it later.
const RESERVED_BYTES: usize = 16 * 1024;

/// The size of the largest value of an entry that is put, in bytes, unless
/// [`Config::max_request_bytes`](crate::Config::max_request_bytes) sets another limit. A value that is ended may be 12 KiB
/// larger, so that there is room for its worker and a result.
pub const MAX_VALUE_BYTES: usize = MAX_REQUEST_BYTES - RESERVED_BYTES;

/// How large a value may be: the later, the larger, because fields are added to it.
#[derive(Debug, Clone, Copy)]
pub(super) enum Room {
    Put,
    Update,
    End,
}

impl Room {
    /// The limit in bytes for this limit of a request. The rest of the request is paths, and twice the name of the
    /// worker.
    pub(super) const fn limit(self, max_request_bytes: usize) -> usize {
        max_request_bytes.saturating_sub(match self {
            Room::Put => RESERVED_BYTES,
            Room::Update => 8 * 1024,
            Room::End => 4 * 1024,
        })
    }
}

/// The error of a call on a queue. There is one variant for each case that a caller would handle differently.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// There is no backend: a queue is for several processes.
    #[error(
        "a work queue needs a backend: connect to one, or to `backend::Memory`, an ensemble in the process"
    )]
    NoBackend,
    /// The path cannot be that of a queue. Choose another.
    #[error("`{}` cannot be the path of a queue: {reason}", path.escape_debug())]
    Path {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        reason: PathError,
    },
    /// The label cannot be part of a name. Nothing was sent.
    #[error("`{}` cannot be a label: {reason}", label.escape_debug())]
    Label {
        /// The label as given.
        label: String,
        /// What is wrong with it.
        reason: LabelError,
    },
    /// The priority has more than three digits. Nothing was sent.
    #[error("a priority of {priority} is not in 0..={MAX_PRIORITY}")]
    Priority {
        /// The priority as given.
        priority: u16,
    },
    /// The payload or the result cannot be written as JSON that every process can read. Nothing was sent.
    #[error("the value cannot be written as JSON: {reason}")]
    Payload {
        /// What is wrong with it.
        reason: String,
    },
    /// The value exceeds the limit of the store. Nothing was sent. A worker still has the entry: it may end it with a
    /// smaller result, or [fail](super::Delivery::fail) it.
    #[error("a value of {bytes} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// The size of the value, in bytes.
        bytes: usize,
        /// The limit in bytes: [`MAX_VALUE_BYTES`], unless
        /// [`Config::max_request_bytes`](crate::Config::max_request_bytes) sets another one.
        limit: usize,
    },
    /// The queue has as many entries as [allowed](super::OpenQueue::max_len). Nothing was put. Try again after entries
    /// were taken.
    #[error("the queue is full: it has {len} entries, and the limit is {max_len}")]
    Full {
        /// The number of entries.
        len: usize,
        /// The limit.
        max_len: usize,
    },
    /// An entry with this label waits, or a worker has taken it. Nothing was put.
    #[error("an entry with the label `{}` is already queued", label.escape_debug())]
    AlreadyQueued {
        /// The label.
        label: String,
    },
    /// The delivery had ended before the call. Nothing was done, and another worker may have the entry.
    #[error(transparent)]
    Lost(#[from] LeaseLost),
    /// The session ended before the reply came. After a put: the entry was put or not. After the end of a delivery: the
    /// entry has ended, or will be delivered again.
    #[error("the session ended before the reply came: the state of `{path}` is unknown")]
    OutcomeUnknown {
        /// The path of the znode, or of its folder.
        path: String,
    },
    /// The queue or its coordinator is closed.
    #[error("the work queue `{queue}` is closed")]
    Closed {
        /// The path of the queue.
        queue: String,
    },
    /// An error of the store or of the coordinator: see [`Error`].
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

    /// Whether another worker may have the entry by now, or it may have ended: go on with the next one.
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
