//! One session to a ZooKeeper ensemble, which uses one client of the client crate.

use std::{
    fmt,
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zookeeper_client as zk;

use super::{
    super::{
        BoxFuture, CommitError, Done, Error, Fired, Loss, Op, Session, SessionId, SessionState, Stat, Watch,
        path::ZnodePath,
    },
    convert,
};
use crate::task::Tasks;

/// How many znodes one request reads, at most.
const READ_AT_ONCE: usize = 256;

/// How long [`Session::close`] waits for the forwarding task, which ends by itself then.
const FORWARD_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct ZooKeeperSession {
    id: SessionId,
    timeout: Duration,
    acls: zk::Acls<'static>,
    max_request_bytes: usize,
    state: watch::Receiver<SessionState>,
    /// `None` once closed: the drop of the last clone of the client ends the session at the server.
    client: Mutex<Option<Arc<zk::Client>>>,
    /// Ends the requests under way, so that they drop their clones of the client.
    closing: CancellationToken,
    tasks: Tasks,
}

impl ZooKeeperSession {
    pub(super) fn new(client: zk::Client, acls: zk::Acls<'static>, max_request_bytes: usize) -> Self {
        let id = SessionId(client.session_id().0);
        let mut changes = client.state_watcher();
        let (publish, state) = watch::channel(SessionState::Suspended);
        let mut publish = Publisher { session: id, state: publish, epoch: 0 };
        publish.publish(changes.state());
        let tasks = Tasks::new();
        tasks.spawn("zookeeper session", forward(changes, publish, tasks.cancelled()));
        ZooKeeperSession {
            id,
            timeout: client.session_timeout(),
            acls,
            max_request_bytes,
            state,
            client: Mutex::new(Some(Arc::new(client))),
            closing: CancellationToken::new(),
            tasks,
        }
    }

    fn client(&self) -> Result<Arc<zk::Client>, Error> {
        let client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        client.clone().ok_or_else(|| match *self.state.borrow() {
            SessionState::Lost(loss) => Error::Lost(loss),
            _ => Error::Lost(Loss::Closed),
        })
    }

    /// Refuses a request of so many bytes if the server would close the connection because of it.
    fn fits(&self, bytes: usize) -> Result<(), Error> {
        let limit = self.max_request_bytes;
        if bytes > limit { Err(Error::TooLarge { bytes, limit }) } else { Ok(()) }
    }

    /// The path for a request that has this path alone.
    fn path<'a>(&self, path: &'a ZnodePath) -> Result<&'a str, Error> {
        self.fits(path.as_str().len())?;
        Ok(path.as_str())
    }

    /// The reply of the server, unless the session is closed meanwhile.
    async fn answer<T>(&self, answer: impl Future<Output = Result<T, zk::Error>>) -> Result<T, Error> {
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|error| convert::error(&error)),
            () = self.closing.cancelled() => Err(Error::Lost(Loss::Closed)),
        }
    }

    fn watch(&self, watcher: zk::OneshotWatcher) -> Watch {
        let mut state = self.state.clone();
        Watch::new(async move {
            tokio::select! {
                biased;
                // First, because the watcher panics when the runtime of the session has ended (D7).
                loss = lost(&mut state) => Fired::Lost(loss),
                event = watcher.changed() => match (event.event_type, event.session_state) {
                    (zk::EventType::Session, zk::SessionState::Expired) => Fired::Lost(Loss::Expired),
                    (zk::EventType::Session, zk::SessionState::AuthFailed) => Fired::Lost(Loss::AuthFailed),
                    (zk::EventType::Session, zk::SessionState::Closed) => Fired::Lost(Loss::Closed),
                    _ => Fired::Changed,
                },
            }
        })
    }
}

/// Waits until the session has ended.
async fn lost(state: &mut watch::Receiver<SessionState>) -> Loss {
    match state.wait_for(|state| matches!(state, SessionState::Lost(_))).await.as_deref() {
        Ok(SessionState::Lost(loss)) => *loss,
        _ => Loss::Closed,
    }
}

/// Publishes the state of the session to its handles. Its drop publishes that the session is closed: after the end of
/// the task, a panic in it, or the end of the runtime (D7).
struct Publisher {
    session: SessionId,
    state: watch::Sender<SessionState>,
    epoch: u64,
}

impl Publisher {
    fn publish(&mut self, state: zk::SessionState) {
        let state = match state {
            zk::SessionState::SyncConnected => {
                // D7: after a quick loss of the connection there is only another `SyncConnected`.
                self.epoch += 1;
                SessionState::Connected { epoch: self.epoch }
            }
            zk::SessionState::Disconnected | zk::SessionState::ConnectedReadOnly => SessionState::Suspended,
            zk::SessionState::AuthFailed => SessionState::Lost(Loss::AuthFailed),
            zk::SessionState::Expired => SessionState::Lost(Loss::Expired),
            zk::SessionState::Closed => SessionState::Lost(Loss::Closed),
        };
        tracing::debug!(session = %self.session, ?state, "the state of the session has changed");
        self.state.send_replace(state);
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        if !matches!(*self.state.borrow(), SessionState::Lost(_)) {
            self.publish(zk::SessionState::Closed);
        }
    }
}

async fn forward(mut changes: zk::StateWatcher, mut publish: Publisher, cancelled: CancellationToken) {
    loop {
        let state = tokio::select! {
            biased;
            state = changes.changed() => state,
            () = cancelled.cancelled() => return,
        };
        publish.publish(state);
        // D7: nothing follows the final state, not even the end of the stream.
        if state.is_terminated() {
            return;
        }
    }
}

impl Session for ZooKeeperSession {
    fn id(&self) -> SessionId {
        self.id
    }

    fn timeout(&self) -> Duration {
        self.timeout
    }

    fn max_request_bytes(&self) -> usize {
        self.max_request_bytes
    }

    fn state(&self) -> watch::Receiver<SessionState> {
        self.state.clone()
    }

    fn get<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<Option<(Vec<u8>, Stat)>, Error>> {
        Box::pin(async move {
            let client = self.client()?;
            match self.answer(client.get_data(self.path(path)?)).await {
                Ok((data, stat)) => Ok(Some((data, convert::stat(&stat)))),
                Err(Error::NoNode) => Ok(None),
                Err(error) => Err(error),
            }
        })
    }

    fn get_many<'a>(
        &'a self,
        paths: &'a [ZnodePath],
    ) -> BoxFuture<'a, Result<Vec<Option<(Vec<u8>, Stat)>>, Error>> {
        Box::pin(async move {
            let client = self.client()?;
            let mut answers = Vec::new();
            let mut rest = paths;
            while !rest.is_empty() {
                let mut reader = client.new_multi_reader();
                let (mut count, mut bytes) = (0, 0);
                for path in rest.iter().take(READ_AT_ONCE) {
                    bytes += self.path(path)?.len() + 32;
                    if count > 0 && bytes > self.max_request_bytes {
                        break;
                    }
                    reader.add_get_data(path.as_str()).map_err(|error| convert::error(&error))?;
                    count += 1;
                }
                rest = &rest[count..];
                // The request is sent here, so that all of them are under way before the first reply.
                answers.push(reader.commit());
            }
            let mut found = Vec::with_capacity(paths.len());
            for answer in answers {
                for result in self.answer(answer).await? {
                    found.push(match result {
                        zk::MultiReadResult::Data { data, stat } => Some((data, convert::stat(&stat))),
                        zk::MultiReadResult::Error { err: zk::Error::NoNode } => None,
                        zk::MultiReadResult::Error { err } => return Err(convert::error(&err)),
                        other => {
                            return Err(Error::Unknown(format!("a reply to another request: {other:?}")));
                        }
                    });
                }
            }
            Ok(found)
        })
    }

    fn children<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Vec<String>, Stat), Error>> {
        Box::pin(async move {
            let client = self.client()?;
            let (names, stat) = self.answer(client.get_children(self.path(path)?)).await?;
            Ok((names, convert::stat(&stat)))
        })
    }

    fn watch_children<'a>(
        &'a self,
        path: &'a ZnodePath,
    ) -> BoxFuture<'a, Result<(Vec<String>, Stat, Watch), Error>> {
        Box::pin(async move {
            let client = self.client()?;
            // D1, D9: one-shot, and few of them.
            let (names, stat, watcher) = self.answer(client.get_and_watch_children(self.path(path)?)).await?;
            Ok((names, convert::stat(&stat), self.watch(watcher)))
        })
    }

    fn watch_node<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Option<Stat>, Watch), Error>> {
        Box::pin(async move {
            let client = self.client()?;
            let (stat, watcher) = self.answer(client.check_and_watch_stat(self.path(path)?)).await?;
            Ok((stat.as_ref().map(convert::stat), self.watch(watcher)))
        })
    }

    fn commit(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<Vec<Done>, CommitError>> {
        Box::pin(async move {
            if ops.is_empty() {
                return Ok(Vec::new());
            }
            let client = self.client()?;
            self.fits(convert::commit_bytes(&ops, &self.acls))?;
            let mut writer = client.new_multi_writer();
            for (index, op) in ops.iter().enumerate() {
                let path = op.path().as_str();
                let added = match op {
                    // -1 means any version.
                    Op::Check { version, .. } => writer.add_check_version(path, version.unwrap_or(-1)),
                    Op::Create { data, mode, .. } => {
                        writer.add_create(path, data, &convert::mode(*mode).with_acls(self.acls))
                    }
                    Op::Set { data, version, .. } => writer.add_set_data(path, data, *version),
                    Op::Delete { version, .. } => writer.add_delete(path, *version),
                };
                added.map_err(|error| CommitError { index: Some(index), error: convert::error(&error) })?;
            }
            let results = tokio::select! {
                biased;
                answer = writer.commit() => answer.map_err(convert::commit_error)?,
                () = self.closing.cancelled() => return Err(Error::Lost(Loss::Closed).into()),
            };
            Ok(results.into_iter().map(convert::done).collect::<Result<_, _>>()?)
        })
    }

    fn sync<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let client = self.client()?;
            self.answer(client.sync(self.path(path)?)).await
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.closing.cancel();
            drop(self.client.lock().unwrap_or_else(PoisonError::into_inner).take());
            // The runtime may end after this, so the request to end the session must have been sent by then. While the
            // session is suspended it cannot be sent; after the timeout the server has ended the session by itself.
            let _ = tokio::time::timeout(self.timeout, lost(&mut self.state.clone())).await;
            self.tasks.shutdown(FORWARD_TIMEOUT).await;
        })
    }
}

impl fmt::Debug for ZooKeeperSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperSession")
            .field("id", &self.id)
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}
