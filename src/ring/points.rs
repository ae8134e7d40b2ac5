// Pure: no runtime, no clock, no socket, no random numbers.

//! The points of a ring in order, found by position without a search.

/// A point and the member that has it, in one number so that sorting and looking up touch memory once.
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
    /// Those that lost a collision: they come back when the member that won it goes.
    shadowed: Vec<Point>,
    /// Cuts the ring into equal parts and says where the points of each part begin. With two parts for a point,
    /// the right point is nearly always the first or second one looked at.
    starts: Vec<u32>,
}

impl Points {
    const AT_ONCE: usize = 4;

    pub(super) fn new(mut all: Vec<Point>) -> Points {
        all.sort_unstable();
        Points::settle(all)
    }

    /// Sees to collisions among sorted points: the later member wins.
    fn settle(mut sorted: Vec<Point>) -> Points {
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

    /// With the points of a new `member`, after which the numbers of later members go up by one.
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
        Points::settle(all)
    }

    /// Without the points of `member`, after which the numbers of later members go down by one.
    pub(super) fn without(&self, member: u32) -> Points {
        let mut all = Vec::with_capacity(self.sorted.len() + self.shadowed.len());
        let others = self.sorted.iter().chain(&self.shadowed).filter(|point| point.member() != member);
        all.extend(others.map(|point| Point(point.0 - u64::from(point.member() > member))));
        if !self.shadowed.is_empty() {
            all.sort();
        }
        Points::settle(all)
    }

    /// How many points there are up to `position`, itself included: the index of the first one after it.
    #[inline]
    pub(super) fn up_to(&self, position: u32) -> usize {
        let mut index = self.starts[part(position, self.starts.len())] as usize;
        // Comparing some points at once is faster than stopping at the right one, which nobody can predict.
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

    /// The index of the point that owns `position`: the first one after it, clockwise. Meaningless if there are
    /// no points.
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

/// Which of so many equal parts of the ring a position is in.
#[inline]
fn part(position: u32, parts: usize) -> usize {
    ((u64::from(position) * parts as u64) >> 32) as usize
}
