//! [`OpenQueue`]: how a queue is opened; and what its handles, calls and tasks share.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::DropGuard;

use super::{
    WorkQueue, error::QueueError, layout::Layout, lister, put::Fill, receipts::Receipts, recovery,
    shelf::Shelf,
};
use crate::{
    backend::{self, CommitError, CreateMode, Op, Session, path::ZnodePath},
    clock::Clock,
    lease::Leases,
    session::requests::ensure,
};

/// Between two tries of what the store did not answer.
pub(crate) const PAUSE: Duration = Duration::from_millis(50);

/// A queue that is about to be opened; await it. From
/// [`PartitionCoordinator::queue`](crate::PartitionCoordinator::queue).
///
/// ```
/// # use apportion::{Config, PartitionCoordinator, backend};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
/// let queue = coordinator.queue("/reports").max_len(1_000).max_attempts(3).keep_results(100).await?;
/// assert!(queue.is_empty().await?);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
#[must_use = "a queue is not opened until it is awaited"]
pub struct OpenQueue {
    backing: Option<(Arc<Leases>, Arc<dyn Clock>)>,
    root: String,
    options: Options,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Options {
    pub(crate) max_len: usize,
    pub(crate) max_attempts: Option<u32>,
    pub(crate) keep_results: usize,
}

impl Default for Options {
    fn default() -> Self {
        Options { max_len: 20_000, max_attempts: Some(5), keep_results: 10_000 }
    }
}

impl OpenQueue {
    pub(crate) fn new(backing: Option<(Arc<Leases>, Arc<dyn Clock>)>, root: String) -> Self {
        OpenQueue { backing, root, options: Options::default() }
    }

    /// How many entries may wait before [`put`](WorkQueue::put) is refused; 20,000 unless said otherwise. A listing
    /// of much more nears what the store sends in one reply.
    pub fn max_len(mut self, max_len: usize) -> Self {
        self.options.max_len = max_len;
        self
    }

    /// After how many deliveries without a result an entry goes aside, to the
    /// [dead letters](WorkQueue::dead_letters); a number or `None` for never, 5 unless said otherwise. It counts
    /// where the entry is given back, so all processes should say the same.
    pub fn max_attempts(mut self, max_attempts: impl Into<Option<u32>>) -> Self {
        self.options.max_attempts = max_attempts.into();
        self
    }

    /// How many results are kept for somebody to [collect](WorkQueue::collect); 10,000 unless said otherwise. Each
    /// process that finishes something removes the oldest of what is more, about once a second.
    pub fn keep_results(mut self, keep: usize) -> Self {
        self.options.keep_results = keep;
        self
    }

    async fn run(self) -> Result<WorkQueue, QueueError> {
        let OpenQueue { backing, root, options } = self;
        let layout = Layout::new(&root).map_err(|reason| QueueError::Root { root, reason })?;
        let (leases, clock) = backing.ok_or(QueueError::NoBackend)?;
        let layout = Arc::new(layout);
        let laid_out = layout.clone();
        let made = leases.access().repeat(&layout.root, move |live| {
            let layout = laid_out.clone();
            Box::pin(async move { lay_out(&*live.session, &layout).await })
        });
        made.await?;
        let shared = Arc::new(Shared {
            shelf: Shelf::new(layout.unowned.clone(), clock.clone()),
            receipts: Receipts::new(layout.receipts.clone()),
            fill: Fill::default(),
            ended: Notify::new(),
            layout,
            leases: leases.clone(),
            clock,
            options,
        });
        let token = leases.tasks().cancelled().child_token();
        leases.tasks().spawn("queue list", lister::run(shared.clone(), token.clone()));
        leases.tasks().spawn("queue recovery", recovery::run(shared.clone(), token.clone()));
        Ok(WorkQueue { handle: Arc::new(Handle { shared, _tasks: token.drop_guard() }) })
    }
}

impl IntoFuture for OpenQueue {
    type Output = Result<WorkQueue, QueueError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for OpenQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenQueue")
            .field("root", &self.root)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

/// What handles, calls and tasks share.
pub(crate) struct Shared {
    pub(crate) layout: Arc<Layout>,
    pub(crate) leases: Arc<Leases>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) shelf: Arc<Shelf>,
    pub(crate) receipts: Receipts,
    pub(crate) fill: Fill,
    /// Told when something has ended here: results are to be counted.
    pub(crate) ended: Notify,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("root", &self.layout.root)
            .field("options", &self.options)
            .field("shelf", &self.shelf)
            .finish_non_exhaustive()
    }
}

/// Keeps the tasks of a queue running: in each handle and delivery.
#[derive(Debug)]
pub(crate) struct Handle {
    pub(crate) shared: Arc<Shared>,
    _tasks: DropGuard,
}

/// Creates what is missing of a queue.
pub(crate) async fn lay_out(session: &dyn Session, layout: &Layout) -> Result<(), backend::Error> {
    ensure(session, &layout.root).await?;
    let znodes = layout.znodes();
    loop {
        let found = session.get_many(&znodes).await?;
        let missing = znodes.iter().zip(found).filter(|(_, found)| found.is_none());
        let creates: Vec<_> = missing.map(|(path, _)| Op::create(path, [], CreateMode::Persistent)).collect();
        match session.commit(creates).await {
            Ok(_) => return Ok(()),
            // Somebody else is at it: look again.
            Err(CommitError { error: backend::Error::NodeExists, .. }) => {}
            Err(CommitError { error, .. }) => return Err(error),
        }
    }
}

/// The number of children of a folder; none if it is still to be made.
pub(crate) async fn count(session: &dyn Session, folder: &ZnodePath) -> Result<usize, backend::Error> {
    let found = session.get(folder).await?;
    Ok(found.map_or(0, |(_, stat)| usize::try_from(stat.num_children).unwrap_or(0)))
}
