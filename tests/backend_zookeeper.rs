//! The ZooKeeper backend against real servers: what sessions, watches and writes do when connections break.

mod support;

use std::{sync::Arc, time::Duration};

use apportion::backend::{
    Connector, CreateMode, Done, Error, Fired, Loss, MAX_REQUEST_BYTES, Op, Session, SessionState,
    path::ZnodePath,
};
use support::{Ensemble, Mode, Proxy, Server, eventually, shared_server, zookeeper};

const SECOND: Duration = Duration::from_secs(1);

fn path(text: &str) -> ZnodePath {
    ZnodePath::parse(text).unwrap()
}

async fn open(connect_string: &str, timeout: Duration) -> Arc<dyn Session> {
    zookeeper(connect_string).open(timeout).await.unwrap()
}

async fn wait_for(
    session: &Arc<dyn Session>,
    patience: Duration,
    what: impl Fn(SessionState) -> bool,
) -> SessionState {
    let mut state = session.state();
    let waiting = state.wait_for(|state| what(*state));
    *tokio::time::timeout(patience, waiting).await.expect("the session changes in time").unwrap()
}

#[tokio::test]
async fn a_session_opens_writes_reads_and_closes() {
    let server = shared_server().await;
    let session = open(&server.connect_string(), 5 * SECOND).await;
    assert_eq!(session.timeout(), 5 * SECOND);
    assert_eq!(*session.state().borrow(), SessionState::Connected { epoch: 1 });
    let node = path("/opens");
    session.commit(vec![Op::create(&node, b"data", CreateMode::Ephemeral)]).await.unwrap();
    let (data, stat) = session.get(&node).await.unwrap().unwrap();
    assert_eq!((data.as_slice(), stat.ephemeral_owner), (b"data".as_slice(), Some(session.id())));

    let other = open(&server.connect_string(), 5 * SECOND).await;
    assert_ne!(other.id(), session.id());
    session.close().await;
    assert_eq!(*session.state().borrow(), SessionState::Lost(Loss::Closed));
    other.sync(&node).await.unwrap();
    assert_eq!(other.get(&node).await, Ok(None), "the ephemeral znode outlived its session");
    assert_eq!(session.get(&node).await, Err(Error::Lost(Loss::Closed)));
    session.close().await;
}

#[tokio::test]
async fn an_ensemble_and_a_proxy_start() {
    let mut ensemble = Ensemble::start(Duration::from_millis(100)).await;
    let leader = ensemble.leader().await;
    assert_eq!(ensemble.followers().await.len(), 2);
    ensemble.kill(leader);
    assert_ne!(ensemble.leader().await, leader);
    ensemble.restart(leader).await;
}
