// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Rebalance`]: one change of the share of a member.

use std::{fmt, sync::Arc};

use super::held::Held;
use crate::{
    ring::{KeySet, Ranges, RingKey},
    share::{Grant, Share, Turns},
};

/// A change of this member's share. Stop what was [`lost`](Rebalance::lost) before starting what was
/// [`gained`](Rebalance::gained).
#[derive(Clone)]
pub struct Rebalance {
    /// `None` if this member had no share.
    pub(crate) before: Option<Part>,
    pub(crate) after: Option<Part>,
    pub(crate) grant: Grant,
}

/// What a member may act on.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Part {
    pub(crate) ranges: Arc<Ranges>,
    /// The digest of the ring, and the number of its members.
    pub(crate) ring: u64,
    pub(crate) members: usize,
}

impl Rebalance {
    /// Those of `items` that this member owned before and no longer owns, in the order given. The iterator takes some
    /// items in advance and hashes all of them; for a [`KeySet`] see [`lost_of`](Rebalance::lost_of).
    pub fn lost<I>(&self, items: I) -> impl Iterator<Item = I::Item>
    where
        I: IntoIterator,
        I::Item: RingKey,
    {
        self.lost_ranges().select(items)
    }

    /// Those of `items` that this member owns now and did not own before, in the order given: a guard for each, to act
    /// on it. An item that another member owns by the time its turn has come is skipped. To look only, use
    /// [`gained_ranges`](Rebalance::gained_ranges)`().select(items)`.
    ///
    /// The iterator takes some items in advance and hashes all of them; for a [`KeySet`] see
    /// [`gained_of`](Rebalance::gained_of).
    pub fn gained<I>(&self, items: I) -> impl Iterator<Item = Held<I::Item>>
    where
        I: IntoIterator,
        I::Item: RingKey,
    {
        Turns::new(self.gained_ranges().select_with_positions(items), self.grant.clone())
    }

    /// Those of `keys` that this member owned before and no longer owns, in the order of insertion. Takes time in
    /// proportion to the answer, not to the set.
    pub fn lost_of<'a, T>(&self, keys: &'a KeySet<T>) -> Vec<&'a T> {
        keys.select(&self.lost_ranges())
    }

    /// Those of `keys` that this member owns now and did not own before, in the order of insertion, as a share: iterate
    /// over it to act on them. Takes time in proportion to the answer, not to the set.
    pub fn gained_of<'a, T>(&self, keys: &'a KeySet<T>) -> Share<&'a T> {
        let (gained, positions) = keys.select_with_positions(&self.gained_ranges());
        Share::new(gained, positions, self.grant.clone())
    }

    /// The parts of the ring that this member owned before and no longer owns.
    pub fn lost_ranges(&self) -> Ranges {
        ranges(&self.before).difference(ranges(&self.after))
    }

    /// The parts of the ring that this member owns now and did not own before.
    pub fn gained_ranges(&self) -> Ranges {
        ranges(&self.after).difference(ranges(&self.before))
    }

    /// Whether this member owned `key` before and no longer owns it.
    pub fn is_lost<K: RingKey + ?Sized>(&self, key: &K) -> bool {
        ranges(&self.before).contains(key) && !ranges(&self.after).contains(key)
    }

    /// Whether this member owns `key` now and did not own it before.
    pub fn is_gained<K: RingKey + ?Sized>(&self, key: &K) -> bool {
        ranges(&self.after).contains(key) && !ranges(&self.before).contains(key)
    }

    /// Whether everything is lost: this member has left, was without contact for too long, or was refused.
    pub fn is_total_loss(&self) -> bool {
        self.after.is_none()
    }

    /// The generation of the membership after the change; see [`View::epoch`](super::View::epoch).
    pub fn epoch(&self) -> i64 {
        self.grant.epoch
    }

    /// How many members there were before, and how many there are after the change. Zero where this member has no
    /// share.
    pub fn members(&self) -> (usize, usize) {
        let count = |part: &Option<Part>| part.as_ref().map_or(0, |part| part.members);
        (count(&self.before), count(&self.after))
    }
}

fn ranges(part: &Option<Part>) -> &Ranges {
    const NONE: &Ranges = &Ranges::none();
    part.as_ref().map_or(NONE, |part| &part.ranges)
}

impl fmt::Display for Rebalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |part: &Option<Part>| 100.0 * ranges(part).fraction();
        let (before, after) = self.members();
        write!(
            f,
            "epoch {}: {before} -> {after} members, share {:.1} % -> {:.1} %",
            self.grant.epoch,
            part(&self.before),
            part(&self.after)
        )
    }
}

impl fmt::Debug for Rebalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Rebalance({self})")
    }
}
