//! Tests with TaskFlow in Python over a real RabbitMQ broker: its engine with our worker, our executor with its worker,
//! and its envelopes.

use apportion::worker::{
    Arguments, Context, Event, Executor, Failure, Request, RequestError, RequestState, TaskResult, Undo,
    Worker,
    amqp::AmqpTransport,
    transport::{Message, Transport},
};
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::support::{SECOND, golden::golden, python::python, shared_broker};

async fn connect(exchange: &str) -> AmqpTransport {
    AmqpTransport::connect(&shared_broker().await.url(), exchange).await.unwrap()
}

/// All envelopes of the golden conversations.
fn envelopes() -> Vec<Value> {
    fn collect(value: Value, found: &mut Vec<Value>) {
        match value {
            Value::Object(mut fields) if fields.contains_key("queue") => found.push(fields["message"].take()),
            Value::Object(fields) => fields.into_iter().for_each(|(_, value)| collect(value, found)),
            Value::Array(items) => items.into_iter().for_each(|value| collect(value, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    collect(golden("wbe_envelopes.json"), &mut found);
    found
}

/// Sends what a golden envelope holds, and gets it back from TaskFlow's own sender.
#[tokio::test]
async fn our_envelopes_are_those_of_taskflow_and_taskflows_are_read_to_the_byte() {
    let (broker, exchange) = (shared_broker().await, "envelopes");
    let mut echo = python("worker/interop/echo.py", &[&broker.url(), exchange, "python", "rust"]);
    assert_eq!(echo.says().await, json!({"ready": true}));
    let transport = connect(exchange).await;
    let mut consumer = transport.consume("rust", 10).await.unwrap();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let envelopes = envelopes();
    assert_eq!(envelopes.len(), 19);
    for envelope in envelopes {
        let golden = &envelope["properties"];
        let mut message = Message::default();
        message.kind = text(&golden["type"]);
        message.reply_to = text(&golden["reply_to"]);
        message.correlation_id = text(&golden["correlation_id"]);
        message.body = text(&envelope["body_decoded"]).unwrap().into();
        transport.publish("python", message.clone()).await.unwrap();

        // On AMQP's wire these are properties, too; and what is null in the golden envelope is not sent at all.
        let (content_type, encoding) = (&envelope["content-type"], &envelope["content-encoding"]);
        let mut properties = json!({
            "content_type": content_type,
            "content_encoding": encoding,
            "application_headers": envelope["headers"],
        });
        for name in ["type", "reply_to", "correlation_id", "delivery_mode", "priority"] {
            if !golden[name].is_null() {
                properties[name] = golden[name].clone();
            }
        }
        let expected = json!({
            "properties": properties,
            "content_type": content_type,
            "content_encoding": encoding,
            "headers": envelope["headers"],
            "delivery_info": {"exchange": exchange, "routing_key": "python"},
            "body": envelope["body_decoded"],
        });
        assert_eq!(echo.says().await, expected);

        let incoming = timeout(10 * SECOND, consumer.next()).await.unwrap().unwrap();
        assert_eq!(incoming.ack().await.unwrap(), message);
    }
}

#[derive(Debug, thiserror::Error)]
#[error("cannot take {0}")]
struct CannotTake(i64, #[source] std::num::ParseIntError);

async fn double(context: Context, arguments: Arguments) -> Result<i64, Failure> {
    let number: i64 = arguments.get("number")?;
    context.update_progress(0.5).await;
    Ok(number * 2)
}

async fn halve(_: Context, arguments: Arguments, undo: Undo) -> Result<String, Failure> {
    let number: i64 = arguments.get("number")?;
    let Some(TaskResult::Success(result)) = undo.result else { return Err(Failure::new("", "no result")) };
    let reasons: Vec<_> = undo.failures.iter().map(|(atom, failure)| format!("{atom}: {failure}")).collect();
    Ok(format!("halved {result} to {number} because of {}", reasons.join(", ")))
}

async fn fail(_: Context, arguments: Arguments) -> Result<(), CannotTake> {
    Err(CannotTake(arguments.get("doubled").unwrap(), "seven".parse::<i64>().unwrap_err()))
}

async fn nothing_to_undo(_: Context, _: Arguments, undo: Undo) -> Result<&'static str, Failure> {
    match undo.result {
        Some(TaskResult::Failure(_)) => Ok("nothing to undo"),
        other => Err(Failure::new("", format!("{other:?}"))),
    }
}

#[tokio::test]
async fn taskflows_engine_runs_and_reverts_its_tasks_on_our_worker() {
    let (broker, exchange) = (shared_broker().await, "engine");
    let worker = Worker::builder(connect(exchange).await)
        .topic("rust")
        .revertible_task("interop_tasks.Double", double, halve)
        .revertible_task("interop_tasks.Fail", fail, nothing_to_undo)
        .await
        .unwrap();
    let mut engine = python("worker/interop/engine.py", &[&broker.url(), exchange, "rust"]);

    let succeeded = engine.says().await;
    assert_eq!(succeeded["state"], "SUCCESS", "{succeeded:#}");
    assert_eq!(succeeded["raised"], Value::Null);
    assert_eq!(succeeded["tasks"]["double"]["state"], "SUCCESS");
    assert_eq!(succeeded["store"], json!({"number": 21, "doubled": 42}));
    let progress = succeeded["progress"].as_array().unwrap();
    assert!(progress.contains(&json!(["double", 0.5])), "{progress:?}");

    let failed = engine.says().await;
    assert_eq!(failed["state"], "REVERTED", "{failed:#}");
    assert_eq!(failed["raised"]["kind"], "WrappedFailure", "{failed:#}");
    let (double, fail) = (&failed["tasks"]["double"], &failed["tasks"]["fail"]);
    assert_eq!((&double["state"], &fail["state"]), (&json!("REVERTED"), &json!("REVERTED")));
    assert_eq!(fail["failure"]["exception"], "cannot take 8");
    assert_eq!(fail["failure"]["types"], json!([concat!(module_path!(), "::CannotTake"), "Exception"]));
    assert_eq!(fail["failure"]["causes"][0]["exception_str"], "invalid digit found in string");
    assert_eq!(fail["reverted"], "nothing to undo");
    let reverted = double["reverted"].as_str().unwrap();
    assert!(
        reverted.starts_with(concat!(
            "halved 8 to 4 because of fail: ",
            module_path!(),
            "::CannotTake: cannot take 8"
        )),
        "{reverted}"
    );
    assert!(worker.shutdown(SECOND).await);
}

#[tokio::test]
async fn our_executor_uses_and_reverts_the_tasks_of_taskflows_worker() {
    let (broker, exchange) = (shared_broker().await, "worker");
    let executor = Executor::builder(connect(exchange).await)
        .topics(["python"])
        .notify_period(SECOND / 5)
        .request_timeout(30 * SECOND)
        .await
        .unwrap();
    let mut worker = python("worker/interop/worker.py", &[&broker.url(), exchange, "python"]);
    assert_eq!(worker.says().await, json!({"ready": true}));
    assert!(timeout(20 * SECOND, executor.wait_for_workers("interop_tasks.Double", 1)).await.unwrap());
    assert_eq!(executor.workers()["python"].len(), 3);

    let submitted = executor.submit(Request::execute("interop_tasks.Double").argument("number", 21));
    let mut progress = submitted.progress();
    assert_eq!(submitted.await.unwrap().get::<u32>().unwrap(), 42);
    let mut fractions = Vec::new();
    while let Some(event) = progress.next().await {
        fractions.extend(Event::as_progress(&event));
    }
    assert_eq!(fractions, [0.5]);

    let submitted = executor.submit(Request::execute("interop_tasks.Fail").argument("doubled", 8));
    let failure = match submitted.await {
        Err(RequestError::Failed(failure)) => failure,
        other => panic!("{other:?}"),
    };
    assert_eq!(failure.exception_str(), "cannot take 8");
    assert_eq!(failure.exc_type_names(), ["ValueError", "Exception"]);
    assert_eq!(failure.causes()[0].exc_type_names()[0], "KeyError");
    assert!(failure.traceback_str().contains("interop_tasks.py"), "{}", failure.traceback_str());

    let undo = Request::revert("interop_tasks.Fail", TaskResult::Failure(failure.clone()))
        .argument("doubled", 8)
        .failure("fail", failure.clone());
    assert_eq!(executor.submit(undo).await.unwrap(), "nothing to undo".into());
    let undo = Request::revert("interop_tasks.Double", TaskResult::Success(json!(8)))
        .argument("number", 4)
        .failure("fail", failure.clone());
    assert_eq!(executor.submit(undo).await.unwrap(), "halved 8 to 4".into());

    executor.shutdown().await;
}

/// TaskFlow's worker answers executors on the threads on which it runs tasks.
#[tokio::test]
async fn taskflows_worker_that_is_too_busy_to_answer_is_not_taken_for_lost_and_one_that_died_is() {
    let (broker, exchange) = (shared_broker().await, "busy");
    let executor = Executor::builder(connect(exchange).await)
        .topics(["python"])
        .notify_period(SECOND / 5)
        .worker_expiry(2 * SECOND)
        .await
        .unwrap();
    let worker = python("worker/interop/worker.py", &[&broker.url(), exchange, "python"]);
    let nap = |seconds: u32| Request::execute("interop_tasks.Nap").argument("seconds", seconds);
    // It has two threads.
    let naps = [executor.submit(nap(4)), executor.submit(nap(4))];
    for nap in naps {
        assert_eq!(timeout(30 * SECOND, nap).await.expect("it hangs"), Ok("rested".into()));
    }

    let lost = executor.submit(nap(600));
    let started = lost.wait_for_state(|state| state == RequestState::Running);
    assert_eq!(timeout(30 * SECOND, started).await.expect("it does not start"), RequestState::Running);
    drop(worker);
    let outcome = timeout(30 * SECOND, lost).await.expect("it hangs");
    assert_eq!(outcome, Err(RequestError::WorkerVanished { topic: "python".into() }));
}
