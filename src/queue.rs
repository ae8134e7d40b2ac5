//! The work queue: entries that workers take by priority.
//!
//! A producer puts entries. A worker takes an entry, the highest priority first and the oldest first within one
//! priority, and ends it with a result or an error. No other worker gets an entry that is taken; if its worker dies,
//! the entry goes back to the queue. The name of an entry contains its priority and a label. So workers choose entries
//! from a listing of names, and a worker can prefer entries whose data it has already.
//!
//! ```
//! # use std::collections::HashSet;
//! # use apportion::{Config, PartitionCoordinator, backend};
//! # use serde_json::json;
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let config = Config::for_backend(backend::Memory::new());
//! let coordinator = PartitionCoordinator::connect(config).await?;
//! let queue = coordinator.queue("/reports").await?;
//! queue.put(json!({ "day": 3 })).label("taxi:42").await?;
//! queue.put(json!({ "day": 4 })).label("bus:7").priority(900).await?;
//!
//! let cached = HashSet::from(["taxi:42"]);
//! let delivery = queue.take_preferring(|entry| cached.contains(entry.label())).await?;
//! assert_eq!(delivery.payload(), Some(&json!({ "day": 3 })));
//! delivery.done(json!("written")).await?;
//!
//! let results = queue.collect(100).await?;
//! assert_eq!(results[0].result(), Some(&json!("written")));
//! results.confirm().await?;
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # Layout in the store
//!
//! The layout is that of the queue of femto-mesos, whose Python processes can use the same queue: the folders
//! `unowned`, `owned` and `done` below the root, entries named `entry-{priority:03}-{label}-{sequence}`, values as JSON
//! objects. An entry moves from one folder to the next in one transaction. (The original needs three requests, and
//! loses the entry if the process dies in between.)
//!
//! Four folders are new: `claims` has one ephemeral znode for each entry that a worker of this crate has taken. `dead`
//! has the dead letters: entries that were delivered too often. `receipts` shows whether a transaction was applied.
//! `labels` shows whether an entry of a label was added.
//!
//! Any process that has the queue open gives back an owned entry whose claim is gone. An entry that a Python worker has
//! taken has no claim, so it is not given back.
//!
//! [`WorkQueue::run`] is the loop of a worker: it takes entries, runs a handler for each, and ends them.
//!
//! # When work fails
//!
//! A worker gives an entry [back](Delivery::release) with the reason. No worker of this crate takes it during a pause, which
//! grows with each attempt, and the other entries are taken meanwhile. After some attempts it is a
//! [dead letter](WorkQueue::dead_letters), which says why. A result that tells the putter of a failure is written by
//! [`fail`](Delivery::fail). The end of a pause is in the value of the entry, as `not_before`; Python workers do not know it.
//!
//! # Memory
//!
//! A process that takes entries keeps the names of the waiting entries in a cache. It reads the value of an entry when
//! it takes it, with up to seven small values of the next entries.

mod ages;
mod cache;
mod collect;
mod delivery;
mod entry;
mod error;
mod fill;
mod find;
mod fitting;
mod id;
mod labels;
mod layout;
mod moves;
mod names;
mod object;
mod open;
mod owned;
mod prefetch;
mod put;
mod recovery;
mod release;
mod results;
mod shared;
mod status;
mod take;
mod value;

use std::{fmt, sync::Arc};

use serde::Serialize;

pub(crate) use self::shared::Shared;
pub use self::{
    collect::{Collected, Finished},
    delivery::Delivery,
    entry::{Entry, InvalidEntryName, LabelError, MAX_LABEL_BYTES, MAX_PRIORITY},
    error::{MAX_VALUE_BYTES, QueueError},
    id::{EntryId, InvalidEntryId},
    open::OpenQueue,
    put::Put,
    release::Release,
    status::QueueStatus,
    value::State,
};
use self::{
    shared::Handle,
    take::{Wanted, take, try_take},
};
use crate::{backend::path::ZnodePath, random::Random};

/// A queue of work, shared by all processes that open the same root. Cheap to clone; all clones are one queue, whose
/// background tasks end with the last clone and the last delivery. From
/// [`PartitionCoordinator::queue`](crate::PartitionCoordinator::queue).
#[derive(Clone)]
pub struct WorkQueue {
    handle: Arc<Handle>,
}

/// No filter.
type Any = fn(&Entry) -> bool;

impl WorkQueue {
    /// After how many deliveries an entry is a dead letter; `None`: never.
    pub(crate) fn max_attempts(&self) -> Option<u32> {
        self.handle.shared.moves.max_attempts
    }

    /// The source of random numbers of its coordinator.
    pub(crate) fn random(&self) -> &Random {
        self.handle.shared.leases.random()
    }

    /// The path of the queue in the store.
    pub fn path(&self) -> &ZnodePath {
        &self.handle.shared.layout().root
    }

    /// Puts `payload`, any value that can be written as JSON. Await it, or set options first:
    ///
    /// ```
    /// # use apportion::{Config, PartitionCoordinator, backend, queue::QueueError};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
    /// # let queue = coordinator.queue("/reports").await?;
    /// queue.put("monthly").priority(900).unless_queued("taxi:42").await?;
    /// let again = queue.put("monthly").unless_queued("taxi:42").await;
    /// assert!(matches!(again, Err(QueueError::AlreadyQueued { .. })));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// The entry is put once, also if the reply of the store is lost. Returns its id, for
    /// [`wait_result`](WorkQueue::wait_result) and [`remove`](WorkQueue::remove).
    ///
    /// # Errors
    ///
    /// [`QueueError::Full`], [`QueueError::AlreadyQueued`], [`QueueError::TooLarge`], [`QueueError::Label`],
    /// [`QueueError::Priority`], [`QueueError::Payload`]: nothing was put. [`QueueError::OutcomeUnknown`] if the
    /// session ended before the reply came. [`QueueError::Closed`] if the coordinator is closed.
    /// [`QueueError::Service`] if the store did not answer.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub fn put(&self, payload: impl Serialize) -> Put {
        Put::new(self.handle.clone(), delivery::to_json(payload))
    }

    /// Takes the first entry, and waits until there is one, also while the store is unreachable.
    ///
    /// The order is that of the last listing. While callers wait, the queue is listed again after each change, so a
    /// listing is seldom much older than the time that one takes. If several workers try to take the same entry, one of
    /// them gets it, and the others choose among the next entries of the same priority.
    ///
    /// # Errors
    ///
    /// [`QueueError::Closed`] if the coordinator is closed, [`QueueError::Service`] for errors that do not pass by
    /// themselves.
    ///
    /// # Cancel safety
    ///
    /// Safe: if the caller no longer waits when an entry was taken, the entry is given back. That does not count as an
    /// attempt.
    pub async fn take(&self) -> Result<Delivery, QueueError> {
        self.one(Wanted::<Any>::Any).await
    }

    /// Takes the first entry that `wanted` accepts, and waits until there is one.
    ///
    /// # Errors
    ///
    /// As [`WorkQueue::take`].
    ///
    /// # Cancel safety
    ///
    /// As [`WorkQueue::take`].
    pub async fn take_where(
        &self,
        wanted: impl FnMut(&Entry) -> bool + Send,
    ) -> Result<Delivery, QueueError> {
        self.one(Wanted::Matching(wanted)).await
    }

    /// Takes the first entry that `preferred` accepts; if it accepts none, the first entry. Waits until there is one.
    /// Use it if the worker has the data of some entries already.
    ///
    /// The preference comes before the priority: an urgent entry waits as long as there are preferred ones. Where that
    /// matters, let `preferred` check [`Entry::priority`] too.
    ///
    /// # Errors
    ///
    /// As [`WorkQueue::take`].
    ///
    /// # Cancel safety
    ///
    /// As [`WorkQueue::take`].
    pub async fn take_preferring(
        &self,
        preferred: impl FnMut(&Entry) -> bool + Send,
    ) -> Result<Delivery, QueueError> {
        self.one(Wanted::Preferring(preferred)).await
    }

    /// Takes up to `count` entries at once, and waits until there is at least one. Returns none if `count` is 0.
    ///
    /// # Errors
    ///
    /// As [`WorkQueue::take`].
    ///
    /// # Cancel safety
    ///
    /// As [`WorkQueue::take`].
    pub async fn take_many(&self, count: usize) -> Result<Vec<Delivery>, QueueError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        take(&self.handle, count, Wanted::<Any>::Any).await
    }

    /// Takes the first entry; `None` if there is none that may be taken now. What a worker has left that was gone before the
    /// queue was opened is there.
    ///
    /// # Errors
    ///
    /// [`QueueError::Closed`] if the coordinator is closed, [`QueueError::Service`] if the store did not answer.
    ///
    /// # Cancel safety
    ///
    /// As [`WorkQueue::take`].
    pub async fn try_take(&self) -> Result<Option<Delivery>, QueueError> {
        self.try_one(Wanted::<Any>::Any).await
    }

    /// Takes the first entry that `wanted` accepts; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`WorkQueue::try_take`].
    ///
    /// # Cancel safety
    ///
    /// As [`WorkQueue::take`].
    pub async fn try_take_where(
        &self,
        wanted: impl FnMut(&Entry) -> bool + Send,
    ) -> Result<Option<Delivery>, QueueError> {
        self.try_one(Wanted::Matching(wanted)).await
    }

    /// Takes the first entry that `preferred` accepts; if it accepts none, the first entry; `None` if there is none.
    ///
    /// # Errors
    ///
    /// As [`WorkQueue::try_take`].
    ///
    /// # Cancel safety
    ///
    /// As [`WorkQueue::take`].
    pub async fn try_take_preferring(
        &self,
        preferred: impl FnMut(&Entry) -> bool + Send,
    ) -> Result<Option<Delivery>, QueueError> {
        self.try_one(Wanted::Preferring(preferred)).await
    }

    /// Takes up to `count` entries at once, and does not wait: there may be none.
    ///
    /// # Errors
    ///
    /// As [`WorkQueue::try_take`].
    ///
    /// # Cancel safety
    ///
    /// As [`WorkQueue::take`].
    pub async fn try_take_many(&self, count: usize) -> Result<Vec<Delivery>, QueueError> {
        if count == 0 {
            return Ok(Vec::new());
        }
        try_take(&self.handle, count, Wanted::<Any>::Any).await
    }

    /// Lists the waiting entries, in the order in which they are to be taken, with those that are delayed.
    ///
    /// # Errors
    ///
    /// [`QueueError::Closed`] if the coordinator is closed, [`QueueError::Service`] if the store did not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn entries(&self) -> Result<Vec<Entry>, QueueError> {
        let shared = &self.handle.shared;
        shared.wait_for_recovery().await?;
        let asking = shared.listing.ask();
        let waiting = || shared.cache().entries();
        let listed = shared.listing.until(|| shared.listing.answers(&asking).then(waiting));
        match tokio::time::timeout(shared.leases.access().timeout(), listed).await {
            Ok(listed) => listed.map_err(|stopped| shared.stopped(stopped)),
            Err(_) => Err(shared.unreachable()),
        }
    }

    /// Waits until the queue has an entry to take, and does not take it. Another worker may take it before the caller
    /// does.
    ///
    /// # Errors
    ///
    /// As [`WorkQueue::take`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait_for_work(&self) -> Result<(), QueueError> {
        take::wait(&self.handle.shared).await
    }

    /// The number of waiting entries, as the store counts them: other znodes in the same folder count as well.
    ///
    /// # Errors
    ///
    /// [`QueueError::Closed`] if the coordinator is closed, [`QueueError::Service`] if the store did not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn len(&self) -> Result<usize, QueueError> {
        let shared = &self.handle.shared;
        shared.wait_for_recovery().await?;
        let unowned = shared.layout().unowned.clone();
        let counted = shared.leases.access().repeat(&shared.layout().unowned, move |live| {
            let unowned = unowned.clone();
            Box::pin(async move { shared::count(&*live.session, &unowned).await })
        });
        counted.await.map_err(|error| shared.service(error))
    }

    /// Whether no entry waits, by the same count as [`WorkQueue::len`].
    ///
    /// # Errors
    ///
    /// As [`WorkQueue::len`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn is_empty(&self) -> Result<bool, QueueError> {
        Ok(self.len().await? == 0)
    }

    async fn one<F>(&self, wanted: Wanted<F>) -> Result<Delivery, QueueError>
    where
        F: FnMut(&Entry) -> bool + Send,
    {
        Ok(take(&self.handle, 1, wanted).await?.pop().expect("a call that waits returns an entry"))
    }

    async fn try_one<F>(&self, wanted: Wanted<F>) -> Result<Option<Delivery>, QueueError>
    where
        F: FnMut(&Entry) -> bool + Send,
    {
        Ok(try_take(&self.handle, 1, wanted).await?.pop())
    }
}

impl fmt::Debug for WorkQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.handle.shared.fmt(f)
    }
}

impl fmt::Display for WorkQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the queue at {}", self.path())
    }
}
