//! Compares what all processes did. Pure.

use std::collections::{BTreeMap, BTreeSet};

use crate::journal::Action;

/// An action, and the process that did it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Act {
    /// The number of the process: each start of an agent is another one.
    pub(crate) process: usize,
    pub(crate) action: Action,
}

/// Two processes that acted on one key at the same time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Overlap {
    pub(crate) earlier: Act,
    pub(crate) later: Act,
}

impl Overlap {
    /// For how long, in nanoseconds.
    pub(crate) fn length(&self) -> u64 {
        self.earlier.action.end.min(self.later.action.end) - self.later.action.start
    }
}

/// An owner with a lower token than an owner before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Decrease {
    pub(crate) before: Act,
    pub(crate) after: Act,
}

/// For how long a key was without an owner, in nanoseconds of the host's clock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Gap {
    pub(crate) key: u32,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

impl Gap {
    pub(crate) fn length(&self) -> u64 {
        self.to - self.from
    }
}

/// What one process did on one key without a longer pause.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Ownership {
    pub(crate) process: usize,
    pub(crate) from: u64,
    pub(crate) to: u64,
}

/// All that was done, by key and in the order of the beginnings.
#[derive(Debug)]
pub(crate) struct Acts(BTreeMap<u32, Vec<Act>>);

impl Acts {
    pub(crate) fn new(acts: impl IntoIterator<Item = Act>) -> Acts {
        let mut keys: BTreeMap<u32, Vec<Act>> = BTreeMap::new();
        for act in acts {
            keys.entry(act.action.key).or_default().push(act);
        }
        keys.values_mut().for_each(|acts| acts.sort_by_key(|act| (act.action.start, act.process)));
        Acts(keys)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }

    /// Each action that began while another process acted on its key; with the one of those that went on the longest.
    pub(crate) fn overlaps(&self) -> Vec<Overlap> {
        let mut found = Vec::new();
        for acts in self.0.values() {
            let mut longest: BTreeMap<usize, Act> = BTreeMap::new();
            for later in acts {
                let others = longest.values().filter(|act| act.process != later.process);
                if let Some(earlier) = others.max_by_key(|act| act.action.end)
                    && earlier.action.end > later.action.start
                {
                    found.push(Overlap { earlier: *earlier, later: *later });
                }
                let longest = longest.entry(later.process).or_insert(*later);
                if longest.action.end < later.action.end {
                    *longest = *later;
                }
            }
        }
        found
    }

    /// Each action with a token that is lower than one that another process had before on the same key.
    pub(crate) fn decreases(&self) -> Vec<Decrease> {
        let mut found = Vec::new();
        for acts in self.0.values() {
            let mut highest: BTreeMap<usize, Act> = BTreeMap::new();
            for after in acts {
                let others = highest.values().filter(|act| act.process != after.process);
                if let Some(before) = others.max_by_key(|act| act.action.token)
                    && before.action.token > after.action.token
                {
                    found.push(Decrease { before: *before, after: *after });
                }
                let highest = highest.entry(after.process).or_insert(*after);
                if highest.action.token < after.action.token {
                    *highest = *after;
                }
            }
        }
        found
    }

    /// The longest time without an action on a key, of all keys that had one between `from` and `to`: each pause that
    /// began or ended in that time counts whole.
    pub(crate) fn longest_gap(&self, from: u64, to: u64) -> Option<Gap> {
        let mut longest: Option<Gap> = None;
        for (key, acts) in &self.0 {
            let mut end: Option<u64> = None;
            for act in acts {
                let Action { start, end: until, .. } = act.action;
                if let Some(end) = end.filter(|end| *end < start && start > from && *end < to) {
                    let gap = Gap { key: *key, from: end, to: start };
                    if longest.is_none_or(|longest| longest.length() < gap.length()) {
                        longest = Some(gap);
                    }
                }
                end = Some(end.map_or(until, |end| end.max(until)));
            }
        }
        longest
    }

    /// The keys on which more than one process began to act in this time. What is only ended in it was begun before an
    /// earlier fault, perhaps, whose keys have moved since.
    pub(crate) fn moved(&self, from: u64, to: u64) -> Vec<u32> {
        let in_time = |act: &&Act| (from..to).contains(&act.action.start);
        let actors =
            |acts: &[Act]| acts.iter().filter(in_time).map(|act| act.process).collect::<BTreeSet<_>>();
        self.0.iter().filter(|(_, acts)| actors(acts).len() > 1).map(|(key, _)| *key).collect()
    }

    /// Whether a share was not exclusive in this time.
    pub(crate) fn is_shared_with_plain(&self, from: u64, to: u64) -> bool {
        let mut all = self.0.values().flatten().map(|act| act.action);
        all.any(|action| !action.is_exclusive && (from..to).contains(&action.start))
    }

    /// Who owned a key: its actions, with pauses of up to `pause` left out.
    pub(crate) fn ownerships(&self, key: u32, pause: u64) -> Vec<Ownership> {
        let mut found: Vec<Ownership> = Vec::new();
        for act in self.0.get(&key).into_iter().flatten() {
            let Act { process, action: Action { start, end, .. } } = *act;
            match found.last_mut() {
                Some(last) if last.process == process && start <= last.to + pause => {
                    last.to = last.to.max(end);
                }
                _ => found.push(Ownership { process, from: start, to: end }),
            }
        }
        found
    }
}

/// The processes that acted on each key after `since`, of the keys `0..keys`.
pub(crate) fn actors(acts: &[Act], keys: u32, since: u64) -> BTreeMap<u32, Vec<usize>> {
    let mut actors: BTreeMap<u32, Vec<usize>> = (0..keys).map(|key| (key, Vec::new())).collect();
    for act in acts.iter().filter(|act| act.action.end > since) {
        let actors = actors.entry(act.action.key).or_default();
        if !actors.contains(&act.process) {
            actors.push(act.process);
        }
    }
    actors
}

/// When each key and each process that was acted on or acted after `since` had done so for the first time.
pub(crate) fn all_since(acts: &[Act], since: u64) -> u64 {
    let (mut keys, mut processes) = (BTreeMap::new(), BTreeMap::new());
    for Act { process, action } in acts.iter().filter(|act| act.action.end > since) {
        let start = action.start.max(since);
        keys.entry(action.key).and_modify(|first: &mut u64| *first = start.min(*first)).or_insert(start);
        processes.entry(process).and_modify(|first: &mut u64| *first = start.min(*first)).or_insert(start);
    }
    keys.into_values().chain(processes.into_values()).max().unwrap_or(since)
}
