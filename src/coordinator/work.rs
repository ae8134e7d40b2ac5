//! How boards and queues of a coordinator are opened.

use std::sync::Arc;

use super::PartitionCoordinator;
use crate::{board::OpenBoard, clock::Clock, lease::Leases, queue::OpenQueue};

impl PartitionCoordinator {
    /// Opens the job board at `path`, for instance `/taskflow/jobs`, which is created if it is missing. Await it. The
    /// board uses this coordinator's session, and its claims are owned by this
    /// [member](PartitionCoordinator::member_id).
    ///
    /// # Errors
    ///
    /// [`BoardError::Path`](crate::board::BoardError::Path) for a path that can be that of no board,
    /// [`BoardError::NoBackend`](crate::board::BoardError::NoBackend) for a
    /// [standalone](PartitionCoordinator::standalone) coordinator,
    /// [`BoardError::Incompatible`](crate::board::BoardError::Incompatible) if the server is too old,
    /// [`BoardError::Service`](crate::board::BoardError::Service) if it does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub fn job_board(&self, path: impl Into<String>) -> OpenBoard {
        OpenBoard::new(self.store(), path.into())
    }

    /// Opens the work queue at `path`, an absolute path in the store, and creates what is missing of it. Await it, or
    /// set options first; see [`queue`](crate::queue).
    ///
    /// # Errors
    ///
    /// [`QueueError::Path`](crate::queue::QueueError::Path) for a path that can be that of no queue,
    /// [`QueueError::NoBackend`](crate::queue::QueueError::NoBackend) for a
    /// [standalone](PartitionCoordinator::standalone) coordinator,
    /// [`QueueError::Service`](crate::queue::QueueError::Service) if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub fn queue(&self, path: impl Into<String>) -> OpenQueue {
        OpenQueue::new(self.store(), path.into())
    }

    fn store(&self) -> Option<(Arc<Leases>, Arc<dyn Clock>)> {
        let backing = self.shared.backing.as_ref()?;
        Some((backing.leases.clone(), backing.clock.clone()))
    }
}
