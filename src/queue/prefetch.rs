//! [`Prefetch`]: values of the entries that are probably taken next, read with the value of the one that is taken now.
//!
//! A worker that takes one small thing after another spends a third of its time on reading them. The store decides
//! all the same who gets what: it refuses whoever asks for an entry that has changed since it was read.

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

/// How many are read ahead.
const MOST: usize = 7;

/// Up to which size of the last value the next ones are read as well, in bytes.
const SMALL: usize = 4096;

/// How long a value is used after it was read, and who takes the next one within that time is in a hurry.
const SOON: Duration = Duration::from_millis(100);

/// See the module documentation.
#[derive(Default)]
pub(super) struct Prefetch(Mutex<State>);

#[derive(Default)]
struct State {
    /// When something was read last that was to be taken, and how long it was.
    last: Option<(Moment, usize)>,
    read: HashMap<Entry, Znode>,
    /// In which session and when.
    by: Option<(SessionId, Moment)>,
}

impl Prefetch {
    /// The value of this entry, if it was read a moment ago; only once.
    pub(super) fn find(&self, entry: &Entry, session: SessionId, now: Moment) -> Option<Znode> {
        let mut state = self.lock();
        if !state.by.is_some_and(|(by, at)| by == session && now.saturating_since(at) < SOON) {
            state.read.clear();
        }
        let found = state.read.remove(entry)?;
        state.last = Some((now, found.0.len()));
        Some(found)
    }

    /// How many are to be read ahead.
    pub(super) fn count(&self, now: Moment) -> usize {
        let is_due = |(at, len)| now.saturating_since(at) < SOON && len <= SMALL;
        if self.lock().last.is_some_and(is_due) { MOST } else { 0 }
    }

    /// Remembers what was read, the value of what is taken now being of this length.
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
