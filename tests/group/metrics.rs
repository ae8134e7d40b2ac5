//! What is counted and measured, as a recorder gets it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use apportion::{
    Config, Executor, PartitionCoordinator, Worker,
    backend::Memory,
    metrics::{Kind, METRICS},
    worker::{Arguments, Context, Failure, LocalBroker, Request},
};
use metrics::with_local_recorder;
use metrics_util::{
    MetricKind,
    debugging::{DebugValue, DebuggingRecorder},
};
use serde_json::Value;

use crate::support::{SECOND, soon};

const DOCUMENT: &str = include_str!("../../docs/metrics.md");

/// What one run has sent to the recorder: by name and labels, the kind and the value (of a histogram, how many).
type Sent = BTreeMap<(String, Vec<(String, String)>), (Kind, f64)>;

/// Runs `work` on a paused clock, with a recorder of its own.
fn sent_by<F: Future<Output = ()>>(work: F) -> Sent {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    with_local_recorder(&recorder, || runtime.block_on(work));
    let sent = snapshotter.snapshot().into_vec().into_iter().map(|(key, _, _, value)| {
        let (kind, value) = match (key.kind(), value) {
            (MetricKind::Counter, DebugValue::Counter(count)) => (Kind::Counter, count as f64),
            (MetricKind::Gauge, DebugValue::Gauge(value)) => (Kind::Gauge, value.into_inner()),
            (MetricKind::Histogram, DebugValue::Histogram(values)) => (Kind::Histogram, values.len() as f64),
            other => panic!("{other:?}"),
        };
        let labels = key.key().labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
        ((key.key().name().to_owned(), labels.collect()), (kind, value))
    });
    sent.collect()
}

/// The value of a metric with these values of its labels.
fn value(sent: &Sent, name: &str, labels: &[&str]) -> f64 {
    let is_it = |key: &(String, Vec<(String, String)>)| {
        key.0 == name && key.1.iter().map(|(_, value)| &**value).eq(labels.iter().copied())
    };
    let found = sent.iter().find(|(key, _)| is_it(key));
    found.unwrap_or_else(|| panic!("{name} {labels:?} was not sent: {sent:#?}")).1.1
}

async fn member(memory: &Memory, id: &str) -> PartitionCoordinator {
    PartitionCoordinator::connect(Config::for_backend(memory.clone()).member_id(id)).await.unwrap()
}

/// Two members, of which one works on an item that the other one gets, and one that loses its session.
async fn groups() {
    let memory = Memory::new();
    let (a, b) = (member(&memory, "a").await, member(&memory, "b").await);
    let first = a.join("g").await.unwrap();
    let at_work: Vec<_> = first.extract_my_subset(0..100).await.unwrap().into_iter().collect();
    a.record_metrics();
    let second = b.join("g").await.unwrap();
    while second.status().waiting.is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(3 * SECOND).await;
    drop(at_work);
    while !second.status().waiting.is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let session = b.session_id().unwrap();
    memory.suspend(session);
    while b.status().obstacles().is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    while b.status().session.remaining != Some(Duration::ZERO) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    memory.expire(session);
    memory.resume(session);
    while !b.status().obstacles().is_empty() {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let late = member(&memory, "c").await.join("late").immediate().await.unwrap();
    assert_eq!(late.status().members, 1);
    a.record_metrics();
    b.record_metrics();
}

/// A board with a job whose time has not come.
async fn delayed() {
    let memory = Memory::new();
    let a = member(&memory, "a").await;
    let board = a.job_board("/later").await.unwrap();
    board.post("now").await.unwrap();
    board.post("then").delay(Duration::from_secs(3600)).await.unwrap();
    a.record_metrics();
    let status = a.status();
    assert_eq!((status.boards[0].unclaimed, status.boards[0].delayed), (1, 1));
}

#[test]
fn a_job_that_its_poster_has_delayed_is_delayed_in_the_gauges_as_in_the_status() {
    let sent = sent_by(delayed());
    let jobs = |state| value(&sent, "apportion_board_jobs", &["/later", state]);
    assert_eq!(["unclaimed", "delayed", "claimed"].map(jobs), [1.0, 1.0, 0.0]);
}

/// Each end of a claim and of a delivery once, and a worker that is gone.
async fn claims() {
    let memory = Memory::new();
    let (a, b) = (member(&memory, "a").await, member(&memory, "b").await);
    let board = a.job_board("/jobs").max_attempts(9).pauses(Duration::ZERO, Duration::ZERO).await.unwrap();
    for name in ["one", "two", "three"] {
        board.post(name).await.unwrap();
    }
    board.claim_next().await.unwrap().abandon().await.unwrap();
    board.claim_next().await.unwrap().consume().await.unwrap();
    board.claim_next().await.unwrap().trash().await.unwrap();
    let job = board.jobs().await.unwrap().into_iter().next().unwrap();
    let claim = board.claim(&job).await.unwrap();
    board.claim(&job).await.unwrap_err();
    drop(claim);
    let queue = a.queue("/entries").pauses(Duration::ZERO, Duration::ZERO).await.unwrap();
    for payload in 0..4 {
        queue.put(payload).await.unwrap();
    }
    queue.take().await.unwrap().release().await.unwrap();
    queue.take().await.unwrap().done("well").await.unwrap();
    queue.take().await.unwrap().fail("badly").await.unwrap();
    queue.take().await.unwrap().done("well").await.unwrap();
    let theirs = b.queue("/entries").await.unwrap();
    let delivery = theirs.take().await.unwrap();
    assert_eq!(delivery.attempt(), 2);
    memory.expire(b.session_id().unwrap());
    let again = queue.take().await.unwrap();
    assert_eq!(again.attempt(), 3);
    a.record_metrics();
}

async fn resize(_: Context, arguments: Arguments) -> Result<Value, Failure> {
    tokio::time::sleep(3 * SECOND).await;
    match arguments.get::<u32>("width") {
        Ok(width) => Ok(width.into()),
        Err(error) => Err(Failure::of(&error)),
    }
}

async fn requests() {
    let broker = LocalBroker::new();
    let _worker =
        Worker::builder(broker.clone()).topic("images").concurrency(1).task("resize", resize).await.unwrap();
    let executor = Executor::builder(broker).topics(["images"]).await.unwrap();
    let good = executor.submit(Request::execute("resize").argument("width", 7));
    let bad = executor.submit(Request::execute("resize"));
    soon(good).await.unwrap();
    soon(bad).await.unwrap_err();
}

#[test]
fn every_metric_that_is_sent_is_in_the_list_and_every_one_of_the_list_is_sent() {
    let mut sent = sent_by(groups());
    sent.extend(sent_by(claims()));
    sent.extend(sent_by(requests()));
    for ((name, labels), (kind, _)) in &sent {
        let listed = METRICS.iter().find(|metric| metric.name == name);
        let listed = listed.unwrap_or_else(|| panic!("{name} is not in the list"));
        assert_eq!(listed.kind, *kind, "{name}");
        assert!(
            labels.iter().map(|(label, _)| &**label).eq(listed.labels.iter().copied()),
            "{name} {labels:?}"
        );
        for (label, value) in labels {
            let is_name = ["group", "board", "queue", "topic", "task"].contains(&&**label);
            assert!(is_name || DOCUMENT.contains(&format!("`{value}`")), "{name}: {label} is {value}");
        }
    }
    let names: BTreeSet<_> = sent.keys().map(|(name, _)| &**name).collect();
    let never: Vec<_> =
        METRICS.iter().map(|metric| metric.name).filter(|name| !names.contains(name)).collect();
    assert!(never.is_empty(), "never sent: {never:?}");
}

#[test]
fn the_document_has_the_list() {
    let row = |metric: &apportion::metrics::Metric| {
        let kind = format!("{:?}", metric.kind).to_lowercase();
        let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
        format!("| `{}` | {kind} | {} | {} | {} |", metric.name, metric.unit, labels.join(", "), metric.help)
    };
    let expected: Vec<_> = METRICS.iter().map(row).collect();
    let found: Vec<_> = DOCUMENT.lines().filter(|line| line.starts_with("| `apportion_")).collect();
    assert_eq!(found, expected);
    for metric in METRICS {
        let suffix = match (metric.kind, metric.unit) {
            (Kind::Counter, _) => "_total",
            (_, "seconds") => "_seconds",
            (_, "ratio") => "_ratio",
            _ => "",
        };
        assert!(metric.name.ends_with(suffix), "{}", metric.name);
    }
}

#[test]
fn ends_of_claims_and_deliveries_are_counted_by_how_they_ended() {
    let sent = sent_by(claims());
    let board = |outcome| value(&sent, "apportion_board_ended_total", &["/jobs", outcome]);
    assert_eq!(["consumed", "abandoned", "trashed", "dropped"].map(board), [1.0; 4]);
    assert_eq!(value(&sent, "apportion_board_claims_total", &["/jobs", "claimed"]), 4.0);
    assert_eq!(value(&sent, "apportion_board_claims_total", &["/jobs", "lost"]), 1.0);
    assert_eq!(value(&sent, "apportion_board_repeated_claims_total", &["/jobs"]), 1.0);
    assert_eq!(value(&sent, "apportion_board_posted_total", &["/jobs"]), 3.0);
    let queue = |outcome| value(&sent, "apportion_queue_ended_total", &["/entries", outcome]);
    assert_eq!(["done", "failed", "released"].map(queue), [2.0, 1.0, 1.0]);
    assert_eq!(value(&sent, "apportion_queue_recovered_total", &["/entries"]), 1.0);
    assert_eq!(value(&sent, "apportion_queue_put_total", &["/entries"]), 4.0);
}

#[test]
fn a_group_shows_what_it_owns_and_how_long_its_handovers_took() {
    let sent = sent_by(groups());
    assert_eq!(value(&sent, "apportion_group_members", &["g"]), 2.0);
    assert_eq!(value(&sent, "apportion_group_standing", &["g", "member"]), 1.0);
    assert!(value(&sent, "apportion_group_handover_duration_seconds", &["g", "join"]) >= 2.0, "{sent:#?}");
    assert_eq!(value(&sent, "apportion_session_lapses_total", &[]), 1.0);
    assert!(value(&sent, "apportion_group_joins_total", &["g"]) >= 3.0, "{sent:#?}");
    let owned = value(&sent, "apportion_group_owned_ratio", &["g"]);
    assert!((0.2..0.8).contains(&owned), "{owned}");
}
