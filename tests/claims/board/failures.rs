//! Jobs whose worker fails: pauses, attempts, the trash with the reason; and jobs that are delayed or can never end.
#![expect(clippy::disallowed_methods, reason = "these tests measure pauses")]

use std::sync::Arc;

use apportion::{
    backend::{BoxFuture, CommitError},
    board::{JobState, PostingError},
    testing::{Call, Hook, Intercept, Outcome, Request},
};
use serde_json::{Value, json};

use super::*;
use crate::support::{
    MS,
    fate::{Fate, Fates},
    fleet::{on_both_backends, znode},
    hold::Hold,
    soon,
};

on_both_backends!(
    a_job_that_fails_does_not_block_the_board,
    a_job_that_fails_too_often_is_in_the_trash_with_the_reason,
    after_its_last_attempt_a_job_leaves_the_board_also_if_the_trash_has_its_name,
    a_job_whose_workers_die_with_it_or_drop_it_is_in_the_trash_after_its_attempts,
    no_process_claims_a_job_during_its_pause,
    a_claim_counts_if_a_caller_had_it_also_if_its_process_has_died,
    a_delayed_job_is_claimed_when_it_is_time_and_taskflow_can_read_it,
    a_job_with_a_znode_below_it_is_not_begun,
    records_go_with_their_jobs,
);

/// Its worker gives it back between the two reads that another process makes before it claims the job.
#[tokio::test(start_paused = true)]
async fn an_attempt_that_ends_while_another_process_claims_the_job_counts() {
    let store = Store::memory();
    let (agent, board) = worker(&store, "a").await;
    board.post("job").await.unwrap();
    let (connector, hold) = Hold::on(store.ensemble());
    let slow = PartitionCoordinator::connect(store.config_via(connector, "slow")).await.unwrap();
    let mut reading = hold.after(0, |request| {
        let reads = matches!(request, Request::Get(_) | Request::GetMany(_));
        reads && request.paths().iter().any(|path| path.name().starts_with("job"))
    });
    let place = place(&store);
    let claiming = tokio::spawn(async move {
        let board = slow.job_board(place).at_once().await.unwrap();
        (board.claim_next().await, slow)
    });
    soon(reading.reached()).await;
    let first = soon(board.claim_next()).await.unwrap();
    let mut committing = hold.after(0, |request| {
        request.paths().iter().any(|path| path.name().ends_with(".lock"))
            && matches!(request, Request::Commit(_))
    });
    reading.release();
    soon(committing.reached()).await;
    first.abandon().because("broken").await.unwrap();
    committing.release();
    let (second, _slow) = soon(claiming).await.unwrap();
    let second = second.unwrap();
    assert_eq!((second.attempt(), second.last_error()), (2, Some("broken")));
    second.abandon().await.unwrap();
    drop(agent);
}

/// An operator, or a newer version, has written it.
#[tokio::test(start_paused = true)]
async fn a_record_that_cannot_be_read_does_not_keep_a_job_from_being_given_back() {
    let store = Store::memory();
    let (_agent, board) = worker(&store, "a").await;
    board.post("job").await.unwrap();
    soon(board.claim_next()).await.unwrap().abandon().because("broken").await.unwrap();
    let folder = board.path().parent().unwrap().join(".attempts").unwrap();
    let session = store.session().await;
    let (names, _) = session.children(&folder).await.unwrap();
    session.commit(vec![Op::set(&folder.join(&names[0]).unwrap(), "?", None)]).await.unwrap();
    soon(board.claim_next()).await.unwrap().abandon().because("broken again").await.unwrap();
    assert_eq!(soon(board.claim_next()).await.unwrap().last_error(), Some("broken again"));
}

/// The board with its usual pauses.
async fn pausing(store: &Store, agent: &Agent) -> JobBoard {
    agent.coordinator.job_board(place(store)).await.unwrap()
}

/// Longer on the clock of the test than on a real one.
fn pause(store: &Store) -> Duration {
    if store.is_memory() { 30 * SECOND } else { 3 * SECOND }
}

/// The records of attempts.
async fn records(store: &Store, board: &JobBoard) -> Vec<String> {
    let folder = board.path().parent().unwrap().join(".attempts").unwrap();
    let session = store.session().await;
    session.sync(board.path()).await.unwrap();
    session.children(&folder).await.map(|(names, _)| names).unwrap_or_default()
}

async fn a_job_that_fails_does_not_block_the_board(store: Store) {
    let agent = store.agent("w").await;
    let board = pausing(&store, &agent).await;
    board.post("fails").await.unwrap();
    for number in 0..50 {
        board.post(number.to_string()).await.unwrap();
    }
    let (mut done, mut failed) = (0, 0);
    while done < 50 {
        assert!(failed < 5, "it was claimed {failed} times before {done} of the others");
        let claim = claim(&board).await;
        if claim.job().name() == "fails" {
            failed += 1;
            claim.abandon().because("as always").await.unwrap();
        } else {
            claim.consume().await.unwrap();
            done += 1;
        }
    }
    assert!(failed > 0, "it is the oldest");
}

async fn a_job_that_fails_too_often_is_in_the_trash_with_the_reason(store: Store) {
    let agent = store.agent("w").await;
    let board = agent.coordinator.job_board(place(&store)).max_attempts(2).await.unwrap();
    let job = board.post("x").details(json!({ "volume": "v" })).await.unwrap();
    let observer = store.session().await;
    let posting = znode(&*observer, job.path()).await.0;
    for (attempt, before, reason) in [(1, None, "first"), (2, Some("first"), "no space left")] {
        let claim = claim(&board).await;
        assert_eq!((claim.attempt(), claim.last_error()), (attempt, before));
        claim.abandon_after(Duration::ZERO).because(reason).await.unwrap();
    }
    assert_eq!(board.state(&job).await.unwrap(), JobState::Complete);
    let trashed = board.trashed().await.unwrap();
    let [found] = &trashed[..] else { panic!("{trashed:?}") };
    assert_eq!((found.reason.as_deref(), found.attempts), (Some("no space left"), Some(2)));
    assert_eq!(found.posting.as_ref().unwrap().details()["volume"], "v");
    assert_eq!(znode(&*observer, &found.path).await.0, posting, "to the byte");
    // By the worker itself, and without a reason.
    board.post("y").await.unwrap();
    claim(&board).await.trash_because("not for us").await.unwrap();
    board.post("z").await.unwrap();
    claim(&board).await.trash().await.unwrap();
    let trashed = pausing(&store, &agent).await.trashed().await.unwrap();
    let reasons: Vec<_> = trashed.iter().map(|it| it.reason.as_deref()).collect();
    assert_eq!(reasons, [Some("no space left"), Some("not for us"), None]);
}

async fn after_its_last_attempt_a_job_leaves_the_board_also_if_the_trash_has_its_name(store: Store) {
    let agent = store.agent("w").await;
    let observer = store.session().await;
    // Boards with the same parent share the trash, and number their jobs alike.
    let beside = format!("{}-beside", place(&store));
    let open = |place: String| agent.coordinator.job_board(place).max_attempts(1).into_future();
    let boards = [open(place(&store)).await.unwrap(), open(beside.clone()).await.unwrap()];
    let mut postings = Vec::new();
    for (board, reason) in boards.iter().zip(["first", "second"]) {
        let job = board.post(reason).await.unwrap();
        assert_eq!(job.path().name(), "job0000000000");
        postings.push(znode(&*observer, job.path()).await.0);
        claim(board).await.abandon().because(reason).await.unwrap();
        assert_eq!(board.state(&job).await.unwrap(), JobState::Complete);
    }
    // Opening a board removes the records that are not needed.
    let boards = [open(place(&store)).await.unwrap(), open(beside).await.unwrap()];
    for (board, known) in boards.iter().zip([[Some("first"), None], [None, Some("second")]]) {
        let trashed = board.trashed().await.unwrap();
        let reasons: Vec<_> = trashed.iter().map(|it| it.reason.as_deref()).collect();
        assert_eq!(reasons, known);
        assert_eq!(trashed[0].path.name(), "job0000000000", "as TaskFlow names it");
        for (found, posting) in trashed.iter().zip(&postings) {
            assert_eq!(&znode(&*observer, &found.path).await.0, posting, "to the byte");
        }
    }
}

async fn a_job_whose_workers_die_with_it_or_drop_it_is_in_the_trash_after_its_attempts(store: Store) {
    let (agent, doomed) = (store.agent("w").await, store.agent("doomed").await);
    let open =
        |agent: &Agent| agent.coordinator.job_board(place(&store)).max_attempts(2).pauses(20 * MS, 20 * MS);
    let (board, dooms) = (open(&agent).await.unwrap(), open(&doomed).await.unwrap());
    let (dropped, killing) = (board.post("dropped").await.unwrap(), board.post("killing").await.unwrap());
    for attempt in 1..=2 {
        let claim = soon(board.claim_where(|job| job.name() == "dropped")).await.unwrap();
        assert_eq!(claim.attempt(), attempt);
    }
    claim(&dooms).await.abandon_after(Duration::ZERO).because("hard").await.unwrap();
    let lost = soon(dooms.claim_where(|job| job.name() == "killing")).await.unwrap();
    assert_eq!(lost.attempt(), 2);
    let _line = doomed.crash();
    let gone = || async {
        let claimed = board.try_claim_next().await.unwrap();
        assert!(claimed.is_none(), "{claimed:?}");
        board.is_empty().await.unwrap().then_some(())
    };
    eventually("both have left the board", store.expiry() + 30 * SECOND, gone).await;
    let trashed = board.trashed().await.unwrap();
    let found: Vec<_> = trashed
        .iter()
        .map(|it| (it.posting.as_ref().unwrap().name(), it.attempts, it.reason.as_deref().unwrap()))
        .collect();
    let reason = "its worker dropped the claim without ending it";
    assert_eq!(found, [("dropped".into(), Some(2), reason), ("killing".into(), Some(2), "hard")]);
    for job in [dropped, killing] {
        assert_eq!(board.state(&job).await.unwrap(), JobState::Complete);
    }
}

async fn no_process_claims_a_job_during_its_pause(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (ours, theirs) = (pausing(&store, &a).await, pausing(&store, &b).await);
    let job = ours.post("x").await.unwrap();
    let pause = pause(&store);
    claim(&ours).await.abandon_after(pause).await.unwrap();
    let given_back = tokio::time::Instant::now();
    for board in [&ours, &theirs] {
        assert!(board.try_claim_next().await.unwrap().is_none());
        assert!(tokio::time::timeout(pause / 10, board.wait_for_work()).await.is_err());
        assert_eq!(board.len().await.unwrap(), 1);
    }
    ours.post("another").await.unwrap();
    let another = soon(theirs.claim_next()).await.unwrap();
    assert_eq!(another.job().name(), "another");
    another.consume().await.unwrap();
    let claimed = soon(theirs.claim_next()).await.unwrap();
    assert!(given_back.elapsed() + 20 * MS >= pause, "{:?}", given_back.elapsed());
    assert!(given_back.elapsed() < pause + 10 * SECOND);
    assert_eq!((claimed.job().name(), claimed.attempt()), ("x".into(), 2));
    claimed.abandon_after(3600 * SECOND).await.unwrap();
    let at_once = ours.claim(&job).await.unwrap();
    assert_eq!(at_once.attempt(), 3, "a caller that names the job gets it");
    at_once.consume().await.unwrap();
}

async fn a_claim_counts_if_a_caller_had_it_also_if_its_process_has_died(store: Store) {
    let agent = store.agent("w").await;
    let board = pausing(&store, &agent).await;
    board.post("x").await.unwrap();
    for _ in 0..5 {
        let claim = claim(&board).await;
        assert_eq!(claim.attempt(), 1);
        claim.abandon().uncounted().await.unwrap();
    }
    // Callers that stop waiting, at any moment.
    for stage in 0..20 {
        let mut call = Box::pin(board.try_claim_next());
        let mut moment = std::pin::pin!(store.for_a_moment(stage));
        let claimed = tokio::select! {
            biased;
            () = moment.as_mut() => None,
            claimed = call.as_mut() => claimed.unwrap(),
        };
        drop(call);
        if let Some(claim) = claimed {
            claim.abandon().uncounted().await.unwrap();
        }
    }
    let claim = soon(board.claim_next()).await.unwrap();
    assert_eq!(claim.attempt(), 1);
    drop(claim);
    let dropped = tokio::time::Instant::now();
    let claim = soon(board.claim_next()).await.unwrap();
    assert!(dropped.elapsed() >= SECOND / 4, "{:?}", dropped.elapsed());
    assert_eq!(claim.attempt(), 2);
    assert!(claim.last_error().unwrap().contains("dropped"));
    claim.abandon_after(Duration::ZERO).await.unwrap();
    let doomed = store.agent("doomed").await;
    let lost = claim_in(&store, &doomed).await;
    assert_eq!(lost.attempt(), 3);
    let _line = doomed.crash();
    let claim =
        tokio::time::timeout(store.expiry() + 30 * SECOND, board.claim_next()).await.unwrap().unwrap();
    assert_eq!(claim.attempt(), 4);
}

async fn claim_in(store: &Store, agent: &Agent) -> Claim {
    claim(&pausing(store, agent).await).await
}

async fn a_delayed_job_is_claimed_when_it_is_time_and_taskflow_can_read_it(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (ours, theirs) = (pausing(&store, &a).await, pausing(&store, &b).await);
    let delay = pause(&store);
    let posted = tokio::time::Instant::now();
    let late = ours.post("late").priority(apportion::board::Priority::High).delay(delay).await.unwrap();
    let past = std::time::SystemTime::UNIX_EPOCH;
    ours.post("past").not_before(past).await.unwrap();
    assert!(late.not_before().is_some());
    let (data, _) = znode(&*store.session().await, late.path()).await;
    let mut posting: Value = serde_json::from_slice(&data).unwrap();
    let keys: Vec<_> = posting.as_object().unwrap().keys().cloned().collect();
    assert_eq!(keys, ["uuid", "name", "priority", "details", "not_before"], "the last one is ours");
    assert!(posting["not_before"].take().is_u64());
    assert_eq!(soon(theirs.claim_next()).await.unwrap().job().name(), "past");
    for board in [&ours, &theirs] {
        assert!(board.try_claim_where(|job| job.name() == "late").await.unwrap().is_none());
        assert_eq!(board.len().await.unwrap(), 2, "it is on the board");
    }
    let claimed = soon(theirs.claim_where(|job| job.name() == "late")).await.unwrap();
    assert!(posted.elapsed() + 20 * MS >= delay, "{:?}", posted.elapsed());
    assert!(posted.elapsed() < delay + 10 * SECOND);
    assert_eq!(claimed.attempt(), 1);
    // A conductor of TaskFlow does not wait.
    let early = ours.post("early").delay(3600 * SECOND).await.unwrap();
    let lock = crate::support::path(&format!("{}.lock", early.path()));
    assert!(claim_as_python(&*store.session().await, early.path(), &lock).await);
}

async fn a_job_with_a_znode_below_it_is_not_begun(store: Store) {
    let agent = store.agent("w").await;
    let board = pausing(&store, &agent).await;
    let observer = store.session().await;
    let (job, _other) = (board.post("x").await.unwrap(), board.post("other").await.unwrap());
    let below = job.path().join("below").unwrap();
    create(&*observer, &below, "").await;
    // The cache has seen it without.
    let claimed = claim(&board).await;
    assert_eq!(claimed.job().name(), "other", "the first one could not be ended");
    assert!(matches!(refused(board.claim(&job).await), BoardError::SetAside { .. }));
    assert_eq!(board.set_aside()[0].reason, PostingError::HasChild);
    claimed.consume().await.unwrap();
    assert!(board.try_claim_next().await.unwrap().is_none());
    observer.commit(vec![Op::delete(&below, None)]).await.unwrap();
    // One that appears during the work.
    let claimed = board.try_claim_next().await.unwrap().expect("it is repaired");
    create(&*observer, &below, "").await;
    let error = refused(claimed.consume().await);
    assert!(matches!(error, BoardError::Changed { .. }) && !error.may_be_lost(), "{error}");
    for _ in 0..3 {
        assert!(board.try_claim_next().await.unwrap().is_none());
    }
    assert_eq!(board.state(&job).await.unwrap(), JobState::Unclaimed, "it is given back");
}

async fn records_go_with_their_jobs(store: Store) {
    let agent = store.agent("w").await;
    let board = pausing(&store, &agent).await;
    board.post("x").await.unwrap();
    claim(&board).await.consume().await.unwrap();
    assert_eq!(records(&store, &board).await.len(), 0, "most jobs never have one");
    board.post("x").await.unwrap();
    claim(&board).await.abandon_after(Duration::ZERO).await.unwrap();
    assert_eq!(records(&store, &board).await.len(), 1);
    claim(&board).await.consume().await.unwrap();
    assert_eq!(records(&store, &board).await.len(), 0);
    // A conductor of TaskFlow does the second job, and leaves the record.
    let kept = board.post("kept").await.unwrap();
    let theirs = board.post("theirs").await.unwrap();
    for job in [&kept, &theirs] {
        board.claim(job).await.unwrap().abandon_after(Duration::ZERO).await.unwrap();
    }
    store.session().await.commit(vec![Op::delete(theirs.path(), None)]).await.unwrap();
    assert_eq!(records(&store, &board).await.len(), 2);
    let another = pausing(&store, &agent).await;
    let left = records(&store, &board).await;
    assert!(left.len() == 1 && left[0].contains(kept.path().name()), "{left:?}");
    assert_eq!(claim(&another).await.attempt(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_worker_that_waits_gets_the_refusal_of_a_quota() {
    let store = Store::memory();
    let (connector, fates) = Fates::on(store.ensemble());
    let coordinator = store.connect(connector, "a").await;
    let board = coordinator.job_board(place(&store)).await.unwrap();
    board.post("x").await.unwrap();
    fates.decide(|request| match request {
        Request::Commit(_) => Fate::Refuse(apportion::backend::Error::Other("quota exceeded".into())),
        _ => Fate::Pass,
    });
    let claimed = tokio::time::timeout(60 * SECOND, board.claim_next()).await.expect("it does not wait");
    assert!(refused(claimed).to_string().contains("quota exceeded"));
}

#[tokio::test(start_paused = true)]
async fn an_end_to_which_permission_is_denied_says_so() {
    let store = Store::memory();
    let (agent, board) = worker(&store, "a").await;
    board.post("x").await.unwrap();
    let claimed = claim(&board).await;
    agent.faults().deny(claimed.job().path());
    let error = refused(claimed.consume().await);
    assert!(matches!(&error, BoardError::Service(apportion::Error::NotPermitted { .. })), "{error}");
    assert!(!error.may_be_lost());
}

/// Denies permission to set the znode of this name, and to nothing else.
struct DenySet(&'static str);

impl Hook for DenySet {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        let denied = match call.request() {
            Request::Commit(ops) => {
                ops.iter().position(|op| matches!(op, Op::Set { path, .. } if path.name() == self.0))
            }
            _ => None,
        };
        match denied {
            None => call.send(),
            index => {
                Box::pin(
                    async move { Err(CommitError { index, error: apportion::backend::Error::NotPermitted }) },
                )
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_job_that_cannot_be_changed_is_reported_once() {
    let store = Store::memory();
    let hook = Arc::new(DenySet("job0000000000"));
    let connector = Intercept::new(Arc::new(store.ensemble().clone()), hook);
    let coordinator = store.connect(connector, "a").await;
    let board = coordinator.job_board(place(&store)).await.unwrap();
    let logged = crate::support::events::Events::of("apportion::board::cache");
    board.post("x").await.unwrap();
    for _ in 0..5 {
        // It can be read, so each listing finds a job, and each claim finds out that it is none.
        assert!(board.try_claim_next().await.unwrap().is_none());
        assert_eq!(board.set_aside()[0].reason, PostingError::NotPermitted);
    }
    let warned = logged.take(tracing::Level::WARN);
    assert_eq!(warned.len(), 1, "{warned:#?}");
}

#[tokio::test(start_paused = true)]
async fn a_repaired_job_comes_back_to_a_worker_that_waits() {
    let store = Store::memory();
    let (_agent, board) = worker(&store, "a").await;
    let observer = store.session().await;
    let job = board.post("x").await.unwrap();
    let below = job.path().join("below").unwrap();
    create(&*observer, &below, "").await;
    assert!(board.try_claim_next().await.unwrap().is_none());
    let (claimed, ()) = tokio::join!(tokio::time::timeout(300 * SECOND, board.claim_next()), async {
        tokio::time::sleep(20 * SECOND).await;
        observer.commit(vec![Op::delete(&below, None)]).await.unwrap();
    });
    assert_eq!(claimed.expect("nothing else changes on the board").unwrap().job().name(), "x");
}
