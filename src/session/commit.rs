//! Applies a transaction once, also when its reply is lost.
//!
//! A transaction whose reply was lost may have been applied or not. Whoever sends it names a znode that tells,
//! its [`Evidence`]: that is read until the store answers, and the transaction is sent again only if it was certainly
//! not applied. A request that is lost each time is sent a few times, with growing pauses, and then the caller gets an
//! error: a server closes the connection at a request that is too large for it.

use std::time::Duration;

use tokio::time::sleep;
use tracing::debug;

use super::{Live, requests::make_way};
use crate::backend::{self, CommitError, Done, Op, Znode, path::ZnodePath};

/// How often a request is sent whose reply is lost each time, and the first pause between two attempts; it doubles.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);

/// How often what keeps a znode from being created is cleared away for one transaction.
const WAYS: u32 = 16;

/// The znode that tells whether a transaction was applied, and what it looks like then.
pub(crate) struct Evidence<'a> {
    path: &'a ZnodePath,
    judge: &'a (dyn Fn(Option<&Znode>) -> Verdict + Sync),
}

/// What a znode says of a transaction whose reply was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Applied,
    /// It was not applied, and may be sent again.
    NotApplied,
    /// Something else has happened there: it was not applied and never will be.
    Overtaken,
}

impl<'a> Evidence<'a> {
    /// What `judge` makes of the znode at `path`.
    pub(crate) fn new(path: &'a ZnodePath, judge: &'a (dyn Fn(Option<&Znode>) -> Verdict + Sync)) -> Self {
        Evidence { path, judge }
    }
}

/// How it is known that a transaction was applied.
#[derive(Debug)]
pub(crate) enum Applied {
    /// The store has replied.
    Replied(Vec<Done>),
    /// The reply was lost. The evidence, as it was read afterwards.
    Seen(Option<Znode>),
}

impl Applied {
    /// What became of each operation, if the store has replied.
    pub(crate) fn done(self) -> Option<Vec<Done>> {
        match self {
            Applied::Replied(done) => Some(done),
            Applied::Seen(_) => None,
        }
    }

    /// What the operation with this index has created, if the store has replied.
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
    /// The store refused the operation with this index: nothing was applied.
    #[error("operation {index} was refused: {error}")]
    Refused { index: usize, error: backend::Error },
    /// The evidence shows that another process was there first: nothing was applied.
    #[error("another process was there first")]
    Overtaken,
    /// The request as a whole failed: nothing was applied.
    #[error(transparent)]
    Failed(backend::Error),
    /// What would have told the outcome is gone, most likely with the session.
    #[error("the outcome is unknown: {0}")]
    Unknown(backend::Error),
}

impl Live {
    /// Applies all of `ops` or none, once.
    ///
    /// Makes missing parents of what is created, and goes on to the next number where the one that comes next is taken.
    ///
    /// Not cancel safe: goes into [`Tasks::complete`](crate::task::Tasks::complete).
    pub(crate) async fn commit_once(&self, ops: &[Op], evidence: Evidence<'_>) -> Result<Applied, Unapplied> {
        let (mut attempts, mut ways) = (0, 0);
        loop {
            let error = match self.session.commit(ops.to_vec()).await {
                Ok(done) => return Ok(Applied::Replied(done)),
                Err(CommitError { index: Some(index), error }) => {
                    ways += 1;
                    if ways <= WAYS && make_way(self, &ops[index], &error, ways).await {
                        continue;
                    }
                    return Err(Unapplied::Refused { index, error });
                }
                Err(CommitError { index: None, error }) => error,
            };
            if !error.is_unknown() {
                return Err(Unapplied::Failed(error));
            }
            let found = self.read_back(evidence.path).await.map_err(Unapplied::Unknown)?;
            match (evidence.judge)(found.as_ref()) {
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

/// A request of fewer bytes is never the reason for which a server closes the connection.
const SMALL: usize = 64 * 1024;

/// Why a request was not applied that was lost each time.
fn given_up(attempts: u32, ops: &[Op]) -> backend::Error {
    let bytes = ops.iter().map(Op::encoded_len).sum();
    if bytes < SMALL {
        return backend::Error::Unreachable(format!("the connection broke at each of {attempts} attempts"));
    }
    backend::Error::Dropped { attempts, bytes }
}

#[cfg(test)]
mod tests;
