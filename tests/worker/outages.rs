//! Connections of executors and workers that break, and workers that die: no request is lost that has not begun, and
//! no result of a worker that lives.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use apportion::worker::{
    Arguments, Executor, ExecutorBuilder, Failure, LocalBroker, Outcome, Request, RequestError, RequestState,
    Submitted, Worker, WorkerBuilder, transport::Transport,
};
use tokio::time::{sleep, timeout};

use crate::{
    peer::{LONG, Peer},
    severable::Severable,
    support::{MS, SECOND},
};

/// Which topics have run each request, by its number.
type Runs = Arc<Mutex<BTreeMap<u64, Vec<&'static str>>>>;

/// A worker of tasks that take some milliseconds.
fn worker(transport: impl Transport, topic: &'static str, runs: &Runs) -> WorkerBuilder {
    let runs = runs.clone();
    let nap = move |_, arguments: Arguments| {
        let runs = runs.clone();
        async move {
            let number: u64 = arguments.get("number")?;
            runs.lock().unwrap().entry(number).or_default().push(topic);
            sleep(MS * arguments.get("ms")?).await;
            Ok::<_, Failure>(number)
        }
    };
    Worker::builder(transport).topic(topic).task("nap", nap)
}

fn executor(transport: impl Transport) -> ExecutorBuilder {
    Executor::builder(transport).topics(["a", "b"])
}

fn nap(executor: &Executor, number: u64, ms: u32) -> Submitted {
    executor.submit(Request::execute("nap").argument("number", number).argument("ms", ms))
}

async fn end_of(request: Submitted, bound: Duration) -> Result<Outcome, RequestError> {
    timeout(bound, request).await.expect("it does not end in time")
}

/// Requests that take 1.5 s, all of which run.
async fn eight_running(broker: &LocalBroker, executor: &Executor, runs: &Runs) -> (Worker, Vec<Submitted>) {
    let worker = worker(broker.clone(), "a", runs).concurrency(8).await.unwrap();
    let requests: Vec<_> = (0..8).map(|number| nap(executor, number, 1500)).collect();
    running(&requests[7]).await;
    (worker, requests)
}

async fn running(request: &Submitted) {
    let running = request.wait_for_state(|state| state == RequestState::Running);
    assert_eq!(timeout(LONG, running).await, Ok(RequestState::Running));
}

#[tokio::test(start_paused = true)]
async fn a_result_is_sent_again_until_its_executor_is_back() {
    for away in [100, 5_000, 120_000, 400_000] {
        let broker = LocalBroker::new();
        let connection = Severable::new(&broker);
        let executor = executor(connection.clone()).await.unwrap();
        let (_worker, requests) = eight_running(&broker, &executor, &Runs::default()).await;
        sleep(MS * 1300).await;
        connection.cut();
        sleep(MS * away).await;
        connection.mend();
        for (number, request) in (0_u64..).zip(requests) {
            assert_eq!(end_of(request, 30 * SECOND).await, Ok(number.into()), "away for {away} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_result_that_is_lost_with_the_connection_of_its_executor_comes_again() {
    let broker = LocalBroker::new();
    let connection = Severable::new(&broker);
    let runs = Runs::default();
    let executor = executor(connection.clone()).await.unwrap();
    let (_worker, requests) = eight_running(&broker, &executor, &runs).await;
    // The broker has accepted the results for the executor, which does not read them any more.
    connection.freeze();
    sleep(3 * SECOND).await;
    connection.cut();
    connection.mend();
    for (number, request) in (0_u64..).zip(requests) {
        assert_eq!(end_of(request, 10 * SECOND).await, Ok(number.into()));
    }
    assert!(runs.lock().unwrap().values().all(|topics| topics.len() == 1));
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_answers_has_not_vanished_however_long_the_executor_was_away() {
    let broker = LocalBroker::new();
    let connection = Severable::new(&broker);
    let _worker = worker(broker.clone(), "a", &Runs::default()).await.unwrap();
    let executor = executor(connection.clone()).await.unwrap();
    let mut request = nap(&executor, 1, 3_600_000);
    running(&request).await;
    for away in [50, 70, 300] {
        connection.cut();
        sleep(SECOND * away).await;
        assert!(timeout(MS, &mut request).await.is_err(), "it ends while the executor hears nothing");
        connection.mend();
        sleep(SECOND * 70).await;
        assert_eq!(request.state(), RequestState::Running);
        assert_eq!(executor.workers().len(), 1);
    }
    assert_eq!(end_of(request, 3600 * SECOND).await, Ok(1.into()));
}

#[tokio::test(start_paused = true)]
async fn executors_and_workers_are_back_within_a_second_of_their_broker_however_long_it_was_away() {
    for (seed, away) in (0..).zip([300, 7_000, 20_000, 33_700, 61_300, 600_000]) {
        let broker = LocalBroker::new();
        let connection = Severable::new(&broker);
        let _worker = worker(connection.clone(), "a", &Runs::default()).seed(2 * seed).await.unwrap();
        let executor = executor(connection.clone()).seed(2 * seed + 1).await.unwrap();
        connection.cut();
        sleep(MS * away).await;
        connection.mend();
        sleep(SECOND + MS).await;
        for topic in ["a", executor.name()] {
            assert_eq!(broker.is_consumed(topic).await, Ok(true), "{topic} after {away} ms");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn executors_and_workers_receive_again_although_calls_to_consume_never_end() {
    let broker = LocalBroker::new();
    let connection = Severable::new(&broker);
    let _worker = worker(connection.clone(), "a", &Runs::default()).await.unwrap();
    let executor = executor(connection.clone()).await.unwrap();
    connection.hang(2);
    connection.cut();
    connection.mend();
    assert_eq!(end_of(nap(&executor, 1, 1), 30 * SECOND).await, Ok(1.into()));
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_at_a_worker_whose_connection_breaks_are_sent_again() {
    for known_for in [1, 60] {
        let broker = LocalBroker::new();
        let connection = Severable::new(&broker);
        let runs = Runs::default();
        let _worker = worker(connection.clone(), "a", &runs).await.unwrap();
        let executor = executor(broker).request_timeout(None).await.unwrap();
        sleep(known_for * SECOND).await;
        let requests: Vec<_> = (0..3).map(|number| nap(&executor, number, 1000)).collect();
        sleep(MS * 400).await;
        connection.cut();
        sleep(MS * 100).await;
        connection.mend();
        let bound = if known_for < 20 { 30 } else { 5 };
        for (number, request) in (0_u64..).zip(requests) {
            assert_eq!(end_of(request, bound * SECOND).await, Ok(number.into()), "known for {known_for} s");
        }
        assert!(runs.lock().unwrap().values().all(|topics| topics.len() == 1));
    }
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_at_a_worker_that_dies_go_to_another_and_the_one_that_runs_has_vanished() {
    let broker = LocalBroker::new();
    let connection = Severable::new(&broker);
    let runs = Runs::default();
    let dying = worker(connection.clone(), "a", &runs).await.unwrap();
    let executor = executor(broker.clone()).request_timeout(None).await.unwrap();
    assert!(executor.wait_for_workers("nap", 1).await);
    let requests: Vec<_> = (0..20).map(|number| nap(&executor, number, 1000)).collect();
    sleep(MS * 400).await;
    // No message leaves it any more.
    connection.cut();
    drop(dying);
    let _other = worker(broker, "b", &runs).concurrency(8).await.unwrap();
    for (number, request) in (0_u64..).zip(requests) {
        let end = end_of(request, 70 * SECOND).await;
        match number {
            0 => assert_eq!(end, Err(RequestError::WorkerVanished { topic: "a".into() })),
            _ => assert_eq!(end, Ok(number.into())),
        }
    }
    let runs = runs.lock().unwrap();
    assert_eq!(runs[&0], ["a"]);
    assert!((1..20).all(|number| runs[&number] == ["b"]), "{runs:?}");
}

#[tokio::test(start_paused = true)]
async fn requests_that_wait_at_a_worker_that_dies_run_at_the_one_that_takes_its_place() {
    let broker = LocalBroker::new();
    let runs = Runs::default();
    let executor = executor(broker.clone()).request_timeout(None).await.unwrap();
    let mut last = None;
    let mut requests = Vec::new();
    for life in 0..4_u64 {
        let connection = Severable::new(&broker);
        last = Some(worker(connection.clone(), "a", &runs).await.unwrap());
        if life == 3 {
            break;
        }
        sleep(20 * SECOND).await;
        for number in 10 * life..10 * life + 6 {
            requests.push((number, nap(&executor, number, 500)));
        }
        sleep(MS * 700).await;
        connection.cut();
        drop(last.take());
        sleep(SECOND).await;
    }
    let mut vanished = 0;
    for (number, request) in requests {
        match end_of(request, 100 * SECOND).await {
            Ok(value) => assert_eq!(value, number.into()),
            Err(RequestError::WorkerVanished { .. }) => {
                assert_eq!(runs.lock().unwrap()[&number].len(), 1, "request {number} has not begun");
                vanished += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert_eq!(vanished, 3, "one ran at each death");
    assert!(runs.lock().unwrap().values().all(|topics| topics.len() == 1));
    drop(last);
}

#[tokio::test(start_paused = true)]
async fn a_request_runs_once_although_one_of_the_workers_of_its_topic_loses_its_connection() {
    let broker = LocalBroker::new();
    let connection = Severable::new(&broker);
    let runs = Runs::default();
    let _workers = [
        worker(connection.clone(), "a", &runs).prefetch(4).await.unwrap(),
        worker(broker.clone(), "a", &runs).prefetch(4).await.unwrap(),
    ];
    let executor = executor(broker).request_timeout(None).await.unwrap();
    sleep(30 * SECOND).await;
    let requests: Vec<_> = (0..60).map(|number| nap(&executor, number, 1000)).collect();
    for _ in 0..5 {
        sleep(MS * 1400).await;
        connection.cut();
        sleep(MS * 300).await;
        connection.mend();
    }
    for (number, request) in (0_u64..).zip(requests) {
        assert_eq!(end_of(request, 100 * SECOND).await, Ok(number.into()));
    }
    let runs = runs.lock().unwrap();
    assert!(runs.values().all(|topics| topics.len() == 1), "{runs:?}");
}

#[tokio::test(start_paused = true)]
async fn a_burst_that_is_larger_than_the_capacity_of_the_workers_does_not_expire() {
    let broker = LocalBroker::new();
    let runs = Runs::default();
    let _worker = worker(broker.clone(), "a", &runs).concurrency(2).await.unwrap();
    let executor = executor(broker).await.unwrap();
    let requests: Vec<_> = (0..300).map(|number| nap(&executor, number, 500)).collect();
    for (number, request) in (0_u64..).zip(requests) {
        assert_eq!(end_of(request, 80 * SECOND).await, Ok(number.into()));
    }
    assert_eq!(runs.lock().unwrap().len(), 300);
}

#[tokio::test(start_paused = true)]
async fn a_request_that_a_dead_worker_had_acknowledged_expires_when_no_other_comes() {
    let broker = LocalBroker::new();
    let connection = Severable::new(&broker);
    let dying = worker(connection.clone(), "a", &Runs::default()).await.unwrap();
    let executor = executor(broker).await.unwrap();
    let _first = nap(&executor, 1, 600_000);
    let second = nap(&executor, 2, 1);
    // Longer than its timeout, because the worker acknowledges it.
    sleep(100 * SECOND).await;
    assert_eq!(second.state(), RequestState::Pending);
    connection.cut();
    drop(dying);
    let end = end_of(second, 70 * SECOND).await;
    assert_eq!(end, Err(RequestError::Expired { timeout: 60 * SECOND, was_sent: false }));
}

#[tokio::test(start_paused = true)]
async fn a_request_for_an_unknown_task_names_the_task_and_those_that_are_offered() {
    let broker = LocalBroker::new();
    let _worker =
        worker(broker.clone(), "a", &Runs::default()).task("rest", async |_, _| Ok::<_, Failure>(())).await;
    let executor = executor(broker).await.unwrap();
    let error = end_of(executor.submit(Request::execute("nop")), 62 * SECOND).await.unwrap_err();
    let offered = vec!["nap".to_owned(), "rest".to_owned()];
    assert_eq!(error, RequestError::UnknownTask { task: "nop".into(), offered, timeout: 60 * SECOND });
    let text = r#"no worker has the task "nop" within 60s; the workers have ["nap", "rest"]"#;
    assert_eq!(error.to_string(), text);
    assert!(!error.may_have_run() && error.is_transient());
}

#[tokio::test(start_paused = true)]
async fn a_request_that_waits_for_too_long_at_a_worker_is_given_back_to_the_broker() {
    let broker = LocalBroker::new();
    let _worker = worker(broker.clone(), "a", &Runs::default()).await.unwrap();
    // Another period than that of the worker's checks, so that it is not always the worker's turn when the request is
    // given back.
    let executor = executor(broker.clone()).request_timeout(None).notify_period(7 * SECOND).await.unwrap();
    let _first = nap(&executor, 1, 36_000_000);
    let second = nap(&executor, 2, 1);
    sleep(SECOND).await;
    let mut other = Peer::new(&broker, "a").await;
    let given_back =
        timeout(3 * 700 * SECOND, other.next_of("REQUEST")).await.expect("RabbitMQ closes the channel");
    assert_eq!(given_back.correlation_id.as_deref(), Some(second.id()));
}

#[tokio::test(start_paused = true)]
async fn a_worker_takes_no_more_messages_than_fit_into_the_limit_of_bytes() {
    let broker = LocalBroker::new();
    let runs = Runs::default();
    let _worker = worker(broker.clone(), "a", &runs).prefetch(100).prefetch_bytes(10_000).await.unwrap();
    let executor = executor(broker.clone()).request_timeout(None).await.unwrap();
    assert!(executor.wait_for_workers("nap", 1).await);
    let padded = |number: u64| {
        let request = Request::execute("nap").argument("number", number).argument("ms", 1000);
        executor.submit(request.argument("padding", "x".repeat(3000)))
    };
    let requests: Vec<_> = (0..40).map(padded).collect();
    sleep(MS * 500).await;
    // What is not at the worker goes to another consumer, whose acknowledgement loses it.
    let mut other = Peer::new(&broker, "a").await;
    let mut elsewhere = 0;
    while let Ok(message) = timeout(MS, other.next()).await {
        elsewhere += usize::from(message.kind.as_deref() == Some("REQUEST"));
    }
    drop(other);
    assert!((30..40).contains(&elsewhere), "{elsewhere} of 40 are not at the worker");
    // All run in the end, and an idle worker takes many again.
    for request in requests {
        end_of(request, 200 * SECOND).await.unwrap();
    }
    assert!(runs.lock().unwrap().values().all(|topics| topics.len() == 1));
}
