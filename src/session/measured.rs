//! [`Measured`]: a session whose requests are counted and timed.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::watch;

use crate::{
    backend::{
        self, BoxFuture, CommitError, Done, Op, Result, Session, SessionId, SessionState, Stat, Watch, Znode,
        path::ZnodePath,
    },
    clock::{Clock, Moment},
    metrics,
};

/// Counts and times the requests of `session`, if metrics are compiled in.
pub(super) fn measured(session: Arc<dyn Session>, clock: &Arc<dyn Clock>) -> Arc<dyn Session> {
    if cfg!(feature = "metrics") { Arc::new(Measured { session, clock: clock.clone() }) } else { session }
}

/// Waits for a request of this kind, counts and times it.
pub(super) async fn counted<T>(
    clock: &dyn Clock,
    kind: &str,
    request: impl Future<Output = Result<T>>,
) -> Result<T> {
    let began = clock.now();
    let outcome = request.await;
    count(kind, clock.now().saturating_since(began), outcome.as_ref().err());
    outcome
}

fn count(kind: &str, took: Duration, error: Option<&backend::Error>) {
    let outcome = match error {
        None => "ok",
        Some(backend::Error::Unknown(_)) => "unknown",
        Some(backend::Error::Lost(_)) => "lost",
        Some(backend::Error::Unreachable(_)) => "unreachable",
        Some(_) => "refused",
    };
    metrics::STORE_REQUESTS.add(&[kind, outcome]);
    metrics::STORE_REQUEST_DURATION.record(&[kind], took);
}

#[derive(Debug)]
struct Measured {
    session: Arc<dyn Session>,
    clock: Arc<dyn Clock>,
}

impl Measured {
    fn counted<'a, T: Send + 'a>(
        &'a self,
        kind: &'static str,
        request: BoxFuture<'a, Result<T>>,
    ) -> BoxFuture<'a, Result<T>> {
        Box::pin(counted(&*self.clock, kind, request))
    }
}

impl Session for Measured {
    fn id(&self) -> SessionId {
        self.session.id()
    }

    fn timeout(&self) -> Duration {
        self.session.timeout()
    }

    fn requested(&self) -> Option<Moment> {
        self.session.requested()
    }

    fn give_up_after(&self, silence: Duration) {
        self.session.give_up_after(silence);
    }

    fn max_request_bytes(&self) -> usize {
        self.session.max_request_bytes()
    }

    fn state(&self) -> watch::Receiver<SessionState> {
        self.session.state()
    }

    fn get<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<Option<Znode>>> {
        self.counted("get", self.session.get(path))
    }

    fn get_many<'a>(&'a self, paths: &'a [ZnodePath]) -> BoxFuture<'a, Result<Vec<Option<Znode>>>> {
        self.counted("get_many", self.session.get_many(paths))
    }

    fn children<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Vec<String>, Stat)>> {
        self.counted("list", self.session.children(path))
    }

    fn watch_children<'a>(
        &'a self,
        path: &'a ZnodePath,
    ) -> BoxFuture<'a, Result<(Vec<String>, Stat, Watch)>> {
        self.counted("list", self.session.watch_children(path))
    }

    fn watch_node<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Option<Stat>, Watch)>> {
        self.counted("watch", self.session.watch_node(path))
    }

    fn commit(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<Vec<Done>, CommitError>> {
        // The request is made at once, in the order of the calls.
        let (request, began) = (self.session.commit(ops), self.clock.now());
        Box::pin(async move {
            let outcome = request.await;
            let took = self.clock.now().saturating_since(began);
            count("commit", took, outcome.as_ref().err().map(|failed| &failed.error));
            outcome
        })
    }

    fn is_open_to_others<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<bool>> {
        self.counted("get_acl", self.session.is_open_to_others(path))
    }

    fn sync<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<()>> {
        self.counted("sync", self.session.sync(path))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.session.close()
    }
}
