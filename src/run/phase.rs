//! [`Phase`]: how far the end of a piece of work has come, and [`Stopping`], which its task sees of it.

use std::{fmt, future::Future};

use crate::{future::BoxFuture, watch};

/// How far the end of a piece of work has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Phase {
    Run,
    /// It is asked to end.
    Stop,
    /// It is ended by force.
    End,
}

/// The future at whose end a runner stops; its output is nothing.
pub(super) fn until(shutdown: impl Future + Send + 'static) -> BoxFuture<'static, ()> {
    Box::pin(async move {
        shutdown.await;
    })
}

/// Tells a task when it is to stop. Cheap to clone.
#[derive(Clone)]
pub(super) struct Stopping(watch::Receiver<Phase>);

impl Stopping {
    pub(super) fn new(phases: &watch::Sender<Phase>) -> Self {
        Stopping(phases.subscribe())
    }

    /// Whether the task is asked to end.
    pub(super) fn has_come(&self) -> bool {
        *self.0.borrow() >= Phase::Stop || self.0.is_closed()
    }

    /// Waits until the task is asked to end.
    pub(super) async fn asked(mut self) {
        // Without its runner nothing waits for the task any more.
        let _ = self.0.wait_for(|phase| *phase >= Phase::Stop).await;
    }

    /// Waits until the task is ended by force.
    pub(super) async fn forced(mut self) {
        let _ = self.0.wait_for(|phase| *phase >= Phase::End).await;
    }
}

impl fmt::Debug for Stopping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stopping").field(&*self.0.borrow()).finish()
    }
}
