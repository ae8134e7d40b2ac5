//! [`QueueStatus`]: how a queue is, for an operator.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::shared::Shared;
use crate::ages::write_present;

/// How a queue is, as this process knows it by its last listing. A process lists a queue that has changed: at once while it
/// takes entries, else ten seconds later. From [`PartitionCoordinator::status`](crate::PartitionCoordinator::status). No I/O.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct QueueStatus {
    /// Its path.
    pub queue: String,
    /// The entries that may be taken now.
    pub waiting: usize,
    /// The entries that are delayed, or in the pause after a failed delivery, as far as this process knows it.
    pub delayed: usize,
    /// How many entries may wait before this process refuses a put: [`max_len`](super::OpenQueue::max_len).
    pub max_len: usize,
    /// For how long the oldest entry has waited, at least: since this process saw it, or a later one, for the first time.
    pub oldest: Option<Duration>,
    /// The deliveries that this process has.
    pub held: usize,
    /// For how long it has had the oldest of them.
    pub oldest_held: Option<Duration>,
    /// How long ago the queue was listed; `None` if it was not listed yet.
    pub listed: Option<Duration>,
    /// Why it could not be listed the last time.
    pub problem: Option<String>,
}

impl QueueStatus {
    /// Whether puts of this process are refused, by its last listing.
    pub fn is_full(&self) -> bool {
        self.waiting + self.delayed >= self.max_len
    }

    /// `None` if it is closed.
    pub(crate) fn of(shared: &Shared) -> Option<Self> {
        if shared.listing.is_closed() {
            return None;
        }
        let now = shared.clock.now();
        let since = |since: Option<_>| since.map(|since| now.saturating_since(since));
        let ((waiting, delayed), oldest) = (shared.counts(), shared.cache().oldest_since());
        let (held, oldest_held) = shared.held.present();
        Some(QueueStatus {
            queue: shared.layout().root.to_string(),
            waiting,
            delayed,
            max_len: shared.max_len,
            oldest: since(oldest),
            held,
            oldest_held: since(oldest_held),
            listed: since(shared.listing.listed_at()),
            problem: shared.listing.last_error().map(|error| error.to_string()),
        })
    }
}

impl fmt::Display for QueueStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let QueueStatus { queue, waiting, delayed, max_len, .. } = self;
        let full = if self.is_full() { "full: " } else { "" };
        write!(f, "{queue}: {full}{waiting} waiting, {delayed} delayed, limit {max_len}")?;
        if let Some(age) = self.oldest {
            write!(f, "; the oldest has waited for at least {age:.1?}")?;
        }
        write_present(f, (self.held, self.oldest_held), self.listed, self.problem.as_deref())
    }
}
