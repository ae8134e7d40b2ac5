//! [`BoardError`]: the errors of a job board.

use uuid::Uuid;

use super::{layout::BoardPathError, posting::PostingError};
use crate::error::Error;

/// The error of a call on a job board. There is one variant for each case that a caller would handle differently.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BoardError {
    /// There is no backend: a board is for several processes.
    #[error(
        "a job board needs a backend: connect to one, or to `backend::Memory`, an ensemble in the process"
    )]
    NoBackend,
    /// The path cannot be that of a board. Choose another.
    #[error("`{}` cannot be the path of a job board: {reason}", path.escape_debug())]
    Path {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        reason: BoardPathError,
    },
    /// The server does not support the requests that a board needs. ZooKeeper supports them since 3.6.
    #[error("the server does not support job boards: {reason}")]
    Incompatible {
        /// The error of the server.
        reason: String,
    },
    /// The details of a job to post cannot be written as a JSON object that every process can read. Nothing was sent.
    #[error("the details of job `{name}` cannot be written as a JSON object: {reason}")]
    Details {
        /// The name of the job.
        name: String,
        /// What is wrong with them.
        reason: String,
    },
    /// A job to post exceeds [`MAX_POSTING_BYTES`](super::MAX_POSTING_BYTES). Nothing was sent.
    #[error("job `{name}` cannot be posted: {reason}")]
    TooLarge {
        /// The name of the job.
        name: String,
        /// Its size, and the limit.
        reason: PostingError,
    },
    /// The job was posted, and a worker has finished it before the caller could get its path. There is nothing to do.
    #[error("job {uuid} was posted and is already off the board")]
    PostedAndGone {
        /// The uuid of the job.
        uuid: Uuid,
    },
    /// Another process has claimed the job. Claim another.
    #[error("job `{job}` is claimed by {}", owner.as_deref().unwrap_or("another process"))]
    Unclaimable {
        /// The job.
        job: String,
        /// The owner of the claim; `None` if the job was no longer claimed when the owner was read.
        owner: Option<String>,
    },
    /// The job is off the board: it is done or in the trash, or the folder of the board was removed. Claim another.
    #[error("job `{job}` is no longer on the board")]
    Gone {
        /// The job.
        job: String,
    },
    /// The posting cannot be read as a job, or not be claimed. An operator has to repair it.
    #[error("the posting at `{job}` is set aside: {reason}")]
    SetAside {
        /// The job.
        job: String,
        /// What is wrong with it.
        reason: PostingError,
    },
    /// The claim had ended before the call. Nothing was done, and another worker may have the job.
    #[error("the claim of job `{job}` was lost: another worker may have it")]
    Lost {
        /// The job.
        job: String,
    },
    /// Another process or an operator has changed or removed the posting of a claimed job, or has put a znode below it.
    /// The job was not taken off the board, and the claim is given back.
    #[error("job `{job}` could not be taken off the board: {reason}")]
    Changed {
        /// The job.
        job: String,
        /// The error of the store.
        reason: crate::backend::Error,
    },
    /// The trash has a znode with the name of the job. The job was not moved, and the claim is given back.
    #[error("job `{job}` cannot be moved to `{trash}`, which exists")]
    TrashTaken {
        /// The job.
        job: String,
        /// The path of that znode.
        trash: String,
    },
    /// The session ended before the reply came. After a post: the job may have been posted or not; search the board for
    /// its uuid before posting it again. After the end of a claim: the job is off the board, or other workers can claim
    /// it.
    #[error("the session ended before the reply came: the state of job `{job}` is unknown")]
    OutcomeUnknown {
        /// The job: its path, or its name if it was about to be posted.
        job: String,
        /// Its uuid, if it has one.
        uuid: Option<Uuid>,
    },
    /// The kind of an entity is not `conductor`, the only one that TaskFlow has.
    #[error("`{}` is not a kind of entity: a board registers conductors only", kind.escape_debug())]
    EntityKind {
        /// The kind as given.
        kind: String,
    },
    /// The name cannot be that of an entity. Choose another.
    #[error("`{}` cannot be the name of an entity: {reason}", name.escape_debug())]
    EntityName {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        reason: crate::backend::path::PathError,
    },
    /// Another live session has registered that name. If the process of that session has died, the name is free when
    /// the session has expired.
    #[error("an entity `{name}` is registered by another session")]
    EntityTaken {
        /// The name.
        name: String,
    },
    /// The board or its coordinator is closed.
    #[error("the job board `{board}` is closed")]
    Closed {
        /// The path of the board.
        board: String,
    },
    /// An error of the backend or of the coordinator: see [`Error`].
    #[error(transparent)]
    Service(#[from] Error),
}

impl BoardError {
    /// Whether trying again later may help, with nothing changed by an operator.
    pub const fn is_transient(&self) -> bool {
        match self {
            BoardError::Service(error) => error.is_transient(),
            BoardError::EntityTaken { .. } => true,
            _ => false,
        }
    }

    /// Whether the store did not answer: a caller that waits goes on.
    pub(super) const fn is_unanswered(&self) -> bool {
        match self {
            BoardError::Service(Error::Backend { error, .. }) => error.is_unknown(),
            BoardError::Service(error) => error.is_transient(),
            _ => false,
        }
    }

    /// Whether another worker may have the job by now, or has done it: go on with the next one.
    pub const fn may_be_lost(&self) -> bool {
        use crate::backend::Error::{BadVersion, NoNode};
        matches!(
            self,
            BoardError::Lost { .. }
                | BoardError::OutcomeUnknown { .. }
                | BoardError::Changed { reason: BadVersion | NoNode, .. }
        )
    }

    /// Whether the board or its coordinator is closed.
    pub const fn is_closed(&self) -> bool {
        matches!(self, BoardError::Closed { .. } | BoardError::Service(Error::Closed { .. }))
    }
}
