//! [`Duplicates`]: the requests that a worker has or had, so that it does not run a copy of one, and can say what it
//! has.

use std::{
    collections::{BTreeMap, VecDeque},
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
    known: BTreeMap<Arc<RequestKey>, Stage>,
    /// The known requests that have run, the oldest first.
    done: VecDeque<Arc<RequestKey>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Waiting,
    /// It runs, or its end is being reported.
    Running,
    Done,
}

/// Identifies a request.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct RequestKey {
    pub(super) reply_to: String,
    pub(super) correlation_id: String,
    pub(super) action: Action,
}

impl Duplicates {
    /// Enters a request that waits; `None` if it is known already. With `is_unique`, its executor uses the id only once.
    pub(super) fn enter(&self, key: RequestKey, is_unique: bool) -> Option<Present> {
        let key = Arc::new(key);
        let mut table = self.table();
        if table.known.contains_key(&key) {
            return None;
        }
        table.known.insert(key.clone(), Stage::Waiting);
        Some(Present { duplicates: self.clone(), key, is_unique, has_run: false })
    }

    /// The ids of the requests of the executor at `reply_to`: those that wait, and those that run.
    pub(super) fn of(&self, reply_to: &str) -> (Vec<String>, Vec<String>) {
        let table = self.table();
        let ids = |wanted: Stage| {
            let of_executor =
                table.known.iter().filter(|(key, stage)| **stage == wanted && key.reply_to == reply_to);
            of_executor.map(|(key, _)| key.correlation_id.clone()).collect()
        };
        (ids(Stage::Waiting), ids(Stage::Running))
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
    pub(super) is_unique: bool,
    has_run: bool,
}

impl Present {
    /// It is about to be run, and its executor was told so. Not before that: what is listed as running has run, in part
    /// or in full, for the executor.
    pub(super) fn begin(&mut self) {
        self.has_run = true;
        self.duplicates.table().known.insert(self.key.clone(), Stage::Running);
    }
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
        table.known.insert(self.key.clone(), Stage::Done);
        table.done.push_back(self.key.clone());
    }
}
