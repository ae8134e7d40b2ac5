//! Opens boards and queues of a coordinator.

use std::sync::Arc;

use super::{PartitionCoordinator, shared::Backing};
use crate::{board::OpenBoard, clock::Clock, lease::Leases, opened::Opened, queue::OpenQueue};

impl PartitionCoordinator {
    /// Opens the job board at `path`, for instance `/taskflow/jobs`, and creates it if it is missing. Await it. The
    /// board uses the session of this coordinator. The owner of its claims is this
    /// [member](PartitionCoordinator::member_id).
    ///
    /// # Errors
    ///
    /// [`BoardError::Path`](crate::board::BoardError::Path) if no board can have this path,
    /// [`BoardError::NoBackend`](crate::board::BoardError::NoBackend) for a
    /// [standalone](PartitionCoordinator::standalone) coordinator,
    /// [`BoardError::Incompatible`](crate::board::BoardError::Incompatible) if the server is too old,
    /// [`BoardError::Service`](crate::board::BoardError::Service) if it does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub fn job_board(&self, path: impl Into<String>) -> OpenBoard {
        OpenBoard::new(self.store(|backing| &backing.boards), path.into())
    }

    /// Opens the work queue at `path`, an absolute path in the store, and creates it if it is missing. Await it, or set
    /// options first; see [`queue`](crate::queue).
    ///
    /// # Errors
    ///
    /// [`QueueError::Path`](crate::queue::QueueError::Path) if no queue can have this path,
    /// [`QueueError::NoBackend`](crate::queue::QueueError::NoBackend) for a
    /// [standalone](PartitionCoordinator::standalone) coordinator,
    /// [`QueueError::Service`](crate::queue::QueueError::Service) if the store does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub fn queue(&self, path: impl Into<String>) -> OpenQueue {
        OpenQueue::new(self.store(|backing| &backing.queues), path.into())
    }

    /// What boards or queues are opened with; `opened` are those that are open.
    fn store<T>(&self, opened: impl Fn(&Backing) -> &Arc<Opened<T>>) -> Option<Store<T>> {
        let backing = self.shared.backing.as_ref()?;
        Some((backing.leases.clone(), backing.clock.clone(), opened(backing).clone()))
    }
}

type Store<T> = (Arc<Leases>, Arc<dyn Clock>, Arc<Opened<T>>);
