//! Multi-probe consistent hashing: one point a member on the ring, and many tries a key; the closest point
//! wins.
//!
//! B. Appleton, M. O'Reilly, "Multi-probe consistent hashing", 2015.

use super::{Member, Placement, each, hash, hash_of};

/// As in the paper, for shares of at most 1.05 times the mean.
const PROBES: u64 = 21;

pub struct MultiProbe {
    /// Sorted.
    points: Vec<(u64, Member)>,
}

impl MultiProbe {
    pub fn new(members: &[Member]) -> Self {
        let mut points: Vec<_> = members.iter().map(|&member| (hash_of(member, 0), member)).collect();
        points.sort_unstable();
        MultiProbe { points }
    }

    fn owner(&self, key: u64) -> Member {
        let probes = (0..PROBES).map(|probe| {
            let position = hash(key.wrapping_add(hash(probe)));
            let next = self.points.partition_point(|&(point, _)| point < position);
            let (point, member) = self.points[if next == self.points.len() { 0 } else { next }];
            (point.wrapping_sub(position), member)
        });
        probes.min().expect("there are probes").1
    }
}

impl Placement for MultiProbe {
    fn join(&mut self, member: Member) {
        let point = (hash_of(member, 0), member);
        let place = self.points.partition_point(|&other| other < point);
        self.points.insert(place, point);
    }

    fn leave(&mut self, member: Member) {
        self.points.retain(|&(_, other)| other != member);
    }

    fn owners(&self, keys: &[u64]) -> Vec<Member> {
        each(keys, |key| self.owner(key))
    }
}
