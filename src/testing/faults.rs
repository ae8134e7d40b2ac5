//! A decorator over any backend that counts calls, loses replies and denies access.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use crate::{
    backend::{
        BoxFuture, CommitError, Connector, Done, Error, Op, Session, SessionId, SessionState, Stat, Watch,
        memory::LostReply, path::ZnodePath,
    },
    clock::Clock,
};

/// Opens sessions of another connector that count calls and fail as told. Clones share counts and faults.
#[derive(Clone)]
pub struct Faults {
    inner: Arc<dyn Connector>,
    book: Arc<Mutex<Book>>,
}

/// How often each kind of call was made, over all sessions of one [`Faults`].
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Calls {
    /// [`Connector::open`].
    pub opens: u64,
    /// [`Session::children`] and [`Session::watch_children`].
    pub lists: u64,
    /// [`Session::get`].
    pub gets: u64,
    /// [`Session::get_many`].
    pub get_manys: u64,
    /// [`Session::watch_node`].
    pub node_watches: u64,
    /// [`Session::sync`].
    pub syncs: u64,
    /// [`Session::commit`] with at least one operation.
    pub commits: u64,
    /// Those of `commits` with an operation other than a check.
    pub writes: u64,
}

#[derive(Default)]
struct Book {
    calls: Calls,
    lose: BTreeMap<u64, LostReply>,
    denied: Vec<ZnodePath>,
}

impl Book {
    fn permits(&self, path: &ZnodePath) -> Result<(), Error> {
        let below = |root: &ZnodePath| {
            let rest = path.as_str().strip_prefix(root.as_str());
            root.is_root() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        if self.denied.iter().any(below) { Err(Error::NotPermitted) } else { Ok(()) }
    }
}

impl Faults {
    /// Sessions of `connector`, without faults so far.
    pub fn new(connector: Arc<dyn Connector>) -> Self {
        Faults { inner: connector, book: Arc::default() }
    }

    /// What was called so far.
    pub fn calls(&self) -> Calls {
        lock(&self.book).calls
    }

    /// Loses the reply to the `n`-th write: a commit with an operation other than a check, counted from 1 over
    /// all sessions since the beginning. [`Calls::writes`] says where the count stands.
    ///
    /// The caller gets [`Error::Unknown`]. The state of the session does not change.
    pub fn lose_nth_write(&self, n: u64, lost: LostReply) {
        lock(&self.book).lose.insert(n, lost);
    }

    /// Fails every operation on `path` and below with [`Error::NotPermitted`]; a commit with the index of its
    /// first operation there.
    pub fn deny(&self, path: &ZnodePath) {
        lock(&self.book).denied.push(path.clone());
    }

    /// Takes back what was [denied](Faults::deny).
    pub fn allow(&self) {
        lock(&self.book).denied.clear();
    }
}

fn lock(book: &Mutex<Book>) -> MutexGuard<'_, Book> {
    book.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("inner", &self.inner)
            .field("calls", &self.calls())
            .finish_non_exhaustive()
    }
}

impl Connector for Faults {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, Error>> {
        Box::pin(async move {
            lock(&self.book).calls.opens += 1;
            let inner = self.inner.open(timeout).await?;
            let session: Arc<dyn Session> = Arc::new(FaultySession { inner, book: Arc::clone(&self.book) });
            Ok(session)
        })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.inner.clock()
    }
}

struct FaultySession {
    inner: Arc<dyn Session>,
    book: Arc<Mutex<Book>>,
}

impl FaultySession {
    /// Counts a read and says whether it may go on.
    fn read(&self, paths: &[ZnodePath], count: impl FnOnce(&mut Calls) -> &mut u64) -> Result<(), Error> {
        let mut book = lock(&self.book);
        *count(&mut book.calls) += 1;
        paths.iter().try_for_each(|path| book.permits(path))
    }

    /// Counts a commit and says whether it may go on, and whether its reply is to be lost.
    fn write(&self, ops: &[Op]) -> Result<Option<LostReply>, CommitError> {
        let mut book = lock(&self.book);
        if ops.is_empty() {
            return Ok(None);
        }
        book.calls.commits += 1;
        let mut lost = None;
        if ops.iter().any(|op| !matches!(op, Op::Check { .. })) {
            book.calls.writes += 1;
            let n = book.calls.writes;
            lost = book.lose.remove(&n);
        }
        for (index, op) in ops.iter().enumerate() {
            book.permits(op.path()).map_err(|error| CommitError { index: Some(index), error })?;
        }
        Ok(lost)
    }
}

impl fmt::Debug for FaultySession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultySession").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl Session for FaultySession {
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
        Box::pin(async move {
            self.read(std::slice::from_ref(path), |calls| &mut calls.gets)?;
            self.inner.get(path).await
        })
    }

    fn get_many<'a>(
        &'a self,
        paths: &'a [ZnodePath],
    ) -> BoxFuture<'a, Result<Vec<Option<(Vec<u8>, Stat)>>, Error>> {
        Box::pin(async move {
            self.read(paths, |calls| &mut calls.get_manys)?;
            self.inner.get_many(paths).await
        })
    }

    fn children<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Vec<String>, Stat), Error>> {
        Box::pin(async move {
            self.read(std::slice::from_ref(path), |calls| &mut calls.lists)?;
            self.inner.children(path).await
        })
    }

    fn watch_children<'a>(
        &'a self,
        path: &'a ZnodePath,
    ) -> BoxFuture<'a, Result<(Vec<String>, Stat, Watch), Error>> {
        Box::pin(async move {
            self.read(std::slice::from_ref(path), |calls| &mut calls.lists)?;
            self.inner.watch_children(path).await
        })
    }

    fn watch_node<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Option<Stat>, Watch), Error>> {
        Box::pin(async move {
            self.read(std::slice::from_ref(path), |calls| &mut calls.node_watches)?;
            self.inner.watch_node(path).await
        })
    }

    fn commit(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<Vec<Done>, CommitError>> {
        Box::pin(async move {
            let Some(lost) = self.write(&ops)? else { return self.inner.commit(ops).await };
            if lost == LostReply::AfterApplying {
                match self.inner.commit(ops).await {
                    Err(error) if matches!(error.error, Error::Lost(_)) => return Err(error),
                    // Whatever the store thought of it is what the caller must not learn.
                    _ => {}
                }
            }
            Err(Error::Unknown("the reply was lost on purpose".into()).into())
        })
    }

    fn sync<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(), Error>> {
        lock(&self.book).calls.syncs += 1;
        self.inner.sync(path)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{CreateMode, Memory};

    async fn opened() -> (Faults, Arc<dyn Session>, ZnodePath) {
        let faults = Faults::new(Arc::new(Memory::new()));
        let session = faults.open(Duration::from_secs(1)).await.unwrap();
        (faults, session, ZnodePath::parse("/a").unwrap())
    }

    fn create(path: &ZnodePath) -> Vec<Op> {
        vec![Op::create(path, "", CreateMode::Persistent)]
    }

    #[tokio::test]
    async fn calls_are_counted_by_kind_over_all_sessions() {
        let (faults, first, path) = opened().await;
        let second = faults.clone().open(Duration::from_secs(1)).await.unwrap();
        first.commit(create(&path)).await.unwrap();
        second.commit(vec![Op::exists(&path)]).await.unwrap();
        second.commit(Vec::new()).await.unwrap();
        first.get(&path).await.unwrap();
        second.get_many(std::slice::from_ref(&path)).await.unwrap();
        first.children(&path).await.unwrap();
        second.watch_children(&path).await.unwrap();
        second.watch_node(&path).await.unwrap();
        first.sync(&path).await.unwrap();
        let expected = Calls {
            opens: 2,
            lists: 2,
            gets: 1,
            get_manys: 1,
            node_watches: 1,
            syncs: 1,
            commits: 2,
            writes: 1,
        };
        assert_eq!(faults.calls(), expected);
    }

    #[tokio::test]
    async fn the_chosen_write_is_lost_before_or_after_it_is_applied() {
        for (lost, applied) in [(LostReply::BeforeApplying, false), (LostReply::AfterApplying, true)] {
            let (faults, session, path) = opened().await;
            let second = path.parent().unwrap().join("b").unwrap();
            faults.lose_nth_write(2, lost);
            session.commit(create(&path)).await.unwrap();
            session.commit(vec![Op::exists(&path)]).await.unwrap();
            let error = session.commit(create(&second)).await.unwrap_err();
            assert!(error.index.is_none() && matches!(error.error, Error::Unknown(_)), "{error}");
            assert_eq!(session.get(&second).await.unwrap().is_some(), applied);
            session.commit(vec![Op::set(&path, "x", None)]).await.unwrap();
        }
    }

    #[tokio::test]
    async fn what_is_denied_is_not_permitted_until_it_is_allowed() {
        let (faults, session, path) = opened().await;
        session.commit(create(&path)).await.unwrap();
        let (inside, beside) = (path.join("b").unwrap(), ZnodePath::parse("/ab").unwrap());
        faults.deny(&path);
        assert_eq!(session.get(&path).await, Err(Error::NotPermitted));
        assert_eq!(session.children(&path).await, Err(Error::NotPermitted));
        assert_eq!(session.watch_children(&path).await.err(), Some(Error::NotPermitted));
        assert_eq!(session.watch_node(&inside).await.err(), Some(Error::NotPermitted));
        assert_eq!(session.get_many(&[beside.clone(), inside.clone()]).await, Err(Error::NotPermitted));
        let refused = session.commit([create(&beside), create(&inside)].concat()).await;
        assert_eq!(refused, Err(CommitError { index: Some(1), error: Error::NotPermitted }));
        session.commit(create(&beside)).await.unwrap();
        faults.allow();
        session.commit(create(&inside)).await.unwrap();
        faults.deny(&ZnodePath::root());
        assert_eq!(session.get(&beside).await, Err(Error::NotPermitted));
    }
}
