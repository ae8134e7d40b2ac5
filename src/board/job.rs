//! [`Job`]: one thing to do, as it was last seen.

use std::{
    borrow::Cow,
    fmt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use tokio::time::timeout;
use uuid::Uuid;

use super::{
    BoardError, JobBoard, Shared,
    cache::Known,
    posting::{self, Posting, Priority},
};
use crate::backend::path::ZnodePath;

/// A job on a board: what its posting says, and whether it was claimed when it was last looked at. Cheap to clone.
#[derive(Clone)]
pub struct Job {
    pub(super) known: Arc<Known>,
    pub(super) is_claimed: bool,
    pub(super) board: JobBoard,
}

/// Where a job stands.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum JobState {
    /// It waits for somebody.
    Unclaimed,
    /// Somebody works on it.
    Claimed,
    /// It is off the board: done, or given up for good.
    Complete,
}

impl fmt::Display for JobState {
    /// As TaskFlow spells it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            JobState::Unclaimed => "UNCLAIMED",
            JobState::Claimed => "CLAIMED",
            JobState::Complete => "COMPLETE",
        })
    }
}

impl Job {
    pub(super) fn shared(&self) -> &Arc<Shared> {
        self.board.shared()
    }

    /// Its znode.
    pub fn path(&self) -> &ZnodePath {
        &self.known.path
    }

    /// Its uuid, unless a foreign poster gave it another kind of identity: see [`Posting::uuid`].
    pub fn uuid(&self) -> Option<Uuid> {
        self.known.posting.parsed_uuid()
    }

    /// Its name; one that is not a text as JSON.
    pub fn name(&self) -> Cow<'_, str> {
        self.known.posting.name()
    }

    /// How urgent it is.
    pub fn priority(&self) -> Priority {
        self.known.posting.priority()
    }

    /// What the poster has to say about the work.
    pub fn details(&self) -> &Value {
        self.known.posting.details()
    }

    /// All that is written about it.
    pub fn posting(&self) -> &Posting {
        &self.known.posting
    }

    /// Whether it was claimed when this was made, for instance by a listing: see [`JobBoard::state`] for now.
    pub fn is_claimed(&self) -> bool {
        self.is_claimed
    }

    /// When it was posted, by the wall clock of the server. For display only.
    pub fn created_on(&self) -> SystemTime {
        wall_clock(self.known.stat.created_ms)
    }

    /// When its znode was last changed before it was read, by the wall clock of the server; a claim counts as a
    /// change. For display only.
    pub fn last_modified(&self) -> SystemTime {
        wall_clock(self.known.stat.modified_ms)
    }

    /// Waits until the job is off the board, at most for `patience`. Returns whether it is.
    ///
    /// # Errors
    ///
    /// [`BoardError::Closed`] if the board or the coordinator is closed.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait(&self, patience: Duration) -> Result<bool, BoardError> {
        let is_gone = |shared: &Shared| (!shared.cache().has(&self.known)).then_some(());
        match timeout(patience, self.shared().until(is_gone)).await {
            Ok(gone) => gone.map(|()| true),
            Err(_) => Ok(false),
        }
    }
}

impl fmt::Debug for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Job")
            .field("path", self.path())
            .field("posting", self.posting())
            .field("is_claimed", &self.is_claimed)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Job {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` at {}", self.name(), self.path())
    }
}

impl JobBoard {
    /// Who has claimed a job, read from the store. `None` if nobody has, or the job is gone.
    ///
    /// A lock that names no owner counts as none, as in TaskFlow.
    ///
    /// # Errors
    ///
    /// [`BoardError::Closed`] after the end, [`BoardError::Service`] if the backend does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn find_owner(&self, job: &Job) -> Result<Option<String>, BoardError> {
        let lock = match self.look(job).await? {
            (true, lock) => lock,
            (false, _) => None,
        };
        Ok(lock.and_then(|lock| posting::owner_of(&lock)))
    }

    /// Where a job stands, read from the store.
    ///
    /// # Errors
    ///
    /// As [`JobBoard::find_owner`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn state(&self, job: &Job) -> Result<JobState, BoardError> {
        Ok(match self.look(job).await? {
            (false, _) => JobState::Complete,
            (true, Some(lock)) if posting::owner_of(&lock).is_some() => JobState::Claimed,
            (true, _) => JobState::Unclaimed,
        })
    }

    /// Whether the job is there, and what its lock says.
    async fn look(&self, job: &Job) -> Result<(bool, Option<Vec<u8>>), BoardError> {
        let paths = [job.known.path.clone(), job.known.lock.clone()];
        let found = self
            .shared()
            .read(job.path(), move |live| {
                let paths = paths.clone();
                Box::pin(async move {
                    live.session.sync(&paths[0]).await?;
                    live.session.get_many(&paths).await
                })
            })
            .await?;
        let mut found = found.into_iter();
        let posted = found.next().flatten().filter(|(_, stat)| stat.czxid == job.known.stat.czxid);
        Ok((posted.is_some(), found.next().flatten().map(|(lock, _)| lock)))
    }
}

fn wall_clock(ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms.unsigned_abs())
}
