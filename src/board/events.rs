//! [`BoardEvents`]: the events of a board.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};

use super::{
    cache::{Listener, Slot},
    job::Job,
    shared::{Handle, Shared},
};

/// An event of a board. From [`BoardEvents`].
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum BoardEvent {
    /// A job is new on the board.
    Posted(Job),
    /// A job is off the board: it is done, or in the trash.
    Removed(Job),
    /// A job was claimed.
    Claimed(Job),
    /// A claim has ended, and the job is unclaimed again.
    Released(Job),
}

impl BoardEvent {
    /// The job of this event.
    pub fn job(&self) -> &Job {
        match self {
            BoardEvent::Posted(job)
            | BoardEvent::Removed(job)
            | BoardEvent::Claimed(job)
            | BoardEvent::Released(job) => job,
        }
    }
}

/// The events of a board from one moment on, also as a [`Stream`]. From [`JobBoard::events`](super::JobBoard::events).
///
/// Each read compares the board with its state at the read before. So a slow reader misses jobs that were posted and
/// removed in between, and claims that have ended in between; it delays no other caller.
#[must_use = "events are computed when they are read"]
pub struct BoardEvents {
    handle: Arc<Handle>,
    events: BoxStream<'static, BoardEvent>,
}

impl BoardEvents {
    pub(super) fn new(handle: Arc<Handle>) -> Self {
        let events = stream::unfold(Reader::new(handle.clone()), |mut reader| async move {
            let event = reader.next().await?;
            Some((event, reader))
        });
        BoardEvents { handle, events: events.fuse().boxed() }
    }

    /// The next event; `None` once the board or the coordinator is closed.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is lost.
    pub async fn next(&mut self) -> Option<BoardEvent> {
        self.events.next().await
    }
}

impl Stream for BoardEvents {
    type Item = BoardEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<BoardEvent>> {
        self.events.poll_next_unpin(context)
    }
}

impl fmt::Debug for BoardEvents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoardEvents").field("board", &self.handle).finish_non_exhaustive()
    }
}

/// Compares the cache of the board with the state that the last events have reported.
struct Reader {
    handle: Arc<Handle>,
    listener: Listener,
    seen: HashMap<Box<str>, Slot>,
    ready: VecDeque<BoardEvent>,
    revision: u64,
}

impl Reader {
    fn new(handle: Arc<Handle>) -> Self {
        let revision = handle.shared.listing.revision();
        let (listener, seen) = {
            let mut cache = handle.shared.cache();
            let seen = cache.slots().map(|slot| (slot.known.path.name().into(), slot.clone())).collect();
            (cache.listen(), seen)
        };
        Reader { handle, listener, seen, ready: VecDeque::new(), revision }
    }

    async fn next(&mut self) -> Option<BoardEvent> {
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

    /// The events that lead from one state of a name to the next.
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

impl Drop for Reader {
    fn drop(&mut self) {
        self.handle.shared.cache().ignore(self.listener);
    }
}
