//! [`KeyTask`]: the key that a task runs for, and until when.

use std::{fmt, future::Future, ops::Deref, sync::Arc, time::Duration};

use super::{guarded::Guarded, phase::Stopping};
use crate::{group::held::ItemLost, ring::RingKey, token::FencingToken};

/// The key that a task of [`run_each`](crate::Group::run_each) runs for, with the guard of it. It dereferences to the
/// key.
///
/// The task may act on the key until its future ends: the guard is dropped then, and another member may start. So what the
/// task begins elsewhere, for instance in a task of its own, has to end before, or keep this value: no other member starts
/// on the key as long as it lives, for at most [`max_drain`](crate::Join::max_drain), and this process starts no other task for
/// the key before it is dropped.
pub struct KeyTask<K> {
    guarded: Arc<Guarded<K>>,
    stopping: Stopping,
}

impl<K> KeyTask<K> {
    pub(super) fn new(guarded: Arc<Guarded<K>>, stopping: Stopping) -> Self {
        KeyTask { guarded, stopping }
    }

    /// The key.
    pub fn key(&self) -> &K {
        &self.guarded.held
    }

    /// Waits until the task is asked to stop: the key belongs to another member, or was removed, or the service ends. The
    /// guard is still valid then, so there is time to end the work in good order: until the end of
    /// [`drain`](super::RunEach::drain), at which the future of the task is dropped.
    ///
    /// ```
    /// # use apportion::run::KeyTask;
    /// # use std::time::Duration;
    /// # async fn poll(_: &str) {}
    /// # async fn save(_: &str) {}
    /// async fn watch(shard: KeyTask<String>) {
    ///     let stopping = shard.stopping();
    ///     tokio::pin!(stopping);
    ///     loop {
    ///         poll(&shard).await;
    ///         tokio::select! {
    ///             () = &mut stopping => break,
    ///             () = tokio::time::sleep(Duration::from_secs(60)) => {}
    ///         }
    ///     }
    ///     save(&shard).await;
    /// }
    /// ```
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static + use<K> {
        self.stopping.clone().asked()
    }

    /// Whether the task is asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.has_come()
    }

    /// Whether this member may act on the key at this moment: [`Held::is_valid`](crate::Held::is_valid). The future of
    /// the task is not polled any more once it may not.
    pub fn is_valid(&self) -> bool {
        self.guarded.held.is_valid()
    }

    /// A token for stores that must refuse stale writers: [`Held::token`](crate::Held::token).
    pub fn token(&self) -> FencingToken {
        self.guarded.held.token()
    }

    /// The time until the current deadline: [`Held::remaining`](crate::Held::remaining).
    pub fn remaining(&self) -> Duration {
        self.guarded.held.remaining()
    }

    /// Runs a part of the work as long as this member may act on the key: [`Held::while_held`](crate::Held::while_held). It
    /// ends at that moment. The future of the task itself need not use it: it is checked before each poll. This is for work
    /// in another task that has this value, and for work that has to end at once.
    ///
    /// # Errors
    ///
    /// [`ItemLost`] if the key was lost before `work` was done. `work` was dropped in that case.
    ///
    /// # Cancel safety
    ///
    /// As that of `work`.
    pub async fn while_held<F: Future>(&self, work: F) -> Result<F::Output, ItemLost> {
        self.guarded.held.while_held(work).await
    }
}

impl<K> Deref for KeyTask<K> {
    type Target = K;

    fn deref(&self) -> &K {
        &self.guarded.held
    }
}

impl<K: fmt::Display> fmt::Display for KeyTask<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.key().fmt(f)
    }
}

impl<K: fmt::Debug> fmt::Debug for KeyTask<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyTask").field("held", &self.guarded.held).field("stopping", &self.stopping).finish()
    }
}

/// The text of a key, for a log.
pub(super) fn text<K: RingKey>(key: &K) -> String {
    String::from_utf8_lossy(&key.ring_key()).into_owned()
}
