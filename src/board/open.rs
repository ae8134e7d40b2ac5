//! [`OpenBoard`]: opens a board.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
};

use tracing::info;

use super::{
    JobBoard,
    driver::Driver,
    entity::Registrar,
    error::BoardError,
    layout::Layout,
    shared::{Handle, Shared},
};
use crate::{
    clock::Clock,
    lease::Leases,
    session::{
        follow::{Sessions, follow},
        listing::Lister,
    },
};

/// Opens a board when it is awaited. From [`PartitionCoordinator::job_board`](crate::PartitionCoordinator::job_board).
///
/// # Errors
///
/// [`BoardError::Path`] for a path that cannot be that of a board, [`BoardError::NoBackend`] for a coordinator without
/// a backend, [`BoardError::Incompatible`] for a server that is too old, [`BoardError::Closed`] if the coordinator is
/// closed, [`BoardError::Service`] if the backend does not answer.
///
/// # Cancel safety
///
/// Safe: the folders of the board may have been created.
#[must_use = "a board is not opened until it is awaited"]
pub struct OpenBoard {
    backing: Option<(Arc<Leases>, Arc<dyn Clock>)>,
    path: String,
}

impl OpenBoard {
    pub(crate) fn new(backing: Option<(Arc<Leases>, Arc<dyn Clock>)>, path: String) -> Self {
        OpenBoard { backing, path }
    }

    async fn run(self) -> Result<JobBoard, BoardError> {
        let OpenBoard { backing, path } = self;
        let layout = Layout::new(&path).map_err(|reason| BoardError::Path { path, reason })?;
        let (leases, clock) = backing.ok_or(BoardError::NoBackend)?;
        let shared = Shared::new(layout, leases.clone(), clock);
        let board = JobBoard { handle: Handle::new(shared.clone()) };
        shared.prepare().await?;
        let (tasks, access) = (leases.tasks(), leases.access().clone());
        let lister = Lister { listing: shared.listing.clone(), contents: Driver::new(shared.clone()) };
        tasks.spawn("job board", follow(Sessions::new(&access), lister, shared.closed.clone()));
        tasks.spawn("entities", {
            let (shared, registrar) = (shared.clone(), Registrar(shared.entities.clone()));
            async move {
                follow(Sessions::new(&access), registrar, shared.closed.clone()).await;
                // The last handle of the board was dropped, or it was closed.
                shared.entities.unregister(&access).await;
                shared.receipts.clear(&access).await;
            }
        });
        shared.refresh().await?;
        info!(board = %shared.layout.board, jobs = shared.cache().len(), "job board opened");
        Ok(board)
    }
}

impl IntoFuture for OpenBoard {
    type Output = Result<JobBoard, BoardError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for OpenBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenBoard").field("path", &self.path).finish_non_exhaustive()
    }
}
