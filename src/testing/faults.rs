//! [`Faults`]: counts calls, loses replies and denies access.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fastrand::Rng;

use super::{
    call::{Call, Outcome, Request},
    intercept::{Hook, Intercept},
};
use crate::{
    backend::{BoxFuture, CommitError, Connector, Error, Session, memory::LostReply, path::ZnodePath},
    clock::Clock,
};

/// A connector whose sessions count calls, lose replies and deny access. It opens sessions of another connector. Clones
/// share counts and faults. From [`Faults::new`].
///
/// For other kinds of faults, write a [`Hook`].
#[derive(Clone)]
pub struct Faults {
    intercept: Intercept,
    state: Arc<State>,
}

/// How often each kind of call was made, in all sessions of one [`Faults`]. From [`Faults::calls`].
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

/// The counts and the faults.
#[derive(Default)]
struct State(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    calls: Calls,
    lose: BTreeMap<u64, LostReply>,
    /// For replies that are lost at random: the rng, and how many of a hundred are lost.
    at_random: Option<(Rng, u8)>,
    denied: Vec<ZnodePath>,
}

impl Inner {
    fn count(&mut self, request: &Request<'_>) {
        let calls = &mut self.calls;
        match request {
            Request::Open(_) => calls.opens += 1,
            Request::Children(_) | Request::WatchChildren(_) => calls.lists += 1,
            Request::Get(_) => calls.gets += 1,
            Request::GetMany(_) => calls.get_manys += 1,
            Request::WatchNode(_) => calls.node_watches += 1,
            Request::Sync(_) => calls.syncs += 1,
            Request::Commit(ops) => calls.commits += u64::from(!ops.is_empty()),
            Request::Close => {}
        }
        calls.writes += u64::from(request.is_write());
    }

    /// Whether, and when, the reply to this write is lost. The write was counted before.
    fn loses(&mut self) -> Option<LostReply> {
        let n = self.calls.writes;
        let at_random = self.at_random.as_mut().and_then(|(rng, percent)| {
            let is_lost = rng.u8(0..100) < *percent;
            let when = if rng.bool() { LostReply::BeforeApplying } else { LostReply::AfterApplying };
            is_lost.then_some(when)
        });
        self.lose.remove(&n).or(at_random)
    }

    /// The index of the first path to which access is denied.
    fn forbids(&self, request: &Request<'_>) -> Option<usize> {
        let below = |path: &ZnodePath, root: &ZnodePath| {
            let rest = path.as_str().strip_prefix(root.as_str());
            root.is_root() || rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        request.paths().iter().position(|path| self.denied.iter().any(|root| below(path, root)))
    }
}

impl State {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a call. Returns an error if access is denied, and whether its reply is lost.
    fn enter(&self, request: &Request<'_>) -> Result<Option<LostReply>, CommitError> {
        let mut inner = self.lock();
        inner.count(request);
        let lost = if request.is_write() { inner.loses() } else { None };
        // A sync reads nothing, so it needs no permission.
        if matches!(request, Request::Sync(_)) {
            return Ok(lost);
        }
        match inner.forbids(request) {
            Some(index) => Err(CommitError { index: Some(index), error: Error::NotPermitted }),
            None => Ok(lost),
        }
    }
}

impl Hook for State {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let Some(lost) = self.enter(call.request())? else { return call.send().await };
            if lost == LostReply::AfterApplying {
                match call.send().await {
                    Err(error) if matches!(error.error, Error::Lost(_)) => return Err(error),
                    // The caller must not get the reply of the store.
                    _ => {}
                }
            }
            Err(Error::Unknown("the reply was lost on purpose".into()).into())
        })
    }
}

impl Faults {
    /// Wraps `connector`, without faults so far.
    pub fn new(connector: Arc<dyn Connector>) -> Self {
        let state = Arc::<State>::default();
        Faults { intercept: Intercept::new(connector, Arc::clone(&state) as Arc<dyn Hook>), state }
    }

    /// The calls so far.
    pub fn calls(&self) -> Calls {
        self.state.lock().calls
    }

    /// Loses the reply to the `n`-th write. A write is a commit with an operation other than a check. Writes are
    /// counted from 1, in all sessions since the beginning: see [`Calls::writes`].
    ///
    /// The caller gets [`Error::Unknown`]. The state of the session does not change.
    pub fn lose_nth_write(&self, n: u64, lost: LostReply) {
        self.state.lock().lose.insert(n, lost);
    }

    /// Loses the replies to `percent` of the writes from now on. Half of these writes are not applied. Equal seeds
    /// choose the same writes. Zero ends it.
    ///
    /// The caller gets [`Error::Unknown`]. The state of the session does not change.
    pub fn lose_at_random(&self, seed: u64, percent: u8) {
        self.state.lock().at_random = (percent > 0).then(|| (Rng::with_seed(seed), percent));
    }

    /// Fails every operation on `path` and below with [`Error::NotPermitted`]. A commit fails with the index of its
    /// first such operation.
    pub fn deny(&self, path: &ZnodePath) {
        self.state.lock().denied.push(path.clone());
    }

    /// Allows access to all paths again that were [denied](Faults::deny).
    pub fn allow(&self) {
        self.state.lock().denied.clear();
    }
}

impl fmt::Debug for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faults")
            .field("inner", &self.intercept)
            .field("calls", &self.calls())
            .finish_non_exhaustive()
    }
}

impl Connector for Faults {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, Error>> {
        self.intercept.open(timeout)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.intercept.clock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::{CreateMode, Memory, Op};

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
    async fn equal_seeds_lose_the_replies_to_the_same_writes() {
        let run = async |seed, percent| {
            let (faults, session, path) = opened().await;
            session.commit(create(&path)).await.unwrap();
            faults.lose_at_random(seed, percent);
            let mut lost = Vec::new();
            for _ in 0..100 {
                lost.push(session.commit(vec![Op::set(&path, "x", None)]).await.is_err());
            }
            let (_, stat) = session.get(&path).await.unwrap().unwrap();
            (lost, stat.version)
        };
        let (lost, applied) = run(7, 40).await;
        assert_eq!(run(7, 40).await, (lost.clone(), applied));
        assert_ne!(run(8, 40).await.0, lost);
        let count = lost.iter().filter(|lost| **lost).count();
        assert!((20..60).contains(&count), "{count} of 100");
        assert!(applied > 100 - i32::try_from(count).unwrap() && applied < 100, "{applied} were applied");
        assert_eq!(run(7, 0).await, (vec![false; 100], 100));
    }

    #[tokio::test]
    async fn access_to_a_denied_path_is_not_permitted_until_it_is_allowed() {
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
