//! The search: visits every state, breadth first.

use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};

use super::{super::super::rules::Rules, canonical::fingerprint, moves::Move, scope::Scope, world::World};

/// Fingerprints are random enough.
#[derive(Default)]
struct Same(u64);

impl Hasher for Same {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, _: &[u8]) {
        unreachable!("only numbers are hashed")
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

type Known = HashMap<u64, (u64, Move), BuildHasherDefault<Same>>;

#[derive(Debug)]
pub(super) struct Found {
    pub(super) states: usize,
    pub(super) transitions: usize,
    pub(super) depth: usize,
    /// The steps to two members that act on one key.
    pub(super) violation: Option<Vec<Move>>,
    pub(super) is_complete: bool,
}

/// Visits every state, up to `limit` of them.
pub(super) fn explore(scope: Scope, rules: &Rules, limit: usize) -> Found {
    let start = World::new(scope, rules.clone());
    let first = fingerprint(&start);
    let mut known = Known::default();
    known.insert(first, (0, Move::Tick));
    let mut layer = vec![(first, start)];
    let mut found = Found { states: 1, transitions: 0, depth: 0, violation: None, is_complete: true };
    while !layer.is_empty() && found.violation.is_none() {
        let mut next = Vec::new();
        for (number, world) in layer {
            for step in world.moves() {
                let after = world.after(step);
                found.transitions += 1;
                let name = fingerprint(&after);
                if known.contains_key(&name) {
                    continue;
                }
                known.insert(name, (number, step));
                if after.acting().len() > 1 {
                    found.violation = Some(way_to(&known, first, name));
                    found.states = known.len();
                    return found;
                }
                next.push((name, after));
            }
            if known.len() > limit {
                found.states = known.len();
                found.is_complete = false;
                return found;
            }
        }
        layer = next;
        found.depth += 1;
        if std::env::var_os("EXPLORER_VERBOSE").is_some() {
            eprintln!("depth {} layer {} states {}", found.depth, layer.len(), known.len());
        }
    }
    found.states = known.len();
    found
}

fn way_to(known: &Known, first: u64, name: u64) -> Vec<Move> {
    let (mut steps, mut at) = (Vec::new(), name);
    while at != first {
        let (before, step) = known[&at];
        steps.push(step);
        at = before;
    }
    steps.reverse();
    steps
}
