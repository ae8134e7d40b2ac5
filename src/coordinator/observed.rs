//! [`Observed`]: a coordinator as the HTTP service sees it.

use std::sync::{Arc, Weak};

use super::{PartitionCoordinator, shared::Shared, status::Status};

/// Shows how a coordinator is, without keeping it.
#[derive(Clone)]
pub(crate) struct Observed(Weak<Shared>);

impl Observed {
    /// `None` if the last handle was dropped.
    pub(crate) fn status(&self) -> Option<Status> {
        self.0.upgrade().map(|shared| shared.status())
    }

    /// What keeps the member from acting, without the rest of its status; `None` if the last handle was dropped.
    pub(crate) fn obstacles(&self) -> Option<Vec<String>> {
        self.0.upgrade().map(|shared| shared.obstacles())
    }

    pub(crate) fn record_metrics(&self) {
        self.0.upgrade().iter().for_each(|shared| shared.record_metrics());
    }
}

impl PartitionCoordinator {
    pub(crate) fn observed(&self) -> Observed {
        Observed(Arc::downgrade(&self.shared))
    }
}
