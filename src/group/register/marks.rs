//! [`Mark`]: what becomes of a guard whose item is lost while it is in progress.

use std::sync::{
    Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::Notify;

use crate::{clock::Moment, ring::Position};

/// A guard whose item was lost while it was in progress.
pub(super) struct Mark {
    pub(super) position: Position,
    /// The number of the change that marked it.
    pub(super) number: u64,
    pub(super) since: Moment,
    pub(super) until: Until,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// As long as the validity of the incarnation.
    Valid,
    /// Until this moment, unless a write that names the guard is confirmed before.
    Frozen(Moment),
    /// Until this moment, whatever is confirmed.
    Final(Moment),
}

/// The state of the marks that is not in a shard.
#[derive(Default)]
pub(super) struct Marking {
    /// The number of the newest change that marks guards.
    pub(super) newest: AtomicU64,
    /// When the first marked guard ended of which the driver does not know; `None`: it knows of all.
    ended: Mutex<Option<Moment>>,
    pub(super) has_ended: Notify,
}

impl Mark {
    /// The mark of a guard that has ended.
    pub(super) fn ended(position: Position, number: u64) -> Self {
        Mark { position, number, since: Moment::default(), until: Until::Final(Moment::default()) }
    }

    pub(super) fn end(&mut self) {
        self.until = Until::Final(Moment::default());
    }

    /// The deadline that a heartbeat does not move any more, if it has one.
    pub(super) fn frozen_until(&self) -> Option<Moment> {
        match self.until {
            Until::Valid => None,
            Until::Frozen(until) | Until::Final(until) => Some(until),
        }
    }

    /// Whether the guard has ended for good, so that no other member need wait for it.
    pub(super) fn is_over(&self, now: Moment) -> bool {
        matches!(self.until, Until::Final(until) if until <= now)
    }

    /// Freezes it for good. A deadline that it has already is not extended.
    pub(super) fn finish(&mut self, until: Moment) {
        self.until = Until::Final(self.frozen_until().map_or(until, |before| before.min(until)));
    }
}

impl Marking {
    /// The number of the next change.
    pub(super) fn next(&self) -> u64 {
        self.newest.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(super) fn first_end(&self) -> MutexGuard<'_, Option<Moment>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
