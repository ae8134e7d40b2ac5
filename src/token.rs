// Pure: no runtime, no clock, no socket, no random numbers.

//! [`FencingToken`].

use std::fmt;

use serde::{Deserialize, Serialize};

/// A number for stores that must refuse stale writers. From one owner of a thing to the next it never decreases.
///
/// Send it to the store that the work writes to. The store keeps the highest token that it has seen for a thing and
/// refuses lower ones. Then it also refuses an owner that was stopped between its last check and its write.
///
/// The token of a lease is the id of the transaction that created the lock, so the next lease has a higher one. The
/// token of a share is the epoch of the membership; two owners can have the same one. Tokens of one ensemble can be
/// compared. An ensemble whose data was deleted starts again from low numbers. In JSON a token is a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct FencingToken(u64);

impl FencingToken {
    /// The token of a transaction.
    pub(crate) const fn new(zxid: i64) -> Self {
        FencingToken(zxid.unsigned_abs())
    }

    /// The number: a transaction id (zxid) of ZooKeeper.
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
