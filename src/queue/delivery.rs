//! [`Delivery`]: something that was taken, and how it ends.

use std::{fmt, sync::Arc};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use tokio::sync::Mutex;

use super::{
    entry::Entry,
    error::{MAX_VALUE_BYTES, QueueError},
    layout::Layout,
    open::{Handle, Shared},
    recovery::give_back,
    take::find,
    value::Value,
};
use crate::{
    backend::{self, CommitError, CreateMode, Done, Op, path::ZnodePath},
    error::Error,
    lease::{Around, Hold, Lease, LeaseLost, Unfinished},
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
    custody: Arc<Mutex<Custody>>,
    handle: Arc<Handle>,
}

/// What is held, and the znode as we left it last.
pub(crate) struct Custody {
    hold: Option<Hold>,
    shared: Arc<Shared>,
    entry: Entry,
    owned: ZnodePath,
    version: i32,
    value: Value,
}

impl Custody {
    /// What was taken, and counts for nothing until somebody gets it.
    pub(crate) fn new(shared: Arc<Shared>, hold: Hold, entry: Entry, owned: ZnodePath, value: Value) -> Self {
        let mut custody = Custody { hold: Some(hold), shared, entry, owned, version: 0, value };
        custody.set_back(custody.value.attempt().saturating_sub(1));
        custody
    }

    /// The delivery, to whoever waits for it.
    pub(crate) fn deliver(mut self, handle: Arc<Handle>) -> Delivery {
        self.set_back(self.value.attempt());
        let lease = self.hold().lease().clone();
        let (entry, value) = (self.entry.clone(), self.value.clone());
        Delivery { entry, value, lease, custody: Arc::new(Mutex::new(self)), handle }
    }

    fn hold(&mut self) -> &mut Hold {
        self.hold.as_mut().expect("it is given away only with the delivery")
    }

    fn set_back(&mut self, attempt: u32) {
        let back = self.back(attempt);
        self.hold().set_back(back);
    }

    fn back(&self, attempt: u32) -> Around {
        give_back(&self.shared, &self.owned, &self.entry, self.version, &self.value, attempt)
    }

    fn lost(&mut self) -> QueueError {
        LeaseLost { lock: self.hold().lease().path().to_string() }.into()
    }

    async fn update(&mut self, value: Value) -> Result<(), QueueError> {
        let lease = self.hold().lease().clone();
        let data = checked(&value)?;
        let next = self.version.wrapping_add(1);
        let mut ops = vec![Op::set(&self.owned, data, Some(self.version))];
        ops.extend(lease.checks());
        let live = lease.live();
        loop {
            let error = match live.session.commit(ops.clone()).await {
                Ok(_) => break,
                Err(CommitError { index: Some(0), error: backend::Error::BadVersion }) => {
                    return Err(QueueError::at(&self.owned)(backend::Error::BadVersion));
                }
                Err(CommitError { index: Some(0 | 1), error: backend::Error::NoNode }) => {
                    return Err(self.lost());
                }
                Err(CommitError { error, .. }) => error,
            };
            if !error.is_unknown() {
                return Err(QueueError::at(&self.owned)(error));
            }
            match live.read_back(&self.owned).await {
                Ok(Some((_, stat))) if stat.version == next => break,
                Ok(Some((_, stat))) if stat.version == self.version => {}
                Ok(_) => return Err(self.lost()),
                Err(_) => return Err(QueueError::Unknown { path: self.owned.to_string() }),
            }
        }
        (self.version, self.value) = (next, value);
        self.set_back(self.value.attempt());
        Ok(())
    }

    /// Ends it: to `folder`, with `value`.
    async fn end(&mut self, folder: &ZnodePath, value: &Value) -> Result<(), QueueError> {
        let to = Layout::entry(folder, self.entry.priority(), self.entry.label());
        let data = checked(value)?;
        let before = vec![
            Op::delete(&self.owned, Some(self.version)),
            Op::create(&to, data, CreateMode::PersistentSequential),
        ];
        let (owned, live) = (self.owned.clone(), self.hold().lease().live().clone());
        let done = self.finish(Around { before, after: Vec::new() }, Some(owned.clone())).await?;
        // The reply was lost. That claim and entry are gone tells little: somebody may have deleted the claim, and
        // others have given the entry back.
        if done.is_none() {
            let claim = value.claim().unwrap_or_default();
            if find(&live, folder, &self.entry, claim).await.is_none() {
                return Err(QueueError::Unknown { path: owned.to_string() });
            }
        }
        self.shared.ended.notify_one();
        Ok(())
    }

    /// Gives it back for another attempt.
    async fn release(&mut self) -> Result<(), QueueError> {
        let back = self.back(self.value.attempt());
        let name = match self.finish(back, None).await? {
            Some(done) => match done.into_iter().nth(1) {
                Some(Done::Created(path)) => Some(path),
                _ => None,
            },
            None => None,
        };
        match name {
            Some(path) if path.parent().as_ref() != Some(&self.shared.layout.unowned) => {}
            path => self.shared.shelf.add(path.as_ref().map(ZnodePath::name)),
        }
        Ok(())
    }

    async fn finish(
        &mut self,
        ops: Around,
        evidence: Option<ZnodePath>,
    ) -> Result<Option<Vec<Done>>, QueueError> {
        let lost = self.lost();
        let hold = self.hold.take().expect("it is given away only with the delivery");
        match hold.finish(ops, evidence).await? {
            Ok(done) => Ok(done),
            Err(Unfinished::Lost | Unfinished::Refused { index: 0, error: backend::Error::NoNode }) => {
                Err(lost)
            }
            Err(Unfinished::Unknown(_)) => Err(QueueError::Unknown { path: self.owned.to_string() }),
            Err(Unfinished::Refused { error, .. } | Unfinished::Backend(error)) => {
                Err(QueueError::at(&self.owned)(error))
            }
        }
    }
}

/// The data of a value that fits.
pub(crate) fn checked(value: &Value) -> Result<Vec<u8>, QueueError> {
    let data = value.data();
    let bytes = data.len();
    if bytes > MAX_VALUE_BYTES { Err(QueueError::TooLarge { bytes }) } else { Ok(data) }
}

/// As JSON.
pub(crate) fn to_json(value: impl Serialize) -> Result<Json, QueueError> {
    serde_json::to_value(value).map_err(|error| QueueError::Payload(error.to_string()))
}

impl Delivery {
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
        match self.payload() {
            Some(payload) => T::deserialize(payload),
            None => serde_json::from_slice(self.raw()),
        }
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

    /// Writes another payload, for instance how far the work has come: whoever gets the entry next goes on there.
    ///
    /// # Errors
    ///
    /// [`QueueError::Lost`] if it is no longer this worker's, [`QueueError::TooLarge`], [`QueueError::Payload`],
    /// [`QueueError::Unknown`], [`QueueError::Service`].
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background; [`Delivery::payload`] then shows the old one.
    pub async fn update(&mut self, payload: impl Serialize) -> Result<(), QueueError> {
        let payload = to_json(payload)?;
        let custody = self.custody.clone();
        self.value = self
            .run("update", async move {
                let mut custody = custody.lock().await;
                let value = custody.value.updated(payload);
                custody.update(value).await?;
                Ok(custody.value.clone())
            })
            .await?;
        Ok(())
    }

    /// Ends it with a result, which goes to `done` for somebody to [collect](super::WorkQueue::collect).
    ///
    /// # Errors
    ///
    /// [`QueueError::Lost`] if it is no longer this worker's, [`QueueError::Unknown`] if that cannot be known; else
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
        let custody = self.custody.clone();
        self.run("release", async move { custody.lock().await.release().await }).await
    }

    async fn end(self, outcome: Result<Json, String>) -> Result<(), QueueError> {
        let custody = self.custody.clone();
        let end = async move {
            let mut custody = custody.lock().await;
            let (value, folder) = (custody.value.ended(outcome), custody.shared.layout.done.clone());
            custody.end(&folder, &value).await
        };
        self.run("end", end).await
    }

    async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = Result<T, QueueError>> + Send + 'static,
    ) -> Result<T, QueueError> {
        self.handle.shared.leases.run(name, work).await.map_err(|error: Error| QueueError::from(error))?
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
