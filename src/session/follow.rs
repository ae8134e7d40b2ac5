//! Follows the sessions of a coordinator, one after another.

use std::{future::Future, sync::Arc};

use tokio_util::sync::CancellationToken;

use super::{Live, Status, access::Access, announce::Announced};
use crate::{backend::SessionId, error::Error};

/// Which session is live, as one task sees it.
#[derive(Debug)]
pub(crate) struct Sessions {
    status: Announced<Status>,
    live: Option<SessionId>,
}

/// What has changed.
#[derive(Debug)]
pub(crate) enum Change {
    /// There is another session than before.
    Live(Arc<Live>),
    /// The session is over.
    Lost,
    /// An attempt to open a session has failed, and waiting cannot mend it.
    Refused(Error),
    /// There will be no session any more.
    Closed,
}

impl Sessions {
    pub(crate) fn new(access: &Access) -> Self {
        let mut status = access.status();
        status.mark_changed();
        Sessions { status, live: None }
    }

    /// What has changed since this was asked last; `None` if nothing has.
    pub(crate) fn poll(&mut self) -> Option<Change> {
        match self.status.has_changed() {
            Ok(true) => {}
            Ok(false) => return None,
            // The keeper may have ended without saying so, by a panic.
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

    /// Waits until [`Sessions::poll`] may have something to say.
    ///
    /// Cancel safe.
    pub(crate) async fn changed(&mut self) {
        // An error is a change, too: the keeper has ended.
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

/// Something that is done in each session.
pub(crate) trait Follower {
    /// Works in one live session. Dropped when that is over; if it returns earlier, the next session is waited for.
    fn run(&mut self, live: &Arc<Live>) -> impl Future<Output = ()> + Send;

    /// No session can be opened until an operator acts.
    fn refused(&mut self, error: Error) {
        let _ = error;
    }

    /// Nothing more will be done: tells whoever waits for it. Called once, however the work has ended, also by a panic.
    fn close(&mut self);
}

/// Closes a follower when it is dropped.
struct Closing<F: Follower>(F);

impl<F: Follower> Drop for Closing<F> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Runs `follower` in each session until `cancelled` or until there will be no session any more.
pub(crate) async fn follow<F: Follower>(mut sessions: Sessions, follower: F, cancelled: CancellationToken) {
    let mut closing = Closing(follower);
    let following = async {
        let mut change = sessions.next().await;
        loop {
            change = match change {
                // The end first: nothing more is done in a session that is known to be over.
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
