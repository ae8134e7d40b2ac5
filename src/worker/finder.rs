// Pure: no runtime, no clock, no socket, no random numbers.

//! The workers and their tasks, and the choice of the worker for a request.
//!
//! A worker is identified by its topic, and is removed when it is silent for too long. Source:
//! `taskflow.engines.worker_based.types` (`ProxyWorkerFinder`), which picks a worker at random. Here the worker with
//! the fewest open requests is picked, and among equals the one that was picked longest ago. So work is spread evenly
//! without random numbers. A worker that has lost a request is a suspect, and is not picked until it answers again.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crate::{clock::Moment, ring::HashRing};

/// The workers that have answered lately.
#[derive(Debug)]
pub(super) struct Finder {
    expiry: Duration,
    workers: BTreeMap<Arc<str>, Known>,
    /// How often a worker was picked.
    turns: u64,
    /// For tasks with keyed requests: the ring of the topics that can run the task. Cleared when workers or tasks
    /// change.
    rings: BTreeMap<String, HashRing>,
}

#[derive(Debug)]
struct Known {
    tasks: BTreeSet<String>,
    last_seen: Moment,
    open: usize,
    last_turn: u64,
    /// It has lost a request, and has not answered since.
    is_suspect: bool,
}

impl Known {
    fn can_run(&self, task: &str) -> bool {
        !self.is_suspect && self.tasks.contains(task)
    }
}

impl Finder {
    /// A finder without workers. A worker that is silent for `expiry` is removed.
    pub(super) fn new(expiry: Duration) -> Self {
        Finder { expiry, workers: BTreeMap::new(), turns: 0, rings: BTreeMap::new() }
    }

    /// A worker reports its tasks. Returns whether they are new.
    pub(super) fn lists(
        &mut self,
        topic: &str,
        tasks: impl IntoIterator<Item = String>,
        now: Moment,
    ) -> bool {
        let tasks: BTreeSet<String> = tasks.into_iter().collect();
        let is_new = match self.workers.get_mut(topic) {
            Some(known) => {
                known.last_seen = now;
                let is_new = known.tasks != tasks;
                known.tasks = tasks;
                is_new
            }
            None => {
                let known = Known { tasks, last_seen: now, open: 0, last_turn: 0, is_suspect: false };
                self.workers.insert(topic.into(), known);
                true
            }
        };
        if is_new {
            self.rings.clear();
        }
        is_new
    }

    /// A worker, if it is known, has sent a message. Returns whether it was a suspect.
    pub(super) fn seen(&mut self, topic: &str, now: Moment) -> bool {
        let Some(known) = self.workers.get_mut(topic) else { return false };
        known.last_seen = now;
        let is_back = std::mem::take(&mut known.is_suspect);
        if is_back {
            self.rings.clear();
        }
        is_back
    }

    /// Whether the worker of `topic` has sent a message at `moment` or later.
    pub(super) fn was_seen_since(&self, topic: &str, moment: Moment) -> bool {
        self.workers.get(topic).is_some_and(|known| known.last_seen >= moment)
    }

    /// A worker, if it is known, has lost a request: it is not picked until it sends a message.
    pub(super) fn suspect(&mut self, topic: &str) {
        if let Some(known) = self.workers.get_mut(topic) {
            known.is_suspect = true;
            self.rings.clear();
        }
    }

    /// Removes the workers that have been silent for too long, and returns their topics.
    pub(super) fn remove_silent(&mut self, now: Moment) -> Vec<Arc<str>> {
        let is_silent = |known: &Known| now.saturating_since(known.last_seen) >= self.expiry;
        let silent: Vec<_> = self
            .workers
            .iter()
            .filter(|(_, known)| is_silent(known))
            .map(|(topic, _)| topic.clone())
            .collect();
        for topic in &silent {
            self.workers.remove(topic);
            self.rings.clear();
        }
        silent
    }

    /// Whether the worker of `topic` has answered lately.
    pub(super) fn knows(&self, topic: &str) -> bool {
        self.workers.contains_key(topic)
    }

    /// The topics of the known workers, each with its tasks.
    pub(super) fn workers(&self) -> impl Iterator<Item = (&Arc<str>, &BTreeSet<String>)> {
        self.workers.iter().map(|(topic, known)| (topic, &known.tasks))
    }

    /// Picks a worker that lists `task`, the same one for the same `key` while the workers stay the same. `None` if
    /// there is no such worker. Each pick needs one [`Finder::release`].
    pub(super) fn pick(&mut self, task: &str, key: Option<&str>) -> Option<Arc<str>> {
        let able = self.workers.iter().filter(|(_, known)| known.can_run(task));
        let topic = match key {
            None => {
                able.min_by_key(|(_, known)| (known.open, known.last_turn)).map(|(topic, _)| topic)?.clone()
            }
            Some(key) => {
                if !self.rings.contains_key(task) {
                    let topics: Vec<&str> = able.map(|(topic, _)| &**topic).collect();
                    let ring = HashRing::builder().members(topics).build().ok()?;
                    self.rings.insert(task.to_owned(), ring);
                }
                self.rings.get(task)?.owner(key)?.into()
            }
        };
        self.turns += 1;
        let known = self.workers.get_mut(&topic)?;
        known.open += 1;
        known.last_turn = self.turns;
        Some(topic)
    }

    /// A request that was given to the worker of `topic` has ended.
    pub(super) fn release(&mut self, topic: &str) {
        if let Some(known) = self.workers.get_mut(topic) {
            // A worker that was removed and came back starts with no open requests.
            known.open = known.open.saturating_sub(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Moment {
        Moment::from_origin(Duration::from_secs(seconds))
    }

    fn finder(workers: &[(&str, &[&str])]) -> Finder {
        let mut finder = Finder::new(MINUTE);
        for (topic, tasks) in workers {
            assert!(finder.lists(topic, tasks.iter().map(ToString::to_string), at(0)));
        }
        finder
    }

    #[test]
    fn a_worker_that_was_silent_for_exactly_the_expiry_is_removed() {
        let mut finder = finder(&[("a", &["t"]), ("b", &["t"])]);
        finder.seen("b", at(1));
        assert!(finder.remove_silent(at(59)).is_empty());
        assert_eq!(finder.remove_silent(at(60)), ["a".into()]);
        assert!(!finder.knows("a") && finder.knows("b"));
        assert_eq!(finder.pick("t", None).as_deref(), Some("b"));
    }

    #[test]
    fn only_a_worker_that_lists_the_task_is_picked() {
        let mut finder = finder(&[("a", &["t"]), ("b", &["u", "v"])]);
        for key in [None, Some("k")] {
            assert_eq!(finder.pick("u", key).as_deref(), Some("b"));
            assert_eq!(finder.pick("w", key), None);
        }
    }

    #[test]
    fn requests_are_spread_evenly_and_go_where_fewest_are_open() {
        let mut finder = finder(&[("a", &["t"]), ("b", &["t"]), ("c", &["t"])]);
        let picked: Vec<_> = (0..6).map(|_| finder.pick("t", None).unwrap().to_string()).collect();
        assert_eq!(picked, ["a", "b", "c", "a", "b", "c"]);
        finder.release("b");
        finder.release("b");
        finder.release("c");
        assert_eq!(finder.pick("t", None).as_deref(), Some("b"));
        let mut next: Vec<_> = (0..2).map(|_| finder.pick("t", None).unwrap().to_string()).collect();
        next.sort();
        assert_eq!(next, ["b", "c"]);
    }

    #[test]
    fn a_worker_that_lost_a_request_is_not_picked_until_it_is_seen_again() {
        for key in [None, Some("k")] {
            let mut finder = finder(&[("a", &["t"]), ("b", &["t"])]);
            let lost = finder.pick("t", key).unwrap();
            let other = if &*lost == "a" { "b" } else { "a" };
            finder.suspect(&lost);
            finder.release(&lost);
            for _ in 0..3 {
                assert_eq!(finder.pick("t", key).as_deref(), Some(other));
            }
            finder.suspect(other);
            assert_eq!(finder.pick("t", key), None);
            assert!(finder.seen(&lost, at(1)) && !finder.seen(&lost, at(1)));
            assert_eq!(finder.pick("t", key), Some(lost));
        }
    }

    #[test]
    fn a_list_is_new_when_its_tasks_differ() {
        let mut finder = finder(&[("a", &["t", "u"])]);
        let tasks = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        assert!(!finder.lists("a", tasks(&["u", "t", "t"]), at(1)));
        assert!(finder.lists("a", tasks(&[]), at(2)));
        assert_eq!(finder.pick("t", None), None);
        assert!(finder.knows("a"));
    }

    #[test]
    fn requests_of_one_key_go_to_one_worker_and_few_move_when_a_worker_leaves() {
        let mut finder = finder(&[("a", &["t"]), ("b", &["t"]), ("c", &["t"])]);
        let keys: Vec<String> = (0..100).map(|key| key.to_string()).collect();
        let pick_all = |finder: &mut Finder| -> Vec<_> {
            keys.iter().map(|key| finder.pick("t", Some(key)).unwrap()).collect()
        };
        let before = pick_all(&mut finder);
        assert_eq!(pick_all(&mut finder), before);
        finder.seen("a", at(30));
        finder.seen("b", at(30));
        assert_eq!(finder.remove_silent(at(70)), ["c".into()]);
        let after = pick_all(&mut finder);
        for (was, is) in before.iter().zip(&after) {
            assert!(was == is || &**was == "c", "{was} became {is}");
        }
        assert!(before.iter().any(|topic| &**topic == "c"));
    }
}
