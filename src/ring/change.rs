// Pure: no runtime, no clock, no socket, no random numbers.

//! Rings with one member more or less, and the keys that move between two rings.

use std::{ops::RangeInclusive, sync::Arc};

use super::{
    HashRing, Member,
    builder::{self, RingError, points_of},
    kernel::Numbers,
    points::Point,
    ranges::{Part, Ranges},
};

/// A range of positions whose owner changes. From [`HashRing::moves`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Move<'a> {
    /// The positions, from the first to the last.
    pub range: RangeInclusive<u32>,
    /// The owner before; `None` if there were no members.
    pub from: Option<&'a str>,
    /// The owner after; `None` if there are no members.
    pub to: Option<&'a str>,
}

impl HashRing {
    /// The ring that also has `member`, with the given weight. If it is in the ring already, it gets that weight.
    ///
    /// The result is the same as that of a new build, but much faster. In a ring whose order is
    /// [kept](super::HashRingBuilder::keep_order) the new member comes last.
    ///
    /// # Errors
    ///
    /// [`RingError`] if the weight is zero or there would be too many points.
    ///
    /// ```
    /// # use apportion::HashRing;
    /// let ring = HashRing::builder().members(["a", "b"]).build()?;
    /// assert_eq!(ring.with_member("c", 1)?, HashRing::builder().members(["a", "b", "c"]).build()?);
    /// assert_eq!(ring.without_member("b"), HashRing::builder().member("a").build()?);
    /// # Ok::<(), apportion::ring::RingError>(())
    /// ```
    pub fn with_member(&self, member: &str, weight: u32) -> Result<HashRing, RingError> {
        builder::check_weight(member, weight)?;
        if self.contains(member) {
            return self.without_member(member).with_member(member, weight);
        }
        let place = if self.keep_order {
            self.members.len()
        } else {
            self.members.partition_point(|other| *other.id < *member)
        };
        let mut members = Vec::with_capacity(self.members.len() + 1);
        members.extend_from_slice(&self.members[..place]);
        members.push(Member { id: member.into(), weight });
        members.extend_from_slice(&self.members[place..]);
        builder::check_points(self.replicas, &members)?;
        let count = points_of(self.replicas, &members[place]);
        let stem = self.label.stem(member);
        let numbers = Numbers::first(count);
        let points = self.points.with(place as u32, self.kernel.points(&stem, &numbers, count));
        Ok(self.changed(members, points))
    }

    /// The ring without `member`; the same ring if the member is not in it.
    pub fn without_member(&self, member: &str) -> HashRing {
        let Some(place) = self.find(member) else { return self.clone() };
        let mut members = self.members.clone();
        members.remove(place as usize);
        self.changed(members, self.points.without(place))
    }

    fn changed(&self, members: Vec<Member>, points: super::points::Points) -> HashRing {
        HashRing {
            by_id: builder::by_id(&members),
            digest: builder::digest(self.label, self.replicas, &members),
            members,
            points,
            ..*self
        }
    }

    /// The parts of the ring that `member` owns. None if the member is not in the ring.
    ///
    /// The time depends on the points of that member only, not on the other members.
    pub fn ranges(&self, member: &str) -> Ranges {
        let Some(member) = self.find(member) else { return Ranges::default() };
        Ranges::of(self.arcs(member))
    }

    /// The ranges whose owner changes from this ring to `after`, in ascending order.
    ///
    /// If members have only joined or only left, and all others are as before, the time depends on the points of those
    /// members only. Otherwise it depends on all points.
    ///
    /// ```
    /// # use apportion::HashRing;
    /// let before = HashRing::builder().members(["a", "b"]).build()?;
    /// let after = before.with_member("c", 1)?;
    /// assert!(before.moves(&after).iter().all(|moved| moved.to == Some("c")));
    /// # Ok::<(), apportion::ring::RingError>(())
    /// ```
    pub fn moves<'a>(&'a self, after: &'a HashRing) -> Vec<Move<'a>> {
        let comparable = self.label == after.label && self.replicas == after.replicas;
        if let Some(joined) = added(&self.members, &after.members).filter(|_| comparable) {
            let arcs = after.arcs_of_all(&joined);
            return joined_moves(
                arcs.map(|(arc, to)| (arc, self.points.owner(arc.first), Some(to))),
                self,
                after,
            );
        }
        if let Some(left) = added(&after.members, &self.members).filter(|_| comparable) {
            let arcs = self.arcs_of_all(&left);
            return joined_moves(
                arcs.map(|(arc, from)| (arc, Some(from), after.points.owner(arc.first))),
                self,
                after,
            );
        }
        joined_moves(sweep(self, after), self, after)
    }

    /// The arcs of a member in ascending order: from the point before each of its points up to it.
    fn arcs(&self, member: u32) -> impl Iterator<Item = Part> {
        let points = self.points.as_slice();
        let owner = &self.members[member as usize];
        let (stem, count) = (self.label.stem(&owner.id), points_of(self.replicas, owner));
        let mut own: Vec<u32> = self.kernel.points(&stem, &Numbers::first(count), count).collect();
        own.sort_unstable();
        own.dedup();
        let arcs = own.into_iter().filter_map(move |position| {
            let index = self.points.up_to(position) - 1;
            let start = if index == 0 { 0 } else { points[index - 1].position() };
            // The arc belongs to another member if this point has lost a collision. It is empty if the ring begins with
            // it.
            (points[index].member() == member && start < position)
                .then(|| Part { first: start, last: position - 1 })
        });
        // The first point also owns the positions after the last one.
        let rest = points.first().filter(|first| first.member() == member).and(points.last());
        arcs.chain(rest.map(|last| Part { first: last.position(), last: u32::MAX }))
    }

    fn arcs_of_all(&self, members: &[u32]) -> impl Iterator<Item = (Part, u32)> + use<> {
        let mut arcs: Vec<(Part, u32)> =
            members.iter().flat_map(|&member| self.arcs(member).map(move |arc| (arc, member))).collect();
        arcs.sort_unstable_by_key(|(arc, _)| arc.first);
        arcs.into_iter()
    }
}

/// The members of `large` that are not in `small`, if all others are in both, in the same order and with equal weights.
fn added(small: &[Member], large: &[Member]) -> Option<Vec<u32>> {
    let is_same = |one: &Member, other: &Member| {
        Arc::ptr_eq(&one.id, &other.id) && one.weight == other.weight || one == other
    };
    let mut rest = small.iter().peekable();
    let new = (0..).zip(large).filter(|(_, member)| rest.next_if(|other| is_same(other, member)).is_none());
    let new = new.map(|(number, _)| number).collect();
    rest.peek().is_none().then_some(new)
}

/// Every range between two neighbouring points of either ring, with its owners.
fn sweep(before: &HashRing, after: &HashRing) -> impl Iterator<Item = (Part, Option<u32>, Option<u32>)> {
    let positions = |ring: &HashRing| ring.points.as_slice().iter().copied().map(Point::position).collect();
    let mut starts: Vec<u32> = [vec![0], positions(before), positions(after)].concat();
    // The stable sort finds the sorted runs and merges them.
    starts.sort();
    starts.dedup();
    let lasts: Vec<u32> = starts[1..].iter().map(|next| next - 1).chain([u32::MAX]).collect();
    starts
        .into_iter()
        .zip(lasts)
        .map(|(first, last)| (Part { first, last }, before.points.owner(first), after.points.owner(first)))
}

/// Leaves out ranges that keep their owner, and joins adjacent ranges with the same owners.
fn joined_moves<'a>(
    parts: impl Iterator<Item = (Part, Option<u32>, Option<u32>)>,
    before: &'a HashRing,
    after: &'a HashRing,
) -> Vec<Move<'a>> {
    let mut moves: Vec<Move<'a>> = Vec::new();
    for (part, from, to) in parts {
        let (from, to) = (from.map(|from| before.id(from)), to.map(|to| after.id(to)));
        if from == to {
            continue;
        }
        match moves.last_mut() {
            Some(last)
                if last.range.end().checked_add(1) == Some(part.first)
                    && (last.from, last.to) == (from, to) =>
            {
                last.range = *last.range.start()..=part.last;
            }
            _ => moves.push(Move { range: part.first..=part.last, from, to }),
        }
    }
    moves
}
