//! The job board: work that workers claim, in the layout of TaskFlow.
//!
//! Posters put jobs on a [`JobBoard`]; workers claim them. A claim is exclusive and temporary: it ends at the latest
//! with the session of the process that holds it. Then another worker can claim the job. Python conductors of TaskFlow
//! can work on the same board.
//!
//! ```
//! # use std::time::Duration;
//! # use apportion::{Config, PartitionCoordinator, backend, board::Priority};
//! # use serde_json::json;
//! # async fn resize(_: &apportion::board::Job) -> Result<(), String> { Ok(()) }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
//! let board = coordinator.job_board("/taskflow/jobs").await?;
//! board.post("resize-volume").details(json!({ "volume": "v-17" })).priority(Priority::High).await?;
//!
//! let claim = board.claim_next().await?;
//! assert_eq!(claim.job().details()["volume"], "v-17");
//! match claim.lease().while_held(resize(claim.job())).await {
//!     Ok(Ok(())) => claim.consume().await?,
//!     Ok(Err(error)) => {
//!         // Another attempt follows after a pause, which grows.
//!         claim.abandon().because(error).await?;
//!     }
//!     Err(lost) => eprintln!("another worker may have it now: {lost}"),
//! }
//! assert!(board.is_empty().await?);
//! # Ok::<(), apportion::board::BoardError>(()) }).unwrap();
//! ```
//!
//! # Layout in the store
//!
//! | znode | content |
//! |---|---|
//! | `<board>/job0000000042` | a posting, JSON |
//! | `<board>/job0000000042.lock` | ephemeral: the claim, with its owner |
//! | `.trash/job0000000042` beside the board | a job that a worker has [moved to the trash](Claim::trash), or that has had its [last attempt](OpenBoard::max_attempts) |
//! | `.entities/conductor/<name>` beside the board | ephemeral: a process that serves the board |
//! | `.attempts/<board>.<job>.<czxid>` beside the board | a job whose claim ended without it being done: the [attempts](attempts_so_far) by then, the pause, the reason. Not known to TaskFlow |
//! | `.posting/<uuid>` beside the board | ephemeral, not known to TaskFlow: shows for a moment that a post was applied |
//!
//! Boards with the same parent share the znodes beside them. Paths of boards are absolute: the namespace of the
//! [`Config`](crate::Config) applies to groups only.
//!
//! [`JobBoard::run`] is the loop of a worker: it claims jobs, runs a handler for each, and ends them.
//!
//! # When work fails
//!
//! A worker gives a job [back](Claim::abandon) with the reason. No worker of this crate claims it during a pause, which grows
//! with each attempt, and the other jobs are claimed meanwhile. After [some attempts](OpenBoard::max_attempts) it goes to
//! the [trash](JobBoard::trashed) with the reason, also if its workers have died with it.
//!
//! # Memory
//!
//! An open board keeps a cache of its jobs: each posting once, as the bytes that were read, with its name, uuid and
//! priority. The details of a job are decoded when the caller asks for them.
//!
//! # Differences from TaskFlow
//!
//! - Iteration starts with the highest priority, as TaskFlow's documentation says; its board starts with the lowest.
//! - A znode that cannot be read as a job is [set aside](JobBoard::set_aside) and logged once. The other jobs are not
//!   affected.
//! - A claim is identified by its session and version, not by the name of its owner. A holder that was suspended for a
//!   while cannot remove a job that another process has claimed since, even one with the same name.
//! - A claim writes the posting again, unchanged. So each claim of a job has another version.
//! - A job with the name of an earlier, removed job counts as another job.

mod abandon;
mod attempts;
mod cache;
mod choose;
mod claim;
mod claimed;
mod claims;
mod driver;
mod entity;
mod error;
mod events;
mod job;
mod jobs;
mod known;
mod layout;
mod open;
mod post;
mod posting;
mod python_json;
mod registering;
mod shared;
mod status;
mod take;
mod trash;

use std::{fmt, sync::Arc};

use self::shared::Handle;
pub(crate) use self::shared::Shared;
pub use self::{
    abandon::Abandon,
    attempts::attempts_so_far,
    cache::SetAside,
    claim::Claim,
    error::BoardError,
    events::{BoardEvent, BoardEvents},
    job::{Job, JobState},
    jobs::{Jobs, ListJobs},
    layout::BoardPathError,
    open::OpenBoard,
    post::Post,
    posting::{MAX_POSTING_BYTES, Posting, PostingError, Priority},
    status::BoardStatus,
    trash::Trashed,
};
use crate::{backend::path::ZnodePath, error::Error, random::Random, session::read::Denied};

/// A board of jobs. Cheap to clone; all clones are one board, which is closed with the last of them and of its jobs.
///
/// The original is `ZookeeperJobBoard` of `taskflow.jobs.backends.impl_zookeeper`.
#[derive(Clone)]
pub struct JobBoard {
    handle: Arc<Handle>,
}

impl JobBoard {
    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    /// The owner of its claims.
    pub(crate) fn me(&self) -> &str {
        self.shared().leases.me().as_str()
    }

    /// After how many attempts a job goes to the trash; `None`: never.
    pub(crate) fn max_attempts(&self) -> Option<u32> {
        self.shared().max_attempts
    }

    /// Whether an error is about one job only, so that others can still be done: its request is too large, or permission is
    /// denied to its znode, or to that of its record.
    pub(crate) fn is_of_one_job(&self, error: &BoardError) -> bool {
        let layout = &self.shared().layout;
        match error {
            BoardError::Service(Error::NotPermitted { path }) => {
                let folder = ZnodePath::parse(path).ok().and_then(|path| path.parent());
                folder.is_some_and(|folder| [&layout.board, &layout.attempts].contains(&&folder))
            }
            BoardError::Service(error) => error.is_of_one_request(),
            _ => false,
        }
    }

    /// The source of random numbers of its coordinator.
    pub(crate) fn random(&self) -> &Random {
        self.shared().leases.random()
    }

    /// The path of the board in the store.
    pub fn path(&self) -> &ZnodePath {
        &self.shared().layout.board
    }

    /// Posts a job. Await it, or set options first:
    ///
    /// ```
    /// # use apportion::{Config, PartitionCoordinator, backend, board::Priority};
    /// # use serde_json::json;
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
    /// # let board = coordinator.job_board("/taskflow/jobs").await?;
    /// let job = board.post("resize").details(json!({ "volume": "v-17" })).priority(Priority::High).await?;
    /// assert_eq!(job.path().as_str(), "/taskflow/jobs/job0000000000");
    /// # Ok::<(), apportion::board::BoardError>(()) }).unwrap();
    /// ```
    ///
    /// The name may be any text, also an empty one. The job is posted once, also if the reply of the store is lost.
    ///
    /// # Errors
    ///
    /// [`BoardError::Details`] if the details are not a JSON object, [`BoardError::TooLarge`] if the posting exceeds
    /// the limit, [`BoardError::OutcomeUnknown`] if the session ended before the reply came,
    /// [`BoardError::PostedAndGone`] if the reply was lost and a worker has finished the job meanwhile,
    /// [`BoardError::Closed`] if the board or the coordinator is closed, [`BoardError::Service`] if the backend does
    /// not answer.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, the post goes on in the background: the job may be posted or not.
    pub fn post(&self, name: impl Into<String>) -> Post {
        Post::new(self.handle.clone(), name.into())
    }

    /// Lists the jobs on the board, the highest priority first. Await it, or set options first:
    ///
    /// ```
    /// # use apportion::{Config, PartitionCoordinator, backend};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
    /// # let board = coordinator.job_board("/taskflow/jobs").await?;
    /// # board.post("resize").await?;
    /// for job in board.jobs().only_unclaimed().ensure_fresh().await? {
    ///     println!("{job} has priority {}", job.priority());
    /// }
    /// # Ok::<(), apportion::board::BoardError>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`BoardError::Closed`] if the board or the coordinator is closed; with
    /// [`ensure_fresh`](ListJobs::ensure_fresh) also [`BoardError::Service`] if the backend does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub fn jobs(&self) -> ListJobs {
        ListJobs::new(self.handle.clone())
    }

    /// The number of jobs on the board, claimed or not. Lists the board, so every job counts whose post was
    /// acknowledged before this call. Jobs that are [set aside](JobBoard::set_aside) do not count.
    ///
    /// # Errors
    ///
    /// [`BoardError::Closed`] if the board or the coordinator is closed, [`BoardError::Service`] if the backend does
    /// not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn len(&self) -> Result<usize, BoardError> {
        self.shared().refresh().await?;
        Ok(self.shared().cache().len())
    }

    /// Whether no job is on the board, by the same count as [`JobBoard::len`].
    ///
    /// # Errors
    ///
    /// As [`JobBoard::len`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn is_empty(&self) -> Result<bool, BoardError> {
        Ok(self.len().await? == 0)
    }

    /// The znodes that are set aside, with the reason for each: they cannot be read as a job, or the server does not
    /// let this client change them. No worker of this crate claims them until an operator repairs or removes them.
    ///
    /// The answer comes from the cache of the board, without a request to the store.
    pub fn set_aside(&self) -> Vec<SetAside> {
        self.shared().cache().all_aside().cloned().collect()
    }

    /// The events of the board from now on: jobs posted, claimed, released and removed.
    pub fn events(&self) -> BoardEvents {
        BoardEvents::new(self.handle.clone())
    }

    /// Reads the jobs in the trash, with the number of attempts and the reason, as far as they are known. The trash is shared
    /// with other boards beside this one.
    ///
    /// # Errors
    ///
    /// As [`JobBoard::len`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn trashed(&self) -> Result<Vec<Trashed>, BoardError> {
        trash::trashed(self.shared()).await
    }

    /// Whether the board is open and the connection to the backend is up.
    pub fn is_connected(&self) -> bool {
        self.shared().is_connected()
    }

    /// The owner of the claim of a job, read from the store. `None` if the job is not claimed, or is off the board, or if
    /// the lock may not be read.
    ///
    /// A lock without an owner does not count as a claim, as in TaskFlow.
    ///
    /// # Errors
    ///
    /// [`BoardError::Closed`] if the board or the coordinator is closed, [`BoardError::Service`] if the backend does
    /// not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn find_owner(&self, job: &Job) -> Result<Option<String>, BoardError> {
        let (is_posted, lock) = self.read_state(job).await?;
        let lock = lock.and_then(Result::ok).filter(|_| is_posted);
        Ok(lock.and_then(|lock| posting::owner_of(&lock)))
    }

    /// The state of a job, read from the store.
    ///
    /// # Errors
    ///
    /// As [`JobBoard::find_owner`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn state(&self, job: &Job) -> Result<JobState, BoardError> {
        let (is_posted, lock) = self.read_state(job).await?;
        Ok(JobState::of(is_posted, lock.as_ref().map(|lock| lock.as_deref().map_err(|denied| *denied))))
    }

    async fn read_state(&self, job: &Job) -> Result<(bool, Option<Result<Vec<u8>, Denied>>), BoardError> {
        job::read_state(self.shared(), job.known()).await
    }
}

impl fmt::Debug for JobBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}
