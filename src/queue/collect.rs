//! [`Collected`]: what has ended, taken from `done` by whoever is interested in results; and the dead letters.

use std::{fmt, ops::Deref, sync::Arc};

use serde_json::Value as Json;

use super::{
    entry::Entry,
    error::QueueError,
    layout::Layout,
    open::{Handle, Shared},
    receipts::NotDone,
    recovery::{appeared, path_of},
    shelf::readable,
    value::{State, Value},
};
use crate::{
    backend::{self, CreateMode, Done, Op, Watch, path::ZnodePath},
    error::Error,
    session::{
        Live,
        requests::{ensure, get_each},
    },
};

/// How many znodes are read in one request, and how many results are removed in one transaction.
const AT_ONCE: usize = 100;

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
    /// [`QueueError::Unknown`] if the session ended meanwhile: some may have been taken out. [`QueueError::Service`].
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background. What is to be done in any case is better done before.
    pub async fn confirm(self) -> Result<Vec<Finished>, QueueError> {
        let Collected { handle, results } = self;
        let shared = handle.shared.clone();
        handle.shared.leases.run("confirm", confirm(shared, results)).await?
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

async fn confirm(shared: Arc<Shared>, mut results: Vec<Finished>) -> Result<Vec<Finished>, QueueError> {
    let done = &shared.layout.done;
    let live = shared.leases.access().live().await?;
    let mut confirmed = Vec::with_capacity(results.len());
    while !results.is_empty() {
        let mut batch: Vec<_> = results.drain(..results.len().min(AT_ONCE)).collect();
        loop {
            let ops =
                batch.iter().map(|result| Op::delete(&path_of(done, &result.entry), Some(result.version)));
            match shared.receipts.commit(&live, ops.collect()).await {
                Ok(_) => break,
                // Confirmed by another collector, or not to be deleted.
                Err(NotDone::Refused { index, .. }) if index < batch.len() => drop(batch.remove(index)),
                Err(NotDone::Refused { error, .. } | NotDone::Backend(error)) => {
                    return Err(QueueError::at(done)(error));
                }
                Err(NotDone::Unknown) => return Err(QueueError::Unknown { path: done.to_string() }),
            }
        }
        confirmed.append(&mut batch);
    }
    Ok(confirmed)
}

/// Up to `max` of what is in `done`, once there is something if `waits`.
pub(crate) async fn collect(handle: &Arc<Handle>, max: usize, waits: bool) -> Result<Collected, QueueError> {
    let done = &handle.shared.layout.done;
    let access = handle.shared.leases.access();
    loop {
        let read = access.repeat(done, {
            let done = done.clone();
            move |live| {
                let done = done.clone();
                Box::pin(async move { read(live, &done, max).await })
            }
        });
        let (results, mut watch) = match read.await {
            // Whoever waits does so for the store as well.
            Err(Error::Unreachable { .. }) if waits => continue,
            read => read?,
        };
        if !results.is_empty() || !waits {
            return Ok(Collected { handle: handle.clone(), results });
        }
        watch.fired().await;
    }
}

/// Up to `max` of the entries in a folder, oldest first, and a watch on it.
async fn read(live: &Live, folder: &ZnodePath, max: usize) -> Result<(Vec<Finished>, Watch), backend::Error> {
    let (names, _, watch) = loop {
        match live.session.watch_children(folder).await {
            Err(backend::Error::NoNode) => ensure(&*live.session, folder).await?,
            found => break found?,
        }
    };
    let mut entries: Vec<_> = names.iter().filter_map(|name| readable(folder, name)).collect();
    entries.sort_unstable_by(Entry::by_age);
    entries.truncate(max);
    let mut results = Vec::with_capacity(entries.len());
    for entries in entries.chunks(AT_ONCE) {
        let paths: Vec<_> = entries.iter().map(|entry| path_of(folder, entry)).collect();
        let found = get_each(&*live.session, &paths).await?;
        results.extend(entries.iter().zip(found).filter_map(|(entry, found)| {
            // What is kept from us is somebody else's to collect.
            let (data, stat) = found.ok()??;
            Some(Finished { entry: entry.clone(), value: Value::read(&data), version: stat.version })
        }));
    }
    Ok((results, watch))
}

/// All dead letters, oldest first.
pub(crate) async fn dead_letters(shared: &Shared) -> Result<Vec<Finished>, QueueError> {
    let dead = shared.layout.dead.clone();
    let read = shared.leases.access().repeat(&shared.layout.dead, move |live| {
        let dead = dead.clone();
        Box::pin(async move { read(live, &dead, usize::MAX).await })
    });
    Ok(read.await?.0)
}

/// Removes a dead letter, for another life in `unowned` if it `revives`. Whether it was there.
pub(crate) async fn settle_dead(
    shared: Arc<Shared>,
    letter: Finished,
    revives: bool,
) -> Result<bool, QueueError> {
    let layout = &shared.layout;
    let live = shared.leases.access().live().await?;
    let (entry, dead) = (&letter.entry, path_of(&layout.dead, &letter.entry));
    let mut ops = vec![Op::delete(&dead, Some(letter.version))];
    if revives {
        let to = Layout::entry(&layout.unowned, entry.priority(), entry.label());
        let data = letter.value.given_back(0).data();
        ops.push(Op::create(&to, data, CreateMode::PersistentSequential));
        ops.extend(appeared(layout, entry.label()));
    }
    match shared.receipts.commit(&live, ops).await {
        Ok(done) => {
            if revives {
                let path = done.and_then(|done| match done.into_iter().nth(1) {
                    Some(Done::Created(path)) => Some(path),
                    _ => None,
                });
                shared.shelf.add(path.as_ref().map(ZnodePath::name));
            }
            Ok(true)
        }
        Err(NotDone::Refused { index: 0, error: backend::Error::NoNode | backend::Error::BadVersion }) => {
            Ok(false)
        }
        Err(NotDone::Refused { error, .. } | NotDone::Backend(error)) => Err(QueueError::at(&dead)(error)),
        Err(NotDone::Unknown) => Err(QueueError::Unknown { path: dead.to_string() }),
    }
}
