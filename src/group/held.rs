//! [`Held`]: an item that this member acts on, and until when it may.

use std::{
    fmt,
    future::Future,
    ops::{Deref, DerefMut},
    time::Duration,
};

use super::register::InFlight;
use crate::{clock::Moment, session::validity::while_valid, token::FencingToken};

/// An item that this member acts on. Dropping it says that the work on the item has ended.
///
/// A [`Share`](crate::Share) gives one for each item when its turn comes, and so does
/// [`Rebalance::gained`](super::Rebalance::gained). It dereferences to the item. It can be moved into a task, and items
/// of one share can be acted on in any order and at the same time:
///
/// ```
/// # use apportion::{Config, PartitionCoordinator, backend};
/// # use futures_util::{StreamExt as _, stream};
/// # async fn evaluate(_: &str) {}
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
/// let group = coordinator.join("alarm-evaluator").await?;
/// let mine = group.extract_my_subset(vec!["cpu".to_string(), "disk".to_string()]).await?;
/// stream::iter(mine)
///     .for_each_concurrent(16, |alarm| async move {
///         // Dropped at the first await after the moment at which another member may act on the alarm.
///         if let Err(lost) = alarm.while_held(evaluate(&alarm)).await {
///             println!("{alarm}: {lost}");
///         }
///     })
///     .await;
/// # Ok::<(), apportion::Error>(()) }).unwrap();
/// ```
///
/// It is valid until the session or the membership ends or lapses, as the share is. If its item is lost meanwhile, it
/// stays valid until it is dropped, for at most [`max_drain`](crate::Join::max_drain), and no other member starts on the
/// item before that. In an [immediate](crate::Join::immediate) group it ends when this process sees that another member
/// owns the item, and that one may have begun a moment before.
#[must_use = "the work on an item ends when its guard is dropped"]
pub struct Held<T> {
    // The item is dropped first: what its drop does belongs to the work.
    item: T,
    in_flight: InFlight,
}

/// The guard of an item has ended: another member may act on the item now.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the item is no longer this member's: another member of `{group}` may act on it now")]
pub struct ItemLost {
    /// The name of the group.
    pub group: String,
}

impl<T> Held<T> {
    pub(crate) fn new(item: T, in_flight: InFlight) -> Self {
        Held { item, in_flight }
    }

    /// Whether this member may act on the item at this moment. Compares the deadline with the clock, no I/O. After an
    /// outage it may become true again, if the session has survived and no other member got the item.
    pub fn is_valid(&self) -> bool {
        self.in_flight.is_valid()
    }

    /// Whether the item was lost while this guard was in progress, so that it ends within the drain of the group.
    pub(crate) fn is_marked(&self) -> bool {
        self.in_flight.is_marked()
    }

    /// A token for stores that must refuse stale writers: from one owner of the item to the next it never decreases. It
    /// is that of the share, [`Share::token`](crate::Share::token), or a higher one if the membership has changed before
    /// the turn of the item.
    pub fn token(&self) -> FencingToken {
        self.in_flight.token()
    }

    /// The time until the current deadline: zero once it is invalid, [`Duration::MAX`] without a backend.
    pub fn remaining(&self) -> Duration {
        self.in_flight.remaining()
    }

    /// Until when this member may act on the item if no further heartbeat is confirmed. The moment is one of the
    /// backend's clock ([`Connector::clock`](crate::backend::Connector::clock)).
    pub fn deadline(&self) -> Moment {
        self.in_flight.deadline()
    }

    /// Waits until this member may not act on the item any more. To be used in a `select!` with the work, for instance.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn lost(&self) -> ItemLost {
        self.in_flight.lost().await;
        self.loss()
    }

    fn loss(&self) -> ItemLost {
        ItemLost { group: self.in_flight.register().group().to_string() }
    }

    /// Runs `work` as long as this member may act on the item: checks it before each poll of the future. Returns its
    /// output.
    ///
    /// A poll that blocks the thread cannot be interrupted, and a request of the last poll may still arrive: pass
    /// [`Held::token`] to stores that can compare it.
    ///
    /// # Errors
    ///
    /// [`ItemLost`] if the item was lost before `work` was done. `work` was dropped in that case.
    ///
    /// # Cancel safety
    ///
    /// As that of `work`.
    pub async fn while_held<F: Future>(&self, work: F) -> Result<F::Output, ItemLost> {
        let check = || if self.is_valid() { Ok(()) } else { Err(self.loss()) };
        while_valid(work, self.lost(), check).await
    }

    /// The guard with another item in place of this one, for instance a part of it, or a clone of a borrowed one.
    pub fn map<U>(self, other: impl FnOnce(T) -> U) -> Held<U> {
        let Held { item, in_flight } = self;
        Held { item: other(item), in_flight }
    }

    /// The item without its guard: the work on it has ended. From now on nothing stops an action that comes too late.
    pub fn into_inner(self) -> T {
        self.item
    }
}

impl<T> Deref for Held<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.item
    }
}

impl<T> DerefMut for Held<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.item
    }
}

impl<T: fmt::Display> fmt::Display for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.item.fmt(f)
    }
}

impl<T: fmt::Debug> fmt::Debug for Held<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Held")
            .field("item", &self.item)
            .field("group", &self.in_flight.register().group())
            .field("token", &self.token())
            .field("is_valid", &self.is_valid())
            .finish()
    }
}
