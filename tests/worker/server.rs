//! The worker, tested from the side of an executor.

mod broker_faults;
mod ends;
mod invalid_requests;

use std::{
    error::Error,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use apportion::worker::{
    Arguments, Context, Failure, LocalBroker, TaskResult, Worker, WorkerBuilder, transport::Message,
};
use serde_json::{Value, json};
use tokio::{
    sync::{Notify, Semaphore},
    time::sleep,
};

use crate::faulty::{Faults, Faulty};
use crate::peer::{LONG, Peer, body, execute, success};
use crate::support::SECOND;

/// An error with a cause.
#[derive(Debug, thiserror::Error)]
#[error("outer")]
struct Outer(#[source] std::num::ParseIntError);

fn worker(broker: &LocalBroker) -> WorkerBuilder {
    Worker::builder(broker.clone())
        .topic("w")
        .task("echo", async |_, arguments: Arguments| {
            Ok::<_, Failure>(Value::from(arguments.as_map().clone()))
        })
        .task("fail", async |_, _| Err::<(), _>(Outer("x".parse::<u8>().unwrap_err())))
        .task("panic", |_, _| async { if true { panic!("of {}", "sorts") } else { Ok::<_, Failure>(()) } })
        .task("progress", async |context: Context, _| {
            context.update_progress(0.0).await;
            context.update_progress(1.0).await;
            Ok::<_, Failure>(context.task_name().to_owned())
        })
        .task("sleep", async |_, arguments: Arguments| {
            sleep(Duration::from_secs(arguments.get("seconds")?)).await;
            Ok::<_, Box<dyn Error + Send + Sync>>("slept")
        })
        .revertible_task(
            "revert",
            async |_, _| Ok::<_, Failure>(()),
            async |_, _, undo: apportion::worker::Undo| {
                let result = match undo.result {
                    Some(TaskResult::Success(value)) => value,
                    Some(TaskResult::Failure(failure)) => failure.exception_str().into(),
                    None => Value::Null,
                };
                Ok::<_, Failure>(json!([result, undo.failures.keys().collect::<Vec<_>>()]))
            },
        )
}

async fn start(broker: &LocalBroker) -> (Worker, Peer) {
    (worker(broker).await.unwrap(), Peer::new(broker, "executor").await)
}

fn sleep_for(seconds: u64) -> Value {
    let mut request = execute("sleep");
    request["arguments"] = json!({"seconds": seconds});
    request
}

#[tokio::test(start_paused = true)]
async fn a_worker_answers_an_executor_with_its_topic_and_tasks() {
    let broker = LocalBroker::new();
    let (_worker, mut peer) = start(&broker).await;
    peer.send("w", Message::new("NOTIFY", "{}").reply_to("executor")).await;
    let reply = peer.next().await;
    assert_eq!(reply.kind.as_deref(), Some("NOTIFY"));
    assert_eq!((reply.reply_to.as_deref(), reply.correlation_id.as_deref()), (None, None));
    let tasks = ["echo", "fail", "panic", "progress", "revert", "sleep"];
    assert_eq!(body(&reply), json!({"topic": "w", "tasks": tasks}));
}

#[tokio::test(start_paused = true)]
async fn a_task_gets_its_topic_and_its_request() {
    let broker = LocalBroker::new();
    let who = async |context: Context, _| {
        Ok::<_, Failure>(json!([context.topic(), context.task_cls(), context.request_id()]))
    };
    let _worker = Worker::builder(broker.clone()).topic("w").task("who", who).await.unwrap();
    let mut peer = Peer::new(&broker, "executor").await;
    peer.request("w", "1", &execute("who")).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
    assert_eq!(peer.next_response().await.1, success(json!(["w", "who", "1"])));
}

#[tokio::test(start_paused = true)]
async fn a_message_of_another_kind_is_rejected_without_an_answer() {
    let broker = LocalBroker::new();
    let (_worker, mut peer) = start(&broker).await;
    let request = execute("echo").to_string();
    let mut untyped = Message::new("", request.clone()).reply_to("executor").correlation_id("1");
    untyped.kind = None;
    for message in [
        Message::new("NOTIFY", "{}"),
        Message::new("NOTIFY", r#"{"extra": 1}"#).reply_to("executor"),
        Message::new("NOTIFY", "no JSON").reply_to("executor"),
        Message::new("REQUEST", request.clone()).reply_to("executor"),
        Message::new("REQUEST", request.clone()).correlation_id("1"),
        Message::new("REQUEST", "[1"),
        Message::new("RESPONSE", request.clone()).reply_to("executor").correlation_id("1"),
        Message::new("OTHER", request).reply_to("executor").correlation_id("1"),
        untyped,
    ] {
        peer.send("w", message).await;
    }
    assert!(peer.receives_nothing_for(LONG).await);
    assert_eq!(broker.message_count("w"), 0);
    peer.request("w", "1", &execute("echo")).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
}

#[tokio::test(start_paused = true)]
async fn a_run_is_reported_as_running_then_events_then_success() {
    let broker = LocalBroker::new();
    let (_worker, mut peer) = start(&broker).await;
    peer.request("w", "1", &execute("progress")).await;
    let event = |done: f64| json!({"state": "EVENT", "data": {"event_type": "update_progress", "details": {"progress": done}}});
    for expected in [
        json!({"state": "RUNNING", "data": {}}),
        event(0.0),
        event(1.0),
        json!({"state": "SUCCESS", "data": {"result": "progress"}}),
    ] {
        assert_eq!(peer.next_response().await, ("1".into(), expected));
    }
    assert!(peer.receives_nothing_for(LONG).await);
    assert_eq!(broker.message_count("w"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_task_that_fails_is_a_failure_with_its_chain_of_causes() {
    let broker = LocalBroker::new();
    let (_worker, mut peer) = start(&broker).await;
    peer.request("w", "1", &execute("fail")).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
    let (_, said) = peer.next_response().await;
    assert_eq!(said["state"], "FAILURE");
    let failure = &said["data"]["result"];
    assert_eq!(failure["exception_str"], "outer");
    let names = failure["exc_type_names"].as_array().unwrap();
    assert!(names[0].as_str().unwrap().ends_with("::Outer") && names[1] == "Exception", "{names:?}");
    assert_eq!(failure["causes"][0]["exception_str"], "invalid digit found in string");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_panics_has_failed_and_the_worker_goes_on() {
    let broker = LocalBroker::new();
    let (_worker, mut peer) = start(&broker).await;
    peer.request("w", "1", &execute("panic")).await;
    peer.request("w", "2", &execute("echo")).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
    let (_, said) = peer.next_response().await;
    assert_eq!(said["data"]["result"]["exception_str"], "the task panicked: of sorts");
    assert_eq!(peer.next_state("2").await, "RUNNING");
    assert_eq!(peer.next_state("2").await, "SUCCESS");
}

#[tokio::test(start_paused = true)]
async fn an_addressed_request_that_cannot_be_run_is_answered_with_a_failure_and_acknowledged() {
    let broker = LocalBroker::new();
    let (_worker, mut peer) = start(&broker).await;
    let with = |key: &str, value: Value| {
        let mut request = execute("echo");
        request[key] = value;
        request
    };
    for (request, reason) in [
        (
            with("task_cls", json!("missing")),
            "this worker has no task \"missing\"; it has echo, fail, panic, progress, revert, sleep",
        ),
        (with("action", json!("dance")), "`action` of the request is neither `execute` nor `revert`"),
        (with("arguments", json!([])), "`arguments` of the request is not an object"),
        (json!({"task_cls": "echo"}), "`task_name` of the request is missing"),
        (json!([]), "the request is not an object"),
    ] {
        peer.request("w", "1", &request).await;
        let (id, said) = peer.next_response().await;
        assert_eq!((&*id, &said["state"]), ("1", &json!("FAILURE")));
        assert_eq!(said["data"]["result"]["exception_str"], reason);
    }
    assert!(peer.receives_nothing_for(SECOND).await);
    assert_eq!(broker.message_count("w"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_revert_gets_the_result_and_the_failures() {
    let broker = LocalBroker::new();
    let (_worker, mut peer) = start(&broker).await;
    let failure = json!({"exception_str": "boom", "traceback_str": "", "exc_type_names": ["E", "Exception"],
        "version": 1, "exc_args": [], "causes": []});
    for (result, failures, expected) in [
        (json!(["success", 1]), json!({"a": failure}), json!([1, ["a"]])),
        (json!(["failure", failure]), json!({}), json!(["boom", []])),
    ] {
        let mut request = execute("revert");
        request["action"] = json!("revert");
        request["result"] = result;
        request["failures"] = failures;
        peer.request("w", "1", &request).await;
        assert_eq!(peer.next_state("1").await, "RUNNING");
        let (_, said) = peer.next_response().await;
        assert_eq!(said, json!({"state": "SUCCESS", "data": {"result": expected}}));
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_has_nothing_to_revert_reverts() {
    let broker = LocalBroker::new();
    let (_worker, mut peer) = start(&broker).await;
    let mut request = execute("fail");
    request["action"] = json!("revert");
    peer.request("w", "1", &request).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
    assert_eq!(peer.next_response().await.1, json!({"state": "SUCCESS", "data": {"result": null}}));
}

#[tokio::test(start_paused = true)]
async fn no_more_requests_run_at_a_time_than_the_concurrency_and_the_others_are_not_acknowledged() {
    let broker = LocalBroker::new();
    let gate = Arc::new(Semaphore::new(0));
    let (peak, now) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let shared = (gate.clone(), peak.clone(), now.clone());
    let wait = move |_, _| {
        let (gate, peak, now) = shared.clone();
        async move {
            peak.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            gate.acquire().await.unwrap().forget();
            now.fetch_sub(1, SeqCst);
            Ok::<_, Failure>(())
        }
    };
    let worker = Worker::builder(broker.clone()).topic("w").task("wait", wait).concurrency(3);
    let worker = worker.await.unwrap();
    let peer = Peer::new(&broker, "executor").await;
    for id in 0..10 {
        peer.request("w", &id.to_string(), &execute("wait")).await;
    }
    sleep(SECOND).await;
    assert_eq!((worker.running(), now.load(SeqCst), broker.message_count("w")), (3, 3, 7));
    gate.add_permits(10);
    sleep(SECOND).await;
    assert_eq!((worker.running(), peak.load(SeqCst), broker.message_count("w")), (0, 3, 0));
}

#[tokio::test(start_paused = true)]
async fn a_busy_worker_still_answers_executors_and_reports_that_its_requests_are_running() {
    let broker = LocalBroker::new();
    let (_worker, mut peer) = start(&broker).await;
    peer.request("w", "1", &sleep_for(12)).await;
    peer.request("w", "2", &sleep_for(1)).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
    peer.send("w", Message::new("NOTIFY", "{}").reply_to("executor")).await;
    assert_eq!(peer.next().await.kind.as_deref(), Some("NOTIFY"));
    let mut states = Vec::new();
    for _ in 0..3 {
        states.push(peer.next_state("1").await);
    }
    assert_eq!(states, ["RUNNING", "RUNNING", "SUCCESS"]);
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_request_that_is_at_the_worker_is_dropped() {
    let broker = LocalBroker::new();
    let (_worker, mut peer) = start(&broker).await;
    for _ in 0..3 {
        peer.request("w", "1", &sleep_for(2)).await;
    }
    assert_eq!(peer.next_state("1").await, "RUNNING");
    assert_eq!(peer.next_state("1").await, "SUCCESS");
    assert!(peer.receives_nothing_for(LONG).await);
    // TaskFlow tries a task again under the same id.
    peer.request("w", "1", &sleep_for(2)).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
    assert_eq!(peer.next_state("1").await, "SUCCESS");
}

#[tokio::test(start_paused = true)]
async fn a_task_that_taskflow_tries_again_immediately_after_the_failure_is_run_again() {
    let broker = LocalBroker::new();
    let faulty = Faulty::new(&broker, 0, Faults::default());
    let fail = async |_, _| Err::<(), _>(Failure::new("E", "no"));
    let _worker = Worker::builder(faulty.clone()).topic("w").task("fail", fail).await.unwrap();
    let mut peer = Peer::new(&broker, "executor").await;
    faulty.lag(SECOND);
    for _ in 0..2 {
        peer.request("w", "1", &execute("fail")).await;
        assert_eq!(peer.next_state("1").await, "RUNNING");
        assert_eq!(peer.next_state("1").await, "FAILURE");
    }
}

#[tokio::test(start_paused = true)]
async fn a_late_copy_of_a_request_from_an_executor_of_ours_is_dropped() {
    let broker = LocalBroker::new();
    let (_worker, mut peer) = start(&broker).await;
    let request = Message::new("REQUEST", execute("echo").to_string());
    let request = request.reply_to("executor").correlation_id("1").sender("executor");
    peer.send("w", request.clone()).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
    assert_eq!(peer.next_state("1").await, "SUCCESS");
    peer.send("w", request).await;
    assert!(peer.receives_nothing_for(LONG).await);
    assert_eq!(broker.message_count("w"), 0);
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_a_request_that_is_for_another_worker_of_the_topic_is_dropped() {
    let broker = LocalBroker::new();
    let (_worker, mut peer) = start(&broker).await;
    let request = Message::new("REQUEST", execute("echo").to_string());
    let request = request.reply_to("executor").correlation_id("1").sender("executor");
    peer.send("w", request.clone().only_for("another")).await;
    assert!(peer.receives_nothing_for(LONG).await);
    assert_eq!(broker.message_count("w"), 0);
    // It was not run, so this is not taken for a copy.
    peer.send("w", request).await;
    assert_eq!(peer.next_state("1").await, "RUNNING");
    assert_eq!(peer.next_state("1").await, "SUCCESS");
}

#[tokio::test(start_paused = true)]
async fn a_worker_needs_a_topic() {
    let refused = Worker::builder(LocalBroker::new()).await;
    assert_eq!(refused.unwrap_err().to_string(), "refused: a worker needs a topic, where it takes requests");
}

#[tokio::test(start_paused = true)]
async fn a_handler_has_state_and_reverts_by_itself() {
    use apportion::{BoxFuture, worker::Handler};

    struct Light(Notify);
    impl Handler for Light {
        fn execute(&self, _: Context, _: Arguments) -> BoxFuture<'_, Result<Value, Failure>> {
            Box::pin(async {
                self.0.notify_one();
                Ok("on".into())
            })
        }
    }
    let broker = LocalBroker::new();
    let light = Worker::builder(broker.clone()).topic("w").handler("light", Light(Notify::new()));
    let _worker = light.await.unwrap();
    let mut peer = Peer::new(&broker, "executor").await;
    let mut revert = execute("light");
    revert["action"] = json!("revert");
    for (request, result) in [(execute("light"), json!("on")), (revert, Value::Null)] {
        peer.request("w", "1", &request).await;
        assert_eq!(peer.next_state("1").await, "RUNNING");
        assert_eq!(peer.next_response().await.1["data"]["result"], result);
    }
}

/// Or what waits at the broker would count as lost, and be sent a second time.
#[tokio::test(start_paused = true)]
async fn a_worker_that_was_full_since_its_last_report_does_not_report_room() {
    let broker = LocalBroker::new();
    let _worker = worker(&broker).prefetch(0).await.unwrap();
    let mut peer = Peer::new(&broker, "executor").await;
    peer.send("w", Message::new("NOTIFY", "{}").reply_to("executor").sender("executor")).await;
    // The answer to the question.
    assert_eq!(body(&peer.next_of("INVENTORY").await)["has_room"], true);
    // The second waits until shortly before the third report, and runs then.
    peer.request("w", "1", &sleep_for(14)).await;
    peer.request("w", "2", &sleep_for(4)).await;
    for has_room in [false, false, false, true] {
        assert_eq!(body(&peer.next_of("INVENTORY").await)["has_room"], has_room);
    }
}
