// Pure: no runtime, no clock, no socket, no random numbers.

//! [`RangeIndex`]: many positions are looked up in the same ranges.

use super::{kernel::BLOCK, point::Position as _, ranges::Ranges};

impl Ranges {
    /// Builds an index for many positions.
    pub(crate) fn index(self) -> RangeIndex {
        RangeIndex::new(self)
    }
}

/// Decides whether a position is in ranges, nearly always without a search.
#[derive(Clone, Debug)]
pub(crate) struct RangeIndex {
    ranges: Ranges,
    /// The class of each of many equal parts of the ring. The table is small, because it shares the fastest cache with
    /// the keys. It is large enough that most parts have no end of a range in them.
    classes: Box<[Class; 1 << RangeIndex::BITS]>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
enum Class {
    Outside = 0,
    Inside = 1,
    Mixed = 2,
}

/// The indexes of the one bits of a number, from the lowest on.
struct Bits(u64);

impl Iterator for Bits {
    type Item = usize;

    #[inline]
    fn next(&mut self) -> Option<usize> {
        let place = self.0.trailing_zeros();
        self.0 &= self.0.checked_sub(1)?;
        Some(place as usize)
    }
}

impl RangeIndex {
    const BITS: u32 = 12;

    pub(super) fn new(ranges: Ranges) -> RangeIndex {
        let mut classes = Box::new([Class::Outside; 1 << Self::BITS]);
        let class_of = |position: u32| (position >> (32 - Self::BITS)) as usize;
        for part in &ranges.parts {
            let (first, last) = (class_of(part.first), class_of(part.last));
            let is_whole = |class: usize| {
                let start = (class as u32) << (32 - Self::BITS);
                part.first <= start && start | (u32::MAX >> Self::BITS) <= part.last
            };
            if last > first + 1 {
                classes[first + 1..last].fill(Class::Inside);
            }
            for end in [first, last] {
                classes[end] = if is_whole(end) { Class::Inside } else { Class::Mixed };
            }
        }
        for piece in &ranges.pieces {
            classes[class_of(piece.first.prefix())] = Class::Mixed;
        }
        RangeIndex { ranges, classes }
    }

    /// The numbers of those `positions` that are in the ranges, in ascending order. `hash` computes all 128 bits of a
    /// position, where they decide.
    ///
    /// It has no branch for each position, because a processor could not predict it.
    #[inline]
    pub(super) fn lanes(
        &self,
        positions: &[u32; BLOCK],
        hash: &dyn Fn(usize) -> u128,
    ) -> impl Iterator<Item = usize> + use<> {
        // Two bits for each lane: its class.
        const INSIDE: u64 = 0x5555_5555_5555_5555;
        let mut classes = 0;
        for (lane, position) in positions.iter().enumerate() {
            classes |= (self.class(*position) as u64) << (2 * lane);
        }
        let mut inside = classes & INSIDE;
        for bit in Bits(classes & !INSIDE) {
            let lane = bit / 2;
            inside |= u64::from(self.ranges.contains_hash(positions[lane], || hash(lane))) << (bit - 1);
        }
        Bits(inside).map(|bit| bit / 2)
    }

    pub(crate) fn ranges(&self) -> &Ranges {
        &self.ranges
    }

    #[inline]
    fn class(&self, position: u32) -> Class {
        self.classes[(position >> (32 - Self::BITS)) as usize]
    }

    #[inline]
    pub(super) fn contains(&self, position: u32, hash: impl FnOnce() -> u128) -> bool {
        match self.class(position) {
            Class::Outside => false,
            Class::Inside => true,
            Class::Mixed => self.ranges.contains_hash(position, hash),
        }
    }

    /// Whether all of `position` is in the ranges, as it is always or not at all on a ring of 32 bits.
    #[inline]
    pub(crate) fn contains_position(&self, position: u32) -> bool {
        match self.class(position) {
            Class::Outside => false,
            Class::Inside => true,
            Class::Mixed => self.ranges.contains_position(position),
        }
    }

    /// Whether a key is in the ranges that is at `position` and in `others`. On a ring of tooz, where a point divides
    /// `position`, false if these ranges have less of it than `others`: then it is not certain.
    #[inline]
    pub(crate) fn contains_all_of(&self, position: u32, others: &Ranges) -> bool {
        match self.class(position) {
            Class::Outside => false,
            Class::Inside => true,
            Class::Mixed => self.ranges.has_all_of(position, others),
        }
    }
}
