// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Table`]: which key has a task, and in which state that is. What happens goes in, what is to be done comes out.
//!
//! ```text
//!                    owned           its turn                  asked to stop
//!          Waiting --------> Queued ---------> Running ----------------------> Stopping
//!             ^                ^   not held       |                               |
//!             |                |<-- after 1 s ----+ ended, no error: Finished     |
//!             |                |                  | failed                        |
//!             |                +---- pause ---- Restarting                        |
//!             +------------- ended, and no longer owned ---------------------------+
//! ```
//!
//! A row is removed only when its task has ended, so that a key never has two.

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, num::NonZeroU32, sync::Arc, time::Duration};

use super::{
    failure::{Failure, Remedy},
    rate::Rate,
    states::{EachCounts, Ended, KeyState},
};
use crate::{
    backoff::Pauses,
    clock::Moment,
    ring::{Position, Ranges, RingKey, hash_of},
    session::later::Later,
};

/// The key of a row: by position, so that the rows of a range are found together. The number is never used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Id {
    /// All bits: on a ring of tooz a point may divide the positions that begin with the same 32.
    hash: u128,
    number: u64,
}

impl Id {
    /// The position on a ring of 32 bits.
    pub(super) fn position(self) -> Position {
        (self.hash >> 96) as Position
    }

    fn is_in(self, ranges: &Ranges) -> bool {
        ranges.contains_hash(self.position(), || self.hash)
    }
}

/// How the tasks are run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    /// How long a task that is asked to stop may take.
    pub(super) drain: Duration,
    pub(super) starts_per_second: Option<NonZeroU32>,
    /// The pauses after failures.
    pub(super) pauses: Pauses,
}

/// What a task that runs is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    Stop(Id),
    Force(Id),
}

/// The pause before another attempt to start a task whose key could not be held although it is owned: its validity has
/// lapsed for a moment, or the membership has just changed.
const RETRY: Duration = Duration::from_secs(1);

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Table<K> {
    settings: Settings,
    rows: BTreeMap<Id, Row<K>>,
    numbers: u64,
    /// What this member owns and may start.
    owned: Ranges,
    /// The rows whose turn to start comes, by their turns.
    queue: BTreeMap<u64, Id>,
    turns: u64,
    rate: Rate,
    /// When a row changes by itself.
    timers: Later<Id>,
    signals: Vec<Signal>,
    running: usize,
    is_stopping: bool,
    counts: EachCounts,
}

#[derive(Debug)]
struct Row<K> {
    key: Arc<K>,
    state: State,
    /// How often in a row it has failed.
    errors: u32,
    /// Whether the caller has removed the key while its task runs.
    is_removed: bool,
}

#[derive(Debug)]
enum State {
    Waiting,
    Queued { turn: u64 },
    Running { since: Moment },
    Stopping { began: Moment, since: Moment, is_forced: bool },
    Restarting { at: Moment, error: Box<str> },
    Finished { error: Option<Box<str>> },
}

impl<K: RingKey> Table<K> {
    pub(super) fn new(settings: Settings, keys: impl IntoIterator<Item = Arc<K>>) -> Self {
        let mut table = Table {
            rate: Rate::new(settings.starts_per_second),
            settings,
            rows: BTreeMap::new(),
            numbers: 0,
            owned: Ranges::none(),
            queue: BTreeMap::new(),
            turns: 0,
            timers: Later::new(),
            signals: Vec::new(),
            running: 0,
            is_stopping: false,
            counts: EachCounts::default(),
        };
        for key in keys {
            table.insert(key);
        }
        table
    }

    /// Replaces the settings, before anything is started.
    pub(super) fn configure(&mut self, settings: Settings) {
        self.rate = Rate::new(settings.starts_per_second);
        self.settings = settings;
    }

    /// Adds a key, unless it is there.
    pub(super) fn insert(&mut self, key: Arc<K>) -> bool {
        if let Some(id) = self.find(&*key) {
            // A task of it may still be stopping: then another one starts after it.
            let row = self.rows.get_mut(&id).expect("it was found");
            return std::mem::take(&mut row.is_removed);
        }
        self.numbers += 1;
        let id = Id { hash: hash_of(&*key), number: self.numbers };
        self.rows.insert(id, Row { key, state: State::Waiting, errors: 0, is_removed: false });
        if id.is_in(&self.owned) {
            self.enqueue(id);
        }
        true
    }

    /// Removes a key. Its task is asked to stop.
    pub(super) fn remove<Q: RingKey + ?Sized>(&mut self, key: &Q, now: Moment) -> bool {
        let Some(id) = self.find(key).filter(|id| !self.rows[id].is_removed) else { return false };
        self.remove_row(id, now);
        true
    }

    /// Removes all keys that are not among these, and adds those that are new.
    pub(super) fn replace(&mut self, keys: impl IntoIterator<Item = Arc<K>>, now: Moment) {
        let mut kept = std::collections::BTreeSet::new();
        for key in keys {
            self.insert(key.clone());
            kept.extend(self.find(&*key));
        }
        let gone: Vec<_> = self.rows.keys().filter(|id| !kept.contains(id)).copied().collect();
        gone.into_iter().for_each(|id| self.remove_row(id, now));
    }

    fn remove_row(&mut self, id: Id, now: Moment) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        row.is_removed = true;
        if matches!(row.state, State::Running { .. } | State::Stopping { .. }) {
            self.ask_to_stop(id, now);
        } else {
            self.set(id, State::Waiting);
            self.rows.remove(&id);
        }
    }

    fn find<Q: RingKey + ?Sized>(&self, key: &Q) -> Option<Id> {
        let (hash, bytes) = (hash_of(key), key.ring_key());
        let alike = self.at(hash, hash).find(|(_, row)| row.key.ring_key() == bytes);
        alike.map(|(id, _)| *id)
    }

    /// The state of a key.
    pub(super) fn state<Q: RingKey + ?Sized>(&self, key: &Q, now: Moment) -> Option<KeyState> {
        let row = &self.rows[&self.find(key)?];
        (!row.is_removed).then(|| row.state.shown(row.errors, now))
    }
}

impl<K> Table<K> {
    /// The rows at these positions, both included.
    fn at(&self, first: u128, last: u128) -> impl Iterator<Item = (&Id, &Row<K>)> {
        self.rows.range(Id { hash: first, number: 0 }..=Id { hash: last, number: u64::MAX })
    }

    fn within(&self, ranges: &Ranges) -> Vec<Id> {
        ranges
            .iter_wide()
            .flat_map(|range| self.at(*range.start(), *range.end()))
            .map(|(id, _)| *id)
            .collect()
    }

    /// Changes the state of a row, with what belongs to the one before.
    fn set(&mut self, id: Id, state: State) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        self.timers.remove(&id);
        if let State::Queued { turn } = std::mem::replace(&mut row.state, state) {
            self.queue.remove(&turn);
        }
    }

    /// This member owns these ranges now, and may start what is in them.
    pub(super) fn own(&mut self, owned: &Ranges, now: Moment) {
        let (lost, gained) = (self.owned.difference(owned), owned.difference(&self.owned));
        self.owned = owned.clone();
        for id in self.within(&lost) {
            if let Some(Row { state: State::Running { .. } | State::Stopping { .. }, .. }) =
                self.rows.get(&id)
            {
                self.ask_to_stop(id, now);
            } else {
                self.set(id, State::Waiting);
                self.rows.get_mut(&id).expect("it was found").errors = 0;
            }
        }
        for id in self.within(&gained) {
            // A task that is stopping ends first.
            if matches!(self.rows[&id].state, State::Waiting | State::Finished { .. }) {
                self.enqueue(id);
            }
        }
    }

    /// Asks all tasks to stop, and starts no more.
    pub(super) fn stop_all(&mut self, now: Moment) {
        self.is_stopping = true;
        for id in self.rows.keys().copied().collect::<Vec<_>>() {
            match &self.rows[&id].state {
                State::Running { .. } | State::Stopping { .. } => self.ask_to_stop(id, now),
                State::Queued { .. } | State::Restarting { .. } => self.set(id, State::Waiting),
                State::Waiting | State::Finished { .. } => {}
            }
        }
    }

    /// Asks a task to stop, unless it was asked before.
    pub(super) fn ask_to_stop(&mut self, id: Id, now: Moment) {
        let Some(row) = self.rows.get_mut(&id) else { return };
        if let State::Running { since } = row.state {
            row.state = State::Stopping { began: since, since: now, is_forced: false };
            self.timers.insert(id, now + self.settings.drain);
            self.signals.push(Signal::Stop(id));
        }
    }

    fn enqueue(&mut self, id: Id) {
        if self.is_stopping {
            return self.set(id, State::Waiting);
        }
        self.turns += 1;
        self.set(id, State::Queued { turn: self.turns });
        self.queue.insert(self.turns, id);
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Moment) {
        for id in self.timers.due(now) {
            match self.rows.get_mut(&id).map(|row| &mut row.state) {
                Some(State::Stopping { is_forced, .. }) => {
                    *is_forced = true;
                    self.signals.push(Signal::Force(id));
                }
                Some(State::Waiting | State::Restarting { .. }) => self.enqueue(id),
                Some(State::Queued { .. } | State::Running { .. } | State::Finished { .. }) | None => {}
            }
        }
    }

    /// The next task to start: it counts as running from here on. `None`: none may start now.
    pub(super) fn next_start(&mut self, now: Moment) -> Option<(Id, Arc<K>)> {
        let (_, &id) = self.queue.first_key_value()?;
        if !self.rate.take(now) {
            return None;
        }
        self.set(id, State::Running { since: now });
        self.running += 1;
        self.counts.started += 1;
        Some((id, self.rows[&id].key.clone()))
    }

    /// The task was not started, because its key cannot be held at this moment.
    pub(super) fn not_held(&mut self, id: Id, now: Moment) {
        self.running -= 1;
        self.counts.started -= 1;
        self.wait(id, Some(now + RETRY));
    }

    fn wait(&mut self, id: Id, retry: Option<Moment>) {
        self.set(id, State::Waiting);
        if let Some(at) = retry.filter(|_| !self.is_stopping) {
            self.timers.insert(id, at);
        }
    }

    /// A task has ended. `random` is a uniform number in `[0, 1]`. Returns how often in a row the task has failed, and the
    /// pause, if it is to be started again after a failure.
    pub(super) fn ended(
        &mut self,
        id: Id,
        ended: Ended,
        now: Moment,
        random: f64,
    ) -> Option<(u32, Duration)> {
        let row = self.rows.get_mut(&id)?;
        self.running -= 1;
        self.timers.remove(&id);
        let (began, was_asked) = match row.state {
            State::Running { since } => (since, false),
            State::Stopping { began, .. } => (began, true),
            _ => (now, false),
        };
        let is_owned = id.is_in(&self.owned) && !self.is_stopping;
        self.counts.note(&ended);
        if row.is_removed {
            self.rows.remove(&id);
            return None;
        }
        match ended {
            _ if !is_owned => {
                row.errors = 0;
                self.wait(id, None);
            }
            // The key was lost or removed, and has come back meanwhile: what became of its task before does not count.
            _ if was_asked => {
                row.errors = 0;
                self.enqueue(id);
            }
            Ended::Finished => row.state = State::Finished { error: None },
            Ended::Forced => self.enqueue(id),
            Ended::Lost => self.wait(id, Some(now + RETRY)),
            Ended::Failed(Failure { reason, remedy }) => {
                // What has run well for long enough begins anew.
                let ran = now.saturating_since(began);
                let before = if ran >= self.settings.pauses.longest { 0 } else { row.errors };
                row.errors = before.saturating_add(1);
                let error = reason.into_boxed_str();
                let pause = match remedy {
                    Remedy::Never => {
                        row.state = State::Finished { error: Some(error) };
                        return None;
                    }
                    Remedy::Again(Some(pause)) => pause,
                    Remedy::Again(None) => self.settings.pauses.after(row.errors, random),
                    Remedy::Uncounted(after) => {
                        row.errors = before;
                        after.unwrap_or_else(|| self.settings.pauses.after(1, random))
                    }
                };
                let errors = row.errors;
                row.state = State::Restarting { at: now + pause, error };
                self.timers.insert(id, now + pause);
                return Some((errors, pause));
            }
        }
        None
    }

    /// What the tasks are to be told since the last call.
    pub(super) fn take_signals(&mut self) -> Vec<Signal> {
        std::mem::take(&mut self.signals)
    }

    /// When [`Table::tick`] or [`Table::next_start`] has something to do.
    pub(super) fn due(&self) -> Option<Moment> {
        let start = self.queue.first_key_value().map(|_| self.rate.ready());
        [start, self.timers.next()].into_iter().flatten().min()
    }

    /// How many tasks have not ended.
    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn counts(&self) -> EachCounts {
        self.counts
    }

    /// The keys, in the order of their positions, and the state of each.
    pub(super) fn states(&self, now: Moment) -> Vec<(Arc<K>, KeyState)> {
        let rows = self.rows.values().filter(|row| !row.is_removed);
        rows.map(|row| (row.key.clone(), row.state.shown(row.errors, now))).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.rows.values().filter(|row| !row.is_removed).count()
    }

    /// The key of a row, for a log.
    pub(super) fn key(&self, id: Id) -> Option<&Arc<K>> {
        self.rows.get(&id).map(|row| &row.key)
    }
}

impl State {
    fn shown(&self, errors: u32, now: Moment) -> KeyState {
        match self {
            State::Waiting => KeyState::Waiting,
            State::Queued { .. } => KeyState::Queued,
            State::Running { since } => KeyState::Running { since: now.saturating_since(*since) },
            State::Stopping { since, is_forced, .. } => {
                KeyState::Stopping { since: now.saturating_since(*since), is_forced: *is_forced }
            }
            State::Restarting { at, error } => KeyState::Restarting {
                errors,
                pause: at.saturating_since(now),
                error: error.clone().into_string(),
            },
            State::Finished { error: None } => KeyState::Finished,
            State::Finished { error: Some(error) } => {
                KeyState::GivenUp { error: error.clone().into_string() }
            }
        }
    }
}
