//! Invalid input, foreign znodes on a board, and znodes that block an operation.

use apportion::{
    PartitionCoordinator,
    board::{BoardPathError, JobState, MAX_POSTING_BYTES, PostingError},
};
use serde_json::{Value, json};
use tracing::Level;

use super::*;
use crate::support::{
    events::Events,
    fleet::{delete_recursively, on_both_backends, znode},
};

#[tokio::test]
async fn without_a_backend_the_error_says_what_to_do() {
    let error = refused(PartitionCoordinator::standalone().job_board("/jobs").at_once().await);
    assert!(matches!(error, BoardError::NoBackend));
    assert!(error.to_string().contains("backend::Memory"), "{error}");
}

#[tokio::test]
async fn a_path_that_cannot_be_that_of_a_board_is_refused() {
    let agent = Store::memory().agent("a").await;
    for bad in ["", "jobs", "/", "/a/jobs/", "/jobs/jobs", "/aa/a", "/a//b", "/a\u{0}"] {
        let error = refused(agent.coordinator.job_board(bad).at_once().await);
        let BoardError::Path { path, reason } = &error else { panic!("{bad:?}: {error}") };
        assert_eq!(path, bad);
        if ["/jobs/jobs", "/aa/a"].contains(&bad) {
            assert!(matches!(reason, BoardPathError::Repeated(_)), "{bad:?}: {reason}");
        }
    }
}

async fn an_invalid_job_is_refused_before_anything_is_sent(store: Store) {
    // A debug build takes a while to encode that much, and nothing else runs on this thread meanwhile.
    let store = Store { session_timeout: 30 * SECOND, ..store };
    let (agent, board) = worker(&store, "a").await;
    let before = agent.faults().calls().writes;
    for bad in [json!([]), json!("text"), json!(1), json!(false)] {
        let error = refused(board.post("x").details(bad).await);
        assert!(matches!(error, BoardError::Details { .. }), "{error}");
    }
    for letter in ["x", "é"] {
        let error = refused(board.post(letter.repeat(MAX_POSTING_BYTES)).await);
        let BoardError::TooLarge { reason: PostingError::TooLarge { bytes, .. }, .. } = error else {
            panic!("{error}")
        };
        assert!(bytes > MAX_POSTING_BYTES * if letter == "x" { 1 } else { 6 });
    }
    assert_eq!(agent.faults().calls().writes, before);
    let job = board.post("").details(Value::Null).await.unwrap();
    assert_eq!((job.name(), job.details()), ("".into(), &json!({})));
    for (kind, name) in [("worker", "x"), ("", "x"), ("Conductor", "x")] {
        let error = refused(board.register_entity(kind, name, json!({})).await);
        assert!(matches!(error, BoardError::EntityKind { .. }), "{error}");
    }
    for name in ["", "a/b", ".", "a\n"] {
        let error = refused(board.register_entity("conductor", name, json!({})).await);
        assert!(matches!(error, BoardError::EntityName { .. }), "{error}");
    }
}

async fn the_largest_posting_can_be_posted_claimed_and_trashed(store: Store) {
    let (_a, board) = worker(&store, &"a".repeat(100)).await;
    let overhead = board.post("").await.unwrap().posting().encode().len();
    claim(&board).await.consume().await.unwrap();
    let name = "x".repeat(MAX_POSTING_BYTES - overhead);
    board.post(name.clone()).await.unwrap();
    assert!(matches!(refused(board.post(name + "x").await), BoardError::TooLarge { .. }));
    claim(&board).await.trash().await.unwrap();
}

async fn foreign_children_are_set_aside_and_reported_once(store: Store) {
    let observer = store.session().await;
    let (_a, board) = worker(&store, "a").await;
    let logged = Events::of("apportion::board::cache");
    let child = |name: &str| board.path().join(name).unwrap();
    for name in ["lock", "other", "jo", "1", "Job0000000001"] {
        create(&*observer, &child(name), "").await;
    }
    for name in ["job", "jobs", "job-x", "job1.0", "job0000000001.lock.old"] {
        create(&*observer, &child(name), "{\"uuid\": 1, \"name\": \"x\"}").await;
    }
    for (name, data) in
        [("job0000000900", ""), ("job0000000901", "{}"), ("job902", "no JSON"), ("job903", "\u{feff}{}")]
    {
        create(&*observer, &child(name), data).await;
    }
    create(&*observer, &child("job904"), vec![0xff, 0xfe]).await;
    create(&*observer, &child("job905"), vec![b' '; MAX_POSTING_BYTES + 1]).await;
    create(&*observer, &child("job0000000906.lock"), "{\"owner\": \"of nothing\"}").await;
    board.post("good").await.unwrap();
    for _ in 0..3 {
        assert_eq!(names(&board).await, ["good"]);
    }
    let set_aside = board.set_aside();
    assert_eq!(set_aside.len(), 11);
    let large = set_aside.iter().find(|it| it.path.name() == "job905").unwrap();
    assert!(matches!(large.reason, PostingError::TooLarge { .. }));
    let warned = logged.take(Level::WARN);
    assert_eq!(warned.len(), 11, "{warned:#?}");
    assert!(warned.iter().any(|it| it.contains("jb/job902")), "{warned:#?}");
    let claimed = claim(&board).await;
    assert_eq!(claimed.job().name(), "good");
    claimed.consume().await.unwrap();
    assert!(board.try_claim_next().await.unwrap().is_none());
    assert_eq!(board.set_aside().len(), 11);
    // An operator repairs one and removes another.
    observer
        .commit(vec![Op::set(&child("job902"), "{\"uuid\": 1, \"name\": \"repaired\"}", None)])
        .await
        .unwrap();
    observer.commit(vec![Op::delete(&child("job-x"), None)]).await.unwrap();
    assert_eq!(names(&board).await, ["repaired"]);
    assert_eq!(board.set_aside().len(), 9);
}

async fn a_posting_with_values_beyond_json_is_a_job_and_is_not_changed(store: Store) {
    let observer = store.session().await;
    let (_a, board) = worker(&store, "a").await;
    let data = r#"{"uuid": "u", "name": "x", "details": {"a": NaN, "b": -Infinity, "c": "\ud800"},  "extra": 1e999}"#;
    let job = board.path().join("job7").unwrap();
    create(&*observer, &job, data).await;
    let claim = claim(&board).await;
    assert_eq!(claim.job().details(), &json!({"a": null, "b": null, "c": "\u{fffd}"}));
    assert_eq!(znode(&*observer, &job).await.0, data.as_bytes());
    claim.trash().await.unwrap();
    let trashed = board.path().parent().unwrap().join(".trash").unwrap().join("job7").unwrap();
    assert_eq!(znode(&*observer, &trashed).await.0, data.as_bytes());
}

async fn numbers_past_31_bits_come_after_those_before(store: Store) {
    let observer = store.session().await;
    let (_a, board) = worker(&store, "a").await;
    for number in ["2147483646", "2147483647", "-2147483648", "-2147483647"] {
        let job = board.path().join(&format!("job{number}")).unwrap();
        create(&*observer, &job, format!("{{\"uuid\": 1, \"name\": \"{number}\"}}")).await;
    }
    assert_eq!(names(&board).await, ["2147483646", "2147483647", "-2147483648", "-2147483647"]);
    let claim = claim(&board).await;
    assert_eq!(claim.job().name(), "2147483646");
    claim.consume().await.unwrap();
}

async fn an_end_that_is_blocked_names_the_cause_and_nothing_is_lost(store: Store) {
    let observer = store.session().await;
    let (_a, board) = worker(&store, "a").await;
    let job = board.post("x").await.unwrap();
    let trash = board.path().parent().unwrap().join(".trash").unwrap().join(job.path().name()).unwrap();
    let below = job.path().join("below").unwrap();

    create(&*observer, &trash, "older").await;
    let error = refused(claim(&board).await.trash().await);
    assert!(matches!(error, BoardError::TrashTaken { .. }), "{error}");
    assert_eq!(znode(&*observer, &trash).await.0, b"older");
    offers(&board, &["x"]).await;
    observer.commit(vec![Op::delete(&trash, None)]).await.unwrap();

    for ends_in_the_trash in [false, true] {
        let claim = claim(&board).await;
        create(&*observer, &below, "").await;
        let ended = if ends_in_the_trash { claim.trash().await } else { claim.consume().await };
        assert!(matches!(refused(ended), BoardError::Changed { .. }));
        assert_eq!(names(&board).await, [""; 0], "it is set aside");
        assert_eq!(board.state(&job).await.unwrap(), JobState::Unclaimed);
        observer.commit(vec![Op::delete(&below, None)]).await.unwrap();
        assert_eq!(names(&board).await, ["x"]);
    }

    let claimed = claim(&board).await;
    let data = znode(&*observer, job.path()).await.0;
    observer.commit(vec![Op::set(job.path(), data, None)]).await.unwrap();
    assert!(matches!(refused(claimed.consume().await), BoardError::Changed { .. }));
    offers(&board, &["x"]).await;

    let claimed = claim(&board).await;
    observer.commit(vec![Op::delete(job.path(), None)]).await.unwrap();
    assert!(matches!(refused(claimed.consume().await), BoardError::Changed { .. }));
    let gone = || async { children(&*observer, board.path()).await.is_empty().then_some(()) };
    eventually("the lock is gone, too", TIMEOUT, gone).await;
}

async fn a_posting_that_changes_under_a_claim_is_read_again(store: Store) {
    let observer = store.session().await;
    let (_a, board) = worker(&store, "a").await;
    let job = board.post("old").await.unwrap();
    observer.commit(vec![Op::set(job.path(), "{\"uuid\": 1, \"name\": \"new\"}", None)]).await.unwrap();
    let claimed = board.claim(&job).await.unwrap();
    assert_eq!(claimed.job().name(), "new");
    assert_eq!(znode(&*observer, job.path()).await.0, b"{\"uuid\": 1, \"name\": \"new\"}");
    claimed.abandon().await.unwrap();
    observer.commit(vec![Op::set(job.path(), "garbage", None)]).await.unwrap();
    assert!(matches!(refused(board.claim(&job).await), BoardError::SetAside { .. }));
    assert_eq!((board.set_aside().len(), board.jobs().await.unwrap().len()), (1, 0));
    assert_eq!(znode(&*observer, job.path()).await.0, b"garbage");
    assert!(board.try_claim_next().await.unwrap().is_none());
}

async fn a_number_that_is_taken_is_skipped(store: Store) {
    let observer = store.session().await;
    let (_a, board) = worker(&store, "a").await;
    // As after a backup was restored: the numbers begin anew. Each create counts.
    for number in [1, 2] {
        create(
            &*observer,
            &board.path().join(&format!("job{number:010}")).unwrap(),
            "{\"uuid\": 1, \"name\": 1}",
        )
        .await;
    }
    create(&*observer, &board.path().join("job0000000003").unwrap(), "").await;
    create(&*observer, &board.path().join("job0000000005").unwrap(), "").await;
    let posted = board.post("x").await.unwrap();
    let next = board.post("y").await.unwrap();
    assert_eq!((posted.path().name(), next.path().name()), ("job0000000004", "job0000000006"));
}

async fn a_board_that_is_removed_is_made_again(store: Store) {
    let observer = store.session().await;
    let (_a, board) = worker(&store, "a").await;
    for _ in 0..2 {
        board.post("x").await.unwrap();
        delete_recursively(&*observer, &board.path().parent().unwrap()).await;
        knows(&board, 0).await;
    }
    board.post("y").await.unwrap();
    assert_eq!(names(&board).await, ["y"]);
    claim(&board).await.trash().await.unwrap();
}

async fn what_is_posted_every_process_can_read(store: Store) {
    let ((_a, ours), (_b, theirs)) = (worker(&store, "a").await, worker(&store, "b").await);
    let nested = |depth| (0..depth).fold(json!(7), |inner, _| json!({ "x": inner }));
    for depth in [101, 126, 200] {
        let error = refused(ours.post("x").details(nested(depth)).await);
        assert!(matches!(error, BoardError::Details { .. }), "{depth}: {error}");
    }
    ours.post("deep").details(nested(100)).await.unwrap();
    assert_eq!(names(&theirs).await, ["deep"]);
    assert_eq!(claim(&theirs).await.job().details(), &nested(100));
}

async fn falsy_fields_of_another_program_are_read_as_python_reads_them(store: Store) {
    let observer = store.session().await;
    let (_a, board) = worker(&store, "a").await;
    let empty = json!({});
    for (number, (written, details)) in [
        (r#""""#, &empty),
        ("0", &empty),
        ("-0.0", &empty),
        ("false", &empty),
        ("[]", &empty),
        ("null", &empty),
        // Python takes it for true, and JSON does not have it.
        ("NaN", &json!(null)),
        ("[NaN]", &json!([null])),
        ("7", &json!(7)),
    ]
    .into_iter()
    .enumerate()
    {
        let job = board.path().join(&format!("job{number:010}")).unwrap();
        let posting =
            format!(r#"{{"uuid": "", "name": "{number}", "details": {written}, "book": {written}}}"#);
        create(&*observer, &job, posting).await;
        let jobs = board.jobs().ensure_fresh().await.unwrap();
        let job = jobs.iter().find(|job| job.name() == number.to_string()).expect("it is a job");
        assert_eq!(job.details(), details, "{written}");
        assert_eq!(job.posting().book(), Some(details).filter(|it| **it != empty), "{written}");
        assert_eq!((job.uuid(), job.posting().uuid()), (None, &json!(null)));
    }
}

on_both_backends!(
    what_is_posted_every_process_can_read,
    falsy_fields_of_another_program_are_read_as_python_reads_them,
    an_invalid_job_is_refused_before_anything_is_sent,
    the_largest_posting_can_be_posted_claimed_and_trashed,
    foreign_children_are_set_aside_and_reported_once,
    a_posting_with_values_beyond_json_is_a_job_and_is_not_changed,
    numbers_past_31_bits_come_after_those_before,
    an_end_that_is_blocked_names_the_cause_and_nothing_is_lost,
    a_posting_that_changes_under_a_claim_is_read_again,
    a_number_that_is_taken_is_skipped,
    a_board_that_is_removed_is_made_again,
);
