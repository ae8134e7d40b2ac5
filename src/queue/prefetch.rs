//! [`Prefetch`]: the values of the entries that are probably taken next, read together with the value of the present
//! one.
//!
//! A worker that takes one small entry after another would spend a third of its time on reading values. The store still
//! decides which process gets an entry: it refuses a move of an entry that has changed since it was read.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::entry::Entry;
use crate::{
    backend::{SessionId, Znode},
    clock::Moment,
};

/// How many values are prefetched.
const MOST: usize = 7;

/// Values are prefetched if the last value has at most this size, in bytes.
const SMALL: usize = 4096;

/// How long a prefetched value is used. Values are prefetched for a worker that takes the next entry within this time.
const SOON: Duration = Duration::from_millis(100);

/// See the module documentation.
#[derive(Default)]
pub(super) struct Prefetch(Mutex<State>);

#[derive(Default)]
struct State {
    /// When the value of an entry to take was read last, and its length.
    last: Option<(Moment, usize)>,
    read: HashMap<Entry, Znode>,
    /// In which session the values were read, and when.
    by: Option<(SessionId, Moment)>,
}

impl Prefetch {
    /// Takes the value of this entry out, if it was prefetched a moment ago.
    pub(super) fn find(&self, entry: &Entry, session: SessionId, now: Moment) -> Option<Znode> {
        let mut state = self.lock();
        if !state.by.is_some_and(|(by, at)| by == session && now.saturating_since(at) < SOON) {
            state.read.clear();
        }
        let found = state.read.remove(entry)?;
        state.last = Some((now, found.0.len()));
        Some(found)
    }

    /// How many values to prefetch.
    pub(super) fn count(&self, now: Moment) -> usize {
        let is_due = |(at, len)| now.saturating_since(at) < SOON && len <= SMALL;
        if self.lock().last.is_some_and(is_due) { MOST } else { 0 }
    }

    /// Keeps prefetched values. `len` is the length of the value of the entry that is taken now.
    pub(super) fn keep(
        &self,
        session: SessionId,
        now: Moment,
        len: usize,
        read: impl Iterator<Item = (Entry, Znode)>,
    ) {
        let read = read.collect();
        *self.lock() = State { last: Some((now, len)), read, by: Some((session, now)) };
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Prefetch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prefetch").field("read", &self.lock().read.len()).finish_non_exhaustive()
    }
}
