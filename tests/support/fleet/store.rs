//! [`Store`]: where a scenario takes place.

use std::{sync::Arc, time::Duration};

use apportion::{
    Config, Join, PartitionCoordinator,
    backend::{BoxFuture, Connector, CreateMode, Error, Memory, Op, Session, path::ZnodePath},
    clock::Clock,
    testing::Faults,
};

use super::{Agent, Line, Way, create_with_ancestors};
use crate::support::{MS, SECOND, path};
#[cfg(feature = "zookeeper")]
use crate::support::{Proxy, Release, Server, shared_server, shared_server_of, zookeeper};

/// A connector behind a pointer, for functions that take one by value.
#[derive(Debug, Clone)]
pub struct Via(pub Arc<dyn Connector>);

impl Connector for Via {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, Error>> {
        self.0.open(timeout)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.0.clock()
    }
}

/// A join in one of the two modes.
pub(super) fn joining(coordinator: &PartitionCoordinator, group: &str, is_immediate: bool) -> Join {
    let join = coordinator.join(group);
    if is_immediate { join.immediate() } else { join.plain_grace(Duration::ZERO) }
}

/// Where a scenario takes place, with a namespace of its own.
#[derive(Debug, Clone)]
pub struct Store {
    pub reach: Reach,
    pub namespace: String,
    pub session_timeout: Duration,
    pub server_tick: Duration,
    /// Whether the members of this store join without the handover of keys.
    pub is_immediate: bool,
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
            is_immediate: false,
        }
    }

    /// The server that the tests of one binary share, with a short session timeout.
    #[cfg(feature = "zookeeper")]
    pub async fn shared(namespace: &str) -> Store {
        Store::on(shared_server().await, namespace)
    }

    /// The shared server of another release.
    #[cfg(feature = "zookeeper")]
    pub async fn shared_of(release: Release, namespace: &str) -> Store {
        Store::on(shared_server_of(release).await, namespace)
    }

    /// A server of the test alone, with a short session timeout.
    #[cfg(feature = "zookeeper")]
    pub fn on(server: &Server, namespace: &str) -> Store {
        Store {
            reach: Reach::Server(server.port()),
            namespace: namespace.into(),
            session_timeout: 2 * SECOND,
            server_tick: 100 * MS,
            is_immediate: false,
        }
    }

    /// The same store with members that join without the handover of keys.
    pub fn immediate(self) -> Store {
        Store { is_immediate: true, ..self }
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

    /// A connector of this user.
    pub fn connector_of(&self, user: &str) -> Arc<dyn Connector> {
        match &self.reach {
            Reach::Memory(memory) => Arc::new(memory.as_user(user)),
            #[cfg(feature = "zookeeper")]
            Reach::Server(port) => Arc::new(zookeeper(&format!("127.0.0.1:{port}")).digest(user, "secret")),
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
            Reach::Server(_) => Arc::new(zookeeper(&format!("127.0.0.1:{}", crate::support::free_port()))),
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

    /// A join with the mode of this store. The plain members of these tests never act, so no key waits for them.
    pub fn join(&self, coordinator: &PartitionCoordinator, group: &str) -> Join {
        joining(coordinator, group, self.is_immediate)
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
        Agent { coordinator, line, is_immediate: self.is_immediate }
    }

    /// A member that does not wait for the store.
    pub async fn started(&self, id: &str) -> Agent {
        let (config, line) = self.prepare(id).await;
        let coordinator = PartitionCoordinator::start(config).expect("the settings are right");
        Agent { coordinator, line, is_immediate: self.is_immediate }
    }

    /// A session of another process: an administrator, a Python peer.
    pub async fn session(&self) -> Arc<dyn Session> {
        self.connector().open(20 * SECOND).await.expect("the store is there")
    }

    /// A znode below the namespace; several names with slashes in between.
    pub fn path(&self, below: &str) -> ZnodePath {
        path(&format!("/{}/{below}", self.namespace))
    }

    /// The head of a group.
    pub fn head(&self, group: &str) -> ZnodePath {
        path(&format!("/{}.ring/{group}", self.namespace))
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
