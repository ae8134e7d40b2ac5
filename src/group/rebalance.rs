// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Rebalance`]: one change of the share of a member.

use std::{fmt, sync::Arc};

use super::held::Held;
use crate::{
    member::MemberId,
    ring::{self, HashRing, KeySet, Ranges, RingKey},
    share::{Grant, Share, Turns},
};

/// A change of this member's share. Stop what was [`lost`](Rebalance::lost) before starting what was
/// [`gained`](Rebalance::gained).
#[derive(Clone)]
pub struct Rebalance {
    pub(crate) me: MemberId,
    /// The ring by which this member had a share; `None` if it had none.
    pub(crate) before: Option<Arc<HashRing>>,
    pub(crate) after: Option<Arc<HashRing>>,
    pub(crate) grant: Grant,
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
        self.ranges(&self.before).difference(&self.ranges(&self.after))
    }

    /// The parts of the ring that this member owns now and did not own before.
    pub fn gained_ranges(&self) -> Ranges {
        self.ranges(&self.after).difference(&self.ranges(&self.before))
    }

    /// Whether this member owned `key` before and no longer owns it.
    pub fn is_lost<K: RingKey + ?Sized>(&self, key: &K) -> bool {
        self.is_moved(key, &self.before, &self.after)
    }

    /// Whether this member owns `key` now and did not own it before.
    pub fn is_gained<K: RingKey + ?Sized>(&self, key: &K) -> bool {
        self.is_moved(key, &self.after, &self.before)
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
        let count = |ring: &Option<Arc<HashRing>>| ring.as_ref().map_or(0, |ring| ring.len());
        (count(&self.before), count(&self.after))
    }

    fn is_moved<K: RingKey + ?Sized>(
        &self,
        key: &K,
        owned_by: &Option<Arc<HashRing>>,
        and_not_by: &Option<Arc<HashRing>>,
    ) -> bool {
        let position = ring::position(key);
        let owns = |ring: &Option<Arc<HashRing>>| {
            ring.as_ref().is_some_and(|ring| ring.is_owner_at(self.me.as_str(), position))
        };
        owns(owned_by) && !owns(and_not_by)
    }

    fn ranges(&self, ring: &Option<Arc<HashRing>>) -> Ranges {
        ring.as_ref().map_or_else(Ranges::default, |ring| ring.ranges(self.me.as_str()))
    }
}

impl fmt::Display for Rebalance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = |ring: &Option<Arc<HashRing>>| {
            100.0 * ring.as_ref().map_or(0.0, |ring| ring.fraction(self.me.as_str()))
        };
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
