//! Takes a lease: one transaction marks the thing as taken and creates the lock.

use std::sync::Arc;

use tracing::debug;

use super::{
    LOCK_VERSION, Lease,
    guard::{Around, LeaseGuard},
    registry::Leases,
};
use crate::{
    backend::{self, CreateMode, Done, Op, Stat, Znode, path::ZnodePath},
    session::{
        Live,
        commit::{Applied, Evidence, Unapplied, Verdict},
    },
    token::FencingToken,
};

/// The lock of a lease to take, and the operations that go with it.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) lock: ZnodePath,
    pub(crate) data: Vec<u8>,
    /// Further operations of the same transaction.
    pub(crate) with: Around,
    /// The thing, and its version after the transaction.
    pub(crate) subject: Option<(ZnodePath, i32)>,
}

/// How many operations a claim sends for the lock, which is created and set.
pub(crate) const LOCK_OPS: usize = 2;

impl Leases {
    /// Takes the lease of `request` in the session `live`. [`Unapplied::Overtaken`] if the lock exists, or if this
    /// process is about to create it.
    ///
    /// Not cancel safe: to be run by [`Leases::run`].
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        live: &Arc<Live>,
        request: Request,
    ) -> Result<(LeaseGuard, Applied), Unapplied> {
        let Request { lock, data, with, subject } = request;
        let registered = self.register(live.id(), &lock).ok_or(Unapplied::Overtaken)?;
        let at = with.before.len();
        let ops = with
            .with([Op::create(&lock, data.clone(), CreateMode::Ephemeral), Op::set(&lock, data, Some(0))]);
        let judge = |found: Option<&Znode>| match found {
            Some((_, stat)) if is_made_by(live, stat) => Verdict::Applied,
            Some(_) => Verdict::Overtaken,
            None => Verdict::NotApplied,
        };
        let evidence = Evidence::new(&lock, &judge).if_denied(Verdict::Overtaken);
        let applied = match live.commit_once(&ops, evidence).await {
            Err(Unapplied::Refused { index, error: backend::Error::NodeExists, .. }) if index == at => {
                return Err(Unapplied::Overtaken);
            }
            outcome => outcome?,
        };
        let stat = match &applied {
            Applied::Replied(done) => match done.get(at + 1) {
                Some(Done::Set(stat)) => *stat,
                other => return Err(Unapplied::Failed(unexpected(other))),
            },
            Applied::Seen(Some((_, stat))) => *stat,
            Applied::Seen(None) => return Err(Unapplied::Overtaken),
        };
        let validity = live.validity_of(&lock, LOCK_VERSION);
        let token = FencingToken::new(stat.czxid);
        debug!(%lock, %token, "taken");
        let guard = LeaseGuard::new(Lease::new(live.clone(), validity, lock, token, subject), registered);
        guard.confirmed().await?;
        Ok((guard, applied))
    }
}

pub(super) fn is_made_by(live: &Live, stat: &Stat) -> bool {
    stat.ephemeral_owner == Some(live.id())
}

fn unexpected(done: Option<&Done>) -> backend::Error {
    backend::Error::Other(format!("a set was answered with {done:?}"))
}
