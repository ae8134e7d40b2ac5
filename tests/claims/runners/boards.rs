use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use apportion::{
    backend::Error as BackendError,
    board::{BoardError, JobBoard, JobState},
    run::{Counts, Failure, JobTask},
};
use serde_json::{Value, json};

use super::{BOUND, Crowd, Log, Run, panic_quietly};
use crate::support::{
    MS, SECOND, eventually,
    fate::{Fate, Fates},
    fleet::{Agent, Store, exists, on_both_backends, znode},
    until,
};

fn place(store: &Store) -> String {
    format!("/runner/{}", store.namespace)
}

async fn board(store: &Store, agent: &Agent) -> JobBoard {
    let opening = agent.coordinator.job_board(place(store)).pauses(20 * MS, 40 * MS);
    opening.await.unwrap()
}

async fn worker(store: &Store, id: &str) -> (Agent, JobBoard) {
    let agent = store.agent(id).await;
    let board = board(store, &agent).await;
    (agent, board)
}

async fn one_job_that_always_fails_goes_to_the_trash_and_the_others_are_done(store: Store) {
    let (_a, board) = worker(&store, "a").await;
    board.post("poison").await.unwrap();
    for number in 0..50 {
        board.post("good").details(json!({ "number": number })).await.unwrap();
    }
    let log = Log::default();
    let (good, poison) = (log.clone(), log.clone());
    let mut run = Run::start(|stopped| {
        let run = board.run().on("good", move |job: JobTask| {
            let log = good.clone();
            async move {
                log.note(job.details()["number"].to_string());
                Ok::<_, Failure>(())
            }
        });
        let run = run.on("poison", move |job| {
            let log = poison.clone();
            async move {
                log.note(format!("poison {} {:?}", job.attempt(), job.last_error()));
                match job.attempt() {
                    1 => Err(Failure::new("first")),
                    2 => panic_quietly("second"),
                    _ => Err("third".into()),
                }
            }
        });
        run.concurrency(4).max_attempts(3).until(stopped)
    });
    let is_empty = || async { board.is_empty().await.unwrap().then_some(()) };
    eventually("all have ended", BOUND, is_empty).await;
    let counts = run.stop().await.unwrap();
    let Counts { finished, failed, given_back, given_up, lost, .. } = counts;
    assert_eq!((finished, failed, given_back, given_up, lost), (50, 3, 2, 1, 0));
    assert!((0..50).all(|number| log.has(&number.to_string()) == 1), "each once");
    let expected = ["poison 1 None", r#"poison 2 Some("first")"#, r#"poison 3 Some("it panicked: second")"#];
    assert!(expected.iter().all(|what| log.has(what) == 1), "{log:?}");
    let trashed = board.trashed().await.unwrap();
    assert_eq!(
        (trashed.len(), trashed[0].attempts, trashed[0].reason.as_deref()),
        (1, Some(3), Some("third"))
    );
}

async fn jobs_without_a_handler_stay_on_the_board(store: Store) {
    let (_a, board) = worker(&store, "a").await;
    let other = board.post("other").await.unwrap();
    board.post("mine").await.unwrap();
    let mut run = Run::start(|stopped| board.run().on("mine", async |_| Ok::<_, Failure>(())).until(stopped));
    eventually("mine is done", BOUND, || async { (board.len().await.unwrap() == 1).then_some(()) }).await;
    assert_eq!(run.stop().await.unwrap().finished, 1);
    assert_eq!(board.state(&other).await.unwrap(), JobState::Unclaimed);
    let mut run = Run::start(|stopped| board.run().otherwise(async |_| Ok::<_, String>(7)).until(stopped));
    eventually("all done", BOUND, || async { board.is_empty().await.unwrap().then_some(()) }).await;
    assert_eq!(run.stop().await.unwrap().finished, 1);
}

async fn while_it_runs_it_is_registered_as_a_conductor(store: Store) {
    let (_a, board) = worker(&store, "a").await;
    let mut run = Run::start(|stopped| board.run().name("lonely").until(stopped));
    let folder = board.path().parent().unwrap().join(".entities").unwrap().join("conductor").unwrap();
    let session = store.session().await;
    // Other tests have runners beside it.
    let names = || async {
        session.sync(&folder).await.unwrap();
        let names = session.children(&folder).await.map(|(names, _)| names).unwrap_or_default();
        names.into_iter().filter(|name| name.starts_with("lonely@")).collect::<Vec<_>>()
    };
    let registered = || async { names().await.pop() };
    let name = eventually("registered", BOUND, registered).await;
    let pid = std::process::id();
    assert!(name.ends_with(&format!(":{pid}")), "{name}");
    let entity: Value =
        serde_json::from_slice(&znode(&*session, &folder.join(&name).unwrap()).await.0).unwrap();
    assert_eq!((&entity["kind"], &entity["metadata"]["pid"]), (&json!("conductor"), &json!(pid)));
    run.stop().await.unwrap();
    session.sync(&folder).await.unwrap();
    assert!(!exists(&*session, &folder.join(&name).unwrap()).await, "it is gone when the runner returns");

    let mut run = Run::start(|stopped| board.run().name("lonely").until(stopped));
    eventually("again", BOUND, registered).await;
    run.task.shutdown().await;
    eventually("gone, if it is dropped", BOUND, || async { names().await.is_empty().then_some(()) }).await;
}

/// Its session ends in mid-run: another worker may have the job, and the runner goes on in the next session.
async fn a_handler_whose_lease_is_lost_is_dropped_and_the_job_is_done_again(store: Store) {
    let (a, board) = worker(&store, "a").await;
    board.post("x").await.unwrap();
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |job: JobTask| {
            let log = log.clone();
            async move {
                log.note(format!("attempt {}", job.attempt()));
                if job.attempt() == 1 {
                    std::future::pending::<()>().await;
                }
                log.note("done");
                Ok::<_, Failure>(())
            }
        }
    };
    let mut run = Run::start(|stopped| board.run().otherwise(handler).until(stopped));
    until("it works", BOUND, || log.has("attempt 1") == 1).await;
    a.expire(&store).await;
    until("done in the next session", BOUND, || log.has("done") == 1).await;
    eventually("off the board", BOUND, || async { (board.len().await.ok()? == 0).then_some(()) }).await;
    let counts = run.stop().await.unwrap();
    assert_eq!((counts.finished, counts.lost, counts.failed), (1, 1, 0));
}

on_both_backends!(
    one_job_that_always_fails_goes_to_the_trash_and_the_others_are_done,
    jobs_without_a_handler_stay_on_the_board,
    while_it_runs_it_is_registered_as_a_conductor,
    a_handler_whose_lease_is_lost_is_dropped_and_the_job_is_done_again,
);

#[tokio::test(start_paused = true)]
async fn one_poison_job_among_a_thousand_delays_no_other() {
    let store = Store::memory();
    let mut took = Vec::new();
    for poison in [0, 1] {
        let agent = store.agent(&format!("a{poison}")).await;
        let board = agent.coordinator.job_board(format!("/poison{poison}/jobs")).await.unwrap();
        for _ in 0..poison {
            board.post("poison").await.unwrap();
        }
        for _ in 0..1000 {
            board.post("good").await.unwrap();
        }
        let done = Arc::new(AtomicUsize::new(0));
        let counter = done.clone();
        let handler = move |job: JobTask| {
            let done = counter.clone();
            async move {
                tokio::time::sleep(10 * MS).await;
                if job.name() == "poison" {
                    return Err("always");
                }
                done.fetch_add(1, SeqCst);
                Ok(())
            }
        };
        #[expect(clippy::disallowed_methods, reason = "on the paused clock")]
        let start = tokio::time::Instant::now();
        let mut run = Run::start(|stopped| {
            board.run().otherwise(handler).concurrency(4).max_attempts(3).until(stopped)
        });
        until("the good ones are done", BOUND, || done.load(SeqCst) == 1000).await;
        took.push(start.elapsed().as_secs_f64());
        eventually("all have ended", BOUND, || async { board.is_empty().await.unwrap().then_some(()) }).await;
        let counts = run.stop().await.unwrap();
        assert_eq!((counts.finished, counts.given_up, counts.failed), (1000, poison, 3 * poison));
        let trashed = board.trashed().await.unwrap();
        assert!(
            trashed.iter().all(|it| it.reason.as_deref() == Some("always")) && trashed.len() as u64 == poison
        );
    }
    assert!(took[1] <= 1.1 * took[0], "{took:?}");
}

/// Runs one job named `job` with this handler until it has begun, and stops the runner. Returns the counts and the board.
async fn stopped_in_mid_run<F, T>(drain: Duration, handler: F) -> (Counts, JobBoard, Agent)
where
    F: Fn(JobTask) -> T + Send + Sync + 'static,
    T: Future<Output = Result<(), Failure>> + Send + 'static,
{
    let store = Store::memory();
    let (agent, board) = worker(&store, "a").await;
    board.post("job").await.unwrap();
    let log = Log::default();
    let began = log.clone();
    let mut run = Run::start(|stopped| {
        let handler = move |job| {
            began.note("began");
            handler(job)
        };
        board.run().otherwise(handler).drain(drain).until(stopped)
    });
    until("it has begun", BOUND, || log.len() == 1).await;
    let counts = run.stop().await.unwrap();
    (counts, board, agent)
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_finish_its_job_when_the_runner_ends() {
    let (counts, board, _a) = stopped_in_mid_run(10 * SECOND, |job| async move {
        job.stopping().await;
        assert!(job.is_stopping());
        tokio::time::sleep(5 * SECOND).await;
        Ok(())
    })
    .await;
    assert_eq!((counts.finished, counts.given_back, board.len().await.unwrap()), (1, 0, 0));
}

#[tokio::test(start_paused = true)]
async fn what_is_interrupted_by_the_end_does_not_count_as_an_attempt() {
    let returns = stopped_in_mid_run(10 * SECOND, |job| async move {
        job.stopping().await;
        Err(Failure::interrupted("the process ends"))
    })
    .await;
    let ignores = stopped_in_mid_run(SECOND, |_| std::future::pending()).await;
    for (counts, board, _agent) in [returns, ignores] {
        assert_eq!((counts.given_back, counts.finished, counts.stuck), (1, 0, 0));
        let claim = board.claim_next().await.unwrap();
        assert_eq!(claim.attempt(), 1);
        claim.consume().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_handler_that_blocks_its_thread_does_not_keep_the_others_waiting() {
    let store = Store::memory();
    let (_a, board) = worker(&store, "a").await;
    board.post("blocks").await.unwrap();
    for _ in 0..20 {
        board.post("good").await.unwrap();
    }
    let (release, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (release, done) = (release.clone(), done.clone());
        move |job: JobTask| {
            let (release, done) = (release.clone(), done.clone());
            async move {
                if job.name() == "blocks" {
                    while !release.load(SeqCst) {
                        std::thread::sleep(MS);
                    }
                }
                done.fetch_add(1, SeqCst);
                Ok::<_, Failure>(())
            }
        }
    };
    let mut run =
        Run::start(|stopped| board.run().otherwise(handler).concurrency(2).drain(100 * MS).until(stopped));
    until("the others are done", BOUND, || done.load(SeqCst) == 20).await;
    // It waits some seconds for what it ends by force.
    let counts = run.stop().await.unwrap();
    assert_eq!((counts.finished, counts.stuck), (20, 1));
    release.store(true, SeqCst);
    until("it has returned", BOUND, || done.load(SeqCst) == 21).await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_store_does_not_end_the_runner_and_its_end_does() {
    let store = Store::memory();
    let (a, board) = worker(&store, "a").await;
    let log = Log::default();
    let handler = {
        let log = log.clone();
        move |_: JobTask| {
            log.note("done");
            async { Ok::<_, Failure>(()) }
        }
    };
    let mut run = Run::start(|stopped| board.run().otherwise(handler).until(stopped));
    board.post("first").await.unwrap();
    until("done", BOUND, || log.len() == 1).await;
    a.suspend();
    tokio::time::sleep(store.session_timeout * 3).await;
    store.ensemble().resume(a.coordinator.session_id().unwrap_or(store.session().await.id()));
    let (_b, theirs) = worker(&store, "b").await;
    theirs.post("second").await.unwrap();
    until("it goes on", BOUND, || log.len() == 2).await;
    a.coordinator.shutdown().await.unwrap();
    let ended = run.ended().await;
    assert!(ended.as_ref().is_err_and(BoardError::is_closed), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_store_that_denies_permission_ends_the_runner_with_that_error() {
    let store = Store::memory();
    let (a, board) = worker(&store, "a").await;
    let (_b, theirs) = worker(&store, "b").await;
    let mut run = Run::start(|stopped| board.run().otherwise(async |_| Ok::<_, Failure>(())).until(stopped));
    a.faults().deny(board.path());
    theirs.post("x").await.unwrap();
    let ended = run.ended().await;
    assert!(matches!(ended, Err(BoardError::Service(apportion::Error::NotPermitted { .. }))), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_board_on_which_no_locks_may_be_made_ends_the_runner_and_is_named() {
    let store = Store::memory();
    let (connector, fates) = Fates::on(store.ensemble());
    let coordinator = store.connect(connector, "a").await;
    let board = coordinator.job_board(place(&store)).await.unwrap();
    board.post("x").await.unwrap();
    fates.decide(|request| {
        let is_lock = request.paths().iter().any(|path| path.as_str().ends_with(".lock"));
        if is_lock && request.is_write() { Fate::Refuse(BackendError::NotPermitted) } else { Fate::Pass }
    });
    let mut run = Run::start(|stopped| board.run().otherwise(async |_| Ok::<_, Failure>(())).until(stopped));
    let ended = run.ended().await;
    let Err(BoardError::Service(apportion::Error::NotPermitted { path })) = ended else {
        panic!("{ended:?}")
    };
    assert_eq!(path, board.path().as_str());
}

#[tokio::test(start_paused = true)]
async fn a_store_that_denies_the_end_of_a_job_ends_the_runner_with_that_error() {
    let store = Store::memory();
    let (a, board) = worker(&store, "a").await;
    board.post("x").await.unwrap();
    let faults = a.faults().clone();
    let handler = move |job: JobTask| {
        faults.deny(job.path());
        async { Ok::<_, Failure>(()) }
    };
    let mut run = Run::start(|stopped| board.run().otherwise(handler).until(stopped));
    let ended = run.ended().await;
    assert!(matches!(ended, Err(BoardError::Service(apportion::Error::NotPermitted { .. }))), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_worker_died_in_its_last_attempt_is_not_begun_again() {
    let store = Store::memory();
    let (_a, board) = worker(&store, "a").await;
    board.post("x").await.unwrap();
    for _ in 0..2 {
        drop(board.claim_next().await.unwrap());
    }
    let log = Log::default();
    let noting = log.clone();
    let handler = move |job: JobTask| {
        noting.note(format!("attempt {}", job.attempt()));
        async { Ok::<_, Failure>(()) }
    };
    let mut run = Run::start(|stopped| board.run().otherwise(handler).max_attempts(2).until(stopped));
    eventually("off the board", BOUND, || async { board.is_empty().await.unwrap().then_some(()) }).await;
    assert_eq!((run.stop().await.unwrap().given_up, log.len()), (1, 0));
    assert_eq!(board.trashed().await.unwrap()[0].attempts, Some(2));
}

/// The store is away when the runner ends: it does not wait until the session ends as well.
#[tokio::test(start_paused = true)]
async fn the_end_of_a_runner_does_not_wait_for_a_store_that_is_away() {
    let store = Store::memory();
    let (a, board) = worker(&store, "a").await;
    let folder = board.path().parent().unwrap().join(".entities").unwrap().join("conductor").unwrap();
    let session = store.session().await;
    let count = || async { session.children(&folder).await.map_or(0, |(names, _)| names.len()) };
    let mut run = Run::start(|stopped| board.run().otherwise(async |_| Ok::<_, Failure>(())).until(stopped));
    eventually("registered", BOUND, || async { (count().await == 1).then_some(()) }).await;
    let id = a.coordinator.session_id();
    a.suspend();
    let ended = tokio::time::timeout(1500 * MS, run.stop()).await.expect("it does not wait").unwrap();
    assert_eq!(ended.stuck, 0);
    assert_eq!(count().await, 1, "the store was away");
    a.resume();
    eventually("unregistered in the background", BOUND, || async { (count().await == 0).then_some(()) })
        .await;
    assert_eq!(a.coordinator.session_id(), id, "by this process, in the same session");
}

#[tokio::test(start_paused = true)]
async fn as_many_jobs_are_done_at_the_same_time_as_allowed_and_no_more() {
    let store = Store::memory();
    let (_a, board) = worker(&store, "a").await;
    for _ in 0..20 {
        board.post("x").await.unwrap();
    }
    let crowd = Crowd::default();
    let entering = crowd.clone();
    let handler = move |_: JobTask| entering.clone().work();
    let mut run = Run::start(|stopped| board.run().otherwise(handler).concurrency(4).until(stopped));
    crowd.is_always(4, 20).await;
    let is_empty = || async { board.is_empty().await.unwrap().then_some(()) };
    eventually("all are done", BOUND, is_empty).await;
    assert_eq!(run.stop().await.unwrap().finished, 20);
}

#[tokio::test(start_paused = true)]
async fn a_failure_says_what_follows() {
    let store = Store::memory();
    let (_a, board) = worker(&store, "a").await;
    board.post("malformed").await.unwrap();
    board.post("later").await.unwrap();
    let log = Log::default();
    let noting = log.clone();
    let handler = move |job: JobTask| {
        noting.note(job.name());
        async move {
            Err::<(), _>(match &*job.name() {
                "malformed" => Failure::permanent("not a volume"),
                _ => Failure::new("busy").after(3600 * SECOND),
            })
        }
    };
    let mut run = Run::start(|stopped| board.run().otherwise(handler).max_attempts(9).until(stopped));
    until("both have failed", BOUND, || log.len() == 2).await;
    tokio::time::sleep(1000 * SECOND).await;
    assert_eq!(log.len(), 2);
    let counts = run.stop().await.unwrap();
    assert_eq!((counts.given_up, counts.given_back, counts.failed), (1, 1, 2));
    assert_eq!(board.trashed().await.unwrap()[0].reason.as_deref(), Some("not a volume"));
}

#[tokio::test(start_paused = true)]
async fn a_runner_that_is_dropped_gives_its_jobs_back() {
    let store = Store::memory();
    let (_a, board) = worker(&store, "a").await;
    for _ in 0..3 {
        board.post("x").await.unwrap();
    }
    let log = Log::default();
    let noting = log.clone();
    let handler = move |_: JobTask| {
        noting.note("began");
        std::future::pending::<Result<(), Failure>>()
    };
    let mut run = Run::start(|stopped| board.run().otherwise(handler).concurrency(3).until(stopped));
    until("all have begun", BOUND, || log.len() == 3).await;
    run.task.shutdown().await;
    for _ in 0..3 {
        let claim = tokio::time::timeout(BOUND, board.claim_next()).await.expect("it is free").unwrap();
        assert_eq!(claim.attempt(), 1, "the end of the runner is no attempt");
        claim.consume().await.unwrap();
    }
}

/// The layers of a service apply: one that takes too long has failed, and not more are run than it allows.
#[cfg(feature = "tower")]
#[tokio::test(start_paused = true)]
async fn a_service_is_a_handler_with_its_layers() {
    use apportion::run::service;
    use tower::ServiceBuilder;

    let store = Store::memory();
    let (_a, board) = worker(&store, "a").await;
    board.post("slow").await.unwrap();
    for _ in 0..30 {
        board.post("good").await.unwrap();
    }
    let log = Log::default();
    let noting = log.clone();
    let work = move |job: JobTask| {
        let log = noting.clone();
        async move {
            if job.name() == "slow" {
                std::future::pending::<()>().await;
            }
            log.note("done");
            Ok::<_, Failure>(())
        }
    };
    let handler = ServiceBuilder::new().rate_limit(10, SECOND).timeout(2 * SECOND).service_fn(move |job| {
        let work = work(job);
        async { work.await.map_err(|failure| failure.to_string()) }
    });
    let mut run = Run::start(|stopped| {
        board.run().otherwise(service(handler)).concurrency(8).max_attempts(1).until(stopped)
    });
    tokio::time::sleep(900 * MS).await;
    assert!((8..=10).contains(&log.len()), "{} in the first second", log.len());
    eventually("all have ended", BOUND, || async { board.is_empty().await.unwrap().then_some(()) }).await;
    let counts = run.stop().await.unwrap();
    assert_eq!((counts.finished, counts.given_up), (30, 1));
    let reason = board.trashed().await.unwrap()[0].reason.clone().unwrap();
    assert!(reason.contains("timed out"), "{reason}");
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_interrupted_again_and_again_waits_and_lets_the_others_be_done() {
    let store = Store::memory();
    let (_a, board) = worker(&store, "a").await;
    for name in ["interrupted", "good", "good"] {
        board.post(name).await.unwrap();
    }
    let (tries, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let handler = {
        let (tries, done) = (tries.clone(), done.clone());
        move |job: JobTask| {
            let (tries, done) = (tries.clone(), done.clone());
            async move {
                if job.name() == "good" {
                    done.fetch_add(1, SeqCst);
                    return Ok(());
                }
                assert_eq!(job.attempt(), 1);
                tries.fetch_add(1, SeqCst);
                Err(Failure::interrupted("what it needs is away"))
            }
        }
    };
    let mut run = Run::start(|stopped| board.run().otherwise(handler).until(stopped));
    until("the others are done", 5 * SECOND, || done.load(SeqCst) == 2).await;
    let before = tries.load(SeqCst);
    tokio::time::sleep(10 * SECOND).await;
    let tries = tries.load(SeqCst) - before;
    assert!((5..=10).contains(&tries), "{tries} tries in 10 s");
    assert_eq!(run.stop().await.unwrap().finished, 2);
}
