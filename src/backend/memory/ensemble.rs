//! [`Ensemble`]: what all handles and sessions of an in-memory ensemble share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::state::State;
use crate::{
    clock::{Clock, TokioClock},
    task::Tasks,
};

/// What all handles and sessions share.
pub(super) struct Ensemble {
    state: Mutex<State>,
    pub(super) refusing: watch::Sender<bool>,
    pub(super) clock: Arc<TokioClock>,
    /// One for each suspended session: the wait for its expiry.
    pub(super) tasks: Tasks,
}

impl Ensemble {
    /// An ensemble without znodes.
    pub(super) fn new() -> Self {
        Ensemble {
            state: Mutex::new(State::new()),
            refusing: watch::Sender::new(false),
            clock: Arc::new(TokioClock::new()),
            tasks: Tasks::new(),
        }
    }

    /// The state. No user code runs under the lock, so a poisoned one is as good as any.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.clock.now().since_origin().as_millis()).unwrap_or(i64::MAX)
    }
}
