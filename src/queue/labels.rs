// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Labels`]: which entries of a label wait, without a listing for each query.
//!
//! The stat of a folder contains the number of znodes that were ever created in it, and each entry has its number in
//! its name. If this process has put all entries since the last listing, then the folder has no entries but those of
//! the listing and those that this process has put since.

use std::collections::{BTreeSet, HashMap};

use super::entry::Entry;
use crate::backend::Stat;

/// How many entries this process may add after a short listing, until the next listing removes those that are gone. After
/// a long listing it may add as many again.
const MOST_ADDED: usize = 20_000;

/// How many entries of this process may wait to be counted. If there are more, other processes put as well, and only a
/// listing can answer.
const MOST_UNCOUNTED: usize = 1000;

/// See the module documentation.
#[derive(Debug, Default)]
pub(super) struct Labels {
    known: Option<Known>,
    /// The entries of each label. Some may be gone.
    entries: HashMap<Box<str>, BTreeSet<Entry>>,
    /// The numbers of the entries that this process has put and that are not counted in `known` yet.
    own: BTreeSet<i32>,
    /// How many were listed, and how many were put here since.
    listed: usize,
    added: usize,
}

/// Up to which creation in which folder everything is known.
#[derive(Debug, PartialEq, Eq)]
struct Known {
    czxid: i64,
    /// Twice the number of creates. The double follows from a stat without rounding.
    twice_created: i32,
}

impl Known {
    fn of(folder: &Stat) -> Self {
        // `cversion` is twice the number of creates, minus the number of children.
        Known { czxid: folder.czxid, twice_created: folder.cversion.wrapping_add(folder.num_children) }
    }
}

impl Labels {
    /// The entries of a label that may wait, if no other process has created any since the last listing; `None`: list
    /// the folder.
    pub(super) fn find(&mut self, label: &str, folder: &Stat) -> Option<Vec<Entry>> {
        self.count_own();
        let is_known = self.known.as_ref() == Some(&Known::of(folder));
        is_known.then(|| self.entries.get(label).into_iter().flatten().cloned().collect())
    }

    /// Adopts a listing.
    pub(super) fn adopt(&mut self, entries: impl Iterator<Item = Entry>, folder: &Stat) {
        self.entries.clear();
        self.own.clear();
        (self.listed, self.added) = (0, 0);
        for entry in entries {
            self.listed += 1;
            self.insert(entry);
        }
        self.known = Some(Known::of(folder));
    }

    /// This process has put an entry.
    pub(super) fn add(&mut self, entry: &Entry) {
        if self.known.is_none() {
            return;
        }
        self.own.insert(entry.sequence());
        self.insert(entry.clone());
        self.count_own();
        self.added += 1;
        if self.own.len() > MOST_UNCOUNTED || self.added > MOST_ADDED.max(self.listed) {
            *self = Labels::default();
        }
    }

    /// The entries of a label are known to be gone.
    pub(super) fn forget(&mut self, label: &str) {
        self.entries.remove(label);
    }

    fn insert(&mut self, entry: Entry) {
        if !entry.label().is_empty() {
            self.entries.entry(entry.label().into()).or_default().insert(entry);
        }
    }

    /// Counts the entries of this process whose numbers follow without a gap.
    fn count_own(&mut self) {
        let Some(known) = &mut self.known else { return };
        let is_next = |number: &i32, known: &Known| number.wrapping_mul(2) == known.twice_created;
        while let Some(next) = self.own.iter().copied().find(|number| is_next(number, known)) {
            self.own.remove(&next);
            known.twice_created = known.twice_created.wrapping_add(2);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(label: &str, number: u32) -> Entry {
        format!("entry-100-{label}-{number:010}").parse().unwrap()
    }

    /// The stat of a folder after so many creates and deletes.
    fn folder(created: i32, deleted: i32) -> Stat {
        let num_children = created - deleted;
        Stat { czxid: 7, cversion: 2 * created - num_children, num_children, ..Stat::default() }
    }

    #[test]
    fn a_listing_answers_until_another_process_creates_an_entry() {
        let mut labels = Labels::default();
        assert_eq!(labels.find("a", &folder(2, 0)), None);
        labels.adopt([entry("a", 0), entry("b", 1)].into_iter(), &folder(2, 0));
        assert_eq!(labels.find("a", &folder(2, 0)), Some(vec![entry("a", 0)]));
        assert_eq!(labels.find("c", &folder(2, 2)), Some(vec![]), "deletes do not matter");
        assert_eq!(labels.find("a", &folder(3, 1)), None, "another process has put one");
        labels.add(&entry("a", 2));
        assert_eq!(labels.find("a", &folder(3, 1)), Some(vec![entry("a", 0), entry("a", 2)]));
        assert_eq!(labels.find("a", &folder(4, 2)), None);
        assert_eq!(labels.find("a", &Stat { czxid: 8, ..folder(3, 1) }), None, "another folder");
        labels.forget("a");
        assert_eq!(labels.find("a", &folder(3, 2)), Some(vec![]));
    }

    #[test]
    fn entries_do_not_pile_up_where_no_caller_asks() {
        let mut labels = Labels::default();
        labels.adopt([].into_iter(), &folder(0, 0));
        (5..5000).for_each(|number| labels.add(&entry("a", number)));
        assert!(labels.own.len() + labels.entries.len() <= MOST_UNCOUNTED + 1);
    }

    #[test]
    fn entries_that_are_gone_do_not_pile_up_if_only_this_process_puts() {
        let mut labels = Labels::default();
        labels.adopt([].into_iter(), &folder(0, 0));
        for number in 0..10 * MOST_ADDED {
            let number = u32::try_from(number).unwrap();
            labels.add(&entry(&format!("l:{number}"), number));
        }
        assert!(labels.entries.len() <= MOST_ADDED, "{}", labels.entries.len());
    }

    #[test]
    fn entries_of_this_process_count_once_in_any_order() {
        let mut labels = Labels::default();
        labels.adopt([entry("a", 0)].into_iter(), &folder(1, 0));
        labels.add(&entry("a", 2));
        assert_eq!(
            labels.find("a", &folder(3, 0)),
            None,
            "another process may have put the entry in between"
        );
        labels.add(&entry("a", 1));
        assert!(labels.find("a", &folder(3, 0)).is_some_and(|entries| entries.len() == 3));
        // A listing has shown it already.
        labels.adopt([entry("a", 3)].into_iter(), &folder(4, 3));
        labels.add(&entry("a", 3));
        assert_eq!(labels.find("a", &folder(4, 3)), Some(vec![entry("a", 3)]));
        assert_eq!(labels.find("a", &folder(5, 4)), None, "it is not taken for another process's");
    }
}
