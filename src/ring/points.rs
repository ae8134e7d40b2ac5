// Pure: no runtime, no clock, no socket, no random numbers.

//! The points of a ring in order, found by position without a search.

/// A point and its member, in one number, so that sorting and lookups read memory once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Point(u64);

impl Point {
    /// Members are numbered in the order in which they take their points.
    pub(super) fn new(position: u32, member: u32) -> Point {
        Point(u64::from(position) << 32 | u64::from(member))
    }

    pub(super) fn position(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) fn member(self) -> u32 {
        self.0 as u32
    }
}

/// The points of all members.
#[derive(Clone, Debug)]
pub(super) struct Points {
    /// In the order of their positions, which are distinct.
    sorted: Vec<Point>,
    /// The points that lost a collision. They are used again when the member that won it leaves.
    shadowed: Vec<Point>,
    /// The index of the first point in each of many equal parts of the ring. With two parts for a point, a lookup
    /// nearly always compares one or two points.
    starts: Vec<u32>,
}

impl Points {
    const AT_ONCE: usize = 4;

    pub(super) fn new(mut all: Vec<Point>) -> Points {
        all.sort_unstable();
        Points::resolve(all)
    }

    /// Resolves collisions among sorted points: the later member wins.
    fn resolve(mut sorted: Vec<Point>) -> Points {
        let mut shadowed = Vec::new();
        sorted.dedup_by(|later, kept| {
            let collide = later.position() == kept.position();
            if collide {
                shadowed.push(std::mem::replace(kept, *later));
            }
            collide
        });
        let parts = (2 * sorted.len()).max(1);
        let mut starts = vec![0; parts];
        for point in &sorted {
            starts[part(point.position(), parts)] += 1;
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += std::mem::replace(start, sum);
        }
        Points { sorted, shadowed, starts }
    }

    /// The points with those of a new `member`. The numbers of later members grow by one.
    pub(super) fn with(&self, member: u32, positions: impl Iterator<Item = u32>) -> Points {
        let moved = |point: &Point| Point(point.0 + u64::from(point.member() >= member));
        let mut new: Vec<Point> = positions.map(|position| Point::new(position, member)).collect();
        new.extend(self.shadowed.iter().map(moved));
        new.sort_unstable();
        let mut all = Vec::with_capacity(self.sorted.len() + new.len());
        let mut old = &self.sorted[..];
        for point in new {
            let (before, after) = old.split_at(old.partition_point(|other| moved(other) < point));
            all.extend(before.iter().map(moved));
            all.push(point);
            old = after;
        }
        all.extend(old.iter().map(moved));
        Points::resolve(all)
    }

    /// The points without those of `member`. The numbers of later members decrease by one.
    pub(super) fn without(&self, member: u32) -> Points {
        let mut all = Vec::with_capacity(self.sorted.len() + self.shadowed.len());
        let others = self.sorted.iter().chain(&self.shadowed).filter(|point| point.member() != member);
        all.extend(others.map(|point| Point(point.0 - u64::from(point.member() > member))));
        if !self.shadowed.is_empty() {
            all.sort();
        }
        Points::resolve(all)
    }

    /// How many points there are up to `position`, itself included: the index of the first one after it.
    #[inline]
    pub(super) fn up_to(&self, position: u32) -> usize {
        let mut index = self.starts[part(position, self.starts.len())] as usize;
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
    pub(super) fn locate(&self, position: u32) -> usize {
        let index = self.up_to(position);
        if index == self.sorted.len() { 0 } else { index }
    }

    /// The member that owns `position`.
    #[inline]
    pub(super) fn owner(&self, position: u32) -> Option<u32> {
        self.sorted.get(self.locate(position)).map(|point| point.member())
    }

    pub(super) fn as_slice(&self) -> &[Point] {
        &self.sorted
    }
}

/// The index of the part that has the position, among `parts` equal parts of the ring.
#[inline]
fn part(position: u32, parts: usize) -> usize {
    ((u64::from(position) * parts as u64) >> 32) as usize
}
