//! Work that is claimed by priority: the work queue.
//!
//! Whoever has work puts it; workers take it, the highest priority first and the oldest first within one, and end it
//! with a result or an error. What a worker has taken is its alone, and comes back by itself when the worker dies.
//! The name of an entry carries its priority and a label, so that choosing costs one listing, and a worker can choose
//! by what it has at hand already.
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
//! # How it lies in the store
//!
//! As the queue of femto-mesos, whose Python processes can work beside ours: `unowned`, `owned` and `done` below the
//! root, entries named `entry-{priority:03}-{label}-{sequence}`, values as JSON objects. An entry goes from one
//! folder to the next in one transaction, where the original needs three requests and loses it if it dies in between.
//! Ours are `claims`, one ephemeral znode for each entry that is being worked on; `dead`, for what was delivered too
//! often; `receipts` and `labels`, which tell whether something was put and what else was.
//!
//! An owned entry whose claim is gone is given back by any process that has the queue open. What a Python worker has
//! taken has no claim, and is left alone.

mod cache;
mod collect;
mod delivery;
mod entry;
mod error;
mod fill;
mod labels;
mod layout;
mod moves;
mod names;
mod open;
mod prefetch;
mod put;
mod recovery;
mod shared;
mod take;
mod value;

use std::{fmt, sync::Arc};

use serde::Serialize;

pub use self::{
    collect::{Collected, Finished},
    delivery::Delivery,
    entry::{Entry, InvalidEntryName, LabelError, MAX_LABEL_BYTES, MAX_PRIORITY},
    error::{MAX_VALUE_BYTES, QueueError},
    open::OpenQueue,
    put::Put,
    value::State,
};
use self::{
    shared::Handle,
    take::{Wanted, take, try_take},
};
use crate::backend::path::ZnodePath;

/// A queue of work, shared by whoever opens the same root. Clones are handles to the same one. From
/// [`PartitionCoordinator::queue`](crate::PartitionCoordinator::queue).
#[derive(Clone)]
pub struct WorkQueue {
    handle: Arc<Handle>,
}

/// No filter.
type Any = fn(&Entry) -> bool;

impl WorkQueue {
    /// Where it lies in the store.
    pub fn path(&self) -> &ZnodePath {
        &self.handle.shared.layout().root
    }

    /// Puts `payload`, anything that is JSON. Await it, or set options first:
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
    /// It is put once, also if the store's reply is lost on the way.
    ///
    /// # Errors
    ///
    /// [`QueueError::Full`], [`QueueError::AlreadyQueued`], [`QueueError::TooLarge`], [`QueueError::Label`],
    /// [`QueueError::Priority`], [`QueueError::Payload`]: nothing was put. [`QueueError::OutcomeUnknown`] if the session
    /// ended before the reply came. [`QueueError::Service`] if the store did not answer.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background.
    pub fn put(&self, payload: impl Serialize) -> Put {
        Put::new(self.handle.clone(), delivery::to_json(payload))
    }

    /// Takes the first entry, waiting until there is one, also while the store is out of reach.
    ///
    /// Other processes are taken into account as of the last look, which is never much older than it takes to look.
    /// Where several workers are after the same entry, the others choose among the next of the same priority.
    ///
    /// # Errors
    ///
    /// [`QueueError::Service`] for what waiting cannot mend.
    ///
    /// # Cancel safety
    ///
    /// Safe: what was taken and cannot be returned any more is given back, and does not count as an attempt.
    pub async fn take(&self) -> Result<Delivery, QueueError> {
        self.one(Wanted::<Any>::Any).await
    }

    /// Takes the first entry that `wanted` accepts, waiting until there is one.
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

    /// Takes the first entry that `preferred` accepts, else the first one, waiting until there is one: a worker that
    /// has the data of some entries at hand.
    ///
    /// What is preferred goes before priority: an urgent entry waits as long as others are preferred to it. Let
    /// `preferred` look at [`Entry::priority`] where that matters.
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

    /// Takes up to `count` entries at once, waiting until there is at least one. None if `count` is 0.
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

    /// Takes the first entry, if there is one.
    ///
    /// # Errors
    ///
    /// [`QueueError::Service`] if the store did not answer.
    ///
    /// # Cancel safety
    ///
    /// As [`WorkQueue::take`].
    pub async fn try_take(&self) -> Result<Option<Delivery>, QueueError> {
        self.try_one(Wanted::<Any>::Any).await
    }

    /// Takes the first entry that `wanted` accepts, if there is one.
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

    /// Takes the first entry that `preferred` accepts, else the first one, if there is any.
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

    /// Takes up to `count` entries at once, as many as there are.
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

    /// The entries that wait, in the order in which they are to be taken.
    ///
    /// # Errors
    ///
    /// [`QueueError::Service`] if the store did not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn entries(&self) -> Result<Vec<Entry>, QueueError> {
        let shared = &self.handle.shared;
        let asking = shared.listing.ask();
        let waiting = || shared.cache().entries().map(|entry| Entry::clone(entry)).collect();
        let listed = shared.listing.until(|| shared.listing.answers(&asking).then(waiting));
        match tokio::time::timeout(shared.leases.access().timeout(), listed).await {
            Ok(listed) => listed.map_err(|stopped| shared.stopped(stopped)),
            Err(_) => Err(shared.unreachable()),
        }
    }

    /// Waits until something waits to be taken, without taking it.
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

    /// How many entries wait, as the store counts them: anything else that somebody has put there counts as well.
    ///
    /// # Errors
    ///
    /// [`QueueError::Service`] if the store did not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn len(&self) -> Result<usize, QueueError> {
        let shared = &self.handle.shared;
        let unowned = shared.layout().unowned.clone();
        let counted = shared.leases.access().repeat(&shared.layout().unowned, move |live| {
            let unowned = unowned.clone();
            Box::pin(async move { shared::count(&*live.session, &unowned).await })
        });
        counted.await.map_err(|error| shared.service(error))
    }

    /// Whether nothing waits; see [`WorkQueue::len`].
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

    /// Reads up to `max` results, the oldest first, waiting until there is one. They stay until they are
    /// [confirmed](Collected::confirm): note first what they say, then confirm. As one branch of a `select!`, both
    /// together can be cut off after the results are gone and before anybody has seen them.
    ///
    /// # Errors
    ///
    /// [`QueueError::Service`] for what waiting cannot mend.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is removed.
    pub async fn collect(&self, max: usize) -> Result<Collected, QueueError> {
        collect::collect(&self.handle, max, max > 0).await
    }

    /// Reads up to `max` results, as many as there are.
    ///
    /// # Errors
    ///
    /// [`QueueError::Service`] if the store did not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is removed.
    pub async fn try_collect(&self, max: usize) -> Result<Collected, QueueError> {
        collect::collect(&self.handle, max, false).await
    }

    /// What was delivered as often as it may be, and never ended; the oldest first.
    ///
    /// # Errors
    ///
    /// [`QueueError::Service`] if the store did not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn dead_letters(&self) -> Result<Vec<Finished>, QueueError> {
        collect::dead_letters(&self.handle.shared).await
    }

    /// Puts a dead letter back into the queue, as if it had never been delivered. Returns whether it was still there.
    ///
    /// # Errors
    ///
    /// [`QueueError::OutcomeUnknown`] if the session ended meanwhile, [`QueueError::Service`].
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background.
    pub async fn revive(&self, letter: &Finished) -> Result<bool, QueueError> {
        self.end_letter(letter, true).await
    }

    /// Removes a dead letter for good. Returns whether it was still there.
    ///
    /// # Errors
    ///
    /// As [`WorkQueue::revive`].
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background.
    pub async fn discard(&self, letter: &Finished) -> Result<bool, QueueError> {
        self.end_letter(letter, false).await
    }

    async fn end_letter(&self, letter: &Finished, revives: bool) -> Result<bool, QueueError> {
        let shared = &self.handle.shared;
        let ended = collect::end_letter(shared.clone(), letter.clone(), revives);
        shared.run("dead letter", ended).await?
    }

    async fn one<F>(&self, wanted: Wanted<F>) -> Result<Delivery, QueueError>
    where
        F: FnMut(&Entry) -> bool + Send,
    {
        Ok(take(&self.handle, 1, wanted).await?.pop().expect("waiting ends with something"))
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
