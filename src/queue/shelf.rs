//! [`Shelf`]: the entries that wait, as this process saw them last, for all in it who choose from them.
//!
//! A watch says that the last look is stale; then it is looked again, but only if somebody asks, and after a pause:
//! while others put and take all the time, each process would list the whole queue each time. Meanwhile the entries
//! of the last look are good enough to choose from, because the store decides who gets one.

use std::{
    collections::{BTreeSet, HashSet},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tracing::warn;

use super::entry::Entry;
use crate::{
    backend::path::ZnodePath,
    clock::{Clock, Moment},
    error::Error,
};

/// Between two looks, however short the queue.
const SHORTEST_PAUSE: Duration = Duration::from_millis(25);

/// Between two looks, however long the queue.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// From how many entries of one priority is chosen at most, when others are after the first one as well.
const WIDEST: usize = 64;

/// How many are added between two looks.
const MOST_ADDED: u64 = 1000;

/// See the module documentation.
pub(crate) struct Shelf {
    folder: ZnodePath,
    clock: Arc<dyn Clock>,
    stock: Mutex<Stock>,
    /// For those who choose: there may be something else to choose from.
    changed: watch::Sender<()>,
    /// For the one who looks: somebody may be waiting for it.
    demand: watch::Sender<()>,
}

struct Stock {
    entries: BTreeSet<Arc<Entry>>,
    /// Chosen by somebody in this process, and not yet decided by the store.
    busy: HashSet<Arc<Entry>>,
    left_alone: LeftAlone,
    is_stale: bool,
    next_look: Moment,
    looking: usize,
    /// Counts the looks: begun, and the last one that was installed.
    looks: u64,
    seen: u64,
    /// What was put by this process so far: a look that began before does not show it.
    puts: u64,
    puts_seen: u64,
    /// From how many is chosen: more than one while others are faster.
    width: usize,
    misses: u32,
    error: Option<Error>,
    is_closed: bool,
    dice: fastrand::Rng,
}

/// What there is to choose from.
pub(crate) enum Found {
    /// These, now out of the reach of others in this process.
    Some(Vec<Chosen>),
    /// Nothing, as of a look that is up to date.
    Nothing,
    /// That is being looked at.
    Wait,
    /// Nobody looks any more.
    Closed,
    /// It cannot be looked at.
    Refused(Error),
}

impl Shelf {
    pub(crate) fn new(folder: ZnodePath, clock: Arc<dyn Clock>) -> Arc<Self> {
        let stock = Stock {
            entries: BTreeSet::new(),
            busy: HashSet::new(),
            left_alone: LeftAlone::default(),
            is_stale: true,
            next_look: clock.now(),
            looking: 0,
            looks: 0,
            seen: 0,
            puts: 0,
            puts_seen: 0,
            width: 1,
            misses: 0,
            error: None,
            is_closed: false,
            dice: fastrand::Rng::new(),
        };
        let (changed, demand) = (watch::Sender::new(()), watch::Sender::new(()));
        Arc::new(Shelf { folder, clock, stock: Mutex::new(stock), changed, demand })
    }

    fn lock(&self) -> MutexGuard<'_, Stock> {
        self.stock.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces that there may be something else to choose from.
    pub(crate) fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Has it looked at, as far as that is stale, for as long as the guard lives.
    pub(crate) fn look(self: &Arc<Self>) -> Looking {
        let asked = {
            let mut stock = self.lock();
            stock.looking += 1;
            stock.looks
        };
        self.demand.send_replace(());
        Looking { shelf: self.clone(), asked }
    }

    /// Chooses up to `count` of those that `wanted` accepts, in their order; `None` accepts all.
    pub(crate) fn choose(
        self: &Arc<Self>,
        looking: &Looking,
        count: usize,
        mut wanted: Option<&mut dyn FnMut(&Entry) -> bool>,
    ) -> Found {
        loop {
            let (candidates, width) = {
                let stock = self.lock();
                if let Some(found) = stock.instead_of_choosing(self.clock.now()) {
                    return found;
                }
                let limit = if wanted.is_some() { usize::MAX } else { count.saturating_add(stock.width - 1) };
                (stock.entries.iter().take(limit).cloned().collect::<Vec<_>>(), stock.width)
            };
            // Not under the lock: this is the caller's code.
            let accepted =
                candidates.into_iter().filter(|entry| wanted.as_mut().is_none_or(|wanted| wanted(entry)));
            let mut accepted: Vec<_> = accepted.take(count.saturating_add(width - 1)).collect();
            let mut stock = self.lock();
            if accepted.is_empty() {
                return if stock.answers(looking) { Found::Nothing } else { Found::Wait };
            }
            if width > 1 {
                let first = accepted[0].priority();
                let alike = accepted.iter().take_while(|entry| entry.priority() == first).count();
                stock.dice.shuffle(&mut accepted[..alike]);
            }
            // Somebody else in this process may have chosen the same meanwhile.
            accepted.retain(|entry| stock.entries.contains(entry));
            accepted.truncate(count);
            if accepted.is_empty() {
                continue;
            }
            for entry in &accepted {
                stock.entries.remove(entry);
                stock.busy.insert(entry.clone());
            }
            drop(stock);
            let chosen = |entry| Chosen { shelf: self.clone(), entry, is_decided: false };
            return Found::Some(accepted.into_iter().map(chosen).collect());
        }
    }

    /// All that wait, in their order; `None` while that is being looked at.
    pub(crate) fn entries(&self, looking: &Looking) -> Result<Option<Vec<Entry>>, Found> {
        let stock = self.lock();
        match stock.instead_of_choosing(self.clock.now()) {
            None | Some(Found::Wait) if stock.answers(looking) => {
                Ok(Some(stock.entries.iter().map(|entry| Entry::clone(entry)).collect()))
            }
            None | Some(Found::Wait) => Ok(None),
            Some(other) => Err(other),
        }
    }

    /// Whether anything waits, as far as is known.
    pub(crate) fn has_any(&self) -> Result<bool, Found> {
        let stock = self.lock();
        match stock.instead_of_choosing(self.clock.now()) {
            None => Ok(!stock.entries.is_empty()),
            Some(Found::Wait) => Ok(false),
            Some(other) => Err(other),
        }
    }

    /// Adds what this process has put, or has it looked at if the name is not known.
    pub(crate) fn add(&self, name: Option<&str>) {
        let mut stock = self.lock();
        stock.puts += 1;
        // Where nobody takes, nobody looks either, and what was put would pile up here.
        let is_in_use = stock.puts - stock.puts_seen < MOST_ADDED;
        match name.and_then(|name| name.parse::<Entry>().ok()).filter(|_| is_in_use) {
            Some(entry) => drop(stock.entries.insert(Arc::new(entry))),
            None => {
                stock.is_stale = true;
                stock.next_look = self.clock.now();
            }
        }
        drop(stock);
        self.announce();
    }

    /// What was seen is no longer what is there.
    pub(crate) fn spoil(&self) {
        self.lock().is_stale = true;
        self.announce();
    }

    /// Waits until a look is due that somebody waits for.
    pub(crate) async fn wanted(&self) {
        let mut demand = self.demand.subscribe();
        let next_look = loop {
            demand.borrow_and_update();
            {
                let stock = self.lock();
                if stock.is_stale && stock.looking > 0 {
                    break stock.next_look;
                }
            }
            if demand.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        tokio::time::sleep(next_look.saturating_since(self.clock.now())).await;
    }

    /// Where a look begins.
    pub(crate) fn begin(&self) -> Look {
        let mut stock = self.lock();
        stock.looks += 1;
        Look { number: stock.looks, puts: stock.puts, began: self.clock.now() }
    }

    /// What was seen by a look.
    pub(crate) fn install(&self, names: &[String], Look { number, puts, began }: Look) {
        let now = self.clock.now();
        let mut stock = self.lock();
        let entries = stock.left_alone.sort_out(&self.folder, names);
        let entries = entries.into_iter().map(Arc::new).filter(|entry| !stock.busy.contains(entry));
        stock.entries = entries.collect();
        stock.is_stale = stock.puts != puts;
        (stock.seen, stock.puts_seen) = (number, puts);
        stock.error = None;
        // At most a tenth of the time goes into looking. The dice keep processes apart.
        let pause = (now.saturating_since(began) * 10).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        stock.next_look = now + pause.mul_f64(0.5 + 0.5 * stock.dice.f64());
        drop(stock);
        self.announce();
    }

    /// Why it cannot be looked at.
    pub(crate) fn fail(&self, error: Error) {
        self.lock().error = Some(error);
        self.announce();
    }

    /// Why it cannot be looked at, if that is so.
    pub(crate) fn last_error(&self) -> Option<Error> {
        self.lock().error.clone()
    }

    /// Nobody looks any more.
    pub(crate) fn close(&self) {
        self.lock().is_closed = true;
        self.announce();
    }

    /// Whether what was chosen was still there. A single miss comes from choosing from a look that is stale; several in
    /// a row mean that others are after the same entries. Wider at once and narrower in small steps: each miss is a
    /// request for nothing, and the others are still there after a hit.
    pub(crate) fn adapt(&self, was_there: bool) {
        let mut stock = self.lock();
        stock.misses = if was_there { 0 } else { stock.misses + 1 };
        match stock.misses {
            0 => stock.width = (stock.width - 1).max(1),
            1 => {}
            _ => stock.width = (stock.width * 2).min(WIDEST),
        }
    }

    fn announce(&self) {
        self.changed.send_replace(());
        self.demand.send_replace(());
    }
}

impl Stock {
    /// Whether what was seen answers whoever waits: nothing has changed since, or it was seen since they asked. The
    /// latter because where others put and take all the time, each look is stale as soon as it is done.
    fn answers(&self, looking: &Looking) -> bool {
        !self.is_stale || self.seen > looking.asked
    }

    fn instead_of_choosing(&self, now: Moment) -> Option<Found> {
        if self.is_closed {
            return Some(Found::Closed);
        }
        if let Some(error) = self.error.as_ref().filter(|error| !error.is_transient()) {
            return Some(Found::Refused(error.clone()));
        }
        (self.is_stale && now >= self.next_look).then_some(Found::Wait)
    }
}

impl fmt::Debug for Shelf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let stock = self.lock();
        f.debug_struct("Shelf")
            .field("entries", &stock.entries.len())
            .field("busy", &stock.busy.len())
            .field("is_stale", &stock.is_stale)
            .finish_non_exhaustive()
    }
}

/// Somebody waits for a look.
pub(crate) struct Looking {
    shelf: Arc<Shelf>,
    /// The last look that had begun before.
    asked: u64,
}

impl Drop for Looking {
    fn drop(&mut self) {
        self.shelf.lock().looking -= 1;
    }
}

/// A look that is under way.
pub(crate) struct Look {
    number: u64,
    puts: u64,
    began: Moment,
}

/// An entry that nobody else in this process chooses. Dropped undecided, it is back on the shelf.
pub(crate) struct Chosen {
    shelf: Arc<Shelf>,
    entry: Arc<Entry>,
    is_decided: bool,
}

impl Chosen {
    pub(crate) fn entry(&self) -> &Entry {
        &self.entry
    }

    /// It is no longer there: taken by us, or by somebody else.
    pub(crate) fn forget(mut self) {
        self.is_decided = true;
    }

    /// It can never be taken.
    pub(crate) fn leave_alone(mut self, why: &str) {
        self.is_decided = true;
        self.shelf.lock().left_alone.report(&self.shelf.folder, self.entry.name(), why);
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        let mut stock = self.shelf.lock();
        stock.busy.remove(&self.entry);
        if !self.is_decided {
            stock.entries.insert(self.entry.clone());
            drop(stock);
            self.shelf.announce();
        }
    }
}

impl fmt::Debug for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.entry.fmt(f)
    }
}

/// The entry of this name, if it is that of one.
pub(crate) fn readable(folder: &ZnodePath, name: &str) -> Option<Entry> {
    // A name that we could not ask for is nobody's entry either.
    name.parse().ok().filter(|_| folder.join(name).is_ok())
}

/// The names in a folder that are left alone, each reported once.
#[derive(Debug, Default)]
pub(crate) struct LeftAlone(HashSet<String>);

impl LeftAlone {
    /// The entries among `names`.
    pub(crate) fn sort_out(&mut self, folder: &ZnodePath, names: &[String]) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(names.len());
        let mut seen = HashSet::new();
        for name in names {
            if self.0.contains(name) {
                seen.insert(name.clone());
                continue;
            }
            match readable(folder, name) {
                Some(entry) => entries.push(entry),
                None => {
                    self.report(folder, name, "its name is not that of an entry");
                    seen.insert(name.clone());
                }
            }
        }
        // What is gone is forgotten.
        self.0 = seen;
        entries
    }

    /// Leaves one alone from now on.
    pub(crate) fn report(&mut self, folder: &ZnodePath, name: &str, why: &str) {
        if self.0.insert(name.into()) {
            warn!(path = format_args!("{folder}/{name}"), why, "left alone");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;

    fn shelf() -> Arc<Shelf> {
        Shelf::new("/unowned".parse().unwrap(), Arc::new(TokioClock::new()))
    }

    fn name(number: u32) -> String {
        format!("entry-100-l-{number:010}")
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_asks_is_answered_by_a_look_that_began_later_also_while_everything_changes() {
        let shelf = shelf();
        let early = shelf.begin();
        let looking = shelf.look();
        shelf.install(&[name(1)], early);
        shelf.spoil();
        assert!(matches!(shelf.entries(&looking), Ok(None)), "that look began before");
        let begin = shelf.begin();
        shelf.install(&[name(2)], begin);
        // Others put and take all the time.
        shelf.spoil();
        let seen = shelf.entries(&looking);
        assert!(matches!(&seen, Ok(Some(seen)) if seen[0].name() == name(2)));
        let found = shelf.choose(&looking, 1, Some(&mut |_| false));
        assert!(matches!(found, Found::Nothing));
        let later = shelf.look();
        assert!(matches!(shelf.choose(&later, 1, Some(&mut |_| false)), Found::Wait));
        assert!(matches!(shelf.choose(&later, 1, None), Found::Some(_)), "the store decides");
    }
}
