//! [`BoardError`]: what a poster or a worker sees of a job board.

use uuid::Uuid;

use super::{layout::BoardPathError, posting::PostingError};
use crate::error::Error;

/// What went wrong at a job board. A variant exists where a caller would act differently.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BoardError {
    /// There is no backend: a board is for several processes.
    #[error(
        "a job board needs a backend: connect to one, or to `backend::Memory`, an ensemble in the process"
    )]
    NoBackend,
    /// The path can be that of no board. Choose another.
    #[error("`{}` cannot be the path of a job board: {reason}", path.escape_debug())]
    Path {
        /// The path as given.
        path: String,
        /// What is wrong with it.
        reason: BoardPathError,
    },
    /// The server does not know the requests that a board needs; ZooKeeper does since 3.6.
    #[error("the server does not support job boards: {reason}")]
    Incompatible {
        /// What the server said.
        reason: String,
    },
    /// The details of a job to post cannot be written as a JSON object. Nothing was sent.
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
    /// The job was posted, and was off the board before its path was known: a worker was quick. Nothing is to be done.
    #[error("job {uuid} was posted and is off the board already")]
    PostedAndGone {
        /// The uuid of the job.
        uuid: Uuid,
    },
    /// Another process has claimed the job. Take another.
    #[error("job `{job}` is claimed by {}", owner.as_deref().unwrap_or("another process"))]
    Unclaimable {
        /// The job.
        job: String,
        /// Who has it; `None` if it was not claimed any more when that was looked up.
        owner: Option<String>,
    },
    /// The job is off the board: done or given up, or its folder removed. Take another.
    #[error("job `{job}` is not on the board any more")]
    Gone {
        /// The job.
        job: String,
    },
    /// The posting cannot be read as a job, or not be claimed. An operator has to mend it.
    #[error("the posting at `{job}` is set aside: {reason}")]
    SetAside {
        /// The job.
        job: String,
        /// What is wrong with it.
        reason: PostingError,
    },
    /// The claim was lost before: nothing was done, and another worker may have the job.
    #[error("the claim of job `{job}` was lost: another worker may have it")]
    Lost {
        /// The job.
        job: String,
    },
    /// The posting of a claimed job was changed or removed, or something was put below it, by another process or an
    /// operator. Nothing was done, and the claim is given back.
    #[error("job `{job}` could not be taken off the board: {reason}")]
    Changed {
        /// The job.
        job: String,
        /// What stands in the way.
        reason: crate::backend::Error,
    },
    /// The trash holds something of the name of the job. Nothing was done, and the claim is given back.
    #[error("job `{job}` cannot be moved to `{trash}`, which exists")]
    TrashTaken {
        /// The job.
        job: String,
        /// What is in the way.
        trash: String,
    },
    /// The session ended before the reply came. Of a post: the job is on the board, or was, or never will be; look for
    /// its uuid before posting it again. Of the end of a claim: the job is off the board, or it is there for others to
    /// claim.
    #[error("the session ended before the reply came: what became of job `{job}` is unknown")]
    OutcomeUnknown {
        /// The job: its path, or before it has one its name.
        job: String,
        /// Its uuid, if it has one.
        uuid: Option<Uuid>,
    },
    /// TaskFlow knows no entities but conductors.
    #[error("`{}` is no kind of entity: a board registers conductors", kind.escape_debug())]
    EntityKind {
        /// The kind as given.
        kind: String,
    },
    /// The name can be that of no entity. Choose another.
    #[error("`{}` cannot be the name of an entity: {reason}", name.escape_debug())]
    EntityName {
        /// The name as given.
        name: String,
        /// What is wrong with it.
        reason: crate::backend::path::PathError,
    },
    /// Another live session has registered that name. If its process has died, it ends with the session.
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
    /// An error of the whole service: see [`Error`].
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

    /// Whether the job may be another worker's by now, or done: go on with the next one.
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
