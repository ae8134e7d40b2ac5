//! A TCP proxy that can fail as networks do.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
    task::JoinSet,
    time::Instant,
};

/// What a [`Proxy`] does to its connections, those that exist and those to come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mode {
    /// Passes everything on.
    Pass,
    /// Resets all connections, and each new one at once.
    Cut,
    /// Keeps back what the client sends.
    SwallowToServer,
    /// Keeps back what the server sends: requests arrive, replies are lost.
    SwallowToClient,
    /// Keeps back everything, without a reset: a partition.
    BlackHole,
    /// Passes everything on, this much later.
    Delay(Duration),
    /// Passes everything on, but new connections are for a new session: the id in the first request is removed. This is
    /// what a server does that does not keep sessions.
    Forget,
}

/// A TCP proxy on a free port of 127.0.0.1. It belongs to the runtime that started it; dropping it closes all
/// connections.
///
/// What it keeps back it passes on when the mode allows it again, as TCP does after a partition heals, unless
/// the connection was closed meanwhile.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    link: watch::Sender<Link>,
    accepted: Arc<AtomicUsize>,
    granted: Arc<Mutex<Option<Granted>>>,
    _tasks: JoinSet<()>,
}

/// A session that a server has granted to a client, with the password by which any connection can take it up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Granted {
    pub id: [u8; 8],
    pub password: [u8; 16],
}

#[derive(Clone, Copy, Debug)]
struct Link {
    mode: Mode,
    /// Counts the cuts, so that a connection notices one that is over already.
    cuts: u32,
}

#[derive(Clone, Copy, Debug)]
enum Direction {
    ToServer,
    ToClient,
}

impl Link {
    fn passes(self, direction: Direction) -> bool {
        match self.mode {
            Mode::Pass | Mode::Delay(_) | Mode::Forget => true,
            Mode::Cut | Mode::BlackHole => false,
            Mode::SwallowToServer => matches!(direction, Direction::ToClient),
            Mode::SwallowToClient => matches!(direction, Direction::ToServer),
        }
    }

    fn delay(self) -> Duration {
        match self.mode {
            Mode::Delay(delay) => delay,
            _ => Duration::ZERO,
        }
    }
}

impl Proxy {
    /// A proxy to `port` of 127.0.0.1, which passes everything. While no server listens there, it resets new
    /// connections at once.
    pub async fn start(port: u16) -> Proxy {
        Proxy::start_waiting(port, Duration::ZERO).await
    }

    /// Like [`Proxy::start`], but keeps a connection waiting for this long until a server listens. A ZooKeeper
    /// server tries again when its leader refuses the connection, but not when it accepts and resets it.
    pub async fn start_waiting(port: u16, wait: Duration) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("there is a free port");
        let address = listener.local_addr().expect("a bound socket has an address");
        let (link, state) = watch::channel(Link { mode: Mode::Pass, cuts: 0 });
        let mut tasks = JoinSet::new();
        let (accepted, granted) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<_>>::default());
        tasks.spawn(accept(listener, port, wait, state, (accepted.clone(), granted.clone())));
        Proxy { address, link, accepted, granted, _tasks: tasks }
    }

    /// The port on which it listens.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// `127.0.0.1:port`.
    pub fn connect_string(&self) -> String {
        self.address.to_string()
    }

    /// On how many connections a client has sent something so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }

    /// The last session that a server has granted over it.
    pub fn granted(&self) -> Option<Granted> {
        *self.granted.lock().expect("no task panics with it")
    }

    /// Changes what it does, from now on, to all connections.
    pub fn set(&self, mode: Mode) {
        self.link.send_modify(|link| {
            link.mode = mode;
            link.cuts += u32::from(mode == Mode::Cut);
        });
    }

    /// Resets all connections; new ones pass.
    pub fn reset(&self) {
        self.set(Mode::Cut);
        self.set(Mode::Pass);
    }
}

/// What a proxy notes of its connections.
type Notes = (Arc<AtomicUsize>, Arc<Mutex<Option<Granted>>>);

async fn accept(listener: TcpListener, port: u16, wait: Duration, link: watch::Receiver<Link>, notes: Notes) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(connection(client, port, wait, link.clone(), notes.clone()));
        while connections.try_join_next().is_some() {}
    }
}

async fn connection(
    mut client: TcpStream,
    port: u16,
    wait: Duration,
    mut link: watch::Receiver<Link>,
    (used, granted): Notes,
) {
    let Link { mode, cuts } = *link.borrow_and_update();
    if mode == Mode::Cut {
        let _ = client.set_zero_linger();
        return;
    }
    let Some(mut server) = reach(port, wait).await else {
        let _ = client.set_zero_linger();
        return;
    };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let request = move |chunk: &mut [u8]| {
        used.fetch_add(1, Ordering::SeqCst);
        if mode == Mode::Forget {
            forget_session(chunk);
        }
    };
    let reply = move |chunk: &mut [u8]| {
        let session = granted_by(chunk);
        *granted.lock().expect("no task panics with it") = session;
    };
    let pumps = async {
        tokio::join!(
            pump(from_client, to_server, Direction::ToServer, link.clone(), request),
            pump(from_server, to_client, Direction::ToClient, link.clone(), reply),
        )
    };
    let mut cut = link.clone();
    tokio::select! {
        biased;
        // First: what was kept back until the cut is not passed on.
        _ = cut.wait_for(|link| link.cuts != cuts) => {}
        _ = pumps => return,
    }
    // Without lingering, dropping a socket resets its connection.
    let _ = (client.set_zero_linger(), server.set_zero_linger());
}

async fn reach(port: u16, wait: Duration) -> Option<TcpStream> {
    let connecting = async {
        loop {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(server) => return Some(server),
                Err(_) if wait.is_zero() => return None,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    };
    tokio::time::timeout(wait.max(Duration::from_secs(1)), connecting).await.ok().flatten()
}

/// Carries one direction of a connection until its end, and passes the end on. Shows `first` the first bytes.
async fn pump(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    direction: Direction,
    mut link: watch::Receiver<Link>,
    first: impl FnOnce(&mut [u8]),
) {
    let (queue, mut queued) = mpsc::unbounded_channel();
    let delay = link.clone();
    let mut first = Some(first);
    let read = async move {
        loop {
            let mut chunk = vec![0; 16 * 1024];
            let length = from.read(&mut chunk).await.unwrap_or(0);
            chunk.truncate(length);
            if let Some(first) = first.take_if(|_| length > 0) {
                first(&mut chunk);
            }
            #[allow(clippy::disallowed_methods, reason = "the proxy delays real connections")]
            let due = Instant::now() + delay.borrow().delay();
            if queue.send((due, chunk)).is_err() || length == 0 {
                return;
            }
        }
    };
    let write = async move {
        while let Some((due, chunk)) = queued.recv().await {
            tokio::time::sleep_until(due).await;
            if link.wait_for(|link| link.passes(direction)).await.is_err() {
                return;
            }
            if chunk.is_empty() {
                let _ = to.shutdown().await;
                return;
            }
            if to.write_all(&chunk).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}

/// Removes the session from a request to connect: its length, the protocol version, the last transaction that was seen,
/// the timeout, and then the id of the session and its password.
fn forget_session(request: &mut [u8]) {
    const ID: std::ops::Range<usize> = 20..28;
    const PASSWORD: std::ops::Range<usize> = 32..48;
    for part in [ID, PASSWORD] {
        if let Some(part) = request.get_mut(part) {
            part.fill(0);
        }
    }
}

/// The session in the reply to a request to connect: its length, the protocol version, the timeout, the id of the
/// session, and its password. `None` if the session had expired, or it is no such reply.
fn granted_by(reply: &[u8]) -> Option<Granted> {
    let id: [u8; 8] = reply.get(12..20)?.try_into().ok()?;
    let password = reply.get(24..40)?.try_into().ok()?;
    (id != [0; 8]).then_some(Granted { id, password })
}
