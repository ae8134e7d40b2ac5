//! What a [`WorkQueue`] does with entries that have ended, and with one that its caller knows by its id.

use super::{
    WorkQueue,
    collect::{self, Collected, Finished},
    error::QueueError,
    find,
    id::EntryId,
};

impl WorkQueue {
    /// Reads up to `max` results, the oldest first, and waits until there is one. Returns none if `max` is 0.
    ///
    /// The results stay in the store until they are [confirmed](Collected::confirm). Store or use them first, then
    /// confirm them. Do not put both calls into one branch of a `select!`: if that branch is cancelled after the
    /// results were confirmed, they are gone and the caller never gets them.
    ///
    /// # Errors
    ///
    /// [`QueueError::Closed`] if the coordinator is closed, [`QueueError::Service`] for errors that do not pass by
    /// themselves.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is removed.
    pub async fn collect(&self, max: usize) -> Result<Collected, QueueError> {
        collect::collect(&self.handle, max, max > 0).await
    }

    /// Reads up to `max` results, the oldest first, and does not wait: there may be none.
    ///
    /// # Errors
    ///
    /// [`QueueError::Closed`] if the coordinator is closed, [`QueueError::Service`] if the store did not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is removed.
    pub async fn try_collect(&self, max: usize) -> Result<Collected, QueueError> {
        collect::collect(&self.handle, max, false).await
    }

    /// Reads all dead letters, the oldest first: entries that were delivered
    /// [as often as allowed](super::OpenQueue::max_attempts), and never ended. All their values are in memory at once.
    ///
    /// # Errors
    ///
    /// [`QueueError::Closed`] if the coordinator is closed, [`QueueError::Service`] if the store did not answer.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn dead_letters(&self) -> Result<Vec<Finished>, QueueError> {
        let shared = &self.handle.shared;
        shared.wait_for_recovery().await?;
        collect::dead_letters(shared).await
    }

    /// Puts a dead letter back into the queue, as if it had never been delivered. Returns whether it was still there; `false`
    /// for a result.
    ///
    /// # Errors
    ///
    /// [`QueueError::OutcomeUnknown`] if the session ended before the reply came, [`QueueError::Closed`] if the
    /// coordinator is closed, [`QueueError::Service`] if the store did not answer.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub async fn revive(&self, letter: &Finished) -> Result<bool, QueueError> {
        self.end_letter(letter, true).await
    }

    /// Removes a dead letter or a result for good. Returns whether it was still there.
    ///
    /// # Errors
    ///
    /// As [`WorkQueue::revive`].
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub async fn discard(&self, letter: &Finished) -> Result<bool, QueueError> {
        self.end_letter(letter, false).await
    }

    /// Waits until the entry with this id has ended, and reads its result. It stays in the store until it is
    /// [discarded](WorkQueue::discard) or collected.
    ///
    /// ```
    /// # use apportion::{Config, PartitionCoordinator, backend};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
    /// # let queue = coordinator.queue("/reports").await?;
    /// let id = queue.put("monthly").await?;
    /// # queue.take().await?.done(42).await?;
    /// let result = queue.wait_result(&id).await?;
    /// assert_eq!(result.result_as::<u32>()?, 42);
    /// queue.discard(&result).await?;
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// The result may be an error or a dead letter: see [`Finished::error`] and [`Finished::is_dead_letter`]. A queue
    /// whose results are waited for should have no other process that [collects](WorkQueue::collect) them: if that
    /// process confirms the result first, this call waits without end. Results of entries with the same priority and label
    /// are read as well, so labels of their own make it cheap.
    ///
    /// # Errors
    ///
    /// [`QueueError::Closed`] if the coordinator is closed, [`QueueError::Service`] for errors that do not pass by
    /// themselves.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing is removed.
    pub async fn wait_result(&self, id: &EntryId) -> Result<Finished, QueueError> {
        find::wait_result(&self.handle.shared, id).await
    }

    /// Removes an entry that waits to be taken. Returns whether it did wait: `false` if a worker has taken it, or if it
    /// has ended. The values of waiting entries with the same priority and label are read to find it.
    ///
    /// # Errors
    ///
    /// As [`WorkQueue::revive`].
    ///
    /// # Cancel safety
    ///
    /// When cancelled, it goes on in the background.
    pub async fn remove(&self, id: &EntryId) -> Result<bool, QueueError> {
        let shared = &self.handle.shared;
        shared.run("remove", find::remove(shared.clone(), id.clone())).await?
    }

    async fn end_letter(&self, letter: &Finished, revives: bool) -> Result<bool, QueueError> {
        let shared = &self.handle.shared;
        let ended = collect::end_letter(shared.clone(), letter.clone(), revives);
        shared.run("dead letter", ended).await?
    }
}
