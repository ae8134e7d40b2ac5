//! [`Claim`]: a job that is ours for now.

use std::{fmt, sync::Arc};

use super::{
    BoardError, Job, JobBoard, Shared,
    cache::{Known, Mark, Unreadable},
    driver::understand,
    posting::{self, PostingError},
};
use crate::{
    backend::{self, CreateMode, Done, Op, Stat, path::ZnodePath},
    error::Error,
    lease::{Around, FencingToken, Hold, Lease, Refused, Request, Unfinished},
};

/// A claimed job: nobody else works on it as long as the [lease](Claim::lease) is held.
///
/// It ends in one of three ways: [`consume`](Claim::consume) when the work is done, [`abandon`](Claim::abandon) to
/// let another worker have it, [`trash`](Claim::trash) to give the job up for good. Dropped, it is abandoned in the
/// background. If this process dies the claim ends with its session.
#[must_use = "a claim that is dropped is given back"]
pub struct Claim {
    job: Job,
    hold: Hold,
}

/// The first operation after the two on the lock.
const AFTER_LOCK: usize = 2;

/// Why a claim was not to be had.
pub(super) enum Denied {
    Taken,
    Gone,
    Unreadable(PostingError),
}

impl JobBoard {
    /// Tries to claim what is known as `known`. One request if that is still up to date.
    pub(super) async fn attempt(&self, known: Arc<Known>) -> Result<Result<Claim, Denied>, BoardError> {
        let board = self.clone();
        self.shared().run("claim", async move { board.take(known).await }).await?
    }

    async fn take(self, mut known: Arc<Known>) -> Result<Result<Claim, Denied>, BoardError> {
        let shared = self.shared().clone();
        let live = shared.live().await?;
        let mut is_fresh = false;
        loop {
            // The lock first, so that a lost race is told from a posting that has changed.
            let version = known.stat.version;
            let after = vec![Op::set(&known.path, known.data.to_vec(), Some(version))];
            let request = Request {
                lock: known.lock.clone(),
                data: posting::lock_data(shared.leases.me().as_str()),
                with: Around { before: Vec::new(), after },
                subject: Some((known.path.clone(), version.wrapping_add(1))),
            };
            let (is_job, error) = match shared.leases.acquire(&live, request).await {
                Ok((hold, done)) => return Ok(Ok(Claim::new(self, &known, hold, done))),
                Err(Refused::Taken) => {
                    shared.mark(Mark::Claimed(known));
                    // Somebody may have given it back since.
                    shared.suspect();
                    return Ok(Err(Denied::Taken));
                }
                Err(Refused::Op { index, error }) => (index == AFTER_LOCK, error),
                Err(Refused::Backend(error)) => (false, error),
                Err(Refused::Lost(loss)) => (false, backend::Error::Lost(loss)),
            };
            match error {
                backend::Error::NoNode => {
                    shared.mark(Mark::Removed(known));
                    return Ok(Err(Denied::Gone));
                }
                backend::Error::BadVersion if !is_fresh => {}
                backend::Error::BadVersion => return Ok(Err(Denied::Taken)),
                // Otherwise it is the lock, and nothing on this board can be claimed.
                backend::Error::NotPermitted if is_job => {
                    return Ok(Err(shared.set_aside(&known, PostingError::NotPermitted)));
                }
                error => return Err(Error::from_backend(error, &known.path).into()),
            }
            is_fresh = true;
            let found = live.session.get(&known.path).await;
            let found = found.map_err(|error| Error::from_backend(error, &known.path))?;
            match understand(&known.path, Ok(found)) {
                None => {
                    shared.mark(Mark::Removed(known));
                    return Ok(Err(Denied::Gone));
                }
                Some(Err(reason)) => return Ok(Err(shared.set_aside(&known, reason))),
                Some(Ok(now)) => known = Arc::new(now),
            }
        }
    }
}

impl Shared {
    fn set_aside(&self, known: &Known, reason: PostingError) -> Denied {
        self.mark(Mark::Unreadable(Unreadable { path: known.path.clone(), reason: reason.clone() }));
        Denied::Unreadable(reason)
    }
}

impl Claim {
    fn new(board: JobBoard, known: &Known, mut hold: Hold, done: Option<Vec<Done>>) -> Self {
        let set = done.and_then(|mut done| match done.pop() {
            Some(Done::Set(stat)) => Some(stat),
            _ => None,
        });
        let stat = set.unwrap_or(Stat { version: known.stat.version.wrapping_add(1), ..known.stat });
        let known = Arc::new(Known { stat, ..known.clone() });
        board.shared().mark(Mark::Claimed(known.clone()));
        let claim = Job { known, is_claimed: true, board };
        hold.attend_subject();
        hold.set_back(Around { before: Vec::new(), after: vec![claim.check()] });
        Claim { job: claim, hold }
    }

    /// The job.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// Whether, and until when, the job is ours.
    pub fn lease(&self) -> &Lease {
        self.hold.lease()
    }

    /// What a store can compare that the work writes to: it grows from one claim of a job to the next.
    pub fn token(&self) -> FencingToken {
        self.lease().token()
    }

    /// Takes the job off the board: the work is done.
    ///
    /// # Errors
    ///
    /// [`BoardError::ClaimLost`] if the claim was lost before: then another worker may do it again.
    /// [`BoardError::Touched`] if somebody has changed the posting meanwhile or put something below it: then the
    /// claim is given back. [`BoardError::Unsettled`] if the session ended before the reply came.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background.
    pub async fn consume(self) -> Result<(), BoardError> {
        let ops = Around { before: Vec::new(), after: vec![self.job.delete()] };
        let evidence = Some(self.job.known.path.clone());
        self.finish(ops, evidence, Mark::Removed).await
    }

    /// Gives the job back: another worker can claim it at once.
    ///
    /// # Errors
    ///
    /// [`BoardError::ClaimLost`] if the claim was lost before. [`BoardError::Touched`] if somebody has changed the
    /// posting or removed it meanwhile; the claim is given back all the same.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background.
    pub async fn abandon(self) -> Result<(), BoardError> {
        let ops = Around { before: Vec::new(), after: vec![self.job.check()] };
        self.finish(ops, None, Mark::Released).await
    }

    /// Moves the job to the trash, `.trash` beside the board, where people can look at it: no worker tries it again.
    ///
    /// # Errors
    ///
    /// As [`Claim::consume`], and [`BoardError::TrashTaken`] if the trash holds something of that name.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background, or the claim is given back.
    pub async fn trash(self) -> Result<(), BoardError> {
        let trash = &self.job.shared().layout.trash;
        let target = trash.join(self.job.known.path.name()).expect("the name is that of a znode");
        let create = Op::create(&target, self.job.known.data.to_vec(), CreateMode::Persistent);
        let ops = Around { before: vec![create], after: vec![self.job.delete()] };
        let evidence = Some(self.job.known.path.clone());
        self.finish(ops, evidence, Mark::Removed).await
    }

    async fn finish(
        self,
        ops: Around,
        evidence: Option<ZnodePath>,
        mark: fn(Arc<Known>) -> Mark,
    ) -> Result<(), BoardError> {
        let Claim { job, hold } = self;
        let name = || job.known.path.to_string();
        let moves_to = ops.before.first().map(|op| op.path().to_string());
        match hold.finish(ops, evidence).await.map_err(|error| job.shared().service(error))? {
            Ok(Some(_)) => {
                job.shared().mark(mark(job.known.clone()));
                Ok(())
            }
            // The reply was lost: others may have been quicker than what was read afterwards.
            Ok(None) => {
                job.shared().suspect();
                Ok(())
            }
            Err(Unfinished::Lost) => {
                job.shared().suspect();
                Err(BoardError::ClaimLost { job: name() })
            }
            Err(Unfinished::Refused { index: 0, error: backend::Error::NodeExists }) => {
                Err(BoardError::TrashTaken { job: name(), trash: moves_to.unwrap_or_default() })
            }
            Err(Unfinished::Refused { error: reason, .. }) => {
                Err(BoardError::Touched { job: name(), reason })
            }
            Err(Unfinished::Unknown(_)) => Err(BoardError::Unsettled { job: name() }),
            Err(Unfinished::Backend(error)) => Err(Error::from_backend(error, &job.known.path).into()),
        }
    }
}

impl Job {
    /// Fails unless the job is as this claim has left it.
    fn check(&self) -> Op {
        Op::Check { path: self.known.path.clone(), version: Some(self.known.stat.version) }
    }

    fn delete(&self) -> Op {
        Op::delete(&self.known.path, Some(self.known.stat.version))
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("job", &self.job).field("lease", self.lease()).finish()
    }
}
