//! [`Lease`]: exclusive, temporary ownership of one thing, with a token that other stores can compare.
//!
//! A lease is an ephemeral znode, its *lock*, that one transaction creates together with whatever marks the thing
//! as taken. It comes back by itself when its holder dies, and it ends at the holder, by the holder's own clock,
//! before the server can give it to somebody else (the deadline of a [`Share`](crate::Share)).
//!
//! Three things keep a stale holder from doing harm. Every write of a holder goes through the session that owns
//! the lock, which the server refuses once that session is over. It names version 1 of the lock: ours are set in
//! the transaction that creates them, those of Python peers never. And it names the version of the thing as the
//! claim left it. (A version check on a re-created lock alone proves nothing: its version starts again.)

mod acquire;
mod guard;
mod registry;

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

pub(crate) use self::{
    acquire::{LOCK_OPS, Request},
    guard::{Around, LeaseGuard},
    registry::Leases,
};
pub use crate::token::FencingToken;
use crate::{
    backend::{self, CommitError, Done, Op, SessionId, path::ZnodePath},
    session::{Live, validity::Validity},
};

/// The lease has lapsed or was lost: another process may hold it now.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the lease on `{lock}` is lost: another process may hold it now")]
pub struct LeaseLost {
    /// The znode that was the lease.
    pub lock: String,
}

/// Why a write under a lease was not done, or may not have been; see [`Lease::commit`].
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LeaseError {
    /// The lease was lost before: nothing was done.
    #[error(transparent)]
    Lost(#[from] LeaseLost),
    /// The store refused an operation: nothing was done.
    #[error("operation {index} was refused: {error}")]
    Refused {
        /// Which of the operations, counted from 0.
        index: usize,
        /// Why.
        error: backend::Error,
    },
    /// The reply was lost: all was done, or nothing was. Read back what was written.
    #[error("the outcome is unknown: {0}")]
    OutcomeUnknown(backend::Error),
    /// The request as a whole failed: nothing was done.
    #[error(transparent)]
    Failed(backend::Error),
}

/// Exclusive, temporary ownership of one thing. Cheap to clone; all clones stand for the same lease, and none of
/// them keeps it: the claim or the delivery that it came from does.
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
        Lease { inner: Arc::new(Inner { live, validity, lock, token, subject }) }
    }

    /// Whether this process may act on it at this moment. A look at a clock, no I/O; it may come true again after a
    /// pause in the connection, if the session has survived it.
    pub fn is_held(&self) -> bool {
        self.inner.validity.is_valid()
    }

    /// How long it is certain to last if nothing more is heard from the store.
    pub fn remaining(&self) -> Duration {
        self.inner.validity.remaining()
    }

    /// What a downstream store compares.
    pub fn token(&self) -> FencingToken {
        self.inner.token
    }

    /// The znode that is the lease.
    pub fn path(&self) -> &ZnodePath {
        &self.inner.lock
    }

    /// Waits until the lease has lapsed or was lost, for instance in a `select!` beside the work.
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

    /// Does `work` as long as the lease is held: before each step of the future the lease is looked at.
    ///
    /// A step that blocks the thread cannot be interrupted, and what the last step has sent may still arrive:
    /// hand [`Lease::token`] to stores that can compare it.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`]: then `work` was dropped where it stood.
    ///
    /// # Cancel safety
    ///
    /// That of `work`.
    pub async fn while_held<F: Future>(&self, work: F) -> Result<F::Output, LeaseLost> {
        let mut work = pin!(work);
        let mut lost = pin!(self.lost());
        poll_fn(|context| {
            // A host that was suspended wakes the work first and the timer of the deadline later.
            if let Poll::Ready(lost) = lost.as_mut().poll(context) {
                return Poll::Ready(Err(lost));
            }
            if !self.is_held() {
                return Poll::Ready(Err(self.loss()));
            }
            work.as_mut().poll(context).map(Ok)
        })
        .await
    }

    /// Writes to the same store under this lease, all or nothing: the store applies `ops` only if this very lease holds
    /// at that moment. They are sent in the session that owns the lock.
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
    /// [`LeaseError::Lost`] if the lease was lost before, [`LeaseError::Refused`] if the store refused one of `ops`,
    /// [`LeaseError::OutcomeUnknown`] if the reply was lost.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it is done or not, as after a lost reply.
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

    /// The same condition as operations of a transaction on the same store, in whatever session: it is refused
    /// unless this very lease holds when the store applies it.
    pub fn checks(&self) -> Vec<Op> {
        let lock = (self.inner.lock.clone(), LOCK_VERSION);
        let checks = [Some(lock), self.inner.subject.clone()].into_iter().flatten();
        checks.map(|(path, version)| Op::Check { path, version: Some(version) }).collect()
    }

    /// The session that owns the lock.
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

    /// The thing that is leased, and its version as the claim has left it.
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
