//! [`Ensemble`]: the state that all handles and sessions of an in-memory ensemble share.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use super::state::State;
use crate::{
    clock::{Clock, TokioClock},
    task::Tasks,
};

/// The state that all handles and sessions share.
pub(super) struct Ensemble {
    state: Mutex<State>,
    pub(super) refusing: watch::Sender<bool>,
    pub(super) clock: Arc<TokioClock>,
    /// One for each suspended session, which waits until it expires.
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

    /// The state. No code of a user runs under the lock, so a poisoned lock can still be used.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now_ms(&self) -> i64 {
        i64::try_from(self.clock.now().since_origin().as_millis()).unwrap_or(i64::MAX)
    }
}
