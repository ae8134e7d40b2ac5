//! How an executor and its requests end.

use std::{future::IntoFuture, time::Duration};

use apportion::worker::{
    Event, Executor, LocalBroker, Request, RequestError, RequestState, transport::Transport,
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use super::{meet, start, t};
use crate::faulty::{Faults, Faulty};
use crate::peer::{LONG, Peer, drop_after, running, success};
use crate::support::SECOND;

#[tokio::test(start_paused = true)]
async fn a_handle_that_is_dropped_takes_its_request_back_if_it_was_not_sent() {
    let broker = LocalBroker::new();
    let executor = start(&broker).await;
    drop(executor.submit(t()));
    let mut peer = Peer::new(&broker, "w").await;
    peer.list(executor.name(), &["t"]).await;
    assert!(executor.wait_for_workers("t", 1).await);
    let kept = executor.submit(t());
    assert_eq!(peer.next_of("REQUEST").await.correlation_id.as_deref(), Some(kept.id()));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_ends_every_request() {
    let broker = LocalBroker::new();
    let (executor, mut peer) = meet(&broker).await;
    let requests = [executor.submit(t()), executor.submit(Request::execute("unknown")), executor.submit(t())];
    let sent = peer.next_of("REQUEST").await;
    peer.respond(&sent, &running()).await;
    sleep(SECOND).await;
    let last = executor.submit(t());
    executor.shutdown().await;
    for request in requests.into_iter().chain([last]) {
        assert_eq!(request.await, Err(RequestError::Closed));
    }
    assert_eq!(broker.message_count(sent.reply_to.as_ref().unwrap()), 0);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_submitted_after_a_shutdown_has_failed() {
    let broker = LocalBroker::new();
    let executor = start(&broker).await;
    executor.shutdown().await;
    executor.shutdown().await;
    let mut late = executor.submit(t());
    assert_eq!((&mut late).await, Err(RequestError::Closed));
    assert_eq!(late.state(), RequestState::Failure);
    assert_eq!(late.wait_for_state(|state| state == RequestState::Running).await, RequestState::Failure);
}

#[tokio::test(start_paused = true)]
async fn a_transport_that_is_closed_ends_the_executor_and_all_its_requests() {
    let broker = LocalBroker::new();
    let executor = Executor::builder(broker.clone()).topics(["w"]).request_timeout(None).await.unwrap();
    let waiting = executor.submit(t());
    assert!(timeout(LONG, executor.closed()).await.is_err());
    broker.close().await;
    timeout(SECOND, executor.closed()).await.expect("it does not end");
    for request in [waiting, executor.submit(t())] {
        assert_eq!(timeout(SECOND, request).await.expect("it hangs"), Err(RequestError::Closed));
    }
}

#[tokio::test(start_paused = true)]
async fn an_executor_that_is_dropped_ends_every_request() {
    let broker = LocalBroker::new();
    let executor = start(&broker).await;
    let request = executor.submit(t());
    let mut progress = request.progress();
    drop(executor);
    assert_eq!(request.await, Err(RequestError::Closed));
    assert_eq!(progress.next().await, None);
}

#[tokio::test(start_paused = true)]
async fn an_executor_whose_connection_is_gone_consumes_again() {
    let broker = LocalBroker::new();
    let faulty = Faulty::new(&broker, 0, Faults { broken: 100, ..Faults::default() });
    let peer = Peer::new(&broker, "w").await;
    let executor = Executor::builder(faulty.clone()).topics(["w"]).await.unwrap();
    peer.list(executor.name(), &["t"]).await;
    sleep(Duration::from_secs(60)).await;
    assert!(executor.workers().is_empty());
    faulty.set(Faults::default());
    peer.list(executor.name(), &["t"]).await;
    assert!(timeout(SECOND, executor.wait_for_workers("t", 1)).await.expect("late"));
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_is_dropped_at_any_poll_loses_nothing() {
    for polls in 0..6 {
        let broker = LocalBroker::new();
        let mut peer = Peer::new(&broker, "w").await;
        // Dropped while it starts, it has started nothing.
        let start = Executor::builder(broker.clone()).topics(["w"]).into_future();
        drop(drop_after(polls, start).await);
        let executor = Executor::builder(broker.clone()).topics(["w"]).await.unwrap();
        drop_after(polls, executor.wait_for_workers("t", 1)).await;
        peer.list(executor.name(), &["t"]).await;
        let mut request = executor.submit(t());
        drop_after(polls, &mut request).await;
        drop_after(polls, request.wait_for_state(RequestState::is_final)).await;
        let mut progress = request.progress();
        drop_after(polls, progress.next()).await;
        let sent = loop {
            let sent = peer.next_of("REQUEST").await;
            if sent.reply_to.as_deref() == Some(executor.name()) {
                break sent;
            }
        };
        let event = json!({"state": "EVENT", "data": {"event_type": "e", "details": {}}});
        peer.respond(&sent, &event).await;
        drop_after(polls, request.wait_for_state(|state| state == RequestState::Running)).await;
        peer.respond(&sent, &success(1)).await;
        assert_eq!(request.await, Ok(1.into()), "dropped after {polls} polls");
        assert_eq!(progress.next().await, Some(Event::new("e", json!({})).unwrap()));
        drop_after(polls, executor.shutdown()).await;
    }
}
