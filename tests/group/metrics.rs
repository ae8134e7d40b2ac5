//! What is counted and measured, as a recorder gets it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use apportion::{
    Config, Executor, PartitionCoordinator, Worker,
    backend::{BoxFuture, Memory},
    metrics::{Kind, METRICS},
    run::{self, JobTask, KeyTask},
    worker::{Arguments, Context, Failure, LocalBroker, Request},
};
use metrics::{Unit, with_local_recorder};
use metrics_util::{
    MetricKind,
    debugging::{DebugValue, DebuggingRecorder},
};
use serde_json::Value;
use tokio::task::JoinSet;

use crate::support::{SECOND, eventually, soon};

const DOCUMENT: &str = include_str!("../../docs/metrics.md");

/// What one run has sent to the recorder: by name and labels, the kind and the value (of a histogram, all of them).
type Sent = BTreeMap<(String, Vec<(String, String)>), (Kind, Vec<f64>)>;

/// Runs `work` on a paused clock, with a recorder of its own. Each metric that is sent is described.
fn sent_by<F: Future<Output = ()>>(work: F) -> Sent {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    with_local_recorder(&recorder, || runtime.block_on(work));
    let sent = snapshotter.snapshot().into_vec().into_iter().map(|(key, unit, help, value)| {
        let (kind, value) = match (key.kind(), value) {
            (MetricKind::Counter, DebugValue::Counter(count)) => (Kind::Counter, vec![count as f64]),
            (MetricKind::Gauge, DebugValue::Gauge(value)) => (Kind::Gauge, vec![value.into_inner()]),
            (MetricKind::Histogram, DebugValue::Histogram(values)) => {
                (Kind::Histogram, values.iter().map(|value| **value).collect())
            }
            other => panic!("{other:?}"),
        };
        let listed = METRICS.iter().find(|metric| metric.name == key.key().name());
        let listed = listed.unwrap_or_else(|| panic!("{key:?} is not in the list"));
        assert_eq!((listed.kind, Some(listed.help)), (kind, help.as_deref()), "{key:?}");
        assert_eq!(unit, (listed.unit == "seconds").then_some(Unit::Seconds), "{key:?}");
        let labels = key.key().labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
        ((key.key().name().to_owned(), labels.collect()), (kind, value))
    });
    sent.collect()
}

/// The value of a metric with these values of its labels.
#[track_caller]
fn value(sent: &Sent, name: &str, labels: &[&str]) -> f64 {
    let [value] = values(sent, name, labels)[..] else { panic!("{name} {labels:?}") };
    value
}

/// All values of a histogram.
#[track_caller]
fn values<'a>(sent: &'a Sent, name: &str, labels: &[&str]) -> &'a [f64] {
    let is_it = |key: &(String, Vec<(String, String)>)| {
        key.0 == name && key.1.iter().map(|(_, value)| &**value).eq(labels.iter().copied())
    };
    let found = sent.iter().find(|(key, _)| is_it(key));
    found.unwrap_or_else(|| panic!("{name} {labels:?} was not sent: {sent:#?}")).1.1.as_slice()
}

/// Whether these are durations of so many seconds, but for what the timers round.
#[track_caller]
fn assert_seconds(durations: &[f64], expected: &[f64]) {
    let mut durations = durations.to_vec();
    durations.sort_by(f64::total_cmp);
    let is_so = |(is, expected): (&f64, &f64)| (0.0..0.1).contains(&(is - expected));
    let are_so = durations.len() == expected.len() && durations.iter().zip(expected).all(is_so);
    assert!(are_so, "{durations:?} instead of {expected:?}");
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
    let claim = board.claim_next().await.unwrap();
    tokio::time::sleep(2 * SECOND).await;
    claim.consume().await.unwrap();
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
    drop(executor.submit(Request::execute("unknown")));
    tokio::time::sleep(SECOND).await;
}

/// Each end of a task, and of an attempt, that needs no blocked thread.
async fn runners() {
    let memory = Memory::new();
    let a = member(&memory, "a").await;
    let group = a.join("g").await.unwrap();
    let keys = ["finishes", "fails", "stops", "ignores"].map(String::from);
    let task = |key: KeyTask<String>| async move {
        match &**key {
            "finishes" => Ok(()),
            "fails" => Err(run::Failure::permanent("for a test")),
            "stops" => {
                key.stopping().await;
                Err(run::Failure::interrupted("for a test"))
            }
            _ => std::future::pending().await,
        }
    };
    let tasks = group.run_each(&keys, task).drain(SECOND).until(tokio::time::sleep(SECOND));
    let counts = tasks.await.unwrap();
    assert_eq!((counts.finished, counts.failed, counts.interrupted, counts.forced), (1, 1, 1, 1));

    let board = a.job_board("/jobs").pauses(Duration::ZERO, Duration::ZERO).await.unwrap();
    for name in ["good", "bad", "dead"] {
        board.post(name).await.unwrap();
    }
    for _ in 0..2 {
        drop(board.claim_where(|job| job.name() == "dead").await.unwrap());
    }
    let handler = async |job: JobTask| if job.name() == "good" { Ok(()) } else { Err("for a test") };
    let jobs = board.run().otherwise(handler).max_attempts(2).until(tokio::time::sleep(SECOND));
    let counts = jobs.await.unwrap();
    assert_eq!((counts.finished, counts.failed, counts.given_up), (1, 2, 2));

    let queue = a.queue("/entries").await.unwrap();
    queue.put(1).await.unwrap();
    let handler = |_| std::future::pending::<Result<(), run::Failure>>();
    let entries = queue.run(handler).drain(SECOND).until(tokio::time::sleep(SECOND));
    assert_eq!(entries.await.unwrap().given_back, 1);
}

#[test]
fn runners_count_how_tasks_and_attempts_have_ended() {
    let sent = sent_by(runners());
    let tasks = |outcome| value(&sent, "apportion_runner_tasks_ended_total", &["g", outcome]);
    assert_eq!(["finished", "failed", "interrupted", "forced"].map(tasks), [1.0; 4]);
    let attempts = |path, outcome| value(&sent, "apportion_runner_attempts_total", &[path, outcome]);
    assert_eq!(["finished", "failed", "overdue"].map(|outcome| attempts("/jobs", outcome)), [1.0, 2.0, 1.0]);
    assert_eq!(attempts("/entries", "interrupted"), 1.0);
    assert_eq!(value(&sent, "apportion_board_ended_total", &["/jobs", "abandoned"]), 1.0);
}

/// Everything that has a gauge, at work.
struct AtWork {
    a: PartitionCoordinator,
    b: PartitionCoordinator,
    _kept: Box<dyn std::any::Any + Send>,
}

impl AtWork {
    async fn new() -> AtWork {
        let memory = Memory::new();
        let (a, b) = (member(&memory, "a").await, member(&memory, "b").await);
        let (first, paused) = (a.join("g").await.unwrap(), a.join("paused").await.unwrap());
        let items: Vec<_> = first.extract_my_subset(0..100).await.unwrap().into_iter().collect();
        paused.pause().await.unwrap();
        let second = b.join("g").await.unwrap();
        while second.status().waiting.is_empty() || !paused.status().is_paused || first.status().kept == 0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let board = a.job_board("/jobs").await.unwrap();
        board.post("one").await.unwrap();
        let claim = board.claim_next().await.unwrap();
        board.post("two").await.unwrap();
        board.post("three").delay(3600 * SECOND).await.unwrap();
        let queue = a.queue("/entries").await.unwrap();
        queue.put(1).await.unwrap();
        queue.put(2).await.unwrap();
        queue.put(3).delay(3600 * SECOND).await.unwrap();
        let mut tasks = JoinSet::new();
        let each = paused.run_each(["key".to_string()], |_| std::future::pending::<()>());
        tasks.spawn(async move { drop(each.await) });
        let handler = |_| std::future::pending::<Result<(), run::Failure>>();
        let jobs = a.job_board("/handled").await.unwrap();
        jobs.post("one").await.unwrap();
        let jobs = jobs.run().otherwise(handler);
        tasks.spawn(async move { drop(jobs.await) });
        let broker = LocalBroker::new();
        let worker = Worker::builder(broker.clone()).topic("images").concurrency(1).task("resize", resize);
        let worker = worker.await.unwrap();
        let executor = Executor::builder(broker).topics(["images"]).await.unwrap();
        let requests =
            [1, 2].map(|width| executor.submit(Request::execute("resize").argument("width", width)));
        // Within the three seconds of the first request.
        tokio::time::sleep(2 * SECOND).await;
        let work = (first, second, items, board, claim, queue);
        let _kept = Box::new((work, paused, tasks, worker, executor, requests));
        AtWork { a, b, _kept }
    }
}

#[test]
fn each_gauge_shows_what_is_there() {
    let sent = sent_by(async {
        let it = AtWork::new().await;
        it.a.record_metrics();
    });
    let gauge = |name: &str, labels: &[&str]| value(&sent, &format!("apportion_{name}"), labels);
    assert_eq!(gauge("session_state", &["connected"]), 1.0);
    assert!(gauge("session_valid_until_timestamp_seconds", &[]) > 0.0);
    assert_eq!(gauge("group_standing", &["g", "member"]), 1.0);
    assert_eq!((gauge("group_members", &["g"]), gauge("group_items_in_progress", &["g"])), (2.0, 100.0));
    assert!(gauge("group_epoch", &["g"]) >= 2.0 && gauge("group_kept_ranges", &["g"]) >= 1.0);
    assert_eq!(["g", "paused"].map(|group| gauge("group_paused", &[group])), [0.0, 1.0]);
    let (owned, startable) = (gauge("group_owned_ratio", &["g"]), gauge("group_startable_ratio", &["g"]));
    assert!((0.2..0.8).contains(&owned) && (0.0..=owned).contains(&startable), "{owned} {startable}");
    let jobs = |state| gauge("board_jobs", &["/jobs", state]);
    assert_eq!(["unclaimed", "delayed", "claimed", "set_aside"].map(jobs), [1.0, 1.0, 1.0, 0.0]);
    assert_eq!(["waiting", "delayed"].map(|state| gauge("queue_entries", &["/entries", state])), [2.0, 1.0]);
    assert_eq!((gauge("runner_tasks", &["paused"]), gauge("runner_handlers", &["/handled"])), (1.0, 1.0));
    assert_eq!(
        ["running", "waiting"].map(|state| gauge("worker_open_requests", &["images", state])),
        [1.0; 2]
    );
    let open = |state| gauge("executor_open_requests", &[state]);
    assert_eq!(["running", "pending", "waiting"].map(open), [1.0, 1.0, 0.0]);
}

#[test]
fn a_member_shows_for_how_many_it_waits_and_why() {
    let sent = sent_by(async {
        let it = AtWork::new().await;
        it.b.record_metrics();
    });
    let waiting = |why| value(&sent, "apportion_group_waiting_members", &["g", why]);
    assert_eq!(["still_at_work", "not_acknowledged", "gone", "plain"].map(waiting), [1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn a_session_whose_connection_is_down_is_suspended() {
    let sent = sent_by(async {
        let memory = Memory::new();
        let a = member(&memory, "a").await;
        memory.suspend(a.session_id().unwrap());
        tokio::time::sleep(Duration::from_millis(100)).await;
        a.record_metrics();
    });
    let state = |state| value(&sent, "apportion_session_state", &[state]);
    assert_eq!(["suspended", "connected", "opening", "closed"].map(state), [1.0, 0.0, 0.0, 0.0]);
}

#[test]
fn what_has_ended_leaves_no_gauge_behind() {
    let ways: [fn(AtWork) -> BoxFuture<'static, ()>; 2] = [
        // The handles go first, and then the coordinators without a word.
        |it| {
            Box::pin(async move {
                drop(it._kept);
                tokio::time::sleep(5 * SECOND).await;
                drop((it.a, it.b));
            })
        },
        // The handles are still there.
        |it| {
            Box::pin(async move {
                it.a.shutdown().await.unwrap();
                it.b.shutdown().await.unwrap();
                tokio::time::sleep(5 * SECOND).await;
                it.a.record_metrics();
                drop(it._kept);
            })
        },
    ];
    let mut left = Vec::new();
    for (number, end) in ways.into_iter().enumerate() {
        let sent = sent_by(async {
            end(AtWork::new().await).await;
            tokio::time::sleep(5 * SECOND).await;
        });
        for ((name, labels), (kind, values)) in sent {
            let stays = name == "apportion_session_valid_until_timestamp_seconds";
            let is_end = labels.iter().any(|(_, value)| value == "left" || value == "closed");
            if kind == Kind::Gauge && !stays && values != [f64::from(u8::from(is_end))] {
                left.push((number, name, labels, values));
            }
        }
    }
    assert!(left.is_empty(), "{left:#?}");
}

#[test]
fn a_change_of_a_board_is_in_its_gauges_with_the_next_listing() {
    let posted = async |wait: Duration| {
        let memory = Memory::new();
        let a = member(&memory, "a").await;
        let board = a.job_board("/jobs").await.unwrap();
        tokio::time::sleep(5 * SECOND).await;
        // Counting the delayed jobs after each change would take longer the more there are.
        board.post("later").delay(3600 * SECOND).await.unwrap();
        tokio::time::sleep(wait).await;
    };
    let delayed = |sent: Sent| value(&sent, "apportion_board_jobs", &["/jobs", "delayed"]);
    assert_eq!(delayed(sent_by(posted(Duration::ZERO))), 0.0);
    assert_eq!(delayed(sent_by(posted(2 * SECOND))), 1.0);
}

#[test]
fn requests_are_counted_by_outcome_and_their_times_are_in_seconds() {
    let sent = sent_by(requests());
    let executor = |outcome| value(&sent, "apportion_executor_requests_total", &[outcome]);
    assert_eq!(["success", "failed", "dropped"].map(executor), [1.0; 3]);
    let worker = |outcome| value(&sent, "apportion_worker_requests_total", &["images", "resize", outcome]);
    assert_eq!(["success", "failure"].map(worker), [1.0; 2]);
    let labels = ["images", "resize"];
    assert_seconds(values(&sent, "apportion_worker_queue_seconds", &labels), &[0.0, 3.0]);
    assert_seconds(values(&sent, "apportion_worker_run_seconds", &labels), &[3.0, 3.0]);
    assert_seconds(values(&sent, "apportion_executor_queue_seconds", &[]), &[0.0, 3.0]);
    assert_seconds(values(&sent, "apportion_executor_run_seconds", &[]), &[3.0, 3.0]);
}

/// In `OpenMetrics` a family has its name without `_total`, and one type.
#[test]
fn no_two_metrics_are_of_one_family() {
    let families: BTreeSet<_> = METRICS.iter().map(|metric| metric.name.trim_end_matches("_total")).collect();
    assert_eq!(families.len(), METRICS.len());
}

#[test]
fn every_metric_that_is_sent_is_in_the_list_and_every_one_of_the_list_is_sent() {
    let mut sent = sent_by(groups());
    sent.extend(sent_by(claims()));
    sent.extend(sent_by(requests()));
    sent.extend(sent_by(runners()));
    for (name, labels) in sent.keys() {
        let listed = METRICS.iter().find(|metric| metric.name == name).expect("it was found before");
        assert!(
            labels.iter().map(|(label, _)| &**label).eq(listed.labels.iter().copied()),
            "{name} {labels:?}"
        );
        for (label, value) in labels {
            let is_name = ["group", "board", "queue", "path", "topic", "task"].contains(&&**label);
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
    assert_seconds(values(&sent, "apportion_board_held_seconds", &["/jobs", "consumed"]), &[2.0]);
    assert_seconds(values(&sent, "apportion_queue_held_seconds", &["/entries", "done"]), &[0.0, 0.0]);
}

#[test]
fn an_entry_whose_worker_has_died_with_its_last_attempt_is_counted_as_dead() {
    let sent = sent_by(async {
        let memory = Memory::new();
        let (a, b) = (member(&memory, "a").await, member(&memory, "b").await);
        let queue = a.queue("/entries").max_attempts(1).await.unwrap();
        queue.put("poison").await.unwrap();
        let theirs = b.queue("/entries").max_attempts(1).await.unwrap();
        let _delivery = theirs.take().await.unwrap();
        memory.expire(b.session_id().unwrap());
        let dead = || async { (queue.dead_letters().await.unwrap().len() == 1).then_some(()) };
        eventually("it is a dead letter", 60 * SECOND, dead).await;
    });
    assert_eq!(value(&sent, "apportion_queue_ended_total", &["/entries", "dead"]), 1.0);
    assert_eq!(value(&sent, "apportion_queue_recovered_total", &["/entries"]), 1.0);
}

#[test]
fn a_group_shows_what_it_owns_and_how_long_its_handovers_took() {
    let sent = sent_by(groups());
    assert_eq!(value(&sent, "apportion_group_members", &["g"]), 2.0);
    assert_eq!(value(&sent, "apportion_group_standing", &["g", "member"]), 1.0);
    let handovers = values(&sent, "apportion_group_handover_duration_seconds", &["g", "join"]);
    let longest = handovers.iter().copied().fold(0.0, f64::max);
    assert!(
        handovers.len() >= 2 && (3.0..5.0).contains(&longest),
        "one has waited for work of 3 s: {handovers:?}"
    );
    assert_eq!(value(&sent, "apportion_session_lapses_total", &[]), 1.0);
    assert!(value(&sent, "apportion_group_joins_total", &["g"]) >= 3.0, "{sent:#?}");
    let owned = value(&sent, "apportion_group_owned_ratio", &["g"]);
    assert!((0.2..0.8).contains(&owned), "{owned}");
}
