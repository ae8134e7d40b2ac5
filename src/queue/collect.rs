//! [`Collected`]: results from the folder `done`; and the dead letters.

use std::{fmt, ops::Deref, sync::Arc, time::Duration};

use serde::de::DeserializeOwned;
use serde_json::Value as Json;

use super::{
    entry::Entry,
    error::QueueError,
    moves::{CREATED, DELETED},
    names::{path_of, readable},
    shared::{Handle, Shared, unapplied},
    value::{State, Value},
};
use crate::{
    backend::{self, Watch, Znode, path::ZnodePath},
    error::Error,
    session::{
        commit::Unapplied,
        read::{Denied, read_each},
        requests::{DELETED_AT_ONCE, ensure},
    },
};

/// An entry that has ended, with its result or its error, or a dead letter. From [`Collected`] or
/// [`WorkQueue::dead_letters`](super::WorkQueue::dead_letters).
#[derive(Clone)]
pub struct Finished {
    entry: Entry,
    value: Value,
    version: i32,
    is_dead: bool,
    // Decoded once.
    result: Option<Json>,
    error: Option<String>,
    worker: Option<String>,
}

impl Finished {
    pub(super) fn read(entry: &Entry, (data, stat): &Znode, is_dead: bool) -> Self {
        let value = Value::read(data);
        let (result, error, worker) = (value.result(), value.error(), value.worker());
        Finished { entry: entry.clone(), value, version: stat.version, is_dead, result, error, worker }
    }

    /// Whether it is a dead letter, and not the result of a worker.
    pub fn is_dead_letter(&self) -> bool {
        self.is_dead
    }

    /// Its name, with priority and label. The sequence number shows the order in which entries have ended.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Its state; `None` if the process that wrote it did not write one.
    pub fn state(&self) -> Option<State> {
        self.value.state()
    }

    /// Its payload; see [`Delivery::payload`](super::Delivery::payload).
    pub fn payload(&self) -> Option<&Json> {
        self.value.payload()
    }

    /// The result that the worker gave to [`Delivery::done`](super::Delivery::done); `None` if there is none.
    pub fn result(&self) -> Option<&Json> {
        self.result.as_ref()
    }

    /// Its payload, as a value of type `T`.
    ///
    /// # Errors
    ///
    /// The error of serde if the payload is not a `T`.
    pub fn payload_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        self.value.payload_as()
    }

    /// The result that the worker gave to [`Delivery::done`](super::Delivery::done), as a value of type `T`. A missing
    /// result is read as `null`.
    ///
    /// # Errors
    ///
    /// The error of serde if the result is not a `T`.
    pub fn result_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(self.result().unwrap_or(&Json::Null))
    }

    /// The error that the worker gave to [`Delivery::fail`](super::Delivery::fail). Of a dead letter: why its last delivery
    /// has failed, as given to [`Release::because`](super::Release::because), or that its worker was gone. `None` if there
    /// is none.
    pub fn error(&self) -> Option<&str> {
        self.error.as_deref()
    }

    /// The member id of the worker that ended it; of a dead letter, the worker that had it last. `None` if it is not known.
    pub fn worker(&self) -> Option<&str> {
        self.worker.as_deref()
    }

    /// How often it was delivered.
    pub fn attempts(&self) -> u32 {
        self.value.attempt()
    }

    /// The value in the store, as bytes. What another program has put is returned as it put it, to the byte.
    pub fn raw(&self) -> &[u8] {
        self.value.raw()
    }
}

impl fmt::Debug for Finished {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Finished")
            .field("entry", &self.entry)
            .field("value", &self.value)
            .finish_non_exhaustive()
    }
}

/// Results that were read, the oldest first, and are still in `done`: [`Collected::confirm`] removes them. Derefs to a
/// slice. From [`WorkQueue::collect`](super::WorkQueue::collect).
///
/// If a collector dies before it confirms, the next collector reads the same results. Two collectors at once may read
/// the same results, but only one of them confirms each result.
#[must_use = "results stay where they are until they are confirmed"]
pub struct Collected {
    handle: Arc<Handle>,
    results: Vec<Finished>,
}

impl Collected {
    /// Removes these results from `done`, and returns those that this call has removed. Each result is returned by one
    /// call only, in any process.
    ///
    /// # Errors
    ///
    /// [`QueueError::OutcomeUnknown`] if the session ended before the reply came: some of the results may have been
    /// removed. [`QueueError::Closed`] if the coordinator is closed, [`QueueError::Service`] if the store did not
    /// answer.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background, and the caller does not get the results. Use the results before
    /// this call if none may be lost.
    pub async fn confirm(self) -> Result<Vec<Finished>, QueueError> {
        let Collected { handle, results } = self;
        let shared = handle.shared.clone();
        handle.shared.run("confirm", confirm(shared, results)).await?
    }
}

impl Deref for Collected {
    type Target = [Finished];

    fn deref(&self) -> &[Finished] {
        &self.results
    }
}

impl<'a> IntoIterator for &'a Collected {
    type Item = &'a Finished;
    type IntoIter = std::slice::Iter<'a, Finished>;

    fn into_iter(self) -> Self::IntoIter {
        self.results.iter()
    }
}

impl fmt::Debug for Collected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.results).finish()
    }
}

async fn confirm(shared: Arc<Shared>, results: Vec<Finished>) -> Result<Vec<Finished>, QueueError> {
    let done = &shared.layout().done;
    let live = shared.live().await?;
    let mut confirmed = Vec::with_capacity(results.len());
    for batch in results.chunks(DELETED_AT_ONCE) {
        let mut batch = batch.to_vec();
        while !batch.is_empty() {
            let remove = |result: &Finished| shared.moves.remove(done, &result.entry, result.version);
            match shared.receipts.commit(&live, batch.iter().map(remove).collect()).await {
                Ok(_) => break,
                // Another collector has confirmed it, or an operator has changed it.
                Err(Unapplied::Refused { index, error, .. })
                    if index < batch.len() && error != backend::Error::NotPermitted =>
                {
                    drop(batch.remove(index));
                }
                Err(error) => return Err(unapplied(done, error)),
            }
        }
        confirmed.append(&mut batch);
    }
    Ok(confirmed)
}

/// Reads up to `max` results from `done`. If `waits`, waits until there is one.
pub(super) async fn collect(handle: &Arc<Handle>, max: usize, waits: bool) -> Result<Collected, QueueError> {
    let shared = &handle.shared;
    loop {
        let (results, mut watch) = match read(shared, &shared.layout().done, max).await {
            // A caller that waits for results also waits for the store.
            Err(Error::Unreachable { .. }) if waits => continue,
            read => read.map_err(|error| shared.service(error))?,
        };
        if !results.is_empty() || !waits {
            return Ok(Collected { handle: handle.clone(), results });
        }
        watch.fired().await;
    }
}

/// Up to `max` of the entries in a folder, oldest first, and a watch on it.
async fn read(shared: &Arc<Shared>, folder: &ZnodePath, max: usize) -> Result<(Vec<Finished>, Watch), Error> {
    let access = shared.leases.access();
    let (shared, place) = (shared.clone(), folder.clone());
    let read = access.repeat(folder, move |live| {
        let (shared, folder) = (shared.clone(), place.clone());
        Box::pin(async move {
            let (names, _, watch) = match live.session.watch_children(&folder).await {
                Err(backend::Error::NoNode) => {
                    ensure(&*live.session, &folder).await.map_err(|failure| failure.error)?;
                    live.session.watch_children(&folder).await?
                }
                found => found?,
            };
            let mut entries: Vec<_> = names.iter().filter_map(|name| readable(&folder, name)).collect();
            entries.sort_unstable_by(Entry::by_age);
            let is_dead = folder == shared.layout().dead;
            let finished = |(entry, found): (&Entry, Result<Option<Znode>, Denied>)| {
                // A process that may read the result collects it.
                Some(Finished::read(entry, &found.ok()??, is_dead))
            };
            let sizes = if is_dead { &shared.sizes.dead } else { &shared.sizes.done };
            let (mut results, mut rest) = (Vec::new(), &entries[..]);
            // More than once only where some are denied or gone.
            while results.len() < max && !rest.is_empty() {
                let (some, later) = rest.split_at(rest.len().min(max - results.len()));
                let paths: Vec<_> = some.iter().map(|entry| path_of(&folder, entry)).collect();
                let found = read_each(&*live.session, &paths, sizes).await?;
                results.extend(some.iter().zip(found).filter_map(finished));
                rest = later;
            }
            Ok((results, watch))
        })
    });
    read.await
}

/// All dead letters, oldest first.
pub(super) async fn dead_letters(shared: &Arc<Shared>) -> Result<Vec<Finished>, QueueError> {
    let read = read(shared, &shared.layout().dead, usize::MAX).await;
    Ok(read.map_err(|error| shared.service(error))?.0)
}

/// Removes a result or a dead letter; if `revives`, puts it back into `unowned`. Returns whether it was still there.
pub(super) async fn end_letter(
    shared: Arc<Shared>,
    letter: Finished,
    revives: bool,
) -> Result<bool, QueueError> {
    let layout = shared.layout();
    let (entry, folder) = (&letter.entry, if letter.is_dead { &layout.dead } else { &layout.done });
    let ops = match revives {
        true if letter.is_dead => shared.moves.revive(entry, letter.version, &letter.value),
        // A result has ended for good.
        true => return Ok(false),
        false => vec![shared.moves.remove(folder, entry, letter.version)],
    };
    let live = shared.live().await?;
    match shared.receipts.commit(&live, ops).await {
        Ok(receipted) => {
            if revives {
                shared.added(receipted.applied.created(CREATED).as_ref(), Duration::ZERO);
            }
            Ok(true)
        }
        Err(Unapplied::Refused {
            index: DELETED,
            error: backend::Error::NoNode | backend::Error::BadVersion,
            ..
        }) => Ok(false),
        Err(error) => Err(unapplied(&path_of(folder, entry), error)),
    }
}
