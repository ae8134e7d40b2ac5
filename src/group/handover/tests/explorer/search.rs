//! The search: visits every state.

use std::{
    collections::{BTreeMap, HashMap, hash_map::Entry},
    hash::{BuildHasherDefault, Hasher},
};

use super::{
    super::super::rules::Rules,
    canonical::fingerprint,
    moves::Move,
    scope::{Budget, Scope},
    world::World,
};

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

/// What a search does, and when it gives up.
#[derive(Clone, Copy)]
pub(super) struct Search {
    pub(super) order: Order,
    /// The most visits.
    pub(super) limit: usize,
    /// How many steps from the beginning it goes; only with [`Order::Steps`].
    pub(super) depth: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Breadth first: what is found is found by the shortest way.
    Steps,
    /// First what needs the fewest events: fewer states are visited again because more of the budget is left.
    Budget,
}

#[derive(Debug)]
pub(super) struct Found {
    pub(super) states: usize,
    /// How often states were visited: with less of one part of the budget left, and more of another, again.
    pub(super) visits: usize,
    pub(super) transitions: usize,
    /// The steps to two members that act on one key.
    pub(super) violation: Option<Vec<Move>>,
    pub(super) is_complete: bool,
}

/// One visit of a state.
struct Visit {
    left: Budget,
    /// The visit before, and the step from there. The first visit has itself.
    from: u32,
    step: Move,
    /// An earlier visit of the same state.
    earlier: Option<u32>,
}

/// All visits so far.
#[derive(Default)]
struct Known {
    /// The latest visit of each state.
    latest: HashMap<u64, u32, BuildHasherDefault<Same>>,
    visits: Vec<Visit>,
}

impl Known {
    /// Notes a visit and returns its number; `None` if the state was visited with as much left, or more, of everything. What
    /// can follow was visited then: no step needs that little is left.
    fn visit(&mut self, name: u64, left: Budget, from: u32, step: Move) -> Option<u32> {
        let number = u32::try_from(self.visits.len()).expect("it fits");
        let earlier = match self.latest.entry(name) {
            Entry::Vacant(entry) => {
                entry.insert(number);
                None
            }
            Entry::Occupied(mut entry) => {
                let mut at = Some(*entry.get());
                while let Some(visit) = at.map(|at| &self.visits[at as usize]) {
                    if visit.left.covers(left) {
                        return None;
                    }
                    at = visit.earlier;
                }
                Some(entry.insert(number))
            }
        };
        self.visits.push(Visit { left, from, step, earlier });
        Some(number)
    }

    fn way_to(&self, mut at: u32) -> Vec<Move> {
        let mut steps = Vec::new();
        while at != 0 {
            let visit = &self.visits[at as usize];
            steps.push(visit.step);
            at = visit.from;
        }
        steps.reverse();
        steps
    }

    fn found(&self, transitions: usize) -> Found {
        Found {
            states: self.latest.len(),
            visits: self.visits.len(),
            transitions,
            violation: None,
            is_complete: true,
        }
    }
}

/// Visits every state, or every state within the depth.
pub(super) fn explore(scope: Scope, rules: &Rules, search: Search) -> Found {
    let start = World::new(scope, rules.clone());
    let (mut known, mut transitions) = (Known::default(), 0);
    known.visit(fingerprint(&start), start.left, 0, Move::Tick);
    // By their order.
    let mut open = BTreeMap::from([(0, vec![(0, start)])]);
    while let Some(mut first) = open.first_entry() {
        let order = *first.key();
        let Some((number, world)) = first.get_mut().pop() else {
            first.remove();
            continue;
        };
        if search.order == Order::Steps && order == search.depth {
            continue;
        }
        for step in world.moves() {
            let after = world.after(step);
            transitions += 1;
            let Some(visit) = known.visit(fingerprint(&after), after.left, number, step) else { continue };
            if after.acting().len() > 1 {
                return Found { violation: Some(known.way_to(visit)), ..known.found(transitions) };
            }
            let order = match search.order {
                Order::Steps => order + 1,
                Order::Budget => after.left.used(scope.budget),
            };
            open.entry(order).or_default().push((visit, after));
        }
        if known.visits.len() > search.limit {
            return Found { is_complete: false, ..known.found(transitions) };
        }
    }
    known.found(transitions)
}
