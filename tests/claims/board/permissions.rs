//! Jobs and boards to which an ACL denies permission.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use apportion::{
    backend::Error as BackendError,
    board::{JobState, PostingError},
    testing::Request,
};

use super::*;
#[cfg(feature = "zookeeper")]
use crate::support::Release;
use crate::support::{
    EITHER,
    fate::Fate,
    fleet::{Via, on_both_backends},
    path, soon,
};

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

/// Credentials of another user on the lock: then its stat is denied, too, on a current server.
async fn a_claim_whose_reply_is_lost_fails_if_the_lock_is_that_of_another_user(store: Store) {
    let (agent, board) = worker(&store, "a").await;
    let job = board.post("x").await.unwrap();
    let them = store.connect(Via(store.connector_of("ember")), "b").await;
    let theirs = them.job_board(place(&store)).await.unwrap();
    let _claim = claim(&theirs).await;
    for lost in EITHER {
        agent.faults().lose_nth_write(agent.faults().calls().writes + 1, lost);
        let claimed = soon(board.claim(&job)).await;
        assert!(matches!(claimed, Err(BoardError::Unclaimable { owner: None, .. })), "{claimed:?}");
    }
}

#[cfg(feature = "zookeeper")]
#[tokio::test]
async fn a_claim_whose_reply_is_lost_fails_if_the_lock_is_that_of_another_user_on_3_9() {
    let store = Store::shared_of(Release::V39, "lock-of-another-user").await;
    a_claim_whose_reply_is_lost_fails_if_the_lock_is_that_of_another_user(store).await;
}

on_both_backends!(
    a_claim_whose_reply_is_lost_fails_if_the_lock_is_that_of_another_user,
    a_job_to_which_permission_is_denied_does_not_affect_the_others,
    a_worker_that_waits_gets_an_error_if_permission_to_the_board_is_denied,
);

#[tokio::test(start_paused = true)]
async fn a_job_whose_lock_is_denied_is_claimed_by_another() {
    let store = Store::memory();
    let (_b, theirs) = worker(&store, "b").await;
    let (_coordinator, board, fates) = fated(&store).await;
    let job = board.post("x").await.unwrap();
    let _claim = claim(&theirs).await;
    let lock = path(&format!("{}.lock", job.path()));
    let mut is_lost = false;
    fates.decide(move |request| {
        let concerns_lock = request.paths().contains(&&lock);
        match request {
            request if request.is_write() && concerns_lock && !std::mem::replace(&mut is_lost, true) => {
                Fate::Refuse(BackendError::Unknown("lost on purpose".into()))
            }
            Request::Get(_) | Request::GetMany(_) | Request::WatchNode(_) if concerns_lock => {
                Fate::Refuse(BackendError::NotPermitted)
            }
            _ => Fate::Pass,
        }
    });
    for _ in 0..2 {
        let claimed = tokio::time::timeout(TIMEOUT, board.claim(&job)).await.expect("it comes to an end");
        assert!(matches!(claimed, Err(BoardError::Unclaimable { owner: None, .. })), "{claimed:?}");
    }
    assert_eq!(board.state(&job).await.unwrap(), JobState::Claimed);
    assert_eq!(board.find_owner(&job).await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_job_that_cannot_be_moved_to_the_trash_keeps_the_reason_until_it_can() {
    let store = Store::memory();
    let (coordinator, _, fates) = fated(&store).await;
    let board = coordinator.job_board(place(&store)).max_attempts(1).at_once().await.unwrap();
    let trash = board.path().parent().unwrap().join(".trash").unwrap();
    let refusals = Arc::new(AtomicUsize::new(0));
    let counted = refusals.clone();
    fates.decide(move |request| {
        let is_moved = request.paths().iter().any(|path| path.parent().as_ref() == Some(&trash));
        if !(request.is_write() && is_moved) {
            return Fate::Pass;
        }
        counted.fetch_add(1, SeqCst);
        Fate::Refuse(BackendError::NotPermitted)
    });
    let job = board.post("x").await.unwrap();
    denied_at(claim(&board).await.abandon().because("no space left").await);
    for refused in 2..4 {
        let again = || async {
            assert!(board.try_claim_next().await.unwrap().is_none(), "it had its last attempt");
            (refusals.load(SeqCst) >= refused).then_some(())
        };
        eventually("another process would move it", TIMEOUT, again).await;
    }
    let claimed = soon(board.claim(&job)).await.unwrap();
    assert_eq!((claimed.last_error(), claimed.attempt()), (Some("no space left"), 2));
    claimed.abandon().uncounted().await.unwrap();
    fates.pass();
    let gone = || async {
        assert!(board.try_claim_next().await.unwrap().is_none());
        board.is_empty().await.unwrap().then_some(())
    };
    eventually("it is in the trash", TIMEOUT, gone).await;
    let trashed = board.trashed().await.unwrap();
    assert_eq!((trashed[0].reason.as_deref(), trashed[0].attempts), (Some("no space left"), Some(1)));
}

/// The znode of the error, if permission was denied.
fn denied_at<T: std::fmt::Debug>(outcome: Result<T, BoardError>) -> String {
    match outcome {
        Err(BoardError::Service(apportion::Error::NotPermitted { path })) => path,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn an_error_names_the_znode_to_which_permission_is_denied_and_not_the_board() {
    let store = Store::memory();
    let (agent, board) = worker(&store, "a").await;
    let root = format!("/board-{}", store.namespace);
    for beside in [".posting", ".trash"] {
        let beside = path(&format!("{root}/{beside}"));
        agent.faults().deny(&beside);
        let outcome = agent.coordinator.job_board(format!("{root}/second")).await;
        assert_eq!(denied_at(outcome), beside.as_str());
        agent.faults().allow();
    }
    drop(board);
}

#[cfg(feature = "zookeeper")]
#[tokio::test]
async fn the_board_of_a_second_user_at_the_root_fails_with_the_znode_of_the_first() {
    let server = crate::support::Server::start().await;
    let user = async |name: &str| {
        let url = format!(
            "zookeeper://{name}:secret@{}?timeout=4&server_tick=0.1&namespace=of-{name}",
            server.connect_string()
        );
        apportion::PartitionCoordinator::connect(url).await.unwrap()
    };
    let (alice, bob) = (user("alice").await, user("bob").await);
    alice.job_board("/alices").await.unwrap();
    assert_eq!(denied_at(bob.job_board("/bobs").await), "/.trash");

    // Readable by others, but not writable.
    let admin = zookeeper_client::Client::connector()
        .with_auth("digest", b"alice:secret")
        .connect(&server.connect_string())
        .await
        .unwrap();
    for beside in ["/.trash", "/.posting"] {
        let read = zookeeper_client::Acl::new(
            zookeeper_client::Permission::READ,
            zookeeper_client::AuthId::anyone(),
        );
        let own =
            zookeeper_client::Acl::new(zookeeper_client::Permission::ALL, zookeeper_client::AuthId::authed());
        admin.set_acl(beside, &[read, own], None).await.unwrap();
    }
    let board = bob.job_board("/bobs").await.unwrap();
    assert_eq!(denied_at(board.post("x").await), "/.posting");
}
