//! A suite that checks the guarantees of [`backend`](crate::backend) on any backend.
//!
//! The name of each case is a sentence about behaviour. The suite needs a [`Connector`] only, so it cannot cut
//! connections or let a session expire: the tests of the backend itself have to cover these cases.

mod permissions;
mod place;
mod sessions;
mod transactions;
mod watches;
mod znodes;

use std::sync::Arc;

pub use self::permissions::permissions;
use self::place::Suite;
use super::{create_with_ancestors, delete_subtree};
use crate::backend::{Connector, path::ZnodePath};

/// Runs all cases below `root`, which is created if it is missing, and removes what they created.
///
/// # Panics
///
/// At the first guarantee that `connector` does not keep, with the name of the case.
pub async fn run(connector: Arc<dyn Connector>, root: &ZnodePath) {
    let suite = Suite { connector, root: root.clone() };
    let session = suite.open().await;
    create_with_ancestors(&*session, root).await;
    sessions::all(&suite).await;
    znodes::all(&suite).await;
    transactions::all(&suite).await;
    watches::all(&suite).await;
    delete_subtree(&*session, root).await;
    session.close().await;
}
