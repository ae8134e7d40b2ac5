//! Jobs and boards to which an ACL denies permission.

use apportion::board::PostingError;

use super::*;
use crate::support::fleet::on_both_backends;

async fn a_worker_that_waits_gets_an_error_if_permission_to_the_board_is_denied(store: Store) {
    let (agent, board) = worker(&store, "a").await;
    let (_b, theirs) = worker(&store, "b").await;
    agent.faults().deny(board.path());
    let (claimed, ()) = tokio::join!(tokio::time::timeout(TIMEOUT, board.claim_next()), async {
        store.for_a_moment(5).await;
        theirs.post("x").await.unwrap();
    });
    let error = refused(claimed.expect("it does not wait for an error that does not pass"));
    assert!(matches!(&error, BoardError::Service(apportion::Error::NotPermitted { .. })), "{error}");
    agent.faults().allow();
    let claimed = eventually("repaired", TIMEOUT, || async { board.claim_next().await.ok() }).await;
    claimed.consume().await.unwrap();
}

async fn a_job_to_which_permission_is_denied_does_not_affect_the_others(store: Store) {
    let (agent, board) = worker(&store, "a").await;
    let (_b, theirs) = worker(&store, "b").await;
    let secret = theirs.post("secret").await.unwrap();
    agent.faults().deny(secret.path());
    theirs.post("open").await.unwrap();
    let (_c, late) = (agent.coordinator.member_id(), super::board(&store, &agent).await);
    for board in [&board, &late] {
        eventually("open", TIMEOUT, || async { names(board).await.contains(&"open".into()).then_some(()) })
            .await;
    }
    assert_eq!(late.set_aside()[0].reason, PostingError::NotPermitted);
    let claimed = claim(&late).await;
    assert_eq!(claimed.job().name(), "open");
    claimed.consume().await.unwrap();
    assert!(late.try_claim_next().await.unwrap().is_none());
    agent.faults().allow();
    assert_eq!(names(&late).await, ["secret"]);
    claim(&late).await.consume().await.unwrap();
}

on_both_backends!(
    a_job_to_which_permission_is_denied_does_not_affect_the_others,
    a_worker_that_waits_gets_an_error_if_permission_to_the_board_is_denied,
);
