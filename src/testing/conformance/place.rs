//! The znode of a case, and functions that the cases share.

use std::sync::Arc;

use crate::{
    backend::{Connector, CreateMode, Done, Error, Fired, Op, Session, Stat, Watch, path::ZnodePath},
    testing::{
        SESSION_TIMEOUT, create_with_ancestors, delete_subtree, fence, fired_by_now, in_time, with_context,
    },
};

/// Runs cases, each at a znode of its own.
macro_rules! cases {
    ($suite:expr, $($case:ident),+ $(,)?) => {
        $($suite.run(stringify!($case), $case).await;)+
    };
}
pub(super) use cases;

pub(super) struct Suite {
    pub(super) connector: Arc<dyn Connector>,
    pub(super) root: ZnodePath,
}

impl Suite {
    pub(super) async fn open(&self) -> Arc<dyn Session> {
        let opened = in_time("opening a session", self.connector.open(SESSION_TIMEOUT)).await;
        opened.expect("the store can be reached")
    }

    pub(super) async fn run(&self, name: &str, case: impl AsyncFn(&Place<'_>)) {
        let work = async {
            let session = self.open().await;
            let at = self.root.join(name).expect("the name of a function is a name");
            create_with_ancestors(&*session, &at).await;
            case(&Place { suite: self, at: at.clone(), session: Arc::clone(&session) }).await;
            delete_subtree(&*session, &at).await;
            session.close().await;
        };
        with_context(|| format!("conformance: {}", name.replace('_', " ")), work).await;
    }
}

/// The znode of one case, and a session.
pub(super) struct Place<'a> {
    suite: &'a Suite,
    pub(super) at: ZnodePath,
    pub(super) session: Arc<dyn Session>,
}

impl Place<'_> {
    /// Opens another session.
    pub(super) async fn open(&self) -> Arc<dyn Session> {
        self.suite.open().await
    }

    pub(super) fn path(&self, name: &str) -> ZnodePath {
        self.at.join(name).expect("the cases use valid names")
    }

    pub(super) async fn commit(&self, ops: Vec<Op>) -> Vec<Done> {
        commit(&*self.session, ops).await
    }

    /// Creates a persistent child of the place and returns its path.
    pub(super) async fn create(&self, name: &str) -> ZnodePath {
        let path = self.path(name);
        self.commit(vec![persistent(&path)]).await;
        path
    }

    pub(super) async fn stat(&self, path: &ZnodePath) -> Stat {
        stat(&*self.session, path).await
    }

    /// Asserts that `ops` are refused at `index` for `error`.
    pub(super) async fn refused(&self, ops: Vec<Op>, index: usize, error: Error) {
        let what = format!("{ops:?}");
        let outcome = in_time("a commit", self.session.commit(ops)).await;
        let refusal = outcome.map_err(|refused| (refused.index, refused.error));
        assert_eq!(refusal, Err((Some(index), error)), "{what}");
    }
}

pub(super) fn persistent(path: &ZnodePath) -> Op {
    Op::create(path, "", CreateMode::Persistent)
}

pub(super) fn ephemeral(path: &ZnodePath) -> Op {
    Op::create(path, "", CreateMode::Ephemeral)
}

pub(super) async fn commit(session: &dyn Session, ops: Vec<Op>) -> Vec<Done> {
    let what = format!("{ops:?}");
    let sent = ops.len();
    let done = match in_time("a commit", session.commit(ops)).await {
        Ok(done) => done,
        Err(error) => panic!("{what} was refused: {error}"),
    };
    assert_eq!(done.len(), sent, "one result for each operation");
    done
}

pub(super) async fn get(session: &dyn Session, path: &ZnodePath) -> Option<(Vec<u8>, Stat)> {
    in_time("a read", session.get(path)).await.expect("a connected session reads")
}

pub(super) async fn stat(session: &dyn Session, path: &ZnodePath) -> Stat {
    let Some((_, stat)) = get(session, path).await else { panic!("{path} does not exist") };
    stat
}

/// Waits until `session` no longer finds `path`.
pub(super) async fn gone(session: &dyn Session, path: &ZnodePath) {
    loop {
        let (stat, mut watch) = session.watch_node(path).await.expect("a connected session watches");
        if stat.is_none() {
            return;
        }
        assert_eq!(in_time("the end of a znode", watch.fired()).await, Fired::Changed);
    }
}

/// Waits until the watch fires for a change.
pub(super) async fn changed(watch: &mut Watch) {
    assert_eq!(in_time("a watch", watch.fired()).await, Fired::Changed);
}

/// Asserts that the watch, armed by `session`, has not fired for any change that was acknowledged so far.
pub(super) async fn silent(session: &dyn Session, path: &ZnodePath, watch: &mut Watch) {
    in_time("a sync", fence(session, path)).await.expect("a connected session reads");
    assert_eq!(fired_by_now(watch).await, None, "this watch must not fire");
}
