//! Lost replies, lost sessions, locks that somebody breaks.

use apportion::{backend::memory::LostReply, board::JobState};
use serde_json::json;

use super::*;
use crate::support::{
    eventually,
    fleet::{Agent, MS, Reach, SECOND, Store, exists, on_both_backends, znode},
    until,
};

const EITHER: [LostReply; 2] = [LostReply::BeforeApplying, LostReply::AfterApplying];

/// Loses the reply to the next write of an agent.
fn lose_next(agent: &Agent, lost: LostReply) {
    let faults = agent.faults();
    faults.lose_nth_write(faults.calls().writes + 1, lost);
}

async fn a_post_whose_reply_is_lost_is_found_beside_a_job_that_is_kept_from_us(store: Store) {
    let (agent, board) = worker(&store, "a").await;
    let observer = store.session().await;
    let secret = board.post("secret").await.unwrap();
    agent.faults().deny(secret.path());
    lose_next(&agent, LostReply::AfterApplying);
    let job = board.post("open").await.unwrap();
    assert_eq!(job.name(), "open");
    assert!(exists(&*observer, job.path()).await);
}

async fn a_post_whose_reply_is_lost_is_on_the_board_once(store: Store) {
    let (agent, board) = worker(&store, "a").await;
    for (number, lost) in EITHER.into_iter().enumerate() {
        board.post("other").await.unwrap();
        lose_next(&agent, lost);
        let job = board.post(format!("x{number}")).await.unwrap();
        board.post("other").await.unwrap();
        let listed = board.jobs().ensure_fresh().await.unwrap();
        let ours: Vec<_> = listed.iter().filter(|it| it.name() == format!("x{number}")).collect();
        assert_eq!(ours.len(), 1);
        assert_eq!((ours[0].path(), ours[0].uuid()), (job.path(), job.uuid()));
    }
}

async fn a_claim_and_its_end_whose_replies_are_lost_happen_once(store: Store) {
    let (agent, board) = worker(&store, "a").await;
    let observer = store.session().await;
    let trash = board.path().parent().unwrap().join(".trash").unwrap();
    for lost in EITHER {
        for end in ["abandon", "trash", "consume"] {
            let job = board.post("x").await.unwrap();
            lose_next(&agent, lost);
            let claimed = claim(&board).await;
            assert!(claimed.lease().is_held());
            assert_eq!(board.state(&job).await.unwrap(), JobState::Claimed);
            lose_next(&agent, lost);
            match end {
                "abandon" => claimed.abandon().await.unwrap(),
                "trash" => claimed.trash().await.unwrap(),
                _ => claimed.consume().await.unwrap(),
            }
            let trashed = trash.join(job.path().name()).unwrap();
            assert_eq!(exists(&*observer, &trashed).await, end == "trash");
            if end == "abandon" {
                assert_eq!(board.state(&job).await.unwrap(), JobState::Unclaimed);
                claim(&board).await.consume().await.unwrap();
            }
            assert_eq!(board.state(&job).await.unwrap(), JobState::Complete);
            assert!(children(&*observer, board.path()).await.is_empty());
        }
    }
}

async fn a_job_whose_holder_loses_its_session_is_anothers_and_the_holder_can_do_no_harm(store: Store) {
    let (first, ours) = worker(&store, "same-name").await;
    let (_second, theirs) = worker(&store, "same-name-2").await;
    let job = ours.post("x").await.unwrap();
    for end in 0..4 {
        let stale = claim(&ours).await;
        let lease = stale.lease().clone();
        assert!(matches!(refused(theirs.claim(&job).await), BoardError::Unclaimable { .. }));
        let work = lease.while_held(std::future::pending::<()>());
        let (outcome, ()) = tokio::join!(work, first.expire(&store));
        assert!(outcome.is_err());
        assert!(!lease.is_held());
        let fresh = claim(&theirs).await;
        assert!(fresh.token() > lease.token());
        match end {
            0 => assert!(matches!(refused(stale.consume().await), BoardError::Lost { .. })),
            1 => assert!(matches!(refused(stale.trash().await), BoardError::Lost { .. })),
            2 => assert!(matches!(refused(stale.abandon().await), BoardError::Lost { .. })),
            _ => drop(stale),
        }
        assert_eq!(theirs.find_owner(&job).await.unwrap().as_deref(), Some("same-name-2"));
        assert!(fresh.lease().is_held());
        fresh.abandon().await.unwrap();
        offers(&ours, &["x"]).await;
    }
    claim(&ours).await.consume().await.unwrap();
}

async fn a_holder_whose_lock_was_broken_learns_of_it_and_leaves_the_next_one_alone(store: Store) {
    let (_a, ours) = worker(&store, "a").await;
    let (_b, theirs) = worker(&store, "b").await;
    let observer = store.session().await;
    let job = ours.post("x").await.unwrap();
    for end in 0..4 {
        let stale = claim(&ours).await;
        observer.commit(vec![Op::delete(stale.lease().path(), None)]).await.unwrap();
        let fresh = claim(&theirs).await;
        // The two locks look the same.
        assert_eq!(znode(&*observer, fresh.lease().path()).await.1.version, 1);
        tokio::time::timeout(PATIENCE, stale.lease().lost()).await.expect("a heartbeat finds out");
        match end {
            0 => assert!(stale.consume().await.is_err()),
            1 => assert!(stale.trash().await.is_err()),
            2 => assert!(stale.abandon().await.is_err()),
            _ => drop(stale),
        }
        tokio::time::sleep(a_while(&store)).await;
        assert!(fresh.lease().is_held());
        assert_eq!(ours.find_owner(&job).await.unwrap().as_deref(), Some("b"));
        fresh.abandon().await.unwrap();
        offers(&ours, &["x"]).await;
    }
}

async fn a_python_claim_is_respected_by_one_who_lost_his_own(store: Store) {
    let (_a, ours) = worker(&store, "a").await;
    let job = ours.post("x").await.unwrap();
    let python = store.session().await;
    let stale = claim(&ours).await;
    let lock = stale.lease().path().clone();
    // Somebody breaks the lock, and a Python conductor of the same name takes the job.
    python.commit(vec![Op::delete(&lock, None)]).await.unwrap();
    let create = Op::create(&lock, "{\"owner\": \"a\"}", CreateMode::Ephemeral);
    python.commit(vec![Op::Check { path: job.path().clone(), version: Some(1) }, create]).await.unwrap();
    assert!(matches!(refused(stale.consume().await), BoardError::Lost { .. }));
    assert_eq!(ours.state(&job).await.unwrap(), JobState::Claimed);
    assert!(matches!(refused(ours.claim(&job).await), BoardError::Unclaimable { owner: Some(_), .. }));
    python.commit(vec![Op::delete(&lock, Some(0))]).await.unwrap();
    claim(&ours).await.consume().await.unwrap();
}

async fn a_python_conductor_that_has_read_a_job_before_our_claim_is_refused_and_reads_again(store: Store) {
    let (_a, ours) = worker(&store, "a").await;
    let job = ours.post("x").await.unwrap();
    let python = store.session().await;
    let (before, stat) = znode(&*python, job.path()).await;
    ours.claim(&job).await.unwrap().abandon().await.unwrap();
    let lock = path(&format!("{}.lock", job.path()));
    let claim = |version| {
        let create = Op::create(&lock, "{\"owner\": \"p\"}", CreateMode::Ephemeral);
        python.commit(vec![Op::Check { path: job.path().clone(), version: Some(version) }, create])
    };
    assert_eq!(claim(stat.version).await.unwrap_err().index, Some(0));
    assert!(!exists(&*python, &lock).await);
    let (again, stat) = znode(&*python, job.path()).await;
    assert_eq!(again, before);
    claim(stat.version).await.unwrap();
    let ends = vec![Op::delete(&lock, Some(0)), Op::delete(job.path(), Some(stat.version))];
    python.commit(ends).await.unwrap();
    assert!(names(&ours).await.is_empty());
}

async fn a_post_whose_session_dies_before_the_reply_is_reported_with_its_uuid(store: Store) {
    let (agent, board) = worker(&store, "a").await;
    let uuid = uuid::Uuid::new_v4();
    agent.suspend();
    let (posted, ()) = tokio::join!(async { board.post("x").uuid(uuid).await }, async {
        tokio::time::sleep(100 * MS).await;
        agent.expire(&store).await;
    });
    let error = refused(posted);
    assert!(matches!(error, BoardError::OutcomeUnknown { uuid: its, .. } if its == Some(uuid)), "{error}");
    assert!(names(&board).await.len() <= 1);
}

async fn a_board_goes_on_after_a_lost_session_and_registers_again(store: Store) {
    let (agent, board) = worker(&store, "a").await;
    let (_b, theirs) = worker(&store, "b").await;
    board.register_entity("conductor", "me", json!({})).await.unwrap();
    let entity = path(&format!("{}/.entities/conductor/me", board.path().parent().unwrap()));
    let observer = store.session().await;
    let owner = async || observer.get(&entity).await.unwrap().and_then(|(_, stat)| stat.ephemeral_owner);
    let before = owner().await;
    let (claimed, ()) = tokio::join!(claim(&board), async {
        agent.expire(&store).await;
        theirs.post("x").await.unwrap();
    });
    assert_eq!(claimed.job().name(), "x");
    claimed.consume().await.unwrap();
    let again = || async {
        observer.sync(&entity).await.unwrap();
        owner().await.filter(|owner| Some(*owner) != before)
    };
    let owner = eventually("registered again", PATIENCE, again).await;
    assert_eq!(agent.coordinator.session_id(), Some(owner));
    assert!(board.is_connected());
}

async fn while_the_store_is_away_known_jobs_are_shown_and_a_fresh_look_fails_in_time(store: Store) {
    let (agent, board) = worker(&store, "a").await;
    board.post("x").await.unwrap();
    agent.suspend();
    until("suspended", PATIENCE, || !board.is_connected()).await;
    let reach = match &store.reach {
        Reach::Memory(memory) => {
            memory.refuse_connections(true);
            Some(memory)
        }
        #[cfg(feature = "zookeeper")]
        Reach::Server(_) => None,
    };
    // In memory this takes until the session has expired, and longer.
    let error =
        tokio::time::timeout(PATIENCE, board.jobs().ensure_fresh()).await.expect("in time").unwrap_err();
    assert!(matches!(&error, BoardError::Service(error) if error.is_transient()), "{error}");
    let error = tokio::time::timeout(PATIENCE, board.try_claim_next()).await.expect("in time").unwrap_err();
    assert!(matches!(&error, BoardError::Service(error) if error.is_transient()), "{error}");
    assert_eq!(board.jobs().await.unwrap().len(), 1);
    match reach {
        Some(memory) => memory.refuse_connections(false),
        None => agent.resume(),
    }
    until("connected", PATIENCE, || board.is_connected()).await;
    assert_eq!(names(&board).await, ["x"]);
    claim(&board).await.consume().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn the_receipts_of_posts_go_when_the_board_is_closed_also_after_an_outage() {
    let store = Store::memory();
    let (agent, board) = worker(&store, "a").await;
    let observer = store.session().await;
    let receipts = board.path().parent().unwrap().join(".posting").unwrap();
    board.post("before").await.unwrap();
    // Longer than anybody waits for a session.
    let memory = store.ensemble();
    memory.refuse_connections(true);
    memory.expire(agent.coordinator.session_id().unwrap());
    tokio::time::sleep(100 * SECOND).await;
    memory.refuse_connections(false);
    // After so many attempts the next one may be half a minute away.
    until("connected", 2 * PATIENCE, || board.is_connected()).await;
    board.post("after").await.unwrap();
    assert_eq!(children(&*observer, &receipts).await.len(), 1);
    board.close().await;
    let gone = || async { children(&*observer, &receipts).await.is_empty().then_some(()) };
    eventually("no receipts", PATIENCE, gone).await;
}

async fn a_worker_who_waits_learns_that_the_board_is_closed_to_it(store: Store) {
    let (agent, board) = worker(&store, "a").await;
    let (_b, theirs) = worker(&store, "b").await;
    agent.faults().deny(board.path());
    let (claimed, ()) = tokio::join!(tokio::time::timeout(PATIENCE, board.claim_next()), async {
        store.for_a_moment(5).await;
        theirs.post("x").await.unwrap();
    });
    let error = refused(claimed.expect("it does not wait for what nobody mends"));
    assert!(matches!(&error, BoardError::Service(apportion::Error::NotPermitted { .. })), "{error}");
    agent.faults().allow();
    let claimed = eventually("mended", PATIENCE, || async { board.claim_next().await.ok() }).await;
    claimed.consume().await.unwrap();
}

on_both_backends!(
    a_post_whose_reply_is_lost_is_on_the_board_once,
    a_post_whose_reply_is_lost_is_found_beside_a_job_that_is_kept_from_us,
    a_claim_and_its_end_whose_replies_are_lost_happen_once,
    a_job_whose_holder_loses_its_session_is_anothers_and_the_holder_can_do_no_harm,
    a_holder_whose_lock_was_broken_learns_of_it_and_leaves_the_next_one_alone,
    a_python_claim_is_respected_by_one_who_lost_his_own,
    a_python_conductor_that_has_read_a_job_before_our_claim_is_refused_and_reads_again,
    a_post_whose_session_dies_before_the_reply_is_reported_with_its_uuid,
    a_board_goes_on_after_a_lost_session_and_registers_again,
    while_the_store_is_away_known_jobs_are_shown_and_a_fresh_look_fails_in_time,
    a_worker_who_waits_learns_that_the_board_is_closed_to_it,
);
