// Pure: no runtime, no clock, no socket, no random numbers.

//! [`HashRing`]: decides which member of a fleet owns a key.
//!
//! Positions on the ring are 32-bit numbers (128-bit numbers on a ring of tooz). Each member has several *points* on the ring. A key also has a position,
//! and belongs to the member of the first point after it, clockwise; after the last point comes the first one again. If
//! a member leaves, only its own keys move. If a member joins, only the keys that it will own move. No key moves
//! between two members that stay.
//!
//! ```
//! use apportion::HashRing;
//!
//! let ring = HashRing::builder().members(["host-1", "host-2", "host-3"]).build()?;
//! let owner = ring.owner("alarm-17").expect("the ring has members");
//! assert!(ring.is_owner(owner, "alarm-17"));
//!
//! let standby: Vec<&str> = ring.owners("alarm-17").take(2).collect();
//! assert_eq!(standby[0], owner);
//! # Ok::<(), apportion::ring::RingError>(())
//! ```
//!
//! # The exact rules
//!
//! The rules are those of OpenStack's aodh. Another implementation that follows them gives the same owners:
//!
//! - Point `r` of a member is the first four bytes, big endian, of the MD5 of `label-r`, with `r` counting up
//!   from 0 to the weight times [`replicas`](HashRingBuilder::replicas). See [`Label`] for the label.
//! - The position of a key is the first four bytes of the MD5 of its [`RingKey`].
//! - A key exactly at the position of a point belongs to the **next** point.
//! - If points of two members have the same position, the later member has the point. Members are ordered by their ids,
//!   byte by byte, unless [`keep_order`](HashRingBuilder::keep_order) keeps the order of the caller.
//!
//! With [`HashRingBuilder::tooz`] they are those of tooz, and three things are different: a position is the whole MD5,
//! 128 bits; point `r` of a member is that of its id repeated `r + 2` times; the position of a key is the whole MD5 of its
//! [`RingKey`].

mod batch;
mod builder;
mod change;
mod hash;
mod index;
mod kernel;
mod key;
pub mod keyset;
mod label;
#[cfg(feature = "rayon")]
mod parallel;
mod point;
mod points;
mod python;
mod range_index;
mod ranges;
#[cfg(test)]
mod tests;
mod tooz;

use std::{fmt, iter::FusedIterator, sync::Arc};

#[doc(hidden)]
pub use self::kernel::Kernel;
use self::points::AllPoints;
pub(crate) use self::{
    batch::{By, Itself, KeyOf, Turn},
    builder::ironic_partitions,
    range_index::RangeIndex,
    tooz::hash as hash_of,
};
pub use self::{
    builder::{HashRingBuilder, RingError},
    change::Move,
    key::{KeyBuffer, PyBytes, RingKey},
    keyset::KeySet,
    label::{Label, LabelError},
    ranges::Ranges,
};

/// A position on a ring of 32 bits: the first 32 bits of a position on one of tooz. Only this module computes with it;
/// others compare it and look it up in ranges.
pub(crate) type Position = u32;

/// The number of positions on a ring of 32 bits.
const POSITIONS: u64 = 1 << 32;

/// Decides which member owns a key. A ring never changes: a change of the membership gives a new ring. From
/// [`HashRing::builder`].
///
/// See the [module documentation](self) for the rules.
#[derive(Clone)]
pub struct HashRing {
    label: Label,
    replicas: u32,
    keep_order: bool,
    /// The members in the order in which they take their points. The number of a member is its index.
    members: Vec<Member>,
    /// The numbers of the members in the order of their ids.
    by_id: Vec<u32>,
    points: AllPoints,
    digest: u64,
    kernel: Kernel,
}

#[derive(Clone, PartialEq, Eq)]
struct Member {
    id: Arc<str>,
    weight: u32,
}

impl HashRing {
    /// A builder for a ring, without members so far.
    pub fn builder() -> HashRingBuilder {
        HashRingBuilder::new()
    }

    /// The member that owns `key`; `None` if the ring has no members.
    ///
    /// ```
    /// # use apportion::HashRing;
    /// let ring = HashRing::builder().member("a").member("b").build()?;
    /// assert_eq!(ring.owner("alarm-17"), Some("b"));
    /// assert_eq!(ring.owner(&17), ring.owner("17"), "integers count as their decimal text");
    ///
    /// let empty = HashRing::builder().build()?;
    /// assert_eq!(empty.owner("alarm-17"), None);
    /// # Ok::<(), apportion::ring::RingError>(())
    /// ```
    pub fn owner<K: RingKey + ?Sized>(&self, key: &K) -> Option<&str> {
        self.points.owner(position(key), || tooz::hash(key)).map(|member| self.id(member))
    }

    /// Whether `member` owns `key`. False if it is not in the ring.
    pub fn is_owner<K: RingKey + ?Sized>(&self, member: &str, key: &K) -> bool {
        // One comparison of two ids costs less than a lookup of the number of `member` for each key.
        let owner = self.points.owner(position(key), || tooz::hash(key));
        owner.is_some_and(|owner| self.id(owner) == member)
    }

    /// All members in the order in which they would own `key`: its owner first, then the member that owns it if the
    /// owner leaves, and so on.
    ///
    /// ```
    /// # use apportion::HashRing;
    /// let ring = HashRing::builder().members(["a", "b", "c"]).build()?;
    /// let owners: Vec<&str> = ring.owners("alarm-17").collect();
    /// assert_eq!(owners, ["c", "b", "a"]);
    ///
    /// let healthy: Vec<&str> = ring.owners("alarm-17").ignoring(["b"]).collect();
    /// assert_eq!(healthy, ["c", "a"]);
    /// # Ok::<(), apportion::ring::RingError>(())
    /// ```
    pub fn owners<K: RingKey + ?Sized>(&self, key: &K) -> Owners<'_> {
        Owners {
            ring: self,
            next: self.points.locate(|| position(key), || tooz::hash(key)),
            points_left: self.points(),
            passed: vec![false; self.members.len()],
            members_left: self.members.len(),
        }
    }

    /// The part of all positions that belongs to `member`, between 0 and 1. It is the part of a large set of keys that
    /// the member can expect to own. 0 if it is not in the ring.
    ///
    /// It is computed from the lengths of the arcs, so the fractions of all members add up to exactly 1.
    pub fn fraction(&self, member: &str) -> f64 {
        self.ranges(member).fraction()
    }

    /// The members, sorted by id, each with its [`fraction`](HashRing::fraction). For all of them it takes one pass over
    /// the points.
    pub fn fractions(&self) -> Vec<(&str, f64)> {
        let fractions = self.points.fractions(self.members.len());
        self.by_id.iter().map(|member| (self.id(*member), fractions[*member as usize])).collect()
    }

    /// The ids of the members, sorted.
    pub fn members(&self) -> impl ExactSizeIterator<Item = &str> + DoubleEndedIterator {
        self.by_id.iter().map(|&member| self.id(member))
    }

    /// The members with their weights, sorted by id.
    pub(crate) fn weights(&self) -> impl Iterator<Item = (&str, u32)> {
        self.by_id.iter().map(|&member| (self.id(member), self.members[member as usize].weight))
    }

    /// The weight of `member`; `None` if it is not in the ring.
    pub fn weight(&self, member: &str) -> Option<u32> {
        Some(self.members[self.find(member)? as usize].weight)
    }

    /// Whether `member` is in the ring.
    pub fn contains(&self, member: &str) -> bool {
        self.find(member).is_some()
    }

    /// The number of members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are no members, so that no key has an owner.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// The number of distinct points of all members.
    pub fn points(&self) -> usize {
        self.points.len()
    }

    /// The number of points of a member of weight 1.
    pub fn replicas(&self) -> u32 {
        self.replicas
    }

    /// The label of the ring: which text is hashed for the points of a member.
    pub fn label(&self) -> Label {
        self.label
    }

    /// A hash of the whole ring: its label, replicas, and members with their weights, in the order in which they take
    /// their points.
    ///
    /// Equal rings have equal digests, in every process and every version of this crate. Different rings have different
    /// digests, except with a probability of 1 in 2^64. Members of a fleet can compare digests to check that they have
    /// the same ring: one epoch of a group gives one ring with one digest. A ring that was built with
    /// [`keep_order`](HashRingBuilder::keep_order) in another than the sorted order has another digest.
    pub fn digest(&self) -> u64 {
        self.digest
    }

    /// Whether `member` owns `position` of a ring of 32 bits.
    #[cfg(test)]
    pub(crate) fn is_owner_at(&self, member: &str, position: Position) -> bool {
        self.points
            .owner(position, || unreachable!("32 bits are enough"))
            .is_some_and(|owner| self.id(owner) == member)
    }

    fn find(&self, member: &str) -> Option<u32> {
        let index = self.by_id.binary_search_by(|&other| self.id(other).cmp(member)).ok()?;
        Some(self.by_id[index])
    }

    fn id(&self, member: u32) -> &str {
        &self.members[member as usize].id
    }
}

/// The position of `key` on every ring of 32 bits: the first 32 bits of its position on one of tooz.
pub(crate) fn position<K: RingKey + ?Sized>(key: &K) -> Position {
    kernel::position(key.ring_key_with(&mut KeyBuffer::new()))
}

/// Rings are equal if label, replicas and members are equal: everything else follows from them.
impl PartialEq for HashRing {
    fn eq(&self, other: &Self) -> bool {
        (self.label, self.replicas) == (other.label, other.replicas) && self.members == other.members
    }
}

impl Eq for HashRing {}

impl fmt::Debug for HashRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HashRing")
            .field("label", &self.label)
            .field("replicas", &self.replicas)
            .field("members", &self.members.len())
            .field("points", &self.points())
            .field("digest", &format_args!("{:016x}", self.digest))
            .finish()
    }
}

/// The members, from the owner of a key on. From [`HashRing::owners`].
#[derive(Clone, Debug)]
#[must_use = "iterators are lazy"]
pub struct Owners<'a> {
    ring: &'a HashRing,
    next: usize,
    points_left: usize,
    passed: Vec<bool>,
    members_left: usize,
}

impl Owners<'_> {
    /// Leaves out `members`. Names that are not in the ring are ignored.
    pub fn ignoring(mut self, members: impl IntoIterator<Item: AsRef<str>>) -> Self {
        for member in members {
            if let Some(member) = self.ring.find(member.as_ref()) {
                self.pass(member);
            }
        }
        self
    }

    /// Returns whether `member` was not passed before.
    fn pass(&mut self, member: u32) -> bool {
        let new = !std::mem::replace(&mut self.passed[member as usize], true);
        self.members_left -= usize::from(new);
        new
    }
}

impl<'a> Iterator for Owners<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        while self.members_left > 0 && self.points_left > 0 {
            let member = self.ring.points.member_at(self.next);
            self.points_left -= 1;
            self.next = (self.next + 1) % self.ring.points();
            if self.pass(member) {
                return Some(self.ring.id(member));
            }
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // Not exact, because a member with few points may have lost all of them to collisions.
        (0, Some(self.members_left.min(self.points_left)))
    }
}

impl FusedIterator for Owners<'_> {}
