//! What ends TaskFlow's executor or worker, or makes it wait for ever: none of it does any harm here.

use std::{future::IntoFuture, time::Duration};

use apportion::worker::{
    Executor, Failure, LocalBroker, Request, RequestError, RequestState, Submission, Submitted, TaskResult,
    Worker, transport::Message,
};
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::peer::{LONG, Peer, execute, running, success};

const SECOND: Duration = Duration::from_secs(1);

/// An executor, a worker played by the test, and a request of the former that the latter was sent.
struct Asked {
    executor: Executor,
    peer: Peer,
    request: Submitted,
    sent: Message,
}

impl Asked {
    async fn new() -> Self {
        let broker = LocalBroker::new();
        let mut peer = Peer::new(&broker, "w").await;
        let executor = Executor::builder(broker).topics(["w"]).await.unwrap();
        peer.list(executor.name(), &["t"]).await;
        let request = executor.submit(Request::execute("t"));
        let sent = peer.next_of("REQUEST").await;
        Asked { executor, peer, request, sent }
    }

    async fn hears(&self, response: &Value) {
        self.peer.respond(&self.sent, response).await;
        sleep(SECOND).await;
    }

    /// The executor still does its work for this and for further requests.
    async fn goes_on(mut self) {
        self.hears(&running()).await;
        self.hears(&success(1)).await;
        assert_eq!(self.request.await, Ok(1.into()));
        let next = self.executor.submit(Request::execute("t"));
        let sent = self.peer.next_of("REQUEST").await;
        self.peer.respond(&sent, &running()).await;
        self.peer.respond(&sent, &success(2)).await;
        assert_eq!(next.await, Ok(2.into()));
    }

    /// The request ends as one whose response is invalid, and the executor goes on.
    async fn ends_badly(mut self, about: &str) {
        let outcome = timeout(SECOND, &mut self.request).await.expect("it hangs");
        let Err(RequestError::InvalidResponse(reason)) = outcome else { panic!("{outcome:?}") };
        assert_eq!(reason.field(), about);
        self.request = self.executor.submit(Request::execute("t"));
        self.sent = self.peer.next_of("REQUEST").await;
        self.goes_on().await;
    }
}

fn failure() -> Value {
    json!({"exception_str": "boom", "traceback_str": "", "exc_type_names": ["E", "Exception"], "version": 1,
        "exc_args": [], "causes": []})
}

#[tokio::test(start_paused = true)]
async fn a_malformed_failure_ends_the_request_and_not_the_executor() {
    let asked = Asked::new().await;
    asked.hears(&running()).await;
    asked.hears(&json!({"state": "FAILURE", "data": {"result": {"exception_str": "boom"}}})).await;
    asked.ends_badly("data.result.traceback_str").await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_version_2_ends_the_request_and_not_the_executor() {
    let asked = Asked::new().await;
    let mut failure = failure();
    failure["version"] = json!(2);
    asked.hears(&json!({"state": "FAILURE", "data": {"result": failure}})).await;
    asked.ends_badly("data.result.version").await;
}

#[tokio::test(start_paused = true)]
async fn a_success_without_result_ends_the_request_and_not_the_executor() {
    let asked = Asked::new().await;
    asked.hears(&running()).await;
    asked.hears(&json!({"state": "SUCCESS", "data": {}})).await;
    asked.ends_badly("data.result").await;
}

#[tokio::test(start_paused = true)]
async fn an_event_with_completion_data_does_not_end_the_executor() {
    let asked = Asked::new().await;
    asked.hears(&json!({"state": "EVENT", "data": {"result": 1}})).await;
    assert_eq!(asked.request.state(), RequestState::Pending);
    asked.goes_on().await;
}

#[tokio::test(start_paused = true)]
async fn a_transition_that_is_not_allowed_does_not_end_the_executor() {
    for state in ["WAITING", "PENDING"] {
        let asked = Asked::new().await;
        asked.hears(&running()).await;
        asked.hears(&json!({"state": state, "data": {}})).await;
        assert_eq!(asked.request.state(), RequestState::Running);
        asked.goes_on().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_of_a_request_that_is_pending_is_a_success_whose_start_was_lost() {
    let mut asked = Asked::new().await;
    asked.hears(&success(1)).await;
    assert_eq!((&mut asked.request).await, Ok(1.into()));
    asked.hears(&running()).await;
    asked.hears(&json!({"state": "FAILURE", "data": {"result": failure()}})).await;
    assert_eq!(asked.request.state(), RequestState::Success);
}

#[tokio::test(start_paused = true)]
async fn a_response_to_a_request_that_waits_does_not_end_the_executor() {
    let broker = LocalBroker::new();
    let executor = Executor::builder(broker.clone()).topics(["w"]).await.unwrap();
    let request = executor.submit(Request::execute("t"));
    let mut peer = Peer::new(&broker, "w").await;
    for response in [success(1), running()] {
        let message = Message::new("RESPONSE", response.to_string()).correlation_id(request.id());
        peer.send(executor.name(), message).await;
    }
    sleep(SECOND).await;
    assert_eq!(request.state(), RequestState::Waiting);
    peer.list(executor.name(), &["t"]).await;
    let sent = peer.next_of("REQUEST").await;
    Asked { executor, peer, request, sent }.goes_on().await;
}

#[tokio::test(start_paused = true)]
async fn running_twice_changes_nothing() {
    let asked = Asked::new().await;
    asked.hears(&running()).await;
    asked.hears(&running()).await;
    assert_eq!(asked.request.state(), RequestState::Running);
    asked.goes_on().await;
}

async fn worker(broker: &LocalBroker) -> (Worker, Peer) {
    let worker =
        Worker::builder(broker.clone()).topic("w").task("t", async |_, _| Ok::<_, Failure>(1)).await.unwrap();
    (worker, Peer::new(broker, "executor").await)
}

async fn still_works(peer: &mut Peer) {
    peer.request("w", "next", &execute("t")).await;
    assert_eq!(peer.next_state("next").await, "RUNNING");
    assert_eq!(peer.next_state("next").await, "SUCCESS");
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_result_is_no_pair_is_answered_and_does_not_end_the_worker() {
    let broker = LocalBroker::new();
    let (_worker, mut peer) = worker(&broker).await;
    for result in [json!(["success"]), json!(["success", 1, 2]), json!("text"), json!(7)] {
        let mut request = execute("t");
        request["result"] = result;
        peer.request("w", "1", &request).await;
        assert_eq!(peer.next_state("1").await, "FAILURE");
    }
    still_works(&mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_with_an_extra_key_is_read_and_the_caller_gets_an_answer() {
    let broker = LocalBroker::new();
    let (_worker, mut peer) = worker(&broker).await;
    let mut request = execute("t");
    request["failures"] = json!({"a": failure()});
    request["failures"]["a"]["extra"] = json!(1);
    peer.request("w", "1", &request).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
    assert_eq!(peer.next_state("1").await, "SUCCESS");
    still_works(&mut peer).await;
}

#[tokio::test(start_paused = true)]
async fn a_result_that_cannot_be_json_is_a_failure_and_not_silence() {
    let broker = LocalBroker::new();
    let odd = async |_, _| Ok::<_, Failure>(std::collections::BTreeMap::from([([1, 2], 3)]));
    let _worker = Worker::builder(broker.clone()).topic("w").task("odd", odd).await.unwrap();
    let executor = Executor::builder(broker).topics(["w"]).await.unwrap();
    let outcome = timeout(LONG, executor.submit(Request::execute("odd"))).await.expect("it hangs");
    let Err(RequestError::Failed(failure)) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.exception_str(), "key must be a string");
}

#[tokio::test(start_paused = true)]
async fn a_revert_without_failures_reverts() {
    let broker = LocalBroker::new();
    let revert = async |_, _, undo: apportion::worker::Undo| Ok::<_, Failure>(undo.failures.len());
    let execute = async |_, _| Ok::<_, Failure>(());
    let worker = Worker::builder(broker.clone()).topic("w").revertible_task("t", execute, revert);
    let _worker = worker.await.unwrap();
    let mut peer = Peer::new(&broker, "executor").await;
    // As TaskFlow's executor sends it.
    let mut request = crate::peer::execute("t");
    request["action"] = json!("revert");
    request["result"] = json!(["success", null]);
    peer.request("w", "1", &request).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
    assert_eq!(peer.next_response().await.1, success(0));
    let executor = Executor::builder(broker).topics(["w"]).await.unwrap();
    let revert = Request::revert("t", TaskResult::Success(Value::Null));
    assert_eq!(executor.submit(revert).await, Ok(0.into()));
}

#[tokio::test(start_paused = true)]
async fn a_request_whose_worker_dies_after_running_ends_as_vanished() {
    let asked = Asked::new().await;
    asked.hears(&running()).await;
    let Asked { executor: _executor, peer, mut request, .. } = asked;
    drop(peer);
    let outcome = timeout(Duration::from_secs(65), &mut request).await.expect("it hangs");
    assert_eq!(outcome, Err(RequestError::WorkerVanished { topic: "w".into() }));
    assert_eq!(request.state(), RequestState::Failure);
}

/// TaskFlow's worker answers who asks on the threads on which it runs tasks.
#[tokio::test(start_paused = true)]
async fn a_request_whose_worker_is_too_busy_to_answer_goes_on_until_the_worker_is_gone() {
    let asked = Asked::new().await;
    asked.hears(&running()).await;
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
    // What a worker of ours says before it is killed.
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
    asked.hears(&running()).await;
    for _ in 0..30 {
        asked.peer.next_of("NOTIFY").await;
        asked.peer.list(asked.executor.name(), &["t"]).await;
    }
    assert_eq!(asked.request.await, Err(RequestError::Overdue { timeout: limit }));
}

#[tokio::test(start_paused = true)]
async fn a_result_that_comes_after_the_end_is_dropped() {
    let mut asked = Asked::new().await;
    let expired = timeout(Duration::from_secs(65), &mut asked.request).await.expect("it hangs");
    assert_eq!(expired, Err(RequestError::Expired { timeout: Duration::from_secs(60), was_sent: true }));
    asked.hears(&success(1)).await;
    assert_eq!(asked.request.state(), RequestState::Failure);
    asked.peer.list(asked.executor.name(), &["t"]).await;
    asked.request = asked.executor.submit(Request::execute("t"));
    asked.sent = asked.peer.next_of("REQUEST").await;
    asked.goes_on().await;
}
