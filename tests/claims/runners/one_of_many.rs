//! What concerns one job or entry ends no runner: the others are done, and that one gets an end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use apportion::{
    PartitionCoordinator,
    backend::{CreateMode, Error, MAX_REQUEST_BYTES, Op},
    run::{EntryTask, Failure, JobTask},
    testing::Request,
};
use serde_json::json;

use super::Run;
use crate::support::{
    MS, eventually,
    fate::{Fate, Fates},
    fleet::Store,
    until,
};

const BOUND: Duration = Duration::from_secs(120);

/// A member whose server closes the connection at a request of more bytes than that.
async fn behind_a_limit(store: &Store, bytes: usize) -> PartitionCoordinator {
    let (connector, fates) = Fates::on(store.ensemble());
    fates.decide(move |request| match request {
        Request::Commit(ops) if ops.iter().map(Op::encoded_len).sum::<usize>() > bytes => {
            Fate::Refuse(Error::Unknown("the server closed the connection".into()))
        }
        _ => Fate::Pass,
    });
    store.connect(connector, "limited").await
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_leaves_no_room_for_a_reason_is_a_dead_letter_and_the_others_are_done() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let queue = agent.coordinator.queue("/reports").pauses(20 * MS, 40 * MS).await.unwrap();
    let value = format!(r#"{{"text": "{}"}}"#, "x".repeat(MAX_REQUEST_BYTES - 800));
    let folder = queue.path().join("unowned").unwrap();
    let create =
        Op::create(&folder.join("entry-900-large-").unwrap(), &*value, CreateMode::PersistentSequential);
    store.session().await.commit(vec![create]).await.unwrap();
    let mut good = Vec::new();
    for label in ["a", "b", "c"] {
        good.push(queue.put("good").label(label).await.unwrap());
    }
    let handler = |entry: EntryTask| async move {
        match entry.payload_as::<String>() {
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::new("\u{1}".repeat(1000))),
        }
    };
    let mut run = Run::start(|stopped| queue.run(handler).max_attempts(3).until(stopped));
    let dead = || async { queue.dead_letters().await.unwrap().pop() };
    let letter = eventually("it is a dead letter", BOUND, dead).await;
    assert_eq!((letter.raw(), letter.attempts()), (value.as_bytes(), 3));
    for id in &good {
        tokio::time::timeout(BOUND, queue.wait_result(id)).await.expect("it is done").unwrap();
    }
    let counts = run.stop().await.unwrap();
    assert_eq!((counts.finished, counts.given_back, counts.given_up, counts.lost), (3, 2, 1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_result_at_which_the_server_closes_the_connection_is_a_failure_and_the_others_are_done() {
    let store = Store::memory();
    let coordinator = behind_a_limit(&store, 200_000).await;
    let queue = coordinator.queue("/reports").max_attempts(2).pauses(20 * MS, 40 * MS).await.unwrap();
    let large = queue.put("large").priority(900).await.unwrap();
    let small = queue.put("small").await.unwrap();
    let handler = |entry: EntryTask| async move {
        Ok::<_, Failure>("x".repeat(if entry.payload() == Some(&json!("large")) { 300_000 } else { 1 }))
    };
    let mut run = Run::start(|stopped| queue.run(handler).until(stopped));
    let letter = tokio::time::timeout(BOUND, queue.wait_result(&large)).await.expect("it ends").unwrap();
    assert!(letter.is_dead_letter() && letter.error().unwrap().contains("too large"), "{letter:?}");
    assert_eq!(letter.attempts(), 2);
    tokio::time::timeout(BOUND, queue.wait_result(&small)).await.expect("it ends").unwrap();
    let counts = run.stop().await.unwrap();
    assert_eq!((counts.finished, counts.failed, counts.given_back, counts.lost), (1, 2, 1, 0));
    assert_eq!(counts.given_up, 1);
}

/// The job fits into a request, and does not with the reason.
#[tokio::test(start_paused = true)]
async fn a_job_that_the_server_does_not_take_with_its_reason_is_in_the_trash_without_it() {
    let store = Store::memory();
    let coordinator = behind_a_limit(&store, 200_000).await;
    let board = coordinator.job_board("/place/jobs").pauses(20 * MS, 40 * MS).await.unwrap();
    let large = json!({ "x": "x".repeat(199_000) });
    let poster = store.agent("poster").await;
    let theirs = poster.coordinator.job_board("/place/jobs").await.unwrap();
    theirs.post("large").details(large).await.unwrap();
    theirs.post("good").await.unwrap();
    let handler = |job: JobTask| async move {
        match &*job.name() {
            "large" => Err(Failure::new("\u{1}".repeat(1000))),
            _ => Ok(()),
        }
    };
    let mut run = Run::start(|stopped| board.run().otherwise(handler).max_attempts(2).until(stopped));
    let is_empty = || async { board.is_empty().await.unwrap().then_some(()) };
    eventually("both have ended", BOUND, is_empty).await;
    let counts = run.stop().await.unwrap();
    assert_eq!((counts.finished, counts.given_back, counts.given_up, counts.lost), (1, 1, 1, 0));
    let trashed = board.trashed().await.unwrap();
    assert_eq!((trashed[0].reason.as_deref(), trashed[0].attempts), (None, Some(2)));
}

/// Another user has written the record, or an operator has set a list.
#[tokio::test(start_paused = true)]
async fn a_job_whose_record_is_denied_is_tried_as_often_as_any_and_the_others_are_done() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let board = agent.coordinator.job_board("/place/jobs").pauses(1000 * MS, 1000 * MS).await.unwrap();
    board.post("bad").await.unwrap();
    board.claim_next().await.unwrap().abandon().after(Duration::ZERO).because("first").await.unwrap();
    let folder = board.path().parent().unwrap().join(".attempts").unwrap();
    let (records, _) = store.session().await.children(&folder).await.unwrap();
    agent.faults().deny(&folder.join(&records[0]).unwrap());
    let tries = Arc::new(AtomicUsize::new(0));
    let tried = tries.clone();
    let handler = move |job: JobTask| {
        let is_bad = job.name() == "bad";
        tried.fetch_add(usize::from(is_bad), SeqCst);
        async move { if is_bad { Err(Failure::new("bad")) } else { Ok(()) } }
    };
    let mut run = Run::start(|stopped| board.run().otherwise(handler).max_attempts(3).until(stopped));
    until("it is tried", BOUND, || tries.load(SeqCst) == 1).await;
    tokio::time::sleep(400 * MS).await;
    assert_eq!(tries.load(SeqCst), 1, "this process knows the pause");
    for _ in 0..3 {
        board.post("good").await.unwrap();
    }
    let is_empty = || async { board.is_empty().await.unwrap().then_some(()) };
    eventually("all have ended", BOUND, is_empty).await;
    let counts = run.stop().await.unwrap();
    assert_eq!((counts.finished, counts.given_back, counts.given_up, counts.lost), (3, 1, 1, 0));
    agent.faults().allow();
    assert_eq!(board.trashed().await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_posting_is_denied_in_mid_run_does_not_end_the_runner() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let board = agent.coordinator.job_board("/place/jobs").await.unwrap();
    let bad = board.post("bad").await.unwrap();
    let (faults, denied) = (agent.faults().clone(), bad.path().clone());
    let tries = Arc::new(AtomicUsize::new(0));
    let tried = tries.clone();
    let handler = move |job: JobTask| {
        let is_bad = job.name() == "bad";
        if is_bad {
            faults.deny(&denied);
            tried.fetch_add(1, SeqCst);
        }
        async move { if is_bad { Err(Failure::new("bad")) } else { Ok(()) } }
    };
    let mut run = Run::start(|stopped| board.run().otherwise(handler).until(stopped));
    until("it is tried", BOUND, || tries.load(SeqCst) == 1).await;
    let poster = store.agent("poster").await;
    let theirs = poster.coordinator.job_board("/place/jobs").await.unwrap();
    theirs.post("good").await.unwrap();
    let is_done = || async { (theirs.len().await.unwrap() == 1).then_some(()) };
    eventually("the other is done", BOUND, is_done).await;
    let counts = run.stop().await.unwrap();
    assert_eq!((counts.finished, counts.lost), (1, 1));
}
