//! [`Jobs`]: the jobs of a board at one moment; [`BoardEvents`]: what changes between two.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    vec,
};

use super::{
    cache::{Listener, Slot},
    error::BoardError,
    job::Job,
    shared::{Handle, Shared},
};

/// A look at a board; await it. From [`JobBoard::jobs`].
#[must_use = "a look at a board does nothing until it is awaited"]
#[derive(Debug)]
pub struct ListJobs {
    handle: Arc<Handle>,
    only_unclaimed: bool,
    ensure_fresh: bool,
}

impl ListJobs {
    pub(super) fn new(handle: Arc<Handle>) -> Self {
        ListJobs { handle, only_unclaimed: false, ensure_fresh: false }
    }

    /// Leaves out jobs that somebody has claimed.
    pub fn only_unclaimed(mut self) -> Self {
        self.only_unclaimed = true;
        self
    }

    /// Lists the board now: every job is seen whose post was acknowledged before. Without it, the answer is what
    /// the watch has shown so far, and costs nothing.
    pub fn ensure_fresh(mut self) -> Self {
        self.ensure_fresh = true;
        self
    }

    async fn run(self) -> Result<Jobs, BoardError> {
        let shared = &self.handle.shared;
        if shared.is_closed() {
            return Err(shared.closed_error());
        }
        if self.ensure_fresh {
            shared.refresh().await?;
        }
        Ok(Jobs::known(&self.handle, self.only_unclaimed))
    }
}

impl IntoFuture for ListJobs {
    type Output = Result<Jobs, BoardError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// The jobs of a board at one moment: the highest priority first, the oldest first within one.
#[derive(Debug, Clone)]
pub struct Jobs(Vec<Job>);

impl Jobs {
    /// Those that are known at this moment.
    pub(super) fn known(handle: &Arc<Handle>, only_unclaimed: bool) -> Self {
        let cache = handle.shared.cache();
        let wanted = cache.slots().filter(|slot| !(only_unclaimed && slot.is_claimed));
        Jobs(wanted.map(|slot| Job::of(slot, handle)).collect())
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> std::slice::Iter<'_, Job> {
        self.0.iter()
    }
}

impl IntoIterator for Jobs {
    type Item = Job;
    type IntoIter = vec::IntoIter<Job>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Jobs {
    type Item = &'a Job;
    type IntoIter = std::slice::Iter<'a, Job>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Something that has happened on a board.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum BoardEvent {
    /// A job is there.
    Posted(Job),
    /// A job is off the board: done, or given up for good.
    Removed(Job),
    /// Somebody has claimed a job.
    Claimed(Job),
    /// A claim has ended and the job waits again.
    Released(Job),
}

impl BoardEvent {
    /// The job that it happened to.
    pub fn job(&self) -> &Job {
        match self {
            BoardEvent::Posted(job)
            | BoardEvent::Removed(job)
            | BoardEvent::Claimed(job)
            | BoardEvent::Released(job) => job,
        }
    }
}

/// The events of a board from one moment on. From [`JobBoard::events`].
///
/// They are the difference between what was last told and what is known now: a reader that is slow misses what
/// came and went meanwhile, and holds nothing up.
pub struct BoardEvents {
    handle: Arc<Handle>,
    listener: Listener,
    seen: HashMap<Box<str>, Slot>,
    ready: VecDeque<BoardEvent>,
    revision: u64,
}

impl BoardEvents {
    pub(super) fn new(handle: Arc<Handle>) -> Self {
        let revision = handle.shared.listing.revision();
        let (listener, seen) = {
            let mut cache = handle.shared.cache();
            let seen = cache.slots().map(|slot| (slot.known.path.name().into(), slot.clone())).collect();
            (cache.listen(), seen)
        };
        BoardEvents { handle, listener, seen, ready: VecDeque::new(), revision }
    }

    /// The next event; `None` once the board or the coordinator is closed.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost.
    pub async fn next(&mut self) -> Option<BoardEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some(event);
            }
            let before = self.revision;
            let newer =
                |shared: &Shared| Some(shared.listing.revision()).filter(|revision| *revision != before);
            self.revision = self.handle.shared.until(newer).await.ok()?;
            self.compare();
        }
    }

    fn compare(&mut self) {
        let changes: Vec<(Box<str>, Option<Slot>)> = {
            let mut cache = self.handle.shared.cache();
            let names = cache.changes(self.listener).unwrap_or_else(|| {
                let known = cache.slots().map(|slot| slot.known.path.name().into());
                known.chain(self.seen.keys().cloned()).collect()
            });
            let now = |name: Box<str>| {
                let slot = cache.slot(&name).cloned();
                (name, slot)
            };
            names.into_iter().map(now).collect()
        };
        let mut events = Vec::new();
        for (name, now) in changes {
            let before = match &now {
                Some(slot) => self.seen.insert(name, slot.clone()),
                None => self.seen.remove(&name),
            };
            events.extend(self.between(before.as_ref(), now.as_ref()));
        }
        // Stable: a job is posted before it is claimed.
        events.sort_by_key(|event| event.job().known().stat.czxid);
        self.ready = events.into();
    }

    /// What has happened to what has this name.
    fn between(&self, before: Option<&Slot>, now: Option<&Slot>) -> impl Iterator<Item = BoardEvent> + use<> {
        let job = |slot: &Slot| Job::of(slot, &self.handle);
        let is_same = matches!((before, now), (Some(before), Some(now)) if before.known.is_same(&now.known));
        let was_claimed = is_same && before.is_some_and(|slot| slot.is_claimed);
        let removed = before.filter(|_| !is_same).map(|slot| BoardEvent::Removed(job(slot)));
        let posted = now.filter(|_| !is_same).map(|slot| BoardEvent::Posted(job(slot)));
        let moved = now.and_then(|slot| match (was_claimed, slot.is_claimed) {
            (false, true) => Some(BoardEvent::Claimed(job(slot))),
            (true, false) => Some(BoardEvent::Released(job(slot))),
            (true, true) | (false, false) => None,
        });
        [removed, posted, moved].into_iter().flatten()
    }
}

impl Drop for BoardEvents {
    fn drop(&mut self) {
        self.handle.shared.cache().ignore(self.listener);
    }
}

impl fmt::Debug for BoardEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoardEvents").field("board", &self.handle).finish_non_exhaustive()
    }
}
