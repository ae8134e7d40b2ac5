//! [`Ledger`]: the writes that the store has acknowledged, and the checks that follow from them. The oracle of these
//! tests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use apportion::{Error, board::BoardError, queue::QueueError};

/// The outcome of a write, as its caller knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Done,
    /// It may have been done.
    Unknown,
    NotDone,
}

/// A result that shows whether a write was done.
pub(crate) trait HasOutcome {
    fn outcome(&self) -> Outcome;
}

impl<T> HasOutcome for Result<T, BoardError> {
    fn outcome(&self) -> Outcome {
        match self {
            Ok(_) | Err(BoardError::PostedAndGone { .. }) => Outcome::Done,
            Err(
                BoardError::OutcomeUnknown { .. }
                | BoardError::Closed { .. }
                | BoardError::Service(Error::Closed { .. }),
            ) => Outcome::Unknown,
            Err(_) => Outcome::NotDone,
        }
    }
}

impl<T> HasOutcome for Result<T, QueueError> {
    fn outcome(&self) -> Outcome {
        match self {
            Ok(_) => Outcome::Done,
            Err(
                QueueError::OutcomeUnknown { .. }
                | QueueError::Closed { .. }
                | QueueError::Service(Error::Closed { .. }),
            ) => Outcome::Unknown,
            Err(_) => Outcome::NotDone,
        }
    }
}

/// One job or entry, by its name or payload.
#[derive(Debug, Default)]
struct Thing {
    /// `None` if no caller has reported that it was put.
    put: Option<Outcome>,
    /// The tokens of its claims.
    tokens: BTreeSet<u64>,
    /// The ends of it, by token.
    ends: Vec<(u64, Outcome)>,
    /// How often it was collected.
    collected: u32,
    /// Whether a collector may have confirmed it without getting the reply.
    may_be_collected: bool,
    /// Whether its lock was deleted by hand. Then an end whose reply was lost as well may be taken for done although
    /// another process has done it: a job leaves no trace that could show the difference.
    is_broken: bool,
    /// The highest token that the store of the work has received.
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

    /// A caller has put it, with this outcome.
    pub(crate) fn put(&self, name: &str, outcome: Outcome) {
        let mut things = self.lock();
        let thing = things.entry(name.into()).or_default();
        assert_eq!(thing.put.replace(outcome), None, "{name} is put once in a test");
        let is_there = !thing.tokens.is_empty();
        assert!(outcome != Outcome::NotDone || !is_there, "{name} was not put, and is there: {thing:#x?}");
    }

    /// A caller has put it, with this result.
    pub(crate) fn put_result<T, E>(&self, name: &str, result: &Result<T, E>)
    where
        Result<T, E>: HasOutcome,
    {
        self.put(name, result.outcome());
    }

    /// A worker holds it. This is recorded before another worker can hold it.
    pub(crate) fn claimed(&self, name: &str, token: u64) {
        let highest = self.lock().get(name).and_then(|thing| thing.tokens.last().copied());
        assert!(highest < Some(token), "{name} was claimed under {token:#x} after {highest:#x?}");
        self.was_claimed(name, token);
    }

    /// A worker holds it, or has held it.
    pub(crate) fn was_claimed(&self, name: &str, token: u64) {
        let mut things = self.lock();
        let thing = things.entry(name.into()).or_default();
        assert_ne!(thing.put, Some(Outcome::NotDone), "{name} was not put, and is there: {thing:#x?}");
        assert!(thing.tokens.insert(token), "{name} was claimed twice under {token:#x}: {thing:#x?}");
        // A claim that was made before it was done may be recorded later.
        let done = thing.ends.iter().find(|(_, its)| *its == Outcome::Done);
        let is_later = done.is_some_and(|(done, _)| *done < token);
        assert!(
            !is_later || thing.is_broken,
            "{name} was done, and is claimed again under {token:#x}: {thing:#x?}"
        );
    }

    /// Its holder has ended it, or has tried to, with this result.
    pub(crate) fn ended<T, E>(&self, name: &str, token: u64, result: &Result<T, E>)
    where
        Result<T, E>: HasOutcome,
    {
        self.end(name, token, result.outcome());
    }

    /// Its holder has ended it, or has tried to, with this outcome.
    pub(crate) fn end(&self, name: &str, token: u64, outcome: Outcome) {
        let mut things = self.lock();
        let thing = things.entry(name.into()).or_default();
        if outcome == Outcome::Done {
            let done = thing.ends.iter().find(|(_, its)| *its == Outcome::Done);
            let is_once = done.is_none() || thing.is_broken;
            assert!(is_once, "{name} is done under {token:#x}, and was under {done:#x?}");
        }
        thing.ends.push((token, outcome));
    }

    /// A collector has confirmed its result.
    pub(crate) fn collected(&self, name: &str) {
        let mut things = self.lock();
        let thing = things.entry(name.into()).or_default();
        thing.collected += 1;
        assert!(thing.collected == 1, "{name} was collected {} times", thing.collected);
    }

    /// A collector has tried to confirm it, and does not know the outcome.
    pub(crate) fn may_be_collected(&self, name: &str) {
        self.lock().entry(name.into()).or_default().may_be_collected = true;
    }

    /// The lock of this job was deleted by hand.
    pub(crate) fn broken(&self, name: &str) {
        self.lock().entry(name.into()).or_default().is_broken = true;
    }

    /// The work on it writes to another store, which refuses a token that is lower than an earlier one. Returns whether
    /// the store accepts it.
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
        let is_done = |thing: &&Thing| thing.ends.iter().any(|(_, its)| *its == Outcome::Done);
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

    /// To be called after a worker without troubles has claimed and ended all that was left: checks that nothing was
    /// lost.
    pub(crate) fn judge(&self) {
        for (name, thing) in &*self.lock() {
            let ends = |outcome| thing.ends.iter().filter(|(_, its)| *its == outcome).count();
            if thing.put == Some(Outcome::Done) {
                assert!(ends(Outcome::Done) + ends(Outcome::Unknown) > 0, "{name} is lost: {thing:#x?}");
            }
            assert!(ends(Outcome::Done) <= 1 || thing.is_broken, "{name} was done twice: {thing:#x?}");
            let is_ended = ends(Outcome::Done) + ends(Outcome::Unknown) > 0;
            assert!(
                thing.collected == 0 || is_ended,
                "{name} was collected, and no worker has ended it: {thing:#x?}"
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
            let is_done = thing.ends.iter().any(|(_, its)| *its == Outcome::Done);
            if is_done && !thing.may_be_collected {
                assert_eq!(thing.collected, 1, "the result of {name} is missing: {thing:#x?}");
            }
        }
    }
}
