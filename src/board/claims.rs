//! How a [`JobBoard`] claims jobs.

use super::{
    JobBoard, choose,
    claim::Claim,
    error::BoardError,
    job::Job,
    take::{NotClaimed, attempt},
};

impl JobBoard {
    /// Waits until the board has a job that may be claimed now, and does not claim it. Another worker may claim it before the caller
    /// does.
    ///
    /// # Errors
    ///
    /// As [`JobBoard::claim_next`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait_for_work(&self) -> Result<(), BoardError> {
        choose::wait(&self.handle).await
    }

    /// Claims this job, also if it is delayed or in the pause after a failed attempt.
    ///
    /// # Errors
    ///
    /// [`BoardError::Unclaimable`] if another process has claimed it, [`BoardError::Gone`] if it is off the board,
    /// [`BoardError::SetAside`] if its posting cannot be read or changed any more, [`BoardError::Closed`] if the board
    /// or the coordinator is closed, [`BoardError::Service`] if the backend does not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe: if the caller no longer waits when the claim succeeds, the claim is given back.
    pub async fn claim(&self, job: &Job) -> Result<Claim, BoardError> {
        let path = job.path().to_string();
        let not_claimed = match attempt(&self.handle, job.known().clone(), true).await? {
            Ok(claim) => return Ok(claim),
            Err(not_claimed) => not_claimed,
        };
        Err(match not_claimed {
            NotClaimed::Taken | NotClaimed::Later => {
                BoardError::Unclaimable { job: path, owner: self.find_owner(job).await? }
            }
            NotClaimed::Gone => BoardError::Gone { job: path },
            NotClaimed::SetAside(reason) => BoardError::SetAside { job: path, reason },
        })
    }

    /// Claims the first unclaimed job, and waits for one if there is none. If several workers try to claim the same
    /// job, one of them gets it and the others try the next jobs.
    ///
    /// Waits also while the backend is unreachable.
    ///
    /// # Errors
    ///
    /// [`BoardError::Closed`] if the board or the coordinator is closed, [`BoardError::Service`] if the store refuses a
    /// claim, for instance because of a quota or a permission.
    ///
    /// # Cancel safety
    ///
    /// Safe: if the caller no longer waits when a claim succeeds, the claim is given back.
    pub async fn claim_next(&self) -> Result<Claim, BoardError> {
        choose::claim_next(&self.handle, None).await
    }

    /// Claims the first unclaimed job that `wanted` accepts, and waits for one if there is none.
    ///
    /// ```
    /// # use apportion::{Config, PartitionCoordinator, backend};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
    /// # let board = coordinator.job_board("/taskflow/jobs").await?;
    /// # board.post("delete-volume").await?;
    /// # board.post("resize-volume").await?;
    /// let claim = board.claim_where(|job| job.name() == "resize-volume").await?;
    /// # assert_eq!(claim.job().name(), "resize-volume");
    /// # Ok::<(), apportion::board::BoardError>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`JobBoard::claim_next`].
    ///
    /// # Cancel safety
    ///
    /// As [`JobBoard::claim_next`].
    pub async fn claim_where(
        &self,
        mut wanted: impl FnMut(&Job) -> bool + Send,
    ) -> Result<Claim, BoardError> {
        choose::claim_next(&self.handle, Some(&mut wanted)).await
    }

    /// Claims the first unclaimed job. `None` if there is none that may be claimed now: then the board was listed after this call began.
    ///
    /// # Errors
    ///
    /// As [`JobBoard::claim_next`], and [`BoardError::Service`] if the backend does not answer.
    ///
    /// # Cancel safety
    ///
    /// As [`JobBoard::claim_next`].
    pub async fn try_claim_next(&self) -> Result<Option<Claim>, BoardError> {
        choose::try_claim_next(&self.handle, None).await
    }

    /// Claims the first unclaimed job that `wanted` accepts. `None` if there is none: then the board was listed after
    /// this call began.
    ///
    /// # Errors
    ///
    /// As [`JobBoard::try_claim_next`].
    ///
    /// # Cancel safety
    ///
    /// As [`JobBoard::claim_next`].
    pub async fn try_claim_where(
        &self,
        mut wanted: impl FnMut(&Job) -> bool + Send,
    ) -> Result<Option<Claim>, BoardError> {
        choose::try_claim_next(&self.handle, Some(&mut wanted)).await
    }
}
