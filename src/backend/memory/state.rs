//! The state of the ensemble, under one lock: the tree, the sessions, and the watches that have not fired.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::tree::{Change, Tree, User};
use crate::backend::{CommitError, Done, Error, Fired, Loss, Op, SessionId, SessionState, path::ZnodePath};

/// When the reply to a write gets lost; see [`Memory::lose_reply`](super::Memory::lose_reply).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LostReply {
    /// The request never arrived: nothing was applied.
    BeforeApplying,
    /// The request arrived and was applied or refused. Only the reply is lost.
    AfterApplying,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) tree: Tree,
    pub(super) watches: Watches,
    sessions: BTreeMap<SessionId, Record>,
    opened: i64,
}

/// The server side of a session that has not ended.
#[derive(Debug)]
struct Record {
    timeout: Duration,
    user: User,
    epoch: u64,
    state: Arc<watch::Sender<SessionState>>,
    /// Cancelled on resume. `None` while connected.
    suspended: Option<CancellationToken>,
    /// The client has closed it while it was suspended: this has not reached the ensemble yet.
    abandoned: bool,
    lose_reply: Option<LostReply>,
    /// Commits while it was suspended, which are sent on resume.
    queue: VecDeque<Queued>,
}

#[derive(Debug)]
struct Queued {
    ops: Vec<Op>,
    now_ms: i64,
    reply: oneshot::Sender<Outcome>,
}

/// The result of a commit.
pub(super) type Outcome = Result<Vec<Done>, CommitError>;

impl Record {
    /// Ends the client side: it gets nothing from the ensemble any more.
    fn lost(&mut self, loss: Loss) {
        self.state.send_replace(SessionState::Lost(loss));
        for queued in self.queue.drain(..) {
            // The caller may have stopped waiting.
            let _ = queued.reply.send(Err(Error::Lost(loss).into()));
        }
    }
}

impl State {
    pub(super) fn new() -> Self {
        State { tree: Tree::new(), watches: Watches::default(), sessions: BTreeMap::new(), opened: 0 }
    }

    pub(super) fn sessions(&self) -> Vec<SessionId> {
        self.sessions.keys().copied().collect()
    }

    pub(super) fn open(
        &mut self,
        timeout: Duration,
        user: User,
    ) -> (SessionId, Arc<watch::Sender<SessionState>>) {
        self.opened += 1;
        self.tree.tick();
        let id = SessionId(self.opened);
        let epoch = 1;
        let state = Arc::new(watch::Sender::new(SessionState::Connected { epoch }));
        let record = Record {
            timeout,
            user,
            epoch,
            state: Arc::clone(&state),
            suspended: None,
            abandoned: false,
            lose_reply: None,
            queue: VecDeque::new(),
        };
        self.sessions.insert(id, record);
        (id, state)
    }

    /// Cuts the connection and returns the session timeout, or `None` if there was no connection.
    pub(super) fn suspend(&mut self, id: SessionId, resumed: CancellationToken) -> Option<Duration> {
        let record = self.sessions.get_mut(&id).filter(|record| record.suspended.is_none())?;
        record.suspended = Some(resumed);
        record.state.send_replace(SessionState::Suspended);
        Some(record.timeout)
    }

    pub(super) fn resume(&mut self, id: SessionId) {
        let Some(record) = self.sessions.get_mut(&id) else { return };
        if record.abandoned {
            return self.end(id, Loss::Closed);
        }
        let Some(resumed) = record.suspended.take() else { return };
        resumed.cancel();
        record.epoch += 1;
        record.state.send_replace(SessionState::Connected { epoch: record.epoch });
        self.watches.catch_up(id);
        while let Some(queued) = self.sessions.get_mut(&id).and_then(|record| record.queue.pop_front()) {
            let outcome = self.commit(id, queued.ops, queued.now_ms);
            let _ = queued.reply.send(outcome);
        }
    }

    /// The client closes the session. This reaches the ensemble only if the connection is up.
    pub(super) fn close(&mut self, id: SessionId) {
        let Some(record) = self.sessions.get_mut(&id) else { return };
        if record.suspended.is_none() {
            return self.end(id, Loss::Closed);
        }
        if !record.abandoned {
            record.abandoned = true;
            record.lost(Loss::Closed);
            self.watches.lose(id, Loss::Closed);
        }
    }

    pub(super) fn end(&mut self, id: SessionId, loss: Loss) {
        let Some(mut record) = self.sessions.remove(&id) else { return };
        if let Some(resumed) = record.suspended.take() {
            resumed.cancel();
        }
        let changes = self.tree.end_session(id);
        self.announce(&changes);
        if !record.abandoned {
            record.lost(loss);
            self.watches.lose(id, loss);
        }
    }

    pub(super) fn lose_reply(&mut self, id: SessionId, lost: LostReply) {
        if let Some(record) = self.sessions.get_mut(&id) {
            record.lose_reply = Some(lost);
        }
    }

    /// Keeps a commit until the connection is up again. It stays even if no caller waits for the reply: a client cannot
    /// take back a request.
    pub(super) fn enqueue(&mut self, id: SessionId, ops: Vec<Op>, now_ms: i64) -> oneshot::Receiver<Outcome> {
        let (reply, outcome) = oneshot::channel();
        let record = self.sessions.get_mut(&id).expect("a suspended session has a record");
        record.queue.push_back(Queued { ops, now_ms, reply });
        outcome
    }

    pub(super) fn commit(&mut self, id: SessionId, ops: Vec<Op>, now_ms: i64) -> Outcome {
        let lost = self.sessions.get_mut(&id).and_then(|record| record.lose_reply.take());
        let Some(lost) = lost else { return self.apply(id, ops, now_ms) };
        self.suspend(id, CancellationToken::new());
        if lost == LostReply::AfterApplying {
            // The client never gets this result.
            let _ = self.apply(id, ops, now_ms);
        }
        self.resume(id);
        Err(Error::Unknown("a test made the in-memory ensemble lose the reply".into()).into())
    }

    fn apply(&mut self, id: SessionId, ops: Vec<Op>, now_ms: i64) -> Outcome {
        let refused = |(index, error)| CommitError { index: Some(index), error };
        let user = self.sessions.get(&id).and_then(|record| record.user.clone());
        let (done, changes) = self.tree.commit(id, user, ops, now_ms).map_err(refused)?;
        self.announce(&changes);
        Ok(done)
    }

    fn announce(&mut self, changes: &[Change]) {
        let sessions = &self.sessions;
        // A session that has ended has no record any more. Its own watches fire later, with the loss.
        let is_suspended = |id: SessionId| sessions.get(&id).is_none_or(|record| record.suspended.is_some());
        let tree = &self.tree;
        let is_denied = |path: &ZnodePath, id: SessionId| {
            sessions.get(&id).is_some_and(|record| tree.denies(path, &record.user))
        };
        for change in changes {
            let (Change::Created(path) | Change::Set(path) | Change::Deleted(path)) = change;
            if let Change::Created(_) = change {
                // A server sends no event about a znode that the client may not read, and forgets the watch.
                self.watches.silence(path, |id| is_denied(path, id));
            }
            self.watches.fire(Kind::Node, path, is_suspended);
            if let Change::Deleted(_) = change {
                self.watches.fire(Kind::Children, path, is_suspended);
            }
            if let (Change::Created(_) | Change::Deleted(_), Some(parent)) = (change, path.parent()) {
                self.watches.fire(Kind::Children, &parent, is_suspended);
            }
        }
    }
}

/// What a watch reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// A znode and its data.
    Node,
    /// The children of a znode.
    Children,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct WatchId(u64);

/// All watches that have not fired, in the order in which they were armed.
#[derive(Debug, Default)]
pub(super) struct Watches {
    next: u64,
    armed: HashMap<WatchId, Armed>,
    by_znode: HashMap<(Kind, ZnodePath), BTreeSet<WatchId>>,
    by_session: HashMap<SessionId, BTreeSet<WatchId>>,
}

#[derive(Debug)]
struct Armed {
    session: SessionId,
    znode: (Kind, ZnodePath),
    /// There was a change while the session was suspended.
    overdue: bool,
    fired: oneshot::Sender<Fired>,
}

impl Watches {
    pub(super) fn arm(
        &mut self,
        session: SessionId,
        kind: Kind,
        path: &ZnodePath,
    ) -> (WatchId, oneshot::Receiver<Fired>) {
        let (sender, fired) = oneshot::channel();
        let id = WatchId(self.next);
        self.next += 1;
        let znode = (kind, path.clone());
        self.by_znode.entry(znode.clone()).or_default().insert(id);
        self.by_session.entry(session).or_default().insert(id);
        self.armed.insert(id, Armed { session, znode, overdue: false, fired: sender });
        (id, fired)
    }

    pub(super) fn disarm(&mut self, id: WatchId) {
        let Some(Armed { session, znode, .. }) = self.armed.remove(&id) else { return };
        remove_from(&mut self.by_znode, &znode, id);
        remove_from(&mut self.by_session, &session, id);
    }

    fn fire(&mut self, kind: Kind, path: &ZnodePath, is_suspended: impl Fn(SessionId) -> bool) {
        for id in self.by_znode.remove(&(kind, path.clone())).unwrap_or_default() {
            let armed = self.armed.get_mut(&id).expect("the index has only watches that have not fired");
            if is_suspended(armed.session) {
                armed.overdue = true;
            } else {
                self.send(id, Fired::Changed);
            }
        }
    }

    /// Makes sure that the watches of these sessions on a znode do not fire before the end of the session.
    fn silence(&mut self, path: &ZnodePath, is_denied: impl Fn(SessionId) -> bool) {
        let znode = (Kind::Node, path.clone());
        let ids = self.by_znode.get(&znode).into_iter().flatten().copied();
        let denied: Vec<_> = ids.filter(|id| is_denied(self.armed[id].session)).collect();
        for id in denied {
            remove_from(&mut self.by_znode, &znode, id);
        }
    }

    fn catch_up(&mut self, session: SessionId) {
        let ids = self.by_session.get(&session).into_iter().flatten();
        let overdue: Vec<_> = ids.copied().filter(|id| self.armed[id].overdue).collect();
        for id in overdue {
            self.send(id, Fired::Changed);
        }
    }

    fn lose(&mut self, session: SessionId, loss: Loss) {
        for id in self.by_session.remove(&session).unwrap_or_default() {
            self.send(id, Fired::Lost(loss));
        }
    }

    fn send(&mut self, id: WatchId, reason: Fired) {
        let Some(Armed { session, znode, fired, .. }) = self.armed.remove(&id) else { return };
        remove_from(&mut self.by_znode, &znode, id);
        remove_from(&mut self.by_session, &session, id);
        // The caller may be dropping the watch at this moment.
        let _ = fired.send(reason);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.armed.is_empty() && self.by_znode.is_empty() && self.by_session.is_empty()
    }
}

fn remove_from<K: std::hash::Hash + Eq>(index: &mut HashMap<K, BTreeSet<WatchId>>, key: &K, id: WatchId) {
    if let Some(ids) = index.get_mut(key) {
        ids.remove(&id);
        if ids.is_empty() {
            index.remove(key);
        }
    }
}
