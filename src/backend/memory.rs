//! An ensemble in the process: [`Memory`], for tests, demonstrations and services without a server.
//!
//! It behaves as ZooKeeper 3.8 does (the differential test in the module `testing` compares the two),
//! on tokio's clock, so that hours pass in no time where tokio's time is paused. On top it can be told to
//! misbehave: [`Memory::expire`], [`Memory::suspend`], [`Memory::lose_reply`], [`Memory::refuse_connections`].
//! A member that crashes is a session that is suspended and then dropped: nothing reaches the ensemble any
//! more, and the session expires after its timeout.
//!
//! What follows a change comes in a fixed order: the tree, then the watches of other sessions in the order of
//! the operations, then, if a session ended, its state and after that its own watches.

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
use self::{ensemble::Ensemble, session::MemorySession};
use crate::{
    backend::{BoxFuture, Connector, Error, Loss, Session, SessionId},
    clock::{Clock, TokioClock},
};

/// An ensemble in the process. Clones are handles to the same one.
#[derive(Clone)]
pub struct Memory {
    ensemble: Arc<Ensemble>,
}

impl Memory {
    /// An ensemble without znodes.
    pub fn new() -> Self {
        Memory { ensemble: Arc::new(Ensemble::new()) }
    }

    /// The sessions that have not ended, oldest first. Suspended and abandoned ones count until they expire.
    pub fn sessions(&self) -> Vec<SessionId> {
        self.ensemble.lock().sessions()
    }

    /// The clock of this ensemble's sessions, to let it [`jump`](TokioClock::jump).
    pub fn clock(&self) -> Arc<TokioClock> {
        Arc::clone(&self.ensemble.clock)
    }

    /// Ends a session at once, as a server does that has not heard from its client in time. The client learns
    /// of it in the same moment, even if it was suspended. Does nothing if there is no such session.
    pub fn expire(&self, id: SessionId) {
        self.ensemble.lock().end(id, Loss::Expired);
    }

    /// Cuts the connection of a session: its operations hang and its watches are silent, until it is
    /// [resumed](Memory::resume) or its timeout has passed and it expires. A commit that hangs is applied on
    /// resume even if its future was dropped: no client takes back what it has sent.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime, which times the expiry.
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

    /// Mends the connection of a suspended session: it has a higher epoch, operations that hung go on, and
    /// watches fire for what changed in the gap. A session that was closed or dropped meanwhile ends now.
    pub fn resume(&self, id: SessionId) {
        self.ensemble.lock().resume(id);
    }

    /// Loses the reply to the next commit of a session: it fails with [`Error::Unknown`] and the session
    /// reconnects, which shows as a higher epoch.
    pub fn lose_reply(&self, id: SessionId, lost: LostReply) {
        self.ensemble.lock().lose_reply(id, lost);
    }

    /// Stops or starts answering new connections, as if no server could be reached. Open sessions go on.
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
            let session: Arc<dyn Session> = Arc::new(MemorySession::open(&self.ensemble, timeout));
            Ok(session)
        })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Memory::clock(self)
    }
}
