//! [`Access`]: reads and writes in whatever session is live.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use super::{Live, Status};
use crate::{
    backend::{self, BoxFuture, Loss, SessionState, Znode, path::ZnodePath},
    error::Error,
};

/// Between two looks at a store that does not answer.
const PAUSE: Duration = Duration::from_millis(50);

/// The door to the present session, for those who do not keep it. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    status: watch::Receiver<Status>,
    patience: Duration,
}

impl Access {
    pub(super) fn new(status: watch::Receiver<Status>, patience: Duration) -> Self {
        Access { status, patience }
    }

    /// Announces sessions that come and go.
    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// How long a call waits for a session.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Whether there is a session and its connection is up.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(&*self.status.borrow(), Status::Live(live) if live.is_connected())
    }

    /// The live session; waits for one, at most the patience. An error that waiting cannot mend comes at once.
    pub(crate) async fn live(&self) -> Result<Arc<Live>, Error> {
        self.live_within(self.patience).await
    }

    /// Like [`Access::live`], with a patience of its own.
    pub(crate) async fn live_within(&self, patience: Duration) -> Result<Arc<Live>, Error> {
        let mut status = self.status();
        let decided = status.wait_for(|status| match status {
            Status::Live(_) | Status::Closed => true,
            Status::Opening { error } => error.as_ref().is_some_and(|error| !error.is_transient()),
        });
        match timeout(patience, decided).await.as_ref().map(|decided| decided.as_deref()) {
            Ok(Ok(Status::Live(live))) => Ok(live.clone()),
            Ok(Ok(Status::Opening { error: Some(error) })) => Err(error.clone()),
            Ok(_) => Err(Error::Closed { group: String::new() }),
            Err(_) => Err(Error::unreachable_after(patience, self.last_error().as_ref())),
        }
    }

    /// Why the last attempt to open a session failed.
    pub(crate) fn last_error(&self) -> Option<Error> {
        match &*self.status.borrow() {
            Status::Opening { error } => error.clone(),
            Status::Live(_) | Status::Closed => None,
        }
    }

    /// Does something that may be repeated, such as a read, until the store answers, at most for the patience;
    /// `path` is for the error.
    pub(crate) async fn repeat<T>(
        &self,
        path: &ZnodePath,
        work: impl for<'a> Fn(&'a Live) -> BoxFuture<'a, Result<T, backend::Error>>,
    ) -> Result<T, Error> {
        let mut last = None;
        let trying = async {
            loop {
                let live = self.live().await?;
                match work(&live).await {
                    Ok(found) => return Ok(found),
                    Err(error) if error.is_unknown() => last = Some(Error::from_backend(error, path)),
                    Err(error) => return Err(Error::from_backend(error, path)),
                }
                sleep(PAUSE).await;
            }
        };
        timeout(self.patience, trying)
            .await
            .unwrap_or_else(|_| Err(Error::unreachable_after(self.patience, last.as_ref())))
    }
}

impl Live {
    /// What the leader knows of `path`, after everything that this session has asked for: how the outcome of a
    /// write is read whose reply was lost. Waits until the store answers or the session is over.
    pub(crate) async fn read_back(&self, path: &ZnodePath) -> Result<Option<Znode>, Loss> {
        let mut state = self.session.state();
        loop {
            if let SessionState::Lost(loss) = *state.borrow_and_update() {
                return Err(loss);
            }
            let read = async {
                self.session.sync(path).await?;
                self.session.get(path).await
            };
            match read.await {
                Ok(found) => return Ok(found),
                Err(backend::Error::Lost(loss)) => return Err(loss),
                Err(_) => {
                    let _ = timeout(PAUSE, state.changed()).await;
                }
            }
        }
    }
}
