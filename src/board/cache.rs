//! The cache of a board: what its last listing has shown, and what this process has done since.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use tracing::warn;

use super::{known::Known, layout::Place, posting::PostingError};
use crate::{backend::path::ZnodePath, clock::Moment, session::later::Later};

/// A znode of a board that is set aside: it cannot be read as a job, or not be claimed. From
/// [`JobBoard::set_aside`](super::JobBoard::set_aside).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetAside {
    /// The path of the znode.
    pub path: ZnodePath,
    /// Why it is set aside.
    pub reason: PostingError,
}

/// Something that this process has done or found out.
#[derive(Debug, Clone)]
pub(super) enum Mark {
    Posted(Arc<Known>),
    Claimed(Arc<Known>),
    /// With the moment until which it is passed over.
    Released(Arc<Known>, Option<Moment>),
    /// It is not to be claimed before this moment.
    PassedOver(Arc<Known>, Moment),
    Removed(Arc<Known>),
    SetAside(SetAside),
    /// The posting can be read, but not be claimed. This holds until another transaction than this one changes it.
    Unchangeable(SetAside, i64),
}

impl Mark {
    /// Whether a late reply could put a job back that is off the board: its watch has fired before, and does not fire
    /// again.
    pub(super) const fn can_be_late(&self) -> bool {
        matches!(self, Mark::Posted(_) | Mark::Claimed(_) | Mark::Released(..))
    }
}

/// A znode that is set aside.
#[derive(Debug, Clone)]
struct Aside {
    found: SetAside,
    /// As in [`Mark::Unchangeable`]; `None` if it cannot be read.
    mzxid: Option<i64>,
}

/// The result of one listing.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// The names of all jobs on the board, and whether each has a lock.
    pub(super) names: BTreeMap<Box<str>, bool>,
    /// The jobs that were read for this listing, because the cache did not have them.
    pub(super) read: HashMap<Box<str>, Arc<Known>>,
    pub(super) aside: Vec<SetAside>,
}

/// A job, and whether it was claimed by the last listing.
#[derive(Debug, Clone)]
pub(super) struct Slot {
    pub(super) known: Arc<Known>,
    pub(super) is_claimed: bool,
}

#[derive(Debug)]
pub(super) struct Cache {
    jobs: BTreeMap<Place, Slot>,
    places: HashMap<Box<str>, Place>,
    /// Those that may be claimed now.
    unclaimed: BTreeSet<Place>,
    /// Unclaimed ones that are passed over for a while.
    later: Later<Place>,
    /// Those that their poster has delayed, claimed or not, whether their time has come or not.
    posted_later: BTreeSet<Place>,
    aside: BTreeMap<Box<str>, Aside>,
    /// The last reason that was logged for each znode that was set aside, as long as it is on the board.
    reported: HashMap<Box<str>, PostingError>,
    aside_due: Option<Moment>,
    reads_aside: bool,
    /// What this process has done since the request of the present listing was sent: the listing may not show it.
    marks: Option<Vec<Mark>>,
    /// For each listener, the jobs that have changed since its last call of [`Cache::changes`]; `None` if they are too
    /// many to remember.
    changed: HashMap<Listener, Option<BTreeSet<Box<str>>>>,
    listeners: u64,
}

/// How many jobs there are.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Counts {
    /// Those that may be claimed now.
    pub(super) unclaimed: usize,
    /// Unclaimed ones that are passed over for a while.
    pub(super) delayed: usize,
    pub(super) claimed: usize,
    pub(super) set_aside: usize,
}

/// A reader of the changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Listener(u64);

/// How many changes are remembered for a listener that does not ask.
const MOST_CHANGES: usize = 10_000;

impl Cache {
    pub(super) fn new() -> Self {
        Cache {
            jobs: BTreeMap::new(),
            places: HashMap::new(),
            unclaimed: BTreeSet::new(),
            later: Later::new(),
            posted_later: BTreeSet::new(),
            aside: BTreeMap::new(),
            reported: HashMap::new(),
            aside_due: None,
            reads_aside: false,
            marks: None,
            changed: HashMap::new(),
            listeners: 0,
        }
    }

    /// No longer passes over the jobs whose moment has come. Returns whether it is time to read again what is set aside.
    pub(super) fn wake(&mut self, now: Moment) -> bool {
        self.unclaimed.extend(self.later.due(now));
        let is_time = self.aside_due.is_some_and(|due| due <= now);
        if is_time {
            (self.aside_due, self.reads_aside) = (None, true);
        }
        is_time
    }

    /// When the next job that is passed over may be claimed, or what is set aside is to be read again.
    pub(super) fn next_due(&self) -> Option<Moment> {
        [self.later.next(), self.aside_due].into_iter().flatten().min()
    }

    /// Has what is set aside read again at this moment, because an operator may repair it without a change of the board.
    pub(super) fn plan_aside(&mut self, at: Moment) {
        if !self.aside.is_empty() {
            self.aside_due.get_or_insert(at);
        }
    }

    /// Whether the listing that has begun is to read again what is set aside.
    pub(super) fn take_reads_aside(&mut self) -> bool {
        std::mem::take(&mut self.reads_aside)
    }

    fn pass_over(&mut self, known: &Known, until: Moment) {
        let place = known.place();
        if self.unclaimed.remove(&place) {
            self.later.insert(place, until);
        }
    }

    /// `is_early` says whether a time, in milliseconds since 1970, is still to come.
    pub(super) fn counts(&self, is_early: impl Fn(u64) -> bool) -> Counts {
        let (unclaimed, later) = (self.unclaimed.len(), self.later.len());
        let claimed = self.jobs.len() - unclaimed - later;
        // A job that its poster has delayed is passed over only when a caller would choose it.
        let posted_later = self.posted_later.iter().filter(|place| self.unclaimed.contains(place));
        let not_before = |place: &Place| self.jobs.get(place)?.known.not_before;
        let early = posted_later.filter(|place| not_before(place).is_some_and(&is_early)).count();
        Counts { unclaimed: unclaimed - early, delayed: later + early, claimed, set_aside: self.aside.len() }
    }

    /// When the oldest job was posted that is not claimed, in milliseconds since 1970.
    pub(super) fn oldest_ms(&self) -> Option<u64> {
        let waiting = self.jobs.values().filter(|slot| !slot.is_claimed);
        let created = waiting.map(|slot| slot.known.stat.created_ms).min()?;
        u64::try_from(created).ok()
    }

    pub(super) fn len(&self) -> usize {
        self.jobs.len()
    }

    /// In the order of the board.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.jobs.values()
    }

    pub(super) fn slot(&self, name: &str) -> Option<&Slot> {
        self.jobs.get(self.places.get(name)?)
    }

    /// Jobs that may be claimed now, in the order of the board.
    pub(super) fn unclaimed(&self) -> impl Iterator<Item = &Arc<Known>> {
        self.unclaimed.iter().filter_map(|place| self.jobs.get(place)).map(|slot| &slot.known)
    }

    pub(super) fn all_aside(&self) -> impl Iterator<Item = &SetAside> {
        self.aside.values().map(|aside| &aside.found)
    }

    /// The znode of this name that is set aside.
    pub(super) fn aside(&self, name: &str) -> Option<&SetAside> {
        self.aside.get(name).map(|aside| &aside.found)
    }

    /// Whether this job, or a znode of its name that is set aside, is on the board.
    pub(super) fn has(&self, job: &Known) -> bool {
        let name = job.path.name();
        self.slot(name).is_some_and(|slot| slot.known.is_same(job)) || self.aside.contains_key(name)
    }

    /// From here on, changes are remembered until [`Cache::ignore`].
    pub(super) fn listen(&mut self) -> Listener {
        self.listeners += 1;
        let listener = Listener(self.listeners);
        self.changed.insert(listener, Some(BTreeSet::new()));
        listener
    }

    pub(super) fn ignore(&mut self, listener: Listener) {
        self.changed.remove(&listener);
    }

    /// The names that have changed since the last call for this listener; `None`: any name may have changed.
    pub(super) fn changes(&mut self, listener: Listener) -> Option<BTreeSet<Box<str>>> {
        self.changed.insert(listener, Some(BTreeSet::new())).flatten()
    }

    fn has_changed(&mut self, name: &str) {
        for changed in self.changed.values_mut() {
            if let Some(names) = changed {
                if names.len() == MOST_CHANGES {
                    *changed = None;
                } else if !names.contains(name) {
                    names.insert(name.into());
                }
            }
        }
    }

    pub(super) fn mark(&mut self, mark: Mark) {
        if let Some(marks) = &mut self.marks {
            marks.push(mark.clone());
        }
        self.apply(mark);
    }

    fn apply(&mut self, mark: Mark) {
        match mark {
            Mark::Posted(known) => {
                if self.slot(known.path.name()).is_none() {
                    self.insert(Slot { known, is_claimed: false });
                }
            }
            Mark::Claimed(known) => self.insert(Slot { known, is_claimed: true }),
            Mark::Released(known, until) => {
                self.insert(Slot { known: known.clone(), is_claimed: false });
                if let Some(until) = until {
                    self.pass_over(&known, until);
                }
            }
            Mark::PassedOver(known, until) => self.pass_over(&known, until),
            Mark::Removed(known) => {
                if self.slot(known.path.name()).is_some_and(|slot| slot.known.is_same(&known)) {
                    self.remove(known.path.name());
                }
            }
            Mark::SetAside(aside) => self.set_aside(aside, None),
            Mark::Unchangeable(aside, mzxid) => self.set_aside(aside, Some(mzxid)),
        }
    }

    fn insert(&mut self, slot: Slot) {
        let place = slot.known.place();
        self.remove(&place.name);
        self.has_changed(&place.name);
        self.aside.remove(&place.name);
        if !slot.is_claimed {
            self.unclaimed.insert(place.clone());
        }
        if slot.known.not_before.is_some() {
            self.posted_later.insert(place.clone());
        }
        self.places.insert(place.name.clone(), place.clone());
        self.jobs.insert(place, slot);
    }

    fn remove(&mut self, name: &str) {
        if let Some(place) = self.places.remove(name) {
            self.jobs.remove(&place);
            self.unclaimed.remove(&place);
            self.later.remove(&place);
            self.posted_later.remove(&place);
            self.has_changed(name);
        }
    }

    fn set_aside(&mut self, found: SetAside, mzxid: Option<i64>) {
        let name: Box<str> = found.path.name().into();
        self.remove(&name);
        let SetAside { path, reason } = &found;
        let before = self.aside.get(&name);
        // It may have been on the board in between, because only a claim shows that it cannot be changed.
        if self.reported.get(&name) != Some(reason) {
            warn!(%path, %reason, "set aside: it cannot be read as a job, or not be claimed");
            self.reported.insert(name.clone(), reason.clone());
        }
        let mzxid = mzxid.or(before.and_then(|aside| aside.mzxid));
        self.aside.insert(name, Aside { found, mzxid });
    }

    /// From here on, marks are remembered until [`Cache::merge`] or [`Cache::drop_marks`].
    pub(super) fn expect_listing(&mut self) {
        self.marks = Some(Vec::new());
    }

    /// The expected listing has failed.
    pub(super) fn drop_marks(&mut self) {
        self.marks = None;
    }

    /// Adopts a listing.
    pub(super) fn merge(&mut self, seen: Seen) {
        let Seen { names, mut read, mut aside } = seen;
        // A posting that cannot be changed stays set aside until another transaction has changed it.
        for (name, before) in &self.aside {
            let is_same = |known: &Arc<Known>| before.mzxid == Some(known.stat.mzxid);
            if read.get(name).is_some_and(is_same) {
                read.remove(name);
                aside.push(before.found.clone());
            }
        }
        let gone = self.places.keys().filter(|name| !names.contains_key(*name));
        let gone: Vec<_> = gone.cloned().collect();
        gone.iter().for_each(|name| self.remove(name));
        for (name, is_claimed) in &names {
            let before = self.slot(name);
            let Some(known) = read.get(name).or(before.map(|slot| &slot.known)) else { continue };
            let is_news =
                before.is_none_or(|it| it.is_claimed != *is_claimed || !Arc::ptr_eq(&it.known, known));
            if is_news {
                let known = known.clone();
                self.insert(Slot { known, is_claimed: *is_claimed });
            }
        }
        let still: BTreeSet<Box<str>> = aside.iter().map(|it| it.path.name().into()).collect();
        aside.into_iter().for_each(|found| self.set_aside(found, None));
        self.aside.retain(|name, _| still.contains(name));
        self.reported.retain(|name, _| still.contains(name) || names.contains_key(name));
        self.marks.take().unwrap_or_default().into_iter().for_each(|mark| self.apply(mark));
    }
}
