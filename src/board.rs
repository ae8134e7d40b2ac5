//! Work that is claimed: the job board, in the layout of TaskFlow.
//!
//! Posters put jobs on a [`JobBoard`]; workers claim them. A claim is exclusive and temporary: it ends with the
//! process that holds it, and another worker gets the job. Python conductors of TaskFlow can work on the same board.
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
//!         eprintln!("giving the job back: {error}");
//!         claim.abandon().await?;
//!     }
//!     Err(lost) => eprintln!("another worker may have it now: {lost}"),
//! }
//! assert!(board.is_empty().await?);
//! # Ok::<(), apportion::board::BoardError>(()) }).unwrap();
//! ```
//!
//! # What is where
//!
//! | znode | what |
//! |---|---|
//! | `<board>/job0000000042` | a posting, JSON |
//! | `<board>/job0000000042.lock` | ephemeral: the claim, with its owner |
//! | `.trash/job0000000042` beside the board | a job that was given up for good |
//! | `.entities/conductor/<name>` beside the board | ephemeral: a process that serves the board |
//! | `.posting/<uuid>` beside the board | ephemeral, ours, for a moment: shows that a post was carried out |
//!
//! Boards with one parent share what lies beside them. The paths are those of the store: the namespace of the
//! [`Config`](crate::Config) is that of groups.
//!
//! # What differs from TaskFlow
//!
//! - Iteration starts with the highest priority, as TaskFlow's documentation says; its board starts with the lowest.
//! - What cannot be read as a job is reported once, see [`JobBoard::unreadable`], and breaks nobody.
//! - A claim is resolved by session and version, not by the name of its owner: a holder that was stopped for a while
//!   cannot take a job off the board that another has claimed since, even one of its own name.
//! - A claim writes the posting again, unchanged, so that its version tells one claim from the next.
//! - A job that has the name of one that is gone counts as another.

mod cache;
mod choose;
mod claim;
mod driver;
mod entity;
mod error;
mod events;
mod job;
mod jobs;
mod layout;
mod open;
mod post;
mod posting;
mod python_json;
mod shared;

use std::{fmt, sync::Arc};

use serde::Serialize;

pub use self::{
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
};
use self::{
    claim::Denied,
    shared::{Handle, Shared},
};
use crate::{backend::path::ZnodePath, error::Error, session::commit::Unapplied};

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

    /// Where the board is.
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
    /// The name may be any text, also an empty one.
    ///
    /// # Errors
    ///
    /// [`BoardError::Details`] and [`BoardError::TooLarge`] for what cannot be posted, [`BoardError::Unknown`] if the
    /// session ended before the reply came, [`BoardError::PostedAndGone`] if the reply was lost and a worker was
    /// quick, [`BoardError::Service`] if the backend does not answer.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background: the job is posted, or not.
    pub fn post(&self, name: impl Into<String>) -> Post {
        Post::new(self.handle.clone(), name.into())
    }

    /// The jobs on the board, the highest priority first. Await it, or set options first:
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
    /// [`BoardError::Closed`] after the end; with [`ensure_fresh`](ListJobs::ensure_fresh) also
    /// [`BoardError::Service`] if the backend does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub fn jobs(&self) -> ListJobs {
        ListJobs::new(self.handle.clone())
    }

    /// How many jobs are on the board, claimed or not. Lists it: every job counts whose post was acknowledged before.
    ///
    /// # Errors
    ///
    /// [`BoardError::Closed`] after the end, [`BoardError::Service`] if the backend does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn len(&self) -> Result<usize, BoardError> {
        self.shared().refresh().await?;
        Ok(self.shared().cache().len())
    }

    /// Whether no job is on the board; see [`JobBoard::len`].
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

    /// What stands where a job could and is not to be claimed: it cannot be read as a job, or the server does not let it
    /// be changed. It stays aside until an operator mends or removes it. As far as is known: no I/O.
    pub fn set_aside(&self) -> Vec<SetAside> {
        self.shared().cache().all_aside().cloned().collect()
    }

    /// What happens on the board from now on.
    pub fn events(&self) -> BoardEvents {
        BoardEvents::new(self.handle.clone())
    }

    /// Waits until there is an unclaimed job, without claiming it.
    ///
    /// # Errors
    ///
    /// As [`JobBoard::claim_next`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait_for_work(&self) -> Result<(), BoardError> {
        self.shared().until(|shared| shared.cache().unclaimed().next().map(drop)).await
    }

    /// Claims this job.
    ///
    /// # Errors
    ///
    /// [`BoardError::Unclaimable`] if another process has it, [`BoardError::Gone`] if it is off the board,
    /// [`BoardError::SetAside`] if its posting cannot be read or changed any more, [`BoardError::Service`] if the backend
    /// does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe: a claim that no caller waits for any more is given back.
    pub async fn claim(&self, job: &Job) -> Result<Claim, BoardError> {
        let path = job.path().to_string();
        let denied = match claim::attempt(&self.handle, job.known().clone()).await? {
            Ok(claim) => return Ok(claim),
            Err(denied) => denied,
        };
        Err(match denied {
            Denied::Taken => BoardError::Unclaimable { job: path, owner: self.find_owner(job).await? },
            Denied::Gone => BoardError::Gone { job: path },
            Denied::SetAside(reason) => BoardError::SetAside { job: path, reason },
        })
    }

    /// Claims the first unclaimed job, and waits for one if there is none. Of two workers that are after the
    /// same job one takes the next.
    ///
    /// Waits also while the backend is out of reach.
    ///
    /// # Errors
    ///
    /// [`BoardError::Closed`] if the board or the coordinator is closed, [`BoardError::Service`] for what waiting cannot
    /// mend.
    ///
    /// # Cancel safety
    ///
    /// Safe: a claim that no caller waits for any more is given back.
    pub async fn claim_next(&self) -> Result<Claim, BoardError> {
        choose::claim_next(&self.handle, None).await
    }

    /// Claims the first unclaimed job that `wanted` accepts, and waits for one if there is none.
    ///
    /// ```
    /// # use apportion::{Config, PartitionCoordinator, backend};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
    /// # let board = coordinator.job_board("/taskflow/jobs").await?;
    /// # board.post("delete-volume").await?;
    /// # board.post("resize-volume").await?;
    /// let claim = board.claim_where(|job| job.name() == "resize-volume").await?;
    /// # assert_eq!(claim.job().name(), "resize-volume");
    /// # Ok::<(), apportion::board::BoardError>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`JobBoard::claim_next`].
    ///
    /// # Cancel safety
    ///
    /// As [`JobBoard::claim_next`].
    pub async fn claim_where(
        &self,
        mut wanted: impl FnMut(&Job) -> bool + Send,
    ) -> Result<Claim, BoardError> {
        choose::claim_next(&self.handle, Some(&mut wanted)).await
    }

    /// Claims the first unclaimed job; `None` if there is none, not even in a listing from now on.
    ///
    /// # Errors
    ///
    /// As [`JobBoard::claim_next`], and [`BoardError::Service`] if the backend does not answer.
    ///
    /// # Cancel safety
    ///
    /// As [`JobBoard::claim_next`].
    pub async fn try_claim_next(&self) -> Result<Option<Claim>, BoardError> {
        choose::try_claim_next(&self.handle, None).await
    }

    /// Claims the first unclaimed job that `wanted` accepts; `None` if there is none, not even in a listing from now on.
    ///
    /// # Errors
    ///
    /// As [`JobBoard::try_claim_next`].
    ///
    /// # Cancel safety
    ///
    /// As [`JobBoard::claim_next`].
    pub async fn try_claim_where(
        &self,
        mut wanted: impl FnMut(&Job) -> bool + Send,
    ) -> Result<Option<Claim>, BoardError> {
        choose::try_claim_next(&self.handle, Some(&mut wanted)).await
    }

    /// Whether the board is open and the connection to the backend is up.
    pub fn is_connected(&self) -> bool {
        self.shared().is_connected()
    }

    /// Closes the board for all of its handles and takes registrations back. Claims go on: they are the
    /// coordinator's, not the board's.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, registrations may stay until the session ends.
    pub async fn close(&self) {
        let shared = self.shared();
        shared.listing.close();
        // Here and not in the task, so that they are gone when this returns.
        shared.entities.unregister(shared.leases.access()).await;
    }

    /// Shows that this process serves the board: an ephemeral znode beside it, which comes back after a lost session
    /// and goes with the board or the coordinator. `kind` is `conductor`; TaskFlow names its own
    /// `name@host:pid` and gives them the metadata `hostname` and `pid`. `metadata` is anything that can be written as
    /// JSON.
    ///
    /// Registering the same name again replaces the metadata.
    ///
    /// # Errors
    ///
    /// [`BoardError::EntityKind`], [`BoardError::EntityName`] and [`BoardError::Details`] for what cannot be,
    /// [`BoardError::EntityTaken`] if
    /// another session has that name: after a crash its own former one, until it has expired.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background.
    pub async fn register_entity(
        &self,
        kind: &str,
        name: &str,
        metadata: impl Serialize,
    ) -> Result<(), BoardError> {
        if kind != entity::CONDUCTOR {
            return Err(BoardError::EntityKind { kind: kind.into() });
        }
        let folder = self.shared().layout.entities.join(kind).expect("it is the name of a znode");
        let path =
            folder.join(name).map_err(|reason| BoardError::EntityName { name: name.into(), reason })?;
        let refused =
            |error: serde_json::Error| BoardError::Details { name: name.into(), reason: error.to_string() };
        let data = posting::entity_data(kind, name, &serde_json::to_value(metadata).map_err(refused)?);
        let handle = self.handle.clone();
        let register = async move {
            let shared = &handle.shared;
            let live = shared.live().await?;
            match shared.entities.register(&live, path.clone(), data).await {
                // Closed meanwhile: what takes registrations back may not have seen this one.
                Ok(()) if shared.is_closed() => {
                    shared.entities.unregister(shared.leases.access()).await;
                    Err(shared.closed_error())
                }
                Ok(()) => Ok(()),
                Err(Unapplied::Overtaken) => Err(BoardError::EntityTaken { name: path.name().into() }),
                Err(
                    Unapplied::Refused { error, .. } | Unapplied::Failed(error) | Unapplied::Unknown(error),
                ) => Err(Error::from_backend(error, &path).into()),
            }
        };
        self.shared().run("register", register).await?
    }

    /// Who has claimed a job, read from the store. `None` if it is not claimed, or gone, or if the lock is denied to us.
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
        let (is_posted, lock) = job::look(self.shared(), job.known()).await?;
        let lock = lock.and_then(Result::ok).filter(|_| is_posted);
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
        let (is_posted, lock) = job::look(self.shared(), job.known()).await?;
        Ok(JobState::of(is_posted, lock.as_ref().map(|lock| lock.as_deref().map_err(|denied| *denied))))
    }
}

impl fmt::Debug for JobBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}
