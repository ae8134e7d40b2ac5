//! The only place that spawns: every task has an owner that cancels and joins it.

use std::{future::Future, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::Instrument;

/// The tasks of one owner. Dropping it cancels them without waiting; [`Tasks::shutdown`] also waits.
///
/// A task hears of its cancellation through [`Tasks::cancelled`] and tidies up in its own time. A task that
/// panics drops the channel ends it holds, which is how its handles learn of it (`Error::Closed`).
#[derive(Debug, Default)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    cancelled: CancellationToken,
}

impl Tasks {
    /// No tasks yet.
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

    /// A token that is cancelled when the owner shuts down or is dropped.
    pub(crate) fn cancelled(&self) -> CancellationToken {
        self.cancelled.clone()
    }

    /// Tells all tasks to stop, without waiting for them.
    pub(crate) fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Tells all tasks to stop and waits for them, for at most `patience`. Returns whether all have ended.
    pub(crate) async fn shutdown(&self, patience: Duration) -> bool {
        self.cancel();
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait()).await.is_ok()
    }
}

impl Drop for Tasks {
    fn drop(&mut self) {
        self.cancelled.cancel();
    }
}
