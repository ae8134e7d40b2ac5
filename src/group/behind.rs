//! [`Behind`]: what is behind the handles of a group.

use std::sync::{Arc, atomic::AtomicBool};

use tokio::sync::mpsc;

use super::{driver::Command, view::View};
use crate::{session::access::Access, watch};

/// What is behind a handle.
#[derive(Clone)]
pub(crate) enum Behind {
    /// Nobody else can join; the handles themselves keep the view.
    Alone(Arc<watch::Sender<Arc<View>>>),
    Driver {
        commands: mpsc::Sender<Command>,
        access: Access,
        is_leaving: Arc<AtomicBool>,
    },
}
