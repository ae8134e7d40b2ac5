//! [`Tasks`]: the only place that spawns tasks. Every task has an owner that cancels and joins it.

use std::{
    any::Any,
    future::{Future, poll_fn},
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::{Condvar, Mutex, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::sync::oneshot;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// The tasks of one owner. Dropping it cancels them without waiting; [`Tasks::shutdown`] also waits.
///
/// A task learns of its cancellation through [`Tasks::cancelled`]. It then cleans up and ends. A task that panics drops
/// its ends of channels. Its handles see the closed channels and report `Error::Closed`.
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    cancelled: CancellationToken,
}

impl Tasks {
    pub(crate) fn new() -> Self {
        Tasks::default()
    }

    /// Runs `future` on the current runtime, under a span that names the task.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    #[allow(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub(crate) fn spawn(&self, name: &'static str, future: impl Future<Output = ()> + Send + 'static) {
        let span = tracing::debug_span!("task", name);
        tokio::spawn(self.tracker.track_future(future).instrument(span));
    }

    /// Runs `work` to its end, whether or not the caller waits for it. If no caller waits, the result is dropped.
    /// Returns `None` if the owner shuts down, or the work has panicked.
    ///
    /// # Cancel safety
    ///
    /// Safe: if it is cancelled, the work goes on in the background.
    pub(crate) async fn complete<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Option<T> {
        let cancelled = self.cancelled();
        if cancelled.is_cancelled() {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        // It belongs to the span of the caller, which waits for it.
        let work = work.in_current_span();
        self.spawn(name, async move {
            if let Some(found) = cancelled.run_until_cancelled(work).await {
                // Without a receiver the result is dropped, and a lease in it is given back.
                let _ = sender.send(found);
            }
        });
        receiver.await.ok()
    }

    /// A token that is cancelled when the owner shuts down or is dropped.
    pub(crate) fn cancelled(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    /// Cancels all tasks, without waiting for them.
    pub(crate) fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Cancels all tasks and waits for them, at most for `timeout`. Returns whether all have ended.
    pub(crate) async fn shutdown(&self, timeout: Duration) -> bool {
        self.cancel();
        self.tracker.close();
        tokio::time::timeout(timeout, self.tracker.wait()).await.is_ok()
    }
}

/// Does work that takes long without a pause on a thread of its own, so that the runtime can serve others. At most as much
/// at a time as there are processors: if many members of one process have work at once, those that wait in their order are
/// cheaper than threads that take the processors from the runtime.
///
/// # Panics
///
/// If the work panics.
pub(crate) async fn off_runtime<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let in_turn = move || {
        let _turn = Turn::wait();
        work()
    };
    match tokio::task::spawn_blocking(in_turn).await {
        Ok(done) => done,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime ends, and this task with it.
        Err(_) => std::future::pending().await,
    }
}

/// The right to do work off the runtime.
struct Turn;

static TURNS: Mutex<usize> = Mutex::new(0);
static TURN_ENDED: Condvar = Condvar::new();

impl Turn {
    fn wait() -> Turn {
        let most = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
        let turns = TURNS.lock().unwrap_or_else(PoisonError::into_inner);
        let turns = TURN_ENDED.wait_while(turns, |turns| *turns >= most);
        *turns.unwrap_or_else(PoisonError::into_inner) += 1;
        Turn
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        *TURNS.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        TURN_ENDED.notify_one();
    }
}

/// The output of `work`; if it panics, the message of the panic.
///
/// Cancel safe if `work` is.
pub(crate) async fn caught<F: Future>(work: F) -> Result<F::Output, String> {
    let mut work = pin!(work);
    poll_fn(|context| {
        // It is not polled again after a panic.
        match caught_now(|| work.as_mut().poll(context)) {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(panic)),
        }
    })
    .await
}

/// The result of `work`; if it panics, the message of the panic.
pub(crate) fn caught_now<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.cancelled.cancel();
    }
}
