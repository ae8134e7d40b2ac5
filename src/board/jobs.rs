//! [`Jobs`]: the jobs of a board at one moment.

use std::{
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    vec,
};

use super::{error::BoardError, job::Job, shared::Handle};

/// Lists the jobs on a board when it is awaited. From [`JobBoard::jobs`](super::JobBoard::jobs).
#[must_use = "jobs are not listed until it is awaited"]
#[derive(Debug)]
pub struct ListJobs {
    handle: Arc<Handle>,
    only_unclaimed: bool,
    ensure_fresh: bool,
}

impl ListJobs {
    pub(super) fn new(handle: Arc<Handle>) -> Self {
        ListJobs { handle, only_unclaimed: false, ensure_fresh: false }
    }

    /// Leaves out jobs that are claimed.
    pub fn only_unclaimed(mut self) -> Self {
        self.only_unclaimed = true;
        self
    }

    /// Lists the board now: the answer has every job whose post was acknowledged before this call. Without this option,
    /// the answer comes from the cache, without a request to the store.
    pub fn ensure_fresh(mut self) -> Self {
        self.ensure_fresh = true;
        self
    }

    async fn run(self) -> Result<Jobs, BoardError> {
        let shared = &self.handle.shared;
        if shared.is_closed() {
            return Err(shared.closed_error());
        }
        if self.ensure_fresh {
            shared.refresh().await?;
        }
        Ok(Jobs::known(&self.handle, self.only_unclaimed))
    }
}

impl IntoFuture for ListJobs {
    type Output = Result<Jobs, BoardError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

/// The jobs of a board at one moment: the highest priority first, the oldest first within one.
#[derive(Debug, Clone)]
pub struct Jobs(Vec<Job>);

impl Jobs {
    /// The jobs that the cache has at this moment.
    pub(super) fn known(handle: &Arc<Handle>, only_unclaimed: bool) -> Self {
        let cache = handle.shared.cache();
        let wanted = cache.slots().filter(|slot| !(only_unclaimed && slot.is_claimed));
        Jobs(wanted.map(|slot| Job::of(slot, handle)).collect())
    }

    /// The number of jobs.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are no jobs.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the jobs, the highest priority first.
    pub fn iter(&self) -> std::slice::Iter<'_, Job> {
        self.0.iter()
    }
}

impl IntoIterator for Jobs {
    type Item = Job;
    type IntoIter = vec::IntoIter<Job>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl<'a> IntoIterator for &'a Jobs {
    type Item = &'a Job;
    type IntoIter = std::slice::Iter<'a, Job>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
