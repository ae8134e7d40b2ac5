//! [`Shared`]: the state that the handles of a board and its tasks share.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::timeout;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{
    attempts::Record,
    cache::{Cache, Counts, Mark},
    entity::Entities,
    error::BoardError,
    known::Known,
    layout::Layout,
};
use crate::{
    ages::Ages,
    backend::{self, BoxFuture, Op, Stat, Znode, path::ZnodePath},
    backoff::Pauses,
    clock::{Clock, Moment},
    error::Error,
    lease::Leases,
    metrics,
    session::{
        Live,
        due::until_due,
        listing::{Listing, Settings, Stopped},
        read::{Denied, Found, Sizes, read_each},
        receipts::Receipts,
        requests::{Failure, ensure},
        rivals::Rivals,
    },
};

/// What the caller has set when it opened the board.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Options {
    pub(super) max_attempts: Option<u32>,
    pub(super) pauses: Pauses,
}

/// See the module documentation.
pub(crate) struct Shared {
    pub(super) layout: Layout,
    pub(super) leases: Arc<Leases>,
    pub(super) listing: Arc<Listing>,
    cache: Mutex<Cache>,
    pub(super) sizes: Sizes,
    /// Those of the records of attempts.
    pub(super) record_sizes: Sizes,
    pub(super) receipts: Receipts,
    pub(super) entities: Arc<Entities>,
    rivals: Mutex<Rivals>,
    /// The claims of this process.
    pub(super) held: Arc<Ages>,
    pub(super) clock: Arc<dyn Clock>,
    /// After how many attempts a job goes to the trash; `None`: never.
    pub(super) max_attempts: Option<u32>,
    pub(super) pauses: Pauses,
    /// Cancelled when the board is closed.
    pub(super) closed: CancellationToken,
}

/// Keeps a board open. Each handle, job and claim has one.
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    /// Ends the tasks.
    _tasks: DropGuard,
}

impl Handle {
    pub(super) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Handle { _tasks: shared.closed.clone().drop_guard(), shared })
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("JobBoard")
            .field("path", &self.shared.layout.board)
            .field("jobs", &self.shared.cache().len())
            .field("is_connected", &self.shared.is_connected())
            .finish_non_exhaustive()
    }
}

impl Shared {
    pub(super) fn new(
        layout: Layout,
        leases: Arc<Leases>,
        clock: Arc<dyn Clock>,
        Options { max_attempts, pauses }: Options,
    ) -> Arc<Self> {
        let closed = leases.tasks().cancelled().child_token();
        let listing = Listing::new(Settings {
            folder: layout.board.clone(),
            clock: clock.clone(),
            random: leases.random().clone(),
            unasked: Some(UNASKED),
            closed: closed.clone(),
        });
        Arc::new(Shared {
            receipts: Receipts::new(layout.posting.clone()),
            layout,
            leases,
            listing,
            cache: Mutex::new(Cache::new()),
            sizes: Sizes::default(),
            record_sizes: Sizes::default(),
            entities: Arc::default(),
            rivals: Mutex::new(Rivals::new()),
            held: Arc::default(),
            clock,
            max_attempts,
            pauses,
            closed,
        })
    }

    pub(super) fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn rivals(&self) -> MutexGuard<'_, Rivals> {
        self.rivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    pub(super) fn is_connected(&self) -> bool {
        !self.is_closed() && self.leases.access().is_connected()
    }

    pub(super) fn closed_error(&self) -> BoardError {
        BoardError::Closed { board: self.layout.board.to_string() }
    }

    /// Turns an error of the service into one of this board.
    pub(super) fn service(&self, error: Error) -> BoardError {
        if error.is_closed() { self.closed_error() } else { error.into() }
    }

    /// The error of a caller that waited for a listing.
    fn stopped(&self, stopped: Stopped) -> BoardError {
        match stopped {
            Stopped::Closed => self.closed_error(),
            Stopped::Refused(error) => self.service(error),
        }
    }

    pub(super) async fn live(&self) -> Result<Arc<Live>, BoardError> {
        self.leases.access().live().await.map_err(|error| self.service(error))
    }

    /// Runs work that must not stop half-way: to its end, also if the caller is cancelled.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, BoardError> {
        if self.is_closed() {
            return Err(self.closed_error());
        }
        self.leases.run(name, work).await.map_err(|error| self.service(error))
    }

    pub(super) async fn read<T: 'static>(
        &self,
        path: &ZnodePath,
        work: impl for<'a> Fn(&'a Live) -> BoxFuture<'a, Result<T, backend::Error>>,
    ) -> Result<T, BoardError> {
        if self.is_closed() {
            return Err(self.closed_error());
        }
        self.leases.access().repeat(path, work).await.map_err(|error| self.service(error))
    }

    /// Reads each of `paths`, which are in `folder`; the result has their order.
    pub(super) async fn read_each(
        self: &Arc<Self>,
        folder: &ZnodePath,
        paths: Vec<ZnodePath>,
        sizes: fn(&Shared) -> &Sizes,
    ) -> Result<Found, BoardError> {
        let shared = self.clone();
        let read = self.read(folder, move |live| {
            let (shared, paths) = (shared.clone(), paths.clone());
            Box::pin(async move { read_each(&*live.session, &paths, sizes(&shared)).await })
        });
        read.await
    }

    /// Reads the records of attempts at these paths, where there are any.
    pub(super) async fn read_records(
        self: &Arc<Self>,
        paths: Vec<ZnodePath>,
    ) -> Result<Vec<Option<(Record, Stat)>>, BoardError> {
        let found = self.read_each(&self.layout.attempts, paths, |shared| &shared.record_sizes).await?;
        let read = |found: Result<Option<Znode>, Denied>| {
            let (data, stat) = found.ok()??;
            Some((Record::read(&data)?, stat))
        };
        Ok(found.into_iter().map(read).collect())
    }

    /// Checks that the server supports the two kinds of requests that old versions of ZooKeeper do not have, and
    /// creates the missing folders.
    pub(super) async fn prepare(self: &Arc<Self>) -> Result<(), BoardError> {
        let shared = self.clone();
        if self.is_closed() {
            return Err(self.closed_error());
        }
        let prepared = self.leases.access().repeat_each(&self.layout.board, move |live| {
            let shared = shared.clone();
            Box::pin(async move {
                match probe(live).await {
                    Err(backend::Error::Other(reason)) => Ok(Err(BoardError::Incompatible { reason })),
                    Err(error) => Err(error.into()),
                    Ok(()) => shared.ensure(live).await.map(Ok),
                }
            })
        });
        prepared.await.map_err(|error| self.service(error))?
    }

    /// Makes sure that the folders of the board exist.
    pub(super) async fn ensure(&self, live: &Live) -> Result<(), Failure> {
        for folder in [&self.layout.board, &self.layout.trash, &self.layout.posting] {
            ensure(&*live.session, folder).await?;
        }
        Ok(())
    }

    /// Waits until `probe` returns a value. Meanwhile the board is listed whenever it has changed.
    pub(super) async fn until<T>(
        &self,
        mut probe: impl FnMut(&Shared) -> Option<T>,
    ) -> Result<T, BoardError> {
        let _asking = self.listing.ask();
        let probe = || {
            self.wake();
            probe(self)
        };
        let found = until_due(&self.listing, &*self.clock, || self.cache().next_due(), probe);
        found.await.map_err(|stopped| self.stopped(stopped))
    }

    /// Waits for a listing whose request was sent after this call.
    pub(super) async fn refresh(&self) -> Result<(), BoardError> {
        let asking = self.listing.ask_anew();
        let listed = self.listing.until(|| self.listing.answers(&asking).then_some(()));
        match timeout(self.leases.access().timeout(), listed).await {
            Ok(listed) => listed.map_err(|stopped| self.stopped(stopped)),
            Err(_) => Err(self.leases.access().unreachable(self.listing.last_error()).into()),
        }
    }

    /// Has the board listed again soon, because the cache may be wrong.
    pub(super) fn invalidate(&self) {
        self.listing.invalidate();
    }

    /// Puts into the cache what this process has done.
    pub(super) fn mark(&self, mark: Mark) {
        let can_be_late = mark.can_be_late();
        {
            let mut cache = self.cache();
            cache.mark(mark);
            cache.plan_aside(self.clock.now() + ASIDE);
        }
        if can_be_late {
            self.listing.invalidate();
        } else {
            self.listing.note_local_change();
        }
    }

    /// How many jobs there are, as far as this process knows it.
    pub(super) fn counts(&self) -> Counts {
        self.cache().counts(|ms| self.clock.moment_of(ms).is_some())
    }

    /// Sets the gauges of its jobs; to 0 if it is closed.
    pub(crate) fn measure(&self) {
        if !cfg!(feature = "metrics") {
            return;
        }
        let counts = if self.is_closed() { Counts::default() } else { self.counts() };
        let board = self.layout.board.as_str();
        let set = |state, count: usize| metrics::BOARD_JOBS.set(&[board, state], count as f64);
        set("unclaimed", counts.unclaimed);
        set("delayed", counts.delayed);
        set("claimed", counts.claimed);
        set("set_aside", counts.set_aside);
    }

    /// No longer passes over what is due.
    pub(super) fn wake(&self) {
        if self.cache().wake(self.clock.now()) {
            self.listing.invalidate();
        }
    }

    /// Passes over a job until this moment.
    pub(super) fn pass_over(&self, known: Arc<Known>, until: Moment) {
        self.cache().mark(Mark::PassedOver(known, until));
        // Callers that wait may have to wake earlier.
        self.listing.announce();
    }

    /// The record of the attempts at a job.
    pub(super) fn record_of(&self, known: &Known) -> ZnodePath {
        self.layout.record_of(known.path.name(), known.stat.czxid)
    }

    /// Among how many of the first jobs a caller chooses.
    pub(super) fn width(&self) -> usize {
        self.rivals().width()
    }

    /// Notes whether the chosen job could be claimed.
    pub(super) fn note(&self, was_there: bool) {
        self.rivals().note(was_there);
    }
}

/// After how long what is set aside is read again while callers wait: an operator may have repaired it.
pub(super) const ASIDE: Duration = Duration::from_secs(60);

/// How long a change waits for a listing while no caller asks. Without this delay, every board of a fleet would list
/// after each post and claim of every other process.
const UNASKED: Duration = Duration::from_millis(100);

async fn probe(live: &Live) -> Result<(), backend::Error> {
    let root = ZnodePath::root();
    live.session.commit(vec![Op::exists(&root)]).await.map_err(|error| error.error)?;
    live.session.get_many(std::slice::from_ref(&root)).await.map(drop)
}
