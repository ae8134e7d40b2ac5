//! A way to the store on which a listing can be stopped, so that others come in between.

use std::{
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

use apportion::{
    backend::{
        BoxFuture, CommitError, Connector, Done, Error, Memory, Op, Session, SessionId, SessionState, Stat,
        Watch, path::ZnodePath,
    },
    clock::Clock,
};
use tokio::sync::{oneshot, watch};

/// Opens sessions of an ensemble in memory whose listings can be stopped. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Gate {
    memory: Memory,
    stop: Arc<Mutex<Option<Stop>>>,
}

struct Stop {
    folders: Vec<&'static str>,
    passing: usize,
    reached: oneshot::Sender<()>,
    opened: oneshot::Receiver<()>,
}

/// A listing that is stopped, or will be.
pub(crate) struct Stopped {
    reached: oneshot::Receiver<()>,
    pub(crate) open: oneshot::Sender<()>,
}

impl Stopped {
    pub(crate) async fn reached(&mut self) {
        (&mut self.reached).await.expect("it is stopped once");
    }
}

impl Gate {
    pub(crate) fn new(memory: Memory) -> Self {
        Gate { memory, stop: Arc::default() }
    }

    /// Lets the next `passing` listings of one of `folders` through, and stops the one after that.
    pub(crate) fn stop_after(&self, passing: usize, folders: &[&'static str]) -> Stopped {
        let (reached, is_reached) = oneshot::channel();
        let (open, opened) = oneshot::channel();
        *self.stop.lock().unwrap() = Some(Stop { folders: folders.to_vec(), passing, reached, opened });
        Stopped { reached: is_reached, open }
    }

    async fn pass(&self, path: &ZnodePath) {
        let stop = {
            let mut stop = self.stop.lock().unwrap();
            match stop.as_mut().filter(|stop| stop.folders.contains(&path.name())) {
                Some(waiting) if waiting.passing > 0 => {
                    waiting.passing -= 1;
                    None
                }
                Some(_) => stop.take(),
                None => None,
            }
        };
        if let Some(stop) = stop {
            let _ = stop.reached.send(());
            let _ = stop.opened.await;
        }
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}

impl Connector for Gate {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, Error>> {
        Box::pin(async move {
            let inner = self.memory.open(timeout).await?;
            let session: Arc<dyn Session> = Arc::new(Gated { inner, gate: self.clone() });
            Ok(session)
        })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.memory.clock()
    }
}

#[derive(Debug)]
struct Gated {
    inner: Arc<dyn Session>,
    gate: Gate,
}

impl Session for Gated {
    fn id(&self) -> SessionId {
        self.inner.id()
    }

    fn timeout(&self) -> Duration {
        self.inner.timeout()
    }

    fn state(&self) -> watch::Receiver<SessionState> {
        self.inner.state()
    }

    fn get<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<Option<(Vec<u8>, Stat)>, Error>> {
        self.inner.get(path)
    }

    fn get_many<'a>(
        &'a self,
        paths: &'a [ZnodePath],
    ) -> BoxFuture<'a, Result<Vec<Option<(Vec<u8>, Stat)>>, Error>> {
        self.inner.get_many(paths)
    }

    fn children<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Vec<String>, Stat), Error>> {
        Box::pin(async move {
            self.gate.pass(path).await;
            self.inner.children(path).await
        })
    }

    fn watch_children<'a>(
        &'a self,
        path: &'a ZnodePath,
    ) -> BoxFuture<'a, Result<(Vec<String>, Stat, Watch), Error>> {
        Box::pin(async move {
            self.gate.pass(path).await;
            self.inner.watch_children(path).await
        })
    }

    fn watch_node<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Option<Stat>, Watch), Error>> {
        self.inner.watch_node(path)
    }

    fn commit(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<Vec<Done>, CommitError>> {
        self.inner.commit(ops)
    }

    fn sync<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(), Error>> {
        self.inner.sync(path)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}
