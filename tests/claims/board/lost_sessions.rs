//! Sessions that end, and a store that is unreachable.

use apportion::backend::memory::LostReply;
use serde_json::json;

use super::*;
use crate::support::{
    MS,
    fleet::{Reach, on_both_backends},
    path, soon,
};
use crate::{
    ledger::{HasOutcome, Outcome},
    session_faults::Fault,
    setup::{Setup, Trouble},
};

async fn a_job_whose_holder_loses_its_session_is_claimed_by_another_and_the_holder_is_refused(store: Store) {
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
    let owner = eventually("registered again", TIMEOUT, again).await;
    assert_eq!(agent.coordinator.session_id(), Some(owner));
    assert!(board.is_connected());
}

async fn while_the_store_is_unreachable_cached_jobs_are_listed_and_a_fresh_listing_fails_in_time(
    store: Store,
) {
    let (agent, board) = worker(&store, "a").await;
    board.post("x").await.unwrap();
    agent.suspend();
    until("suspended", TIMEOUT, || !board.is_connected()).await;
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
        tokio::time::timeout(TIMEOUT, board.jobs().ensure_fresh()).await.expect("in time").unwrap_err();
    assert!(matches!(&error, BoardError::Service(error) if error.is_transient()), "{error}");
    let error = tokio::time::timeout(TIMEOUT, board.try_claim_next()).await.expect("in time").unwrap_err();
    assert!(matches!(&error, BoardError::Service(error) if error.is_transient()), "{error}");
    assert_eq!(board.jobs().await.unwrap().len(), 1);
    match reach {
        Some(memory) => memory.refuse_connections(false),
        None => agent.resume(),
    }
    until("connected", TIMEOUT, || board.is_connected()).await;
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
    // Longer than any caller waits for a session.
    let memory = store.ensemble();
    memory.refuse_connections(true);
    memory.expire(agent.coordinator.session_id().unwrap());
    tokio::time::sleep(100 * SECOND).await;
    memory.refuse_connections(false);
    // After so many attempts the next one may be half a minute away.
    until("connected", 2 * TIMEOUT, || board.is_connected()).await;
    board.post("after").await.unwrap();
    assert_eq!(children(&*observer, &receipts).await.len(), 1);
    board.close().await;
    let gone = || async { children(&*observer, &receipts).await.is_empty().then_some(()) };
    eventually("no receipts", TIMEOUT, gone).await;
}

/// A bug: the job was on the board, and the poster got the error that nothing was done. It would have posted it again.
#[tokio::test(start_paused = true)]
async fn a_post_whose_session_ends_during_the_search_for_its_job_is_never_taken_for_a_refusal() {
    for nth_read in 1..=8 {
        let setup = Setup::new().await;
        let board = setup.board_of(&setup.victim).await;
        setup.plan(Trouble::Both((1, LostReply::AfterApplying), (nth_read, Fault::ExpiresAtRead)));
        let posted = soon(board.post("x")).await;
        assert_ne!(posted.outcome(), Outcome::NotDone, "at read {nth_read}: {posted:?}");
        assert_eq!(setup.children("/place/jb").await.len(), 1);
    }
}

/// A bug: a process could not claim a job again while one of its callers kept the claim that was lost with an earlier
/// session. A caller that waited for the job had the board listed all the time.
#[tokio::test(start_paused = true)]
async fn a_lost_claim_that_is_not_dropped_yet_does_not_prevent_another_claim_by_its_process() {
    let setup = Setup::new().await;
    let board = setup.board_of(&setup.victim).await;
    board.post("x").await.unwrap();
    let stale = board.claim_next().await.unwrap();
    setup.memory().expire(setup.victim.session_id().unwrap());
    stale.lease().lost().await;
    let lists = setup.faults.calls().lists;
    let fresh = tokio::time::timeout(20 * SECOND, board.claim_next()).await;
    let lists = setup.faults.calls().lists - lists;
    let fresh = fresh.unwrap_or_else(|_| panic!("not claimed, with {lists} listings")).unwrap();
    assert!(fresh.token() > stale.token() && fresh.lease().is_held());
    let refused = stale.consume().await;
    assert!(
        matches!(refused, Err(BoardError::Lost { .. } | BoardError::OutcomeUnknown { .. })),
        "{refused:?}"
    );
    tokio::time::sleep(100 * MS).await;
    assert!(fresh.lease().is_held());
    // The stale claim must not have removed the fresh one from the registry either.
    let again = tokio::time::timeout(5 * SECOND, board.claim(fresh.job())).await.unwrap();
    assert!(matches!(again, Err(BoardError::Unclaimable { .. })), "{again:?}");
    fresh.consume().await.unwrap();
}

on_both_backends!(
    a_job_whose_holder_loses_its_session_is_claimed_by_another_and_the_holder_is_refused,
    a_post_whose_session_dies_before_the_reply_is_reported_with_its_uuid,
    a_board_goes_on_after_a_lost_session_and_registers_again,
    while_the_store_is_unreachable_cached_jobs_are_listed_and_a_fresh_listing_fails_in_time,
);
