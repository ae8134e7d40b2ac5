//! Lists a folder of the store when a caller asks for it and a watch has reported a change.
//!
//! If each process listed the whole folder at each change, a busy folder would be listed all the time. So a process
//! lists it only if a caller asks, and spends only a part of the time on it. Between two listings a caller chooses from
//! the last one. That is good enough, because the store decides which process gets an entry.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::{Live, follow::Follower, requests::Failure};
use crate::{
    backend::{self, Stat, path::ZnodePath},
    backoff::Backoff,
    clock::{Clock, Moment},
    error::Error,
    random::Random,
    watch,
};

/// The pause before the next listing, as a multiple of the time that the names of the last one took: about a tenth of
/// the time is spent on them. What a listing reads beside the names does not count, because it is read once at any pace.
const PAUSE_FACTOR: u32 = 10;
/// The shortest and the longest such pause.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// The first and the longest pause after a listing that failed.
const RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_secs(1);
/// If a listing takes longer, a caller that can choose from the last one does not wait for it.
const QUICK: Duration = Duration::from_millis(25);

/// The settings of a listing.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) folder: ZnodePath,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) random: Random,
    /// After how long a change is listed although no caller asks; `None`: only when one asks.
    pub(crate) unasked: Option<Duration>,
    /// Cancelled when no more listings will be made.
    pub(crate) closed: CancellationToken,
}

/// When a folder is listed, and how that ended. The [`Contents`] keep what was found.
pub(crate) struct Listing {
    settings: Settings,
    state: Mutex<State>,
    /// Counts the changes of the contents, for callers that wait for one.
    changed: watch::Sender<u64>,
    /// Wakes the task, because a listing may be due.
    demand: watch::Sender<()>,
}

#[derive(Debug)]
struct State {
    /// Since when the contents may be out of date; `None` if they are not.
    stale_since: Option<Moment>,
    /// Counts the changes by this process: a listing that began earlier may not show them.
    local: u64,
    /// How many callers ask for listings.
    asking: usize,
    /// The number of the listing that a caller waits for, even if the watch has not fired.
    wanted: u64,
    /// The numbers of the last listing that has begun, and of the last that has succeeded.
    begun: u64,
    listed: u64,
    listed_at: Option<Moment>,
    /// The earliest moment of the next listing, and of the next after a failure.
    next: Moment,
    retry: Option<Moment>,
    took: Duration,
    error: Option<Error>,
}

/// Why no more listings come.
#[derive(Debug)]
pub(crate) enum Stopped {
    /// No more listings will be made.
    Closed,
    /// It cannot be listed until an operator acts.
    Refused(Error),
}

impl Listing {
    pub(crate) fn new(settings: Settings) -> Arc<Self> {
        let now = settings.clock.now();
        let state = State {
            stale_since: Some(now),
            local: 0,
            asking: 0,
            wanted: 0,
            begun: 0,
            listed: 0,
            listed_at: None,
            next: now,
            retry: None,
            took: Duration::ZERO,
            error: None,
        };
        let (changed, demand) = (watch::Sender::new(0), watch::Sender::new(()));
        Arc::new(Listing { settings, state: Mutex::new(state), changed, demand })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Moment {
        self.settings.clock.now()
    }

    /// Counts the changes of the contents.
    pub(crate) fn revision(&self) -> u64 {
        *self.changed.borrow()
    }

    /// Asks for listings as long as the guard lives: the folder is listed when it has changed, with pauses in between.
    pub(crate) fn ask(self: &Arc<Self>) -> Asking {
        self.asking(false)
    }

    /// Like [`Listing::ask`], and also asks for one listing at once, even if the watch has not fired.
    pub(crate) fn ask_anew(self: &Arc<Self>) -> Asking {
        self.asking(true)
    }

    fn asking(self: &Arc<Self>, is_anew: bool) -> Asking {
        let asked = {
            let mut state = self.lock();
            state.asking += 1;
            if is_anew {
                state.wanted = state.begun + 1;
            }
            state.begun
        };
        self.demand.send_replace(());
        Asking { listing: self.clone(), asked, is_anew }
    }

    /// Whether the contents answer the caller: a listing has begun and ended since the caller asked, or nothing has
    /// changed since the last one. The first condition is for folders that change all the time: there, each listing is
    /// out of date as soon as it ends.
    pub(crate) fn answers(&self, asking: &Asking) -> bool {
        let state = self.lock();
        state.listed > asking.asked || (state.stale_since.is_none() && !asking.is_anew)
    }

    /// Whether a caller that could choose from the contents should wait for the listing that is due now.
    pub(crate) fn is_worth_waiting_for(&self) -> bool {
        let state = self.lock();
        state.stale_since.is_some() && self.now() >= state.next && state.took <= QUICK
    }

    /// Waits until `probe` finds something in the contents. Calls it again after each change.
    ///
    /// Cancel safe.
    pub(crate) async fn until<T>(&self, mut probe: impl FnMut() -> Option<T>) -> Result<T, Stopped> {
        let mut changes = self.changed.subscribe();
        let waiting = async {
            loop {
                changes.borrow_and_update();
                self.check()?;
                if let Some(found) = probe() {
                    return Ok(found);
                }
                // It cannot fail: `self` holds the sender.
                let _ = changes.changed().await;
            }
        };
        self.settings.closed.run_until_cancelled(waiting).await.unwrap_or(Err(Stopped::Closed))
    }

    /// An error if no more listings come.
    pub(crate) fn check(&self) -> Result<(), Stopped> {
        if self.is_closed() {
            return Err(Stopped::Closed);
        }
        match &self.lock().error {
            Some(error) if !error.is_transient() => Err(Stopped::Refused(error.clone())),
            _ => Ok(()),
        }
    }

    /// When it was listed last.
    pub(crate) fn listed_at(&self) -> Option<Moment> {
        self.lock().listed_at
    }

    /// Why the folder could not be listed the last time.
    pub(crate) fn last_error(&self) -> Option<Error> {
        self.lock().error.clone()
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.settings.closed.is_cancelled()
    }

    /// Ends the listings; callers that wait get [`Stopped::Closed`].
    pub(crate) fn close(&self) {
        self.settings.closed.cancel();
        self.announce();
    }

    /// Notes that the contents may be out of date.
    pub(crate) fn invalidate(&self) {
        let now = self.now();
        let mut state = self.lock();
        state.local += 1;
        state.stale_since.get_or_insert(now);
        drop(state);
        self.announce();
    }

    /// Notes that this process has changed the contents. A listing that is under way may not show it.
    pub(crate) fn note_local_change(&self) {
        self.lock().local += 1;
        self.announce();
    }

    /// Wakes the callers, because the contents may have changed.
    pub(crate) fn announce(&self) {
        self.changed.send_modify(|revision| *revision += 1);
        self.demand.send_replace(());
    }

    fn fail(&self, error: Error) {
        self.lock().error = Some(error);
        self.announce();
    }

    /// Waits until a listing is due.
    async fn due(&self) {
        let mut demand = self.demand.subscribe();
        loop {
            demand.borrow_and_update();
            let now = self.now();
            let due = self.lock().due(now, self.settings.unasked);
            match due {
                Some(due) if due <= now => return,
                Some(due) => {
                    let _ = tokio::time::timeout(due.saturating_since(now), demand.changed()).await;
                }
                // It cannot fail: `self` holds the sender.
                None => {
                    let _ = demand.changed().await;
                }
            }
        }
    }

    fn begin(&self) -> Begun {
        let mut state = self.lock();
        state.begun += 1;
        Begun { number: state.begun, local: state.local, is_wanted: state.wanted > state.listed }
    }

    fn end(&self, begun: &Begun, took: Duration) {
        let now = self.now();
        let spread = 0.5 + 0.5 * self.settings.random.unit();
        let mut state = self.lock();
        state.listed = begun.number;
        state.listed_at = Some(now);
        state.stale_since = (state.local != begun.local).then_some(now);
        (state.error, state.retry) = (None, None);
        state.took = took;
        let pause = state.took.saturating_mul(PAUSE_FACTOR).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
        // The watches of all processes fire at the same time; the jitter spreads their listings.
        state.next = now + pause.mul_f64(spread);
        drop(state);
        self.announce();
    }

    fn end_failed(&self, retry: Duration) {
        let now = self.now();
        let mut state = self.lock();
        state.stale_since.get_or_insert(now);
        state.retry = Some(now + retry);
    }
}

impl State {
    fn due(&self, now: Moment, unasked: Option<Duration>) -> Option<Moment> {
        let due = if self.listed < self.wanted {
            now
        } else {
            let since = self.stale_since?;
            if self.asking > 0 { self.next } else { self.next.max(since + unasked?) }
        };
        Some(self.retry.map_or(due, |retry| due.max(retry)))
    }
}

impl fmt::Debug for Listing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listing")
            .field("folder", &self.settings.folder)
            .field("state", &*self.lock())
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}

/// Asks for listings as long as it lives. From [`Listing::ask`].
#[derive(Debug)]
pub(crate) struct Asking {
    listing: Arc<Listing>,
    /// The number of the last listing that had begun before.
    asked: u64,
    is_anew: bool,
}

impl Drop for Asking {
    fn drop(&mut self) {
        self.listing.lock().asking -= 1;
    }
}

/// A listing that is under way.
#[derive(Debug)]
struct Begun {
    number: u64,
    local: u64,
    is_wanted: bool,
}

/// Why one listing is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Occasion {
    /// It is the first one in this session, or after a failure.
    pub(crate) is_first: bool,
    /// A caller waits for it.
    pub(crate) is_wanted: bool,
}

/// Keeps what the listings of a folder find.
pub(crate) trait Contents: Send {
    /// Called when a listing begins. It may not show what this process changes from now on.
    fn begin(&mut self) {}

    /// Adopts a listing. Reads more from the store if necessary.
    fn adopt(
        &mut self,
        live: &Live,
        names: &[String],
        folder: &Stat,
        occasion: Occasion,
    ) -> impl Future<Output = Result<(), backend::Error>> + Send;

    /// Called when the listing that has begun has failed.
    fn give_up(&mut self) {}

    /// Creates the folder, which is gone, and what belongs to it.
    fn make(&mut self, live: &Live) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// Lists a folder in each session.
pub(crate) struct Lister<C> {
    pub(crate) listing: Arc<Listing>,
    pub(crate) contents: C,
}

impl<C: Contents> Lister<C> {
    /// Lists the folder once. Returns a watch, which fires when the folder changes, and how long the names took.
    async fn list(
        &mut self,
        live: &Live,
        occasion: Occasion,
    ) -> Result<(backend::Watch, Duration), backend::Error> {
        let Listing { settings: Settings { folder, clock, .. }, .. } = &*self.listing;
        // The server of this session may be behind that of the last one.
        if occasion.is_wanted || occasion.is_first {
            live.session.sync(folder).await?;
        }
        let began = clock.now();
        let (names, stat, watch) = live.session.watch_children(folder).await?;
        let took = clock.now().saturating_since(began);
        self.contents.adopt(live, &names, &stat, occasion).await?;
        Ok((watch, took))
    }
}

impl<C: Contents> Follower for Lister<C> {
    async fn run(&mut self, live: &Arc<Live>) {
        let listing = self.listing.clone();
        let folder = &listing.settings.folder;
        let mut backoff = Backoff::new(RETRY, LONGEST_RETRY);
        let mut is_first = true;
        listing.invalidate();
        loop {
            listing.due().await;
            let begun = listing.begin();
            self.contents.begin();
            let error = match self.list(live, Occasion { is_first, is_wanted: begun.is_wanted }).await {
                Ok((mut watch, took)) => {
                    listing.end(&begun, took);
                    backoff.reset();
                    is_first = false;
                    tokio::select! {
                        biased;
                        _ = watch.fired() => listing.invalidate(),
                        () = listing.due() => {}
                    }
                    continue;
                }
                Err(error) => error,
            };
            self.contents.give_up();
            is_first = true;
            let error = match error {
                backend::Error::NoNode => {
                    debug!(%folder, "the folder is gone; creating it again");
                    self.contents.make(live).await.err()
                }
                error => Some(error.into()),
            };
            if let Some(failure) = error {
                debug!(%folder, error = %failure.error, "the folder could not be listed");
                if !failure.error.is_unknown() {
                    listing.fail(failure.into_error(folder));
                }
            }
            listing.end_failed(backoff.next_delay(listing.settings.random.unit()));
        }
    }

    fn refused(&mut self, error: Error) {
        self.listing.fail(error);
    }

    fn close(&mut self) {
        self.listing.close();
    }
}

#[cfg(test)]
mod tests;
