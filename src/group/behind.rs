//! [`Behind`]: what keeps the membership of a group handle.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::sync::mpsc;

use super::{driver::Command, view::View};
use crate::{session::access::Access, watch};

/// What keeps the membership of a group handle.
#[derive(Clone)]
pub(crate) enum Behind {
    /// No other member can join; the handles themselves keep the view.
    Alone(Arc<watch::Sender<Arc<View>>>),
    /// A task keeps it.
    Driver {
        commands: mpsc::UnboundedSender<Command>,
        access: Access,
        is_leaving: Arc<AtomicBool>,
        /// How long a guard lasts after its item was lost.
        max_drain: Duration,
    },
}
