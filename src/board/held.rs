//! [`Held`]: a job that this process has claimed, until its claim ends once.

use std::{sync::Arc, time::Duration};

use super::{
    attempts::Record,
    cache::{Known, Mark, SetAside},
    error::BoardError,
    job::Job,
    posting::PostingError,
    shared::Shared,
};
use crate::{
    backend::{self, CreateMode, Done, Op, Stat, path::ZnodePath},
    error::Error,
    lease::{Around, Lease, LeaseGuard},
    session::{
        commit::{Applied, Unapplied},
        requests::delete_each,
    },
};

/// A claimed job. Dropped, it is given back.
pub(super) struct Held {
    /// `None` once it has ended.
    guard: Option<LeaseGuard>,
    lease: Lease,
    job: Job,
    /// The number of this attempt.
    attempt: u32,
    record: Option<Record>,
    /// Whether a caller has got the claim: from then on it counts as an attempt.
    is_delivered: bool,
}

/// How the caller gives a job back.
#[derive(Debug, Clone, Default)]
pub(super) struct GivenBack {
    /// The pause; `None`: the usual one, which grows with each attempt.
    pub(super) after: Option<Duration>,
    pub(super) reason: Option<String>,
    /// Whether this claim does not count as an attempt.
    pub(super) is_uncounted: bool,
}

/// The reason of a claim that was dropped.
const DROPPED: &str = "its worker dropped the claim without ending it";

impl Held {
    pub(super) fn new(job: Job, guard: LeaseGuard, attempt: u32, record: Option<Record>) -> Self {
        guard.check_subject();
        let lease = guard.lease().clone();
        Held { guard: Some(guard), lease, job, attempt, record, is_delivered: false }
    }

    /// From here on it counts as an attempt.
    pub(super) fn deliver(&mut self) {
        self.is_delivered = true;
    }

    pub(super) fn job(&self) -> &Job {
        &self.job
    }

    pub(super) fn lease(&self) -> &Lease {
        &self.lease
    }

    pub(super) fn attempt(&self) -> u32 {
        self.attempt
    }

    pub(super) fn last_error(&self) -> Option<&str> {
        self.record.as_ref()?.error.as_deref()
    }

    fn shared(&self) -> &Arc<Shared> {
        self.job.shared()
    }

    /// Takes the job off the board.
    pub(super) async fn consume(mut self) -> Result<(), BoardError> {
        let ops = Around { before: Vec::new(), after: vec![delete(&self.job)] };
        self.finish(ops, true, Mark::Removed(self.job.known().clone())).await?;
        if self.record.is_some() {
            // Afterwards, because an operator may have removed the record: that must not refuse the end. If it stays, it
            // is removed when a board is opened.
            let record = self.shared().record_of(self.job.known());
            let _ = delete_each(&*self.lease.live().session, record.into_iter().collect()).await;
        }
        Ok(())
    }

    /// Moves the job to the trash.
    pub(super) async fn trash(mut self, reason: Option<&str>) -> Result<(), BoardError> {
        let known = self.job.known().clone();
        let target = self.shared().layout.trash.join(known.path.name()).expect("the name is that of a znode");
        let create = Op::create(&target, known.data.to_vec(), CreateMode::Persistent);
        let mut after = vec![delete(&self.job)];
        if reason.is_some() {
            let mut record = Record::new(self.attempt, known.stat.version, reason);
            record.is_trashed = true;
            after.extend(self.write(&record));
        }
        self.finish(Around { before: vec![create], after }, true, Mark::Removed(known)).await
    }

    /// Gives the job back, or moves it to the trash after its last attempt.
    pub(super) async fn abandon(mut self, how: GivenBack) -> Result<(), BoardError> {
        let max_attempts = self.shared().max_attempts;
        if !how.is_uncounted && max_attempts.is_some_and(|max| self.attempt >= max) {
            let reason = how.reason.or_else(|| self.last_error().map(str::to_owned));
            let reason = reason.unwrap_or_else(|| "no reason was given".into());
            // Boxed, because it is seldom polled and large.
            return Box::pin(self.trash(Some(&reason))).await;
        }
        let (ops, pause) = self.back(how);
        let until = (!pause.is_zero()).then(|| self.shared().clock.now() + pause);
        self.finish(ops, false, Mark::Released(self.job.known().clone(), until)).await
    }

    /// The operations that give it back now, and the pause.
    fn back(&self, how: GivenBack) -> (Around, Duration) {
        let shared = self.shared();
        let attempts = if how.is_uncounted { self.attempt.saturating_sub(1) } else { self.attempt };
        let pause = how.after.unwrap_or_else(|| match how.is_uncounted {
            true => Duration::ZERO,
            false => shared.pauses.after(attempts, shared.leases.random().unit()),
        });
        let reason = how.reason.or_else(|| self.last_error().map(str::to_owned));
        let mut record = Record::new(attempts, self.job.known().stat.version, reason.as_deref());
        record.not_before = (!pause.is_zero()).then(|| shared.clock.unix_ms_in(pause));
        let after = [check(&self.job)].into_iter().chain(self.write(&record)).collect();
        (Around { before: Vec::new(), after }, pause)
    }

    /// Writes the record.
    fn write(&self, record: &Record) -> Option<Op> {
        let path = self.shared().record_of(self.job.known())?;
        Some(match self.record {
            Some(_) => Op::set(&path, record.data(), None),
            None => Op::create(&path, record.data(), CreateMode::Persistent),
        })
    }

    /// For when it is dropped, or when its end fails.
    fn set_back(&mut self) {
        let how = match self.is_delivered {
            true => GivenBack { reason: Some(DROPPED.into()), ..GivenBack::default() },
            false => GivenBack { is_uncounted: true, ..GivenBack::default() },
        };
        let (back, _) = self.back(how);
        if let Some(guard) = &mut self.guard {
            guard.set_back(back);
        }
    }

    /// Ends the claim. If `removes`, the job has to be gone afterwards.
    async fn finish(&mut self, ops: Around, removes: bool, mark: Mark) -> Result<(), BoardError> {
        self.set_back();
        let guard = self.guard.take().expect("a claim ends once, by value");
        let (job, shared) = (&self.job, self.shared());
        let name = || job.path().to_string();
        let trash = ops.before.first().map(|op| op.path().clone());
        let evidence = removes.then(|| job.path().clone());
        match guard.finish(ops, evidence).await.map_err(|error| shared.service(error))? {
            Ok(Applied::Replied(_)) => {
                shared.mark(mark);
                Ok(())
            }
            // The reply was lost, so another process may have changed the board again before it was read.
            Ok(Applied::Seen(_)) => {
                shared.invalidate();
                Ok(())
            }
            Err(Unapplied::Overtaken) => {
                shared.invalidate();
                Err(BoardError::Lost { job: name() })
            }
            Err(Unapplied::Refused { index, path, error }) => {
                Err(self.refused(error, &path, trash.filter(|_| index == 0)))
            }
            Err(Unapplied::Unknown(_)) => Err(BoardError::OutcomeUnknown { job: name(), uuid: job.uuid() }),
            Err(Unapplied::Failed(error)) => Err(Error::from_backend(error, job.path()).into()),
        }
    }

    /// The error of an end that was refused at a znode, which `trash` is if it is given.
    fn refused(&self, error: backend::Error, at: &ZnodePath, trash: Option<ZnodePath>) -> BoardError {
        let job = self.job.path();
        match (error, trash) {
            (backend::Error::NodeExists, Some(trash)) => {
                BoardError::TrashTaken { job: job.to_string(), trash: trash.to_string() }
            }
            // No later attempt can end it either, so it must not be begun again.
            (reason @ backend::Error::NotEmpty, _) => {
                let found = SetAside { path: job.clone(), reason: PostingError::HasChild };
                self.shared().mark(Mark::SetAside(found));
                BoardError::Changed { job: job.to_string(), reason }
            }
            (reason @ (backend::Error::BadVersion | backend::Error::NoNode), None) => {
                BoardError::Changed { job: job.to_string(), reason }
            }
            (error, _) => Error::from_backend(error, at).into(),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if self.guard.is_some() {
            self.set_back();
        }
    }
}

/// The job as its claim has left it.
pub(super) fn claimed(known: &Known, applied: Applied) -> Known {
    let set = applied.done().and_then(|mut done| match done.pop() {
        Some(Done::Set(stat)) => Some(stat),
        _ => None,
    });
    let stat = set.unwrap_or(Stat { version: known.stat.version.wrapping_add(1), ..known.stat });
    Known { stat, ..known.clone() }
}

/// An operation that fails unless the posting is as this claim has left it.
fn check(job: &Job) -> Op {
    Op::Check { path: job.path().clone(), version: Some(job.known().stat.version) }
}

fn delete(job: &Job) -> Op {
    Op::delete(job.path(), Some(job.known().stat.version))
}
