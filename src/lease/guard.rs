//! [`LeaseGuard`]: a lease that ends once: with the operations of its user, or given back when the guard is dropped.

use std::{fmt, time::Duration};

use tokio::time::timeout;
use tracing::{debug, warn};

use super::{LOCK_VERSION, Lease, registry::Registered};
use crate::{
    backend::{self, Op, Znode, path::ZnodePath},
    backoff::Backoff,
    error::Error,
    session::{
        commit::{Applied, Evidence, Unapplied, Verdict},
        read::Denied,
    },
    token::FencingToken,
};

/// The operations of a transaction before and after those on the lock.
#[derive(Debug, Clone, Default)]
pub(crate) struct Around {
    pub(crate) before: Vec<Op>,
    pub(crate) after: Vec<Op>,
}

impl Around {
    pub(super) fn with(&self, on_lock: impl IntoIterator<Item = Op>) -> Vec<Op> {
        self.before.iter().cloned().chain(on_lock).chain(self.after.iter().cloned()).collect()
    }
}

/// How a lease is ended: the operations, and others for when the store does not take these, the best ones first. Each asks
/// for less than those before it: for fewer bytes, or for fewer znodes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Ways {
    first: Around,
    others: Vec<Around>,
}

impl From<Around> for Ways {
    fn from(first: Around) -> Self {
        Ways { first, others: Vec::new() }
    }
}

impl Ways {
    /// The best ones.
    pub(crate) fn first(&self) -> &Around {
        &self.first
    }

    /// These operations if the ones before are too large, or are refused at a znode that these do not have.
    pub(crate) fn or(mut self, other: Around) -> Self {
        self.others.push(other);
        self
    }
}

impl Around {
    /// The operation with this index in the transaction, if it is not the one on the lock.
    fn op(&self, index: usize) -> Option<&Op> {
        match index.checked_sub(self.before.len()) {
            None => self.before.get(index),
            Some(index) => self.after.get(index.checked_sub(1)?),
        }
    }

    /// Whether `other` may be applied although these operations were not.
    fn is_worth(&self, other: &Around, error: &Unapplied) -> bool {
        let Unapplied::Refused { index, .. } = error else { return error.is_too_large() };
        let refused = self.op(*index).map(Op::path);
        let mut theirs = other.before.iter().chain(&other.after).map(Op::path);
        refused.is_some_and(|refused| theirs.all(|path| path != refused))
    }
}

/// A lease that ends once. If the guard is dropped, the lease is given back in the background.
pub(crate) struct LeaseGuard {
    lease: Lease,
    /// Further operations when the guard is dropped, beside the deletion of the lock.
    back: Ways,
    /// `None` once it has ended.
    registered: Option<Registered>,
}

impl LeaseGuard {
    pub(super) fn new(lease: Lease, registered: Registered) -> Self {
        LeaseGuard { lease, back: Ways::default(), registered: Some(registered) }
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// Sets further operations for when the guard is dropped, beside the deletion of the lock.
    pub(crate) fn set_back(&mut self, back: impl Into<Ways>) {
        self.back = back.into();
    }

    /// From now on each heartbeat also checks the thing, so that the lease ends when another process changes it. This
    /// is for things that the holder does not change. If an operator deletes a lock, another process can create one
    /// with the same version, but the version of the thing has changed by then.
    pub(crate) fn check_subject(&self) {
        if let Some((path, version)) = self.lease.subject() {
            self.lease.live().check_as_well(self.lease.validity(), path, *version);
        }
    }

    /// Deletes the lock between the operations before and after it, all or nothing, in the first of the `ways` that the
    /// store takes. `evidence` is a znode that exists before the transaction and not after it. Without one, the end of the
    /// session counts as success.
    ///
    /// If it fails, the lease is given back. [`Unapplied::Overtaken`] if the lease had ended before.
    ///
    /// # Cancel safety
    ///
    /// If it is cancelled, it goes on in the background.
    pub(crate) async fn finish(
        self,
        ways: impl Into<Ways>,
        evidence: Option<ZnodePath>,
    ) -> Result<Result<Applied, Unapplied>, Error> {
        let ways = ways.into();
        let leases = self.registered.as_ref().expect("a guard ends once, by value").leases().clone();
        // First: once the store has deleted the lock, another process may take over.
        self.lease.validity().end();
        leases
            .run("finish", async move {
                let mut guard = self;
                // Before anything is sent: then it is certain that nothing was done.
                if guard.lease.live().is_over() {
                    return Err(Unapplied::Overtaken);
                }
                let finished = guard.lease.end(&ways, evidence.as_ref()).await;
                if matches!(finished, Ok(_) | Err(Unapplied::Unknown(backend::Error::Lost(_)))) {
                    guard.registered = None;
                }
                finished
            })
            .await
    }

    /// Waits until the lease is valid: after an outage that the session has survived, it becomes valid with the next
    /// heartbeat only. Otherwise the caller would lose the lease at once, give it back, and take it again, until that
    /// heartbeat.
    pub(super) async fn confirmed(&self) -> Result<(), Unapplied> {
        let (live, validity) = (self.lease.live(), self.lease.validity());
        while !validity.is_valid() {
            if validity.has_ended() {
                let read = live.read_back(self.lease.path()).await;
                return Err(read.map_or_else(Unapplied::Unknown, |_| Unapplied::Overtaken));
            }
            validity.changed(false).await;
        }
        Ok(())
    }
}

impl Drop for LeaseGuard {
    fn drop(&mut self) {
        let Some(registered) = self.registered.take() else { return };
        self.lease.validity().end();
        let (lease, back) = (self.lease.clone(), std::mem::take(&mut self.back));
        let leases = registered.leases().clone();
        leases.in_background(async move {
            lease.give_back(&back).await;
            drop(registered);
        });
    }
}

/// The first and the longest pause between two attempts to give back a lease.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

impl Lease {
    fn is_ours(&self, found: Option<&Znode>) -> bool {
        found.is_some_and(|(_, stat)| {
            stat.ephemeral_owner == Some(self.session_id()) && FencingToken::new(stat.czxid) == self.token()
        })
    }

    /// What the lock shows of a transaction that deletes it.
    fn judge_deletion(&self, found: Option<&Znode>) -> Verdict {
        if self.is_ours(found) { Verdict::NotApplied } else { Verdict::Applied }
    }

    /// The evidence for a transaction that deletes the lock. A lock that is denied is that of another process.
    fn deletion<'a>(&'a self, judge: &'a (dyn Fn(Option<&Znode>) -> Verdict + Sync)) -> Evidence<'a> {
        Evidence::new(self.path(), judge).if_denied(Verdict::Applied)
    }

    /// Deletes the lock in the first of these ways that the store takes.
    async fn end(&self, ways: &Ways, evidence: Option<&ZnodePath>) -> Result<Applied, Unapplied> {
        let (mut ops, mut others) = (&ways.first, ways.others.iter());
        loop {
            let ended = self.give_up(ops, evidence).await;
            let Err(error) = &ended else { return ended };
            let Some(other) = others.find(|other| ops.is_worth(other, error)) else { return ended };
            warn!(lock = %self.path(), %error, "the store does not take all of it: trying with a shorter reason, without it, or without a record");
            ops = other;
        }
    }

    /// Deletes the lock between `ops.before` and `ops.after`, all or nothing.
    async fn give_up(&self, ops: &Around, evidence: Option<&ZnodePath>) -> Result<Applied, Unapplied> {
        let live = self.live();
        let judge = |found: Option<&Znode>| self.judge_deletion(found);
        let all = ops.with([Op::delete(self.path(), Some(LOCK_VERSION))]);
        match live.commit_once(&all, self.deletion(&judge)).await {
            Err(Unapplied::Refused { index, error, .. }) if index == ops.before.len() => {
                debug!(lock = %self.path(), %error, "the lock is gone");
                Err(Unapplied::Overtaken)
            }
            Err(Unapplied::Unknown(backend::Error::Lost(_))) if evidence.is_none() => Ok(Applied::Seen(None)),
            // No other process deletes our lock, but an operator may have. Then the other znode still exists.
            Ok(Applied::Seen(found)) => match evidence {
                None => Ok(Applied::Seen(found)),
                Some(path) => match live.read_back(path).await.map_err(Unapplied::Unknown)? {
                    Ok(None) => Ok(Applied::Seen(None)),
                    Ok(Some(_)) | Err(Denied) => Err(Unapplied::Overtaken),
                },
            },
            outcome => outcome,
        }
    }

    /// Gives the lease back with the operations of `back`. If they are refused, deletes only the lock. Tries until the
    /// session ends, which deletes the lock, too.
    async fn give_back(&self, back: &Ways) {
        let (live, lock) = (self.live(), self.path());
        let mut backoff = Backoff::new(PAUSE, LONGEST_PAUSE);
        while !live.is_over() {
            let Err(error) = self.end(back, None).await else {
                debug!(%lock, "given back");
                return;
            };
            debug!(%lock, %error, "could not be given back");
            match self.delete_lock().await {
                Ok(()) | Err(Unapplied::Unknown(backend::Error::Lost(_))) => return,
                Err(error) => warn!(%lock, %error, "the lock is not given back yet"),
            }
            let _ = timeout(backoff.next_delay(live.random.unit()), live.ended()).await;
        }
    }

    /// Deletes only the lock, if it is still this one. For when another process or an operator has changed the thing or
    /// the lock: the lock must not stay for ever.
    async fn delete_lock(&self) -> Result<(), Unapplied> {
        let live = self.live();
        let found = live.read_back(self.path()).await.map_err(Unapplied::Unknown)?;
        let Ok(found) = found else { return Ok(()) };
        let Some((_, stat)) = found.as_ref().filter(|_| self.is_ours(found.as_ref())) else { return Ok(()) };
        warn!(lock = %self.path(), "it could not be ended or given back, for instance because another process has changed the leased thing: only its lock is deleted");
        let judge = |found: Option<&Znode>| self.judge_deletion(found);
        let delete = [Op::delete(self.path(), Some(stat.version))];
        live.commit_once(&delete, self.deletion(&judge)).await.map(drop)
    }
}

impl fmt::Debug for LeaseGuard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lease.fmt(f)
    }
}
