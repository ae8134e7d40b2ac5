//! [`Duplicates`]: the requests that a worker has or had, so that it does not run a copy of one.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::worker::message::Action;

/// How many requests that have run are remembered.
const REMEMBERED: usize = 1024;

/// The requests that are at a worker, and the last ones that it has run. Clones share the table.
#[derive(Debug, Default, Clone)]
pub(super) struct Duplicates(Arc<Mutex<Table>>);

#[derive(Debug, Default)]
struct Table {
    known: BTreeSet<Arc<RequestKey>>,
    /// The known requests that have run, the oldest first.
    done: VecDeque<Arc<RequestKey>>,
}

/// Identifies a request.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RequestKey {
    pub(super) reply_to: String,
    pub(super) correlation_id: String,
    pub(super) action: Action,
}

impl Duplicates {
    /// Enters a request; `None` if it is known already. With `is_unique`, its executor uses the id only once.
    pub(super) fn enter(&self, key: RequestKey, is_unique: bool) -> Option<Present> {
        let key = Arc::new(key);
        let is_new = self.table().known.insert(key.clone());
        is_new.then(|| Present { duplicates: self.clone(), key, is_unique, has_run: false })
    }

    /// No code panics under the lock, so a poisoned lock has a valid table.
    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is at the worker. Until this is dropped, a copy of the request is not taken. If the request has run
/// and its id is used only once, a later copy is not taken either.
pub(super) struct Present {
    duplicates: Duplicates,
    key: Arc<RequestKey>,
    is_unique: bool,
    pub(super) has_run: bool,
}

impl Drop for Present {
    fn drop(&mut self) {
        let mut table = self.duplicates.table();
        if !(self.has_run && self.is_unique) {
            table.known.remove(&self.key);
            return;
        }
        if table.done.len() == REMEMBERED
            && let Some(oldest) = table.done.pop_front()
        {
            table.known.remove(&oldest);
        }
        table.done.push_back(self.key.clone());
    }
}
