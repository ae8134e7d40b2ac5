//! Replies that are lost: what was asked for happens once.

use apportion::{backend::memory::LostReply, board::JobState};

use super::*;
use crate::setup::{Setup, Trouble};
use crate::support::{
    EITHER,
    fleet::{exists, on_both_backends},
    soon,
};

/// Loses the reply to the next write of an agent.
async fn lose_next(agent: &Agent, board: &JobBoard, observer: &dyn Session, lost: LostReply) {
    // The markers of posts are deleted in the background, which is a write, too.
    let markers = board.path().parent().unwrap().join(".posting").unwrap();
    let is_quiet = || async { children(observer, &markers).await.is_empty().then_some(()) };
    eventually("no markers", PATIENCE, is_quiet).await;
    let faults = agent.faults();
    faults.lose_nth_write(faults.calls().writes + 1, lost);
}

async fn a_post_whose_reply_is_lost_is_found_beside_a_job_that_is_kept_from_us(store: Store) {
    let (agent, board) = worker(&store, "a").await;
    let observer = store.session().await;
    let secret = board.post("secret").await.unwrap();
    agent.faults().deny(secret.path());
    lose_next(&agent, &board, &*observer, LostReply::AfterApplying).await;
    let job = board.post("open").await.unwrap();
    assert_eq!(job.name(), "open");
    assert!(exists(&*observer, job.path()).await);
}

async fn a_post_whose_reply_is_lost_is_on_the_board_once(store: Store) {
    let (agent, board) = worker(&store, "a").await;
    let observer = store.session().await;
    for (number, lost) in EITHER.into_iter().enumerate() {
        board.post("other").await.unwrap();
        lose_next(&agent, &board, &*observer, lost).await;
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
            lose_next(&agent, &board, &*observer, lost).await;
            let claimed = claim(&board).await;
            assert!(claimed.lease().is_held());
            assert_eq!(board.state(&job).await.unwrap(), JobState::Claimed);
            lose_next(&agent, &board, &*observer, lost).await;
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

/// A marker stayed for as long as the session lived.
#[tokio::test(start_paused = true)]
async fn markers_of_posts_go_whatever_replies_are_lost() {
    for first in EITHER {
        for second in EITHER {
            let setup = Setup::new().await;
            let board = setup.board_of(&setup.victim).await;
            board.post("x").await.unwrap();
            board.post("y").await.unwrap();
            setup.plan(Trouble::Replies(1, first, second));
            setup.heals().await;
        }
    }
}

/// Opening a board failed where opening a queue did not.
#[tokio::test(start_paused = true)]
async fn a_board_is_opened_whatever_replies_are_lost() {
    for n in 1..=4 {
        for lost in EITHER {
            let setup = Setup::new().await;
            setup.plan(Trouble::Replies(n, lost, LostReply::BeforeApplying));
            soon(setup.victim.job_board("/place/jb")).await.unwrap();
        }
    }
}

on_both_backends!(
    a_post_whose_reply_is_lost_is_on_the_board_once,
    a_post_whose_reply_is_lost_is_found_beside_a_job_that_is_kept_from_us,
    a_claim_and_its_end_whose_replies_are_lost_happen_once,
);
