//! Applies a transaction once, even if its reply is lost.
//!
//! A transaction whose reply was lost may have been applied or not. The caller names a znode that shows which, its
//! [`Evidence`]. This znode is read until the store answers. The transaction is sent again only if it was certainly not
//! applied. If the reply is lost each time, it is sent a few times, with growing pauses, and then the caller gets an
//! error: a server closes the connection when a request is too large for it.

use std::time::Duration;

use tokio::time::sleep;
use tracing::debug;

use super::{
    Live,
    read::Denied,
    requests::{judged_at, prepare_create},
};
use crate::backend::{self, CommitError, Done, Op, SMALL_REQUEST_BYTES, Znode, path::ZnodePath};

/// How often a request is sent if its reply is lost each time, and the first pause between two attempts, which doubles.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// How often [`prepare_create`] may help one transaction.
const PREPARATIONS: u32 = 16;

/// How many of them have no pause before the next attempt. More are necessary only if an operator removes the folder
/// again and again.
const QUICK_PREPARATIONS: u32 = 10;

/// The znode that shows whether a transaction was applied, and the function that reads this from it.
pub(crate) struct Evidence<'a> {
    path: &'a ZnodePath,
    judge: &'a (dyn Fn(Option<&Znode>) -> Verdict + Sync),
    /// What it shows if permission to the znode is denied; `None` if that shows nothing.
    denied: Option<Verdict>,
}

/// What the evidence shows of a transaction whose reply was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Applied,
    /// It was not applied, and may be sent again.
    NotApplied,
    /// Another process has changed the znode: the transaction was not applied and never will be.
    Overtaken,
}

impl<'a> Evidence<'a> {
    /// `judge` gets the znode at `path`, as it is read after the reply was lost.
    pub(crate) fn new(path: &'a ZnodePath, judge: &'a (dyn Fn(Option<&Znode>) -> Verdict + Sync)) -> Self {
        Evidence { path, judge, denied: None }
    }

    /// What it shows if permission to the znode is denied. Every session may read what it has created, so another
    /// process has created that znode. Without this, the outcome is unknown then.
    pub(crate) fn if_denied(self, verdict: Verdict) -> Self {
        Evidence { denied: Some(verdict), ..self }
    }
}

/// A transaction that was applied, and how this is known.
#[derive(Debug)]
pub(crate) enum Applied {
    /// The store has replied.
    Replied(Vec<Done>),
    /// The reply was lost. This is the evidence as it was read afterwards; `None` if there is none, or if permission to
    /// it is denied.
    Seen(Option<Znode>),
}

impl Applied {
    /// The result of each operation, if the store has replied.
    pub(crate) fn done(self) -> Option<Vec<Done>> {
        match self {
            Applied::Replied(done) => Some(done),
            Applied::Seen(_) => None,
        }
    }

    /// The znode that the operation with this index has created, if the store has replied.
    pub(crate) fn created(self, index: usize) -> Option<ZnodePath> {
        match self.done()?.into_iter().nth(index) {
            Some(Done::Created(path)) => Some(path),
            _ => None,
        }
    }
}

/// Why a transaction was not applied, or may not have been.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Unapplied {
    /// The store refused the operation with this index, on the znode at `path`: nothing was applied.
    #[error("operation {index} was refused: {error}")]
    Refused { index: usize, path: ZnodePath, error: backend::Error },
    /// The evidence shows that another process was faster: nothing was applied.
    #[error("another process was faster")]
    Overtaken,
    /// The request as a whole failed: nothing was applied.
    #[error(transparent)]
    Failed(backend::Error),
    /// The outcome is unknown: the evidence cannot be read any more, most likely because the session has ended.
    #[error("the outcome is unknown: {0}")]
    Unknown(backend::Error),
}

impl Unapplied {
    /// Whether the request was too large, or most likely was: nothing was applied.
    pub(crate) const fn is_too_large(&self) -> bool {
        matches!(self, Unapplied::Failed(error) if error.is_too_large())
    }
}

impl Live {
    /// Applies all of `ops` or none, once.
    ///
    /// Creates missing parents of created znodes, and skips sequence numbers that are taken.
    ///
    /// Not cancel safe: to be run by [`Tasks::complete`](crate::task::Tasks::complete).
    pub(crate) async fn commit_once(&self, ops: &[Op], evidence: Evidence<'_>) -> Result<Applied, Unapplied> {
        let (mut attempts, mut preparations) = (0, 0);
        loop {
            if preparations > QUICK_PREPARATIONS {
                sleep(PAUSE * (preparations - QUICK_PREPARATIONS)).await;
            }
            let error = match self.session.commit(ops.to_vec()).await {
                Ok(done) => return Ok(Applied::Replied(done)),
                Err(CommitError { index: Some(index), error }) => {
                    preparations += 1;
                    if preparations <= PREPARATIONS
                        && prepare_create(self, &ops[index], &error, preparations).await
                    {
                        continue;
                    }
                    let path = judged_at(&ops[index], &error);
                    return Err(Unapplied::Refused { index, path, error });
                }
                Err(CommitError { index: None, error }) => error,
            };
            if !error.is_unknown() {
                return Err(Unapplied::Failed(error));
            }
            let found = self.read_back(evidence.path).await.map_err(Unapplied::Unknown)?;
            let (verdict, found) = match found {
                Ok(found) => ((evidence.judge)(found.as_ref()), found),
                Err(Denied) => match evidence.denied {
                    Some(verdict) => (verdict, None),
                    None => return Err(Unapplied::Unknown(backend::Error::NotPermitted)),
                },
            };
            match verdict {
                Verdict::Applied => return Ok(Applied::Seen(found)),
                Verdict::Overtaken => return Err(Unapplied::Overtaken),
                Verdict::NotApplied => {}
            }
            attempts += 1;
            if attempts == ATTEMPTS {
                return Err(Unapplied::Failed(given_up(attempts, ops)));
            }
            let pause = PAUSE * 2_u32.pow(attempts - 1);
            debug!(evidence = %evidence.path, attempts, ?pause, "the request was lost; sending it again");
            sleep(pause).await;
        }
    }
}

/// The error for a request whose reply was lost at each attempt.
fn given_up(attempts: u32, ops: &[Op]) -> backend::Error {
    let bytes = ops.iter().map(Op::encoded_len).sum();
    if bytes < SMALL_REQUEST_BYTES {
        return backend::Error::Unreachable(format!("the connection broke at each of {attempts} attempts"));
    }
    backend::Error::Dropped { attempts, bytes }
}

#[cfg(test)]
mod tests;
