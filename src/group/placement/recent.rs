// Pure: no runtime, no clock, no socket, no random numbers.

//! The rings that were made last in this process. Members of one group that are in one process have equal rings: they share
//! each, instead of making it once for every member.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crate::{
    member::MemberId,
    ring::{HashRing, Label},
};

/// How many are known.
const MOST: usize = 8;

static RECENT: Mutex<VecDeque<Weak<HashRing>>> = Mutex::new(VecDeque::new());

/// The ring of these members, which are sorted by id, if it is in use.
pub(super) fn find(label: Label, replicas: u32, members: &[(MemberId, u32)]) -> Option<Arc<HashRing>> {
    let is_it = |ring: &HashRing| {
        (ring.label(), ring.replicas(), ring.len()) == (label, replicas, members.len())
            && ring.weights().eq(members.iter().map(|(id, weight)| (id.as_str(), *weight)))
    };
    let recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    recent.iter().filter_map(Weak::upgrade).find(|ring| is_it(ring))
}

/// Notes a new ring.
pub(super) fn note(ring: &Arc<HashRing>) {
    let mut recent = RECENT.lock().unwrap_or_else(PoisonError::into_inner);
    recent.retain(|ring| ring.strong_count() > 0);
    recent.truncate(MOST - 1);
    recent.push_front(Arc::downgrade(ring));
}
