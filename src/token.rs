// Pure: no runtime, no clock, no socket, no random numbers.

//! [`FencingToken`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number for stores that must refuse stale writers: of two owners of one thing the later one never has the lower.
///
/// Hand it to the store that the work writes to. A store that keeps the highest token it has seen for a thing, and refuses
/// lower ones, is safe also from an owner that was stopped between its last check and its write. Of a lease it is the
/// transaction that created the lock, so the next lease has a higher one; of a share it is the epoch of the membership.
///
/// The tokens of one ensemble are comparable; an ensemble that was wiped starts again. In JSON it is the number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FencingToken(u64);

impl FencingToken {
    /// The token of a transaction.
    pub(crate) const fn new(zxid: i64) -> Self {
        FencingToken(zxid.unsigned_abs())
    }

    /// The number: a zxid of ZooKeeper.
    pub const fn get(self) -> u64 {
        self.0
    }
}

impl From<FencingToken> for u64 {
    fn from(token: FencingToken) -> u64 {
        token.0
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
