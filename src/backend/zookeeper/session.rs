//! One session to a ZooKeeper ensemble, over one connection after another.

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use zookeeper_client as zk;

use super::{
    super::{
        BoxFuture, CommitError, Done, Error, Fired, Loss, Op, Session, SessionId, SessionState, Stat, Watch,
        path::ZnodePath,
    },
    convert,
    dial::Dialer,
    link::Link,
    reconnect::{Contact, Links, Reconnector},
};
use crate::{clock::Moment, task::Tasks};

/// How many znodes one request reads, at most.
const READ_AT_ONCE: usize = 256;

/// How long [`Session::close`] waits for the tasks, which end by themselves then.
const END_TIMEOUT: Duration = Duration::from_secs(1);

pub(super) struct ZooKeeperSession {
    id: SessionId,
    timeout: Duration,
    requested: Moment,
    /// Whether the access control list of new znodes excludes others.
    is_private: bool,
    acls: zk::Acls<'static>,
    max_request_bytes: usize,
    links: Links,
    contact: Arc<Contact>,
    /// Ends the requests under way and then the session.
    closing: CancellationToken,
    tasks: Arc<Tasks>,
}

impl ZooKeeperSession {
    /// The session of `link`, which was asked for at `requested`.
    pub(super) fn new(
        link: Link,
        dialer: Dialer,
        requested: Moment,
        max_request_bytes: usize,
        tasks: Arc<Tasks>,
    ) -> Self {
        let id = SessionId(link.client().session_id().0);
        let timeout = link.client().session_timeout();
        let contact = Arc::new(Contact::new(timeout));
        let closing = CancellationToken::new();
        let (acls, is_private) = (dialer.acls(), dialer.is_private());
        let (links, reconnector) =
            Reconnector::new(link, dialer, contact.clone(), closing.clone(), tasks.clone());
        tasks.spawn("zookeeper session", reconnector.run());
        ZooKeeperSession {
            id,
            timeout,
            requested,
            is_private,
            acls,
            max_request_bytes,
            links,
            contact,
            closing,
            tasks,
        }
    }

    /// The present connection. Waits for one while the session is suspended.
    async fn link(&self) -> Result<Arc<Link>, Error> {
        self.links.link().await.map_err(Error::Lost)
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
            answer = answer => {
                let answer = answer.map_err(|error| convert::error(&error));
                self.contact.note(answer.as_ref().err());
                answer
            }
            () = self.closing.cancelled() => Err(Error::Lost(Loss::Closed)),
        }
    }

    fn watch(&self, link: &Link, watcher: zk::OneshotWatcher, watched: Watched) -> Watch {
        let (links, mut armed) = (self.links.clone(), Some((link.serving().clone(), watcher)));
        Watch::new(async move {
            loop {
                if let Some((serving, watcher)) = armed.take() {
                    let event = tokio::select! {
                        biased;
                        loss = links.lost() => return Fired::Lost(loss),
                        event = serving.event(watcher) => event,
                    };
                    match event.map(|event| (event.event_type, event.session_state)) {
                        Some((zk::EventType::Session, zk::SessionState::Expired)) => {
                            return Fired::Lost(Loss::Expired);
                        }
                        Some((zk::EventType::Session, zk::SessionState::AuthFailed)) => {
                            return Fired::Lost(Loss::AuthFailed);
                        }
                        // The client was stopped.
                        Some((zk::EventType::Session, _)) | None => {}
                        Some(_) => return Fired::Changed,
                    }
                }
                let link = match links.link().await {
                    Ok(link) => link,
                    Err(loss) => return Fired::Lost(loss),
                };
                match watched.arm_again(&link).await {
                    Ok(Some(watcher)) => armed = Some((link.serving().clone(), watcher)),
                    Err(error) if convert::error(&error).is_unknown() => link.serving().ended().await,
                    Ok(None) | Err(_) => return Fired::Changed,
                }
            }
        })
    }
}

/// What a watch waits for: a change since this was read. The watches of a connection end with it, so they are set again
/// on the next one.
enum Watched {
    /// The creation of the parent, and the last creation or deletion of a child.
    Children(ZnodePath, (i64, i64)),
    /// The creation and the last change of the znode, if there is one.
    Node(ZnodePath, Option<(i64, i64)>),
}

impl Watched {
    fn children(path: &ZnodePath, stat: &zk::Stat) -> Self {
        Watched::Children(path.clone(), (stat.czxid, stat.pzxid))
    }

    fn node(path: &ZnodePath, stat: Option<&zk::Stat>) -> Self {
        Watched::Node(path.clone(), stat.map(|stat| (stat.czxid, stat.mzxid)))
    }

    /// Sets the watch on another connection; `None` if there was a change meanwhile.
    async fn arm_again(&self, link: &Link) -> Result<Option<zk::OneshotWatcher>, zk::Error> {
        match self {
            Watched::Children(path, seen) => {
                let (_, stat, watcher) = link.client().get_and_watch_children(path.as_str()).await?;
                Ok((*seen == (stat.czxid, stat.pzxid)).then_some(watcher))
            }
            Watched::Node(path, seen) => {
                let (stat, watcher) = link.client().check_and_watch_stat(path.as_str()).await?;
                Ok((*seen == stat.map(|stat| (stat.czxid, stat.mzxid))).then_some(watcher))
            }
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

    fn requested(&self) -> Option<Moment> {
        Some(self.requested)
    }

    fn give_up_after(&self, silence: Duration) {
        self.contact.give_up_after(silence);
    }

    fn max_request_bytes(&self) -> usize {
        self.max_request_bytes
    }

    fn state(&self) -> watch::Receiver<SessionState> {
        self.links.state()
    }

    fn get<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<Option<(Vec<u8>, Stat)>, Error>> {
        Box::pin(async move {
            let link = self.link().await?;
            let client = link.client();
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
            let link = self.link().await?;
            let client = link.client();
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
            let link = self.link().await?;
            let client = link.client();
            let (names, stat) = self.answer(client.get_children(self.path(path)?)).await?;
            Ok((names, convert::stat(&stat)))
        })
    }

    fn watch_children<'a>(
        &'a self,
        path: &'a ZnodePath,
    ) -> BoxFuture<'a, Result<(Vec<String>, Stat, Watch), Error>> {
        Box::pin(async move {
            let link = self.link().await?;
            let client = link.client();
            // D1: one-shot.
            let (names, stat, watcher) = self.answer(client.get_and_watch_children(self.path(path)?)).await?;
            let watch = self.watch(&link, watcher, Watched::children(path, &stat));
            Ok((names, convert::stat(&stat), watch))
        })
    }

    fn watch_node<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Option<Stat>, Watch), Error>> {
        Box::pin(async move {
            let link = self.link().await?;
            let client = link.client();
            let (stat, watcher) = self.answer(client.check_and_watch_stat(self.path(path)?)).await?;
            let watch = self.watch(&link, watcher, Watched::node(path, stat.as_ref()));
            Ok((stat.as_ref().map(convert::stat), watch))
        })
    }

    fn commit(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<Vec<Done>, CommitError>> {
        Box::pin(async move {
            if ops.is_empty() {
                return Ok(Vec::new());
            }
            let link = self.link().await?;
            let client = link.client();
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
                answer = writer.commit() => {
                    let answer = answer.map_err(convert::commit_error);
                    self.contact.note(answer.as_ref().err().map(|refused| &refused.error));
                    answer?
                }
                () = self.closing.cancelled() => return Err(Error::Lost(Loss::Closed).into()),
            };
            Ok(results.into_iter().map(convert::done).collect::<Result<_, _>>()?)
        })
    }

    fn is_open_to_others<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<bool, Error>> {
        Box::pin(async move {
            if !self.is_private {
                return Ok(false);
            }
            let link = self.link().await?;
            let (acls, _) = self.answer(link.client().get_acl(self.path(path)?)).await?;
            // Reading is no harm.
            let is_open = |acl: &zk::Acl| acl.scheme() == "world" && acl.permission() != zk::Permission::READ;
            Ok(acls.iter().any(is_open))
        })
    }

    fn sync<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let link = self.link().await?;
            let client = link.client();
            self.answer(client.sync(self.path(path)?)).await
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            self.closing.cancel();
            // The runtime may end after this, so the request to end the session must have been sent by then. After the
            // timeout the server has ended a suspended session by itself.
            let _ = tokio::time::timeout(self.timeout, self.links.lost()).await;
            self.tasks.shutdown(END_TIMEOUT).await;
        })
    }
}

impl Drop for ZooKeeperSession {
    fn drop(&mut self) {
        self.closing.cancel();
    }
}

impl fmt::Debug for ZooKeeperSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeperSession")
            .field("id", &self.id)
            .field("state", &*self.links.state().borrow())
            .finish_non_exhaustive()
    }
}
