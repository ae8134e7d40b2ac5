//! [`Fill`]: the last known number of entries of a queue.

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::clock::Moment;

/// How long a count is used.
const VALID_FOR: Duration = Duration::from_millis(50);
/// For how many processes the free room of a count is divided: each puts at most its part without counting again.
const PROCESSES: usize = 64;

/// How many entries waited at the last count. Counting before each put would make a put take twice as long.
#[derive(Debug, Default)]
pub(super) struct Fill(Mutex<Option<Counted>>);

#[derive(Debug)]
struct Counted {
    len: usize,
    at: Moment,
    /// How many entries this process has put since.
    puts: usize,
}

impl Fill {
    /// The last count.
    pub(super) fn last(&self) -> Option<usize> {
        self.lock().as_ref().map(|counted| counted.len)
    }

    /// Notes a count whose request was sent at this moment.
    pub(super) fn set(&self, len: usize, at: Moment) {
        *self.lock() = Some(Counted { len, at, puts: 0 });
    }

    /// Whether one more entry can be put without counting again.
    pub(super) fn is_certain(&self, now: Moment, max_len: usize) -> bool {
        self.lock().as_mut().is_some_and(|counted| {
            counted.puts += 1;
            let room = max_len.saturating_sub(counted.len) / PROCESSES;
            counted.puts <= room && now.saturating_since(counted.at) < VALID_FOR
        })
    }

    fn lock(&self) -> MutexGuard<'_, Option<Counted>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
