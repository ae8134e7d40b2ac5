//! A real server that is restarted while jobs and entries are held.

use apportion::{board::JobState, queue::QueueError};

use crate::{
    ledger::{HasOutcome, Outcome},
    setup::AtOnce as _,
    support::{SECOND, Server, Settings, fleet::Store, soon},
};

async fn server() -> Server {
    Server::start_with(&Settings { lines: vec!["forceSync=no".into()], ..Settings::default() }).await
}

#[tokio::test]
async fn claims_are_held_after_a_restart_of_the_server_and_end_once() {
    let mut server = server().await;
    // Longer than the restart.
    let store = Store { session_timeout: 30 * SECOND, ..Store::on(&server, "restart") };
    let agent = store.agent("a").await;
    let (board, queue) = (
        agent.coordinator.job_board("/place/jb").at_once().await.unwrap(),
        agent.coordinator.queue("/queue").at_once().await.unwrap(),
    );
    for name in ["a", "b"] {
        board.post(name).await.unwrap();
        queue.put(name).await.unwrap();
    }
    let claim = soon(board.claim_next()).await.unwrap();
    let delivery = soon(queue.take()).await.unwrap();
    let (session, restarted) = (agent.coordinator.session_id(), server.restart());
    // Calls that begin while there is no server return when the server is up again.
    let (posted, put, next, ()) =
        tokio::join!(board.post("c"), queue.put("c"), soon(board.claim_next()), restarted);
    assert_ne!(posted.outcome(), Outcome::Unknown, "{posted:?}");
    assert_ne!(put.outcome(), Outcome::Unknown, "{put:?}");
    let next = next.unwrap();
    assert_ne!(next.job().path(), claim.job().path());
    assert_eq!(agent.coordinator.session_id(), session, "the session lives on");
    assert_eq!(board.state(claim.job()).await.unwrap(), JobState::Claimed);
    assert!(claim.lease().is_held() && delivery.lease().is_held());
    soon(claim.consume()).await.unwrap();
    soon(delivery.done(())).await.unwrap();
    soon(next.consume()).await.unwrap();
    let left = usize::from(posted.is_ok());
    assert_eq!(board.jobs().ensure_fresh().await.unwrap().len(), left);
    assert_eq!(queue.len().await.unwrap(), 1 + usize::from(put.is_ok()));
    assert_eq!(soon(queue.collect(9)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn claims_of_a_session_that_a_long_restart_has_ended_go_to_another_worker() {
    let mut server = server().await;
    let store = Store::on(&server, "outage");
    let agent = store.agent("a").await;
    let (board, queue) = (
        agent.coordinator.job_board("/place/jb").at_once().await.unwrap(),
        agent.coordinator.queue("/queue").at_once().await.unwrap(),
    );
    board.post("a").await.unwrap();
    queue.put("a").await.unwrap();
    let stale = soon(board.claim_next()).await.unwrap();
    let delivery = soon(queue.take()).await.unwrap();
    server.kill();
    // Before the server could end the session, if it were there, the work stops.
    let lost = tokio::time::timeout(store.session_timeout, stale.lease().lost()).await;
    assert!(lost.is_ok() && !delivery.lease().is_held());
    tokio::time::sleep(store.session_timeout).await;
    server.restart().await;
    let fresh = soon(board.claim_next()).await.unwrap();
    let again = soon(queue.take()).await.unwrap();
    assert!(fresh.token() > stale.token() && again.lease().token() > delivery.lease().token());
    assert_eq!(again.attempt(), 2);
    assert_ne!(soon(stale.consume()).await.outcome(), Outcome::Done);
    let refused = soon(delivery.done("late")).await;
    assert!(matches!(refused, Err(QueueError::Lost(_) | QueueError::OutcomeUnknown { .. })), "{refused:?}");
    soon(fresh.consume()).await.unwrap();
    soon(again.done("in time")).await.unwrap();
    let results = soon(queue.collect(9)).await.unwrap();
    assert_eq!(results.iter().map(|result| result.result().unwrap()).collect::<Vec<_>>(), ["in time"]);
}
