//! A value that tasks wait for: `tokio::sync::watch` with a fixed order.
//!
//! Receivers wake in the order in which they began to wait. Those of tokio wake in a random order that no seed
//! determines, so a run could not be repeated.

use std::{
    fmt,
    ops::Deref,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
};

use tokio::sync::Notify;

/// Every sender is gone: the value changes no more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Closed;

/// Changes the value. There is one for each value.
pub(crate) struct Sender<T>(Arc<Shared<T>>);

/// Reads the value and waits for changes of it.
pub(crate) struct Receiver<T> {
    shared: Arc<Shared<T>>,
    /// The version that this receiver has seen.
    seen: u64,
}

/// The value, locked until this is dropped.
pub(crate) struct Ref<'a, T>(RwLockReadGuard<'a, State<T>>);

struct Shared<T> {
    state: RwLock<State<T>>,
    changed: Notify,
}

struct State<T> {
    value: T,
    version: u64,
    is_closed: bool,
}

/// A sender of a value, and a receiver that has seen it.
pub(crate) fn channel<T>(value: T) -> (Sender<T>, Receiver<T>) {
    let sender = Sender::new(value);
    let receiver = sender.subscribe();
    (sender, receiver)
}

impl<T> Shared<T> {
    fn read(&self) -> RwLockReadGuard<'_, State<T>> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State<T>> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    pub(crate) fn new(value: T) -> Self {
        let state = RwLock::new(State { value, version: 0, is_closed: false });
        Sender(Arc::new(Shared { state, changed: Notify::new() }))
    }

    pub(crate) fn borrow(&self) -> Ref<'_, T> {
        Ref(self.0.read())
    }

    /// Replaces the value and returns the one before.
    pub(crate) fn send_replace(&self, value: T) -> T {
        let mut before = value;
        self.send_modify(|now| std::mem::swap(now, &mut before));
        before
    }

    pub(crate) fn send_modify(&self, modify: impl FnOnce(&mut T)) {
        {
            let mut state = self.0.write();
            modify(&mut state.value);
            state.version += 1;
        }
        self.0.changed.notify_waiters();
    }

    /// A receiver that has seen the value as it is now.
    pub(crate) fn subscribe(&self) -> Receiver<T> {
        let seen = self.0.read().version;
        Receiver { shared: self.0.clone(), seen }
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.write().is_closed = true;
        self.0.changed.notify_waiters();
    }
}

impl<T> Receiver<T> {
    pub(crate) fn borrow(&self) -> Ref<'_, T> {
        Ref(self.shared.read())
    }

    /// Reads the value and marks it as seen.
    pub(crate) fn borrow_and_update(&mut self) -> Ref<'_, T> {
        let state = self.shared.read();
        self.seen = state.version;
        Ref(state)
    }

    /// Whether every sender is gone, so that the value changes no more.
    pub(crate) fn is_closed(&self) -> bool {
        self.shared.read().is_closed
    }

    /// Whether the value has changed since it was seen; an error if it was seen and changes no more.
    pub(crate) fn has_changed(&self) -> Result<bool, Closed> {
        let state = self.shared.read();
        match state.version != self.seen {
            false if state.is_closed => Err(Closed),
            has_changed => Ok(has_changed),
        }
    }

    /// Makes the value count as not seen.
    pub(crate) fn mark_changed(&mut self) {
        self.seen = u64::MAX;
    }

    /// Waits for a value that was not seen and marks it as seen. Cancel safe.
    pub(crate) async fn changed(&mut self) -> Result<(), Closed> {
        let seen = self.seen;
        self.wait(|state| state.version != seen).await.map(drop)
    }

    /// Waits until the value is such as is wanted, and marks it as seen. Cancel safe.
    pub(crate) async fn wait_for(
        &mut self,
        mut is_wanted: impl FnMut(&T) -> bool,
    ) -> Result<Ref<'_, T>, Closed> {
        self.wait(|state| is_wanted(&state.value)).await
    }

    async fn wait(&mut self, mut is_wanted: impl FnMut(&State<T>) -> bool) -> Result<Ref<'_, T>, Closed> {
        loop {
            // Before the value is read, so that every later change ends the wait.
            let notified = self.shared.changed.notified();
            {
                let state = self.shared.read();
                self.seen = state.version;
                if is_wanted(&state) {
                    return Ok(Ref(state));
                }
                if state.is_closed {
                    return Err(Closed);
                }
            }
            notified.await;
        }
    }

    pub(crate) fn same_channel(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.shared, &other.shared)
    }
}

impl<T> Clone for Receiver<T> {
    fn clone(&self) -> Self {
        Receiver { shared: self.shared.clone(), seen: self.seen }
    }
}

impl<T> Deref for Ref<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T: fmt::Debug> fmt::Debug for Sender<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sender").field(&*self.borrow()).finish()
    }
}

impl<T: fmt::Debug> fmt::Debug for Receiver<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Receiver").field(&*self.borrow()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use tokio::{task::JoinSet, time::timeout};

    use super::*;

    const SECOND: std::time::Duration = std::time::Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn receivers_wake_in_the_order_in_which_they_began_to_wait() {
        for _ in 0..20 {
            let (sender, receiver) = channel(0);
            let woken = Arc::<Mutex<Vec<usize>>>::default();
            let mut waiting = JoinSet::new();
            for number in 0..20 {
                let (mut receiver, woken) = (receiver.clone(), woken.clone());
                waiting.spawn(async move {
                    receiver.changed().await.unwrap();
                    woken.lock().unwrap().push(number);
                });
            }
            tokio::task::yield_now().await;
            sender.send_replace(1);
            waiting.join_all().await;
            assert!(woken.lock().unwrap().is_sorted(), "{woken:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_is_seen_once_and_the_last_one_also_after_the_end() {
        let (sender, mut receiver) = channel("a");
        assert_eq!(receiver.has_changed(), Ok(false));
        assert!(timeout(SECOND, receiver.changed()).await.is_err());
        assert_eq!(sender.send_replace("b"), "a");
        assert_eq!((receiver.has_changed(), receiver.changed().await), (Ok(true), Ok(())));
        assert_eq!((receiver.has_changed(), *receiver.borrow()), (Ok(false), "b"));
        receiver.mark_changed();
        assert_eq!(receiver.changed().await, Ok(()));
        sender.send_modify(|value| *value = "c");
        drop(sender);
        assert_eq!(receiver.wait_for(|value| *value == "c").await.map(|value| *value), Ok("c"));
        assert_eq!((receiver.has_changed(), receiver.changed().await), (Err(Closed), Err(Closed)));
        assert_eq!(receiver.wait_for(|value| *value == "c").await.map(|value| *value), Ok("c"));
        assert_eq!(receiver.wait_for(|value| *value == "d").await.map(|value| *value), Err(Closed));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_wakes_whoever_waits() {
        let (sender, mut receiver) = channel(());
        let end = async {
            tokio::time::sleep(SECOND).await;
            drop(sender);
        };
        assert_eq!(tokio::join!(receiver.changed(), end).0, Err(Closed));
    }
}
