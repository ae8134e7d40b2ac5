//! [`EntryCache`]: the waiting entries by the last listing, for all callers in this process.

use std::{
    collections::{BTreeSet, HashSet},
    sync::Arc,
};

use tracing::warn;

use super::{ages::Sightings, entry::Entry, names::SetAside};
use crate::{
    backend::path::ZnodePath,
    clock::Moment,
    random::Random,
    session::{later::Later, rivals::Rivals},
};

/// How many entries of this process are added between two listings.
const MOST_ADDED: usize = 1000;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct EntryCache {
    folder: ZnodePath,
    entries: BTreeSet<Arc<Entry>>,
    /// Chosen in this process. The store has not yet answered whether the entry is taken.
    busy: HashSet<Arc<Entry>>,
    /// Passed over for a while: not to be taken yet, or it could not be taken.
    later: Later<Arc<Entry>>,
    aside: SetAside,
    /// Those among `later` that were logged because they could not be taken.
    reported: HashSet<Arc<Entry>>,
    rivals: Rivals,
    sightings: Sightings,
    /// How many were added here since the last listing.
    added: usize,
}

impl EntryCache {
    pub(super) fn new(folder: ZnodePath) -> Self {
        EntryCache {
            folder,
            entries: BTreeSet::new(),
            busy: HashSet::new(),
            later: Later::new(),
            reported: HashSet::new(),
            aside: SetAside::default(),
            rivals: Rivals::new(),
            sightings: Sightings::default(),
            added: 0,
        }
    }

    /// Whether there is none to take now.
    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// How many wait and may be taken, and how many are passed over for a while.
    pub(super) fn counts(&self) -> (usize, usize) {
        (self.entries.len(), self.later.len())
    }

    /// Notes which entries are there, for [`EntryCache::oldest_since`].
    pub(super) fn note_ages(&mut self, now: Moment) {
        let ages = || self.entries.iter().chain(self.later.iter()).map(|entry| entry.age());
        if let (Some(oldest), Some(newest)) = (ages().min(), ages().max()) {
            self.sightings.note(oldest, newest, now);
        }
    }

    /// Since when, at the latest, the oldest entry has waited.
    pub(super) fn oldest_since(&self) -> Option<Moment> {
        let oldest = self.entries.iter().chain(self.later.iter()).map(|entry| entry.age()).min()?;
        self.sightings.since(oldest)
    }

    /// All that wait, in the order in which they are to be taken.
    pub(super) fn entries(&self) -> Vec<Entry> {
        let mut all: Vec<Entry> =
            self.entries.iter().chain(self.later.iter()).map(|it| Entry::clone(it)).collect();
        all.sort_unstable();
        all
    }

    /// No longer passes over those whose moment has come.
    pub(super) fn wake(&mut self, now: Moment) {
        self.entries.extend(self.later.due(now));
    }

    /// When the next one that is passed over may be taken.
    pub(super) fn next_due(&self) -> Option<Moment> {
        self.later.next()
    }

    /// The next entries in their order, up to `count`; none while other processes try to take the same ones.
    pub(super) fn next(&self, count: usize) -> Vec<Arc<Entry>> {
        let count = if self.rivals.width() == 1 { count } else { 0 };
        self.entries.iter().take(count).cloned().collect()
    }

    /// The entries to choose `count` from, and how many of those that the caller accepts are wanted.
    pub(super) fn candidates(&self, count: usize, accepts_all: bool) -> (Vec<Arc<Entry>>, usize) {
        let wanted = count.saturating_add(self.rivals.width() - 1);
        let most = if accepts_all { wanted } else { usize::MAX };
        (self.entries.iter().take(most).cloned().collect(), wanted)
    }

    /// Reserves up to `count` of `accepted`, so that no other caller in this process chooses them. Entries that another
    /// caller has reserved meanwhile are left out.
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

    /// Ends the reservation of an entry. It can be chosen again.
    pub(super) fn release(&mut self, entry: &Arc<Entry>) {
        self.busy.remove(entry);
        self.entries.insert(entry.clone());
    }

    /// Ends the reservation of an entry that is not there any more.
    pub(super) fn forget(&mut self, entry: &Arc<Entry>) {
        self.busy.remove(entry);
    }

    /// Ends the reservation of an entry that is passed over until this moment.
    pub(super) fn pass_over(&mut self, entry: &Arc<Entry>, until: Moment) {
        self.busy.remove(entry);
        self.later.insert(entry.clone(), until);
    }

    /// Notes whether the chosen entry could be taken.
    pub(super) fn note(&mut self, was_there: bool) {
        self.rivals.note(was_there);
    }

    /// Adds an entry that this process has put, unless there are too many since the last listing: a process that only
    /// puts would never remove them. Passes over it until that moment. Returns whether it was added.
    pub(super) fn add(&mut self, entry: Entry, until: Option<Moment>) -> bool {
        if self.added == MOST_ADDED {
            return false;
        }
        self.added += 1;
        let entry = Arc::new(entry);
        match until {
            Some(until) => self.later.insert(entry, until),
            None => drop(self.entries.insert(entry)),
        }
        true
    }

    /// Adopts a listing.
    pub(super) fn adopt(&mut self, names: &[String]) {
        let folder = &self.folder;
        let report = |name: &str| report(folder, name, "its name is not that of an entry");
        let entries = self.aside.sort_out(folder, names, report);
        let entries: BTreeSet<_> = entries.into_iter().map(Arc::new).collect();
        self.later.retain(|entry| entries.contains(entry));
        self.reported.retain(|entry| entries.contains(entry));
        self.entries = entries;
        self.entries.retain(|entry| !self.busy.contains(entry) && !self.later.contains(entry));
        self.added = 0;
    }

    /// Passes over an entry until this moment, unless it is reserved or gone.
    pub(super) fn delay(&mut self, entry: &Arc<Entry>, until: Moment) {
        if let Some(entry) = self.entries.take(entry) {
            self.later.insert(entry, until);
        }
    }

    /// Sets an entry aside that cannot be taken; it is tried again at this moment. Logged once.
    pub(super) fn set_aside(&mut self, entry: &Arc<Entry>, why: &str, until: Moment) {
        self.pass_over(entry, until);
        if self.reported.insert(entry.clone()) {
            report(&self.folder, entry.name(), why);
        }
    }
}

/// Logs that an entry is set aside.
pub(super) fn report(folder: &ZnodePath, name: &str, why: &str) {
    warn!(path = format_args!("{folder}/{name}"), why, "an entry is set aside");
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
    fn an_entry_that_one_caller_has_chosen_is_not_chosen_again_until_it_is_released() {
        let mut cache = cache(0..3);
        assert_eq!(
            (choose(&mut cache, 2), choose(&mut cache, 2), choose(&mut cache, 2)),
            (vec![0, 1], vec![2], vec![])
        );
        let names: Vec<_> = (0..4).map(|number| format!("entry-100-l-{number:010}")).collect();
        cache.adopt(&names);
        assert_eq!(choose(&mut cache, 9), [3], "a listing does not give back what is reserved");
        cache.release(&Arc::new(names[1].parse().unwrap()));
        cache.forget(&Arc::new(names[2].parse().unwrap()));
        assert_eq!(choose(&mut cache, 9), [1]);
    }

    #[test]
    fn with_rivals_it_chooses_among_more_entries_of_the_same_priority() {
        let mut cache = cache(0..100);
        cache.add("entry-900-l-0000000100".parse().unwrap(), None);
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
    fn invalid_names_stay_out_and_entries_that_were_set_aside_come_back_when_it_is_time() {
        let at = |seconds| Moment::from_origin(Duration::from_secs(seconds));
        let mut cache = cache([]);
        let names = ["entry-100-l-0000000001", "other", "entry-100-l-0000000002"].map(String::from);
        let first = Arc::new(names[0].parse().unwrap());
        cache.set_aside(&first, "for a test", at(60));
        cache.adopt(&names);
        cache.wake(at(59));
        assert_eq!((choose(&mut cache, 9), cache.next_due()), (vec![2], Some(at(60))));
        assert_eq!(cache.entries().len(), 1, "the other one is reserved");
        cache.wake(at(60));
        assert_eq!((choose(&mut cache, 9), cache.next_due()), (vec![1], None));
        cache.add("entry-100-l-0000000003".parse().unwrap(), Some(at(70)));
        assert!(choose(&mut cache, 9).is_empty());
        cache.adopt(&[]);
        cache.wake(at(70));
        assert!(choose(&mut cache, 9).is_empty(), "it is gone");
    }

    #[test]
    fn entries_do_not_pile_up_in_a_process_that_only_puts() {
        for until in [None, Some(Moment::from_origin(Duration::from_secs(60)))] {
            let mut cache = cache([]);
            let mut add = |number| cache.add(format!("entry-100-l-{number:010}").parse().unwrap(), until);
            assert_eq!((0..2000).filter(|number| add(*number)).count(), MOST_ADDED);
            assert_eq!(cache.entries().len(), MOST_ADDED, "{until:?}");
        }
    }
}
