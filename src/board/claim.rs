//! [`Claim`]: a job that this process has claimed.

use std::{fmt, time::Duration};

use super::{abandon::Abandon, claimed::ClaimedJob, error::BoardError, job::Job};
use crate::lease::{FencingToken, GivenBack, Lease};

/// A claimed job: no other worker has it while the [lease](Claim::lease) is held. From
/// [`JobBoard::claim`](super::JobBoard::claim), [`claim_next`](super::JobBoard::claim_next) and their like.
///
/// A claim ends in one of three ways: [`consume`](Claim::consume) when the work is done, [`abandon`](Claim::abandon) to
/// give the job back for another attempt, [`trash`](Claim::trash) to give the job up for good. A claim that is dropped is
/// abandoned in the background. If this process dies, the claim ends with its session.
///
/// Each claim that a caller gets counts as an attempt, also one whose process dies. Claims of TaskFlow's conductors do
/// not count.
#[must_use = "a claim that is dropped is given back"]
pub struct Claim {
    claimed: ClaimedJob,
}

impl Claim {
    /// The claim for the caller that waits for it. From here on it counts as an attempt.
    pub(super) fn new(mut claimed: ClaimedJob) -> Self {
        claimed.deliver();
        Claim { claimed }
    }

    /// The job.
    pub fn job(&self) -> &Job {
        self.claimed.job()
    }

    /// The lease of the claim: whether this process still has the job, and until when.
    pub fn lease(&self) -> &Lease {
        self.claimed.lease()
    }

    /// The fencing token: it is higher for each later claim of the same job. A store that the work writes to can
    /// compare it and refuse an outdated holder.
    pub fn token(&self) -> FencingToken {
        self.lease().token()
    }

    /// How often the job was claimed so far, this claim included.
    pub fn attempt(&self) -> u32 {
        self.claimed.attempt()
    }

    /// Why the last attempt before this one has failed, if its worker said so.
    pub fn last_error(&self) -> Option<&str> {
        self.claimed.last_error()
    }

    /// Takes the job off the board: the work is done.
    ///
    /// # Errors
    ///
    /// [`BoardError::Lost`] if the claim was lost before: another worker may do the job again.
    /// [`BoardError::Changed`] if another process or an operator has changed the posting meanwhile, or put a znode
    /// below it: the claim is given back. [`BoardError::OutcomeUnknown`] if the session ended before the reply came.
    /// [`BoardError::Service`] for errors of the backend, for instance if permission is denied by ACL.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub async fn consume(self) -> Result<(), BoardError> {
        self.claimed.consume().await
    }

    /// Gives the job back for another attempt. No worker of this crate claims it before a pause has passed, which grows with
    /// each attempt: see [`OpenBoard::pauses`](super::OpenBoard::pauses). TaskFlow's conductors do not know the pause. After
    /// [`max_attempts`](super::OpenBoard::max_attempts) claims, the job goes to the trash instead, under its own name as by
    /// [`Claim::trash`]. If the trash has another job of that name, its creation follows the name, for instance
    /// `job0000000042.1f`. Await it, or set options first:
    ///
    /// ```
    /// # use apportion::{Config, PartitionCoordinator, backend};
    /// # fn resize(_: &apportion::board::Job) -> Result<(), String> { Err("no space left".into()) }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
    /// let board = coordinator.job_board("/taskflow/jobs").max_attempts(1).await?;
    /// board.post("resize").await?;
    /// let claim = board.claim_next().await?;
    /// if let Err(error) = resize(claim.job()) {
    ///     claim.abandon().because(error).await?;
    /// }
    /// assert_eq!(board.trashed().await?[0].reason.as_deref(), Some("no space left"));
    /// # Ok::<(), apportion::board::BoardError>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// [`BoardError::Lost`] if the claim was lost before. [`BoardError::Changed`] if another process or an operator has
    /// changed the posting meanwhile or removed it; the claim is still given back. [`BoardError::OutcomeUnknown`] if
    /// the session ended before the reply came. [`BoardError::Service`] for errors of the backend. As [`Claim::trash`]
    /// after the last attempt; [`BoardError::TrashTaken`] only if another job has got that name at the same moment.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub fn abandon(self) -> Abandon {
        Abandon::new(self.claimed)
    }

    /// As [`Claim::abandon`], with this pause instead of the growing one. Zero: it can be claimed again at once.
    ///
    /// # Errors
    ///
    /// As [`Claim::abandon`].
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub fn abandon_after(self, pause: Duration) -> Abandon {
        self.abandon().after(pause)
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
        self.claimed.trash(None).await
    }

    /// Moves the job to the trash with the reason, which [`JobBoard::trashed`](super::JobBoard::trashed) returns. At most
    /// 1000 characters are kept, beside the trash: the posting stays as it is.
    ///
    /// # Errors
    ///
    /// As [`Claim::trash`].
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background, or the claim is given back.
    pub async fn trash_because(self, reason: impl fmt::Display) -> Result<(), BoardError> {
        self.claimed.trash(Some(&reason.to_string())).await
    }
}

/// For the runner of a board, which has decided what becomes of the job.
impl Claim {
    /// Gives the job back; at the last attempt that the board allows, it goes to the trash.
    pub(crate) async fn give_back(self, how: GivenBack) -> Result<(), BoardError> {
        self.claimed.abandon(how).await
    }

    /// Moves the job to the trash, also if another job is there under its name. Once polled, it goes on in the background.
    pub(crate) async fn give_up(self, reason: &str) -> Result<(), BoardError> {
        self.claimed.give_up_in_background(reason.to_owned()).await
    }

    /// The same for a job that has had its last attempt before this claim.
    pub(crate) async fn give_up_unbegun(self) -> Result<(), BoardError> {
        self.claimed.give_up_unbegun().await
    }
}

impl fmt::Debug for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Claim").field("job", self.job()).field("lease", self.lease()).finish()
    }
}
