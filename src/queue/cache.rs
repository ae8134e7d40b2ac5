//! [`EntryCache`]: the entries that wait, as of the last listing, for all in this process that choose from them.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use tracing::warn;

use super::{entry::Entry, names::SetAside};
use crate::{backend::path::ZnodePath, random::Random, session::rivals::Rivals};

/// How many are added between two listings.
const MOST_ADDED: usize = 1000;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct EntryCache {
    folder: ZnodePath,
    entries: BTreeSet<Arc<Entry>>,
    /// Chosen in this process, and not yet decided by the store.
    busy: HashSet<Arc<Entry>>,
    aside: SetAside,
    rivals: Rivals,
    /// How many were added here since the last listing.
    added: usize,
}

impl EntryCache {
    pub(super) fn new(folder: ZnodePath) -> Self {
        EntryCache {
            folder,
            entries: BTreeSet::new(),
            busy: HashSet::new(),
            aside: SetAside::default(),
            rivals: Rivals::new(),
            added: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// In the order in which they are to be taken.
    pub(super) fn entries(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.entries.iter()
    }

    /// The next ones in their order, up to `count`; none while other processes are after them as well.
    pub(super) fn next(&self, count: usize) -> Vec<Arc<Entry>> {
        let count = if self.rivals.width() == 1 { count } else { 0 };
        self.entries.iter().take(count).cloned().collect()
    }

    /// From which entries up to `count` are chosen, if the caller accepts all, and how many of those it accepts are
    /// wanted.
    pub(super) fn candidates(&self, count: usize, accepts_all: bool) -> (Vec<Arc<Entry>>, usize) {
        let wanted = count.saturating_add(self.rivals.width() - 1);
        let most = if accepts_all { wanted } else { usize::MAX };
        (self.entries.iter().take(most).cloned().collect(), wanted)
    }

    /// Takes up to `count` of `accepted` out of the reach of others in this process. Those that another has taken since
    /// they were looked at are left out.
    pub(super) fn reserve(
        &mut self,
        mut accepted: Vec<Arc<Entry>>,
        count: usize,
        random: &Random,
    ) -> Vec<Arc<Entry>> {
        if self.rivals.width() > 1 {
            let first = accepted.first().map(|entry| entry.priority());
            let alike = accepted.iter().take_while(|entry| Some(entry.priority()) == first).count();
            random.shuffle(&mut accepted[..alike]);
        }
        accepted.retain(|entry| self.entries.contains(entry));
        accepted.truncate(count);
        for entry in &accepted {
            self.entries.remove(entry);
            self.busy.insert(entry.clone());
        }
        accepted
    }

    /// It was decided what becomes of an entry that was reserved: it is back unless it `is_gone`.
    pub(super) fn release(&mut self, entry: &Arc<Entry>, is_gone: bool) {
        self.busy.remove(entry);
        if !is_gone {
            self.entries.insert(entry.clone());
        }
    }

    /// Takes note of whether what was chosen was still to be had.
    pub(super) fn note(&mut self, was_there: bool) {
        self.rivals.note(was_there);
    }

    /// Adds what this process has put, unless it is too much: where this process takes nothing, nothing would take it
    /// out again. Returns whether it was added.
    pub(super) fn add(&mut self, entry: Entry) -> bool {
        self.added += 1;
        self.added <= MOST_ADDED && {
            self.entries.insert(Arc::new(entry));
            true
        }
    }

    /// Adopts a listing.
    pub(super) fn adopt(&mut self, names: &[String]) {
        let folder = &self.folder;
        let report = |name: &str| report(folder, name, "its name is not that of an entry");
        let entries = self.aside.sort_out(folder, names, report);
        let entries = entries.into_iter().map(Arc::new).filter(|entry| !self.busy.contains(entry));
        self.entries = entries.collect();
        self.added = 0;
    }

    /// Sets one aside that can never be taken.
    pub(super) fn set_aside(&mut self, entry: &Entry, why: &str) {
        if self.aside.insert(entry.name()) {
            report(&self.folder, entry.name(), why);
        }
    }
}

/// Logs that an entry is set aside.
pub(super) fn report(folder: &ZnodePath, name: &str, why: &str) {
    warn!(path = format_args!("{folder}/{name}"), why, "set aside");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache(numbers: impl IntoIterator<Item = u32>) -> EntryCache {
        let mut cache = EntryCache::new("/unowned".parse().unwrap());
        let names: Vec<_> = numbers.into_iter().map(|number| format!("entry-100-l-{number:010}")).collect();
        cache.adopt(&names);
        cache
    }

    fn choose(cache: &mut EntryCache, count: usize) -> Vec<i32> {
        choose_by(&Random::new(Some(1)), cache, count)
    }

    fn choose_by(random: &Random, cache: &mut EntryCache, count: usize) -> Vec<i32> {
        let (candidates, wanted) = cache.candidates(count, true);
        let accepted = candidates.into_iter().take(wanted).collect();
        cache.reserve(accepted, count, random).iter().map(|entry| entry.sequence()).collect()
    }

    #[test]
    fn what_one_caller_has_chosen_another_does_not_get_until_it_is_released() {
        let mut cache = cache(0..3);
        assert_eq!(
            (choose(&mut cache, 2), choose(&mut cache, 2), choose(&mut cache, 2)),
            (vec![0, 1], vec![2], vec![])
        );
        let names: Vec<_> = (0..4).map(|number| format!("entry-100-l-{number:010}")).collect();
        cache.adopt(&names);
        assert_eq!(choose(&mut cache, 9), [3], "a listing does not give back what is reserved");
        cache.release(&Arc::new(names[1].parse().unwrap()), false);
        cache.release(&Arc::new(names[2].parse().unwrap()), true);
        assert_eq!(choose(&mut cache, 9), [1]);
    }

    #[test]
    fn rivals_make_it_choose_among_more_of_the_same_priority() {
        let mut cache = cache(0..100);
        cache.add("entry-900-l-0000000100".parse().unwrap());
        for _ in 0..4 {
            cache.note(false);
        }
        assert_eq!(choose(&mut cache, 1), [100], "a priority of its own");
        let random = Random::new(Some(1));
        let chosen: Vec<_> = (0..5).flat_map(|_| choose_by(&random, &mut cache, 1)).collect();
        assert!(chosen.iter().all(|number| *number < 13) && !chosen.is_sorted(), "{chosen:?}");
        assert!(cache.next(7).is_empty());
    }

    #[test]
    fn names_that_are_none_of_an_entry_and_what_was_set_aside_stay_out() {
        let mut cache = cache([]);
        let names = ["entry-100-l-0000000001", "odd", "entry-100-l-0000000002"].map(String::from);
        cache.set_aside(&names[0].parse().unwrap(), "for a test");
        cache.adopt(&names);
        assert_eq!(choose(&mut cache, 9), [2]);
    }

    #[test]
    fn what_is_put_where_nothing_is_taken_does_not_pile_up() {
        let mut cache = cache([]);
        let added =
            (0..2000).filter(|number| cache.add(format!("entry-100-l-{number:010}").parse().unwrap()));
        assert_eq!(added.count(), MOST_ADDED);
    }
}
