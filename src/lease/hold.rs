//! [`Hold`]: a lease that is to be given up once, in the way that was asked for, or else given back.

use std::fmt;

use tracing::{debug, warn};

use super::{
    FencingToken, Inner, LOCK_VERSION, Lease,
    leases::{Entry, Refused},
};
use crate::{
    backend::{self, CommitError, Done, Loss, Op, Stat, Znode, path::ZnodePath},
    error::Error,
    session::{Live, requests::make_way},
};

/// The operations around those on the lock.
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

/// Why a lease could not be given up in the way that was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unfinished {
    /// The lease was lost before: nothing was done.
    #[error("the lease was lost before")]
    Lost,
    /// The operation with this index, counted in `before`, one on the lock, `after`. Nothing was done.
    #[error("operation {index} was refused: {error}")]
    Refused { index: usize, error: backend::Error },
    /// The session ended before the reply came: it was done, or the lease has ended with the session.
    #[error("the outcome is unknown: {0}")]
    Unknown(Loss),
    /// Nothing was done.
    #[error(transparent)]
    Backend(backend::Error),
}

/// A lease that is to be given up once: dropped, it is given back in the background.
pub(crate) struct Hold {
    lease: Lease,
    /// What to do beside deleting the lock when nobody says otherwise.
    back: Around,
    /// `None` once it is settled.
    entry: Option<Entry>,
}

impl Hold {
    pub(super) fn new(lease: Lease, entry: Entry) -> Self {
        Hold { lease, back: Around::default(), entry: Some(entry) }
    }

    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// What to do beside deleting the lock if the hold is dropped.
    pub(crate) fn set_back(&mut self, back: Around) {
        self.back = back;
    }

    /// Has each heartbeat check the thing as well, so that the lease ends when somebody else touches it: for things
    /// that the holder itself does not change. Whoever breaks a lock by hand lets another process make one that
    /// looks the same, down to its version; the thing does not.
    pub(crate) fn attend_subject(&self) {
        let Inner { live, tenure, subject, .. } = &*self.lease.inner;
        if let Some((path, version)) = subject {
            live.attend_with(tenure, path, *version);
        }
    }

    /// Deletes the lock between `ops.before` and `ops.after`, all or nothing. `evidence` is a znode that is there
    /// before and not after: without one, the end of the session counts as success.
    ///
    /// `None` if the reply was lost. If it fails, what is left of the hold is given back.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background.
    pub(crate) async fn finish(
        self,
        ops: Around,
        evidence: Option<ZnodePath>,
    ) -> Result<Result<Option<Vec<Done>>, Unfinished>, Error> {
        let leases = self.entry.as_ref().expect("a hold is settled once, by value").leases.clone();
        // Here first: once the store has done it, others may take over.
        self.lease.inner.tenure.end();
        leases
            .run("finish", async move {
                let mut hold = self;
                // Asked before anything is sent: then it is certain that nothing was done.
                if hold.lease.live().is_over() {
                    return Err(Unfinished::Lost);
                }
                let finished = hold.lease.give_up(&ops, evidence.as_ref()).await;
                if matches!(finished, Ok(_) | Err(Unfinished::Unknown(_))) {
                    hold.settle();
                }
                finished
            })
            .await
    }

    /// Waits until a heartbeat has shown that the session lives, if none has for a while. After an outage that the
    /// session has survived, a lease would else be lost at the first look, given back, and taken again at once, for
    /// as long as the heartbeat takes.
    pub(super) async fn confirmed(&self) -> Result<(), Refused> {
        let Inner { live, tenure, lock, .. } = &*self.lease.inner;
        while !tenure.is_valid() {
            if tenure.has_ended() {
                return Err(live.read_back(lock).await.map_or_else(Refused::Lost, |_| Refused::Taken));
            }
            tenure.changed(false).await;
        }
        Ok(())
    }

    fn settle(&mut self) {
        self.entry = None;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        self.lease.inner.tenure.end();
        let dropped = Dropped { lease: self.lease.clone(), back: std::mem::take(&mut self.back), entry };
        let leases = dropped.entry.leases.clone();
        leases.give_back(dropped);
    }
}

impl Lease {
    fn is_ours(&self, found: Option<&Znode>) -> bool {
        found.is_some_and(|(_, stat)| {
            is_made_by(&self.inner.live, stat) && FencingToken::of(stat) == self.token()
        })
    }

    /// Deletes the lock alone, if it is still this one: the thing or the lock was touched by somebody, and the lock
    /// must not stay for that.
    async fn delete_what_is_left(&self) {
        let Inner { live, lock, .. } = &*self.inner;
        let Ok(Some((data, stat))) = live.read_back(lock).await else { return };
        let version = Some(stat.version);
        if self.is_ours(Some(&(data, stat))) {
            warn!(%lock, "somebody has touched what was held: the lock alone is given back");
            if let Err(error) = live.session.commit(vec![Op::delete(lock, version)]).await {
                warn!(%lock, %error, "it stays until the session ends");
            }
        }
    }

    fn delete_lock(&self) -> Op {
        Op::delete(&self.inner.lock, Some(LOCK_VERSION))
    }

    /// Deletes the lock between `before` and `after`, all or nothing; repeats what a lost reply left undone.
    async fn give_up(
        &self,
        ops: &Around,
        evidence: Option<&ZnodePath>,
    ) -> Result<Option<Vec<Done>>, Unfinished> {
        let live = &self.inner.live;
        let all = ops.with([self.delete_lock()]);
        loop {
            let error = match live.session.commit(all.clone()).await {
                Ok(done) => return Ok(Some(done)),
                Err(CommitError { index: Some(index), error }) => {
                    if index == ops.before.len() {
                        debug!(lock = %self.inner.lock, %error, "the lock is gone");
                        return Err(Unfinished::Lost);
                    }
                    if make_way(&*live.session, &all[index], &error).await {
                        continue;
                    }
                    return Err(Unfinished::Refused { index, error });
                }
                Err(CommitError { index: None, error }) => error,
            };
            if !error.is_unknown() {
                return Err(Unfinished::Backend(error));
            }
            match live.read_back(&self.inner.lock).await {
                Ok(found) if self.is_ours(found.as_ref()) => continue,
                Ok(_) => {}
                Err(_) if evidence.is_none() => return Ok(None),
                Err(loss) => return Err(Unfinished::Unknown(loss)),
            }
            // Nobody else deletes our lock, but people do.
            return match evidence {
                None => Ok(None),
                Some(path) => match live.read_back(path).await {
                    Ok(None) => Ok(None),
                    Ok(Some(_)) => Err(Unfinished::Lost),
                    Err(loss) => Err(Unfinished::Unknown(loss)),
                },
            };
        }
    }
}

pub(super) fn is_made_by(live: &Live, stat: &Stat) -> bool {
    stat.ephemeral_owner == Some(live.id())
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lease.fmt(f)
    }
}

/// What is to be given back.
pub(super) struct Dropped {
    lease: Lease,
    back: Around,
    entry: Entry,
}

impl Dropped {
    pub(super) async fn give_back(self) {
        let lease = &self.lease;
        let lock = &lease.inner.lock;
        match lease.give_up(&self.back, None).await {
            Ok(_) => debug!(%lock, "given back"),
            Err(error) => {
                debug!(%lock, %error, "not given back as it was taken");
                lease.delete_what_is_left().await;
            }
        }
        drop(self.entry);
    }
}
