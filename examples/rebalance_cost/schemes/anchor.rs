//! Anchor hashing: a fixed number of buckets, some of them empty; a key that hits an empty one tries again
//! among those that were there when it was emptied.
//!
//! G. Mendelson, S. Vargaftik, K. Barabash, D. H. Lorenz, I. Keslassy, A. Orda, "`AnchorHash`: A Scalable
//! Consistent Hash", 2018. The names of the fields are those of the paper.

use super::{Member, Placement, each, hash};

pub struct Anchor {
    /// For a bucket in use 0, for an empty one how many were in use after it was emptied.
    a: Vec<usize>,
    /// The buckets in use, the first `n` of them.
    w: Vec<usize>,
    /// Where each bucket is in `w`.
    l: Vec<usize>,
    /// Who took the place of each bucket in `w`.
    k: Vec<usize>,
    /// The empty buckets, the last emptied one last.
    r: Vec<usize>,
    n: usize,
    /// The member in each bucket.
    members: Vec<Option<Member>>,
}

impl Anchor {
    /// With room for as many members again.
    pub fn new(members: &[Member]) -> Self {
        let capacity = 2 * members.len();
        let buckets: Vec<usize> = (0..capacity).collect();
        let mut anchor = Anchor {
            a: vec![0; capacity],
            w: buckets.clone(),
            l: buckets.clone(),
            k: buckets,
            r: Vec::new(),
            n: capacity,
            members: members.iter().copied().map(Some).collect(),
        };
        anchor.members.resize(capacity, None);
        (members.len()..capacity).rev().for_each(|bucket| anchor.empty(bucket));
        anchor
    }

    fn empty(&mut self, bucket: usize) {
        self.r.push(bucket);
        self.n -= 1;
        self.a[bucket] = self.n;
        let last = self.w[self.n];
        self.w[self.l[bucket]] = last;
        self.l[last] = self.l[bucket];
        self.k[bucket] = last;
        self.members[bucket] = None;
    }

    fn owner(&self, key: u64) -> Member {
        let draw = |bucket: usize, below: usize| (hash(key ^ hash(bucket as u64)) % below as u64) as usize;
        let mut bucket = draw(self.a.len(), self.a.len());
        while self.a[bucket] > 0 {
            let mut next = draw(bucket, self.a[bucket]);
            while self.a[next] >= self.a[bucket] {
                next = self.k[next];
            }
            bucket = next;
        }
        self.members[bucket].expect("a bucket in use has a member")
    }
}

impl Placement for Anchor {
    fn join(&mut self, member: Member) {
        let bucket = self.r.pop().expect("there is room");
        self.a[bucket] = 0;
        self.l[self.w[self.n]] = self.n;
        self.w[self.l[bucket]] = bucket;
        self.k[bucket] = bucket;
        self.n += 1;
        self.members[bucket] = Some(member);
    }

    fn leave(&mut self, member: Member) {
        let bucket = self.members.iter().position(|&other| other == Some(member));
        self.empty(bucket.expect("the member is there"));
    }

    fn owners(&self, keys: &[u64]) -> Vec<Member> {
        each(keys, |key| self.owner(key))
    }
}
