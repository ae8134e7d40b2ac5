//! The doors to work that is claimed.

use super::PartitionCoordinator;
use crate::queue::OpenQueue;

impl PartitionCoordinator {
    /// Opens the work queue at `root`, an absolute path in the store, creating what is missing of it. Await it, or set
    /// options first; see [`queue`](crate::queue).
    ///
    /// # Errors
    ///
    /// [`QueueError::Root`](crate::queue::QueueError::Root) if that is no path,
    /// [`QueueError::Standalone`](crate::queue::QueueError::Standalone) without a backend,
    /// [`QueueError::Service`](crate::queue::QueueError::Service) if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub fn queue(&self, root: impl Into<String>) -> OpenQueue {
        let backing = self.shared.backing.as_ref();
        OpenQueue::new(backing.map(|it| (it.leases.clone(), it.clock.clone())), root.into())
    }
}
