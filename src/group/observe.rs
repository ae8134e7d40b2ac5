//! Observers: a group and its changes, without joining it.
//!
//! An [`Observer`] reads and watches; it creates no znode and writes nothing, so the permission to read is enough, and the
//! members do not notice it.

mod known;
mod observation;
mod pending;
mod spectator;

use std::{
    fmt,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};
use tokio_util::sync::DropGuard;

pub use self::observation::{MemberState, Observation, ObservedMember, PendingHandover};
pub(crate) use self::spectator::{Spectator, Target};
use crate::{error::Error, member::MemberId, ring::HashRing, watch};

/// Follows a group without joining it. Cheap to clone; the observation ends with the last clone, or with the coordinator.
/// From [`PartitionCoordinator::observe`](crate::PartitionCoordinator::observe).
///
/// It is a [`Stream`] of the changes, as [`Observer::next`] is.
#[must_use = "the observation ends when it is dropped"]
pub struct Observer {
    seen: watch::Receiver<Arc<Observation>>,
    /// In a mutex only because a stream cannot be shared between threads, and an observer can.
    changes: Mutex<BoxStream<'static, Arc<Observation>>>,
    end: Arc<DropGuard>,
}

impl Observer {
    pub(crate) fn new(mut seen: watch::Receiver<Arc<Observation>>, end: DropGuard) -> Observer {
        seen.mark_changed();
        Observer::over(seen, Arc::new(end))
    }

    fn over(seen: watch::Receiver<Arc<Observation>>, end: Arc<DropGuard>) -> Observer {
        let changes = stream::unfold(seen.clone(), |mut seen| async move {
            loop {
                seen.changed().await.ok()?;
                let now = seen.borrow().clone();
                if now.is_read || now.problem.is_some() {
                    return Some((now, seen));
                }
            }
        });
        Observer { seen, changes: Mutex::new(changes.fuse().boxed()), end }
    }

    /// What was seen last, without I/O.
    pub fn observation(&self) -> Arc<Observation> {
        self.seen.borrow().clone()
    }

    /// Waits until there is something new; the first call returns what is known already. `None` once the coordinator is
    /// shut down. A slow reader misses states in between, and gets the newest.
    ///
    /// # Cancel safety
    ///
    /// Safe: a change that was not returned comes with the next call.
    pub async fn next(&mut self) -> Option<Arc<Observation>> {
        self.changes.get_mut().unwrap_or_else(PoisonError::into_inner).next().await
    }

    /// Waits until the store was read, or cannot be.
    pub(crate) async fn first(&self) -> Result<(), Error> {
        let mut seen = self.seen.clone();
        let is_decided = |it: &Arc<Observation>| it.is_read || it.problem.is_some();
        match seen.wait_for(is_decided).await.as_deref() {
            Ok(found) if found.is_read => Ok(()),
            Ok(found) => Err(found.problem.clone().unwrap_or_else(Error::closed)),
            Err(_) => Err(Error::closed()),
        }
    }
}

/// The observation of a group without a backend, with this member alone. It never changes.
pub(crate) fn of_one(
    group: &str,
    me: &MemberId,
    ring: HashRing,
) -> (watch::Sender<Arc<Observation>>, watch::Receiver<Arc<Observation>>) {
    watch::channel(Arc::new(Observation::of_one(group, me, ring)))
}

impl Clone for Observer {
    /// A reader of its own: it gets what is known now first.
    fn clone(&self) -> Self {
        let mut seen = self.seen.clone();
        seen.mark_changed();
        Observer::over(seen, self.end.clone())
    }
}

impl Stream for Observer {
    type Item = Arc<Observation>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Arc<Observation>>> {
        self.changes.get_mut().unwrap_or_else(PoisonError::into_inner).poll_next_unpin(context)
    }
}

impl fmt::Debug for Observer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Observer").field(&*self.seen.borrow()).finish()
    }
}
