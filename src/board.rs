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
//! assert_eq!(board.job_count(), 0);
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
mod claim;
mod driver;
mod entity;
mod error;
mod job;
mod jobs;
mod layout;
mod post;
mod posting;
mod python_json;
mod shared;

use std::{fmt, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::time::{sleep, timeout};
use tracing::{debug, info};

pub use self::{
    cache::Unreadable,
    claim::Claim,
    error::BoardError,
    job::{Job, JobState},
    jobs::{BoardEvent, BoardEvents, Jobs, ListJobs},
    layout::BoardPathError,
    post::Post,
    posting::{MAX_POSTING_BYTES, Posting, PostingError, Priority},
};
use self::{
    claim::Denied,
    driver::Driver,
    entity::Registrar,
    layout::Layout,
    shared::{Handle, Shared},
};
use crate::{
    backend::path::ZnodePath,
    clock::Clock,
    error::Error,
    lease::Leases,
    session::{
        commit::Unapplied,
        follow::{Sessions, follow},
        listing::Lister,
    },
};

/// A board of jobs. Cheap to clone; all clones are one board, which is closed with the last of them and of its jobs.
///
/// The original is `ZookeeperJobBoard` of `taskflow.jobs.backends.impl_zookeeper`.
#[derive(Clone)]
pub struct JobBoard {
    handle: Arc<Handle>,
}

/// After an error that may pass, while a caller waits for a job.
const RETRY: Duration = Duration::from_secs(1);

impl JobBoard {
    /// Opens the board at `path`, which is created if need be, and waits until it is listed.
    pub(crate) async fn open(
        leases: Arc<Leases>,
        clock: Arc<dyn Clock>,
        path: &str,
    ) -> Result<Self, BoardError> {
        let layout = Layout::new(path).map_err(|reason| BoardError::Path { path: path.into(), reason })?;
        let shared = Shared::new(layout, leases.clone(), clock);
        let board = JobBoard { handle: Handle::new(shared.clone()) };
        shared.prepare().await?;
        let (tasks, access) = (leases.tasks(), leases.access().clone());
        let lister = Lister { listing: shared.listing.clone(), contents: Driver::new(shared.clone()) };
        tasks.spawn("job board", follow(Sessions::new(&access), lister, shared.closed.clone()));
        tasks.spawn("entities", {
            let (shared, registrar) = (shared.clone(), Registrar(shared.entities.clone()));
            async move {
                follow(Sessions::new(&access), registrar, shared.closed.clone()).await;
                // The last handle of the board was dropped, or it was closed.
                shared.entities.unregister(&access).await;
                shared.receipts.clear(&access).await;
            }
        });
        shared.refresh().await?;
        info!(board = %shared.layout.board, jobs = board.job_count(), "job board opened");
        Ok(board)
    }

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

    /// How many jobs are on the board, claimed or not, as far as is known: no I/O.
    pub fn job_count(&self) -> usize {
        self.shared().cache().len()
    }

    /// What stands where a job could and cannot be read: it is left alone until somebody mends or removes it.
    pub fn unreadable(&self) -> Vec<Unreadable> {
        self.shared().cache().unreadable().cloned().collect()
    }

    /// What happens on the board from now on.
    pub fn events(&self) -> BoardEvents {
        BoardEvents::new(self.handle.clone())
    }

    /// Waits until there is a job that nobody has claimed, at most for `patience`. Returns such jobs; `None` if
    /// there were none in that time.
    ///
    /// # Errors
    ///
    /// [`BoardError::Closed`] if the board or the coordinator is closed.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait(&self, patience: Duration) -> Result<Option<Jobs>, BoardError> {
        let some = |shared: &Shared| {
            // Cheap first: there may be many that are claimed.
            shared.cache().unclaimed().next()?;
            Some(Jobs::known(&self.handle, true)).filter(|jobs| !jobs.is_empty())
        };
        match timeout(patience, self.shared().until(some)).await {
            Ok(found) => found.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Claims this job.
    ///
    /// # Errors
    ///
    /// [`BoardError::Unclaimable`] if somebody else has it, [`BoardError::Gone`] if it is off the board,
    /// [`BoardError::Unreadable`] if its posting has become so, [`BoardError::Service`] if the backend does not
    /// answer.
    ///
    /// # Cancel safety
    ///
    /// Safe: a claim that nobody waits for any more is given back.
    pub async fn claim(&self, job: &Job) -> Result<Claim, BoardError> {
        let path = job.path().to_string();
        let denied = match claim::attempt(&self.handle, job.known().clone()).await? {
            Ok(claim) => return Ok(claim),
            Err(denied) => denied,
        };
        Err(match denied {
            Denied::Taken => BoardError::Unclaimable { job: path, owner: self.find_owner(job).await? },
            Denied::Gone => BoardError::Gone { job: path },
            Denied::Unreadable(reason) => BoardError::Unreadable { job: path, reason },
        })
    }

    /// Claims the first job that nobody has, and waits for one if there is none. Of two workers that are after the
    /// same job one takes the next.
    ///
    /// Waits also while the backend is out of reach.
    ///
    /// # Errors
    ///
    /// [`BoardError::Closed`] if the board or the coordinator is closed, [`BoardError::Service`] if the backend
    /// refuses us for good.
    ///
    /// # Cancel safety
    ///
    /// Safe: a claim that nobody waits for any more is given back.
    pub async fn claim_next(&self) -> Result<Claim, BoardError> {
        loop {
            let some = |shared: &Shared| shared.cache().unclaimed().next().map(drop);
            self.shared().until(some).await?;
            match self.claim_any().await {
                Ok(Some(claim)) => return Ok(claim),
                Ok(None) => {}
                Err(BoardError::Service(error)) if error.is_transient() => {
                    debug!(board = %self.path(), %error, "no claim; trying again");
                    sleep(RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Claims the first job that nobody has; `None` if there is none, not even after a look at the store.
    ///
    /// # Errors
    ///
    /// As [`JobBoard::claim_next`], and [`BoardError::Service`] if the backend does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe: a claim that nobody waits for any more is given back.
    pub async fn try_claim_next(&self) -> Result<Option<Claim>, BoardError> {
        if let Some(claim) = self.claim_any().await? {
            return Ok(Some(claim));
        }
        self.shared().refresh().await?;
        self.claim_any().await
    }

    /// Claims one of the jobs that are known as unclaimed.
    async fn claim_any(&self) -> Result<Option<Claim>, BoardError> {
        let shared = self.shared();
        let _asking = shared.listing.ask();
        while let Some(known) = shared.choose() {
            let attempt = claim::attempt(&self.handle, known).await?;
            shared.note(attempt.is_ok());
            if let Ok(claim) = attempt {
                return Ok(Some(claim));
            }
        }
        Ok(None)
    }

    /// Whether the board is open and the connection to the backend is up.
    pub fn connected(&self) -> bool {
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
    /// `name@host:pid` and gives them the metadata `hostname` and `pid`.
    ///
    /// Registering the same name again replaces the metadata.
    ///
    /// # Errors
    ///
    /// [`BoardError::EntityKind`] and [`BoardError::EntityName`] for what cannot be, [`BoardError::EntityTaken`] if
    /// another session has that name: after a crash its own former one, until it has expired.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background.
    pub async fn register_entity(
        &self,
        kind: &str,
        name: &str,
        metadata: impl Into<Value>,
    ) -> Result<(), BoardError> {
        if kind != entity::CONDUCTOR {
            return Err(BoardError::EntityKind { kind: kind.into() });
        }
        let folder = self.shared().layout.entities.join(kind).expect("it is the name of a znode");
        let path =
            folder.join(name).map_err(|reason| BoardError::EntityName { name: name.into(), reason })?;
        let data = posting::entity_data(kind, name, &metadata.into());
        let handle = self.handle.clone();
        let register = async move {
            let shared = &handle.shared;
            let live = shared.live().await?;
            match shared.entities.register(&live, path.clone(), data).await {
                Ok(()) => Ok(()),
                Err(Unapplied::Overtaken) => Err(BoardError::EntityTaken { name: path.name().into() }),
                Err(
                    Unapplied::Refused { error, .. } | Unapplied::Failed(error) | Unapplied::Unknown(error),
                ) => Err(Error::from_backend(error, &path).into()),
            }
        };
        self.shared().run("register", register).await?
    }

    /// Who has claimed a job, read from the store. `None` if it is not claimed, or gone.
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
        let (is_posted, lock) = self.look(job).await?;
        Ok(lock.filter(|_| is_posted).and_then(|lock| posting::owner_of(&lock)))
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
        let (is_posted, lock) = self.look(job).await?;
        Ok(JobState::of(is_posted, lock.as_deref()))
    }

    async fn look(&self, job: &Job) -> Result<(bool, Option<Vec<u8>>), BoardError> {
        job::look(self.shared(), job.known()).await
    }
}

impl fmt::Debug for JobBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.fmt(f)
    }
}
