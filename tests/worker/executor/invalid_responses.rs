//! Responses that end TaskFlow's executor, or make it wait for ever. Here each ends at most its own request.

use std::time::Duration;

use apportion::worker::{Executor, LocalBroker, Request, RequestError, RequestState, transport::Message};
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::peer::{Asked, Peer, failure, running, success};
use crate::support::SECOND;

#[tokio::test(start_paused = true)]
async fn a_malformed_failure_ends_the_request_and_not_the_executor() {
    let asked = Asked::new().await;
    asked.receives(&running()).await;
    asked.receives(&json!({"state": "FAILURE", "data": {"result": {"exception_str": "boom"}}})).await;
    asked.ends_badly("data.result.traceback_str").await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_of_version_2_ends_the_request_and_not_the_executor() {
    let asked = Asked::new().await;
    let mut failure = failure();
    failure["version"] = json!(2);
    asked.receives(&json!({"state": "FAILURE", "data": {"result": failure}})).await;
    asked.ends_badly("data.result.version").await;
}

#[tokio::test(start_paused = true)]
async fn a_success_without_result_ends_the_request_and_not_the_executor() {
    let asked = Asked::new().await;
    asked.receives(&running()).await;
    asked.receives(&json!({"state": "SUCCESS", "data": {}})).await;
    asked.ends_badly("data.result").await;
}

#[tokio::test(start_paused = true)]
async fn an_event_with_completion_data_does_not_end_the_executor() {
    let asked = Asked::new().await;
    asked.receives(&json!({"state": "EVENT", "data": {"result": 1}})).await;
    assert_eq!(asked.request.state(), RequestState::Pending);
    asked.goes_on().await;
}

#[tokio::test(start_paused = true)]
async fn a_transition_that_is_not_allowed_does_not_end_the_executor() {
    for state in ["WAITING", "PENDING"] {
        let asked = Asked::new().await;
        asked.receives(&running()).await;
        asked.receives(&json!({"state": state, "data": {}})).await;
        assert_eq!(asked.request.state(), RequestState::Running);
        asked.goes_on().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_success_of_a_request_that_is_pending_is_a_success_whose_start_was_lost() {
    let mut asked = Asked::new().await;
    asked.receives(&success(1)).await;
    assert_eq!((&mut asked.request).await, Ok(1.into()));
    asked.receives(&running()).await;
    asked.receives(&json!({"state": "FAILURE", "data": {"result": failure()}})).await;
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
    asked.receives(&running()).await;
    asked.receives(&running()).await;
    assert_eq!(asked.request.state(), RequestState::Running);
    asked.goes_on().await;
}

#[tokio::test(start_paused = true)]
async fn a_result_that_comes_after_the_end_is_dropped() {
    let mut asked = Asked::new().await;
    let expired = timeout(Duration::from_secs(65), &mut asked.request).await.expect("it hangs");
    assert_eq!(expired, Err(RequestError::Expired { timeout: Duration::from_secs(60), was_sent: true }));
    asked.receives(&success(1)).await;
    assert_eq!(asked.request.state(), RequestState::Failure);
    asked.peer.list(asked.executor.name(), &["t"]).await;
    asked.request = asked.executor.submit(Request::execute("t"));
    asked.sent = asked.peer.next_of("REQUEST").await;
    asked.goes_on().await;
}
