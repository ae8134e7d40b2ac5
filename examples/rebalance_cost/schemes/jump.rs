//! Jump consistent hashing: a walk that ends in one of the buckets 0 to M - 1, and needs no memory at all.
//!
//! J. Lamping, E. Veach, "A Fast, Minimal Memory, Consistent Hash Algorithm", 2014.
//!
//! Buckets are numbers, not names. Here a member's bucket is its place in the list; when one leaves, all that
//! follow move up, which is what happens to a service that numbers the members it sees.

use super::{Member, Placement, each};

pub struct Jump {
    members: Vec<Member>,
}

impl Jump {
    pub fn new(members: &[Member]) -> Self {
        Jump { members: members.to_vec() }
    }
}

impl Placement for Jump {
    fn join(&mut self, member: Member) {
        self.members.push(member);
    }

    fn leave(&mut self, member: Member) {
        self.members.retain(|&other| other != member);
    }

    fn owners(&self, keys: &[u64]) -> Vec<Member> {
        each(keys, |key| self.members[bucket(key, self.members.len())])
    }
}

fn bucket(mut key: u64, buckets: usize) -> usize {
    let (mut bucket, mut next) = (0, 0);
    while next < buckets {
        bucket = next;
        key = key.wrapping_mul(2_862_933_555_777_941_757).wrapping_add(1);
        next = ((bucket as f64 + 1.0) * ((1u64 << 31) as f64 / ((key >> 33) as f64 + 1.0))) as usize;
    }
    bucket
}
