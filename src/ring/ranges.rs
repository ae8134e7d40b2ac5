// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Ranges`]: parts of a ring, for instance those of a member, or those that a change of the members moves.

use std::{fmt, ops::RangeInclusive};

use super::{
    POSITIONS, RingKey,
    point::{Position, first_with, last_with},
    position, tooz,
};

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
    pub(super) parts: Vec<Part>,
    /// What is left of ranges of a ring of tooz, where a point divides the positions of 128 bits that begin with the
    /// same 32 bits: in ascending order, each within one such position of 32 bits.
    pub(super) pieces: Vec<Part<u128>>,
}

/// Both ends included: a range may end at the last position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(super) struct Part<P = u32> {
    pub(super) first: P,
    pub(super) last: P,
}

impl Ranges {
    pub(crate) const fn none() -> Ranges {
        Ranges { parts: Vec::new(), pieces: Vec::new() }
    }

    /// Joins adjacent parts. They have to be in ascending order.
    pub(super) fn of(parts: impl IntoIterator<Item = Part>) -> Ranges {
        Ranges { parts: joined(parts), pieces: Vec::new() }
    }

    /// Joins adjacent parts of a ring of tooz. They have to be in ascending order.
    pub(super) fn of_wide(wide: impl IntoIterator<Item = Part<u128>>) -> Ranges {
        let (mut parts, mut pieces) = (Vec::new(), Vec::new());
        for Part { first, last } in joined(wide) {
            let (start, end) = (first.prefix(), last.prefix());
            let (cuts_start, cuts_end) = (first != first_with(start), last != last_with(end));
            if start == end && (cuts_start || cuts_end) {
                pieces.push(Part { first, last });
                continue;
            }
            // The first and the last position of 32 bits that are whole.
            let from = u64::from(start) + u64::from(cuts_start);
            let to = u64::from(end) + 1 - u64::from(cuts_end);
            if cuts_start {
                pieces.push(Part { first, last: last_with(start) });
            }
            if from < to {
                parts.push(Part { first: from as u32, last: (to - 1) as u32 });
            }
            if cuts_end {
                pieces.push(Part { first: first_with(end), last });
            }
        }
        Ranges { parts, pieces }
    }

    /// The ranges of positions of 128 bits, in ascending order, not joined.
    fn widened(&self) -> Vec<Part<u128>> {
        let whole = |part: &Part| Part { first: first_with(part.first), last: last_with(part.last) };
        let mut wide: Vec<_> = self.parts.iter().map(whole).chain(self.pieces.iter().copied()).collect();
        wide.sort_unstable_by_key(|part| part.first);
        wide
    }

    /// The ranges, first to last position. Of a ring of tooz only the first 32 bits of its positions: those that are
    /// in the ranges whatever bits follow; [`iter_wide`](Ranges::iter_wide) has all bits.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = RangeInclusive<u32>> + DoubleEndedIterator {
        self.parts.iter().map(|part| part.first..=part.last)
    }

    /// The ranges as positions of 128 bits, as those of a ring of tooz are. On other rings a position is the first 32
    /// of them.
    pub fn iter_wide(&self) -> impl ExactSizeIterator<Item = RangeInclusive<u128>> + DoubleEndedIterator {
        joined(self.widened()).into_iter().map(|part| part.first..=part.last)
    }

    /// The number of ranges that [`iter`](Ranges::iter) gives.
    pub fn len(&self) -> usize {
        self.parts.len()
    }

    /// Whether there are no ranges, so that no key is in them.
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty() && self.pieces.is_empty()
    }

    /// The part of all positions that is in the ranges, between 0 and 1.
    pub fn fraction(&self) -> f64 {
        if self.pieces.is_empty() {
            let positions: u64 = self.parts.iter().map(|part| u64::from(part.last - part.first) + 1).sum();
            // Both numbers have at most 33 bits, so nothing is rounded.
            return positions as f64 / POSITIONS as f64;
        }
        // In units of 2^80 positions: 48 bits, so that nothing is rounded afterwards. Where two ranges meet, both are
        // rounded alike, so the fractions of all members still add up to 1.
        let start = |position: u128| (position >> 80) as u64;
        let end = |position: u128| position.next().map_or(1 << 48, start);
        let units: u64 = self.widened().iter().map(|part| end(part.last) - start(part.first)).sum();
        units as f64 / (1_u64 << 48) as f64
    }

    /// Whether the position of `key` is in the ranges.
    pub fn contains<K: RingKey + ?Sized>(&self, key: &K) -> bool {
        self.contains_hash(position(key), || tooz::hash(key))
    }

    /// Whether the position of `key` is a range of its own.
    pub(crate) fn has_alone<K: RingKey + ?Sized>(&self, key: &K) -> bool {
        let position = position(key);
        let at = self.parts.binary_search_by_key(&position, |part| part.first);
        at.is_ok_and(|at| self.parts[at].last == position)
    }

    /// Whether `position` is in the ranges. On a ring of tooz it is the first 32 bits of positions, and all of them
    /// have to be in the ranges.
    pub fn contains_position(&self, position: u32) -> bool {
        contains(&self.parts, position)
    }

    /// Whether a key is in the ranges. `prefix` is the first 32 bits of its hash; `hash` computes all of it.
    #[inline]
    pub(crate) fn contains_hash(&self, prefix: u32, hash: impl FnOnce() -> u128) -> bool {
        self.contains_position(prefix) || !self.pieces_of(prefix).is_empty() && contains(&self.pieces, hash())
    }

    /// The parts of these ranges that are not in `other`.
    pub fn difference(&self, other: &Ranges) -> Ranges {
        if self.pieces.is_empty() && other.pieces.is_empty() {
            return Ranges { parts: difference(&self.parts, &other.parts), pieces: Vec::new() };
        }
        Ranges::of_wide(difference(&self.widened(), &other.widened()))
    }

    /// All positions.
    pub(crate) fn all() -> Ranges {
        Ranges { parts: vec![Part { first: 0, last: u32::MAX }], pieces: Vec::new() }
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
        Ranges { parts: joined, pieces: Vec::new() }
    }

    /// The same with whole positions of 32 bits: those of which any part is in the ranges.
    pub(crate) fn rounded_out(self) -> Ranges {
        if self.pieces.is_empty() {
            return self;
        }
        let pieces = self.pieces.iter().map(|piece| (piece.first.prefix(), piece.first.prefix()));
        Ranges::from_parts(self.parts.iter().map(|part| (part.first, part.last)).chain(pieces))
    }

    /// Whether the ranges have all that `other` has of `position`, which is that of a key in `other`.
    pub(super) fn has_all_of(&self, position: u32, other: &Ranges) -> bool {
        if self.contains_position(position) {
            return true;
        }
        // Most ranges have no pieces, so this takes no time.
        let own = self.pieces_of(position);
        let is_covered =
            |piece: &Part<u128>| own.iter().any(|it| it.first <= piece.first && piece.last <= it.last);
        !own.is_empty()
            && !other.contains_position(position)
            && other.pieces_of(position).iter().all(is_covered)
    }

    /// The parts of `position` that are in the ranges, if it is not in them as a whole.
    fn pieces_of(&self, position: u32) -> &[Part<u128>] {
        let start = self.pieces.partition_point(|piece| piece.last.prefix() < position);
        let rest = &self.pieces[start..];
        &rest[..rest.partition_point(|piece| piece.first.prefix() == position)]
    }

    /// The positions that are in these ranges or in `other`. Both are of 32 bits.
    pub(crate) fn union(&self, other: &Ranges) -> Ranges {
        if other.is_empty() {
            return self.clone();
        }
        Ranges::from_parts(self.parts.iter().chain(&other.parts).map(|part| (part.first, part.last)))
    }

    /// The positions that are in these ranges and in `other`. Both are of 32 bits. Fast if either has few parts.
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
        Ranges { parts: common, pieces: Vec::new() }
    }

    /// Whether any position is in both, which are of 32 bits.
    pub(crate) fn intersects(&self, other: &Ranges) -> bool {
        let (few, many) = if self.len() <= other.len() { (self, other) } else { (other, self) };
        few.parts.iter().any(|part| {
            let next = many.parts.partition_point(|other| other.last < part.first);
            many.parts.get(next).is_some_and(|other| other.first <= part.last)
        })
    }

    /// At most `limit` ranges, at least one, that cover these, which are of 32 bits: the smallest gaps are closed first.
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
        Ranges { parts: parts.collect(), pieces: Vec::new() }
    }
}

/// Joins adjacent parts, which are in ascending order.
fn joined<P: Position>(parts: impl IntoIterator<Item = Part<P>>) -> Vec<Part<P>> {
    let mut joined: Vec<Part<P>> = Vec::new();
    for part in parts {
        match joined.last_mut() {
            Some(before) if before.last.next() == Some(part.first) => before.last = part.last,
            _ => joined.push(part),
        }
    }
    joined
}

/// Whether one of `parts`, which are in ascending order, has `position`.
#[inline]
fn contains<P: Position>(parts: &[Part<P>], position: P) -> bool {
    let next = parts.partition_point(|part| part.last < position);
    parts.get(next).is_some_and(|part| part.first <= position)
}

/// What of `parts` is not in `others`. Both are in ascending order.
fn difference<P: Position>(parts: &[Part<P>], mut others: &[Part<P>]) -> Vec<Part<P>> {
    let mut left = Vec::new();
    for &Part { mut first, last } in parts {
        // A range of `others` that ends before this one ends before all later ones, too.
        others = &others[others.partition_point(|other| other.last < first)..];
        let mut is_covered = false;
        for other in others.iter().take_while(|other| other.first <= last) {
            if first < other.first {
                left.push(Part { first, last: other.first.before() });
            }
            match other.last.next().filter(|_| other.last < last) {
                Some(next) => first = next,
                None => is_covered = true,
            }
        }
        if !is_covered {
            left.push(Part { first, last });
        }
    }
    left
}

impl fmt::Debug for Ranges {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.pieces.is_empty() {
            f.debug_list().entries(self.iter()).finish()
        } else {
            f.debug_list().entries(self.iter_wide()).finish()
        }
    }
}
