//! The one seam to the store, at znode altitude: [`Connector`], [`Session`], [`Op`], [`Watch`].
//!
//! ZooKeeper keeps a tree of small nodes. A client opens a *session*, which the server ends when it has not
//! heard from the client for the session timeout; *ephemeral* znodes vanish with the session that created
//! them. A *watch* fires once when a znode changes. A *transaction* applies several writes or none of them.
//! Groups, boards and queues are written once above this seam; two backends implement it: `ZooKeeper` of the
//! module `zookeeper` and the in-process [`Memory`]. The conformance suite in the module `testing` says in code
//! what an implementation owes its callers. (Each of these two modules needs the cargo feature of its name.)
//!
//! Rules that shaped it, each learned from a measurement:
//!
//! - [`Connector::open`] always gives a **new** session. A session never comes back once it is
//!   [`SessionState::Lost`]; whoever kept ephemeral znodes in it opens a new one and starts again.
//! - All writes go through [`Session::commit`], so that there is one place where an outcome can be
//!   [`Error::Unknown`]: the write was sent, the reply was lost, and only reading back can tell. Dropping the
//!   future of a commit does not undo it: the request may already be on its way.
//! - Watches are one-shot and say only "look again". A change that happens while the connection is down fires
//!   them after the reconnect.
//! - A read proves nothing about the session: a server that is cut from its ensemble goes on answering reads.
//!   A commit, even one of checks alone, goes through the leader.

pub mod memory;
pub mod path;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::sync::watch;

pub use self::memory::Memory;
use self::path::ZnodePath;
use crate::clock::Clock;
pub use crate::future::BoxFuture;

/// What the store answers, or why it does not.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A znode as it was read: its data and its stat.
pub type Znode = (Vec<u8>, Stat);

/// Opens sessions to one store.
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// Opens a new session and asks for `timeout`; [`Session::timeout`] says what the server granted.
    ///
    /// Takes at most about `timeout`. Dropping the future gives the session back, if one was opened.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] if no server answered in time, [`Error::Lost`] with [`Loss::AuthFailed`] if the
    /// server refused the credentials.
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>>>;

    /// The clock by which this store's sessions are measured.
    fn clock(&self) -> Arc<dyn Clock>;
}

/// One session. Dropping the last handle closes it without waiting for the server's word.
pub trait Session: fmt::Debug + Send + Sync + 'static {
    /// Its id: what [`Stat::ephemeral_owner`] says of the znodes it owns.
    fn id(&self) -> SessionId;

    /// The session timeout that the server granted.
    fn timeout(&self) -> Duration;

    /// The largest request that it sends, in bytes. Larger ones are [`Error::TooLarge`].
    fn max_request_bytes(&self) -> usize {
        MAX_REQUEST_BYTES
    }

    /// Its state. A latest-value channel: quick changes may coalesce, so a reconnect shows as a higher `epoch`.
    fn state(&self) -> watch::Receiver<SessionState>;

    /// The data and stat of a znode, `None` if there is none.
    fn get<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<Option<Znode>>>;

    /// Like [`Session::get`] for several znodes in one round trip, in the order of `paths`. Not a snapshot.
    fn get_many<'a>(&'a self, paths: &'a [ZnodePath]) -> BoxFuture<'a, Result<Vec<Option<Znode>>>>;

    /// The names of the children in no particular order, and the stat of the parent, as of one moment.
    ///
    /// # Errors
    ///
    /// [`Error::NoNode`] if there is no such znode.
    fn children<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Vec<String>, Stat)>>;

    /// Like [`Session::children`], with a watch that fires when a child is created or deleted, or the parent
    /// is deleted. It does not fire for the data of a child.
    fn watch_children<'a>(&'a self, path: &'a ZnodePath)
    -> BoxFuture<'a, Result<(Vec<String>, Stat, Watch)>>;

    /// The stat of a znode, `None` if there is none, with a watch that fires when it is created, deleted or its
    /// data is set.
    fn watch_node<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Option<Stat>, Watch)>>;

    /// Applies all of `ops` or none, in order, and returns one [`Done`] for each.
    ///
    /// An empty list is `Ok` and sends nothing. A commit of checks alone changes no stat and fires no watch.
    ///
    /// # Errors
    ///
    /// [`CommitError`]: with an index if the server refused that operation (nothing was applied), without one
    /// if the request as a whole failed; then [`Error::is_unknown`] says whether it may have been applied.
    fn commit(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<Vec<Done>, CommitError>>;

    /// Waits until this session's server has seen every write that was acknowledged before the call.
    fn sync<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<()>>;

    /// Ends the session and its ephemeral znodes; returns when the server has confirmed it, or when it is clear
    /// that it will not. Calling it twice does no harm.
    fn close(&self) -> BoxFuture<'_, ()>;
}

/// Identifies a session for as long as the store exists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub i64);

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Where a session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// In contact. `epoch` grows with each reconnect.
    Connected {
        /// Counts the connections of this session, from 1.
        epoch: u64,
    },
    /// Out of contact; the session may or may not still live.
    Suspended,
    /// Over, for good.
    Lost(Loss),
}

/// Why a session is over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The server ended it: it had not heard from us for the session timeout.
    Expired,
    /// We ended it.
    Closed,
    /// The server refused our credentials.
    AuthFailed,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Loss::Expired => "the session has expired",
            Loss::Closed => "the session is closed",
            Loss::AuthFailed => "the server refused the credentials",
        })
    }
}

/// What the store knows about a znode beside its data.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Stat {
    /// The transaction that created it.
    pub czxid: i64,
    /// The transaction that last set its data.
    pub mzxid: i64,
    /// The transaction that last created or deleted a child.
    pub pzxid: i64,
    /// How often its data was set.
    pub version: i32,
    /// How many children were ever created and deleted.
    pub cversion: i32,
    /// The session it vanishes with; `None` for a persistent znode.
    pub ephemeral_owner: Option<SessionId>,
    /// The length of its data, in bytes.
    pub data_length: i32,
    /// How many children it has.
    pub num_children: i32,
    /// Wall-clock time of its creation at the server, in milliseconds since 1970. For display only.
    pub created_ms: i64,
    /// Wall-clock time of its last change at the server, in milliseconds since 1970. For display only.
    pub modified_ms: i64,
}

/// How long a znode lives and how it is named.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum CreateMode {
    /// Until it is deleted.
    Persistent,
    /// Until it is deleted; ten digits are appended to its name.
    PersistentSequential,
    /// Until the session ends.
    Ephemeral,
    /// Until the session ends; ten digits are appended to its name.
    EphemeralSequential,
}

impl CreateMode {
    /// Whether the znode vanishes with its session.
    pub const fn is_ephemeral(self) -> bool {
        matches!(self, CreateMode::Ephemeral | CreateMode::EphemeralSequential)
    }

    /// Whether the server appends a number to the name: the count of creates under the parent so far.
    pub const fn is_sequential(self) -> bool {
        matches!(self, CreateMode::PersistentSequential | CreateMode::EphemeralSequential)
    }
}

/// One write of a transaction. A version of `None` accepts any version.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Op {
    /// Fails unless the znode exists, with this data version.
    Check {
        /// The znode.
        path: ZnodePath,
        /// The expected data version.
        version: Option<i32>,
    },
    /// Creates a znode. The parent has to exist and must not be ephemeral.
    Create {
        /// The znode; the server appends to the name if `mode` is sequential.
        path: ZnodePath,
        /// Its data.
        data: Vec<u8>,
        /// Its life and naming.
        mode: CreateMode,
    },
    /// Sets the data of a znode.
    Set {
        /// The znode.
        path: ZnodePath,
        /// The new data.
        data: Vec<u8>,
        /// The expected data version.
        version: Option<i32>,
    },
    /// Deletes a znode without children.
    Delete {
        /// The znode.
        path: ZnodePath,
        /// The expected data version.
        version: Option<i32>,
    },
}

impl Op {
    /// [`Op::Check`] that the znode exists, whatever its version.
    pub fn exists(path: &ZnodePath) -> Op {
        Op::Check { path: path.clone(), version: None }
    }

    /// [`Op::Create`].
    pub fn create(path: &ZnodePath, data: impl Into<Vec<u8>>, mode: CreateMode) -> Op {
        Op::Create { path: path.clone(), data: data.into(), mode }
    }

    /// [`Op::Set`].
    pub fn set(path: &ZnodePath, data: impl Into<Vec<u8>>, version: Option<i32>) -> Op {
        Op::Set { path: path.clone(), data: data.into(), version }
    }

    /// [`Op::Delete`].
    pub fn delete(path: &ZnodePath, version: Option<i32>) -> Op {
        Op::Delete { path: path.clone(), version }
    }

    /// About how many bytes it adds to a request: header, path and data with their lengths, version or flags, and for a
    /// create the access control list of a znode that is open to all.
    pub fn encoded_len(&self) -> usize {
        let path = 9 + 4 + self.path().as_str().len();
        match self {
            Op::Check { .. } | Op::Delete { .. } => path + 4,
            Op::Set { data, .. } => path + 4 + data.len() + 4,
            Op::Create { data, .. } => path + 4 + data.len() + 4 + 27,
        }
    }

    /// The znode it concerns.
    pub fn path(&self) -> &ZnodePath {
        match self {
            Op::Check { path, .. }
            | Op::Create { path, .. }
            | Op::Set { path, .. }
            | Op::Delete { path, .. } => path,
        }
    }
}

/// What became of one [`Op`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Done {
    /// The check held.
    Checked,
    /// Created, under this path. (Without a stat: servers before 3.8.2 send an invalid one, ZOOKEEPER-4026.
    /// Set the znode in the same transaction to learn its stat.)
    Created(ZnodePath),
    /// Set; the stat is the one after the change.
    Set(Stat),
    /// Deleted.
    Deleted,
}

/// Largest request that is sent to a server with the usual settings: it closes the connection of a client that sends more
/// than 1 MiB (its `jute.maxbuffer`), and every other request on that connection fails with it.
///
/// This limits requests only. A server sends replies of any size, and this library reads them: a listing of 3.4 MB was
/// seen to work. (Java clients refuse replies larger than their own `jute.maxbuffer`.)
pub const MAX_REQUEST_BYTES: usize = 1024 * 1024 - 1024;

/// Why the store did not do what was asked.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such znode.
    #[error("no such znode")]
    NoNode,
    /// The znode exists already.
    #[error("the znode exists already")]
    NodeExists,
    /// The znode has another version.
    #[error("the znode has another version")]
    BadVersion,
    /// The znode has children.
    #[error("the znode has children")]
    NotEmpty,
    /// The parent is ephemeral and can have no children.
    #[error("an ephemeral znode can have no children")]
    EphemeralParent,
    /// The access control list does not allow it.
    #[error("not permitted by the access control list of the znode")]
    NotPermitted,
    /// The request would exceed [`Session::max_request_bytes`]; it was not sent.
    #[error("a request of {bytes} bytes exceeds the limit of {limit} bytes")]
    TooLarge {
        /// The size of the request.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// No server answered.
    #[error("no server answered: {0}")]
    Unreachable(String),
    /// The connection broke before the reply came: the request may have been applied.
    #[error("the reply was lost, the outcome is unknown: {0}")]
    Unknown(String),
    /// The session is over. A write that was under way may have been applied before.
    #[error("{0}")]
    Lost(Loss),
    /// The server closed the connection each time it was sent this request, which was not applied. Most likely
    /// the request is larger than the server takes, or than one between it and us passes on.
    #[error(
        "the server closed the connection at each of {attempts} attempts to send a request of about {bytes} bytes: \
         compare that with the server's setting `jute.maxbuffer`"
    )]
    Dropped {
        /// How often it was sent.
        attempts: u32,
        /// The size of the request.
        bytes: usize,
    },
    /// Anything else that the server refused.
    #[error("the server refused: {0}")]
    Other(String),
}

impl Error {
    /// Whether a write that failed so may have been applied.
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Error::Unknown(_) | Error::Lost(_))
    }
}

/// Why a transaction failed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}{error}", .index.map(|i| format!("operation {i}: ")).unwrap_or_default())]
pub struct CommitError {
    /// The first operation that the server refused; `None` if the request failed as a whole.
    pub index: Option<usize>,
    /// The reason.
    pub error: Error,
}

impl From<Error> for CommitError {
    fn from(error: Error) -> Self {
        CommitError { index: None, error }
    }
}

/// What a [`Watch`] says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fired {
    /// Something changed: look again.
    Changed,
    /// The session is over.
    Lost(Loss),
}

/// A one-shot watch. It stays armed over reconnects; dropping it takes it back.
pub struct Watch(BoxFuture<'static, Fired>);

impl Watch {
    /// A watch that fires when `fired` is ready.
    pub fn new(fired: impl Future<Output = Fired> + Send + 'static) -> Self {
        Watch(Box::pin(fired))
    }

    /// Waits until the watch fires.
    ///
    /// # Cancel safety
    ///
    /// Safe: the watch stays armed. Once it has fired it must not be asked again.
    pub async fn fired(&mut self) -> Fired {
        (&mut self.0).await
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
