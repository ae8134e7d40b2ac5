// Pure: no runtime, no clock, no socket, no random numbers.

//! The ring of a membership: which members are in it, with which weights, and how it follows from the ring before.

mod recent;

use std::{cmp::Ordering, sync::Arc};

use super::member::Member;
use crate::{
    member::MemberId,
    ring::{HashRing, HashRingBuilder, Label, RingError},
};

/// The parameters of the rings of one group.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Rings {
    pub(crate) label: Label,
    pub(crate) replicas: u32,
}

/// How the ring of a membership is made.
#[derive(Debug)]
pub(crate) struct Plan {
    rings: Rings,
    before: Arc<HashRing>,
    /// The members of the ring with their weights, sorted by id.
    members: Vec<(MemberId, u32)>,
    changes: Vec<Change>,
    /// The members for whose points there is no room, with the number of points that the ring would have.
    pub(crate) left_out: Vec<(MemberId, RingError)>,
}

/// One change of a ring.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Change {
    With(MemberId, u32),
    Without(String),
}

/// Up to so many changes, it is faster to change a ring than to build it anew: each change copies all points.
const FEW_CHANGES: usize = 2;
/// So much work takes longer than to find that it was done.
const WORTH_SHARING: u64 = 10_000;

impl Rings {
    /// A ring without members.
    pub(crate) fn empty(&self) -> HashRing {
        let builder = HashRing::builder().replicas(self.replicas).label(self.label);
        builder.build().expect("an empty ring is within all limits")
    }

    /// Plans the ring of `members`, which are sorted by id. `before` is any ring with the same parameters.
    ///
    /// Three rules decide, and all members of the group follow them, so that they have one ring:
    ///
    /// - On a ring of tooz, each member has the weight that Python peers give it; with 0 it is not in the ring.
    /// - On another ring, a plain Python peer cannot read weights and gives every member the weight 1. While there is
    ///   one, all members do the same. Otherwise a key would have two owners for as long as that peer stays.
    /// - A ring has room for so many points. The members take their place in the order in which they joined. One for
    ///   which there is no room is left out until there is; the others are not affected.
    pub(crate) fn plan(&self, members: &[Member], before: &Arc<HashRing>) -> Plan {
        let any_plain = members.iter().any(Member::is_plain);
        let weight = |member: &Member| match self.label {
            Label::Tooz => member.python_weight().for_ring(),
            label => counted_weight(label, any_plain, member.weight()),
        };
        let wanted = members.iter().map(|member| (member.incarnation(), member.id(), weight(member)));
        let left_out = left_out(self.replicas, wanted);
        let has_place =
            |member: &&Member| weight(member) > 0 && !left_out.iter().any(|(id, _)| id == member.id());
        let placed = members.iter().filter(has_place).map(|member| (member.id().clone(), weight(member)));
        let plan = self.plan_of(placed.collect(), before);
        Plan { left_out, ..plan }
    }

    /// Plans the ring of these members with their weights, sorted by id.
    pub(crate) fn plan_of(&self, members: Vec<(MemberId, u32)>, before: &Arc<HashRing>) -> Plan {
        let changes = changes(before, &members);
        Plan { rings: *self, before: before.clone(), members, changes, left_out: Vec::new() }
    }
}

/// The weight that counts for the ring of a group. A plain peer of aodh cannot read weights, so all weights count as 1
/// while one is there. On a ring of tooz they can.
pub(crate) fn counted_weight(label: Label, has_plain: bool, weight: u32) -> u32 {
    if has_plain && label != Label::Tooz { 1 } else { weight }
}

/// The members for whose points there is no room, sorted by age, with the number of points that the ring would have.
/// Each of `members` has its age, its id and its weight.
pub(crate) fn left_out<'a>(
    replicas: u32,
    members: impl Iterator<Item = (i64, &'a MemberId, u32)>,
) -> Vec<(MemberId, RingError)> {
    let points = |weight: u32| u64::from(replicas) * u64::from(weight);
    let mut by_age: Vec<_> = members.collect();
    if by_age.iter().map(|(_, _, weight)| points(*weight)).sum::<u64>() <= HashRingBuilder::MAX_POINTS {
        return Vec::new();
    }
    by_age.sort_by_key(|(age, id, _)| (*age, *id));
    let (mut taken, mut left_out) = (0, Vec::new());
    for (_, id, weight) in by_age {
        let wanted = taken + points(weight);
        if wanted > HashRingBuilder::MAX_POINTS {
            left_out.push((id.clone(), RingError::TooManyPoints { points: wanted }));
        } else {
            taken = wanted;
        }
    }
    left_out
}

impl Plan {
    /// How many points are hashed, sorted or copied: a measure of the time that [`Plan::ring`] takes.
    pub(crate) fn work(&self) -> u64 {
        let weights: u64 = self.members.iter().map(|(_, weight)| u64::from(*weight)).sum();
        u64::from(self.rings.replicas) * weights * u64::from(!self.changes.is_empty())
    }

    /// Makes the ring, unless another member in this process has made it already.
    pub(crate) fn ring(&self) -> Result<Arc<HashRing>, RingError> {
        if self.work() < WORTH_SHARING {
            return self.made();
        }
        if let Some(ring) = recent::find(self.rings.label, self.rings.replicas, &self.members) {
            return Ok(ring);
        }
        let ring = self.made()?;
        recent::note(&ring);
        Ok(ring)
    }

    fn made(&self) -> Result<Arc<HashRing>, RingError> {
        if self.before.is_empty() || self.changes.len() > FEW_CHANGES {
            return self.built();
        }
        // A weight that grows may have room only after another one has become smaller.
        self.changed().or_else(|_| self.built())
    }

    fn built(&self) -> Result<Arc<HashRing>, RingError> {
        let Rings { label, replicas } = self.rings;
        let mut builder = HashRing::builder().replicas(replicas).label(label);
        for (id, weight) in &self.members {
            builder = builder.weighted_member(id.as_str(), *weight);
        }
        builder.build().map(Arc::new)
    }

    fn changed(&self) -> Result<Arc<HashRing>, RingError> {
        let mut ring = self.before.clone();
        for change in &self.changes {
            ring = Arc::new(match change {
                Change::With(id, weight) => ring.with_member(id.as_str(), *weight)?,
                Change::Without(id) => ring.without_member(id),
            });
        }
        Ok(ring)
    }
}

/// What to change in the ring `before`, so that it has these members, which are sorted by id.
fn changes(before: &HashRing, members: &[(MemberId, u32)]) -> Vec<Change> {
    let (mut without, mut with) = (Vec::new(), Vec::new());
    let mut old = before.weights().peekable();
    for (id, weight) in members {
        while let Some((gone, _)) = old.next_if(|(other, _)| (*other).cmp(id.as_str()) == Ordering::Less) {
            without.push(Change::Without(gone.to_owned()));
        }
        let same = old.next_if(|(other, _)| *other == id.as_str());
        if same.is_none_or(|(_, before)| before != *weight) {
            with.push(Change::With(id.clone(), *weight));
        }
    }
    without.extend(old.map(|(gone, _)| Change::Without(gone.to_owned())));
    // Members that are gone make room first.
    without.append(&mut with);
    without
}

#[cfg(test)]
mod tests;
