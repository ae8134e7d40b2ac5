//! Requests and results that end TaskFlow's worker, or leave its caller without an answer. Here each gets an answer.

use apportion::worker::{Executor, Failure, LocalBroker, Request, RequestError, TaskResult, Worker};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::peer::{LONG, Peer, execute, failure, success};

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
    let invalid = async |_, _| Ok::<_, Failure>(std::collections::BTreeMap::from([([1, 2], 3)]));
    let _worker = Worker::builder(broker.clone()).topic("w").task("invalid", invalid).await.unwrap();
    let executor = Executor::builder(broker).topics(["w"]).await.unwrap();
    let outcome = timeout(LONG, executor.submit(Request::execute("invalid"))).await.expect("it hangs");
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
