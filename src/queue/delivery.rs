//! [`Delivery`]: an entry that this process has taken.

use std::{fmt, sync::Arc, time::Duration};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use tokio::sync::Mutex;

use super::{
    entry::Entry, error::QueueError, owned::OwnedEntry, release::Release, shared::Handle, value::Value,
};
use crate::{
    json::check_depth,
    lease::{FencingToken, GivenBack, Lease},
};

/// An entry that this worker has taken from a queue. No other worker has it until it is ended, or until its lease is
/// lost. From [`WorkQueue::take`](super::WorkQueue::take) and its like.
///
/// A delivery that is dropped is given back in the background, as by [`release`](Delivery::release), and so is the delivery
/// of a worker that dies, which comes back without a pause. Then the entry is delivered again, to this or another worker,
/// after the other entries of its priority. Each delivery counts as an attempt, with any end. (It does not count if the caller of `take` no longer waited.) After
/// [`max_attempts`](super::OpenQueue::max_attempts) deliveries the entry goes to the dead letters instead.
#[must_use = "a delivery that is dropped is given back"]
pub struct Delivery {
    entry: Entry,
    value: Value,
    last_error: Option<String>,
    lease: Lease,
    /// Shared with writes under way, so that a write that is cancelled half-way still records the entry's new version.
    owned: Arc<Mutex<OwnedEntry>>,
    handle: Arc<Handle>,
}

/// Writes a value as JSON that every process can read.
pub(super) fn to_json(value: impl Serialize) -> Result<Json, QueueError> {
    let value =
        serde_json::to_value(value).map_err(|error| QueueError::Payload { reason: error.to_string() })?;
    check_depth(&value).map_err(|reason| QueueError::Payload { reason })?;
    Ok(value)
}

impl Delivery {
    /// The delivery for the caller that waits for it. From here on it counts as an attempt.
    pub(super) fn new(mut owned: OwnedEntry, handle: Arc<Handle>) -> Self {
        owned.deliver();
        let lease = owned.lease().clone();
        let (entry, value) = (owned.owned.entry.clone(), owned.owned.value.clone());
        let last_error = value.error();
        Delivery { entry, value, last_error, lease, owned: Arc::new(Mutex::new(owned)), handle }
    }

    /// The entry, with its priority, label and sequence number.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// The payload that was put. For a value that this crate did not write, the whole value; `None` if that is not
    /// JSON.
    pub fn payload(&self) -> Option<&Json> {
        self.value.payload()
    }

    /// The payload as a value of type `T`.
    ///
    /// # Errors
    ///
    /// The error of serde if the payload is not a `T`.
    pub fn payload_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        self.value.payload_as()
    }

    /// The value as it was in the store when it was taken, as bytes. What another program has put is returned as it put it,
    /// to the byte, also after other deliveries.
    pub fn raw(&self) -> &[u8] {
        self.value.raw()
    }

    /// Why the last delivery before this one has failed, if its worker said so.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// How often the entry was delivered so far, this delivery included.
    pub fn attempt(&self) -> u32 {
        self.value.attempt()
    }

    /// The lease of the delivery: whether this worker still has the entry, and until when. Its
    /// [`while_held`](Lease::while_held) stops the work when the lease is lost.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The fencing token: a later delivery of the same entry has a higher one. A store that the work writes to can
    /// compare it and refuse an outdated worker.
    pub fn token(&self) -> FencingToken {
        self.lease.token()
    }

    /// Replaces the payload, for instance to record progress: a worker that gets the entry later can go on from there.
    ///
    /// # Errors
    ///
    /// [`QueueError::Lost`] if this worker no longer has the entry. [`QueueError::TooLarge`] and
    /// [`QueueError::Payload`] if the payload is too large or not JSON: nothing was sent.
    /// [`QueueError::OutcomeUnknown`] if the session ended before the reply came. [`QueueError::Closed`] if the
    /// coordinator is closed, [`QueueError::Service`] if the store did not answer.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background; [`Delivery::payload`] still returns the old payload.
    pub async fn update(&mut self, payload: impl Serialize) -> Result<(), QueueError> {
        let payload = to_json(payload)?;
        let owned = self.owned.clone();
        self.value = self
            .run("update", async move {
                let mut owned = owned.lock().await;
                let value = owned.owned.value.updated(payload);
                owned.update(value).await?;
                Ok(owned.owned.value.clone())
            })
            .await?;
        Ok(())
    }

    /// Ends the entry with a result. It goes to `done`, where a process can [collect](super::WorkQueue::collect) it.
    ///
    /// # Errors
    ///
    /// [`QueueError::TooLarge`] and [`QueueError::Payload`] if the result is too large or not JSON: nothing was done, and
    /// this worker still has the entry, to [fail](Delivery::fail) it for instance. [`QueueError::Lost`] if this worker no
    /// longer has the entry, also because it has ended it before. [`QueueError::OutcomeUnknown`] if the session ended
    /// before the reply came. After [`QueueError::Closed`] and [`QueueError::Service`] the entry is given back, also if the
    /// server closes the connection because the result is too large for it.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub async fn done(&self, result: impl Serialize) -> Result<(), QueueError> {
        let result = to_json(result)?;
        self.end(Ok(result)).await
    }

    /// Ends the entry with an error. It goes to `done` with the state [`State::Failed`](super::State::Failed), and is
    /// not tried again. For another attempt, use [`Delivery::release`]. Of a long error, as much is kept as fits into a
    /// request.
    ///
    /// # Errors
    ///
    /// As [`Delivery::done`], without [`QueueError::TooLarge`] and [`QueueError::Payload`].
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub async fn fail(&self, error: impl fmt::Display) -> Result<(), QueueError> {
        let error = error.to_string();
        self.end(Err(error)).await
    }

    /// Gives the entry back for another attempt. No worker of this crate takes it before a pause has passed, which grows
    /// with each attempt: see [`OpenQueue::pauses`](super::OpenQueue::pauses). After
    /// [`max_attempts`](super::OpenQueue::max_attempts) deliveries it goes to the dead letters instead. Await it, or set
    /// options first:
    ///
    /// ```
    /// # use apportion::{Config, PartitionCoordinator, backend};
    /// # fn work(_: &apportion::queue::Delivery) -> Result<(), String> { Err("no space left".into()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
    /// let queue = coordinator.queue("/reports").max_attempts(1).await?;
    /// queue.put("monthly").await?;
    /// let delivery = queue.take().await?;
    /// if let Err(error) = work(&delivery) {
    ///     delivery.release().because(error).await?;
    /// }
    /// assert_eq!(queue.dead_letters().await?[0].error(), Some("no space left"));
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`QueueError::Lost`] if this worker no longer had the entry. [`QueueError::OutcomeUnknown`] if the session ended
    /// before the reply came. [`QueueError::Closed`] if the coordinator is closed, [`QueueError::Service`] if the store
    /// did not answer.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub fn release(self) -> Release {
        Release::new(self.owned, self.handle)
    }

    /// As [`Delivery::release`], with this pause instead of the growing one. Zero: it can be taken again at once.
    ///
    /// # Errors
    ///
    /// As [`Delivery::release`].
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub fn release_after(self, pause: Duration) -> Release {
        Release::new(self.owned, self.handle).after(pause)
    }

    /// For the runner of a queue: gives the entry back. At the last attempt that the queue allows, it is a dead letter.
    pub(crate) async fn give_back(&self, how: GivenBack) -> Result<(), QueueError> {
        let owned = self.owned.clone();
        self.run("release", async move { owned.lock().await.release(how).await }).await
    }

    /// For the runner of a queue: makes the entry a dead letter. `None`: it had its last attempt before this delivery.
    pub(crate) async fn give_up(&self, reason: Option<String>) -> Result<(), QueueError> {
        let owned = self.owned.clone();
        self.run("give up", async move { owned.lock().await.give_up(reason).await }).await
    }

    async fn end(&self, outcome: Result<Json, String>) -> Result<(), QueueError> {
        let owned = self.owned.clone();
        self.run("end", async move { owned.lock().await.end(outcome).await }).await
    }

    async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, QueueError>> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.handle.shared.run(name, work).await?
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("entry", &self.entry)
            .field("attempt", &self.attempt())
            .field("lease", &self.lease)
            .finish_non_exhaustive()
    }
}

impl fmt::Display for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} (attempt {})", self.entry, self.attempt())
    }
}
