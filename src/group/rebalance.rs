//! Pure: what changed between two looks at a group.

use std::{fmt, sync::Arc};

use super::member::MemberId;
use crate::ring::{HashRing, RingKey};

/// A change of this member's share. Stop what was [`lost`](Rebalance::lost) before starting what was
/// [`gained`](Rebalance::gained).
#[derive(Clone)]
pub struct Rebalance {
    pub(crate) me: MemberId,
    /// The ring by which we had a share; `None` if we had none.
    pub(crate) before: Option<Arc<HashRing>>,
    pub(crate) after: Option<Arc<HashRing>>,
    pub(crate) epoch: i64,
}

impl Rebalance {
    /// Those of `items` that this member owned before and owns no more, in the order given.
    pub fn lost<I>(&self, items: I) -> impl Iterator<Item = I::Item>
    where
        I: IntoIterator,
        I::Item: RingKey,
    {
        items.into_iter().filter(|item| self.is_lost(item))
    }

    /// Those of `items` that this member owns now and did not own before, in the order given.
    pub fn gained<I>(&self, items: I) -> impl Iterator<Item = I::Item>
    where
        I: IntoIterator,
        I::Item: RingKey,
    {
        items.into_iter().filter(|item| self.is_gained(item))
    }

    /// Whether this member owned `key` before and owns it no more.
    pub fn is_lost<K: RingKey + ?Sized>(&self, key: &K) -> bool {
        self.owns(self.before.as_deref(), key) && !self.owns(self.after.as_deref(), key)
    }

    /// Whether this member owns `key` now and did not own it before.
    pub fn is_gained<K: RingKey + ?Sized>(&self, key: &K) -> bool {
        self.owns(self.after.as_deref(), key) && !self.owns(self.before.as_deref(), key)
    }

    /// Whether all is lost: the member has left, is out of contact for too long, or was refused.
    pub fn is_total_loss(&self) -> bool {
        self.after.is_none()
    }

    /// The generation of the membership after the change; see [`View::epoch`](super::View::epoch).
    pub fn epoch(&self) -> i64 {
        self.epoch
    }

    /// How many members there were and are, as seen by a member with a share; zero without one.
    pub fn members(&self) -> (usize, usize) {
        let count = |ring: &Option<Arc<HashRing>>| ring.as_ref().map_or(0, |ring| ring.len());
        (count(&self.before), count(&self.after))
    }

    fn owns<K: RingKey + ?Sized>(&self, ring: Option<&HashRing>, key: &K) -> bool {
        ring.is_some_and(|ring| ring.is_owner(self.me.as_str(), key))
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
            self.epoch,
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
