//! [`Access`]: reads and writes in the session that is live at the time.

use std::{sync::Arc, time::Duration};

use futures_util::TryFutureExt as _;
use tokio::time::{sleep, timeout};

use super::{
    live::{Live, Status},
    requests::{Failure, pauses},
};
use crate::{
    backend::{self, MAX_REQUEST_BYTES, path::ZnodePath},
    error::Error,
    future::BoxFuture,
    random::Random,
    watch,
};

/// Gives the current session to callers that do not keep it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    status: watch::Receiver<Status>,
    timeout: Duration,
    random: Random,
}

impl Access {
    /// For callers that wait for a session at most `timeout`.
    pub(crate) fn new(status: watch::Receiver<Status>, timeout: Duration, random: Random) -> Self {
        Access { status, timeout, random }
    }

    /// The state of the keeper, which changes when a session starts or ends.
    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// How long a call waits for a session.
    pub(crate) fn timeout(&self) -> Duration {
        self.timeout
    }

    /// The source of random numbers and ids of this coordinator.
    pub(crate) fn random(&self) -> &Random {
        &self.random
    }

    /// Whether there is a session and its connection is up.
    pub(crate) fn is_connected(&self) -> bool {
        self.present().is_some_and(|live| live.is_connected())
    }

    /// The largest request of the current session, in bytes; the default without a session.
    pub(crate) fn max_request_bytes(&self) -> usize {
        self.present().map_or(MAX_REQUEST_BYTES, |live| live.session.max_request_bytes())
    }

    /// The live session, if there is one at this moment.
    pub(crate) fn present(&self) -> Option<Arc<Live>> {
        match &*self.status.borrow() {
            Status::Live(live) => Some(live.clone()),
            Status::Opening { .. } | Status::Closed => None,
        }
    }

    /// The live session; waits for one, at most for the timeout. If waiting cannot help, the error comes at once.
    pub(crate) async fn live(&self) -> Result<Arc<Live>, Error> {
        let mut status = self.status();
        let decided = status.wait_for(|status| match status {
            Status::Live(_) | Status::Closed => true,
            Status::Opening { error } => error.as_ref().is_some_and(|error| !error.is_transient()),
        });
        match timeout(self.timeout, decided).await.as_ref().map(|decided| decided.as_deref()) {
            Ok(Ok(Status::Live(live))) => Ok(live.clone()),
            Ok(Ok(Status::Opening { error: Some(error) })) => Err(error.clone()),
            Ok(_) => Err(Error::closed()),
            Err(_) => Err(self.unreachable(None)),
        }
    }

    /// The error for a call that had no answer within the timeout. Its reason is `last`, or why there is no session.
    pub(crate) fn unreachable(&self, last: Option<Error>) -> Error {
        let opening = || match &*self.status.borrow() {
            Status::Opening { error } => error.clone(),
            Status::Live(_) | Status::Closed => None,
        };
        Error::unreachable_after(self.timeout, last.or_else(opening).as_ref())
    }

    /// Repeats `work`, such as a read, until the store answers, at most for the timeout. `path` is for the error.
    pub(crate) async fn repeat<T: 'static>(
        &self,
        path: &ZnodePath,
        work: impl for<'a> Fn(&'a Live) -> BoxFuture<'a, Result<T, backend::Error>>,
    ) -> Result<T, Error> {
        self.repeat_each(path, |live| Box::pin(work(live).map_err(Failure::from))).await
    }

    /// Like [`Access::repeat`], for work on several znodes, which says which one it could not access.
    pub(crate) async fn repeat_each<T>(
        &self,
        path: &ZnodePath,
        work: impl for<'a> Fn(&'a Live) -> BoxFuture<'a, Result<T, Failure>>,
    ) -> Result<T, Error> {
        let mut backoff = pauses();
        let mut last = None;
        let trying = async {
            loop {
                let live = self.live().await?;
                match work(&live).await {
                    Ok(found) => return Ok(found),
                    Err(failure) if failure.error.is_unknown() => last = Some(failure.into_error(path)),
                    Err(failure) => return Err(failure.into_error(path)),
                }
                sleep(backoff.next_delay(self.random.unit())).await;
            }
        };
        let in_time = timeout(self.timeout, trying).await;
        in_time.unwrap_or_else(|_| Err(Error::unreachable_after(self.timeout, last.as_ref())))
    }
}
