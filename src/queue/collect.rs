//! [`Collected`]: what has ended, taken from `done` by whoever is interested in results; and the dead letters.

use std::{fmt, ops::Deref, sync::Arc};

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

/// Something that has ended, with its result or its error; or, among the dead letters, one that never will by itself.
#[derive(Clone)]
pub struct Finished {
    entry: Entry,
    value: Value,
    version: i32,
}

impl Finished {
    /// The name: priority, label, and a number that says in which order things have ended.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// How it ended; `None` if that was written by somebody who does not say.
    pub fn state(&self) -> Option<State> {
        self.value.state()
    }

    /// What was put; see [`Delivery::payload`](super::Delivery::payload).
    pub fn payload(&self) -> Option<&Json> {
        self.value.payload()
    }

    /// What [`Delivery::done`](super::Delivery::done) was told.
    pub fn result(&self) -> Option<&Json> {
        self.value.result()
    }

    /// What was put, as a value of the caller's own type.
    ///
    /// # Errors
    ///
    /// What serde says if it is none.
    pub fn payload_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        self.value.payload_as()
    }

    /// What [`Delivery::done`](super::Delivery::done) was told, as a value of the caller's own type.
    ///
    /// # Errors
    ///
    /// What serde says if it is none, or if it has no result.
    pub fn result_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        T::deserialize(self.result().unwrap_or(&Json::Null))
    }

    /// What [`Delivery::fail`](super::Delivery::fail) was told.
    pub fn error(&self) -> Option<&str> {
        self.value.error()
    }

    /// Who had it last.
    pub fn worker(&self) -> Option<&str> {
        self.value.worker()
    }

    /// How often it was delivered.
    pub fn attempts(&self) -> u32 {
        self.value.attempt()
    }

    /// The value as it lies in the store, to the byte.
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

/// Results that were read, oldest first, and are still in `done`: [`Collected::confirm`] takes them out. Derefs to a
/// slice.
///
/// A collector that dies before that leaves them to the next one. Two at once may read the same, but each result is
/// confirmed by one of them only.
#[must_use = "results stay where they are until they are confirmed"]
pub struct Collected {
    handle: Arc<Handle>,
    results: Vec<Finished>,
}

impl Collected {
    /// Takes these results out of `done`, and returns those of them that no other collector has taken before: what is
    /// done with these is done once.
    ///
    /// # Errors
    ///
    /// [`QueueError::OutcomeUnknown`] if the session ended meanwhile: some may have been taken out. [`QueueError::Service`].
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background. What is to be done in any case is better done before.
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
                // Confirmed by another collector, or changed by an operator.
                Err(Unapplied::Refused { index, error })
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

/// Up to `max` of what is in `done`, once there is something if `waits`.
pub(super) async fn collect(handle: &Arc<Handle>, max: usize, waits: bool) -> Result<Collected, QueueError> {
    let shared = &handle.shared;
    loop {
        let (results, mut watch) = match read(shared, &shared.layout().done, max).await {
            // A caller that waits does so for the store as well.
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
                    ensure(&*live.session, &folder).await?;
                    live.session.watch_children(&folder).await?
                }
                found => found?,
            };
            let mut entries: Vec<_> = names.iter().filter_map(|name| readable(&folder, name)).collect();
            entries.sort_unstable_by(Entry::by_age);
            let finished = |(entry, found): (&Entry, Result<Option<Znode>, Denied>)| {
                // What is denied to us is another process's to collect.
                let (data, stat) = found.ok()??;
                Some(Finished { entry: entry.clone(), value: Value::read(&data), version: stat.version })
            };
            let sizes = &shared.sizes;
            let sizes = if folder == shared.layout().done { &sizes.done } else { &sizes.dead };
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

/// Removes a dead letter, for another life in `unowned` if it `revives`. Whether it was there.
pub(super) async fn end_letter(
    shared: Arc<Shared>,
    letter: Finished,
    revives: bool,
) -> Result<bool, QueueError> {
    let live = shared.live().await?;
    let (entry, dead) = (&letter.entry, &shared.layout().dead);
    let ops = if revives {
        shared.moves.revive(entry, letter.version, &letter.value)
    } else {
        vec![shared.moves.remove(dead, entry, letter.version)]
    };
    match shared.receipts.commit(&live, ops).await {
        Ok(receipted) => {
            if revives {
                shared.added(receipted.applied.created(CREATED).as_ref());
            }
            Ok(true)
        }
        Err(Unapplied::Refused {
            index: DELETED,
            error: backend::Error::NoNode | backend::Error::BadVersion,
        }) => Ok(false),
        Err(error) => Err(unapplied(&path_of(dead, entry), error)),
    }
}
