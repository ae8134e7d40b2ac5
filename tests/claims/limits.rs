//! Requests and replies that are too large for a server.

use std::time::Duration;

use apportion::{
    Config, Error, PartitionCoordinator,
    backend::{self, Connector, CreateMode, Op, Session, path::ZnodePath},
    board::BoardError,
    queue::{Finished, QueueError},
};
use serde_json::json;

use crate::{
    setup::AtOnce as _,
    support::{Proxy, Server, Settings, zookeeper},
};

const TIMEOUT: Duration = Duration::from_secs(30);

/// The most connections that one request may cost: the first one, and one for each time that it is sent.
const MOST_CONNECTIONS: usize = 6;

/// A server that takes requests of 200,000 bytes, and the way to it.
async fn small_server() -> (Server, Proxy) {
    let java = vec!["-Djute.maxbuffer=200000".into()];
    let server = Server::start_with(&Settings { java, ..Settings::default() }).await;
    let proxy = Proxy::start(server.port()).await;
    (server, proxy)
}

async fn member(proxy: &Proxy) -> PartitionCoordinator {
    let config = Config::for_backend(zookeeper(&proxy.connect_string()))
        .session_timeout(Duration::from_secs(10))
        .server_tick(Duration::from_millis(100));
    PartitionCoordinator::connect(config).await.unwrap()
}

async fn session(server: &Server) -> std::sync::Arc<dyn Session> {
    zookeeper(&server.connect_string()).open(Duration::from_secs(10)).await.unwrap()
}

fn is_dropped(error: &Error) -> bool {
    matches!(error, Error::Backend { error: backend::Error::Dropped { bytes, .. }, .. } if *bytes > 200_000)
}

async fn in_time<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(TIMEOUT, future).await.expect("it ends in time")
}

#[tokio::test]
async fn a_post_at_which_the_server_closes_the_connection_is_a_typed_error_after_a_few_attempts() {
    let (_server, proxy) = small_server().await;
    let coordinator = member(&proxy).await;
    let board = coordinator.job_board("/jobs").at_once().await.unwrap();
    let before = proxy.accepted();
    let large = json!({ "x": "x".repeat(300_000) });
    let error = in_time(async { board.post("large").details(large).await }).await.unwrap_err();
    assert!(matches!(&error, BoardError::Service(error) if is_dropped(error)), "{error}");
    assert!(error.to_string().contains("jute.maxbuffer"), "{error}");
    let connections = proxy.accepted() - before;
    assert!((1..=MOST_CONNECTIONS).contains(&connections), "{connections} connections");
    in_time(async { board.post("small").await }).await.unwrap();
    assert_eq!(in_time(board.claim_next()).await.unwrap().job().name(), "small");
}

#[tokio::test]
async fn a_put_at_which_the_server_closes_the_connection_is_a_typed_error_after_a_few_attempts() {
    let (_server, proxy) = small_server().await;
    let coordinator = member(&proxy).await;
    let queue = coordinator.queue("/reports").at_once().await.unwrap();
    let before = proxy.accepted();
    let error = in_time(async { queue.put("x".repeat(300_000)).await }).await.unwrap_err();
    assert!(matches!(&error, QueueError::Service(error) if is_dropped(error)), "{error}");
    let connections = proxy.accepted() - before;
    assert!((1..=MOST_CONNECTIONS).contains(&connections), "{connections} connections");
    in_time(async { queue.put("small").await }).await.unwrap();
    // A value that is not too large when it is put, and is too large with its result.
    queue.put("x".repeat(150_000)).await.unwrap();
    in_time(queue.take()).await.unwrap().done("done").await.unwrap();
    let delivery = in_time(queue.take()).await.unwrap();
    let error = in_time(delivery.done("y".repeat(100_000))).await.unwrap_err();
    assert!(matches!(&error, QueueError::Service(error) if is_dropped(error)), "{error}");
    assert_eq!(in_time(queue.take()).await.unwrap().attempt(), 2, "it was given back");
}

#[tokio::test]
async fn a_request_beyond_the_configured_limit_is_not_sent() {
    let (_server, proxy) = small_server().await;
    let url = format!("zookeeper://{}?max_request_bytes=199000&server_tick=100ms", proxy.connect_string());
    let coordinator = PartitionCoordinator::connect(url).await.unwrap();
    let board = coordinator.job_board("/jobs").at_once().await.unwrap();
    let queue = coordinator.queue("/reports").at_once().await.unwrap();
    let before = proxy.accepted();
    let posted = board.post("x".repeat(300_000)).await;
    assert!(matches!(posted, Err(BoardError::TooLarge { .. })), "{posted:?}");
    let put = queue.put("x".repeat(300_000)).await;
    assert!(matches!(put, Err(QueueError::TooLarge { limit, .. }) if limit < 199_000), "{put:?}");
    assert_eq!(proxy.accepted(), before);
}

#[tokio::test]
async fn a_job_that_no_claim_can_mark_is_set_aside_and_those_behind_it_are_claimed() {
    let (server, proxy) = small_server().await;
    let coordinator = member(&proxy).await;
    let board = coordinator.job_board("/jobs").at_once().await.unwrap();
    let foreign = format!(r#"{{"uuid": "1", "name": "{}", "priority": "VERY_HIGH"}}"#, "x".repeat(199_700));
    create(&server, "/jobs/job", foreign.into()).await;
    board.post("behind").await.unwrap();
    let before = proxy.accepted();
    let claim = in_time(board.claim_next()).await.unwrap();
    assert_eq!(claim.job().name(), "behind");
    claim.abandon().await.unwrap();
    // It stays set aside, also after a fresh listing and for a worker that tries again.
    board.jobs().ensure_fresh().await.unwrap();
    in_time(board.claim_next()).await.unwrap().consume().await.unwrap();
    assert!(in_time(board.try_claim_next()).await.unwrap().is_none());
    let connections = proxy.accepted() - before;
    assert!((1..=MOST_CONNECTIONS).contains(&connections), "{connections} connections");
    let aside = board.set_aside();
    assert!(aside.len() == 1 && aside[0].reason.to_string().contains("cannot be claimed"), "{aside:?}");
}

#[tokio::test]
async fn an_entry_that_cannot_be_taken_is_set_aside_and_those_behind_it_are_taken() {
    let (server, proxy) = small_server().await;
    let coordinator = member(&proxy).await;
    let queue = coordinator.queue("/reports").at_once().await.unwrap();
    let foreign = format!(r#"{{"groupid": 1, "dataset": "{}"}}"#, "x".repeat(199_700));
    create(&server, "/reports/unowned/entry-900-a-", foreign.into()).await;
    queue.put("behind").await.unwrap();
    let before = proxy.accepted();
    let delivery = in_time(queue.take()).await.unwrap();
    assert_eq!(delivery.payload(), Some(&json!("behind")));
    delivery.done("done").await.unwrap();
    assert!(in_time(queue.try_take()).await.unwrap().is_none());
    let connections = proxy.accepted() - before;
    assert!((1..=MOST_CONNECTIONS).contains(&connections), "{connections} connections");
}

#[tokio::test]
async fn an_entry_that_the_server_takes_only_without_a_reason_is_given_back_without_it() {
    let (server, proxy) = small_server().await;
    let coordinator = member(&proxy).await;
    let queue = coordinator.queue("/reports").at_once().max_attempts(3).await.unwrap();
    let foreign = format!(r#"{{"groupid": 1, "dataset": "{}"}}"#, "x".repeat(199_000));
    create(&server, "/reports/unowned/entry-900-a-", foreign.into()).await;
    let reason = "\u{1}".repeat(1000);
    in_time(queue.take()).await.unwrap().release().because(&reason).await.unwrap();
    let delivery = in_time(queue.take()).await.unwrap();
    assert_eq!((delivery.attempt(), delivery.last_error()), (2, None));
    // In the background.
    let _ = delivery.done("y".repeat(10_000)).await.unwrap_err();
    in_time(queue.take()).await.unwrap().release().because(&reason).await.unwrap();
    let letters = queue.dead_letters().await.unwrap();
    assert_eq!(letters.iter().map(Finished::attempts).collect::<Vec<_>>(), [3]);
}

/// A bug: without a limit for the size of one multi-read, this ended such a server with an `OutOfMemoryError`.
#[tokio::test]
async fn a_board_of_large_postings_is_opened_without_asking_the_server_for_all_of_them_at_once() {
    let java = vec!["-Xmx256m".into()];
    let server = Server::start_with(&Settings { java, ..Settings::default() }).await;
    let poster = session(&server).await;
    for path in ["/jobs", "/reports"] {
        make(&*poster, path).await;
    }
    let posting = format!(r#"{{"uuid": "1", "name": "{}"}}"#, "x".repeat(990_000));
    for _ in 0..50 {
        let job = Op::create(&path("/jobs/job"), posting.clone(), CreateMode::PersistentSequential);
        poster.commit(vec![job]).await.unwrap();
    }
    let proxy = Proxy::start(server.port()).await;
    let coordinator = member(&proxy).await;
    let before = proxy.accepted();
    let board = in_time(async { coordinator.job_board("/jobs").at_once().await }).await.unwrap();
    assert_eq!(board.jobs().await.unwrap().len(), 50);
    assert_eq!(proxy.accepted(), before, "the server has stayed");
}

fn path(text: &str) -> ZnodePath {
    text.parse().unwrap()
}

async fn make(session: &dyn Session, at: &str) {
    session.commit(vec![Op::create(&path(at), [], CreateMode::Persistent)]).await.unwrap();
}

/// Creates a sequential znode, as another client does.
async fn create(server: &Server, prefix: &str, data: Vec<u8>) {
    let create = Op::create(&path(prefix), data, CreateMode::PersistentSequential);
    session(server).await.commit(vec![create]).await.unwrap();
}
