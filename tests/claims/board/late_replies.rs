//! Replies that arrive when much has happened since.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use apportion::testing::Request;

use super::*;
use crate::support::{
    fate::{Fate, Fates},
    soon,
};

/// A worker whose writes to jobs are answered ten seconds late, and another one.
async fn late_and_quick(store: &Store) -> (apportion::PartitionCoordinator, JobBoard, Agent, JobBoard) {
    let (connector, fates) = Fates::on(store.ensemble());
    let coordinator = store.connect(connector, "late").await;
    let late = coordinator.job_board(place(store)).at_once().await.unwrap();
    let (agent, quick) = worker(store, "quick").await;
    let jobs = late.path().to_string() + "/job";
    fates.decide(move |request| match request {
        request if request.is_write() && request.paths().iter().any(|at| at.as_str().starts_with(&jobs)) => {
            Fate::Late(10 * SECOND)
        }
        _ => Fate::Pass,
    });
    (coordinator, late, agent, quick)
}

#[tokio::test(start_paused = true)]
async fn a_job_that_is_off_the_board_before_its_poster_is_told_is_known_to_be_off_it() {
    let store = Store::memory();
    let (_late, late, _quick, quick) = late_and_quick(&store).await;
    let (posted, ()) = tokio::join!(late.post("x"), async {
        soon(quick.claim_next()).await.unwrap().consume().await.unwrap();
    });
    let job = posted.unwrap();
    tokio::time::timeout(TIMEOUT, job.wait_for_end()).await.expect("it has ended").unwrap();
    assert!(late.jobs().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_job_that_was_done_before_its_last_holder_is_told_that_it_gave_it_back_is_known_to_be_off_the_board()
 {
    let store = Store::memory();
    let (_late, late, _quick, quick) = late_and_quick(&store).await;
    quick.post("x").await.unwrap();
    let claim = soon(late.claim_next()).await.unwrap();
    let job = claim.job().clone();
    let (abandoned, ()) = tokio::join!(claim.abandon(), async {
        soon(quick.claim_next()).await.unwrap().consume().await.unwrap();
    });
    abandoned.unwrap();
    tokio::time::timeout(TIMEOUT, job.wait_for_end()).await.expect("it has ended").unwrap();
    assert!(late.jobs().await.unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_job_whose_reply_was_lost_is_found_on_a_large_board_without_reading_all_of_it() {
    let store = Store::memory();
    let (_coordinator, board, fates) = fated(&store).await;
    for number in 0..1_000 {
        board.post(format!("{number}")).await.unwrap();
    }
    knows(&board, 1_000).await;
    let (read, mut is_lost) = (Arc::new(AtomicUsize::new(0)), false);
    let counts = read.clone();
    fates.decide(move |request| {
        if let Request::GetMany(paths) = request {
            counts.fetch_add(paths.len(), Ordering::SeqCst);
        }
        let loses = request.is_write() && !std::mem::replace(&mut is_lost, true);
        if loses { Fate::LoseReply } else { Fate::Pass }
    });
    let job = board.post("x").await.unwrap();
    assert_eq!((job.path().name(), &*job.name()), ("job0000001000", "x"));
    let read = read.load(Ordering::SeqCst);
    assert!(read < 100, "{read} postings were read to find one");
}
