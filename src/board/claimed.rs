//! [`ClaimedJob`]: a job that this process has claimed, until its claim ends once.

use std::{sync::Arc, time::Duration};

use tracing::{Instrument as _, info, warn};

use super::{
    attempts::{Record, Recorded},
    cache::{Mark, SetAside},
    error::BoardError,
    job::Job,
    known::Known,
    posting::PostingError,
    shared::Shared,
};
use crate::{
    ages::Age,
    backend::{self, CreateMode, Done, Op, Stat, path::ZnodePath},
    error::Error,
    lease::{Around, GivenBack, Lease, LeaseGuard, Ways},
    metrics,
    session::{
        commit::{Applied, Unapplied},
        requests::delete_each,
    },
};

/// A claimed job. Dropped, it is given back.
pub(super) struct ClaimedJob {
    /// `None` once it has ended.
    guard: Option<LeaseGuard>,
    lease: Lease,
    job: Job,
    /// The number of this attempt.
    attempt: u32,
    recorded: Recorded,
    /// How it is given back if it is dropped or its end fails. The claim counts once a caller has got it.
    if_dropped: GivenBack,
    /// Since when this process has it.
    age: Age,
}

/// The reason of a claim that was dropped.
const DROPPED: &str = "its worker dropped the claim without ending it";

impl ClaimedJob {
    pub(super) fn new(job: Job, guard: LeaseGuard, attempt: u32, recorded: Recorded) -> Self {
        guard.check_subject();
        let lease = guard.lease().clone();
        let age = job.shared().held.begin(job.shared().clock.now());
        let if_dropped = GivenBack::uncounted();
        ClaimedJob { guard: Some(guard), lease, job, attempt, recorded, if_dropped, age }
    }

    /// From here on it counts as an attempt.
    pub(super) fn deliver(&mut self) {
        self.if_dropped = GivenBack::because(DROPPED);
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
        self.recorded.record.as_ref()?.error.as_deref()
    }

    fn shared(&self) -> &Arc<Shared> {
        self.job.shared()
    }

    /// Takes the job off the board.
    pub(super) async fn consume(mut self) -> Result<(), BoardError> {
        let ops = Around { before: Vec::new(), after: vec![delete(&self.job)] };
        self.finish("consumed", ops.into(), true, Mark::Removed(self.job.known().clone())).await?;
        if self.recorded.is_there {
            // Afterwards, because an operator may have removed the record: that must not refuse the end. If it stays, it
            // is removed when a board is opened.
            let record = self.shared().record_of(self.job.known());
            let _ = delete_each(&*self.lease.live().session, vec![record]).await;
        }
        Ok(())
    }

    /// Moves the job to the trash.
    pub(super) async fn trash(self, reason: Option<&str>) -> Result<(), BoardError> {
        let place = self.place_in_trash(false);
        self.move_to(place, reason).await
    }

    fn place_in_trash(&self, is_taken: bool) -> ZnodePath {
        let known = self.job.known();
        self.shared().layout.trash_of(known.path.name(), known.stat.czxid, is_taken)
    }

    async fn move_to(mut self, place: ZnodePath, reason: Option<&str>) -> Result<(), BoardError> {
        let known = self.job.known().clone();
        let create = Op::create(&place, known.data.to_vec(), CreateMode::Persistent);
        let delete = delete(&self.job);
        let record = reason.map(|reason| {
            self.if_dropped = GivenBack::because(reason);
            let mut record = Record::new(self.attempt, known.stat.version, Some(reason));
            record.is_trashed = true;
            record
        });
        let ways = self.with_record(record.as_ref(), |write| Around {
            before: vec![create.clone()],
            after: [delete.clone()].into_iter().chain(write).collect(),
        });
        self.finish("trashed", ways, true, Mark::Removed(known)).await
    }

    /// Moves the job to the trash after its last attempt, also if another job is there under its name: no caller is asked
    /// what to do then, and the job would be tried again and again.
    async fn give_up(self, reason: &str) -> Result<(), BoardError> {
        let usual = self.place_in_trash(false);
        let found = self.lease.live().session.get(&usual).await;
        let is_taken = matches!(found, Ok(Some(_)) | Err(backend::Error::NotPermitted));
        let place = self.place_in_trash(is_taken);
        self.move_to(place, Some(reason)).await
    }

    /// Moves a job to the trash that has had its last attempt before this claim: its worker has died, or has dropped the
    /// claim. If it cannot be moved, it is given back with a pause.
    pub(super) async fn give_up_unbegun(mut self) -> Result<(), BoardError> {
        self.attempt = self.attempt.saturating_sub(1);
        self.deliver();
        let job = self.job.path().clone();
        let reason = self.last_error().unwrap_or("its worker was gone before it ended the job").to_owned();
        let given_up = self.give_up(&reason).await;
        match &given_up {
            Ok(()) => info!(%job, reason, "moved to the trash after its last attempt"),
            Err(error) => warn!(%job, %error, "could not be moved to the trash after its last attempt"),
        }
        given_up
    }

    /// Moves the job to the trash, to its end, also if the caller is cancelled.
    pub(super) async fn give_up_in_background(self, reason: String) -> Result<(), BoardError> {
        let shared = self.shared().clone();
        let given_up = shared.leases.run("give up", async move { self.give_up(&reason).await }).await;
        given_up.map_err(|error| shared.service(error))?
    }

    /// Gives the job back, or moves it to the trash after its last attempt.
    pub(super) async fn abandon(mut self, how: GivenBack) -> Result<(), BoardError> {
        let max_attempts = self.shared().max_attempts;
        if !how.is_uncounted && max_attempts.is_some_and(|max| self.attempt >= max) {
            let reason = how.reason.or_else(|| self.last_error().map(str::to_owned));
            let reason = reason.unwrap_or_else(|| "no reason was given".into());
            return self.give_up_in_background(reason).await;
        }
        self.if_dropped = how.clone();
        let (ways, pause) = self.back(how);
        let until = (!pause.is_zero()).then(|| self.shared().clock.now() + pause);
        self.finish("abandoned", ways, false, Mark::Released(self.job.known().clone(), until)).await
    }

    /// How it is given back now, and the pause.
    fn back(&self, how: GivenBack) -> (Ways, Duration) {
        let shared = self.shared();
        let random = shared.leases.random().unit();
        let (attempts, pause) = how.attempts_and_pause(self.attempt, shared.pauses, random);
        let reason = how.reason.or_else(|| self.last_error().map(str::to_owned));
        let mut record = Record::new(attempts, self.job.known().stat.version, reason.as_deref());
        record.not_before = (!pause.is_zero()).then(|| shared.clock.unix_ms_in(pause));
        let check = check(&self.job);
        let ways = self.with_record(Some(&record), |write| Around {
            before: Vec::new(),
            after: [check.clone()].into_iter().chain(write).collect(),
        });
        (ways, pause)
    }

    /// The operations `around` the one that writes the record; and for a store that does not take these, without the reason
    /// in the record, and without the record: another user may have written it, and the posting may leave no room for it.
    /// The attempt counts without it as well.
    fn with_record(&self, record: Option<&Record>, around: impl Fn(Option<Op>) -> Around) -> Ways {
        let Some(record) = record else { return around(None).into() };
        let mut short = record.clone();
        short.error = None;
        let ways = Ways::from(around(Some(self.write(record))));
        ways.or(around(Some(self.write(&short)))).or(around(None))
    }

    /// Writes the record.
    fn write(&self, record: &Record) -> Op {
        let path = self.shared().record_of(self.job.known());
        if self.recorded.is_there {
            Op::set(&path, record.data(), None)
        } else {
            Op::create(&path, record.data(), CreateMode::Persistent)
        }
    }

    /// For when it is dropped, or when its end fails.
    fn set_back(&mut self) {
        let (back, _) = self.back(self.if_dropped.clone());
        if let Some(guard) = &mut self.guard {
            guard.set_back(back);
        }
    }

    /// Ends the claim. If `removes`, the job has to be gone afterwards. `how` is for the count of the ends.
    async fn finish(&mut self, how: &str, ways: Ways, removes: bool, mark: Mark) -> Result<(), BoardError> {
        let span = self.lease.span();
        let finished = self.send(ways, removes, mark).instrument(span).await;
        self.count(match &finished {
            Ok(()) => how,
            Err(BoardError::Lost { .. }) => "lost",
            Err(_) => "error",
        });
        finished
    }

    fn count(&self, how: &str) {
        let shared = self.shared();
        let labels = [shared.layout.board.as_str(), how];
        metrics::BOARD_ENDED.add(&labels);
        let took = shared.clock.now().saturating_since(self.age.since());
        metrics::BOARD_HELD_DURATION.record(&labels, took);
    }

    async fn send(&mut self, ways: Ways, removes: bool, mark: Mark) -> Result<(), BoardError> {
        self.set_back();
        let guard = self.guard.take().expect("a claim ends once, by value");
        let (job, shared) = (&self.job, self.shared());
        let name = || job.path().to_string();
        let trash = ways.first().before.first().map(|op| op.path().clone());
        let evidence = removes.then(|| job.path().clone());
        match guard.finish(ways, evidence).await.map_err(|error| shared.service(error))? {
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

impl Drop for ClaimedJob {
    fn drop(&mut self) {
        if self.guard.is_some() {
            self.count(if self.lease.is_held() { "dropped" } else { "lost" });
            self.set_back();
        }
    }
}

/// The job as its claim has left it.
pub(super) fn after_claim(known: &Known, applied: Applied) -> Known {
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
