//! [`Call`]: a waiting call that can be dropped at any of its polls.

use std::{
    future::poll_fn,
    pin::{Pin, pin},
    task::Poll,
    time::Duration,
};

use tokio::task::{JoinSet, yield_now};

use crate::setup::TIMEOUT;

/// When the call is polled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    /// When its waker is called.
    Woken,
    /// At each turn of the runtime, so that it is polled between any two steps of other tasks. Time stands still
    /// meanwhile.
    EachTurn,
}

/// A call, and the jobs or entries that it ends.
pub(crate) struct Call {
    work: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// Jobs or entries by name and token, results with token 0.
    pub(crate) ends: Vec<(String, u64)>,
}

impl Call {
    pub(crate) fn new(work: impl Future<Output = ()> + Send + 'static) -> Call {
        Call { work: Box::pin(work), ends: Vec::new() }
    }

    pub(crate) fn ending(ends: Vec<(String, u64)>, work: impl Future<Output = ()> + Send + 'static) -> Call {
        Call { work: Box::pin(work), ends }
    }

    /// Polls it at most so many times, then drops it. Returns whether it was ready.
    ///
    /// `idle` is the time that passes after the first poll if the next ones are at each turn.
    pub(crate) async fn poll_at_most(self, polls: usize, pace: Pace, idle: Duration) -> bool {
        let (mut work, mut left) = (self.work, polls);
        let mut idle = Box::pin(tokio::time::sleep(idle));
        let mut is_first = true;
        // In a task of its own, which takes turns with all others.
        let mut tasks = JoinSet::new();
        tasks.spawn(poll_fn(move |context| {
            if pace == Pace::EachTurn && !std::mem::take(&mut is_first) {
                std::task::ready!(idle.as_mut().poll(context));
            }
            left -= 1;
            match work.as_mut().poll(context) {
                Poll::Ready(()) => Poll::Ready(true),
                Poll::Pending if left == 0 => Poll::Ready(false),
                Poll::Pending => {
                    if pace == Pace::EachTurn && idle.as_mut().poll(context).is_ready() {
                        // Behind all others that yield; a plain wake would be before them.
                        let _ = pin!(yield_now()).poll(context);
                    }
                    Poll::Pending
                }
            }
        }));
        tokio::time::timeout(TIMEOUT, tasks.join_next()).await.expect("in time").unwrap().unwrap()
    }
}
