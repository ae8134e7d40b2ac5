//! The calls that a hook gets: session, request and reply.

use std::{fmt, sync::Arc, time::Duration};

use crate::backend::{
    BoxFuture, CommitError, Done, Op, Session, SessionId, Stat, Watch, Znode, path::ZnodePath,
};

/// The outcome of a call. The error has an index for a commit only.
pub type Outcome = std::result::Result<Reply, CommitError>;

/// A call that is about to be made. A [`Hook`](super::Hook) gets it.
pub struct Call<'a> {
    number: u64,
    session: Option<SessionId>,
    request: Request<'a>,
    send: BoxFuture<'a, Outcome>,
}

impl<'a> Call<'a> {
    pub(super) fn new(
        number: u64,
        session: Option<SessionId>,
        request: Request<'a>,
        send: impl Future<Output = Outcome> + Send + 'a,
    ) -> Self {
        Call { number, session, request, send: Box::pin(send) }
    }

    /// The number of the call. The calls of all sessions of one [`Intercept`](super::Intercept) are counted from 1, in
    /// the order in which they begin.
    pub const fn number(&self) -> u64 {
        self.number
    }

    /// The session of the call; `None` for a call that opens one.
    pub const fn session(&self) -> Option<SessionId> {
        self.session
    }

    /// The request.
    pub const fn request(&self) -> &Request<'a> {
        &self.request
    }

    /// Makes the call. Nothing is sent before the future is polled.
    pub fn send(self) -> BoxFuture<'a, Outcome> {
        self.send
    }
}

impl fmt::Debug for Call<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call")
            .field("number", &self.number)
            .field("session", &self.session)
            .field("request", &self.request)
            .finish_non_exhaustive()
    }
}

/// The request of a [`Call`]: a method of [`Connector`](crate::backend::Connector) or [`Session`] with its arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Request<'a> {
    /// [`Connector::open`](crate::backend::Connector::open) with this timeout.
    Open(Duration),
    /// [`Session::get`].
    Get(&'a ZnodePath),
    /// [`Session::get_many`].
    GetMany(&'a [ZnodePath]),
    /// [`Session::children`].
    Children(&'a ZnodePath),
    /// [`Session::watch_children`].
    WatchChildren(&'a ZnodePath),
    /// [`Session::watch_node`].
    WatchNode(&'a ZnodePath),
    /// [`Session::commit`].
    Commit(Vec<Op>),
    /// [`Session::sync`].
    Sync(&'a ZnodePath),
    /// [`Session::close`].
    Close,
}

impl Request<'_> {
    /// The paths in the request, in its order.
    pub fn paths(&self) -> Vec<&ZnodePath> {
        match self {
            Request::Open(_) | Request::Close => Vec::new(),
            Request::Get(path)
            | Request::Children(path)
            | Request::WatchChildren(path)
            | Request::WatchNode(path)
            | Request::Sync(path) => vec![path],
            Request::GetMany(paths) => paths.iter().collect(),
            Request::Commit(ops) => ops.iter().map(Op::path).collect(),
        }
    }

    /// Whether it is a commit with an operation other than a check. A heartbeat is one of checks alone.
    pub fn is_write(&self) -> bool {
        matches!(self, Request::Commit(ops) if ops.iter().any(|op| !matches!(op, Op::Check { .. })))
    }

    /// Whether it lists children.
    pub const fn is_list(&self) -> bool {
        matches!(self, Request::Children(_) | Request::WatchChildren(_))
    }

    /// The number of bytes of paths and data in the request. The frames around them add some 20 to 50 bytes for each
    /// path.
    pub fn bytes(&self) -> usize {
        let paths: usize = self.paths().iter().map(|path| path.as_str().len()).sum();
        let Request::Commit(ops) = self else { return paths };
        let data = ops.iter().map(|op| match op {
            Op::Create { data, .. } | Op::Set { data, .. } => data.len(),
            Op::Check { .. } | Op::Delete { .. } => 0,
        });
        paths + data.sum::<usize>()
    }
}

/// The reply to a [`Call`] that succeeded, with one variant for each one of [`Request`].
#[derive(Debug)]
#[non_exhaustive]
pub enum Reply {
    /// The session that was opened. Its calls go through the hook as well.
    Opened(Arc<dyn Session>),
    /// Of [`Request::Get`].
    Znode(Option<Znode>),
    /// Of [`Request::GetMany`].
    Znodes(Vec<Option<Znode>>),
    /// Of [`Request::Children`]: the names of the children, and the stat of the parent.
    Children((Vec<String>, Stat)),
    /// Of [`Request::WatchChildren`]: the same, with a watch.
    WatchedChildren((Vec<String>, Stat), Watch),
    /// Of [`Request::WatchNode`].
    WatchedNode(Option<Stat>, Watch),
    /// Of [`Request::Commit`].
    Committed(Vec<Done>),
    /// Of [`Request::Sync`].
    Synced,
    /// Of [`Request::Close`], which cannot fail: if a hook returns an error instead, it is ignored.
    Closed,
}

impl Reply {
    /// The number of bytes of names and data in the reply. The stats add some 80 bytes each.
    pub fn bytes(&self) -> usize {
        let of = |znode: &Option<Znode>| znode.as_ref().map_or(0, |(data, _)| data.len());
        match self {
            Reply::Znode(znode) => of(znode),
            Reply::Znodes(znodes) => znodes.iter().map(of).sum(),
            Reply::Children((names, _)) | Reply::WatchedChildren((names, _), _) => {
                names.iter().map(String::len).sum()
            }
            Reply::Committed(done) => {
                let created = done.iter().map(|done| match done {
                    Done::Created(path) => path.as_str().len(),
                    Done::Checked | Done::Set(_) | Done::Deleted => 0,
                });
                created.sum()
            }
            Reply::Opened(_) | Reply::WatchedNode(..) | Reply::Synced | Reply::Closed => 0,
        }
    }
}
