//! An ensemble in the process: [`Memory`], for tests, demonstrations and services without a server.
//!
//! It behaves as ZooKeeper 3.9 does; the differential test in the module `testing` compares the two. It uses tokio's
//! clock, so that a test with paused time need not wait. A test can make it fail: [`Memory::expire`],
//! [`Memory::suspend`], [`Memory::lose_reply`], [`Memory::refuse_connections`]. To simulate a member that crashes,
//! suspend its session and drop it: then nothing reaches the ensemble any more, and the session expires after its
//! timeout.
//!
//! The effects of a change have a fixed order: first the tree changes, then the watches of other sessions fire in the
//! order of the operations. If a session has ended, its state changes after that, and its own watches fire last.

mod ensemble;
mod session;
mod state;
mod tree;

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

pub use self::state::LostReply;
use self::{ensemble::Ensemble, session::MemorySession, tree::User};
use crate::{
    backend::{BoxFuture, Connector, Error, Loss, Session, SessionId},
    clock::{Clock, TokioClock},
};

/// An ensemble in the process. All clones are the same ensemble.
#[derive(Clone)]
pub struct Memory {
    ensemble: Arc<Ensemble>,
    user: User,
}

impl Memory {
    /// An ensemble without znodes.
    pub fn new() -> Self {
        Memory { ensemble: Arc::new(Ensemble::new()), user: None }
    }

    /// The same ensemble, for sessions of `user`. Only sessions of this user can access the znodes that these sessions
    /// create, as with credentials of the scheme `digest` on a server. Every client may still read their names in the
    /// list of an open parent, and delete them there.
    #[must_use]
    pub fn as_user(&self, user: &str) -> Self {
        Memory { ensemble: Arc::clone(&self.ensemble), user: Some(user.into()) }
    }

    /// The sessions that have not ended, oldest first. Suspended and abandoned ones count until they expire.
    pub fn sessions(&self) -> Vec<SessionId> {
        self.ensemble.lock().sessions()
    }

    /// The clock of the sessions of this ensemble. A test can let it [`jump`](TokioClock::jump).
    pub fn clock(&self) -> Arc<TokioClock> {
        Arc::clone(&self.ensemble.clock)
    }

    /// Ends a session at once, as a server does when it has received nothing from the client for the session timeout.
    /// The client sees it at once, even if it was suspended. Does nothing if there is no such session.
    pub fn expire(&self, id: SessionId) {
        self.ensemble.lock().end(id, Loss::Expired);
    }

    /// Cuts the connection of a session. Its requests wait and its watches do not fire until the session is
    /// [resumed](Memory::resume), or until its timeout has passed and it expires. A commit that waits is applied on
    /// resume even if its future was dropped: a client cannot take back a request.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, whose timer ends the session.
    pub fn suspend(&self, id: SessionId) {
        let resumed = self.ensemble.tasks.cancelled();
        let resumed = resumed.child_token();
        let Some(timeout) = self.ensemble.lock().suspend(id, resumed.clone()) else { return };
        let ensemble: Weak<Ensemble> = Arc::downgrade(&self.ensemble);
        self.ensemble.tasks.spawn("expiry of a suspended session", async move {
            tokio::select! {
                biased;
                () = resumed.cancelled() => {}
                () = tokio::time::sleep(timeout) => {
                    let Some(ensemble) = ensemble.upgrade() else { return };
                    let mut state = ensemble.lock();
                    // It may have been resumed while this task waited for the lock.
                    if !resumed.is_cancelled() {
                        state.end(id, Loss::Expired);
                    }
                }
            }
        });
    }

    /// Restores the connection of a suspended session. Its epoch is higher, requests that waited go on, and watches
    /// fire for changes since the suspension. A session that was closed or dropped meanwhile ends now.
    pub fn resume(&self, id: SessionId) {
        self.ensemble.lock().resume(id);
    }

    /// Loses the reply to the next commit of a session: the commit fails with [`Error::Unknown`], and the session
    /// reconnects, with a higher epoch.
    pub fn lose_reply(&self, id: SessionId, lost: LostReply) {
        self.ensemble.lock().lose_reply(id, lost);
    }

    /// With `true`, new sessions cannot be opened, as if no server could be reached; with `false`, they can again. Open
    /// sessions go on.
    pub fn refuse_connections(&self, refuse: bool) {
        self.ensemble.refusing.send_replace(refuse);
    }
}

impl Default for Memory {
    fn default() -> Self {
        Memory::new()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("sessions", &self.sessions()).finish_non_exhaustive()
    }
}

impl Connector for Memory {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, Error>> {
        Box::pin(async move {
            let mut refusing = self.ensemble.refusing.subscribe();
            let answered = tokio::time::timeout(timeout, refusing.wait_for(|refusing| !refusing)).await;
            if !matches!(answered, Ok(Ok(_))) {
                return Err(Error::Unreachable("the in-memory ensemble refuses connections".into()));
            }
            let session: Arc<dyn Session> =
                Arc::new(MemorySession::open(&self.ensemble, timeout, self.user.clone()));
            Ok(session)
        })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Memory::clock(self)
    }
}
