//! Arguments and results of any type, values with serde, and streams.

use std::{collections::BTreeMap, time::Duration};

use apportion::worker::{
    ArgumentError, Arguments, Context, Event, Executor, Failure, LocalBroker, Outcome, Request, RequestError,
    RequestState, TaskResult, Undo, Worker,
    message::{Action, NotifyReply, Response},
    transport::{Message, Transport},
};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::peer::{LONG, Peer, body};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Size {
    width: u32,
    height: Option<u32>,
}

const SIZE: Size = Size { width: 120, height: None };

/// A worker that doubles sizes, and an executor that knows it.
async fn pair() -> (Worker, Executor) {
    let broker = LocalBroker::new();
    let double = async |context: Context, arguments: Arguments| {
        let Size { width, height } = arguments.get("size")?;
        context.notify("read", Size { width, height }).await?;
        context.update_progress(0.5).await;
        Ok::<_, Failure>(Size { width: width * 2, height: height.map(|height| height * 2) })
    };
    let halve = async |_, _, undo: Undo| {
        let result: Option<Size> = undo.result_as().map_err(|error| Failure::of(&error))?;
        Ok::<_, Failure>(result.map(|size| size.width / 2))
    };
    let worker = Worker::builder(broker.clone()).topic("w").revertible_task("double", double, halve);
    let worker = worker.await.unwrap();
    (worker, Executor::builder(broker).topics(["w"]).await.unwrap())
}

#[tokio::test(start_paused = true)]
async fn arguments_results_and_details_are_values_of_any_type() {
    let (_worker, executor) = pair().await;
    let request = executor.submit(Request::execute("double").argument("size", SIZE));
    let progress = request.progress();
    let outcome = request.await.unwrap();
    assert_eq!(outcome.get::<Size>().unwrap(), Size { width: 240, height: None });
    assert!(outcome.get::<String>().is_err());

    let events: Vec<Event> = progress.collect().await;
    assert_eq!(events[0].event_type(), "read");
    assert_eq!(events[0].details_as::<Size>().unwrap(), SIZE);
    assert_eq!(events[1].as_progress(), Some(0.5));
    assert_eq!(events.len(), 2);

    let revert = executor.submit(Request::revert("double", outcome)).await.unwrap();
    assert_eq!(revert.get::<u32>().unwrap(), 120);
    let revert = executor.submit(Request::revert("double", Failure::new("E", "no"))).await.unwrap();
    assert_eq!(revert.get::<Option<u32>>().unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn an_argument_that_cannot_be_json_ends_the_request_and_nothing_is_sent() {
    let broker = LocalBroker::new();
    let mut peer = Peer::new(&broker, "w").await;
    let executor = Executor::builder(broker).topics(["w"]).await.unwrap();
    peer.next_of("NOTIFY").await;
    peer.list(executor.name(), &["t"]).await;
    assert!(executor.wait_for_workers("t", 1).await);
    let keys_that_are_lists = BTreeMap::from([([1, 2], 3)]);
    let invalid = Request::execute("t").argument("size", SIZE).argument("map", keys_that_are_lists);
    let refused = invalid.to_json().unwrap_err();
    assert_eq!((refused.name(), refused.reason()), ("map", "key must be a string"));
    assert!(serde_json::to_value(&invalid).is_err());

    let submitted = executor.submit(invalid);
    let mut progress = submitted.progress();
    assert_eq!(submitted.state(), RequestState::Failure);
    let error = submitted.await.unwrap_err();
    assert_eq!(error, RequestError::Argument(refused));
    assert_eq!((error.may_have_run(), error.is_transient()), (false, false));
    assert_eq!(error.to_string(), r#"argument "map": key must be a string"#);
    assert_eq!(progress.next().await, None);

    // The next message is the next request.
    let _valid = executor.submit(Request::execute("t").argument("size", SIZE));
    let sent = peer.next().await;
    assert_eq!(body(&sent)["arguments"], json!({"size": {"width": 120, "height": null}}));
}

#[tokio::test(start_paused = true)]
async fn details_that_are_not_an_object_are_refused_where_the_event_is_made() {
    let broker = LocalBroker::new();
    let notify =
        async |context: Context, _| context.notify("read", 7).await.map_err(|error| error.to_string());
    let _worker = Worker::builder(broker.clone()).topic("w").task("notify", notify).await.unwrap();
    let executor = Executor::builder(broker).topics(["w"]).await.unwrap();
    let error = executor.submit(Request::execute("notify")).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"the task failed: the details of event "read": they are not a JSON object"#
    );
}

#[tokio::test(start_paused = true)]
async fn an_executor_lives_as_long_as_its_last_clone() {
    let (_worker, executor) = pair().await;
    let clone = executor.clone();
    assert_eq!(clone.name(), executor.name());
    drop(executor);
    let double = || Request::execute("double").argument("size", SIZE);
    assert!(clone.submit(double()).await.is_ok());
    let open = clone.submit(Request::execute("no worker lists this"));
    drop(clone);
    assert_eq!(timeout(LONG, open).await.expect("it hangs"), Err(RequestError::Closed));

    let (_worker, executor) = pair().await;
    let clone = executor.clone();
    executor.shutdown().await;
    timeout(LONG, clone.closed()).await.expect("a shutdown ends all clones");
    assert_eq!(clone.submit(double()).await, Err(RequestError::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_consumer_and_the_progress_of_a_request_are_streams() {
    let broker = LocalBroker::new();
    let consumer = broker.consume("w", 10).await.unwrap();
    for body in ["1", "2", "3"] {
        broker.publish("w", Message::new("NOTIFY", body)).await.unwrap();
    }
    let bodies = consumer.take(3).then(async |incoming| incoming.ack().await.unwrap().body);
    assert_eq!(bodies.collect::<Vec<_>>().await, [b"1", b"2", b"3"]);

    let mut peer = Peer::new(&broker, "w").await;
    let executor = Executor::builder(broker).topics(["w"]).await.unwrap();
    peer.list(executor.name(), &["t"]).await;
    let request = executor.submit(Request::execute("t"));
    let sent = peer.next_of("REQUEST").await;
    let respond = async {
        for done in [0.25, 0.5, 1.0] {
            tokio::time::sleep(Duration::from_secs(1)).await;
            peer.respond(&sent, &json!(Response::Event(Event::progress(done)))).await;
        }
        peer.respond(&sent, &json!(Response::Success(Value::Null))).await;
    };
    let read = request.progress().filter_map(async |event| event.as_progress()).collect::<Vec<_>>();
    let (fractions, ()) = tokio::join!(read, respond);
    assert_eq!(fractions, [0.25, 0.5, 1.0]);
    assert!(request.await.is_ok());
}

#[test]
fn handles_can_be_sent_to_and_shared_with_other_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Executor>();
    shared::<apportion::worker::Submitted>();
    shared::<apportion::worker::Progress>();
    shared::<Worker>();
}

/// Writes `value` as JSON, which has to be `json`, and reads it again.
fn travels<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T, json: &Value) {
    assert_eq!(serde_json::to_value(value).unwrap(), *json);
    assert_eq!(serde_json::from_value::<T>(json.clone()).unwrap(), *value);
}

#[test]
fn values_that_travel_are_written_as_on_the_wire_and_read_again() {
    let failure = Failure::new("E", "no");
    let of_failure = json!({"exception_str": "no", "traceback_str": "", "exc_type_names": ["E", "Exception"],
        "version": 1, "exc_args": ["no"], "causes": []});
    for state in RequestState::ALL {
        travels(&state, &json!(state.as_str()));
    }
    travels(&Action::Revert, &json!("revert"));
    travels(&failure, &of_failure);
    travels(&TaskResult::from(json!(7)), &json!(["success", 7]));
    travels(&TaskResult::from(failure.clone()), &json!(["failure", of_failure]));
    assert!(serde_json::from_value::<TaskResult>(json!(["other", 7])).is_err());
    travels(&Outcome::from("x"), &json!("x"));
    let arguments = json!({"b": 1, "a": 2});
    travels(&Arguments::from(arguments.as_object().unwrap().clone()), &arguments);
    travels(&Event::progress(0.5), &json!({"event_type": "update_progress", "details": {"progress": 0.5}}));
    travels(&NotifyReply::new("w", ["t"]), &json!({"topic": "w", "tasks": ["t"]}));
    travels(&Response::Running, &json!({"state": "RUNNING", "data": {}}));
    travels(&Response::Failure(failure), &json!({"state": "FAILURE", "data": {"result": of_failure}}));
    assert!(serde_json::from_value::<Response>(json!({"state": "SUCCESS", "data": {}})).is_err());
    travels(
        &Request::revert("t", json!(7)).argument("x", 1),
        &json!({"task_cls": "t", "task_name": "t", "task_version": [1, 0], "action": "revert",
            "arguments": {"x": 1}, "result": ["success", 7], "failures": {}}),
    );
    let error: ArgumentError = Arguments::default().get::<u32>("x").unwrap_err();
    assert_eq!((error.name(), error.reason()), ("x", "it is missing"));
}
