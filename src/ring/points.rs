// Pure: no runtime, no clock, no socket, no random numbers.

//! The points of a ring in order, found by position without a search.

use super::point::{Narrow, Point, Position, Wide, first_with};

/// The points of all members of a ring.
#[derive(Clone, Debug)]
pub(super) enum AllPoints {
    /// Of a ring of this crate or of aodh.
    Narrow(Points<Narrow>),
    /// Of a ring of tooz.
    Wide(Points<Wide>),
}

impl AllPoints {
    /// The member that owns a key. `prefix` is the first 32 bits of its hash, which are enough nearly always; `hash`
    /// computes all of it.
    #[inline]
    pub(super) fn owner(&self, prefix: u32, hash: impl FnOnce() -> u128) -> Option<u32> {
        match self {
            AllPoints::Narrow(points) => points.owner(prefix),
            AllPoints::Wide(points) => points.owner_of_prefix(prefix).unwrap_or_else(|| points.owner(hash())),
        }
    }

    /// The index of the point that owns a key, whose hash is computed as far as it is needed. Meaningless without
    /// points.
    pub(super) fn locate(&self, prefix: impl FnOnce() -> u32, hash: impl FnOnce() -> u128) -> usize {
        match self {
            AllPoints::Narrow(points) => points.locate(prefix()),
            AllPoints::Wide(points) => points.locate(hash()),
        }
    }

    /// The member that has the point with this index.
    pub(super) fn member_at(&self, index: usize) -> u32 {
        match self {
            AllPoints::Narrow(points) => points.as_slice()[index].member(),
            AllPoints::Wide(points) => points.as_slice()[index].member(),
        }
    }

    /// The part of all positions that belongs to each of so many members. As [`Ranges::fraction`](super::Ranges::fraction).
    pub(super) fn fractions(&self, members: usize) -> Vec<f64> {
        match self {
            AllPoints::Narrow(points) => {
                let points = points.sorted.iter().map(|point| (u64::from(point.position()), point.member()));
                fractions(points, 1 << 32, members)
            }
            AllPoints::Wide(points) => {
                let points =
                    points.sorted.iter().map(|point| ((point.position() >> 80) as u64, point.member()));
                fractions(points, 1 << 48, members)
            }
        }
    }

    /// The number of distinct points.
    pub(super) fn len(&self) -> usize {
        match self {
            AllPoints::Narrow(points) => points.as_slice().len(),
            AllPoints::Wide(points) => points.as_slice().len(),
        }
    }

    pub(super) fn without(&self, member: u32) -> AllPoints {
        match self {
            AllPoints::Narrow(points) => AllPoints::Narrow(points.without(member)),
            AllPoints::Wide(points) => AllPoints::Wide(points.without(member)),
        }
    }

    /// The points as those of a ring with positions of 128 bits. Each key keeps its owner.
    pub(super) fn widened(&self) -> Points<Wide> {
        match self {
            AllPoints::Narrow(points) => {
                let wide = |point: &Narrow| Wide::new(first_with(point.position()), point.member());
                Points::new(points.as_slice().iter().map(wide).collect())
            }
            AllPoints::Wide(points) => points.clone(),
        }
    }
}

impl Points<Wide> {
    /// The member that owns every key whose hash begins with `prefix`: `None` if there is a point among them, so that
    /// the rest of the hash decides. `Some(None)` without points.
    #[inline]
    fn owner_of_prefix(&self, prefix: u32) -> Option<Option<u32>> {
        let next = first_with(prefix).checked_sub(1).map_or(0, |before| self.up_to(before));
        match self.sorted.get(next).or(self.sorted.first()) {
            None => Some(None),
            Some(point) if next < self.sorted.len() && point.position().prefix() == prefix => None,
            Some(point) => Some(Some(point.member())),
        }
    }
}

/// The points of all members, with positions of one kind.
#[derive(Clone, Debug)]
pub(super) struct Points<P> {
    /// In the order of their positions, which are distinct.
    sorted: Vec<P>,
    /// The points that lost a collision. They are used again when the member that won it leaves.
    shadowed: Vec<P>,
    /// The index of the first point in each of many equal parts of the ring. With two parts for a point, a lookup
    /// nearly always compares one or two points.
    starts: Vec<u32>,
}

impl<P: Point> Points<P> {
    const AT_ONCE: usize = 4;

    pub(super) fn new(mut all: Vec<P>) -> Points<P> {
        all.sort_unstable();
        let mut shadowed = Vec::new();
        // In a collision the later member wins.
        all.dedup_by(|later, kept| {
            let collide = later.position() == kept.position();
            if collide {
                shadowed.push(std::mem::replace(kept, *later));
            }
            collide
        });
        Points { starts: starts(&all), sorted: all, shadowed }
    }

    /// The points with those of a new `member`. The numbers of later members grow by one.
    pub(super) fn with(&self, member: u32, positions: impl Iterator<Item = P::Position>) -> Points<P> {
        let moved = |point: &P| point.up(point.member() >= member);
        let mut new: Vec<P> = positions.map(|position| P::new(position, member)).collect();
        new.extend(self.shadowed.iter().map(moved));
        self.changed(&[], moved, new)
    }

    /// The points without those of `member`. The numbers of later members decrease by one.
    pub(super) fn without(&self, member: u32) -> Points<P> {
        let moved = |point: &P| point.down(point.member() > member);
        let removed: Vec<usize> =
            (0..).zip(&self.sorted).filter(|(_, point)| point.member() == member).map(|(at, _)| at).collect();
        let again = self.shadowed.iter().filter(|point| point.member() != member).map(moved);
        self.changed(&removed, moved, again.collect())
    }

    /// The points without those at the indices `removed`, with the numbers of their members changed, and with `new`
    /// ones. It copies runs of points, which is much faster than to compare each.
    fn changed(&self, removed: &[usize], moved: impl Fn(&P) -> P, mut new: Vec<P>) -> Points<P> {
        new.sort_unstable();
        let mut sorted = Vec::with_capacity(self.sorted.len() + new.len());
        let mut shadowed = Vec::new();
        let mut changes = Vec::with_capacity(removed.len() + new.len());
        let (mut new, mut next) = (new.into_iter().peekable(), 0);
        for end in removed.iter().copied().chain([self.sorted.len()]) {
            // The run of old points before the next one that is removed.
            let mut run = &self.sorted[next..end];
            let limit = self.sorted.get(end);
            while let Some(point) =
                new.next_if(|point| limit.is_none_or(|limit| point.position() < limit.position()))
            {
                let (before, after) = run.split_at(run.partition_point(|old| moved(old) < point));
                sorted.extend(before.iter().map(&moved));
                run = after;
                // In a collision the later member wins.
                if run.first().is_some_and(|old| old.position() == point.position()) {
                    shadowed.push(point);
                    continue;
                }
                match sorted.last_mut().filter(|last: &&mut P| last.position() == point.position()) {
                    Some(last) => shadowed.push(std::mem::replace(last, point)),
                    None => {
                        sorted.push(point);
                        changes.push((point.position().prefix(), 1));
                    }
                }
            }
            sorted.extend(run.iter().map(&moved));
            if let Some(removed) = limit {
                changes.push((removed.position().prefix(), u32::MAX));
            }
            next = end + 1;
        }
        let fits = (sorted.len()..=4 * sorted.len()).contains(&self.starts.len());
        let starts = if fits { self.moved_starts(&changes) } else { starts(&sorted) };
        Points { sorted, shadowed, starts }
    }

    /// The starts of the same parts after points were added, each by 1, and removed, each by -1, in the order of their
    /// positions, of which the first 32 bits decide.
    fn moved_starts(&self, changes: &[(u32, u32)]) -> Vec<u32> {
        let mut starts = Vec::with_capacity(self.starts.len());
        let mut sum = 0_u32;
        for (position, change) in changes {
            let end = part(*position, self.starts.len()) + 1;
            starts.extend(self.starts[starts.len()..end].iter().map(|start| start.wrapping_add(sum)));
            sum = sum.wrapping_add(*change);
        }
        starts.extend(self.starts[starts.len()..].iter().map(|start| start.wrapping_add(sum)));
        starts
    }

    /// How many points there are up to `position`, itself included: the index of the first one after it.
    #[inline]
    pub(super) fn up_to(&self, position: P::Position) -> usize {
        let mut index = self.starts[part(position.prefix(), self.starts.len())] as usize;
        // Comparing several points at once is faster than stopping at the right one, which a processor cannot predict.
        if let Some(points) = self.sorted.get(index..index + Self::AT_ONCE) {
            let before = points.iter().filter(|point| point.position() <= position).count();
            index += before;
            if before < Self::AT_ONCE {
                return index;
            }
        }
        while self.sorted.get(index).is_some_and(|point| point.position() <= position) {
            index += 1;
        }
        index
    }

    /// The index of the point that owns `position`: the first one after it, clockwise. Meaningless without points.
    #[inline]
    pub(super) fn locate(&self, position: P::Position) -> usize {
        let index = self.up_to(position);
        if index == self.sorted.len() { 0 } else { index }
    }

    /// The member that owns `position`.
    #[inline]
    pub(super) fn owner(&self, position: P::Position) -> Option<u32> {
        self.sorted.get(self.locate(position)).map(|point| point.member())
    }

    pub(super) fn as_slice(&self) -> &[P] {
        &self.sorted
    }
}

fn fractions(
    points: impl DoubleEndedIterator<Item = (u64, u32)> + Clone,
    all: u64,
    members: usize,
) -> Vec<f64> {
    let mut owned = vec![0; members];
    // The first one owns what lies behind the last one as well.
    let mut before = points.clone().next_back().map(|(position, _)| position);
    let mut wraps = all;
    for (position, member) in points {
        let start = before.replace(position).unwrap_or(0);
        owned[member as usize] += std::mem::take(&mut wraps) + position - start;
    }
    owned.into_iter().map(|owned: u64| owned as f64 / all as f64).collect()
}

/// The index of the first of `sorted` in each of twice as many equal parts of the ring.
fn starts<P: Point>(sorted: &[P]) -> Vec<u32> {
    let parts = (2 * sorted.len()).max(1);
    let mut starts = vec![0; parts];
    for point in sorted {
        starts[part(point.position().prefix(), parts)] += 1;
    }
    let mut sum = 0;
    for start in &mut starts {
        sum += std::mem::replace(start, sum);
    }
    starts
}

/// The index of the part that has the position, among `parts` equal parts of the ring.
#[inline]
fn part(position: u32, parts: usize) -> usize {
    ((u64::from(position) * parts as u64) >> 32) as usize
}
