// Pure: no runtime, no clock, no socket, no random numbers.

//! Rings with one member more or less, and the keys that move between two rings.

use std::{iter, ops::RangeInclusive, sync::Arc};

use super::{
    HashRing, Member,
    builder::{self, RingError, points_of},
    kernel::Numbers,
    point::{Point, Position},
    points::{AllPoints, Points},
    ranges::{Part, Ranges},
    tooz,
};

/// A range of positions whose owner changes. From [`HashRing::moves`].
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Move<'a> {
    /// The positions, from the first to the last. On a ring of tooz they are the first 32 bits of its positions, and
    /// one range may end at the position where the next one begins.
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
        let number = place as u32;
        let points = match &self.points {
            AllPoints::Narrow(points) => {
                let (stem, numbers) = (self.label.stem(member), Numbers::first(count));
                AllPoints::Narrow(points.with(number, self.kernel.points(&stem, &numbers, count)))
            }
            AllPoints::Wide(points) => AllPoints::Wide(points.with(number, tooz::points(member, count))),
        };
        Ok(self.changed(members, points))
    }

    /// The ring without `member`; the same ring if the member is not in it.
    pub fn without_member(&self, member: &str) -> HashRing {
        let Some(place) = self.find(member) else { return self.clone() };
        let mut members = self.members.clone();
        members.remove(place as usize);
        self.changed(members, self.points.without(place))
    }

    fn changed(&self, members: Vec<Member>, points: AllPoints) -> HashRing {
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
        match &self.points {
            AllPoints::Narrow(points) => Ranges::of(arcs(points, self.narrow_positions(member), member)),
            AllPoints::Wide(points) => Ranges::of_wide(arcs(points, self.wide_positions(member), member)),
        }
    }

    /// The ranges whose owner changes from this ring to `after`, in ascending order.
    ///
    /// The time depends on the points of the members that have joined, left, or changed their weight, and hardly on the
    /// others. Between rings with other parameters or another order of the members it depends on all points.
    ///
    /// ```
    /// # use apportion::HashRing;
    /// let before = HashRing::builder().members(["a", "b"]).build()?;
    /// let after = before.with_member("c", 1)?;
    /// assert!(before.moves(&after).iter().all(|moved| moved.to == Some("c")));
    /// # Ok::<(), apportion::ring::RingError>(())
    /// ```
    pub fn moves<'a>(&'a self, after: &'a HashRing) -> Vec<Move<'a>> {
        match (&self.points, &after.points) {
            (AllPoints::Narrow(old), AllPoints::Narrow(new)) => {
                moves((self, old), (after, new), HashRing::narrow_positions)
            }
            (AllPoints::Wide(old), AllPoints::Wide(new)) => {
                moves((self, old), (after, new), HashRing::wide_positions)
            }
            (old, new) => joined_moves(sweep(&old.widened(), &new.widened()), self, after),
        }
    }

    /// The positions of the points of a member, sorted, those that lost a collision included.
    fn narrow_positions(&self, member: u32) -> Vec<u32> {
        let owner = &self.members[member as usize];
        let (stem, count) = (self.label.stem(&owner.id), points_of(self.replicas, owner));
        let mut own: Vec<u32> = self.kernel.points(&stem, &Numbers::first(count), count).collect();
        own.sort_unstable();
        own.dedup();
        own
    }

    /// The same on a ring of tooz.
    fn wide_positions(&self, member: u32) -> Vec<u128> {
        let owner = &self.members[member as usize];
        let mut own: Vec<u128> = tooz::points(&owner.id, points_of(self.replicas, owner)).collect();
        own.sort_unstable();
        own.dedup();
        own
    }
}

/// The arcs of a member in ascending order: from the point before each of its points up to it. `own` are the positions
/// of its points.
fn arcs<P: Point>(
    points: &Points<P>,
    own: Vec<P::Position>,
    member: u32,
) -> impl Iterator<Item = Part<P::Position>> {
    let sorted = points.as_slice();
    let arcs = own.into_iter().filter_map(move |position| {
        let index = points.up_to(position) - 1;
        let start = if index == 0 { P::Position::FIRST } else { sorted[index - 1].position() };
        // The arc belongs to another member if this point has lost a collision. It is empty if the ring begins with
        // it.
        (sorted[index].member() == member && start < position)
            .then(|| Part { first: start, last: position.before() })
    });
    // The first point also owns the positions after the last one.
    let rest = sorted.first().filter(|first| first.member() == member).and(sorted.last());
    arcs.chain(rest.map(|last| Part { first: last.position(), last: P::Position::LAST }))
}

/// The arcs of several members with their numbers, in ascending order.
fn arcs_of_all<P: Point>(
    ring: &HashRing,
    points: &Points<P>,
    members: &[u32],
    own: &impl Fn(&HashRing, u32) -> Vec<P::Position>,
) -> Vec<(Part<P::Position>, u32)> {
    let of_one = |&member: &u32| arcs(points, own(ring, member), member).map(move |arc| (arc, member));
    let mut arcs: Vec<_> = members.iter().flat_map(of_one).collect();
    arcs.sort_unstable_by_key(|(arc, _)| arc.first);
    arcs
}

/// [`HashRing::moves`] between two rings whose positions are of one kind. `own` gives the positions of a member.
fn moves<'a, P: Point>(
    (before, old): (&'a HashRing, &Points<P>),
    (after, new): (&'a HashRing, &Points<P>),
    own: impl Fn(&HashRing, u32) -> Vec<P::Position>,
) -> Vec<Move<'a>> {
    let is_comparable = before.label == after.label && before.replicas == after.replicas;
    let members = is_comparable.then(|| changed(before, after)).flatten();
    let Some((left, joined)) = members else {
        return joined_moves(sweep(old, new), before, after);
    };
    let gone = arcs_of_all(before, old, &left, &own);
    let come = arcs_of_all(after, new, &joined, &own);
    if left.is_empty() {
        let arcs = come.into_iter().map(|(arc, to)| (arc, old.owner(arc.first), Some(to)));
        return joined_moves(arcs, before, after);
    }
    if joined.is_empty() {
        let arcs = gone.into_iter().map(|(arc, from)| (arc, Some(from), new.owner(arc.first)));
        return joined_moves(arcs, before, after);
    }
    // Outside of all these arcs each position keeps its owner: its next point is that of a member that stays, on both
    // rings. Between two of their ends, both owners are the same at each position, or the position keeps its owner.
    let arcs = gone.iter().chain(&come).map(|(arc, _)| *arc);
    let mut starts: Vec<_> = arcs.flat_map(|arc| [Some(arc.first), arc.last.next()]).flatten().collect();
    starts.sort_unstable();
    starts.dedup();
    let lasts = starts.iter().skip(1).map(|next| next.before()).chain([P::Position::LAST]);
    let parts = starts
        .iter()
        .zip(lasts)
        .map(|(first, last)| (Part { first: *first, last }, old.owner(*first), new.owner(*first)));
    joined_moves(parts, before, after)
}

/// The members that have left and those that have joined, if all others are in both rings in the same order. A member with
/// another weight is in both lists.
fn changed(before: &HashRing, after: &HashRing) -> Option<(Vec<u32>, Vec<u32>)> {
    let is_same = |one: &Member, other: &Member| Arc::ptr_eq(&one.id, &other.id) || one.id == other.id;
    let (mut left, mut joined) = (Vec::new(), Vec::new());
    let (mut old, mut new) = (0, 0);
    loop {
        match (before.members.get(old as usize), after.members.get(new as usize)) {
            (None, None) => return Some((left, joined)),
            (Some(one), Some(other)) if is_same(one, other) => {
                if one.weight != other.weight {
                    left.push(old);
                    joined.push(new);
                }
                old += 1;
                new += 1;
            }
            (Some(one), _) if !after.contains(&one.id) => {
                left.push(old);
                old += 1;
            }
            (_, Some(other)) if !before.contains(&other.id) => {
                joined.push(new);
                new += 1;
            }
            _ => return None,
        }
    }
}

/// A range of positions with its owners before and after.
type Owned<P> = (Part<P>, Option<u32>, Option<u32>);

/// Every range between two neighbouring points of either ring, with its owners, in one pass over both.
fn sweep<P: Point>(before: &Points<P>, after: &Points<P>) -> impl Iterator<Item = Owned<P::Position>> {
    let (mut old, mut new) = (Front::of(before), Front::of(after));
    let mut next = Some(P::Position::FIRST);
    iter::from_fn(move || {
        let first = next?;
        let owners = (old.owner_from(first), new.owner_from(first));
        next = old.next().into_iter().chain(new.next()).min();
        let last = next.map_or(P::Position::LAST, P::Position::before);
        Some((Part { first, last }, owners.0, owners.1))
    })
}

/// The points of a ring that a [`sweep`] has not passed.
struct Front<'a, P> {
    all: &'a [P],
    rest: &'a [P],
}

impl<'a, P: Point> Front<'a, P> {
    fn of(points: &'a Points<P>) -> Self {
        Front { all: points.as_slice(), rest: points.as_slice() }
    }

    /// The owner of `first`, and the positions up to the next point. `first` must not become less.
    fn owner_from(&mut self, first: P::Position) -> Option<u32> {
        while self.rest.first().is_some_and(|point| point.position() <= first) {
            self.rest = &self.rest[1..];
        }
        self.rest.first().or(self.all.first()).map(|point| point.member())
    }

    fn next(&self) -> Option<P::Position> {
        self.rest.first().map(|point| point.position())
    }
}

/// Leaves out ranges that keep their owner, and joins adjacent ranges with the same owners.
fn joined_moves<'a, P: Position>(
    parts: impl Iterator<Item = Owned<P>>,
    before: &'a HashRing,
    after: &'a HashRing,
) -> Vec<Move<'a>> {
    let mut moves: Vec<Move<'a>> = Vec::new();
    // The end of the last range.
    let mut end: Option<P> = None;
    for (part, from, to) in parts {
        let (from, to) = (from.map(|from| before.id(from)), to.map(|to| after.id(to)));
        if from == to {
            continue;
        }
        let range = part.first.prefix()..=part.last.prefix();
        match moves.last_mut() {
            Some(last) if end.and_then(P::next) == Some(part.first) && (last.from, last.to) == (from, to) => {
                last.range = *last.range.start()..=*range.end();
            }
            _ => moves.push(Move { range, from, to }),
        }
        end = Some(part.last);
    }
    moves
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The moves as a pass over all points finds them.
    fn of_all_points<'a>(before: &'a HashRing, after: &'a HashRing) -> Vec<Move<'a>> {
        match (&before.points, &after.points) {
            (AllPoints::Narrow(old), AllPoints::Narrow(new)) => joined_moves(sweep(old, new), before, after),
            (AllPoints::Wide(old), AllPoints::Wide(new)) => joined_moves(sweep(old, new), before, after),
            _ => panic!("rings of one kind"),
        }
    }

    /// Each member is absent, or there with the weight 1 or 2, so a change has members that stay, come, go, and change.
    #[test]
    fn a_change_of_some_members_moves_what_a_pass_over_all_points_finds() {
        let ring = |fleet: u32, is_wide: bool, keeps: bool| {
            let weights = (0..6).map(|member| (member, fleet / 3_u32.pow(member) % 3));
            let builder = HashRing::builder().replicas(5);
            let builder = if is_wide { builder.tooz(5) } else { builder };
            let builder = if keeps { builder.keep_order() } else { builder };
            let there = weights.filter(|(_, weight)| *weight > 0);
            let add = |builder: builder::HashRingBuilder, (member, weight)| {
                builder.weighted_member(format!("member-{member}"), weight)
            };
            there.fold(builder, add).build().unwrap()
        };
        for (is_wide, keeps) in [(false, false), (true, false), (false, true)] {
            for step in 0..2000_u32 {
                let fleets = (step.wrapping_mul(7919) % 729, step.wrapping_mul(104_729) % 729);
                let (before, after) = (ring(fleets.0, is_wide, keeps), ring(fleets.1, is_wide, keeps));
                assert_eq!(before.moves(&after), of_all_points(&before, &after), "{fleets:?} {is_wide}");
            }
        }
    }

    #[test]
    fn members_in_another_order_are_compared_at_all_points() {
        let ring = |members: [&str; 3]| HashRing::builder().members(members).keep_order().build().unwrap();
        let (before, after) = (ring(["a", "b", "c"]), ring(["c", "b", "d"]));
        assert_eq!(changed(&before, &after), None);
        assert_eq!(before.moves(&after), of_all_points(&before, &after));
    }
}
