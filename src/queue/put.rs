//! [`Put`]: puts an entry into a queue exactly once.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde_json::Value as Json;
use tokio::{sync::MutexGuard, time::sleep};

use super::{
    entry::{MAX_PRIORITY, check_label},
    error::{QueueError, Room},
    fill::Admission,
    id::EntryId,
    layout::Layout,
    moves::{PUT_BUCKET, PUT_CREATED},
    names::{path_of, readable},
    shared::{Handle, Shared, count, lay_out, unapplied},
    value::Value,
};
use crate::{
    backend::{self, Session, path::ZnodePath},
    backoff::Backoff,
    clock::time_until,
    error::Error,
    metrics,
    session::{Live, commit::Unapplied, read::read_each},
};

/// The first and the longest pause between two attempts while the store does not answer.
const PAUSE: Duration = Duration::from_millis(50);
/// The first pause between two attempts while other processes are faster.
const SHORTEST_PAUSE: Duration = Duration::from_millis(2);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);
/// The pause before another count if the puts that are under way may fill the queue.
const FULL_PAUSE: Duration = Duration::from_millis(5);
/// How often a put is tried while entries with the same bucket are added at the same time, and how many of these
/// attempts have no pause before the next one.
const TRIES: u32 = 100;
const QUICK_TRIES: u32 = 10;

/// How many entries of a label are read to find out whether one is still queued.
const MOST_READ: usize = 4;

/// The default priority, as in the original.
const DEFAULT_PRIORITY: u16 = 100;

/// Puts an entry when it is awaited. From [`WorkQueue::put`](super::WorkQueue::put).
#[must_use = "nothing is put until it is awaited"]
pub struct Put {
    handle: Arc<Handle>,
    payload: Result<Json, QueueError>,
    priority: u16,
    label: String,
    unless_queued: bool,
    delay: Duration,
}

impl Put {
    pub(super) fn new(handle: Arc<Handle>, payload: Result<Json, QueueError>) -> Self {
        let (label, delay) = (String::new(), Duration::ZERO);
        Put { handle, payload, priority: DEFAULT_PRIORITY, label, unless_queued: false, delay }
    }

    /// The priority: the highest is taken first. Default: 100. At most [`MAX_PRIORITY`].
    pub fn priority(mut self, priority: u16) -> Self {
        self.priority = priority;
        self
    }

    /// The label, for workers that choose by it: `dataset:group` in the original. Default: empty. It becomes part of
    /// the name of a znode: at most [`MAX_LABEL_BYTES`](super::MAX_LABEL_BYTES) bytes, no slash, no dash at the end.
    pub fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    /// Sets the label, and puts the entry only if no entry of that label waits or is taken. Otherwise the put ends with
    /// [`QueueError::AlreadyQueued`].
    ///
    /// If several processes put the same label at once with this crate, one put succeeds. The dispatcher of the
    /// original checks first and puts afterwards, so a put of it and one of another process can both succeed. This
    /// option may list the waiting entries, and lists the taken ones.
    pub fn unless_queued(mut self, label: impl Into<String>) -> Self {
        self.unless_queued = true;
        self.label(label)
    }

    /// The entry is not to be taken before this time. It is converted to a [delay](Put::delay) by the wall clock of this
    /// host.
    pub fn not_before(self, time: SystemTime) -> Self {
        self.delay(time_until(time))
    }

    /// The entry is not to be taken before this time has passed.
    ///
    /// The time is in the value of the entry, by the wall clock: those of the hosts should agree. Workers of this crate
    /// honour it. Python workers do not know it and take the entry at once. The entry counts as waiting meanwhile.
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    async fn run(self) -> Result<EntryId, QueueError> {
        let Put { handle, payload, priority, label, unless_queued, delay } = self;
        let payload = payload?;
        if priority > MAX_PRIORITY {
            return Err(QueueError::Priority { priority });
        }
        if let Err(reason) = check_label(&label) {
            return Err(QueueError::Label { label, reason });
        }
        let shared = handle.shared.clone();
        let id = EntryId::new(priority, &label, shared.leases.random().uuid());
        let mut value = Value::new(&label, payload).with_id(&id.field());
        if !delay.is_zero() {
            value = value.delayed_until(shared.clock.unix_ms_in(delay));
        }
        let data = shared.checked(&value, Room::Put)?;
        let posting = Posting { shared, priority, label, data, unless_queued, delay };
        handle.shared.run("put", posting.run()).await??;
        Ok(id)
    }
}

impl IntoFuture for Put {
    type Output = Result<EntryId, QueueError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Put {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Put")
            .field("priority", &self.priority)
            .field("label", &self.label)
            .field("unless_queued", &self.unless_queued)
            .finish_non_exhaustive()
    }
}

/// A put with valid options.
struct Posting {
    shared: Arc<Shared>,
    priority: u16,
    label: String,
    data: Vec<u8>,
    unless_queued: bool,
    delay: Duration,
}

/// A put that is under way.
struct UnderWay<'a>(&'a Shared);

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fill().ended();
    }
}

impl Posting {
    async fn run(self) -> Result<(), QueueError> {
        let access = self.shared.leases.access();
        let give_up = self.shared.clock.now() + access.timeout();
        let mut backoff = Backoff::new(PAUSE, LONGEST_PAUSE);
        loop {
            let live = self.shared.live().await?;
            let Some(error) = self.attempt(&live).await? else { return Ok(()) };
            if self.shared.clock.now() >= give_up {
                return Err(QueueError::at(&self.shared.layout().unowned)(error));
            }
            sleep(backoff.next_delay(access.random().unit())).await;
        }
    }

    /// Puts the entry. Returns an error that may pass by itself if nothing was put.
    async fn attempt(&self, live: &Live) -> Result<Option<backend::Error>, QueueError> {
        let Shared { moves, receipts, .. } = &*self.shared;
        let layout = self.shared.layout();
        let mut backoff = Backoff::new(SHORTEST_PAUSE, LONGEST_PAUSE);
        for tried in 0..TRIES {
            if tried >= QUICK_TRIES {
                sleep(backoff.next_delay(live.random.unit())).await;
            }
            let admitted = match self.admit(live).await {
                Ok(admitted) => admitted,
                Err(error) => return passing::<()>(Err(error)),
            };
            let bucket = layout.bucket(&self.label).filter(|_| self.unless_queued);
            let seen = match bucket {
                None => None,
                Some(bucket) => match self.seen(live, &bucket).await {
                    Ok(Some(version)) => Some(version),
                    Ok(None) => return Err(QueueError::AlreadyQueued { label: self.label.clone() }),
                    Err(backend::Error::NoNode) => {
                        lay_out(&*live.session, layout)
                            .await
                            .map_err(|failure| failure.into_error(&layout.root))?;
                        continue;
                    }
                    Err(error) => return passing::<()>(Err(QueueError::at(&bucket)(error))),
                },
            };
            let ops = moves.put(self.priority.into(), &self.label, self.data.clone(), seen);
            let put = receipts.commit(live, ops);
            let put = if admitted.counts {
                // Both requests are sent together. The count is for the next put.
                tokio::join!(put, self.count(live)).0
            } else {
                put.await
            };
            drop(admitted);
            match put {
                Ok(receipted) => {
                    metrics::QUEUE_PUT.add(&[layout.root.as_str()]);
                    self.shared.added(receipted.applied.created(PUT_CREATED).as_ref(), self.delay);
                    return Ok(None);
                }
                // An entry of the same bucket was added since the check.
                Err(Unapplied::Refused { index: PUT_BUCKET, error: backend::Error::BadVersion, .. }) => {}
                Err(Unapplied::Refused { error: backend::Error::NoNode, .. }) => {
                    lay_out(&*live.session, layout)
                        .await
                        .map_err(|failure| failure.into_error(&layout.root))?;
                }
                Err(error) => return passing::<()>(Err(unapplied(&layout.unowned, error))),
            }
        }
        Ok(Some(backend::Error::BadVersion))
    }

    /// Waits until one more entry may be put. An error if the queue is full.
    ///
    /// If there is little room, the puts of this process follow one another, and each counts before. So the limit is exact
    /// within a process, and the puts of several processes exceed it by one each at most.
    async fn admit(&self, live: &Live) -> Result<Admitted<'_>, QueueError> {
        let (shared, max_len) = (&*self.shared, self.shared.max_len);
        let admit = || shared.fill().admit(shared.clock.now(), max_len);
        let admitted = |counts, turn| Admitted { _under_way: UnderWay(shared), counts, _turn: turn };
        match admit() {
            Admission::Go => return Ok(admitted(false, None)),
            Admission::GoAndCount => return Ok(admitted(true, None)),
            Admission::CountFirst => {}
        }
        let turn = shared.counting.lock().await;
        loop {
            // The put before this one has counted, perhaps.
            match admit() {
                Admission::CountFirst => {}
                admission => return Ok(admitted(admission == Admission::GoAndCount, None)),
            }
            let unowned = &shared.layout().unowned;
            let (len, before) = self.count(live).await.map_err(QueueError::at(unowned))?;
            if len >= max_len {
                return Err(QueueError::Full { len, max_len });
            }
            if admit() == Admission::Go {
                return Ok(admitted(false, None));
            }
            if len.saturating_add(before) < max_len {
                shared.fill().begin();
                return Ok(admitted(false, Some(turn)));
            }
            // Those that are under way may fill it.
            sleep(FULL_PAUSE).await;
        }
    }

    /// Counts the entries that wait. Returns their number, and how many puts were under way before.
    async fn count(&self, live: &Live) -> Result<(usize, usize), backend::Error> {
        let (shared, before) = (&self.shared, self.shared.fill().under_way());
        let now = shared.clock.now();
        let len = count(&*live.session, &shared.layout().unowned).await?;
        shared.fill().set(len, now, before);
        Ok((len, before))
    }

    /// Searches for an entry with the label. If there is none, returns the version that the bucket had before.
    ///
    /// Each move that creates an entry of this label in `unowned` sets the bucket. So if the bucket still has this
    /// version at the put, no entry was added meanwhile. `unowned` is read before `owned`, so that an entry that is
    /// being taken is found in one of them.
    async fn seen(&self, live: &Live, bucket: &ZnodePath) -> Result<Option<i32>, backend::Error> {
        let session = &*live.session;
        let Layout { unowned, owned, .. } = self.shared.layout();
        let (_, bucket) = session.get(bucket).await?.ok_or(backend::Error::NoNode)?;
        let is_alike = |folder: &ZnodePath, name: &String| {
            readable(folder, name).is_some_and(|entry| entry.label() == self.label)
        };
        if self.waits(session, unowned).await? {
            return Ok(None);
        }
        let (names, _) = session.children(owned).await?;
        let is_queued = names.iter().any(|name| is_alike(owned, name));
        Ok((!is_queued).then_some(bucket.version))
    }

    /// Whether a listing of `unowned` shows an entry with the label.
    async fn lists(&self, session: &dyn Session, unowned: &ZnodePath) -> Result<bool, backend::Error> {
        let (names, folder) = session.children(unowned).await?;
        let entries = names.iter().filter_map(|name| readable(unowned, name));
        let mut labels = self.shared.labels();
        labels.adopt(entries, &folder);
        Ok(labels.find(&self.label, &folder).is_some_and(|entries| !entries.is_empty()))
    }

    /// Whether an entry with the label is in `unowned`.
    async fn waits(&self, session: &dyn Session, unowned: &ZnodePath) -> Result<bool, backend::Error> {
        let (_, folder) = session.get(unowned).await?.ok_or(backend::Error::NoNode)?;
        let known = self.shared.labels().find(&self.label, &folder);
        let Some(known) = known else { return self.lists(session, unowned).await };
        if known.is_empty() {
            return Ok(false);
        }
        // Those that are taken last, of perhaps very many.
        let last = &known[known.len().saturating_sub(MOST_READ)..];
        let paths: Vec<_> = last.iter().map(|entry| path_of(unowned, entry)).collect();
        let found = read_each(session, &paths, &self.shared.sizes.unowned).await?;
        let is_there = found.iter().any(|found| !matches!(found, Ok(None)));
        if is_there || last.len() == known.len() {
            if !is_there {
                self.shared.labels().forget(&self.label);
            }
            return Ok(is_there);
        }
        self.lists(session, unowned).await
    }
}

/// A put that may be sent.
struct Admitted<'a> {
    _under_way: UnderWay<'a>,
    /// Whether the entries are to be counted at the same time.
    counts: bool,
    /// The turn of a put that had to count before: the next one waits for it.
    _turn: Option<MutexGuard<'a, ()>>,
}

/// An error that may pass by itself, as a value.
fn passing<T>(outcome: Result<T, QueueError>) -> Result<Option<backend::Error>, QueueError> {
    match outcome {
        Ok(_) => Ok(None),
        Err(QueueError::Service(Error::Backend { error, .. })) if error.is_unknown() => Ok(Some(error)),
        Err(QueueError::Service(Error::Unreachable { reason })) => {
            Ok(Some(backend::Error::Unreachable(reason)))
        }
        Err(error) => Err(error),
    }
}
