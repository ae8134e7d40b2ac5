//! Requests from an executor to a worker and back, within the process, and the cost of reading their messages.
//!
//! Over a broker, compared with Python: `scripts/bench-python worker`.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use apportion::worker::{
    Executor, Failure, LocalBroker, Outcome, Request, RequestError, TaskResult, Worker,
    message::{Response, WireResponse},
    transport::TransportError,
    validate::{self, FormatError},
};
use criterion::{BenchmarkId, Criterion, Throughput};
use serde_json::{Value, json};
use tokio::{runtime::Builder, task::JoinSet};

const TASK: &str = "nothing";

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    round_trip(&mut criterion);
    messages(&mut criterion);
    criterion.final_summary();
}

/// Executor, broker, worker, and a task that does nothing, all in one thread.
#[expect(clippy::disallowed_methods, reason = "this measures real time")]
fn round_trip(criterion: &mut Criterion) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime can be built");
    let (executor, worker) = runtime.block_on(async {
        let broker = LocalBroker::new();
        let worker = Worker::builder(broker.clone())
            .topic("here")
            .task(TASK, async |_, _| Ok::<_, TransportError>(()))
            .concurrency(16)
            .await
            .expect("a local broker is there");
        let executor = Executor::builder(broker).topics(["here"]).await;
        let executor = executor.expect("a local broker is there");
        executor.wait_for_workers(TASK, 1).await;
        (executor, worker)
    });
    let mut group = criterion.benchmark_group("requests, round trip in process");
    group.throughput(Throughput::Elements(1));
    for in_flight in [1, 16] {
        group.bench_function(BenchmarkId::new("under way", in_flight), |bencher| {
            bencher.iter_custom(|count| {
                let start = Instant::now();
                runtime.block_on(requests(&executor, count, in_flight));
                start.elapsed()
            });
        });
    }
    group.finish();
    runtime.block_on(async {
        executor.shutdown().await;
        worker.shutdown(Duration::from_secs(1)).await;
    });
}

async fn requests(executor: &Executor, count: u64, in_flight: usize) {
    let mut open: JoinSet<Result<Outcome, RequestError>> = JoinSet::new();
    for _ in 0..count {
        if open.len() == in_flight {
            let ended = open.join_next().await.expect("it is not empty");
            ended.expect("it does not panic").expect("the task succeeds");
        }
        open.spawn(executor.submit(Request::execute(TASK)));
    }
    for ended in open.join_all().await {
        ended.expect("the task succeeds");
    }
}

/// Reads a message from its body, and validates it only.
fn messages(criterion: &mut Criterion) {
    let cause = Failure::new("builtins.KeyError", "'volume'").traceback("line 1\nline 2\nline 3\n");
    let failure =
        Failure::new("builtins.ValueError", "cannot resize").args([json!("cannot resize"), json!(7)]);
    let failure = failure.traceback("line 1\nline 2\nline 3\n").caused_by(cause);
    let arguments = [("volume", json!("3f2b")), ("size", json!(20)), ("tags", json!(["a", "b", "c"]))];
    let request = arguments
        .into_iter()
        .fold(Request::execute("tasks.Resize"), |request, (name, value)| request.argument(name, value));
    let revert = Request::revert("tasks.Resize", TaskResult::Failure(failure.clone()))
        .argument("volume", "3f2b")
        .failure("resize", failure.clone());
    let success = Response::Success(json!({"volume": "3f2b", "size": 20})).to_json();
    let failed = Response::Failure(failure.clone()).to_json();

    let request_of = |json: &[u8]| Request::from_json(json).map(drop);
    let response_of = |json: &[u8]| WireResponse::from_json(json).map(|it| drop(black_box(it.decode())));
    let failure_of = |json: &[u8]| Failure::from_json(json).map(drop);
    message(
        criterion,
        "request",
        &request.to_json().expect("its arguments are JSON"),
        request_of,
        validate::request,
    );
    message(
        criterion,
        "request to revert, 2 failures",
        &revert.to_json().expect("its arguments are JSON"),
        request_of,
        validate::request,
    );
    message(criterion, "response", &success, response_of, validate::response);
    message(criterion, "response with a failure", &failed, response_of, validate::response);
    message(criterion, "failure with a cause", &failure.to_json(), failure_of, validate::failure);
}

fn message(
    criterion: &mut Criterion,
    name: &str,
    body: &[u8],
    read: impl Fn(&[u8]) -> Result<(), FormatError>,
    validate: impl Fn(&Value) -> Result<(), FormatError>,
) {
    let value: Value = serde_json::from_slice(body).expect("it was written as JSON");
    let mut group = criterion.benchmark_group(format!("{name}, {} bytes", body.len()));
    group.bench_function("read", |bencher| {
        bencher.iter(|| read(black_box(body)).expect("it is valid"));
    });
    group.bench_function("validate", |bencher| {
        bencher.iter(|| validate(black_box(&value)).expect("it is valid"));
    });
    group.finish();
}
