//! [`OpenBoard`]: opens a board.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tracing::info;

use super::{
    JobBoard,
    driver::Driver,
    entity::Registrar,
    error::BoardError,
    layout::Layout,
    shared::{Handle, Options, Shared},
    trash,
};
use crate::{
    backoff::Pauses,
    clock::Clock,
    lease::Leases,
    opened::Opened,
    session::{
        follow::{Sessions, follow},
        listing::Lister,
    },
};

/// Opens a board when it is awaited. From [`PartitionCoordinator::job_board`](crate::PartitionCoordinator::job_board).
///
/// ```
/// # use std::time::Duration;
/// # use apportion::{Config, PartitionCoordinator, backend};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
/// let board = coordinator
///     .job_board("/taskflow/jobs")
///     .max_attempts(5)
///     .pauses(Duration::from_secs(2), Duration::from_secs(60))
///     .await?;
/// # assert!(board.is_empty().await?);
/// # Ok::<(), apportion::board::BoardError>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// [`BoardError::Path`] for a path that cannot be that of a board, [`BoardError::NoBackend`] for a coordinator without
/// a backend, [`BoardError::Incompatible`] for a server that is too old, [`BoardError::Closed`] if the coordinator is
/// closed, [`BoardError::Service`] if the backend does not answer.
///
/// # Cancel safety
///
/// Safe: the folders of the board may have been created.
#[must_use = "a board is not opened until it is awaited"]
pub struct OpenBoard {
    backing: Option<Backing>,
    path: String,
    options: Options,
}

/// What of its coordinator it is opened with, and where it is added.
pub(crate) type Backing = (Arc<Leases>, Arc<dyn Clock>, Arc<Opened<Shared>>);

impl OpenBoard {
    pub(crate) fn new(backing: Option<Backing>, path: String) -> Self {
        OpenBoard { backing, path, options: Options::default() }
    }

    /// After how many attempts a job goes to the trash, with the reason: a number, at least 1, or `None` for never. Default:
    /// never. Each process applies its own number, so use the same one in all processes.
    ///
    /// A job that is [abandoned](super::Claim::abandon) for the last time goes there at once. If its worker has died with it
    /// or dropped the claim, the next process that would claim it moves it. [`JobBoard::claim`] still claims it.
    ///
    /// A change of the posting by an operator or another program counts as an attempt: the version of its znode counts them.
    pub fn max_attempts(mut self, max_attempts: impl Into<Option<u32>>) -> Self {
        self.options.max_attempts = max_attempts.into().map(|most| most.max(1));
        self
    }

    /// The pauses after failed attempts at a job: they double from the first to the longest, and are shortened at random by
    /// up to half. Default: 1 second to 5 minutes. With zero, a job can be claimed again at once.
    ///
    /// Workers of this crate do not claim a job during its pause, except by [`JobBoard::claim`]. TaskFlow's conductors do
    /// not know it and claim the job.
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        self.options.pauses = Pauses { first, longest };
        self
    }

    async fn run(self) -> Result<JobBoard, BoardError> {
        let OpenBoard { backing, path, options } = self;
        let layout = Layout::new(&path).map_err(|reason| BoardError::Path { path, reason })?;
        let (leases, clock, opened) = backing.ok_or(BoardError::NoBackend)?;
        let shared = Shared::new(layout, leases.clone(), clock, options);
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
        // Before the listing, so that a job whose record is seen is in the listing, if it is still on the board.
        let records = trash::records(&shared).await.unwrap_or_default();
        shared.refresh().await?;
        trash::clean(&shared, &records).await;
        opened.add(&shared);
        info!(board = %shared.layout.board, jobs = shared.cache().len(), "job board opened");
        Ok(board)
    }
}

impl IntoFuture for OpenBoard {
    type Output = Result<JobBoard, BoardError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for OpenBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenBoard")
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
