//! The end of a worker, and the ends of the tasks that it runs.

use apportion::worker::{
    LocalBroker,
    transport::{Message, Transport},
};
use serde_json::json;
use tokio::time::timeout;

use super::{sleep_for, start};
use crate::peer::{LONG, Peer, body, drop_after};
use crate::support::SECOND;

#[tokio::test(start_paused = true)]
async fn a_transport_that_is_closed_ends_the_worker() {
    let broker = LocalBroker::new();
    let (worker, _peer) = start(&broker).await;
    assert!(timeout(LONG, worker.closed()).await.is_err());
    broker.close().await;
    timeout(SECOND, worker.closed()).await.expect("it does not end");
    assert!(worker.shutdown(SECOND).await);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_waits_for_running_tasks_and_gives_back_waiting_requests() {
    let broker = LocalBroker::new();
    let (worker, mut peer) = start(&broker).await;
    peer.send("w", Message::new("NOTIFY", "{}").reply_to("executor")).await;
    peer.next_of("NOTIFY").await;
    peer.request("w", "1", &sleep_for(20)).await;
    peer.request("w", "2", &sleep_for(20)).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
    // Another worker at the same topic, which is busy until then.
    let mut other = Peer::new(&broker, "w").await;
    let (is_drained, ()) = tokio::join!(worker.shutdown(LONG), async {
        let given_back = other.next().await;
        assert_eq!(given_back.correlation_id.as_deref(), Some("2"));
        assert_eq!(body(&peer.next_of("NOTIFY").await), json!({"topic": "w", "tasks": []}));
        while peer.next_state("1").await != "SUCCESS" {}
    });
    assert!(is_drained);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_not_done_at_the_end_of_the_timeout_is_a_failure() {
    let broker = LocalBroker::new();
    let (worker, mut peer) = start(&broker).await;
    peer.request("w", "1", &sleep_for(600)).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
    assert!(!worker.shutdown(SECOND).await);
    let (_, said) = peer.next_response().await;
    let text = "the worker was shut down before the task was done";
    assert_eq!(said["data"]["result"]["exception_str"], text);
    assert!(peer.receives_nothing_for(LONG).await);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_is_dropped_ends_its_running_tasks_with_a_failure() {
    let broker = LocalBroker::new();
    let (worker, mut peer) = start(&broker).await;
    peer.request("w", "1", &sleep_for(600)).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
    drop(worker);
    assert_eq!(peer.next_state("1").await, "FAILURE");
    assert!(peer.receives_nothing_for(LONG).await);
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_that_is_dropped_at_any_poll_leaves_no_request_without_an_end() {
    for polls in 0..6 {
        let broker = LocalBroker::new();
        let (worker, mut peer) = start(&broker).await;
        peer.request("w", "1", &sleep_for(600)).await;
        assert_eq!(peer.next_state("1").await, "RUNNING");
        drop_after(polls, worker.shutdown(LONG)).await;
        assert_eq!(peer.next_state("1").await, "FAILURE", "dropped after {polls} polls");
    }
}
