//! [`Fill`]: how full a queue is, counted now and then.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::clock::Moment;

/// How long a count is good for, and how many processes can have one at the same time without putting too much: each
/// puts no more than that part of what there was room for.
const GOOD_FOR: Duration = Duration::from_millis(50);
const SHARED_BY: usize = 64;

/// How many entries waited when they were last counted. Counting each time would make a put take twice as long.
#[derive(Debug, Default)]
pub(super) struct Fill(Mutex<Option<Counted>>);

#[derive(Debug)]
struct Counted {
    len: usize,
    at: Moment,
    /// How many were put here since.
    puts: usize,
}

impl Fill {
    /// The last count.
    pub(super) fn last(&self) -> Option<usize> {
        self.lock().as_ref().map(|counted| counted.len)
    }

    /// Notes a count that was asked for at this moment.
    pub(super) fn set(&self, len: usize, at: Moment) {
        *self.lock() = Some(Counted { len, at, puts: 0 });
    }

    /// Whether one more is put without counting.
    pub(super) fn is_certain(&self, now: Moment, max_len: usize) -> bool {
        self.lock().as_mut().is_some_and(|counted| {
            counted.puts += 1;
            let room = max_len.saturating_sub(counted.len) / SHARED_BY;
            counted.puts <= room && now.saturating_since(counted.at) < GOOD_FOR
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
