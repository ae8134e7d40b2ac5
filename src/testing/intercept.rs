//! [`Intercept`]: passes each call of any backend to a hook.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

use super::call::{Call, Outcome, Reply, Request};
use crate::{
    backend::{
        BoxFuture, CommitError, Connector, Done, Error, Op, Session, SessionId, SessionState, Stat, Watch,
        Znode, path::ZnodePath,
    },
    clock::{Clock, Moment},
};

/// A connector that opens sessions of another connector, and passes each call to a [`Hook`]. A hook can count calls,
/// delay or refuse them, and lose their replies. From [`Intercept::new`].
///
/// A hook runs code before and after [`Call::send`]:
///
/// | to | the hook |
/// |---|---|
/// | let a call pass | returns the outcome of [`Call::send`] |
/// | delay it, or stop it for ever | awaits another future first |
/// | refuse it | returns an error without sending it |
/// | lose its reply | sends it, and returns [`Error::Unknown`] instead of the outcome |
/// | replace its outcome | sends it or not, and returns another one |
/// | break the connection | makes the store do it, for instance with [`Memory::suspend`](crate::backend::Memory::suspend) |
///
/// ```
/// use std::sync::{Arc, atomic::{AtomicUsize, Ordering}};
/// use apportion::{
///     Config, PartitionCoordinator,
///     backend::{BoxFuture, Error, Memory},
///     testing::{Call, Hook, Intercept, Outcome},
/// };
///
/// /// Loses the reply to every third write.
/// #[derive(Default)]
/// struct LoseReplies(AtomicUsize);
///
/// impl Hook for LoseReplies {
///     fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
///         Box::pin(async move {
///             let is_lost = call.request().is_write() && self.0.fetch_add(1, Ordering::Relaxed) % 3 == 0;
///             let outcome = call.send().await;
///             if is_lost { Err(Error::Unknown("lost on purpose".into()).into()) } else { outcome }
///         })
///     }
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let hook = Arc::new(LoseReplies::default());
/// let backend = Intercept::new(Arc::new(Memory::new()), hook.clone());
/// let coordinator = PartitionCoordinator::connect(Config::for_backend(backend)).await?;
/// assert_eq!(coordinator.extract_my_subset("group", ["a"]).await?.len(), 1);
/// assert!(hook.0.load(Ordering::Relaxed) >= 3);
/// # Ok(())
/// # }
/// ```
///
/// Clones share the hook and the count of calls. [`Session::id`], [`Session::timeout`], [`Session::requested`],
/// [`Session::give_up_after`], [`Session::max_request_bytes`] and [`Session::state`] send no request to the store, so they
/// are not calls. The drop of a session and [`Session::is_open_to_others`] are not calls either.
#[derive(Clone)]
pub struct Intercept {
    inner: Arc<dyn Connector>,
    hook: Arc<dyn Hook>,
    calls: Arc<AtomicU64>,
}

/// Handles the calls of an [`Intercept`].
pub trait Hook: Send + Sync + 'static {
    /// Sends the call with [`Call::send`] or not, and returns the outcome for the caller.
    ///
    /// # Cancel safety
    ///
    /// The caller may drop the future at any await, as it may drop the call itself.
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome>;
}

impl Intercept {
    /// Wraps `connector`: the calls of its sessions go through `hook`. Keep another handle to the hook to control it.
    ///
    /// # Panics
    ///
    /// A call panics if the hook answers it with the [`Reply`] to another [`Request`].
    pub fn new(connector: Arc<dyn Connector>, hook: Arc<dyn Hook>) -> Self {
        Intercept { inner: connector, hook, calls: Arc::default() }
    }

    async fn call<'a>(
        &'a self,
        session: Option<SessionId>,
        request: Request<'a>,
        send: impl Future<Output = Outcome> + Send + 'a,
    ) -> Outcome {
        let number = self.calls.fetch_add(1, Ordering::Relaxed) + 1;
        self.hook.call(Call::new(number, session, request, send)).await
    }
}

impl fmt::Debug for Intercept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intercept").field("inner", &self.inner).finish_non_exhaustive()
    }
}

/// Takes the return value of a call out of its reply.
macro_rules! expect {
    ($pattern:pat => $value:expr, $reply:expr) => {
        match $reply {
            $pattern => $value,
            other => panic!("the hook returned the reply to another request: {other:?}"),
        }
    };
}

impl Connector for Intercept {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, Error>> {
        Box::pin(async move {
            let send = async move { Ok(Reply::Opened(self.inner.open(timeout).await?)) };
            let outcome = self.call(None, Request::Open(timeout), send).await;
            let inner = expect!(Reply::Opened(session) => session, outcome.map_err(|refused| refused.error)?);
            let session: Arc<dyn Session> = Arc::new(Intercepted { inner, by: self.clone() });
            Ok(session)
        })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.inner.clock()
    }
}

struct Intercepted {
    inner: Arc<dyn Session>,
    by: Intercept,
}

impl Intercepted {
    async fn call<'a>(
        &'a self,
        request: Request<'a>,
        send: impl Future<Output = Outcome> + Send + 'a,
    ) -> Outcome {
        self.by.call(Some(self.id()), request, send).await
    }

    async fn read<'a>(
        &'a self,
        request: Request<'a>,
        send: impl Future<Output = Outcome> + Send + 'a,
    ) -> Result<Reply, Error> {
        self.call(request, send).await.map_err(|refused| refused.error)
    }
}

impl fmt::Debug for Intercepted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Intercepted").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Session for Intercepted {
    fn id(&self) -> SessionId {
        self.inner.id()
    }

    fn timeout(&self) -> Duration {
        self.inner.timeout()
    }

    fn requested(&self) -> Option<Moment> {
        self.inner.requested()
    }

    fn give_up_after(&self, silence: Duration) {
        self.inner.give_up_after(silence);
    }

    fn max_request_bytes(&self) -> usize {
        self.inner.max_request_bytes()
    }

    fn state(&self) -> watch::Receiver<SessionState> {
        self.inner.state()
    }

    fn get<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<Option<Znode>, Error>> {
        Box::pin(async move {
            let send = async move { Ok(Reply::Znode(self.inner.get(path).await?)) };
            Ok(expect!(Reply::Znode(znode) => znode, self.read(Request::Get(path), send).await?))
        })
    }

    fn get_many<'a>(&'a self, paths: &'a [ZnodePath]) -> BoxFuture<'a, Result<Vec<Option<Znode>>, Error>> {
        Box::pin(async move {
            let send = async move { Ok(Reply::Znodes(self.inner.get_many(paths).await?)) };
            Ok(expect!(Reply::Znodes(znodes) => znodes, self.read(Request::GetMany(paths), send).await?))
        })
    }

    fn children<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Vec<String>, Stat), Error>> {
        Box::pin(async move {
            let send = async move { Ok(Reply::Children(self.inner.children(path).await?)) };
            Ok(expect!(Reply::Children(listed) => listed, self.read(Request::Children(path), send).await?))
        })
    }

    fn watch_children<'a>(
        &'a self,
        path: &'a ZnodePath,
    ) -> BoxFuture<'a, Result<(Vec<String>, Stat, Watch), Error>> {
        Box::pin(async move {
            let send = async move {
                let (names, stat, watch) = self.inner.watch_children(path).await?;
                Ok(Reply::WatchedChildren((names, stat), watch))
            };
            let reply = self.read(Request::WatchChildren(path), send).await?;
            Ok(expect!(Reply::WatchedChildren((names, stat), watch) => (names, stat, watch), reply))
        })
    }

    fn watch_node<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Option<Stat>, Watch), Error>> {
        Box::pin(async move {
            let send = async move {
                let (stat, watch) = self.inner.watch_node(path).await?;
                Ok(Reply::WatchedNode(stat, watch))
            };
            let reply = self.read(Request::WatchNode(path), send).await?;
            Ok(expect!(Reply::WatchedNode(stat, watch) => (stat, watch), reply))
        })
    }

    fn commit(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<Vec<Done>, CommitError>> {
        Box::pin(async move {
            let request = Request::Commit(ops.clone());
            let send = async move { Ok(Reply::Committed(self.inner.commit(ops).await?)) };
            Ok(expect!(Reply::Committed(done) => done, self.call(request, send).await?))
        })
    }

    fn is_open_to_others<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<bool, Error>> {
        self.inner.is_open_to_others(path)
    }

    fn sync<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(async move {
            let send = async move {
                self.inner.sync(path).await?;
                Ok(Reply::Synced)
            };
            expect!(Reply::Synced => (), self.read(Request::Sync(path), send).await?);
            Ok(())
        })
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let send = async move {
                self.inner.close().await;
                Ok(Reply::Closed)
            };
            if let Ok(reply) = self.call(Request::Close, send).await {
                expect!(Reply::Closed => (), reply);
            }
        })
    }
}
