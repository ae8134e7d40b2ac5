//! Lost replies: each operation is done once.

use apportion::{backend::memory::LostReply, board::JobState};

use super::*;
use crate::setup::{Setup, Trouble};
use crate::support::{
    EITHER,
    fleet::{exists, on_both_backends},
    soon,
};

/// Loses the reply to the next write of an agent.
fn lose_next(agent: &Agent, lost: LostReply) {
    let faults = agent.faults();
    faults.lose_nth_write(faults.calls().writes + 1, lost);
}

async fn a_post_whose_reply_is_lost_is_found_beside_a_job_to_which_access_is_denied(store: Store) {
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

/// The receipts of posts stay with the board, and go with it.
#[tokio::test(start_paused = true)]
async fn the_receipts_of_posts_are_few_and_go_with_the_board_whatever_replies_are_lost() {
    for first in EITHER {
        for second in EITHER {
            let setup = Setup::new().await;
            let board = setup.board_of(&setup.victim).await;
            board.post("x").await.unwrap();
            setup.plan(Trouble::Replies(1, first, second));
            board.post("y").await.unwrap();
            board.post("z").await.unwrap();
            assert_eq!(setup.children("/place/.posting").await.len(), 1, "one post at a time");
            board.close().await;
            let gone = || async { setup.children("/place/.posting").await.is_empty().then_some(()) };
            eventually("no receipts", TIMEOUT, gone).await;
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
            soon(setup.victim.job_board("/place/jb").at_once().into_future()).await.unwrap();
        }
    }
}

on_both_backends!(
    a_post_whose_reply_is_lost_is_on_the_board_once,
    a_post_whose_reply_is_lost_is_found_beside_a_job_to_which_access_is_denied,
    a_claim_and_its_end_whose_replies_are_lost_happen_once,
);
