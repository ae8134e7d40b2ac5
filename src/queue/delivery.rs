//! [`Delivery`]: something that was taken, and how it ends.

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

/// Something that this worker has taken from a queue, and nobody else has: until it is ended, or its lease is lost.
///
/// Dropped, it is given back in the background, and so is that of a worker that dies: then it is delivered again,
/// here or elsewhere, after the other entries of its priority. Each delivery counts as an attempt, however it came to
/// its end. (One that nobody waited for any more when it came does not.) After
/// [`max_attempts`](super::OpenQueue::max_attempts) the entry goes to the dead letters instead.
#[must_use = "dropped, it is given back"]
pub struct Delivery {
    entry: Entry,
    value: Value,
    lease: Lease,
    /// Shared with writes under way, so that dropping one half-way does not lose track of the entry.
    owned: Arc<Mutex<OwnedEntry>>,
    handle: Arc<Handle>,
}

/// What this process has taken, and what becomes of it: the entry as it was left last, and the guard of its claim.
pub(super) struct OwnedEntry {
    guard: Option<LeaseGuard>,
    shared: Arc<Shared>,
    owned: Owned,
}

impl OwnedEntry {
    /// What was taken, and counts for nothing until a caller gets it.
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
            Err(Unapplied::Refused { index: 1.., error: backend::Error::BadVersion }) => {
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
        // The reply was lost. That claim and entry are gone tells little: an operator may have deleted the claim, and
        // another process have given the entry back.
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
            // To the dead letters.
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
                Unapplied::Overtaken | Unapplied::Refused { index: DELETED, error: backend::Error::NoNode },
            ) => Err(lost),
            Err(error) => Err(unapplied(&self.owned.path, error)),
        }
    }
}

/// As JSON.
pub(super) fn to_json(value: impl Serialize) -> Result<Json, QueueError> {
    serde_json::to_value(value).map_err(|error| QueueError::Payload { reason: error.to_string() })
}

impl Delivery {
    /// The delivery, to the caller that waits for it.
    pub(super) fn new(mut owned: OwnedEntry, handle: Arc<Handle>) -> Self {
        owned.set_back(owned.owned.value.attempt());
        let lease = owned.guard().lease().clone();
        let (entry, value) = (owned.owned.entry.clone(), owned.owned.value.clone());
        Delivery { entry, value, lease, owned: Arc::new(Mutex::new(owned)), handle }
    }

    /// What was chosen by: priority, label, sequence.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// What was put. Of a value that this library did not write, the whole of it; `None` if that is not JSON.
    pub fn payload(&self) -> Option<&Json> {
        self.value.payload()
    }

    /// What was put, as a value of a type of one's own.
    ///
    /// # Errors
    ///
    /// What serde says if it is none.
    pub fn payload_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        self.value.payload_as()
    }

    /// The value as it lay in the store when it was taken, to the byte.
    pub fn raw(&self) -> &[u8] {
        self.value.raw()
    }

    /// How often it was delivered so far, this time included.
    pub fn attempt(&self) -> u32 {
        self.value.attempt()
    }

    /// Whether it is still this worker's, a token for other stores, and
    /// [`while_held`](Lease::while_held) to stop the work when it is not.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// What a store can compare that the work writes to; of two deliveries of one entry the later has the higher one.
    pub fn token(&self) -> FencingToken {
        self.lease.token()
    }

    /// Writes another payload, for instance how far the work has come: whoever gets the entry next goes on there.
    ///
    /// # Errors
    ///
    /// [`QueueError::Lost`] if it is no longer this worker's, [`QueueError::TooLarge`], [`QueueError::Payload`],
    /// [`QueueError::OutcomeUnknown`], [`QueueError::Service`].
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background; [`Delivery::payload`] then shows the old one.
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

    /// Ends it with a result, which goes to `done` for somebody to [collect](super::WorkQueue::collect).
    ///
    /// # Errors
    ///
    /// [`QueueError::Lost`] if it is no longer this worker's, [`QueueError::OutcomeUnknown`] if that cannot be known; else
    /// it is given back: [`QueueError::TooLarge`], [`QueueError::Payload`], [`QueueError::Service`].
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background.
    pub async fn done(self, result: impl Serialize) -> Result<(), QueueError> {
        let result = to_json(result)?;
        self.end(Ok(result)).await
    }

    /// Ends it with an error, for good, as the original does: it goes to `done` with the state
    /// [`State::Failed`](super::State::Failed). For another attempt, [`Delivery::release`] it.
    ///
    /// # Errors
    ///
    /// As [`Delivery::done`].
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background.
    pub async fn fail(self, error: impl fmt::Display) -> Result<(), QueueError> {
        let error = error.to_string();
        self.end(Err(error)).await
    }

    /// Gives it back for another attempt, behind the other entries of its priority; after
    /// [`max_attempts`](super::OpenQueue::max_attempts) it goes to the dead letters instead.
    ///
    /// # Errors
    ///
    /// [`QueueError::Lost`] if it was no longer this worker's, [`QueueError::Service`].
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background.
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
