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

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::{sleep, timeout},
};
use tokio_util::sync::{CancellationToken, DropGuard};
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
    cache::{Cache, Known},
    claim::Denied,
    entity::Entity,
    layout::Layout,
};
use crate::{
    backend::{self, BoxFuture, Op, path::ZnodePath},
    error::Error,
    lease::Leases,
    session::{Live, Status},
};

/// A board of jobs. Cheap to clone; all clones are one board, which is closed with the last of them and of its jobs.
///
/// The original is `ZookeeperJobBoard` of `taskflow.jobs.backends.impl_zookeeper`.
#[derive(Clone)]
pub struct JobBoard {
    alive: Arc<Alive>,
}

struct Alive {
    shared: Arc<Shared>,
    /// Ends the driver.
    _guard: DropGuard,
}

/// What handles and driver share.
struct Shared {
    layout: Layout,
    leases: Arc<Leases>,
    cache: Mutex<Cache>,
    /// Counts the changes of the cache.
    revision: watch::Sender<u64>,
    /// Counts the listings that somebody waits for: asked for, and done.
    wanted: AtomicU64,
    serial: AtomicU64,
    wake: Notify,
    suspicion: Notify,
    /// Why the board could not be listed the last time.
    trouble: Mutex<Option<Error>>,
    entities: Mutex<Vec<Entity>>,
    markers: mpsc::UnboundedSender<ZnodePath>,
    dice: Mutex<fastrand::Rng>,
    over: CancellationToken,
}

/// After an error that may pass, while somebody waits for a job.
const RETRY: Duration = Duration::from_secs(1);
/// Among at most so many jobs of one priority a worker chooses that keeps losing races.
const WIDEST: usize = 64;

impl JobBoard {
    /// Opens the board at `path`, which is created if need be, and waits until it is listed.
    pub(crate) async fn open(leases: Arc<Leases>, path: &str) -> Result<Self, BoardError> {
        let layout = Layout::new(path).map_err(|reason| BoardError::Path { path: path.into(), reason })?;
        let (markers, to_clean) = mpsc::unbounded_channel();
        let over = leases.tasks().cancelled().child_token();
        let shared = Arc::new(Shared {
            layout,
            leases: leases.clone(),
            cache: Mutex::default(),
            revision: watch::Sender::new(0),
            wanted: AtomicU64::new(0),
            serial: AtomicU64::new(0),
            wake: Notify::new(),
            suspicion: Notify::new(),
            trouble: Mutex::default(),
            entities: Mutex::default(),
            markers,
            dice: Mutex::new(fastrand::Rng::new()),
            over: over.clone(),
        });
        let board = JobBoard { alive: Arc::new(Alive { shared: shared.clone(), _guard: over.drop_guard() }) };
        let live = shared.live().await?;
        shared.probe(&live).await?;
        let made = shared.ensure(&live).await;
        made.map_err(|error| Error::from_backend(error, &shared.layout.board))?;
        let tasks = leases.tasks();
        tasks.spawn("markers of posts", post::clean_up(shared.clone(), to_clean));
        tasks.spawn("job board", driver::run(shared.clone()));
        shared.fresh().await?;
        info!(board = %shared.layout.board, jobs = board.job_count(), "job board opened");
        Ok(board)
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.alive.shared
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
        Post::new(self.clone(), name.into())
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
        ListJobs::new(self.clone())
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
        BoardEvents::new(self.clone())
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
        let some = |shared: &Shared| shared.cache().unclaimed().next().map(drop);
        match timeout(patience, self.shared().until(some)).await {
            Ok(found) => found.map(|()| Some(self.seen(true))),
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
        let denied = match self.attempt(job.known.clone()).await? {
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
        self.shared().fresh().await?;
        self.claim_any().await
    }

    /// Claims one of the jobs that are known as unclaimed.
    async fn claim_any(&self) -> Result<Option<Claim>, BoardError> {
        let mut width = 1;
        while let Some(known) = self.shared().choose(width) {
            if let Ok(claim) = self.attempt(known).await? {
                return Ok(Some(claim));
            }
            width = (4 * width).min(WIDEST);
        }
        Ok(None)
    }

    /// Whether the board is open and the connection to the backend is up.
    pub fn connected(&self) -> bool {
        !self.shared().over.is_cancelled() && self.shared().leases.access().is_connected()
    }

    /// Closes the board for all of its handles and takes registrations back. Claims go on: they are the
    /// coordinator's, not the board's.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, registrations may stay until the session ends.
    pub async fn close(&self) {
        if !self.shared().over.is_cancelled() {
            self.shared().over.cancel();
            self.shared().unregister().await;
        }
    }
}

impl Shared {
    fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn entities(&self) -> MutexGuard<'_, Vec<Entity>> {
        self.entities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn closed(&self) -> BoardError {
        BoardError::Closed { board: self.layout.board.to_string() }
    }

    /// An error of the service as one of this board.
    fn service(&self, error: Error) -> BoardError {
        if matches!(error, Error::Closed { .. }) { self.closed() } else { error.into() }
    }

    /// The live session, if there is one at this moment.
    fn present(&self) -> Option<Arc<Live>> {
        match &*self.leases.access().status().borrow() {
            Status::Live(live) => Some(live.clone()),
            Status::Opening { .. } | Status::Closed => None,
        }
    }

    async fn live(&self) -> Result<Arc<Live>, BoardError> {
        self.leases.access().live().await.map_err(|error| self.service(error))
    }

    /// Runs what must not stop half-way.
    async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, BoardError> {
        if self.over.is_cancelled() {
            return Err(self.closed());
        }
        self.leases.run(name, work).await.map_err(|error| self.service(error))
    }

    async fn read<T>(
        &self,
        path: &ZnodePath,
        work: impl for<'a> Fn(&'a Live) -> BoxFuture<'a, Result<T, backend::Error>>,
    ) -> Result<T, BoardError> {
        if self.over.is_cancelled() {
            return Err(self.closed());
        }
        self.leases.access().repeat(path, work).await.map_err(|error| self.service(error))
    }

    /// Asks the server for the two kinds of requests that came late to ZooKeeper.
    async fn probe(&self, live: &Live) -> Result<(), BoardError> {
        let root = ZnodePath::root();
        let asked = async {
            live.session.commit(vec![Op::exists(&root)]).await.map_err(|error| error.error)?;
            live.session.get_many(std::slice::from_ref(&root)).await
        };
        match asked.await {
            Err(backend::Error::Other(reason)) => Err(BoardError::Incompatible { reason }),
            Err(error) => Err(Error::from_backend(error, &root).into()),
            Ok(_) => Ok(()),
        }
    }

    fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Waits until `probe` finds something in what is known.
    async fn until<T>(&self, probe: impl Fn(&Shared) -> Option<T>) -> Result<T, BoardError> {
        let mut revision = self.revision.subscribe();
        let found = self.over.run_until_cancelled(async {
            loop {
                revision.mark_unchanged();
                if let Some(found) = probe(self) {
                    return found;
                }
                // The sender is ours.
                let _ = revision.changed().await;
            }
        });
        found.await.ok_or_else(|| self.closed())
    }

    /// Waits until the board was listed by a request that was sent after this call.
    async fn fresh(&self) -> Result<(), BoardError> {
        let ticket = self.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        self.wake.notify_one();
        let patience = self.leases.access().patience();
        let listed = |shared: &Shared| match shared.trouble() {
            _ if shared.serial() >= ticket => Some(Ok(())),
            Some(error) if !error.is_transient() => Some(Err(error.into())),
            _ => None,
        };
        match timeout(patience, self.until(listed)).await {
            Ok(listed) => listed?,
            Err(_) => {
                let trouble = self.trouble().or_else(|| self.leases.access().last_error());
                Err(Error::unreachable_after(patience, trouble.as_ref()).into())
            }
        }
    }

    fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Up to which request for a listing all are answered.
    fn serial(&self) -> u64 {
        self.serial.load(Ordering::SeqCst)
    }

    /// Waits until somebody waits for a listing.
    async fn is_wanted(&self) {
        while self.wanted() <= self.serial() {
            self.wake.notified().await;
        }
    }

    fn has_listed(&self, serial: u64) {
        self.serial.store(serial, Ordering::SeqCst);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.revision.send_modify(|revision| *revision += 1);
    }

    fn has_failed(&self, error: Error) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.revision.send_modify(|revision| *revision += 1);
    }

    fn trouble(&self) -> Option<Error> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the board listed again soon: what is known may be wrong.
    fn suspect(&self) {
        self.suspicion.notify_one();
    }

    async fn is_suspected(&self) {
        self.suspicion.notified().await;
    }

    /// Has the marker of a post deleted.
    fn clean(&self, marker: ZnodePath) {
        // Without a task to do it, the end of the session does.
        let _ = self.markers.send(marker);
    }

    /// One of the first `width` unclaimed jobs of the highest priority there is.
    fn choose(&self, width: usize) -> Option<Arc<Known>> {
        let cache = self.cache();
        let first = cache.unclaimed().next()?;
        let alike =
            cache.unclaimed().take(width).take_while(|it| it.posting.priority() == first.posting.priority());
        let alike: Vec<_> = alike.collect();
        let at = self.dice.lock().unwrap_or_else(PoisonError::into_inner).usize(..alike.len());
        Some(Arc::clone(alike[at]))
    }
}

impl fmt::Debug for JobBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobBoard")
            .field("path", self.path())
            .field("jobs", &self.job_count())
            .field("connected", &self.connected())
            .finish_non_exhaustive()
    }
}
