//! [`Delivery`]: an entry that this process has taken.

use std::{fmt, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use tokio::sync::Mutex;

use super::{
    entry::Entry,
    error::QueueError,
    moves::{CREATED, DELETED, Owned},
    shared::{Handle, Shared, unapplied},
    value::Value,
};
use crate::{
    backend::{self, Znode, path::ZnodePath},
    lease::{Around, FencingToken, Lease, LeaseGuard, LeaseLost},
    session::commit::{Applied, Evidence, Unapplied, Verdict},
};

/// An entry that this worker has taken from a queue. No other worker has it until it is ended, or until its lease is
/// lost. From [`WorkQueue::take`](super::WorkQueue::take) and its like.
///
/// A delivery that is dropped is given back in the background, and so is the delivery of a worker that dies. Then the
/// entry is delivered again, to this or another worker, after the other entries of its priority. Each delivery counts
/// as an attempt, with any end. (It does not count if the caller of `take` no longer waited.) After
/// [`max_attempts`](super::OpenQueue::max_attempts) deliveries the entry goes to the dead letters instead.
#[must_use = "a delivery that is dropped is given back"]
pub struct Delivery {
    entry: Entry,
    value: Value,
    lease: Lease,
    /// Shared with writes under way, so that a write that is cancelled half-way still records the entry's new version.
    owned: Arc<Mutex<OwnedEntry>>,
    handle: Arc<Handle>,
}

/// An entry that this process has taken: as its last write left it, with the guard of its claim.
pub(super) struct OwnedEntry {
    guard: Option<LeaseGuard>,
    shared: Arc<Shared>,
    owned: Owned,
}

impl OwnedEntry {
    /// An entry that was just taken. It does not count as an attempt until a caller gets it.
    pub(super) fn new(shared: Arc<Shared>, guard: LeaseGuard, owned: Owned) -> Self {
        let mut entry = OwnedEntry { guard: Some(guard), shared, owned };
        entry.set_back(entry.owned.value.attempt().saturating_sub(1));
        entry
    }

    fn guard(&mut self) -> &mut LeaseGuard {
        self.guard.as_mut().expect("it goes only when the delivery ends")
    }

    fn set_back(&mut self, attempt: u32) {
        let back = self.back(attempt);
        self.guard().set_back(back);
    }

    fn back(&self, attempt: u32) -> Around {
        Around { before: self.shared.moves.give_back(&self.owned, attempt), after: Vec::new() }
    }

    fn lost(&mut self) -> QueueError {
        LeaseLost { lock: self.guard().lease().path().to_string() }.into()
    }

    async fn update(&mut self, value: Value) -> Result<(), QueueError> {
        let lease = self.guard().lease().clone();
        let data = self.shared.checked(&value)?;
        let (before, after) = (self.owned.version, self.owned.version.wrapping_add(1));
        let mut ops = vec![self.shared.moves.update(&self.owned, data)];
        ops.extend(lease.checks());
        let judge = |found: Option<&Znode>| match found.map(|(_, stat)| stat.version) {
            Some(version) if version == before => Verdict::NotApplied,
            Some(version) if version == after => Verdict::Applied,
            _ => Verdict::Overtaken,
        };
        match lease.live().commit_once(&ops, Evidence::new(&self.owned.path, &judge)).await {
            Ok(_) => {}
            Err(Unapplied::Overtaken | Unapplied::Refused { error: backend::Error::NoNode, .. }) => {
                return Err(self.lost());
            }
            // The claim is not ours any more: the first operation is that on the entry.
            Err(Unapplied::Refused { index: 1.., error: backend::Error::BadVersion, .. }) => {
                return Err(self.lost());
            }
            Err(error) => return Err(unapplied(&self.owned.path, error)),
        }
        (self.owned.version, self.owned.value) = (after, value);
        self.set_back(self.owned.value.attempt());
        Ok(())
    }

    /// Ends it with `value`.
    async fn end(&mut self, value: &Value) -> Result<(), QueueError> {
        let data = self.shared.checked(value)?;
        let before = self.shared.moves.end(&self.owned, data);
        let (shared, entry, path) = (self.shared.clone(), self.owned.entry.clone(), self.owned.path.clone());
        let live = self.guard().lease().live().clone();
        let applied = self.finish(Around { before, after: Vec::new() }, Some(path.clone())).await?;
        // The reply was lost. Claim and entry are gone, but that does not prove that it has ended: an operator may have
        // deleted the claim, and another process may have given the entry back.
        if let Applied::Seen(_) = applied {
            let claim = value.claim().unwrap_or_default();
            if shared.find(&live, &shared.layout().done, &shared.sizes.done, &entry, claim).await.is_none() {
                return Err(QueueError::OutcomeUnknown { path: path.to_string() });
            }
        }
        shared.ended.notify_one();
        Ok(())
    }

    /// Gives it back for another attempt.
    async fn release(&mut self) -> Result<(), QueueError> {
        let back = self.back(self.owned.value.attempt());
        let created = self.finish(back, None).await?.created(CREATED);
        let unowned = &self.shared.layout().unowned;
        match created {
            // It went to the dead letters.
            Some(path) if path.parent().as_ref() != Some(unowned) => {}
            path => self.shared.added(path.as_ref()),
        }
        Ok(())
    }

    async fn finish(&mut self, ops: Around, evidence: Option<ZnodePath>) -> Result<Applied, QueueError> {
        let lost = self.lost();
        let guard = self.guard.take().expect("it goes only when the delivery ends");
        match guard.finish(ops, evidence).await.map_err(|error| self.shared.service(error))? {
            Ok(applied) => Ok(applied),
            Err(
                Unapplied::Overtaken
                | Unapplied::Refused { index: DELETED, error: backend::Error::NoNode, .. },
            ) => Err(lost),
            Err(error) => Err(unapplied(&self.owned.path, error)),
        }
    }
}

/// Writes a value as JSON.
pub(super) fn to_json(value: impl Serialize) -> Result<Json, QueueError> {
    serde_json::to_value(value).map_err(|error| QueueError::Payload { reason: error.to_string() })
}

impl Delivery {
    /// The delivery for the caller that waits for it. From here on it counts as an attempt.
    pub(super) fn new(mut owned: OwnedEntry, handle: Arc<Handle>) -> Self {
        owned.set_back(owned.owned.value.attempt());
        let lease = owned.guard().lease().clone();
        let (entry, value) = (owned.owned.entry.clone(), owned.owned.value.clone());
        Delivery { entry, value, lease, owned: Arc::new(Mutex::new(owned)), handle }
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

    /// The value as it was in the store when it was taken, as bytes.
    pub fn raw(&self) -> &[u8] {
        self.value.raw()
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
    /// [`QueueError::Lost`] if this worker no longer has the entry. [`QueueError::OutcomeUnknown`] if the session ended
    /// before the reply came. After the other errors the entry is given back: [`QueueError::TooLarge`],
    /// [`QueueError::Payload`], [`QueueError::Closed`], [`QueueError::Service`].
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub async fn done(self, result: impl Serialize) -> Result<(), QueueError> {
        let result = to_json(result)?;
        self.end(Ok(result)).await
    }

    /// Ends the entry with an error. It goes to `done` with the state [`State::Failed`](super::State::Failed), and is
    /// not tried again. For another attempt, use [`Delivery::release`].
    ///
    /// # Errors
    ///
    /// As [`Delivery::done`].
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub async fn fail(self, error: impl fmt::Display) -> Result<(), QueueError> {
        let error = error.to_string();
        self.end(Err(error)).await
    }

    /// Gives the entry back for another attempt, behind the other entries of its priority. After
    /// [`max_attempts`](super::OpenQueue::max_attempts) deliveries it goes to the dead letters instead.
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
    pub async fn release(self) -> Result<(), QueueError> {
        let owned = self.owned.clone();
        self.run("release", async move { owned.lock().await.release().await }).await
    }

    async fn end(self, outcome: Result<Json, String>) -> Result<(), QueueError> {
        let owned = self.owned.clone();
        let end = async move {
            let mut owned = owned.lock().await;
            let value = owned.owned.value.ended(outcome);
            owned.end(&value).await
        };
        self.run("end", end).await
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
