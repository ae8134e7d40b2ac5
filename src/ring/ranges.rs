// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Ranges`]: parts of a ring, for instance those of a member, or those that a change of the members moves.

use std::{fmt, ops::RangeInclusive};

use super::{POSITIONS, RingKey, kernel::BLOCK, position};

/// Parts of a ring: ranges of positions in ascending order, with a gap between two of them. From
/// [`HashRing::ranges`](super::HashRing::ranges).
///
/// ```
/// use apportion::HashRing;
///
/// let before = HashRing::builder().members(["a", "b"]).build()?;
/// let after = before.with_member("c", 1)?;
/// let lost = before.ranges("a").difference(&after.ranges("a"));
/// let c = after.ranges("c");
/// assert!(lost.iter().all(|range| c.contains_position(*range.start())), "what a loses, c gets");
/// # Ok::<(), apportion::ring::RingError>(())
/// ```
#[derive(Clone, PartialEq, Eq, Hash, Default)]
pub struct Ranges {
    parts: Vec<Part>,
}

/// Both ends included: a range may end at the last position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Part {
    pub(super) first: u32,
    pub(super) last: u32,
}

impl Ranges {
    pub(crate) const fn none() -> Ranges {
        Ranges { parts: Vec::new() }
    }

    /// Joins adjacent parts. They have to be in ascending order.
    pub(super) fn of(parts: impl IntoIterator<Item = Part>) -> Ranges {
        let mut joined: Vec<Part> = Vec::new();
        for part in parts {
            match joined.last_mut() {
                Some(before) if before.last.checked_add(1) == Some(part.first) => before.last = part.last,
                _ => joined.push(part),
            }
        }
        Ranges { parts: joined }
    }

    /// The ranges, first to last position.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RangeInclusive<u32>> + DoubleEndedIterator {
        self.parts.iter().map(|part| part.first..=part.last)
    }

    /// The number of ranges.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there are no ranges.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The part of all positions that is in the ranges, between 0 and 1.
    pub fn fraction(&self) -> f64 {
        let positions: u64 = self.parts.iter().map(|part| u64::from(part.last - part.first) + 1).sum();
        // Both numbers have at most 33 bits, so nothing is rounded.
        positions as f64 / POSITIONS as f64
    }

    /// Whether the position of `key` is in the ranges.
    pub fn contains<K: RingKey + ?Sized>(&self, key: &K) -> bool {
        self.contains_position(position(key))
    }

    /// Whether `position` is in the ranges.
    pub fn contains_position(&self, position: u32) -> bool {
        let next = self.parts.partition_point(|part| part.last < position);
        self.parts.get(next).is_some_and(|part| part.first <= position)
    }

    /// The parts of these ranges that are not in `other`.
    pub fn difference(&self, other: &Ranges) -> Ranges {
        let mut left = Vec::new();
        let mut others = &other.parts[..];
        for &Part { mut first, last } in &self.parts {
            // A range of `other` that ends before this one ends before all later ones, too.
            others = &others[others.partition_point(|other| other.last < first)..];
            let mut is_covered = false;
            for other in others.iter().take_while(|other| other.first <= last) {
                if first < other.first {
                    left.push(Part { first, last: other.first - 1 });
                }
                is_covered = other.last >= last;
                if !is_covered {
                    first = other.last + 1;
                }
            }
            if !is_covered {
                left.push(Part { first, last });
            }
        }
        Ranges { parts: left }
    }

    /// All positions.
    pub(crate) fn all() -> Ranges {
        Ranges { parts: vec![Part { first: 0, last: u32::MAX }] }
    }

    /// The ranges from first to last position, in any order; they may overlap. A range that ends before it begins is
    /// left out.
    pub(crate) fn from_parts(parts: impl IntoIterator<Item = (u32, u32)>) -> Ranges {
        let parts = parts.into_iter().filter(|(first, last)| first <= last);
        let mut parts: Vec<Part> = parts.map(|(first, last)| Part { first, last }).collect();
        parts.sort_unstable();
        let mut joined: Vec<Part> = Vec::with_capacity(parts.len());
        for part in parts {
            match joined.last_mut() {
                Some(before) if part.first <= before.last.saturating_add(1) => {
                    before.last = before.last.max(part.last);
                }
                _ => joined.push(part),
            }
        }
        Ranges { parts: joined }
    }

    /// The positions that are in these ranges or in `other`.
    pub(crate) fn union(&self, other: &Ranges) -> Ranges {
        if other.is_empty() {
            return self.clone();
        }
        Ranges::from_parts(self.parts.iter().chain(&other.parts).map(|part| (part.first, part.last)))
    }

    /// The positions that are in these ranges and in `other`. Fast if either has few parts.
    pub(crate) fn intersection(&self, other: &Ranges) -> Ranges {
        let (few, many) = if self.len() <= other.len() { (self, other) } else { (other, self) };
        let mut common = Vec::new();
        let mut rest = &many.parts[..];
        for part in &few.parts {
            rest = &rest[rest.partition_point(|other| other.last < part.first)..];
            common.extend(
                rest.iter().take_while(|other| other.first <= part.last).map(|other| Part {
                    first: part.first.max(other.first),
                    last: part.last.min(other.last),
                }),
            );
        }
        Ranges { parts: common }
    }

    /// Whether any position is in both.
    pub(crate) fn intersects(&self, other: &Ranges) -> bool {
        let (few, many) = if self.len() <= other.len() { (self, other) } else { (other, self) };
        few.parts.iter().any(|part| {
            let next = many.parts.partition_point(|other| other.last < part.first);
            many.parts.get(next).is_some_and(|other| other.first <= part.last)
        })
    }

    /// At most `limit` ranges, at least one, that cover these: the smallest gaps are closed first.
    pub(crate) fn covered_by_at_most(self, limit: usize) -> Ranges {
        let limit = limit.max(1);
        if self.parts.len() <= limit {
            return self;
        }
        let mut gaps: Vec<(u32, usize)> =
            self.parts.windows(2).zip(1..).map(|(two, place)| (two[1].first - two[0].last, place)).collect();
        // The widest gaps stay; of equal ones the first.
        gaps.sort_unstable_by_key(|&(width, place)| (std::cmp::Reverse(width), place));
        gaps.truncate(limit - 1);
        let mut starts: Vec<usize> = gaps.into_iter().map(|(_, place)| place).chain([0]).collect();
        starts.sort_unstable();
        let ends = starts.iter().skip(1).copied().chain([self.parts.len()]);
        let parts = starts.iter().zip(ends);
        let parts = parts
            .map(|(&start, end)| Part { first: self.parts[start].first, last: self.parts[end - 1].last });
        Ranges { parts: parts.collect() }
    }

    /// Builds an index for many positions.
    pub(crate) fn index(self) -> RangeIndex {
        RangeIndex::new(self)
    }
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
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

    fn new(ranges: Ranges) -> RangeIndex {
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
        RangeIndex { ranges, classes }
    }

    /// The numbers of those `positions` that are in the ranges, in ascending order.
    ///
    /// It has no branch for each position, because a processor could not predict it.
    #[inline]
    pub(super) fn lanes(&self, positions: &[u32; BLOCK]) -> impl Iterator<Item = usize> {
        // Two bits for each lane: its class.
        const INSIDE: u64 = 0x5555_5555_5555_5555;
        let mut classes = 0;
        for (lane, position) in positions.iter().enumerate() {
            classes |= (self.class(*position) as u64) << (2 * lane);
        }
        let mut inside = classes & INSIDE;
        for bit in Bits(classes & !INSIDE) {
            inside |= u64::from(self.ranges.contains_position(positions[bit / 2])) << (bit - 1);
        }
        Bits(inside).map(|bit| bit / 2)
    }

    #[inline]
    fn class(&self, position: u32) -> Class {
        self.classes[(position >> (32 - Self::BITS)) as usize]
    }

    #[inline]
    pub(crate) fn contains(&self, position: u32) -> bool {
        match self.class(position) {
            Class::Outside => false,
            Class::Inside => true,
            Class::Mixed => self.ranges.contains_position(position),
        }
    }
}
