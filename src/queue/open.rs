//! [`OpenQueue`]: opens a queue.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::sync::Notify;

use super::{
    WorkQueue,
    cache::EntryCache,
    error::QueueError,
    fill::Fill,
    layout::Layout,
    moves::Moves,
    prefetch::Prefetch,
    recovery::Recovery,
    shared::{FolderSizes, Handle, Shared, Waiting, lay_out},
};
use crate::{
    backoff::Pauses,
    clock::Clock,
    error::Error,
    lease::Leases,
    opened::Opened,
    session::{
        follow::{Sessions, follow},
        listing::{Lister, Listing, Settings},
        receipts::Receipts,
    },
    watch,
};

/// How long a change waits for a listing while no caller takes entries: the status and the gauges of a process that only
/// puts, or whose handlers are all busy, are not older than that. A listing of a full queue is large, so it is not shorter.
const UNASKED: Duration = Duration::from_secs(10);

/// Opens a queue when it is awaited. From [`PartitionCoordinator::queue`](crate::PartitionCoordinator::queue).
///
/// ```
/// # use apportion::{Config, PartitionCoordinator, backend};
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
/// let queue = coordinator.queue("/reports").max_len(1_000).max_attempts(3).keep_results(100).await?;
/// assert!(queue.is_empty().await?);
/// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
/// ```
///
/// # Errors
///
/// [`QueueError::Path`] for a path that cannot be that of a queue, [`QueueError::NoBackend`] for a coordinator without
/// a backend, [`QueueError::Service`] if the store does not answer or the coordinator is closed.
///
/// # Cancel safety
///
/// Safe: the folders of the queue may have been created.
#[must_use = "a queue is not opened until it is awaited"]
pub struct OpenQueue {
    backing: Option<Backing>,
    path: String,
    options: Options,
}

#[derive(Debug, Clone, Copy)]
struct Options {
    max_len: usize,
    max_attempts: Option<u32>,
    keep_results: usize,
    pauses: Pauses,
}

impl Default for Options {
    fn default() -> Self {
        Options { max_len: 20_000, max_attempts: Some(5), keep_results: 10_000, pauses: Pauses::default() }
    }
}

/// What of its coordinator it is opened with, and where it is added.
pub(crate) type Backing = (Arc<Leases>, Arc<dyn Clock>, Arc<Opened<Shared>>);

impl OpenQueue {
    pub(crate) fn new(backing: Option<Backing>, path: String) -> Self {
        OpenQueue { backing, path, options: Options::default() }
    }

    /// How many entries may wait before [`put`](WorkQueue::put) is refused. Default: 20,000. The limit is exact for the puts
    /// of one process. Those of several processes at once may exceed it, each process by one entry.
    ///
    /// A listing of the queue has all names in one reply. This client reads replies of several megabytes. A Java
    /// client, such as an operator's shell, refuses a reply larger than `jute.maxbuffer`, about 1 MB by default.
    pub fn max_len(mut self, max_len: usize) -> Self {
        self.options.max_len = max_len;
        self
    }

    /// After how many deliveries without a result an entry goes to the [dead letters](WorkQueue::dead_letters): a
    /// number, at least 1, or `None` for never. Default: 5. The process that gives the entry back applies its own
    /// number, so use the same one in all processes.
    pub fn max_attempts(mut self, max_attempts: impl Into<Option<u32>>) -> Self {
        // With 0, an entry whose caller no longer waited would go to the dead letters.
        self.options.max_attempts = max_attempts.into().map(|most| most.max(1));
        self
    }

    /// The pauses after failed deliveries of an entry: they double from the first to the longest, and are shortened at
    /// random by up to half. Default: 1 second to 5 minutes. With zero, an entry can be taken again at once.
    ///
    /// Workers of this crate do not take an entry during its pause. Python workers do not know it and take the entry.
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        self.options.pauses = Pauses { first, longest };
        self
    }

    /// How many results are kept until they are [collected](WorkQueue::collect). Default: 10,000. If there are more, a
    /// process that ends entries removes the oldest results, about once a second.
    pub fn keep_results(mut self, keep: usize) -> Self {
        self.options.keep_results = keep;
        self
    }

    async fn run(self) -> Result<WorkQueue, QueueError> {
        let OpenQueue { backing, path, options } = self;
        let layout = Layout::new(&path).map_err(|reason| QueueError::Path { path, reason })?;
        let (leases, clock, opened) = backing.ok_or(QueueError::NoBackend)?;
        let access = leases.access().clone();
        let laid_out = Arc::new(layout.clone());
        let made = access.repeat_each(&layout.root, move |live| {
            let layout = laid_out.clone();
            Box::pin(async move { lay_out(&*live.session, &layout).await })
        });
        made.await.map_err(|error| match error {
            Error::Closed { .. } => QueueError::Closed { queue: layout.root.to_string() },
            error => error.into(),
        })?;
        let closed = leases.tasks().cancelled().child_token();
        let settings = Settings {
            folder: layout.unowned.clone(),
            clock: clock.clone(),
            random: leases.random().clone(),
            unasked: Some(UNASKED),
            closed: closed.clone(),
        };
        let shared = Arc::new(Shared {
            listing: Listing::new(settings),
            cache: Mutex::new(EntryCache::new(layout.unowned.clone())),
            prefetch: Prefetch::default(),
            held: Arc::default(),
            sizes: FolderSizes::default(),
            receipts: Receipts::new(layout.receipts.clone()),
            fill: Mutex::new(Fill::default()),
            counting: tokio::sync::Mutex::default(),
            labels: Mutex::default(),
            ended: Notify::new(),
            has_recovered: watch::Sender::new(false),
            moves: Moves { layout, max_attempts: options.max_attempts },
            max_len: options.max_len,
            keep_results: options.keep_results,
            pauses: options.pauses,
            leases: leases.clone(),
            clock,
        });
        let lister = Lister { listing: shared.listing.clone(), contents: Waiting(shared.clone()) };
        let recovery = Recovery::new(shared.clone());
        let tasks = leases.tasks();
        tasks.spawn("queue recovery", follow(Sessions::new(&access), recovery, closed.clone()));
        tasks.spawn("queue list", {
            let (shared, closed) = (shared.clone(), closed.clone());
            async move {
                follow(Sessions::new(&access), lister, closed).await;
                shared.receipts.clear(&access).await;
            }
        });
        opened.add(&shared);
        Ok(WorkQueue { handle: Arc::new(Handle { shared, _tasks: closed.drop_guard() }) })
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
            .field("path", &self.path)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
