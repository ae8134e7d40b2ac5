//! [`Lease`]: exclusive, temporary ownership of one thing, with a token that other stores can compare.
//!
//! A lease is an ephemeral znode, its *lock*. One transaction creates the lock and marks the thing as taken. If the
//! holder dies, the server deletes the lock with the session of the holder, and the thing can be taken again. At the
//! holder the lease ends earlier: by the holder's own clock, before the server can give the thing to another process.
//! This is the same deadline as that of a [`Share`](crate::Share).
//!
//! Three conditions protect the thing from a stale holder:
//!
//! - Each write of a holder goes through the session that owns the lock. The server refuses it once that session has
//!   ended.
//! - It checks that the lock has version 1. This library sets a lock in the transaction that creates it; Python peers
//!   never set theirs. (A check of the version alone is not enough: a new lock starts again at version 0.)
//! - It checks that the thing has the version that the claim gave it.

mod acquire;
mod given_back;
mod guard;
mod registry;

use std::{
    fmt,
    future::Future,
    sync::{Arc, OnceLock},
    time::Duration,
};

use tracing::{Instrument as _, Span};

pub(crate) use self::{
    acquire::{LOCK_OPS, Request},
    given_back::{GivenBack, kept},
    guard::{Around, LeaseGuard, Ways},
    registry::Leases,
};
pub use crate::token::FencingToken;
use crate::{
    backend::{self, CommitError, Done, Op, SessionId, path::ZnodePath},
    session::{
        Live,
        validity::{Validity, while_valid},
    },
};

/// The lease has lapsed or was lost: another process may hold it now.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the lease on `{lock}` is lost: another process may hold it now")]
pub struct LeaseLost {
    /// The path of the lock.
    pub lock: String,
}

/// Why a write under a lease was not done, or may not have been done; see [`Lease::commit`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The lease had ended before: nothing was done.
    #[error(transparent)]
    Lost(#[from] LeaseLost),
    /// The store refused an operation: nothing was done.
    #[error("operation {index} was refused: {error}")]
    Refused {
        /// The index of the operation, counted from 0.
        index: usize,
        /// Why it was refused.
        error: backend::Error,
    },
    /// The reply was lost: all operations were done, or none was. Read the znodes to find out.
    #[error("the outcome is unknown: {0}")]
    OutcomeUnknown(backend::Error),
    /// The request as a whole failed: nothing was done.
    #[error(transparent)]
    Failed(backend::Error),
}

/// Exclusive, temporary ownership of one thing. Cheap to clone; all clones are the same lease.
///
/// A clone does not keep the lease: it ends with the claim or the delivery that it came from.
#[derive(Clone)]
pub struct Lease {
    inner: Arc<Inner>,
}

struct Inner {
    live: Arc<Live>,
    validity: Validity,
    lock: ZnodePath,
    token: FencingToken,
    subject: Option<(ZnodePath, i32)>,
    span: OnceLock<Span>,
}

/// The version of every lock of ours: created, then set in the same transaction.
const LOCK_VERSION: i32 = 1;

impl Lease {
    fn new(
        live: Arc<Live>,
        validity: Validity,
        lock: ZnodePath,
        token: FencingToken,
        subject: Option<(ZnodePath, i32)>,
    ) -> Self {
        Lease { inner: Arc::new(Inner { live, validity, lock, token, subject, span: OnceLock::new() }) }
    }

    /// Whether this process may act on the thing at this moment. Compares the deadline with the clock, no I/O. After an
    /// outage it may become true again, if the session has survived.
    pub fn is_held(&self) -> bool {
        self.inner.validity.is_valid()
    }

    /// For how long the lease certainly lasts if no further heartbeat is confirmed; zero once it is lost.
    pub fn remaining(&self) -> Duration {
        self.inner.validity.remaining()
    }

    /// The token of the lease. Pass it to the stores that the work writes to, so that they can refuse a stale holder.
    pub fn token(&self) -> FencingToken {
        self.inner.token
    }

    /// The path of the lock.
    pub fn path(&self) -> &ZnodePath {
        &self.inner.lock
    }

    /// Waits until the lease has lapsed or was lost. To be used in a `select!` with the work, for instance.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn lost(&self) -> LeaseLost {
        while self.is_held() {
            self.inner.validity.changed(true).await;
        }
        self.loss()
    }

    fn loss(&self) -> LeaseLost {
        LeaseLost { lock: self.inner.lock.to_string() }
    }

    /// Runs `work` as long as the lease is held: checks the lease before each poll of the future. Returns its output. The
    /// work runs in the [span](Lease::span) of the lease.
    ///
    /// A poll that blocks the thread cannot be interrupted, and a request of the last poll may still arrive: pass
    /// [`Lease::token`] to stores that can compare it.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`] if the lease has ended before `work` was done. `work` was dropped in that case.
    ///
    /// # Cancel safety
    ///
    /// As that of `work`.
    pub async fn while_held<F: Future>(&self, work: F) -> Result<F::Output, LeaseLost> {
        let check = || if self.is_held() { Ok(()) } else { Err(self.loss()) };
        while_valid(work.instrument(self.span()), self.lost(), check).await
    }

    /// Writes to the same store under this lease, all of `ops` or none. The store applies them only if this lease is
    /// held at that moment. They are sent in the session that owns the lock. Returns one [`Done`] for each of `ops`.
    ///
    /// ```
    /// # use apportion::{Config, PartitionCoordinator, backend::{CreateMode, Memory, Op, path::ZnodePath}};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let coordinator = PartitionCoordinator::connect(Config::for_backend(Memory::new())).await?;
    /// # let board = coordinator.job_board("/jobs").await?;
    /// # board.post("resize").await?;
    /// let claim = board.claim_next().await?;
    /// let progress = ZnodePath::parse("/progress")?;
    /// claim.lease().commit(vec![Op::create(&progress, "half", CreateMode::Persistent)]).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`LeaseError::Lost`] if the lease had ended before, [`LeaseError::Refused`] if the store refused one of `ops`,
    /// [`LeaseError::OutcomeUnknown`] if the reply was lost, [`LeaseError::Failed`] if the whole request was refused,
    /// for instance because it is too large.
    ///
    /// # Cancel safety
    ///
    /// If it is cancelled, the outcome is unknown, as after a lost reply.
    pub async fn commit(&self, ops: Vec<Op>) -> Result<Vec<Done>, LeaseError> {
        if !self.is_held() {
            return Err(self.loss().into());
        }
        let mut all = self.checks();
        let checks = all.len();
        all.extend(ops);
        match self.live().session.commit(all).await {
            Ok(mut done) => Ok(done.split_off(checks)),
            Err(CommitError { index: Some(index), error }) => match index.checked_sub(checks) {
                Some(index) => Err(LeaseError::Refused { index, error }),
                None => Err(self.loss().into()),
            },
            Err(CommitError { index: None, error }) if error.is_unknown() => {
                Err(LeaseError::OutcomeUnknown(error))
            }
            Err(CommitError { index: None, error }) => Err(LeaseError::Failed(error)),
        }
    }

    /// The tracing span of the claim or the delivery, with the ids of what was claimed: `claim` or `delivery`. It ends with
    /// the last clone of the lease. Its parent is the span in which the caller has claimed.
    pub fn span(&self) -> Span {
        self.inner.span.get().cloned().unwrap_or_else(Span::none)
    }

    /// Sets the span, once.
    pub(crate) fn set_span(&self, span: Span) {
        let _ = self.inner.span.set(span);
    }

    /// The same condition as operations for a transaction of your own on the same store, in any session. The store
    /// refuses that transaction unless this lease is held when it applies it.
    pub fn checks(&self) -> Vec<Op> {
        let lock = (self.inner.lock.clone(), LOCK_VERSION);
        let checks = [Some(lock), self.inner.subject.clone()].into_iter().flatten();
        checks.map(|(path, version)| Op::Check { path, version: Some(version) }).collect()
    }

    /// The id of the session that owns the lock.
    pub fn session_id(&self) -> SessionId {
        self.inner.live.id()
    }

    /// The session that owns the lock, for writes in it.
    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.inner.live
    }

    fn validity(&self) -> &Validity {
        &self.inner.validity
    }

    /// The thing that is leased, and the version that the claim gave it.
    fn subject(&self) -> Option<&(ZnodePath, i32)> {
        self.inner.subject.as_ref()
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("lock", &self.inner.lock)
            .field("token", &self.token())
            .field("is_held", &self.is_held())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
