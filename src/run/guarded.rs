//! [`Guarded`]: the guard of a key, and the report that its task has ended.

#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::mpsc;

use super::{failure::Failure, states::Ended, table::Id};
use crate::group::held::Held;

/// What a task of `run_each` and its [`KeyTask`](super::KeyTask)s share. The task has ended when the last of them is gone:
/// work that has a `KeyTask` goes on after the future of the task was dropped.
pub(super) struct Guarded<K> {
    // Dropped first: only then may another task be started for the key.
    pub(super) held: Held<Arc<K>>,
    end: End,
}

/// Reports the end of a task, however it comes.
struct End {
    id: Id,
    ends: mpsc::UnboundedSender<(Id, Ended)>,
    ended: Mutex<Option<Ended>>,
}

impl<K> Guarded<K> {
    pub(super) fn new(held: Held<Arc<K>>, id: Id, ends: mpsc::UnboundedSender<(Id, Ended)>) -> Arc<Self> {
        Arc::new(Guarded { held, end: End { id, ends, ended: Mutex::default() } })
    }

    /// How the future of the task has ended.
    pub(super) fn has_ended(&self, ended: Ended) {
        *self.end.ended.lock().unwrap_or_else(PoisonError::into_inner) = Some(ended);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        let ended = ended.unwrap_or_else(|| Ended::Failed(Failure::panicked("when its future was dropped")));
        // Without a driver, no one asks.
        let _ = self.ends.send((self.id, ended));
    }
}
