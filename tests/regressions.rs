//! What a review of the core found, each as the behaviour that was missing.

use std::{
    collections::BTreeMap,
    fmt,
    future::{Future, IntoFuture},
    pin::pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
    time::Duration,
};

use apportion::{
    Config, Error, Group, PartitionCoordinator, Share,
    backend::{
        BoxFuture, CommitError, Connector, Done, Error as BackendError, Memory, Op, Session, SessionId,
        SessionState, Stat, Watch, Znode, path::ZnodePath,
    },
    clock::Clock,
    group::{Rebalance, Standing},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

fn config(connector: impl Connector, id: &str) -> Config {
    Config::for_backend(connector).member_id(id)
}

async fn connect(connector: impl Connector, id: &str) -> PartitionCoordinator {
    PartitionCoordinator::connect(config(connector, id)).await.expect("the ensemble answers")
}

fn path(path: &str) -> ZnodePath {
    ZnodePath::parse(path).expect("a path")
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let wait = async {
        while !holds() {
            sleep(5 * MS).await;
        }
    };
    assert!(timeout(120 * SECOND, wait).await.is_ok(), "never: {what}");
}

/// Sessions of an in-memory ensemble in which something happens at the wrong moment.
#[derive(Clone)]
struct Mishaps {
    memory: Memory,
    /// Happens once, between the list of the children and the reading of them.
    between_list_and_read: Arc<Mutex<Option<BoxFuture<'static, ()>>>>,
    /// Creates get no answer.
    swallows_creates: Arc<AtomicBool>,
    /// So does the end of a session.
    swallows_closes: Arc<AtomicBool>,
}

impl Mishaps {
    fn new(memory: &Memory) -> Self {
        Mishaps {
            memory: memory.clone(),
            between_list_and_read: Arc::default(),
            swallows_creates: Arc::default(),
            swallows_closes: Arc::default(),
        }
    }
}

impl fmt::Debug for Mishaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Mishaps")
    }
}

impl Connector for Mishaps {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, BackendError>> {
        Box::pin(async move {
            let inner = self.memory.open(timeout).await?;
            let session: Arc<dyn Session> = Arc::new(MishapSession { inner, mishaps: self.clone() });
            Ok(session)
        })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.memory.clock()
    }
}

#[derive(Debug)]
struct MishapSession {
    inner: Arc<dyn Session>,
    mishaps: Mishaps,
}

impl Session for MishapSession {
    fn id(&self) -> SessionId {
        self.inner.id()
    }

    fn timeout(&self) -> Duration {
        self.inner.timeout()
    }

    fn state(&self) -> watch::Receiver<SessionState> {
        self.inner.state()
    }

    fn get<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<Option<Znode>, BackendError>> {
        self.inner.get(path)
    }

    fn get_many<'a>(
        &'a self,
        paths: &'a [ZnodePath],
    ) -> BoxFuture<'a, Result<Vec<Option<Znode>>, BackendError>> {
        Box::pin(async move {
            let mishap = self.mishaps.between_list_and_read.lock().expect("no test panics with it").take();
            if let Some(mishap) = mishap {
                mishap.await;
            }
            self.inner.get_many(paths).await
        })
    }

    fn children<'a>(
        &'a self,
        path: &'a ZnodePath,
    ) -> BoxFuture<'a, Result<(Vec<String>, Stat), BackendError>> {
        self.inner.children(path)
    }

    fn watch_children<'a>(
        &'a self,
        path: &'a ZnodePath,
    ) -> BoxFuture<'a, Result<(Vec<String>, Stat, Watch), BackendError>> {
        self.inner.watch_children(path)
    }

    fn watch_node<'a>(
        &'a self,
        path: &'a ZnodePath,
    ) -> BoxFuture<'a, Result<(Option<Stat>, Watch), BackendError>> {
        self.inner.watch_node(path)
    }

    fn commit(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<Vec<Done>, CommitError>> {
        let creates = ops.iter().any(|op| matches!(op, Op::Create { .. }));
        if creates && self.mishaps.swallows_creates.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        self.inner.commit(ops)
    }

    fn sync<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(), BackendError>> {
        self.inner.sync(path)
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        if self.mishaps.swallows_closes.load(Ordering::SeqCst) {
            return Box::pin(std::future::pending());
        }
        self.inner.close()
    }
}

#[tokio::test(start_paused = true)]
async fn a_settling_time_without_end_is_waited_for_and_nothing_panics() {
    let coordinator = connect(Memory::new(), "a").await;
    let join = coordinator.join("g").settle(Duration::MAX);
    assert!(timeout(600 * SECOND, join.into_future()).await.is_err(), "it can never settle");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_waits_for_its_first_membership_to_settle_has_an_empty_share() {
    let memory = Memory::new();
    let coordinator = connect(memory.clone(), "a").await;
    let group = coordinator.join("g").settle(60 * SECOND).await.unwrap();
    let session = coordinator.session_id();
    memory.expire(session.unwrap());
    until("in a new session", || ![session, None].contains(&coordinator.session_id())).await;
    for _ in 0..10 {
        let share = group.extract_my_subset(["x"]).await.unwrap();
        assert!(share.is_empty() && !share.is_valid());
        sleep(SECOND).await;
    }
    until("settled", || group.view().owns("x")).await;
}

#[tokio::test(start_paused = true)]
async fn an_empty_share_of_a_lapsed_member_stays_invalid() {
    let memory = Memory::new();
    let coordinator = connect(memory.clone(), "a").await;
    let group = coordinator.join("g").await.unwrap();
    let session = coordinator.session_id().unwrap();
    memory.suspend(session);
    sleep(8 * SECOND).await;
    let share = group.extract_my_subset(["x"]).await.unwrap();
    assert!(share.is_empty() && !share.is_valid());
    memory.resume(session);
    until("back before the expiry", || group.view().owns("x")).await;
    assert_eq!(coordinator.session_id(), Some(session));
    assert!(!share.is_valid(), "nothing was handed out with it");
}

#[tokio::test(start_paused = true)]
async fn one_epoch_gives_one_ring_also_to_a_member_that_reads_while_another_leaves() {
    let memory = Memory::new();
    let mishaps = Mishaps::new(&memory);
    let a = connect(mishaps.clone(), "a").await;
    let b = connect(memory.clone(), "b").await;
    let c = connect(memory.clone(), "c").await;
    let (in_a, in_b, in_c) =
        (a.join("g").await.unwrap(), b.join("g").await.unwrap(), c.join("g").await.unwrap());
    until("three see each other", || [&in_a, &in_b, &in_c].iter().all(|g| g.view().members().len() == 3))
        .await;

    let mut of_epoch = BTreeMap::new();
    let look = |of_epoch: &mut BTreeMap<i64, u64>| {
        for view in [in_a.view(), in_c.view()] {
            let digest = *of_epoch.entry(view.epoch()).or_insert(view.ring().digest());
            assert_eq!(digest, view.ring().digest(), "epoch {} of {}", view.epoch(), view.me());
        }
    };
    // The next list of `a` is that of the arrival of `d`, and `b` goes before its znode is read. Meanwhile `c` had
    // the time to adopt the membership with `b`.
    let leaver = Mutex::new(Some(b));
    let leave = async move {
        sleep(200 * MS).await;
        let b = leaver.lock().unwrap().take().unwrap();
        b.shutdown().await.unwrap();
        drop(in_b);
    };
    *mishaps.between_list_and_read.lock().unwrap() = Some(Box::pin(leave));
    let d = connect(memory.clone(), "d").await;
    let in_d = d.join("g").await.unwrap();
    for _ in 0..500 {
        look(&mut of_epoch);
        sleep(5 * MS).await;
    }
    assert!(of_epoch.len() >= 3, "{of_epoch:?}");
    assert_eq!(in_d.view().members().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_cannot_be_made_again_for_want_of_an_answer_ends_the_session() {
    let memory = Memory::new();
    let mishaps = Mishaps::new(&memory);
    let coordinator = connect(mishaps.clone(), "a").await;
    let session = coordinator.session_id().unwrap();
    mishaps.swallows_creates.store(true, Ordering::SeqCst);
    let operator = memory.open(SECOND).await.unwrap();
    operator.commit(vec![Op::delete(&path("/apportion"), None)]).await.unwrap();
    sleep(12 * SECOND).await;
    assert_ne!(coordinator.session_id(), Some(session), "nothing was confirmed for a timeout");
    mishaps.swallows_creates.store(false, Ordering::SeqCst);
    until("a new session", || coordinator.session_id().is_some()).await;
}

#[tokio::test(start_paused = true)]
async fn a_join_during_the_shutdown_is_refused() {
    let memory = Memory::new();
    let coordinator = connect(memory.clone(), "a").await;
    let group = coordinator.join("g").await.unwrap();
    let watcher = memory.open(10 * SECOND).await.unwrap();
    let mut shutdown = pin!(coordinator.shutdown());
    let poll = shutdown.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll.is_pending(), "the leave takes a turn of the runtime");
    // As a loop does that evaluates once more.
    let error = coordinator.extract_my_subset("g", ["x"]).await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    shutdown.await.unwrap();
    assert!(watcher.children(&path("/apportion/g")).await.unwrap().0.is_empty());
    assert_eq!(group.view().standing(), Standing::Left);
}

#[tokio::test]
async fn a_group_without_a_backend_lives_as_long_as_one_with_a_backend() {
    let alone = PartitionCoordinator::standalone();
    let mut rebalances = alone.join("g").await.unwrap().rebalances();
    assert!(rebalances.next().await.unwrap().is_gained("x"));
    // The handle is gone, the membership is not.
    assert!(timeout(20 * MS, rebalances.next()).await.is_err());

    let group = alone.join("g").await.unwrap();
    let same = alone.join("g").await.unwrap();
    assert!(matches!(alone.join("g").weight(2).await, Err(Error::JoinedDifferently { .. })));
    group.leave().await.unwrap();
    assert!(matches!(same.extract_my_subset(["x"]).await, Err(Error::Closed { .. })), "it is the same group");
    assert!(rebalances.next().await.unwrap().is_total_loss());
    assert!(rebalances.next().await.is_none());

    let again = alone.join("g").await.unwrap();
    assert_eq!(again.extract_my_subset(["x"]).await.unwrap().len(), 1);
    alone.shutdown().await.unwrap();
    assert!(matches!(again.extract_my_subset(["x"]).await, Err(Error::Closed { .. })));
    assert!(matches!(alone.join("g").await, Err(Error::Closed { .. })));

    let dropped = PartitionCoordinator::standalone().join("g").await.unwrap();
    assert!(
        matches!(dropped.extract_my_subset(["x"]).await, Err(Error::Closed { .. })),
        "so is its coordinator"
    );
}

#[tokio::test(start_paused = true)]
async fn a_session_that_took_long_to_open_has_a_share_as_soon_as_it_has_joined() {
    let memory = Memory::new();
    memory.refuse_connections(true);
    let back = async {
        sleep(7 * SECOND).await;
        memory.refuse_connections(false);
    };
    let (coordinator, ()) = tokio::join!(connect(memory.clone(), "a"), back);
    let group = coordinator.join("g").await.unwrap();
    // The lease counts from the moment the session was asked for, and that is over.
    assert_eq!(group.extract_my_subset(["x"]).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn no_task_survives_a_shutdown_that_the_backend_does_not_answer() {
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let baseline = tasks();
    let mishaps = Mishaps::new(&Memory::new());
    let coordinator = connect(mishaps.clone(), "a").await;
    coordinator.join("g").await.unwrap();
    mishaps.swallows_closes.store(true, Ordering::SeqCst);
    let ended = timeout(16 * SECOND, coordinator.shutdown()).await;
    assert!(ended.is_ok(), "it has to end whatever the backend does");
    assert_eq!(tasks(), baseline);
}

/// Compiles: what a service spawns has to be `Send`, whatever the items are.
#[allow(dead_code)]
fn futures_can_be_spawned(coordinator: &PartitionCoordinator, group: &Group, rows: &[(String, u64)]) {
    fn spawnable<T: Send>(future: impl Future<Output = T> + Send) {
        drop(future);
    }
    spawnable(PartitionCoordinator::connect("zookeeper://localhost"));
    spawnable(PartitionCoordinator::connect(Config::aodh()));
    spawnable(coordinator.join("g").weight(3).settle(SECOND).into_future());
    spawnable(coordinator.extract_my_subset("g", vec![String::new()]));
    spawnable(coordinator.extract_my_subset_by("g", rows.to_vec(), |row| row.1));
    spawnable(coordinator.shutdown());
    spawnable(group.extract_my_subset(vec![String::new()]));
    spawnable(group.extract_my_subset(&["x"]));
    spawnable(group.extract_my_subset((0..10).map(|n| n.to_string())));
    spawnable(group.extract_my_subset_by(rows, |row| row.0.clone()));
    spawnable(group.extract_my_subset_by(rows.iter(), |(_, number)| *number));
    spawnable(group.extract_my_subset_by(rows, |row| &row.0));
    spawnable(group.clone().leave());
    let (mut rebalances, shards) = (group.rebalances(), vec![String::new()]);
    spawnable(async move {
        while let Some(change) = rebalances.next().await {
            for shard in change.lost(&shards) {
                sleep(Duration::from_millis(shard.len() as u64)).await;
            }
        }
    });
    fn shareable<T: Send + Sync + fmt::Debug>() {}
    shareable::<PartitionCoordinator>();
    shareable::<Group>();
    shareable::<Share<String>>();
    shareable::<Rebalance>();
}
