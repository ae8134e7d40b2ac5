//! [`QueueError`]: what somebody who uses a queue sees.

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

/// What somebody who uses a queue sees. A variant exists where a caller would act differently.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum QueueError {
    /// The store is out of reach, keeps us out, or the coordinator is shut down. Nothing was done, or at a shutdown
    /// perhaps what was under way.
    #[error(transparent)]
    Service(#[from] Error),
    /// There is no backend: a queue is for several processes.
    #[error(
        "a work queue needs a backend: connect to one, or to `backend::Memory`, an ensemble in the process"
    )]
    NoBackend,
    /// The root is no path of a znode.
    #[error("`{}` cannot be the root of a queue: {reason}", root.escape_debug())]
    Root {
        /// As given.
        root: String,
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
    /// The payload or the result cannot be written as JSON.
    #[error("not to be written as JSON: {0}")]
    Payload(String),
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
    /// The session ended before the reply came: it was done, or it was not. Of a delivery: it was done, or it
    /// will be delivered again.
    #[error("the session ended before the store's reply at `{path}`: it may have been done or not")]
    Unknown {
        /// The znode.
        path: String,
    },
}

impl QueueError {
    /// Whether a delivery could not be ended because the entry is another worker's by now, or may be: nothing is to be
    /// mended, go on with the next one.
    pub const fn means_lost(&self) -> bool {
        matches!(self, QueueError::Lost(_) | QueueError::Unknown { .. })
    }

    pub(crate) fn at(path: &ZnodePath) -> impl Fn(crate::backend::Error) -> QueueError + '_ {
        move |error| QueueError::Service(Error::from_backend(error, path))
    }
}
