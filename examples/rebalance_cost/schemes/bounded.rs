//! Consistent hashing with bounded loads: a ring on which full members are passed by.
//!
//! V. Mirrokni, M. Thorup, M. Zadimoghaddam, "Consistent Hashing with Bounded Loads", 2018.
//!
//! No member gets more than its bound times the mean. So the owner of a key depends on all other keys, and on
//! their order: all processes that are to agree need the same list.

use std::collections::HashMap;

use super::{Member, Placement, hash, hash_of};

const POINTS: u32 = 100;

pub struct Bounded {
    bound: f64,
    members: usize,
    /// Sorted.
    points: Vec<(u64, Member)>,
}

impl Bounded {
    pub fn new(members: &[Member], bound: f64) -> Self {
        let mut points = Vec::with_capacity(members.len() * POINTS as usize);
        members.iter().for_each(|&member| points.extend(points_of(member)));
        points.sort_unstable();
        Bounded { bound, members: members.len(), points }
    }
}

impl Placement for Bounded {
    fn join(&mut self, member: Member) {
        self.members += 1;
        self.points.extend(points_of(member));
        self.points.sort_unstable();
    }

    fn leave(&mut self, member: Member) {
        self.members -= 1;
        self.points.retain(|&(_, other)| other != member);
    }

    fn owners(&self, keys: &[u64]) -> Vec<Member> {
        let most = (self.bound * keys.len() as f64 / self.members as f64).ceil() as usize;
        // Loads are counted by place in a list: a lookup of members for each key would take most of the time.
        let mut numbers = HashMap::new();
        let points: Vec<(u64, usize)> = self
            .points
            .iter()
            .map(|&(point, member)| {
                let next = numbers.len();
                (point, *numbers.entry(member).or_insert(next))
            })
            .collect();
        let mut members = vec![0; numbers.len()];
        numbers.into_iter().for_each(|(member, number)| members[number] = member);
        let mut loads = vec![0; members.len()];
        let mut owner = |key: u64| {
            let position = hash(key);
            let mut next = points.partition_point(|&(point, _)| point <= position) % points.len();
            while loads[points[next].1] >= most {
                next = (next + 1) % points.len();
            }
            loads[points[next].1] += 1;
            members[points[next].1]
        };
        keys.iter().map(|&key| owner(key)).collect()
    }
}

fn points_of(member: Member) -> impl Iterator<Item = (u64, Member)> {
    (0..POINTS).map(move |number| (hash_of(member, number), member))
}
