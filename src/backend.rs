//! The interface to the store, at the level of znodes: [`Connector`], [`Session`], [`Op`], [`Watch`].
//!
//! ZooKeeper keeps a tree of small nodes, the *znodes*. A client opens a *session*. The server ends the session when it
//! has received nothing from the client for the session timeout. *Ephemeral* znodes are deleted with the session that
//! created them. A *watch* fires once when a znode changes. A *transaction* applies several writes or none of them.
//!
//! Groups, boards and queues use this interface. Two backends implement it: `ZooKeeper` of the module `zookeeper`, and
//! [`Memory`], which is in the process. The conformance suite in the module `testing` tests what a backend has to do.
//! (Each of these two modules needs the cargo feature of its name.)
//!
//! Its rules, each the result of a measurement:
//!
//! - [`Connector::open`] always gives a **new** session. Once a session is [`SessionState::Lost`], it stays so: a
//!   caller that had ephemeral znodes in it opens a new session and creates them again.
//! - All writes go through [`Session::commit`]. So there is one place where an outcome can be [`Error::Unknown`]: the
//!   write was sent, the reply was lost, and only reading back shows the outcome. Dropping the future of a commit does
//!   not undo it, because the request may have been sent already.
//! - A watch fires once, and says only that something has changed. If the change happens while the connection is down,
//!   the watch fires after the reconnect.
//! - A read proves nothing about the session: a server that is cut from its ensemble still answers reads. A commit,
//!   even one of checks alone, goes through the leader.

pub mod memory;
pub mod path;
#[cfg(feature = "zookeeper")]
pub mod zookeeper;

use std::{fmt, future::Future, sync::Arc, time::Duration};

use tokio::sync::watch;

pub use self::memory::Memory;
use self::path::ZnodePath;
use crate::clock::{Clock, Moment};
pub use crate::future::BoxFuture;

/// The result of a request to the store.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A znode as it was read: its data and its stat.
pub type Znode = (Vec<u8>, Stat);

/// Opens sessions to one store.
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// Opens a new session and asks for `timeout`; [`Session::timeout`] says what the server granted.
    ///
    /// Takes at most about `timeout`.
    ///
    /// # Cancel safety
    ///
    /// Safe: if it is cancelled, a session that was opened is closed.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] if no server answered in time, [`Error::Lost`] with [`Loss::AuthFailed`] if the
    /// server refused the credentials.
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>>>;

    /// The clock that measures the sessions of this store.
    fn clock(&self) -> Arc<dyn Clock>;
}

/// One session. Dropping the last handle closes it without waiting for the server.
///
/// # Errors
///
/// Each request can fail with these, besides the errors that it documents: [`Error::Unknown`] if the connection broke
/// before the reply came, [`Error::Lost`] if the session has ended, [`Error::NotPermitted`] if an access control list
/// denies it, [`Error::TooLarge`] if it would exceed [`Session::max_request_bytes`]. While the session is
/// [suspended](SessionState::Suspended), requests wait until it is connected or lost.
///
/// # Cancel safety
///
/// Reads are safe. A [`commit`](Session::commit) whose future was dropped may be applied or not.
pub trait Session: fmt::Debug + Send + Sync + 'static {
    /// The id of the session: the [`Stat::ephemeral_owner`] of the znodes that it owns.
    fn id(&self) -> SessionId;

    /// The session timeout that the server granted.
    fn timeout(&self) -> Duration;

    /// When the request for this session was sent that a server granted, by [`Connector::clock`]. `None`: it is not known,
    /// and the call of [`Connector::open`] counts instead.
    fn requested(&self) -> Option<Moment> {
        None
    }

    /// After so much time without a reply, no more requests are sent to keep this session. An attempt to connect that
    /// is not answered may still reach a server, which then keeps the session for another timeout. The caller says how
    /// long the session is of use. If it is given up, its state is [`Loss::Closed`]. Default: does nothing.
    fn give_up_after(&self, silence: Duration) {
        let _ = silence;
    }

    /// The largest request that it sends, in bytes. Larger ones fail with [`Error::TooLarge`]. Replies are not limited.
    fn max_request_bytes(&self) -> usize {
        MAX_REQUEST_BYTES
    }

    /// The state of the session. The channel has the latest value only: a quick loss of the connection may be visible
    /// only as a higher `epoch`.
    fn state(&self) -> watch::Receiver<SessionState>;

    /// Reads the data and stat of a znode; `None` if there is none.
    fn get<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<Option<Znode>>>;

    /// Reads the data and stat of several znodes in one round trip, in the order of `paths`. They need not be of one
    /// moment. The size of the reply is not limited: the caller limits the number of `paths`.
    fn get_many<'a>(&'a self, paths: &'a [ZnodePath]) -> BoxFuture<'a, Result<Vec<Option<Znode>>>>;

    /// Reads the names of the children, in no particular order, and the stat of the parent, both of one moment.
    ///
    /// # Errors
    ///
    /// [`Error::NoNode`] if there is no such znode.
    fn children<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Vec<String>, Stat)>>;

    /// Like [`Session::children`], with a watch that fires when a child is created or deleted, or when the parent is
    /// deleted. It does not fire for the data of a child.
    ///
    /// # Errors
    ///
    /// [`Error::NoNode`] if there is no such znode.
    fn watch_children<'a>(&'a self, path: &'a ZnodePath)
    -> BoxFuture<'a, Result<(Vec<String>, Stat, Watch)>>;

    /// Reads the stat of a znode, `None` if there is none, with a watch that fires when it is created or deleted, or
    /// when its data is set.
    ///
    /// ZooKeeper from 3.8.4 and 3.9.2 on asks for the permission to read the znode, as for its data, and does not report
    /// the creation of a znode that this client may not read. Older servers give the stat to every client.
    fn watch_node<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Option<Stat>, Watch)>>;

    /// Applies all of `ops` or none, in order, and returns one [`Done`] for each.
    ///
    /// An empty list is `Ok` and sends nothing. A commit of checks alone changes no stat and fires no watch.
    ///
    /// # Errors
    ///
    /// [`CommitError`]. With an index, the server refused that operation, and nothing was applied. Without one, the
    /// request failed as a whole; then [`Error::is_unknown`] says whether it may have been applied.
    fn commit(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<Vec<Done>, CommitError>>;

    /// Whether other clients can change the znode although this session has credentials, so that znodes that it creates
    /// are private. `false` if that is not known. Default: `false`.
    fn is_open_to_others<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<bool>> {
        let _ = path;
        Box::pin(async { Ok(false) })
    }

    /// Waits until the server of this session has every write that was confirmed to any client before the call.
    fn sync<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<()>>;

    /// Ends the session, and its ephemeral znodes with it. Returns when the server has confirmed it, or when it is
    /// clear that it will not. Calling it twice does no harm.
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

/// The state of a session.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// The connection is up. `epoch` grows with each reconnect.
    Connected {
        /// Counts the connections of this session, from 1.
        epoch: u64,
    },
    /// The connection is down. The session may still live or not.
    Suspended,
    /// The session has ended, which is final.
    Lost(Loss),
}

/// Why a session has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Loss {
    /// The server ended it, because it had received nothing from this client for the session timeout.
    Expired,
    /// This client ended it.
    Closed,
    /// The server refused the credentials.
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

/// The metadata of a znode.
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
    /// How many creations and deletions of children there were.
    pub cversion: i32,
    /// The session that owns it, and with which it is deleted; `None` for a persistent znode.
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
    /// Whether the znode is deleted when its session ends.
    pub const fn is_ephemeral(self) -> bool {
        matches!(self, CreateMode::Ephemeral | CreateMode::EphemeralSequential)
    }

    /// Whether the server appends a number to the name: how many children were created under the parent before.
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
        /// How long it lives and how it is named.
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
    /// An [`Op::Check`] that the znode exists, with any version.
    pub fn exists(path: &ZnodePath) -> Op {
        Op::Check { path: path.clone(), version: None }
    }

    /// An [`Op::Create`].
    pub fn create(path: &ZnodePath, data: impl Into<Vec<u8>>, mode: CreateMode) -> Op {
        Op::Create { path: path.clone(), data: data.into(), mode }
    }

    /// An [`Op::Set`].
    pub fn set(path: &ZnodePath, data: impl Into<Vec<u8>>, version: Option<i32>) -> Op {
        Op::Set { path: path.clone(), data: data.into(), version }
    }

    /// An [`Op::Delete`].
    pub fn delete(path: &ZnodePath, version: Option<i32>) -> Op {
        Op::Delete { path: path.clone(), version }
    }

    /// About how many bytes it adds to a request: its header, the path and the data with their lengths, the version or
    /// the flags, and for a create the access control list of a znode that is open to all.
    pub fn encoded_len(&self) -> usize {
        let path = 9 + 4 + self.path().as_str().len();
        match self {
            Op::Check { .. } | Op::Delete { .. } => path + 4,
            Op::Set { data, .. } => path + 4 + data.len() + 4,
            Op::Create { data, .. } => path + 4 + data.len() + 4 + 27,
        }
    }

    /// The path of its znode.
    pub fn path(&self) -> &ZnodePath {
        match self {
            Op::Check { path, .. }
            | Op::Create { path, .. }
            | Op::Set { path, .. }
            | Op::Delete { path, .. } => path,
        }
    }
}

/// The result of one [`Op`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Done {
    /// The check was successful.
    Checked,
    /// Created with this path. There is no stat, because servers before 3.8.2 send an invalid one (ZOOKEEPER-4026). To
    /// get the stat, set the znode in the same transaction.
    Created(ZnodePath),
    /// Set. This is the stat after the change.
    Set(Stat),
    /// Deleted.
    Deleted,
}

/// The largest request that is sent to a server with default settings, in bytes. Such a server closes the connection of
/// a client that sends more than 1 MiB (its `jute.maxbuffer`), and all other requests on that connection fail, too.
///
/// This limits requests only. Servers send replies of any size, and this library reads them: a listing of 3.4 MB was
/// seen to work. (Java clients refuse replies that are larger than their own `jute.maxbuffer`, which is about 1 MB by
/// default. The Python client Kazoo has no such limit.)
pub const MAX_REQUEST_BYTES: usize = 1024 * 1024 - 1024;

/// No server closes the connection because of a request that is smaller than this.
pub(crate) const SMALL_REQUEST_BYTES: usize = 64 * 1024;

/// Why a request to the store failed.
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
    /// Permission denied by the access control list of the znode.
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
    /// The session has ended. A write that was under way may have been applied before.
    #[error("{0}")]
    Lost(Loss),
    /// The server closed the connection at each attempt to send this request, which was not applied. Most likely the
    /// request is larger than the server or a proxy before it accepts.
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
    /// Whether a write that failed with this error may have been applied.
    pub const fn is_unknown(&self) -> bool {
        matches!(self, Error::Unknown(_) | Error::Lost(_))
    }

    /// Whether this request is too large, or most likely is. Smaller ones are not affected.
    pub(crate) const fn is_too_large(&self) -> bool {
        matches!(self, Error::TooLarge { .. } | Error::Dropped { .. })
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

/// Why a [`Watch`] has fired.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Fired {
    /// The znode may have changed: read it again.
    Changed,
    /// The session has ended.
    Lost(Loss),
}

/// A watch, which fires once. A reconnect does not end it. Dropping it removes it.
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
    /// Safe: if it is cancelled, the watch can still fire.
    ///
    /// # Panics
    ///
    /// May panic if the watch has fired before.
    pub async fn fired(&mut self) -> Fired {
        (&mut self.0).await
    }
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}
