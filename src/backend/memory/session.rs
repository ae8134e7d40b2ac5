//! The client side of a session: waits while it is suspended, and closes it when the last handle is dropped.

use std::{
    fmt,
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::{oneshot, watch};

use super::{
    ensemble::Ensemble,
    state::{Kind, State, WatchId},
    tree::User,
};
use crate::backend::{
    BoxFuture, CommitError, Done, Error, Fired, Loss, MAX_REQUEST_BYTES, Op, Session, SessionId,
    SessionState, Stat, Watch, path::ZnodePath,
};
use crate::clock::{Clock as _, Moment};

pub(super) struct MemorySession {
    ensemble: Arc<Ensemble>,
    id: SessionId,
    timeout: Duration,
    user: User,
    requested: Moment,
    /// Written only under the lock of the ensemble.
    state: Arc<watch::Sender<SessionState>>,
}

impl MemorySession {
    pub(super) fn open(ensemble: &Arc<Ensemble>, timeout: Duration, user: User) -> Self {
        let (id, state) = ensemble.lock().open(timeout, user.clone());
        let requested = ensemble.clock.now();
        MemorySession { ensemble: Arc::clone(ensemble), id, timeout, user, requested, state }
    }

    /// To be called under the lock of the ensemble.
    fn has_connection(&self) -> Result<bool, Error> {
        match *self.state.borrow() {
            SessionState::Connected { .. } => Ok(true),
            SessionState::Suspended => Ok(false),
            SessionState::Lost(loss) => Err(Error::Lost(loss)),
        }
    }

    /// Calls `act` as soon as the connection is up.
    async fn connected<T>(&self, act: impl FnOnce(&mut State) -> T) -> Result<T, Error> {
        // While the connection is up, nothing below waits. This lets other tasks run all the same.
        tokio::task::consume_budget().await;
        let mut changes = self.state.subscribe();
        loop {
            {
                let mut state = self.ensemble.lock();
                if self.has_connection()? {
                    return Ok(act(&mut state));
                }
            }
            let over = changes.wait_for(|state| *state != SessionState::Suspended).await;
            over.expect("this session holds the sender");
        }
    }

    fn watch(&self, id: WatchId, fired: oneshot::Receiver<Fired>) -> Watch {
        let disarm = Disarm { ensemble: Arc::downgrade(&self.ensemble), id };
        Watch::new(async move {
            let _disarm = disarm;
            // Without the ensemble there is no session, either.
            fired.await.unwrap_or(Fired::Lost(Loss::Closed))
        })
    }
}

impl fmt::Debug for MemorySession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = *self.state.borrow();
        f.debug_struct("MemorySession").field("id", &self.id).field("state", &state).finish_non_exhaustive()
    }
}

impl Drop for MemorySession {
    fn drop(&mut self) {
        self.ensemble.lock().close(self.id);
    }
}

impl Session for MemorySession {
    fn id(&self) -> SessionId {
        self.id
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn requested(&self) -> Option<Moment> {
        Some(self.requested)
    }

    fn state(&self) -> watch::Receiver<SessionState> {
        self.state.subscribe()
    }

    fn get<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<Option<(Vec<u8>, Stat)>, Error>> {
        Box::pin(async move { self.connected(|state| state.get(path, &self.user)).await? })
    }

    fn get_many<'a>(
        &'a self,
        paths: &'a [ZnodePath],
    ) -> BoxFuture<'a, Result<Vec<Option<(Vec<u8>, Stat)>>, Error>> {
        Box::pin(async move {
            self.connected(|state| paths.iter().map(|path| state.get(path, &self.user)).collect()).await?
        })
    }

    fn children<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Vec<String>, Stat), Error>> {
        Box::pin(async move { self.connected(|state| state.tree.children(path, &self.user)).await? })
    }

    fn watch_children<'a>(
        &'a self,
        path: &'a ZnodePath,
    ) -> BoxFuture<'a, Result<(Vec<String>, Stat, Watch), Error>> {
        Box::pin(async move {
            let read = |state: &mut State| {
                let (names, stat) = state.tree.children(path, &self.user)?;
                Ok((names, stat, state.watches.arm(self.id, Kind::Children, path)))
            };
            let (names, stat, (id, fired)) = self.connected(read).await??;
            Ok((names, stat, self.watch(id, fired)))
        })
    }

    fn watch_node<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Option<Stat>, Watch), Error>> {
        Box::pin(async move {
            let read = |state: &mut State| {
                let stat = state.tree.get(path, &self.user)?.map(|(_, stat)| stat);
                Ok((stat, state.watches.arm(self.id, Kind::Node, path)))
            };
            let (stat, (id, fired)) = self.connected(read).await??;
            Ok((stat, self.watch(id, fired)))
        })
    }

    fn commit(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<Vec<Done>, CommitError>> {
        Box::pin(async move {
            if ops.is_empty() {
                return Ok(Vec::new());
            }
            check_size(ops.iter().map(Op::encoded_len).sum())?;
            let now_ms = self.ensemble.now_ms();
            tokio::task::consume_budget().await;
            let outcome = {
                let mut state = self.ensemble.lock();
                if self.has_connection()? {
                    return state.commit(self.id, ops, now_ms);
                }
                state.enqueue(self.id, ops, now_ms)
            };
            outcome.await.expect("every commit is answered before its session is forgotten")
        })
    }

    fn is_open_to_others<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            if self.user.is_none() {
                return Ok(false);
            }
            self.connected(|state| state.tree.is_open(path)).await?
        })
    }

    fn sync<'a>(&'a self, _path: &'a ZnodePath) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.connected(|_| ()))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async { self.ensemble.lock().close(self.id) })
    }
}

impl State {
    fn get(&self, path: &ZnodePath, user: &User) -> Result<Option<(Vec<u8>, Stat)>, Error> {
        Ok(self.tree.get(path, user)?.map(|(data, stat)| (data.to_vec(), stat)))
    }
}

/// Removes a watch when its handle is dropped.
struct Disarm {
    ensemble: Weak<Ensemble>,
    id: WatchId,
}

impl Drop for Disarm {
    fn drop(&mut self) {
        if let Some(ensemble) = self.ensemble.upgrade() {
            ensemble.lock().watches.disarm(self.id);
        }
    }
}

fn check_size(bytes: usize) -> Result<(), Error> {
    let limit = MAX_REQUEST_BYTES;
    if bytes > limit { Err(Error::TooLarge { bytes, limit }) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{Connector as _, CreateMode, Memory};

    #[tokio::test]
    async fn watches_are_forgotten_when_they_fire_are_dropped_or_lose_their_session() {
        let memory = Memory::new();
        let path = ZnodePath::parse("/a").unwrap();
        let session = memory.open(Duration::from_secs(1)).await.unwrap();
        let (_, dropped) = session.watch_node(&path).await.unwrap();
        let (_, mut fires) = session.watch_node(&path).await.unwrap();
        drop(dropped);
        session.commit(vec![Op::create(&path, "", CreateMode::Persistent)]).await.unwrap();
        assert_eq!(fires.fired().await, Fired::Changed);
        assert!(memory.ensemble.lock().watches.is_empty());
        let (.., mut lost) = session.watch_children(&path).await.unwrap();
        drop(session);
        assert_eq!(lost.fired().await, Fired::Lost(Loss::Closed));
        assert!(memory.ensemble.lock().watches.is_empty());
    }
}
