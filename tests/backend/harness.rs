//! The test harness itself: servers die with the test, proxies and ensembles break as they say.

use std::{
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use apportion::backend::{Connector, CreateMode, Op, SessionState, path::ZnodePath};

use crate::support::{Broker, Ensemble, Mode, Proxy, SECOND, Server, shared_server, until, zookeeper};

/// Runs itself in a second process, kills that, and checks that nothing of it is left.
#[tokio::test]
async fn a_killed_test_leaves_no_server_and_no_folder_behind() {
    if is_to_be_killed() {
        let server = Server::start().await;
        eprintln!("serves {} {}", server.folder().display(), server.port());
        return std::future::pending().await;
    }
    nothing_is_left_of("a_killed_test_leaves_no_server_and_no_folder_behind").await;
}

#[tokio::test]
async fn a_killed_test_leaves_no_broker_and_no_epmd_behind() {
    if is_to_be_killed() {
        let broker = Broker::start().await;
        eprintln!("serves {} {} {}", broker.folder().display(), broker.port(), broker.epmd_port());
        return std::future::pending().await;
    }
    nothing_is_left_of("a_killed_test_leaves_no_broker_and_no_epmd_behind").await;
}

const ROLE: &str = "APPORTION_TEST_IS_TO_BE_KILLED";

fn is_to_be_killed() -> bool {
    std::env::var_os(ROLE).is_some()
}

/// Runs the test `name` in a second process until it says in which folder and on which ports something serves,
/// kills it, and waits until all that is gone.
async fn nothing_is_left_of(name: &str) {
    let mut test = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", &format!("harness::{name}"), "--nocapture"])
        .env(ROLE, "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(test.stderr.take().unwrap()).lines();
    let line =
        lines.map(Result::unwrap).find(|line| line.starts_with("serves ")).expect("it starts a server");
    let mut words = line.split(' ').skip(1);
    let folder = std::path::PathBuf::from(words.next().unwrap());
    let ports: Vec<u16> = words.map(|port| port.parse().unwrap()).collect();
    let serves = |port: &u16| std::net::TcpStream::connect(("127.0.0.1", *port)).is_ok();
    assert!(folder.exists() && !ports.is_empty() && ports.iter().all(serves));
    test.kill().unwrap();
    test.wait().unwrap();
    until("the server and its folder are gone", 10 * SECOND, || {
        !folder.exists() && !ports.iter().any(serves)
    })
    .await;
}

#[tokio::test]
async fn a_stopped_server_is_silent_and_goes_on_where_it_was() {
    let server = Server::start().await;
    let session = zookeeper(&server.connect_string()).open(2 * SECOND).await.unwrap();
    let node = ZnodePath::parse("/stopped").unwrap();
    session.commit(vec![Op::create(&node, b"", CreateMode::Ephemeral)]).await.unwrap();
    let mut state = session.state();
    server.pause();
    let suspended = state.wait_for(|state| *state == SessionState::Suspended);
    assert!(tokio::time::timeout(2 * SECOND, suspended).await.is_ok());
    server.resume();
    let connected = state.wait_for(|state| matches!(state, SessionState::Connected { .. }));
    assert!(tokio::time::timeout(3 * SECOND, connected).await.is_ok());
    assert!(session.get(&node).await.unwrap().is_some());
}

#[tokio::test]
async fn a_delay_holds_up_each_direction_of_existing_connections() {
    let proxy = Proxy::start(shared_server().await.port()).await;
    let session = zookeeper(&proxy.connect_string()).open(5 * SECOND).await.unwrap();
    let root = ZnodePath::root();
    let read = || tokio::time::timeout(Duration::from_millis(580), session.get(&root));
    assert!(read().await.is_ok());
    proxy.set(Mode::Delay(Duration::from_millis(300)));
    assert!(read().await.is_err(), "a round trip took less than two delays");
    proxy.set(Mode::Pass);
    assert!(read().await.is_ok());
    assert_eq!(*session.state().borrow(), SessionState::Connected { epoch: 1 });
}

#[tokio::test]
async fn an_ensemble_outlives_its_leader_and_takes_it_back() {
    let mut ensemble = Ensemble::start(Duration::from_millis(100)).await;
    let leader = ensemble.leader().await;
    assert_eq!(ensemble.followers().await.len(), 2);
    let session = zookeeper(&ensemble.connect_string()).open(10 * SECOND).await.unwrap();
    ensemble.kill(leader);
    assert_ne!(ensemble.leader().await, leader);
    let root = ZnodePath::root();
    assert!(tokio::time::timeout(5 * SECOND, session.sync(&root)).await.is_ok());
    ensemble.restart(leader).await;
    assert!(ensemble.followers().await.contains(&leader));
}
