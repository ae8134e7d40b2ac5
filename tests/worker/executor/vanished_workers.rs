//! Requests whose worker is gone, or is too busy to answer.

use std::{future::IntoFuture, time::Duration};

use apportion::worker::{
    Executor, Failure, LocalBroker, Request, RequestError, RequestState, Submission, Worker,
    transport::Message,
};
use tokio::time::timeout;

use crate::peer::{Asked, LONG, Peer, running};

#[tokio::test(start_paused = true)]
async fn a_request_whose_worker_dies_after_running_ends_as_vanished() {
    let asked = Asked::new().await;
    asked.receives(&running()).await;
    let Asked { executor: _executor, peer, mut request, .. } = asked;
    drop(peer);
    let outcome = timeout(Duration::from_secs(65), &mut request).await.expect("it hangs");
    assert_eq!(outcome, Err(RequestError::WorkerVanished { topic: "w".into() }));
    assert_eq!(request.state(), RequestState::Failure);
}

/// TaskFlow's worker answers executors on the threads on which it runs tasks.
#[tokio::test(start_paused = true)]
async fn a_request_whose_worker_is_too_busy_to_answer_goes_on_until_the_worker_is_gone() {
    let asked = Asked::new().await;
    asked.receives(&running()).await;
    let Asked { executor, peer, mut request, .. } = asked;
    assert!(timeout(LONG, &mut request).await.is_err());
    assert!(executor.workers().is_empty());
    drop(peer);
    let outcome = timeout(Duration::from_secs(65), request).await.expect("it hangs");
    assert_eq!(outcome, Err(RequestError::WorkerVanished { topic: "w".into() }));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_worker_is_back_under_its_topic_ends_as_vanished() {
    let broker = LocalBroker::new();
    let start = || {
        let hang = async |_, _| {
            std::future::pending::<()>().await;
            Ok::<_, Failure>(())
        };
        Worker::builder(broker.clone()).topic("w").task("hang", hang).into_future()
    };
    let executor = Executor::builder(broker.clone()).topics(["w"]).await.unwrap();
    let mut peer = Peer::new(&broker, "w").await;
    peer.list(executor.name(), &["hang"]).await;
    let request = executor.submit(Request::execute("hang"));
    let sent = peer.next_of("REQUEST").await;
    // The last message of a worker of this crate before it is killed.
    let said = Message::new("RESPONSE", running().to_string());
    let said = said.correlation_id(sent.correlation_id.unwrap()).sender("killed");
    peer.send(executor.name(), said).await;
    drop(peer);
    let _back = start().await.unwrap();
    let outcome = timeout(Duration::from_secs(65), request).await.expect("it hangs");
    assert_eq!(outcome, Err(RequestError::WorkerVanished { topic: "w".into() }));
    assert_eq!(executor.workers().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_on_a_worker_of_taskflow_that_came_back_is_limited_by_its_run_timeout() {
    let mut asked = Asked::new().await;
    let limit = Duration::from_secs(120);
    asked.request = asked.executor.submit(Submission::new(Request::execute("t")).run_timeout(limit));
    asked.sent = asked.peer.next_of("REQUEST").await;
    asked.receives(&running()).await;
    for _ in 0..30 {
        asked.peer.next_of("NOTIFY").await;
        asked.peer.list(asked.executor.name(), &["t"]).await;
    }
    assert_eq!(asked.request.await, Err(RequestError::Overdue { timeout: limit }));
}
