//! Three ZooKeeper servers with a proxy on each link between them.

use std::time::Duration;

use tokio::sync::{Mutex, MutexGuard};

use super::{Mode, Proxy, Release, Server, Settings, eventually, free_port};

const SIZE: usize = 3;

/// For how long a cut follower still serves reads, in ticks. Long enough that a short session expires meanwhile.
const SYNC_LIMIT: u32 = 50;

/// How long a server may take from winning an election to listening for followers.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(3);

/// A server that has lost its quorum waits longer and longer before it tells the others again, by default up to a minute.
const LONGEST_WAIT: &str = "-Dzookeeper.fastleader.maxNotificationInterval=500";

/// Two ensembles at once are too much for a small machine.
static ONE: Mutex<()> = Mutex::const_new(());

/// An ensemble of three servers, numbered from 0. Dropping it kills them and removes their data. One that is started
/// while another one is there waits for its end.
///
/// Each server reaches the quorum port of each other one through a proxy of its own: followers connect to their
/// leader there, so that these links can be cut one by one. Election messages are not proxied, because servers
/// tell each other their true election addresses. A follower needs its link to the leader all the same.
#[derive(Debug)]
pub struct Ensemble {
    servers: Vec<Server>,
    /// `links[from][to]`; `None` to itself.
    links: Vec<Vec<Option<Proxy>>>,
    /// Dropped last, when the servers are gone.
    _one: MutexGuard<'static, ()>,
}

impl Ensemble {
    /// An ensemble whose clock ticks every `tick`; all servers serve.
    pub async fn start(tick: Duration) -> Ensemble {
        Ensemble::start_of(Release::System, tick).await
    }

    /// Like [`Ensemble::start`], of servers of this release.
    pub async fn start_of(release: Release, tick: Duration) -> Ensemble {
        let mut last = String::new();
        for _ in 0..5 {
            let mut ensemble = Ensemble::prepare(release, tick, ONE.lock().await).await;
            for server in &mut ensemble.servers {
                server.spawn();
            }
            match ensemble.ready().await {
                Ok(()) => return ensemble,
                Err(error) => last = error,
            }
        }
        panic!("{last}");
    }

    async fn prepare(release: Release, tick: Duration, one: MutexGuard<'static, ()>) -> Ensemble {
        let ports: [[u16; SIZE]; 3] = std::array::from_fn(|_| std::array::from_fn(|_| free_port()));
        let [clients, quorum, election] = ports;
        let mut servers = Vec::new();
        let mut links = Vec::new();
        for (me, client) in clients.into_iter().enumerate() {
            let mut settings = Settings { release, tick, ..Settings::default() };
            settings.java = vec![LONGEST_WAIT.to_owned()];
            settings.lines = vec![
                "initLimit=50".to_owned(),
                format!("syncLimit={SYNC_LIMIT}"),
                "standaloneEnabled=false".to_owned(),
            ];
            let mut row = Vec::new();
            for other in 0..SIZE {
                let proxy = if other == me {
                    None
                } else {
                    Some(Proxy::start_waiting(quorum[other], ELECTION_TIMEOUT).await)
                };
                let port = proxy.as_ref().map_or(quorum[other], Proxy::port);
                settings.lines.push(format!("server.{}=127.0.0.1:{port}:{}", other + 1, election[other]));
                row.push(proxy);
            }
            servers.push(Server::prepare(client, &settings, Some(me + 1)));
            links.push(row);
        }
        Ensemble { servers, links, _one: one }
    }

    async fn ready(&self) -> Result<(), String> {
        for server in &self.servers {
            server.ready().await?;
        }
        Ok(())
    }

    /// The addresses of all servers.
    pub fn connect_string(&self) -> String {
        self.servers.iter().map(Server::connect_string).collect::<Vec<_>>().join(",")
    }

    /// One of the servers.
    pub fn server(&self, index: usize) -> &Server {
        &self.servers[index]
    }

    /// The server that leads, once there is one.
    pub async fn leader(&self) -> usize {
        eventually("a server leads", Duration::from_secs(20), || async {
            self.in_mode("leader").await.first().copied()
        })
        .await
    }

    /// The servers that follow, at least one.
    pub async fn followers(&self) -> Vec<usize> {
        eventually("a server follows", Duration::from_secs(20), || async {
            Some(self.in_mode("follower").await).filter(|followers| !followers.is_empty())
        })
        .await
    }

    async fn in_mode(&self, mode: &str) -> Vec<usize> {
        let mut found = Vec::new();
        for (index, server) in self.servers.iter().enumerate() {
            if server.mode().await.as_deref() == Some(mode) {
                found.push(index);
            }
        }
        found
    }

    /// Lets the link between a follower and the leader drop everything. The follower serves reads until it notices,
    /// after 50 ticks.
    pub async fn cut_from_leader(&self, follower: usize) {
        let leader = self.leader().await;
        assert_ne!(leader, follower, "a leader cannot be cut from itself");
        for link in [&self.links[follower][leader], &self.links[leader][follower]].into_iter().flatten() {
            link.set(Mode::BlackHole);
        }
    }

    /// Lets all links of a server to the others drop everything. Only votes reach it.
    pub fn cut_off(&self, server: usize) {
        for other in 0..SIZE {
            for link in [&self.links[other][server], &self.links[server][other]].into_iter().flatten() {
                link.set(Mode::BlackHole);
            }
        }
    }

    /// Lets all links pass again.
    pub fn heal(&self) {
        for link in self.links.iter().flatten().flatten() {
            link.set(Mode::Pass);
        }
    }

    /// Kills a server with SIGKILL. Its data stays.
    pub fn kill(&mut self, index: usize) {
        self.servers[index].kill();
    }

    /// Asks a server with SIGTERM to end, as an operator does. It has to be killed before it is started again.
    pub fn terminate(&self, index: usize) {
        self.servers[index].terminate();
    }

    /// Starts a killed server again and waits until it serves.
    pub async fn restart(&mut self, index: usize) {
        self.servers[index].restart().await;
    }

    /// Starts killed servers again and waits until all of them serve.
    pub async fn restart_all(&mut self, indices: &[usize]) {
        indices.iter().for_each(|index| self.servers[*index].spawn());
        for index in indices {
            if let Err(error) = self.servers[*index].ready().await {
                panic!("{error}");
            }
        }
    }
}
