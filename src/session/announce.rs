//! [`Announcer`] and [`Announced`]: a latest value, of whose changes those that wait are told in the order in which they
//! began to wait.
//!
//! A watch channel alone wakes them in a random order: then one seed would not give one run.

use std::{pin::pin, sync::Arc};

use tokio::sync::{Notify, watch};

/// Announces values.
#[derive(Debug)]
pub(crate) struct Announcer<T> {
    /// `None` only while it is dropped.
    value: Option<watch::Sender<T>>,
    told: Arc<Notify>,
}

/// What was announced last.
#[derive(Debug, Clone)]
pub(crate) struct Announced<T> {
    value: watch::Receiver<T>,
    told: Arc<Notify>,
}

/// There will be no further value.
#[derive(Debug)]
pub(crate) struct Ended;

impl<T> Announcer<T> {
    pub(crate) fn new(value: T) -> (Self, Announced<T>) {
        let (sender, receiver) = watch::channel(value);
        let told = Arc::<Notify>::default();
        (Announcer { value: Some(sender), told: told.clone() }, Announced { value: receiver, told })
    }

    pub(crate) fn announce(&self, value: T) {
        if let Some(sender) = &self.value {
            sender.send_replace(value);
        }
        self.told.notify_waiters();
    }
}

impl<T> Drop for Announcer<T> {
    fn drop(&mut self) {
        self.value = None;
        self.told.notify_waiters();
    }
}

impl<T> Announced<T> {
    pub(crate) fn borrow(&self) -> watch::Ref<'_, T> {
        self.value.borrow()
    }

    /// The value, which counts as seen from now on.
    pub(crate) fn borrow_and_update(&mut self) -> watch::Ref<'_, T> {
        self.value.borrow_and_update()
    }

    /// Takes the value for one that was not seen.
    pub(crate) fn mark_changed(&mut self) {
        self.value.mark_changed();
    }

    /// Whether there is a value that was not seen.
    pub(crate) fn has_changed(&self) -> Result<bool, Ended> {
        self.value.has_changed().map_err(|_| Ended)
    }

    /// Waits for a value that was not seen.
    ///
    /// Cancel safe.
    pub(crate) async fn changed(&mut self) -> Result<(), Ended> {
        let told = self.told.clone();
        loop {
            let mut waiting = pin!(told.notified());
            waiting.as_mut().enable();
            if self.has_changed()? {
                return Ok(());
            }
            waiting.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::Mutex,
        task::{Context, Poll, Wake, Waker},
    };

    use super::*;

    struct Woken(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    #[test]
    fn those_that_wait_are_woken_in_the_order_in_which_they_began_to_wait() {
        let (announcer, announced) = Announcer::new(0);
        let mut receivers = vec![announced; 20];
        let mut waiting: Vec<_> = receivers.iter_mut().map(|it| Box::pin(it.changed())).collect();
        let woken = Arc::<Mutex<Vec<usize>>>::default();
        let mut poll = |at: usize| {
            let waker = Waker::from(Arc::new(Woken(at, woken.clone())));
            waiting[at].as_mut().poll(&mut Context::from_waker(&waker))
        };
        assert!((0..20).all(|at| poll(at).is_pending()));
        announcer.announce(1);
        assert!(woken.lock().unwrap().iter().copied().eq(0..20), "{woken:?}");
        assert!((0..20).all(|at| matches!(poll(at), Poll::Ready(Ok(())))));
    }

    #[tokio::test]
    async fn the_end_is_told_as_well() {
        let (announcer, mut announced) = Announcer::new(0);
        let (ended, ()) = tokio::join!(announced.changed(), async { drop(announcer) });
        assert!(ended.is_err());
        assert_eq!(*announced.borrow(), 0);
    }
}
