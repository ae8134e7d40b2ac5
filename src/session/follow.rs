//! Follows the sessions of a coordinator, one after another.

use std::{future::Future, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{Live, Status, access::Access};
use crate::{backend::SessionId, error::Error, watch};

/// The live session, as one task follows it.
#[derive(Debug)]
pub(crate) struct Sessions {
    status: watch::Receiver<Status>,
    live: Option<SessionId>,
}

/// What has changed.
#[derive(Debug)]
pub(crate) enum Change {
    /// There is a new session.
    Live(Arc<Live>),
    /// The session has ended.
    Lost,
    /// An attempt to open a session has failed, and waiting cannot help.
    Refused(Error),
    /// There will be no more sessions.
    Closed,
}

impl Sessions {
    pub(crate) fn new(access: &Access) -> Self {
        let mut status = access.status();
        status.mark_changed();
        Sessions { status, live: None }
    }

    /// What has changed since the last call; `None` if nothing has.
    pub(crate) fn poll(&mut self) -> Option<Change> {
        match self.status.has_changed() {
            Ok(true) => {}
            Ok(false) => return None,
            // The keeper has ended by a panic.
            Err(_) => return Some(Change::Closed),
        }
        match &*self.status.borrow_and_update() {
            Status::Live(live) => {
                let before = self.live.replace(live.id());
                (before != self.live).then(|| Change::Live(live.clone()))
            }
            Status::Opening { error } => match (self.live.take(), error) {
                (Some(_), _) => Some(Change::Lost),
                (None, Some(error)) if !error.is_transient() => Some(Change::Refused(error.clone())),
                (None, _) => None,
            },
            Status::Closed => Some(Change::Closed),
        }
    }

    /// Waits until [`Sessions::poll`] may return a change.
    ///
    /// Cancel safe.
    pub(crate) async fn changed(&mut self) {
        // If the keeper has ended, that is a change, too.
        let _ = self.status.changed().await;
        self.status.mark_changed();
    }

    /// Waits for the next change.
    ///
    /// Cancel safe.
    async fn next(&mut self) -> Change {
        loop {
            if let Some(change) = self.poll() {
                return change;
            }
            self.changed().await;
        }
    }
}

/// Work that is done in each session.
pub(crate) trait Follower {
    /// Works in one live session. The future is dropped when that session ends. If it returns earlier, [`follow`] waits
    /// for the next session.
    fn run(&mut self, live: &Arc<Live>) -> impl Future<Output = ()> + Send;

    /// Called when no session can be opened until an operator acts.
    fn refused(&mut self, error: Error) {
        let _ = error;
    }

    /// Closes the handles, because no more work will be done. Called once, however the work has ended, also after a
    /// panic.
    fn close(&mut self);
}

/// Closes a follower when it is dropped.
struct Closing<F: Follower>(F);

impl<F: Follower> Drop for Closing<F> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Runs `follower` in each session until `cancelled`, or until there will be no more sessions.
pub(crate) async fn follow<F: Follower>(mut sessions: Sessions, follower: F, cancelled: CancellationToken) {
    let mut closing = Closing(follower);
    let following = async {
        let mut change = sessions.next().await;
        loop {
            change = match change {
                // The end is polled first: no work is done in a session that has ended.
                Change::Live(live) => tokio::select! {
                    biased;
                    change = sessions.next() => change,
                    () = closing.0.run(&live) => sessions.next().await,
                },
                Change::Lost => sessions.next().await,
                Change::Refused(error) => {
                    closing.0.refused(error);
                    sessions.next().await
                }
                Change::Closed => return,
            };
        }
    };
    cancelled.run_until_cancelled(following).await;
}

#[cfg(test)]
mod tests;
