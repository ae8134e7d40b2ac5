//! [`Ledger`]: what the store has acknowledged, and what must follow from that. The oracle of these tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use apportion::{Error, board::BoardError, queue::QueueError};

/// What somebody was told of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Told {
    Done,
    /// It may have been done.
    Unknown,
    NotDone,
}

/// What a result says about whether it was done.
pub(crate) trait Says {
    fn says(&self) -> Told;
}

impl<T> Says for Result<T, BoardError> {
    fn says(&self) -> Told {
        match self {
            Ok(_) | Err(BoardError::PostedAndGone { .. }) => Told::Done,
            Err(
                BoardError::OutcomeUnknown { .. }
                | BoardError::Closed { .. }
                | BoardError::Service(Error::Closed { .. }),
            ) => Told::Unknown,
            Err(_) => Told::NotDone,
        }
    }
}

impl<T> Says for Result<T, QueueError> {
    fn says(&self) -> Told {
        match self {
            Ok(_) => Told::Done,
            Err(QueueError::OutcomeUnknown { .. } | QueueError::Service(Error::Closed { .. })) => {
                Told::Unknown
            }
            Err(_) => Told::NotDone,
        }
    }
}

/// One job or entry, by its name or payload.
#[derive(Debug, Default)]
struct Thing {
    /// `None` if nobody has said that it was put.
    put: Option<Told>,
    /// Of its claims.
    tokens: BTreeSet<u64>,
    /// Who has ended it, by token.
    ends: Vec<(u64, Told)>,
    /// How often it was collected.
    collected: u32,
    /// Whether whoever collected it may have been told nothing.
    may_be_collected: bool,
    /// Whether somebody broke its lock by hand. Then an end whose reply was lost as well may be taken for done when in
    /// fact another has done it: of a job, nothing is left that could tell.
    is_broken: bool,
    /// The highest token that a store has seen to which the work writes.
    highest: u64,
}

/// Clones are one ledger.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ledger {
    things: Arc<Mutex<BTreeMap<String, Thing>>>,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Thing>> {
        self.things.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Somebody has put it, and was told so.
    pub(crate) fn put(&self, name: &str, told: Told) {
        let mut things = self.lock();
        let thing = things.entry(name.into()).or_default();
        assert_eq!(thing.put.replace(told), None, "{name} is put once in a test");
        let is_there = !thing.tokens.is_empty();
        assert!(told != Told::NotDone || !is_there, "{name} was not put, and is there: {thing:#x?}");
    }

    /// Somebody has put it, and this came of it.
    pub(crate) fn put_result<T, E>(&self, name: &str, result: &Result<T, E>)
    where
        Result<T, E>: Says,
    {
        self.put(name, result.says());
    }

    /// Somebody holds it, and this is noted before anybody can hold it after him.
    pub(crate) fn claimed(&self, name: &str, token: u64) {
        let highest = self.lock().get(name).and_then(|thing| thing.tokens.last().copied());
        assert!(highest < Some(token), "{name} was claimed under {token:#x} after {highest:#x?}");
        self.was_claimed(name, token);
    }

    /// Somebody holds it, or has held it.
    pub(crate) fn was_claimed(&self, name: &str, token: u64) {
        let mut things = self.lock();
        let thing = things.entry(name.into()).or_default();
        assert_ne!(thing.put, Some(Told::NotDone), "{name} was not put, and is there: {thing:#x?}");
        assert!(thing.tokens.insert(token), "{name} was claimed twice under {token:#x}: {thing:#x?}");
        // A claim that was made before it was done may be told of later.
        let done = thing.ends.iter().find(|(_, told)| *told == Told::Done);
        let is_later = done.is_some_and(|(done, _)| *done < token);
        assert!(
            !is_later || thing.is_broken,
            "{name} was done, and is claimed again under {token:#x}: {thing:#x?}"
        );
    }

    /// Whoever holds it has ended it, or tried.
    pub(crate) fn ended<T, E>(&self, name: &str, token: u64, result: &Result<T, E>)
    where
        Result<T, E>: Says,
    {
        self.end(name, token, result.says());
    }

    /// The same, for one who was told so.
    pub(crate) fn end(&self, name: &str, token: u64, told: Told) {
        let mut things = self.lock();
        let thing = things.entry(name.into()).or_default();
        if told == Told::Done {
            let done = thing.ends.iter().find(|(_, told)| *told == Told::Done);
            let is_once = done.is_none() || thing.is_broken;
            assert!(is_once, "{name} is done under {token:#x}, and was under {done:#x?}");
        }
        thing.ends.push((token, told));
    }

    /// Its result was confirmed to somebody.
    pub(crate) fn collected(&self, name: &str) {
        let mut things = self.lock();
        let thing = things.entry(name.into()).or_default();
        thing.collected += 1;
        assert!(thing.collected == 1, "{name} was collected {} times", thing.collected);
    }

    /// Somebody has tried to confirm it and cannot know.
    pub(crate) fn may_be_collected(&self, name: &str) {
        self.lock().entry(name.into()).or_default().may_be_collected = true;
    }

    /// Somebody has broken the lock of this job by hand.
    pub(crate) fn broken(&self, name: &str) {
        self.lock().entry(name.into()).or_default().is_broken = true;
    }

    /// The work on it writes to another store, which refuses tokens lower than one it has seen. Whether it takes it.
    pub(crate) fn write(&self, name: &str, token: u64) -> bool {
        let mut things = self.lock();
        let thing = things.entry(name.into()).or_default();
        if token < thing.highest {
            return false;
        }
        thing.highest = token;
        true
    }

    /// How many have ended for certain.
    pub(crate) fn ended_for_certain(&self) -> usize {
        let is_done = |thing: &&Thing| thing.ends.iter().any(|(_, told)| *told == Told::Done);
        self.lock().values().filter(is_done).count()
    }

    pub(crate) fn count_collected(&self) -> usize {
        self.lock().values().filter(|thing| thing.collected > 0).count()
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    pub(crate) fn len(&self) -> usize {
        self.lock().len()
    }

    /// Once all that was left has been claimed and ended by somebody without troubles: nothing was lost.
    pub(crate) fn judge(&self) {
        for (name, thing) in &*self.lock() {
            let ends = |told| thing.ends.iter().filter(|(_, its)| *its == told).count();
            if thing.put == Some(Told::Done) {
                assert!(ends(Told::Done) + ends(Told::Unknown) > 0, "{name} is lost: {thing:#x?}");
            }
            assert!(ends(Told::Done) <= 1 || thing.is_broken, "{name} was done twice: {thing:#x?}");
            let is_ended = ends(Told::Done) + ends(Told::Unknown) > 0;
            assert!(
                thing.collected == 0 || is_ended,
                "{name} was collected, and nobody has ended it: {thing:#x?}"
            );
        }
    }

    /// The same for results that are collected: none that was acknowledged is missing.
    pub(crate) fn judge_results(&self) {
        self.judge_results_of(self.names().iter().map(String::as_str));
    }

    /// The same where only these have results.
    pub(crate) fn judge_results_of<'a>(&self, names: impl IntoIterator<Item = &'a str>) {
        self.judge();
        let things = self.lock();
        for name in names {
            let Some(thing) = things.get(name) else { continue };
            let is_done = thing.ends.iter().any(|(_, told)| *told == Told::Done);
            if is_done && !thing.may_be_collected {
                assert_eq!(thing.collected, 1, "the result of {name} is missing: {thing:#x?}");
            }
        }
    }
}
