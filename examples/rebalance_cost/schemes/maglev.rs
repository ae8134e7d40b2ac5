//! Maglev hashing: members take turns to pick slots of a table, each in an order of its own, until it is
//! full.
//!
//! D. E. Eisenbud et al., "Maglev: A Fast and Reliable Software Network Load Balancer", 2016.

use super::{Member, Placement, each, hash, hash_of};

/// A prime, the smaller of the two in the paper: for shares within 1 %, there should be 100 slots a member.
const SLOTS: u64 = 65_537;

pub struct Maglev {
    members: Vec<Member>,
    table: Vec<Member>,
}

impl Maglev {
    pub fn new(members: &[Member]) -> Self {
        let mut maglev = Maglev { members: members.to_vec(), table: Vec::new() };
        maglev.fill();
        maglev
    }

    fn fill(&mut self) {
        self.members.sort_unstable();
        let mut table = vec![None; SLOTS as usize];
        // Where each member is in its order of the slots, and how far it is to the next.
        let mut turns: Vec<(u64, u64)> = self
            .members
            .iter()
            .map(|&member| (hash_of(member, 0) % SLOTS, hash_of(member, 1) % (SLOTS - 1) + 1))
            .collect();
        let mut free = table.len();
        'full: loop {
            for (&member, (slot, step)) in self.members.iter().zip(&mut turns) {
                while table[*slot as usize].is_some() {
                    *slot = (*slot + *step) % SLOTS;
                }
                table[*slot as usize] = Some(member);
                free -= 1;
                if free == 0 {
                    break 'full;
                }
            }
        }
        self.table = table.into_iter().map(|member| member.expect("the table is full")).collect();
    }
}

impl Placement for Maglev {
    fn join(&mut self, member: Member) {
        self.members.push(member);
        self.fill();
    }

    fn leave(&mut self, member: Member) {
        self.members.retain(|&other| other != member);
        self.fill();
    }

    fn owners(&self, keys: &[u64]) -> Vec<Member> {
        each(keys, |key| self.table[(hash(key) % SLOTS) as usize])
    }
}
