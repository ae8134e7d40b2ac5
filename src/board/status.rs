//! [`BoardStatus`]: how a board is, for an operator.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::shared::Shared;
use crate::ages::write_present;

/// How a board is, as this process knows it by its last listing. From
/// [`PartitionCoordinator::status`](crate::PartitionCoordinator::status). No I/O.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BoardStatus {
    /// Its path.
    pub board: String,
    /// The jobs that may be claimed now.
    pub unclaimed: usize,
    /// The jobs that are delayed, or in the pause after a failed attempt, as far as this process knows it.
    pub delayed: usize,
    /// The jobs that a process has claimed.
    pub claimed: usize,
    /// The znodes that are [set aside](super::JobBoard::set_aside).
    pub set_aside: usize,
    /// How long ago the oldest job was posted that no process has claimed, by the wall clocks of the server and of this
    /// host.
    pub oldest: Option<Duration>,
    /// The claims of this process.
    pub held: usize,
    /// For how long it has had the oldest of them.
    pub oldest_held: Option<Duration>,
    /// How long ago the board was listed; `None` if it was not listed yet.
    pub listed: Option<Duration>,
    /// Why it could not be listed the last time.
    pub problem: Option<String>,
}

impl BoardStatus {
    /// `None` if it is closed.
    pub(crate) fn of(shared: &Shared) -> Option<Self> {
        if shared.listing.is_closed() {
            return None;
        }
        let now = shared.clock.now();
        let since = |since: Option<_>| since.map(|since| now.saturating_since(since));
        let (counts, oldest) = (shared.counts(), shared.cache().oldest_ms());
        let age = |created: u64| shared.clock.unix_time().saturating_sub(Duration::from_millis(created));
        let (held, oldest_held) = shared.held.present();
        Some(BoardStatus {
            board: shared.layout.board.to_string(),
            unclaimed: counts.unclaimed,
            delayed: counts.delayed,
            claimed: counts.claimed,
            set_aside: counts.set_aside,
            oldest: oldest.map(age),
            held,
            oldest_held: since(oldest_held),
            listed: since(shared.listing.listed_at()),
            problem: shared.listing.last_error().map(|error| error.to_string()),
        })
    }
}

impl fmt::Display for BoardStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let BoardStatus { board, unclaimed, delayed, claimed, set_aside, .. } = self;
        write!(
            f,
            "{board}: {unclaimed} unclaimed, {delayed} delayed, {claimed} claimed, {set_aside} set aside"
        )?;
        if let Some(age) = self.oldest {
            write!(f, "; the oldest was posted {age:.1?} ago")?;
        }
        write_present(f, (self.held, self.oldest_held), self.listed, self.problem.as_deref())
    }
}
