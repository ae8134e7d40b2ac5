// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Later`]: candidates that are passed over for a while.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
};

use crate::clock::Moment;

/// The candidates that are passed over, each until some moment.
#[derive(Debug)]
pub(crate) struct Later<K> {
    until: HashMap<K, Moment>,
    in_order: BTreeSet<(Moment, K)>,
}

impl<K: Clone + Eq + Hash + Ord> Later<K> {
    pub(crate) fn new() -> Self {
        Later { until: HashMap::new(), in_order: BTreeSet::new() }
    }

    /// Passes over `key` until this moment. A later call replaces an earlier one.
    pub(crate) fn insert(&mut self, key: K, until: Moment) {
        self.remove(&key);
        self.until.insert(key.clone(), until);
        self.in_order.insert((until, key));
    }

    /// No longer passes over `key`. Returns whether it was passed over.
    pub(crate) fn remove(&mut self, key: &K) -> bool {
        let Some((key, until)) = self.until.remove_entry(key) else { return false };
        self.in_order.remove(&(until, key))
    }

    pub(crate) fn len(&self) -> usize {
        self.until.len()
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.until.contains_key(key)
    }

    /// Keeps those for which `keep` is true.
    pub(crate) fn retain(&mut self, keep: impl Fn(&K) -> bool) {
        self.until.retain(|key, _| keep(key));
        self.in_order.retain(|(_, key)| keep(key));
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &K> {
        self.in_order.iter().map(|(_, key)| key)
    }

    /// Takes out those whose moment has come.
    pub(crate) fn due(&mut self, now: Moment) -> Vec<K> {
        let mut due = Vec::new();
        while self.next().is_some_and(|next| next <= now) {
            let Some((_, key)) = self.in_order.pop_first() else { break };
            self.until.remove(&key);
            due.push(key);
        }
        due
    }

    /// When the next one is due.
    pub(crate) fn next(&self) -> Option<Moment> {
        self.in_order.first().map(|(until, _)| *until)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: u64) -> Moment {
        Moment::from_origin(Duration::from_secs(seconds))
    }

    #[test]
    fn each_is_passed_over_until_its_last_moment() {
        let mut later = Later::new();
        for (key, seconds) in [("a", 5), ("b", 3), ("c", 3), ("a", 1), ("b", 9)] {
            later.insert(key, at(seconds));
        }
        assert_eq!((later.next(), later.due(at(0))), (Some(at(1)), vec![]));
        assert_eq!(later.due(at(3)), ["a", "c"]);
        assert!(later.contains(&"b") && !later.contains(&"a"));
        assert_eq!(later.next(), Some(at(9)));
        assert!(later.remove(&"b") && !later.remove(&"b"));
        assert_eq!((later.next(), later.iter().count()), (None, 0));
        later.insert("d", at(1));
        later.retain(|key| *key != "d");
        assert_eq!(later.due(at(2)), Vec::<&str>::new());
    }
}
