//! The doors to work that is claimed: boards and queues of a coordinator.

use super::PartitionCoordinator;
use crate::{
    board::{BoardError, JobBoard},
    queue::OpenQueue,
};

impl PartitionCoordinator {
    /// Opens the job board at `path`, for instance `/taskflow/jobs`, which is created if need be. The board uses this
    /// coordinator's session, and its claims are owned by this [member](PartitionCoordinator::member_id).
    ///
    /// # Errors
    ///
    /// [`BoardError::NoBackend`] for a [standalone](PartitionCoordinator::standalone) coordinator,
    /// [`BoardError::Path`] for a path that can be that of no board, [`BoardError::Incompatible`] if the server is too
    /// old, [`BoardError::Service`] if it does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn job_board(&self, path: &str) -> Result<JobBoard, BoardError> {
        let backing = self.shared.backing.as_ref().ok_or(BoardError::NoBackend)?;
        JobBoard::open(backing.leases.clone(), backing.clock.clone(), path).await
    }

    /// Opens the work queue at `root`, an absolute path in the store, creating what is missing of it. Await it, or set
    /// options first; see [`queue`](crate::queue).
    ///
    /// # Errors
    ///
    /// [`QueueError::Root`](crate::queue::QueueError::Root) if that is no path,
    /// [`QueueError::NoBackend`](crate::queue::QueueError::NoBackend) for a
    /// [standalone](PartitionCoordinator::standalone) coordinator,
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
