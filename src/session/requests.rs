//! Helpers that take more than one request of a session.

use std::{future::Future, time::Duration};

use tokio::time::timeout;
use tracing::warn;

use super::Live;
use crate::{
    backend::{self, CommitError, CreateMode, Op, Session, path::ZnodePath},
    backoff::Backoff,
    error::Error,
};

/// The error of a request, and the znode where it happened if that is not the one that the caller has named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) error: backend::Error,
    at: Option<ZnodePath>,
}

impl Failure {
    pub(crate) fn at(path: &ZnodePath) -> impl FnOnce(backend::Error) -> Failure + '_ {
        move |error| Failure { error, at: Some(path.clone()) }
    }

    /// The error for the caller, who has named `path`.
    pub(crate) fn into_error(self, path: &ZnodePath) -> Error {
        Error::from_backend(self.error, self.at.as_ref().unwrap_or(path))
    }
}

impl From<backend::Error> for Failure {
    fn from(error: backend::Error) -> Self {
        Failure { error, at: None }
    }
}

/// Makes sure that the persistent znode `path` and its ancestors exist.
pub(crate) async fn ensure(session: &dyn Session, path: &ZnodePath) -> Result<(), Failure> {
    for at in path.with_ancestors() {
        // Read first: where it exists, no permission to create it is needed.
        if session.get(&at).await.map_err(Failure::at(&at))?.is_some() {
            if at == *path {
                warn_if_open(session, path).await;
            }
            continue;
        }
        match session.commit(vec![Op::create(&at, [], CreateMode::Persistent)]).await {
            Ok(_) | Err(CommitError { error: backend::Error::NodeExists, .. }) => {}
            Err(CommitError { error, .. }) => {
                let create = Op::create(&at, [], CreateMode::Persistent);
                return Err(Failure::at(&judged_at(&create, &error))(error));
            }
        }
    }
    Ok(())
}

/// The znode that a refusal of `op` is about: to create and delete, permission is that of the parent.
pub(crate) fn judged_at(op: &Op, error: &backend::Error) -> ZnodePath {
    let parent = match (op, error) {
        (Op::Create { .. } | Op::Delete { .. }, backend::Error::NotPermitted) => op.path().parent(),
        _ => None,
    };
    parent.unwrap_or_else(|| op.path().clone())
}

/// Warns of a folder that other clients can change although this one has credentials: it was created without them.
pub(crate) async fn warn_if_open(session: &dyn Session, folder: &ZnodePath) {
    if session.is_open_to_others(folder).await == Ok(true) {
        warn!(
            znode = %folder,
            "every client can change this znode, although this one has credentials: set its access control list"
        );
    }
}

/// How many sequence numbers are skipped at once, at most.
const SKIPPED_AT_ONCE: u32 = 512;

/// Makes the create `op` possible after a refusal; returns whether to try it again. If the folder is gone, an operator
/// has removed it, and it is created. If the next sequence number is taken, some numbers are skipped: in a tree that
/// was restored from a backup the numbers start again, and every process would be refused. `attempt` counts from 1.
/// Each attempt skips twice as many numbers as the one before.
pub(super) async fn prepare_create(live: &Live, op: &Op, refusal: &backend::Error, attempt: u32) -> bool {
    let Op::Create { path, mode, .. } = op else { return false };
    let Some(folder) = path.parent() else { return false };
    let made = match refusal {
        backend::Error::NoNode => ensure(&*live.session, &folder).await.map_err(|failure| failure.error),
        backend::Error::NodeExists if mode.is_sequential() => {
            let count = 2_u32.saturating_pow(attempt - 1).min(SKIPPED_AT_ONCE);
            skip_numbers(live, &folder, count).await
        }
        _ => return false,
    };
    made.map_or_else(|error| error.is_unknown(), |()| true)
}

/// Skips the next `count` sequence numbers in a folder.
async fn skip_numbers(live: &Live, folder: &ZnodePath, count: u32) -> Result<(), backend::Error> {
    let scratch = folder.join(&live.random.uuid().simple().to_string()).expect("a uuid is a name");
    let skip = [Op::create(&scratch, [], CreateMode::Persistent), Op::delete(&scratch, None)];
    let ops = (0..count).flat_map(|_| skip.clone()).collect();
    live.session.commit(ops).await.map(drop).map_err(|failed| failed.error)
}

/// How many znodes are deleted in one transaction.
pub(crate) const DELETED_AT_ONCE: usize = 100;

/// Deletes znodes of one folder, many in one transaction. Skips those that are gone already or have children.
///
/// # Errors
///
/// [`backend::Error::NotPermitted`] as soon as one may not be deleted: that permission is the folder's.
pub(crate) async fn delete_each(session: &dyn Session, paths: Vec<ZnodePath>) -> Result<(), backend::Error> {
    for paths in paths.chunks(DELETED_AT_ONCE) {
        let mut paths = paths.to_vec();
        while !paths.is_empty() {
            match session.commit(paths.iter().map(|path| Op::delete(path, None)).collect()).await {
                Ok(_) => break,
                Err(CommitError { error: error @ backend::Error::NotPermitted, .. }) => return Err(error),
                Err(CommitError { index: Some(index), .. }) => drop(paths.remove(index)),
                Err(CommitError { index: None, error }) => return Err(error),
            }
        }
    }
    Ok(())
}

/// The pauses between the attempts of a request that the store does not answer.
pub(super) fn pauses() -> Backoff {
    Backoff::new(Duration::from_millis(50), Duration::from_millis(500))
}

/// Repeats `work` while the store does not answer, until the session ends: for what has to be removed before a session
/// that goes on.
pub(crate) async fn persist<F>(live: &Live, mut work: impl FnMut() -> F) -> Result<(), backend::Error>
where
    F: Future<Output = Result<(), backend::Error>>,
{
    let mut backoff = pauses();
    loop {
        match work().await {
            Err(error) if is_unanswered(&error) && !live.is_over() => {
                let _ = timeout(backoff.next_delay(live.random.unit()), live.ended()).await;
            }
            outcome => return outcome,
        }
    }
}

fn is_unanswered(error: &backend::Error) -> bool {
    error.is_unknown() || matches!(error, backend::Error::Unreachable(_))
}
