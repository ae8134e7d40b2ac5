//! Rendezvous or highest-random-weight hashing: each member draws a number for the key, the highest one owns
//! it.
//!
//! D. G. Thaler, C. V. Ravishankar, "Using Name-Based Mappings to Increase Hit Rates", 1998.

use super::{Member, Placement, each, hash, hash_of};

pub struct Rendezvous {
    /// With a hash of each, so that one more hash makes its number.
    members: Vec<(u64, Member)>,
}

impl Rendezvous {
    pub fn new(members: &[Member]) -> Self {
        Rendezvous { members: members.iter().map(|&member| (hash_of(member, 0), member)).collect() }
    }

    fn owner(&self, key: u64) -> Member {
        let draw = |&&(seed, _): &&(u64, Member)| hash(key ^ seed);
        self.members.iter().max_by_key(draw).expect("there are members").1
    }
}

impl Placement for Rendezvous {
    fn join(&mut self, member: Member) {
        self.members.push((hash_of(member, 0), member));
    }

    fn leave(&mut self, member: Member) {
        self.members.retain(|&(_, other)| other != member);
    }

    fn owners(&self, keys: &[u64]) -> Vec<Member> {
        each(keys, |key| self.owner(key))
    }
}
