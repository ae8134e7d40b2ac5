//! Claims one job: one transaction sets its posting and creates its lock.

use std::sync::Arc;

use tracing::{Span, info_span};

use super::{
    attempts::{Record, Recorded, attempt as attempt_number},
    cache::{Mark, SetAside},
    claim::Claim,
    claimed::{ClaimedJob, after_claim},
    error::BoardError,
    job::Job,
    known::Known,
    posting::{self, PostingError},
    shared::{Handle, Shared},
};
use crate::{
    backend::{self, Op},
    error::Error,
    lease::{Around, FencingToken, GivenBack, LOCK_OPS, Request},
    metrics,
    session::{Live, commit::Unapplied, read::Denied},
};

/// Why a job could not be claimed.
pub(super) enum NotClaimed {
    Taken,
    Gone,
    SetAside(PostingError),
    /// It is not to be claimed before a moment.
    Later,
}

/// Tries to claim a job. This takes one request if `known` is up to date, and a read before it if the job was claimed
/// before. If not `at_once`, a job that is to be claimed later is passed over.
pub(super) async fn attempt(
    handle: &Arc<Handle>,
    known: Arc<Known>,
    at_once: bool,
) -> Result<Result<Claim, NotClaimed>, BoardError> {
    let shared = &handle.shared;
    let (board, began) = (shared.layout.board.as_str(), shared.clock.now());
    let taken = shared.run("claim", take(handle.clone(), known, at_once, Span::current())).await.flatten();
    metrics::BOARD_CLAIM_DURATION.record(&[board], shared.clock.now().saturating_since(began));
    let outcome = match &taken {
        Ok(Ok(_)) => "claimed",
        Ok(Err(NotClaimed::Taken)) => "lost",
        Ok(Err(NotClaimed::Gone)) => "gone",
        Ok(Err(NotClaimed::SetAside(_))) => "set_aside",
        Ok(Err(NotClaimed::Later)) => "delayed",
        Err(_) => "error",
    };
    metrics::BOARD_CLAIMS.add(&[board, outcome]);
    let taken = taken?.map(Claim::new);
    if taken.as_ref().is_ok_and(|claim| claim.attempt() > 1) {
        metrics::BOARD_REPEATED.add(&[board]);
    }
    Ok(taken)
}

async fn take(
    handle: Arc<Handle>,
    mut known: Arc<Known>,
    at_once: bool,
    caller: Span,
) -> Result<Result<ClaimedJob, NotClaimed>, BoardError> {
    let shared = &handle.shared;
    let live = shared.live().await?;
    let mut is_fresh = false;
    loop {
        // The lock comes first in the transaction, so that a claim of another process is not taken for a changed
        // posting.
        let version = known.stat.version;
        let recorded = match version {
            // It was never claimed.
            0 => Recorded::default(),
            _ => read_record(shared, &live, &known).await?,
        };
        let not_before = recorded.record.as_ref().and_then(|record| record.not_before).max(known.not_before);
        if let Some(until) =
            not_before.and_then(|unix_ms| shared.clock.moment_of(unix_ms)).filter(|_| !at_once)
        {
            shared.pass_over(known, until);
            return Ok(Err(NotClaimed::Later));
        }
        let after = vec![Op::set(&known.path, known.data.to_vec(), Some(version))];
        let request = Request {
            lock: known.lock.clone(),
            data: posting::lock_data(shared.leases.me().as_str()),
            with: Around { before: Vec::new(), after },
            subject: Some((known.path.clone(), version.wrapping_add(1))),
        };
        let (is_job, at, error) = match shared.leases.acquire(&live, request).await {
            Ok((guard, applied)) => {
                let known = Arc::new(after_claim(&known, applied));
                shared.mark(Mark::Claimed(known.clone()));
                // Otherwise the claim before may have ended after the read, with a record of it. If reading that fails, the
                // session of the lease has probably ended as well.
                let recorded = if recorded.is_of(version) {
                    recorded
                } else {
                    read_record(shared, &live, &known).await.unwrap_or(recorded)
                };
                let attempt = attempt_number(recorded.record.as_ref(), known.stat.version);
                let job = Job::new(known.clone(), true, handle.clone());
                guard.lease().set_span(span(&caller, shared, &job, attempt, guard.lease().token()));
                let claimed = ClaimedJob::new(job, guard, attempt, recorded);
                // Boxed, because both are seldom polled and large.
                if known.stat.num_children > 0 {
                    // It could not be taken off the board in the end, so it is not begun. If it cannot be given back
                    // either, that goes on in the background.
                    let _ = Box::pin(claimed.abandon(GivenBack::uncounted())).await;
                    return Ok(Err(shared.set_aside(&known, PostingError::HasChild)));
                }
                if !at_once && shared.max_attempts.is_some_and(|max| attempt > max) {
                    // It has said why, if it could not be moved.
                    let _ = Box::pin(claimed.give_up_unbegun()).await;
                    return Ok(Err(NotClaimed::Gone));
                }
                return Ok(Ok(claimed));
            }
            Err(Unapplied::Overtaken) => {
                shared.mark(Mark::Claimed(known));
                // That process may have given it back since.
                shared.invalidate();
                return Ok(Err(NotClaimed::Taken));
            }
            Err(Unapplied::Refused { index, path, error }) => (index == LOCK_OPS, path, error),
            Err(Unapplied::Failed(error)) => (true, known.path.clone(), error),
            Err(Unapplied::Unknown(error)) => (false, known.path.clone(), error),
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
            error if error.is_too_large() => {
                let found = SetAside {
                    path: known.path.clone(),
                    reason: PostingError::Unchangeable(error.to_string()),
                };
                let reason = found.reason.clone();
                shared.mark(Mark::Unchangeable(found, known.stat.mzxid));
                return Ok(Err(NotClaimed::SetAside(reason)));
            }
            error => return Err(Error::from_backend(error, &at).into()),
        }
        is_fresh = true;
        let found = match live.session.get(&known.path).await {
            Err(backend::Error::NotPermitted) => Err(Denied),
            found => Ok(found.map_err(|error| Error::from_backend(error, &known.path))?),
        };
        match Known::read(&known.path, found, live.session.max_request_bytes()) {
            None => {
                shared.mark(Mark::Removed(known));
                return Ok(Err(NotClaimed::Gone));
            }
            Some(Err(reason)) => return Ok(Err(shared.set_aside(&known, reason))),
            Some(Ok(now)) => known = Arc::new(now),
        }
    }
}

/// The span of a claim.
fn span(caller: &Span, shared: &Shared, job: &Job, attempt: u32, token: FencingToken) -> Span {
    let uuid = job.uuid().map(tracing::field::display);
    info_span!(
        parent: caller,
        "claim",
        board = %shared.layout.board,
        job = job.path().name(),
        name = &*job.name(),
        uuid,
        attempt,
        %token
    )
}

/// Reads the record of the attempts at a job, if there is one.
async fn read_record(shared: &Shared, live: &Live, known: &Known) -> Result<Recorded, BoardError> {
    let path = shared.record_of(known);
    match live.session.get(&path).await {
        Ok(None) => Ok(Recorded::default()),
        Ok(Some((data, _))) => Ok(Recorded { is_there: true, record: Record::read(&data) }),
        Err(backend::Error::NotPermitted) => Ok(Recorded { is_there: true, record: None }),
        Err(error) => Err(Error::from_backend(error, &path).into()),
    }
}

impl Shared {
    fn set_aside(&self, known: &Known, reason: PostingError) -> NotClaimed {
        self.mark(Mark::SetAside(SetAside { path: known.path.clone(), reason: reason.clone() }));
        NotClaimed::SetAside(reason)
    }
}
