//! [`Opened`]: what is open at the moment.

use std::sync::{Arc, Mutex, PoisonError, Weak};

/// The things of one kind that are open. It does not keep them open.
#[derive(Debug)]
pub(crate) struct Opened<T>(Mutex<Vec<Weak<T>>>);

impl<T> Default for Opened<T> {
    fn default() -> Self {
        Opened(Mutex::default())
    }
}

impl<T> Opened<T> {
    /// Adds one that was opened.
    pub(crate) fn add(&self, opened: &Arc<T>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.strong_count() > 0);
        all.push(Arc::downgrade(opened));
    }

    /// Those that are still open, in the order in which they were opened.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}
