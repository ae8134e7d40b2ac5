//! A broker that is unreachable, or refuses the messages of a worker.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::SeqCst},
};

use apportion::worker::{
    Failure, LocalBroker, Worker,
    transport::{Message, TransportError},
};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::faulty::{Faults, Faulty};
use crate::peer::{LONG, Peer, execute};
use crate::support::SECOND;

/// A worker with a task, behind a transport with these faults.
async fn echo(faults: Faults) -> (Faulty, Worker, Peer) {
    let broker = LocalBroker::new();
    let faulty = Faulty::new(&broker, 0, faults);
    let echo = async |_, _| Ok::<_, Failure>(1);
    let worker = Worker::builder(faulty.clone()).topic("w").task("echo", echo).await.unwrap();
    (faulty, worker, Peer::new(&broker, "executor").await)
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_start_cannot_be_reported_is_not_run() {
    let broker = LocalBroker::new();
    let faulty = Faulty::new(&broker, 0, Faults::default());
    let runs = Arc::new(AtomicU32::new(0));
    let counter = runs.clone();
    let count = move |_, _| {
        counter.fetch_add(1, SeqCst);
        async { Ok::<_, Failure>(()) }
    };
    let _worker = Worker::builder(faulty.clone()).topic("w").task("count", count).await.unwrap();
    let mut peer = Peer::new(&broker, "executor").await;
    faulty.refuse("executor", 3, TransportError::Unavailable { reason: "on purpose".into() });
    peer.request("w", "1", &execute("count")).await;
    assert!(peer.receives_nothing_for(LONG).await);
    assert_eq!((runs.load(SeqCst), faulty.attempts("executor"), broker.message_count("w")), (0, 3, 0));
    peer.request("w", "2", &execute("count")).await;
    assert_eq!(peer.next_state("2").await, "RUNNING");
    assert_eq!(peer.next_state("2").await, "SUCCESS");
    assert_eq!(runs.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_acknowledged_is_not_run() {
    let (faulty, _worker, mut peer) = echo(Faults { unacknowledged: 100, ..Faults::default() }).await;
    peer.request("w", "1", &execute("echo")).await;
    assert!(peer.receives_nothing_for(LONG).await);
    faulty.set(Faults::default());
    peer.request("w", "1", &execute("echo")).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
}

#[tokio::test(start_paused = true)]
async fn a_result_is_sent_again_until_the_broker_is_back() {
    let broker = LocalBroker::new();
    let faulty = Faulty::new(&broker, 0, Faults::default());
    let nap = async |_, _| {
        sleep(SECOND).await;
        Ok::<_, Failure>(7)
    };
    let _worker = Worker::builder(faulty.clone()).topic("w").task("nap", nap).await.unwrap();
    let mut peer = Peer::new(&broker, "executor").await;
    peer.request("w", "1", &execute("nap")).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
    faulty.refuse("executor", 20, TransportError::Unavailable { reason: "on purpose".into() });
    assert_eq!(peer.next_response().await.1, json!({"state": "SUCCESS", "data": {"result": 7}}));
}

#[tokio::test(start_paused = true)]
async fn a_result_that_the_broker_will_not_carry_is_a_failure() {
    let broker = LocalBroker::new();
    let faulty = Faulty::new(&broker, 0, Faults::default());
    let nap = async |_, _| {
        sleep(SECOND).await;
        Ok::<_, Failure>("large")
    };
    let _worker = Worker::builder(faulty.clone()).topic("w").task("nap", nap).await.unwrap();
    let mut peer = Peer::new(&broker, "executor").await;
    peer.request("w", "1", &execute("nap")).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
    faulty.refuse("executor", 1, TransportError::Refused { reason: "too large".into() });
    let (_, said) = peer.next_response().await;
    let text = "the result of the task could not be sent: refused: too large";
    assert_eq!(said["data"]["result"]["exception_str"], text);
}

#[tokio::test(start_paused = true)]
async fn a_result_that_the_broker_will_not_carry_again_does_not_keep_back_the_results_after_it() {
    let (faulty, _worker, mut peer) = echo(Faults::default()).await;
    for id in ["1", "2"] {
        peer.request("w", id, &execute("echo")).await;
        assert_eq!(
            (peer.next_state(id).await, peer.next_state(id).await),
            ("RUNNING".into(), "SUCCESS".into())
        );
    }
    let asks = |sender: &str| Message::new("NOTIFY", "{}").reply_to("executor").sender(sender);
    peer.send("w", asks("name")).await;
    peer.next_of("NOTIFY").await;
    faulty.refuse("executor", 1, TransportError::Refused { reason: "too large".into() });
    // Its connection broke.
    peer.send("w", asks("name/1")).await;
    // Its inventories come for ever.
    let again = timeout(LONG, peer.next_state("2")).await;
    assert_eq!(again.expect("it is sent again"), "SUCCESS");
}

#[tokio::test(start_paused = true)]
async fn a_worker_whose_connection_is_gone_consumes_again() {
    let (faulty, _worker, mut peer) = echo(Faults { broken: 100, ..Faults::default() }).await;
    peer.request("w", "1", &execute("echo")).await;
    assert!(peer.receives_nothing_for(LONG).await);
    faulty.set(Faults::default());
    peer.request("w", "2", &execute("echo")).await;
    assert_eq!(peer.next_state("2").await, "RUNNING");
    assert_eq!(peer.next_state("2").await, "SUCCESS");
}
