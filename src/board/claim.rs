//! [`Claim`]: a job that this process has claimed.

use std::{fmt, sync::Arc};

use super::{
    cache::{Known, Mark, SetAside},
    error::BoardError,
    job::Job,
    posting::{self, PostingError},
    shared::{Handle, Shared},
};
use crate::{
    backend::{self, CreateMode, Done, Op, Stat, path::ZnodePath},
    error::Error,
    lease::{Around, FencingToken, LOCK_OPS, Lease, LeaseGuard, Request},
    session::commit::{Applied, Unapplied},
};

/// A claimed job: no other worker has it while the [lease](Claim::lease) is held. From
/// [`JobBoard::claim`](super::JobBoard::claim), [`claim_next`](super::JobBoard::claim_next) and their like.
///
/// A claim ends in one of three ways: [`consume`](Claim::consume) when the work is done, [`abandon`](Claim::abandon) to
/// give the job back to other workers, [`trash`](Claim::trash) to give the job up for good. A claim that is dropped is
/// abandoned in the background. If this process dies, the claim ends with its session.
#[must_use = "a claim that is dropped is given back"]
pub struct Claim {
    job: Job,
    guard: LeaseGuard,
}

/// Why a job could not be claimed.
pub(super) enum NotClaimed {
    Taken,
    Gone,
    SetAside(PostingError),
}

/// Tries to claim a job. This takes one request if `known` is up to date.
pub(super) async fn attempt(
    handle: &Arc<Handle>,
    known: Arc<Known>,
) -> Result<Result<Claim, NotClaimed>, BoardError> {
    handle.shared.run("claim", take(handle.clone(), known)).await?
}

async fn take(handle: Arc<Handle>, mut known: Arc<Known>) -> Result<Result<Claim, NotClaimed>, BoardError> {
    let shared = &handle.shared;
    let live = shared.live().await?;
    let mut is_fresh = false;
    loop {
        // The lock comes first in the transaction, so that a claim of another process is not taken for a changed
        // posting.
        let version = known.stat.version;
        let after = vec![Op::set(&known.path, known.data.to_vec(), Some(version))];
        let request = Request {
            lock: known.lock.clone(),
            data: posting::lock_data(shared.leases.me().as_str()),
            with: Around { before: Vec::new(), after },
            subject: Some((known.path.clone(), version.wrapping_add(1))),
        };
        let (is_job, error) = match shared.leases.acquire(&live, request).await {
            Ok((guard, applied)) => return Ok(Ok(Claim::new(handle, &known, guard, applied))),
            Err(Unapplied::Overtaken) => {
                shared.mark(Mark::Claimed(known));
                // That process may have given it back since.
                shared.invalidate();
                return Ok(Err(NotClaimed::Taken));
            }
            Err(Unapplied::Refused { index, error, .. }) => (index == LOCK_OPS, error),
            Err(Unapplied::Failed(error)) => (true, error),
            Err(Unapplied::Unknown(error)) => (false, error),
        };
        match error {
            backend::Error::NoNode => {
                shared.mark(Mark::Removed(known));
                return Ok(Err(NotClaimed::Gone));
            }
            backend::Error::BadVersion if !is_fresh => {}
            backend::Error::BadVersion => return Ok(Err(NotClaimed::Taken)),
            // Otherwise the lock may not be created, so no job on this board can be claimed.
            backend::Error::NotPermitted if is_job => {
                return Ok(Err(shared.set_aside(&known, PostingError::NotPermitted)));
            }
            error @ (backend::Error::TooLarge { .. } | backend::Error::Dropped { .. }) => {
                let found = SetAside {
                    path: known.path.clone(),
                    reason: PostingError::Unchangeable(error.to_string()),
                };
                let reason = found.reason.clone();
                shared.mark(Mark::Unchangeable(found, known.stat.mzxid));
                return Ok(Err(NotClaimed::SetAside(reason)));
            }
            error => return Err(Error::from_backend(error, &known.path).into()),
        }
        is_fresh = true;
        let found = live.session.get(&known.path).await;
        let found = found.map_err(|error| Error::from_backend(error, &known.path))?;
        match Known::read(&known.path, Ok(found), live.session.max_request_bytes()) {
            None => {
                shared.mark(Mark::Removed(known));
                return Ok(Err(NotClaimed::Gone));
            }
            Some(Err(reason)) => return Ok(Err(shared.set_aside(&known, reason))),
            Some(Ok(now)) => known = Arc::new(now),
        }
    }
}

impl Shared {
    fn set_aside(&self, known: &Known, reason: PostingError) -> NotClaimed {
        self.mark(Mark::SetAside(SetAside { path: known.path.clone(), reason: reason.clone() }));
        NotClaimed::SetAside(reason)
    }
}

impl Claim {
    fn new(handle: Arc<Handle>, known: &Known, mut guard: LeaseGuard, applied: Applied) -> Self {
        let set = applied.done().and_then(|mut done| match done.pop() {
            Some(Done::Set(stat)) => Some(stat),
            _ => None,
        });
        let stat = set.unwrap_or(Stat { version: known.stat.version.wrapping_add(1), ..known.stat });
        let known = Arc::new(Known { stat, ..known.clone() });
        handle.shared.mark(Mark::Claimed(known.clone()));
        let job = Job::new(known, true, handle);
        guard.check_subject();
        guard.set_back(Around { before: Vec::new(), after: vec![job.check()] });
        Claim { job, guard }
    }

    /// The job.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The lease of the claim: whether this process still has the job, and until when.
    pub fn lease(&self) -> &Lease {
        self.guard.lease()
    }

    /// The fencing token: it is higher for each later claim of the same job. A store that the work writes to can
    /// compare it and refuse an outdated holder.
    pub fn token(&self) -> FencingToken {
        self.lease().token()
    }

    /// Takes the job off the board: the work is done.
    ///
    /// # Errors
    ///
    /// [`BoardError::Lost`] if the claim was lost before: another worker may do the job again.
    /// [`BoardError::Changed`] if another process or an operator has changed the posting meanwhile, or put a znode
    /// below it: the claim is given back. [`BoardError::OutcomeUnknown`] if the session ended before the reply came.
    /// [`BoardError::Service`] for errors of the backend.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub async fn consume(self) -> Result<(), BoardError> {
        let ops = Around { before: Vec::new(), after: vec![self.job.delete()] };
        let evidence = Some(self.job.path().clone());
        self.finish(ops, evidence, Mark::Removed).await
    }

    /// Gives the job back: another worker can claim it at once.
    ///
    /// # Errors
    ///
    /// [`BoardError::Lost`] if the claim was lost before. [`BoardError::Changed`] if another process or an operator has
    /// changed the posting meanwhile or removed it; the claim is still given back. [`BoardError::OutcomeUnknown`] if
    /// the session ended before the reply came. [`BoardError::Service`] for errors of the backend.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub async fn abandon(self) -> Result<(), BoardError> {
        let ops = Around { before: Vec::new(), after: vec![self.job.check()] };
        self.finish(ops, None, Mark::Released).await
    }

    /// Moves the job to the trash, `.trash` beside the board: no worker tries it again, and an operator can inspect it.
    ///
    /// # Errors
    ///
    /// As [`Claim::consume`], and [`BoardError::TrashTaken`] if the trash has a znode of that name.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background, or the claim is given back.
    pub async fn trash(self) -> Result<(), BoardError> {
        let trash = &self.job.shared().layout.trash;
        let target = trash.join(self.job.path().name()).expect("the name is that of a znode");
        let create = Op::create(&target, self.job.known().data.to_vec(), CreateMode::Persistent);
        let ops = Around { before: vec![create], after: vec![self.job.delete()] };
        let evidence = Some(self.job.path().clone());
        self.finish(ops, evidence, Mark::Removed).await
    }

    async fn finish(
        self,
        ops: Around,
        evidence: Option<ZnodePath>,
        mark: fn(Arc<Known>) -> Mark,
    ) -> Result<(), BoardError> {
        let Claim { job, guard } = self;
        let name = || job.path().to_string();
        let moves_to = ops.before.first().map(|op| op.path().to_string());
        match guard.finish(ops, evidence).await.map_err(|error| job.shared().service(error))? {
            Ok(Applied::Replied(_)) => {
                job.shared().mark(mark(job.known().clone()));
                Ok(())
            }
            // The reply was lost, so another process may have changed the board again before it was read.
            Ok(Applied::Seen(_)) => {
                job.shared().invalidate();
                Ok(())
            }
            Err(Unapplied::Overtaken) => {
                job.shared().invalidate();
                Err(BoardError::Lost { job: name() })
            }
            Err(Unapplied::Refused { index: 0, error: backend::Error::NodeExists, .. }) => {
                Err(BoardError::TrashTaken { job: name(), trash: moves_to.unwrap_or_default() })
            }
            Err(Unapplied::Refused { error: reason, .. }) => Err(BoardError::Changed { job: name(), reason }),
            Err(Unapplied::Unknown(_)) => Err(BoardError::OutcomeUnknown { job: name(), uuid: job.uuid() }),
            Err(Unapplied::Failed(error)) => Err(Error::from_backend(error, job.path()).into()),
        }
    }
}

impl Job {
    /// An operation that fails unless the posting is as this claim has left it.
    fn check(&self) -> Op {
        Op::Check { path: self.path().clone(), version: Some(self.known().stat.version) }
    }

    fn delete(&self) -> Op {
        Op::delete(self.path(), Some(self.known().stat.version))
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("job", &self.job).field("lease", self.lease()).finish()
    }
}
