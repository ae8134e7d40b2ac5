//! [`Mark`]: what becomes of a guard whose item is lost while it is in progress.

use crate::{clock::Moment, ring::Position};

/// A guard whose item was lost while it was in progress.
pub(super) struct Mark {
    pub(super) position: Position,
    /// The number of the change that marked it. [`NO_NUMBER`]: no caller waits for the end of the guard.
    pub(super) number: u64,
    /// The deadline that a heartbeat does not move; `None`: that of the lease.
    pub(super) until: Option<Moment>,
}

/// The number of marks in an immediate group.
pub(super) const NO_NUMBER: u64 = 0;

impl Mark {
    /// The mark of a guard that has ended.
    pub(super) fn ended(position: Position) -> Self {
        Mark { position, number: NO_NUMBER, until: Some(Moment::default()) }
    }
}
