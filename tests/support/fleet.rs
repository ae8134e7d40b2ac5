//! Members of a fleet for tests, so that the same scenario runs on the in-memory backend, under paused time, and
//! on a real server.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use apportion::{
    Config, Group, PartitionCoordinator,
    backend::{
        BoxFuture, CommitError, Connector, CreateMode, Error as BackendError, Memory, Op, Session, Stat,
        path::ZnodePath,
    },
    clock::Clock,
    group::{Rebalance, Rebalances},
    testing::Faults,
};

use super::{MS, Mode, Proxy, SECOND, eventually, path, until};
#[cfg(feature = "zookeeper")]
use super::{Server, shared_server, zookeeper};

/// A connector behind a pointer, for functions that take one by value.
#[derive(Debug, Clone)]
pub struct Via(pub Arc<dyn Connector>);

impl Connector for Via {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, BackendError>> {
        self.0.open(timeout)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.0.clock()
    }
}

/// Where a scenario takes place, with a namespace of its own.
#[derive(Debug, Clone)]
pub struct Store {
    pub reach: Reach,
    pub namespace: String,
    pub session_timeout: Duration,
    pub server_tick: Duration,
}

#[derive(Debug, Clone)]
pub enum Reach {
    Memory(Memory),
    /// The port of the server.
    #[cfg(feature = "zookeeper")]
    Server(u16),
}

impl Store {
    /// An ensemble in memory, with the timing of production.
    pub fn memory() -> Store {
        Store {
            reach: Reach::Memory(Memory::new()),
            namespace: "fleet".into(),
            session_timeout: 10 * SECOND,
            server_tick: 2 * SECOND,
        }
    }

    /// The server that the tests of one binary share, with a short session timeout.
    #[cfg(feature = "zookeeper")]
    pub async fn shared(namespace: &str) -> Store {
        Store::on(shared_server().await, namespace)
    }

    /// A server of the test alone, with a short session timeout.
    #[cfg(feature = "zookeeper")]
    pub fn on(server: &Server, namespace: &str) -> Store {
        Store {
            reach: Reach::Server(server.port()),
            namespace: namespace.into(),
            session_timeout: 2 * SECOND,
            server_tick: 100 * MS,
        }
    }

    /// The same store with another namespace.
    pub fn elsewhere(&self, namespace: String) -> Store {
        Store { namespace, ..self.clone() }
    }

    /// The in-memory ensemble of [`Store::memory`].
    pub fn ensemble(&self) -> &Memory {
        match &self.reach {
            Reach::Memory(memory) => memory,
            #[cfg(feature = "zookeeper")]
            Reach::Server(_) => panic!("this store is a server"),
        }
    }

    pub fn is_memory(&self) -> bool {
        matches!(self.reach, Reach::Memory(_))
    }

    /// Waits a little longer for each `stage`, so that another future gets one step further.
    pub async fn for_a_moment(&self, stage: u32) {
        if self.is_memory() {
            for _ in 0..stage {
                tokio::task::yield_now().await;
            }
        } else {
            tokio::time::sleep(stage * stage * MS / 4).await;
        }
    }

    pub fn connector(&self) -> Arc<dyn Connector> {
        match &self.reach {
            Reach::Memory(memory) => Arc::new(memory.clone()),
            #[cfg(feature = "zookeeper")]
            Reach::Server(port) => Arc::new(zookeeper(&format!("127.0.0.1:{port}"))),
        }
    }

    /// A connector to which no server answers, from now on.
    pub fn nowhere(&self) -> Arc<dyn Connector> {
        match &self.reach {
            Reach::Memory(memory) => {
                memory.refuse_connections(true);
                Arc::new(memory.clone())
            }
            #[cfg(feature = "zookeeper")]
            Reach::Server(_) => Arc::new(zookeeper(&format!("127.0.0.1:{}", super::free_port()))),
        }
    }

    /// For how long a member waits for the znode of another process with its id: the longest time for which the znode
    /// of a dead process can stay.
    pub fn lifetime(&self) -> Duration {
        self.session_timeout + 2 * self.server_tick
    }

    /// How long the server takes at most to notice a crash.
    pub fn expiry(&self) -> Duration {
        self.session_timeout + 2 * self.server_tick + self.slack()
    }

    /// What a loaded machine may add to any bound. Nothing in memory: there, time is paused while code runs.
    pub fn slack(&self) -> Duration {
        if self.is_memory() { 10 * MS } else { 3 * SECOND }
    }

    /// How long a change takes to be adopted by members whose watches work: a debounce of at most a second.
    pub fn round(&self) -> Duration {
        SECOND + self.slack()
    }

    /// The settings of a member of this fleet, through a connector.
    pub fn config_via(&self, connector: impl Connector, id: &str) -> Config {
        let config = Config::for_backend(connector)
            .member_id(id)
            .namespace(&*self.namespace)
            .session_timeout(self.session_timeout)
            .server_tick(self.server_tick);
        if self.is_memory() {
            return config;
        }
        config.retry_backoff(100 * MS).max_retry_interval(500 * MS)
    }

    /// A coordinator that reaches the store through this connector.
    pub async fn connect(&self, connector: impl Connector, id: &str) -> PartitionCoordinator {
        let connecting = PartitionCoordinator::connect(self.config_via(connector, id));
        connecting.await.expect("the store is there")
    }

    /// An agent's settings; its own way to the store comes with it.
    pub async fn prepare(&self, id: &str) -> (Config, Line) {
        let (inner, way): (Arc<dyn Connector>, _) = match &self.reach {
            Reach::Memory(memory) => (Arc::new(memory.clone()), Way::Memory(memory.clone())),
            #[cfg(feature = "zookeeper")]
            Reach::Server(port) => {
                let proxy = Proxy::start(*port).await;
                (Arc::new(zookeeper(&proxy.connect_string())), Way::Proxy(proxy))
            }
        };
        let faults = Faults::new(inner);
        (self.config_via(faults.clone(), id), Line { faults, way })
    }

    /// A connected member.
    pub async fn agent(&self, id: &str) -> Agent {
        self.agent_with(id, |config| config).await
    }

    /// A connected member with other settings.
    pub async fn agent_with(&self, id: &str, change: impl FnOnce(Config) -> Config) -> Agent {
        let (config, line) = self.prepare(id).await;
        let coordinator = PartitionCoordinator::connect(change(config)).await.expect("the store is there");
        Agent { coordinator, line }
    }

    /// A member that does not wait for the store.
    pub async fn started(&self, id: &str) -> Agent {
        let (config, line) = self.prepare(id).await;
        Agent { coordinator: PartitionCoordinator::start(config).expect("the settings are right"), line }
    }

    /// A session of another process: an administrator, a Python peer.
    pub async fn session(&self) -> Arc<dyn Session> {
        self.connector().open(20 * SECOND).await.expect("the store is there")
    }

    /// A znode below the namespace; several names with slashes in between.
    pub fn path(&self, below: &str) -> ZnodePath {
        path(&format!("/{}/{below}", self.namespace))
    }

    /// A plain member, such as a Python peer. Its znode lives as long as the session.
    pub async fn plain(&self, group: &str, id: &str, data: &[u8]) -> Arc<dyn Session> {
        let session = self.session().await;
        create_with_ancestors(&*session, &self.path(group)).await;
        let created = Op::create(&self.path(group).join(id).unwrap(), data, CreateMode::Ephemeral);
        session.commit(vec![created]).await.expect("the id is free");
        session
    }
}

/// The way of one member to the store.
#[derive(Debug)]
pub struct Line {
    pub faults: Faults,
    way: Way,
}

#[derive(Debug)]
enum Way {
    Memory(Memory),
    Proxy(Proxy),
}

/// A member of the fleet, with its own way to the store.
#[derive(Debug)]
pub struct Agent {
    pub coordinator: PartitionCoordinator,
    pub line: Line,
}

impl Agent {
    pub async fn join(&self, group: &str) -> Group {
        self.coordinator.join(group).await.expect("it can join the group")
    }

    pub fn faults(&self) -> &Faults {
        &self.line.faults
    }

    /// Cuts the line in both directions, without a reset.
    pub fn suspend(&self) {
        match &self.line.way {
            Way::Memory(memory) => memory.suspend(self.coordinator.session_id().expect("it has a session")),
            Way::Proxy(proxy) => proxy.set(Mode::BlackHole),
        }
    }

    /// Restores the line. In memory the line is that of a session, which must still be the current one.
    pub fn resume(&self) {
        match &self.line.way {
            Way::Memory(memory) => memory.resume(self.coordinator.session_id().expect("it has a session")),
            Way::Proxy(proxy) => proxy.set(Mode::Pass),
        }
    }

    /// The proxy on the way to a real server.
    pub fn proxy(&self) -> &Proxy {
        match &self.line.way {
            Way::Memory(_) => panic!("there is no proxy in memory"),
            Way::Proxy(proxy) => proxy,
        }
    }

    /// Ends without a request to the store. The line stays cut as long as the returned value lives.
    pub fn crash(self) -> Line {
        self.suspend();
        self.line
    }

    /// Lets the session expire, and restores the line afterwards.
    pub async fn expire(&self, store: &Store) {
        let old = self.coordinator.session_id().expect("it has a session");
        if let Way::Memory(memory) = &self.line.way {
            memory.expire(old);
            return;
        }
        self.suspend();
        tokio::time::sleep(store.session_timeout + 2 * store.server_tick).await;
        self.resume();
        let gone = || async { (self.coordinator.session_id()? != old).then_some(()) };
        eventually("a new session", 10 * SECOND, gone).await;
    }
}

/// The work that is shared in most tests.
pub fn universe() -> Vec<String> {
    (0..100).map(|number| format!("alarm-{number}")).collect()
}

/// The owners of each key of the universe, as the members see it at this moment.
pub fn owners(groups: &[&Group]) -> BTreeMap<String, Vec<String>> {
    let views: Vec<_> = groups.iter().map(|group| group.view()).collect();
    let owners_of =
        |key: &String| views.iter().filter(|view| view.owns(key)).map(|view| view.me().to_string()).collect();
    universe().into_iter().map(|key| (key.clone(), owners_of(&key))).collect()
}

/// Whether each key of the universe has exactly one owner.
pub fn is_settled(groups: &[&Group]) -> bool {
    owners(groups).values().all(|owners| owners.len() == 1)
}

/// Waits until each key of the universe has exactly one owner among the members of `groups`, all of them see the
/// same ring, and what they extract is the same as what their views say.
///
/// # Panics
///
/// If that was not so within `bound`.
pub async fn settles_within(bound: Duration, groups: &[&Group]) {
    let probe = || async {
        let mut digests: Vec<_> = groups.iter().map(|group| group.view().ring().digest()).collect();
        digests.dedup();
        (digests.len() == 1 && is_settled(groups)).then_some(())
    };
    let settled = tokio::time::timeout(bound, eventually("settled", bound + SECOND, probe)).await;
    if settled.is_err() {
        let views: Vec<_> = groups.iter().map(|group| group.view()).collect();
        let orphans = owners(groups).into_iter().filter(|(_, owners)| owners.len() != 1).take(5);
        panic!("not within {bound:?} one owner each: {:?} {views:#?}", orphans.collect::<Vec<_>>());
    }
    let mut extracted = Vec::new();
    for group in groups {
        let share = group.extract_my_subset(universe()).await.expect("a settled member has a share");
        assert!(share.is_valid());
        extracted.extend(share);
    }
    extracted.sort_unstable();
    let mut all = universe();
    all.sort_unstable();
    assert_eq!(extracted, all);
}

/// The next change. Panics if there is none for a long time.
pub async fn next_change(rebalances: &mut Rebalances) -> Rebalance {
    let next = tokio::time::timeout(300 * SECOND, rebalances.next()).await;
    next.expect("nothing changes").expect("the group is not left")
}

/// Whether no further change can come.
pub async fn is_over(rebalances: &mut Rebalances) -> bool {
    matches!(tokio::time::timeout(300 * SECOND, rebalances.next()).await, Ok(None))
}

/// Waits until `group` counts exactly these members.
pub async fn sees(group: &Group, bound: Duration, members: &[&str]) {
    let view = || async { (ids(group) == members).then_some(()) };
    let seen = tokio::time::timeout(bound, eventually("seen", bound + SECOND, view)).await;
    assert!(seen.is_ok(), "not within {bound:?} {members:?}: {:?}", group.view());
}

/// The ids of the members that `group` counts.
pub fn ids(group: &Group) -> Vec<String> {
    group.view().members().iter().map(|member| member.id().to_string()).collect()
}

/// The data and stat of a znode that exists, as the leader has it.
pub async fn znode(session: &dyn Session, path: &ZnodePath) -> (Vec<u8>, Stat) {
    session.sync(path).await.expect("the store is there");
    session.get(path).await.expect("it can be read").unwrap_or_else(|| panic!("there is no {path}"))
}

/// Whether there is such a znode, as the leader has it.
pub async fn exists(session: &dyn Session, path: &ZnodePath) -> bool {
    session.sync(path).await.expect("the store is there");
    session.get(path).await.expect("it can be read").is_some()
}

/// Creates a znode and its ancestors, as far as they are missing.
pub async fn create_with_ancestors(session: &dyn Session, path: &ZnodePath) {
    for path in path.with_ancestors() {
        match session.commit(vec![Op::create(&path, "", CreateMode::Persistent)]).await {
            Ok(_) | Err(CommitError { error: BackendError::NodeExists, .. }) => {}
            Err(error) => panic!("{path}: {error}"),
        }
    }
}

/// Deletes a znode and everything below it, whatever is created meanwhile.
pub async fn delete_recursively(session: &dyn Session, path: &ZnodePath) {
    loop {
        let children = match session.children(path).await {
            Ok((children, _)) => children,
            Err(BackendError::NoNode) => return,
            Err(error) => panic!("{path}: {error}"),
        };
        for child in children {
            Box::pin(delete_recursively(session, &path.join(&child).unwrap())).await;
        }
        match session.commit(vec![Op::delete(path, None)]).await {
            Ok(_) | Err(CommitError { error: BackendError::NoNode, .. }) => return,
            Err(CommitError { error: BackendError::NotEmpty, .. }) => {}
            Err(error) => panic!("{path}: {error}"),
        }
    }
}

/// Has each scenario run twice: in memory under paused time, and on a real server, if the feature for that is on.
#[allow(unused_macros, reason = "as for the functions of this module")]
macro_rules! on_both_backends {
    ($($scenario:ident),+ $(,)?) => {
        mod memory {
            $(#[tokio::test(start_paused = true)]
            async fn $scenario() {
                super::$scenario($crate::support::fleet::Store::memory()).await;
            })+
        }
        #[cfg(feature = "zookeeper")]
        mod server {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario($crate::support::fleet::Store::shared(stringify!($scenario)).await).await;
            })+
        }
    };
}
pub(crate) use on_both_backends;
