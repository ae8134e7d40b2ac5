//! [`Shared`]: the state that the handles, calls and tasks of a queue share.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{sync::Notify, time::sleep};
use tokio_util::sync::DropGuard;
use tracing::debug;

use super::{
    cache::EntryCache,
    entry::Entry,
    error::{QueueError, Room},
    fill::Fill,
    labels::Labels,
    layout::Layout,
    moves::Moves,
    names::{path_of, readable},
    prefetch::Prefetch,
    value::Value,
};
use crate::{
    ages::Ages,
    backend::{self, CommitError, CreateMode, Op, Session, Stat, Znode, path::ZnodePath},
    backoff::Pauses,
    clock::Clock,
    error::Error,
    lease::Leases,
    metrics,
    session::{
        Live,
        commit::Unapplied,
        listing::{Contents, Listing, Occasion, Stopped},
        read::{Sizes, find_first},
        receipts::Receipts,
        requests::{Failure, ensure, judged_at},
    },
    watch,
};

/// The pause between two attempts to find an entry.
const PAUSE: Duration = Duration::from_millis(50);

/// After how long an entry is tried again that could not be taken or given back: an operator may have repaired it.
pub(super) const ASIDE: Duration = Duration::from_secs(60);

/// The sizes of what lies in each folder: payloads may be small, and results large.
#[derive(Debug, Default)]
pub(super) struct FolderSizes {
    pub(super) unowned: Sizes,
    pub(super) owned: Sizes,
    pub(super) done: Sizes,
    pub(super) dead: Sizes,
}

/// See the module documentation.
pub(crate) struct Shared {
    pub(super) moves: Moves,
    pub(super) max_len: usize,
    pub(super) keep_results: usize,
    pub(super) pauses: Pauses,
    pub(super) leases: Arc<Leases>,
    pub(super) clock: Arc<dyn Clock>,
    /// Of `unowned`.
    pub(super) listing: Arc<Listing>,
    pub(super) cache: Mutex<EntryCache>,
    pub(super) prefetch: Prefetch,
    /// The deliveries of this process.
    pub(super) held: Arc<Ages>,
    pub(super) sizes: FolderSizes,
    pub(super) receipts: Receipts,
    pub(super) fill: Mutex<Fill>,
    /// Held by a put that has to count before.
    pub(super) counting: tokio::sync::Mutex<()>,
    pub(super) labels: Mutex<Labels>,
    /// Notified when this process has ended an entry: then results are to be counted.
    pub(super) ended: Notify,
    /// Whether the entries of workers that were gone when the queue was opened are given back.
    pub(super) has_recovered: watch::Sender<bool>,
}

impl Shared {
    pub(super) fn layout(&self) -> &Layout {
        &self.moves.layout
    }

    pub(super) fn cache(&self) -> MutexGuard<'_, EntryCache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn fill(&self) -> MutexGuard<'_, Fill> {
        self.fill.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn labels(&self) -> MutexGuard<'_, Labels> {
        self.labels.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds an entry that this process has put, if its name is known. It is passed over during the pause.
    pub(super) fn added(&self, path: Option<&ZnodePath>, pause: Duration) {
        let entry = path.and_then(|path| path.name().parse::<Entry>().ok());
        if let Some(entry) = &entry {
            self.labels().add(entry);
        }
        let until = (!pause.is_zero()).then(|| self.clock.now() + pause);
        if entry.is_some_and(|entry| self.cache().add(entry, until)) {
            self.listing.note_local_change();
        } else {
            self.listing.invalidate();
        }
        self.measure();
    }

    /// Sets the gauges of its entries; to 0 if it is closed.
    pub(crate) fn measure(&self) {
        if !cfg!(feature = "metrics") {
            return;
        }
        let (waiting, delayed) = if self.listing.is_closed() { (0, 0) } else { self.counts() };
        let queue = self.layout().root.as_str();
        metrics::QUEUE_ENTRIES.set(&[queue, "waiting"], waiting as f64);
        metrics::QUEUE_ENTRIES.set(&[queue, "delayed"], delayed as f64);
    }

    /// How many entries may be taken now, and how many are passed over, as far as this process knows it.
    pub(super) fn counts(&self) -> (usize, usize) {
        let mut cache = self.cache();
        cache.wake(self.clock.now());
        cache.counts()
    }

    /// Counts an attempt to take an entry.
    pub(super) fn count_take(&self, outcome: &str) {
        metrics::QUEUE_TAKES.add(&[self.layout().root.as_str(), outcome]);
    }

    pub(super) fn closed(&self) -> QueueError {
        QueueError::Closed { queue: self.layout().root.to_string() }
    }

    /// Turns an error of the service into one of this queue.
    pub(super) fn service(&self, error: Error) -> QueueError {
        if error.is_closed() { self.closed() } else { error.into() }
    }

    /// The error of a caller that waited for a listing.
    pub(super) fn stopped(&self, stopped: Stopped) -> QueueError {
        match stopped {
            Stopped::Closed => self.closed(),
            Stopped::Refused(error) => self.service(error),
        }
    }

    /// Waits until the entries of workers that were gone when the queue was opened are given back: before that, an answer
    /// about what waits may be wrong. At most for the timeout.
    pub(super) async fn wait_for_recovery(&self) -> Result<(), QueueError> {
        if *self.has_recovered.borrow() {
            return Ok(());
        }
        let mut recovered = self.has_recovered.subscribe();
        let waiting = recovered.wait_for(|is| *is);
        if tokio::time::timeout(self.leases.access().timeout(), waiting).await.is_err() {
            return Err(self.unreachable());
        }
        Ok(())
    }

    /// The live session. Waits for one.
    pub(super) async fn live(&self) -> Result<Arc<Live>, QueueError> {
        self.leases.access().live().await.map_err(|error| self.service(error))
    }

    /// Runs work that must not stop half-way: to its end, also if the caller is cancelled.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.leases.run(name, work).await.map_err(|error| self.service(error))
    }

    /// The error of a caller whose timeout has passed.
    pub(super) fn unreachable(&self) -> QueueError {
        self.leases.access().unreachable(self.listing.last_error()).into()
    }

    /// Searches `folder` for the entry with this claim, after the reply with its new name was lost. `None` if it is not
    /// there, cannot be searched for, or the session is over.
    pub(super) async fn find(
        &self,
        live: &Live,
        folder: &ZnodePath,
        sizes: &Sizes,
        entry: &Entry,
        claim: &str,
    ) -> Option<ZnodePath> {
        while !live.is_over() {
            let read = async {
                let (names, _) = live.session.children(folder).await?;
                let is_alike =
                    |found: &Entry| (found.priority(), found.label()) == (entry.priority(), entry.label());
                let alike = names.iter().filter_map(|name| readable(folder, name)).filter(is_alike);
                // Most likely among the last.
                let mut alike: Vec<_> = alike.collect();
                alike.sort_unstable_by(|a, b| b.by_age(a));
                let paths: Vec<_> = alike.iter().map(|found| path_of(folder, found)).collect();
                let is_ours = |(data, _): &Znode| Value::read(data).claim().as_deref() == Some(claim);
                let found = find_first(&*live.session, &paths, sizes, is_ours).await?;
                Ok::<_, backend::Error>(found.map(|(at, _)| paths[at].clone()))
            };
            match read.await {
                Ok(found) => return found,
                Err(error) => {
                    debug!(%folder, %error, "the entry could not be searched for");
                    if !error.is_unknown() {
                        return None;
                    }
                }
            }
            sleep(PAUSE).await;
        }
        None
    }

    /// How many bytes the operations of the end of an entry may have.
    pub(super) fn room(&self) -> usize {
        Room::End.limit(self.leases.access().max_request_bytes())
    }

    /// The data of a value, if it is not too large.
    pub(super) fn checked(&self, value: &Value, room: Room) -> Result<Vec<u8>, QueueError> {
        let data = value.data();
        let bytes = data.len();
        let limit = room.limit(self.leases.access().max_request_bytes());
        if bytes > limit { Err(QueueError::TooLarge { bytes, limit }) } else { Ok(data) }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared")
            .field("root", &self.layout().root)
            .field("max_len", &self.max_len)
            .field("listing", &self.listing)
            .finish_non_exhaustive()
    }
}

/// Keeps the tasks of a queue running: in each handle and delivery.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) shared: Arc<Shared>,
    pub(super) _tasks: DropGuard,
}

/// Adopts the listings of `unowned`.
pub(super) struct Waiting(pub(super) Arc<Shared>);

impl Drop for Waiting {
    /// The coordinator is closed, or the last handle to the queue is gone.
    fn drop(&mut self) {
        self.0.measure();
    }
}

impl Contents for Waiting {
    async fn adopt(
        &mut self,
        _live: &Live,
        names: &[String],
        _folder: &Stat,
        _occasion: Occasion,
    ) -> Result<(), backend::Error> {
        {
            let mut cache = self.0.cache();
            cache.adopt(names);
            cache.note_ages(self.0.clock.now());
        }
        self.0.measure();
        Ok(())
    }

    async fn make(&mut self, live: &Live) -> Result<(), Failure> {
        lay_out(&*live.session, self.0.layout()).await
    }
}

/// Creates the missing folders of a queue.
pub(super) async fn lay_out(session: &dyn Session, layout: &Layout) -> Result<(), Failure> {
    /// Another process may create some of them at the same time, so that the transaction is refused.
    const TRIES: u32 = 10;
    ensure(session, &layout.root).await?;
    let znodes = layout.znodes();
    let mut outcome = Ok(());
    for _ in 0..TRIES {
        let found = session.get_many(&znodes).await?;
        let missing = znodes.iter().zip(found).filter(|(_, found)| found.is_none());
        let creates: Vec<_> = missing.map(|(path, _)| Op::create(path, [], CreateMode::Persistent)).collect();
        match session.commit(creates.clone()).await {
            Ok(_) => return Ok(()),
            Err(CommitError { error: error @ backend::Error::NodeExists, .. }) => outcome = Err(error.into()),
            Err(CommitError { index: Some(index), error }) => {
                return Err(Failure::at(&judged_at(&creates[index], &error))(error));
            }
            Err(CommitError { index: None, error }) => return Err(error.into()),
        }
    }
    outcome
}

/// The number of children of a folder; 0 if the folder does not exist.
pub(super) async fn count(session: &dyn Session, folder: &ZnodePath) -> Result<usize, backend::Error> {
    let found = session.get(folder).await?;
    Ok(found.map_or(0, |(_, stat)| usize::try_from(stat.num_children).unwrap_or(0)))
}

/// The error of a call whose transaction was not applied; `path` is for its message.
pub(super) fn unapplied(path: &ZnodePath, unapplied: Unapplied) -> QueueError {
    match unapplied {
        Unapplied::Refused { error, path, .. } => QueueError::at(&path)(error),
        Unapplied::Failed(error) => QueueError::at(path)(error),
        Unapplied::Overtaken => QueueError::at(path)(backend::Error::BadVersion),
        Unapplied::Unknown(_) => QueueError::OutcomeUnknown { path: path.to_string() },
    }
}
