//! Names with several addresses, of which some are dead; and what is said of hosts at which no session can be opened.

use std::{
    net::{IpAddr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use apportion::backend::{Connector, CreateMode, Error, Op, SessionState};

use crate::support::{MS, Mode, Proxy, RELEASES, SECOND, path, shared_server_of, zookeeper};

/// An address at which connections are accepted and nothing is said.
fn silent(at: SocketAddr) -> TcpListener {
    TcpListener::bind(at).unwrap()
}

/// An address at which packets are dropped: its queue is full, because no connection is accepted.
async fn dropping(at: SocketAddr) -> (tokio::net::TcpListener, Vec<TcpStream>) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind(at).unwrap();
    let listener = socket.listen(0).unwrap();
    let mut queue = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&listener.local_addr().unwrap(), 200 * MS) {
        queue.push(stream);
        assert!(queue.len() < 10_000, "the queue has no limit");
    }
    (listener, queue)
}

fn address(last: u8) -> IpAddr {
    [127, 0, 0, last].into()
}

#[tokio::test]
async fn a_name_whose_other_addresses_are_dead_opens_sessions_each_time() {
    for release in RELEASES {
        let port = shared_server_of(release).await.port();
        let at = |last| SocketAddr::new(address(last), port);
        let _silent = [silent(at(2)), silent(at(3)), silent(at(4))];
        let _dropping = [dropping(at(5)).await, dropping(at(6)).await];
        // 127.0.0.7 refuses connections.
        let connector = zookeeper(&format!("zk.example:{port}"))
            .resolve_as("zk.example", [2, 3, 4, 5, 6, 7, 1].map(address));
        for _ in 0..5 {
            let session = connector.open(2 * SECOND).await.unwrap();
            let node = path("/behind-dead-addresses");
            session.commit(vec![Op::create(&node, "", CreateMode::Ephemeral)]).await.unwrap();
            session.close().await;
        }
    }
}

#[tokio::test]
async fn one_live_host_among_many_dead_ones_is_found_each_time() {
    let server = shared_server_of(RELEASES[0]).await;
    let anywhere: SocketAddr = "127.0.0.2:0".parse().unwrap();
    let silent: Vec<_> = (0..8).map(|_| silent(anywhere)).collect();
    let (dropping, _queue) = dropping(anywhere).await;
    let mut hosts: Vec<_> = silent.iter().map(|it| it.local_addr().unwrap().to_string()).collect();
    hosts.extend([dropping.local_addr().unwrap().to_string(), server.connect_string()]);
    for _ in 0..5 {
        zookeeper(&hosts.join(",")).open(2 * SECOND).await.unwrap().close().await;
    }
}

#[tokio::test]
async fn a_session_through_one_of_several_addresses_reconnects_through_it() {
    let proxy = Proxy::start(shared_server_of(RELEASES[0]).await.port()).await;
    let _silent = silent(SocketAddr::new(address(2), proxy.port()));
    let name = zookeeper(&format!("zk.example:{}", proxy.port()));
    let session = name.resolve_as("zk.example", [2, 1].map(address)).open(4 * SECOND).await.unwrap();
    let mut state = session.state();
    proxy.set(Mode::Cut);
    let suspended = state.wait_for(|state| *state == SessionState::Suspended);
    tokio::time::timeout(4 * SECOND, suspended).await.unwrap().unwrap();
    proxy.set(Mode::Pass);
    let connected = state.wait_for(|state| matches!(state, SessionState::Connected { .. }));
    tokio::time::timeout(4 * SECOND, connected).await.unwrap().unwrap();
    session.close().await;
}

#[tokio::test]
async fn a_slow_server_is_not_cut_off_by_the_shares_of_the_addresses_after_it() {
    let timeout = 6 * SECOND;
    let proxy = Proxy::start(shared_server_of(RELEASES[0]).await.port()).await;
    // A session takes two round trips of a ninth of the timeout each, and each of five addresses has a sixth.
    proxy.set(Mode::Delay(timeout / 18));
    let silent: Vec<_> = (0..4).map(|_| silent("127.0.0.2:0".parse().unwrap())).collect();
    let mut hosts: Vec<_> = silent.iter().map(|it| it.local_addr().unwrap().to_string()).collect();
    hosts.push(proxy.connect_string());
    for _ in 0..3 {
        zookeeper(&hosts.join(",")).open(timeout).await.unwrap().close().await;
    }
}

#[tokio::test]
async fn a_server_that_has_become_silent_is_tried_after_the_others() {
    let port = shared_server_of(RELEASES[0]).await.port();
    for _ in 0..5 {
        let proxies = [Proxy::start(port).await, Proxy::start(port).await];
        let hosts = proxies.each_ref().map(Proxy::connect_string).join(",");
        let session = zookeeper(&hosts).open(4 * SECOND).await.unwrap();
        let used = usize::from(proxies[0].accepted() == 0);
        proxies[used].set(Mode::BlackHole);
        let before = proxies[used].accepted();
        let mut state = session.state();
        let connected = state.wait_for(|state| matches!(state, SessionState::Connected { epoch: 2.. }));
        tokio::time::timeout(4 * SECOND, connected).await.unwrap().unwrap();
        assert_eq!(proxies[used].accepted(), before, "the silent server was tried first");
        session.close().await;
    }
}

/// Answers each connection as a web server answers a line that is no request.
async fn web_server(listener: tokio::net::TcpListener) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut connections = tokio::task::JoinSet::new();
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        connections.spawn(async move {
            let mut line = Vec::new();
            while !line.ends_with(b"\r\n") && stream.read_buf(&mut line).await.unwrap_or(0) > 0 {}
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
        });
    }
}

#[tokio::test]
async fn an_unreachable_host_says_why_for_each_host() {
    let quiet = silent("127.0.0.1:0".parse().unwrap());
    let web = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (quiet_at, web_at) = (quiet.local_addr().unwrap(), web.local_addr().unwrap());
    let refused = format!("127.0.0.1:{}", crate::support::free_port());
    let hosts = format!("no-such-host.invalid:1,{refused},{quiet_at},{web_at}");
    let connector = zookeeper(&hosts);
    let opened = tokio::select! {
        opened = connector.open(2 * SECOND) => opened,
        () = web_server(web) => unreachable!("it serves for ever"),
    };
    let Err(Error::Unreachable(reason)) = opened else { panic!("{opened:?}") };
    for (host, why) in [
        ("no-such-host.invalid:1".to_owned(), "its name does not resolve"),
        (refused, "connection refused"),
        (quiet_at.to_string(), "no answer"),
        (web_at.to_string(), "it is not a ZooKeeper server: it answers `HTTP/1.1 400 Bad Request`"),
    ] {
        assert!(reason.contains(&format!("{host}: {why}")), "{host}: {why}: {reason}");
    }
}

#[tokio::test]
async fn opening_takes_no_longer_than_its_timeout_whatever_is_silent() {
    let quiet = silent("127.0.0.1:0".parse().unwrap());
    let connector = zookeeper(&quiet.local_addr().unwrap().to_string());
    let clock = connector.clock();
    let begin = clock.now();
    assert!(connector.open(SECOND).await.is_err());
    let took = clock.now().saturating_since(begin);
    assert!(took < Duration::from_millis(1500), "{took:?}");
}
