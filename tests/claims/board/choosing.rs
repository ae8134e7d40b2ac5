//! The job that a worker claims, and its details.

use std::collections::HashSet;

use apportion::board::{BoardError, BoardEvent, Priority};
use futures_util::StreamExt as _;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;

use super::*;
use crate::support::{MS, fleet::on_both_backends};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Resize {
    volume: String,
    bytes: u64,
}

async fn a_worker_claims_what_it_wants_the_most_urgent_first(store: Store) {
    let ((_a, ours), (_b, theirs)) = (worker(&store, "a").await, worker(&store, "b").await);
    for (name, priority) in
        [("resize-1", Priority::Low), ("delete-1", Priority::VeryHigh), ("resize-2", Priority::High)]
    {
        theirs.post(name).priority(priority).await.unwrap();
    }
    let resize = |job: &Job| job.name().starts_with("resize");
    let first = ours.claim_where(resize).await.unwrap();
    assert_eq!(first.job().name(), "resize-2");
    let second = ours.try_claim_where(resize).await.unwrap().unwrap();
    assert_eq!(second.job().name(), "resize-1");
    assert!(ours.try_claim_where(resize).await.unwrap().is_none());
    assert!(timeout(100 * MS, ours.claim_where(resize)).await.is_err(), "it waits");
    let waiting = ours.claim_where(resize);
    let posting = async { theirs.post("resize-3").await.unwrap() };
    let (third, posted) = tokio::join!(timeout(TIMEOUT, waiting), posting);
    let third = third.unwrap().unwrap();
    assert_eq!(third.job(), &posted);
    assert_eq!(ours.claim_next().await.unwrap().job().name(), "delete-1");
}

async fn details_go_in_and_come_out_as_types_of_the_caller(store: Store) {
    let (_a, board) = worker(&store, "a").await;
    let details = Resize { volume: "v-17".into(), bytes: 1 << 40 };
    board.post("resize").details(&details).await.unwrap();
    let claim = board.claim_next().await.unwrap();
    assert_eq!(claim.job().details_as::<Resize>().unwrap(), details);
    assert_eq!(claim.job().details()["volume"], "v-17");
    assert!(claim.job().details_as::<Vec<u8>>().is_err());
    for (what, refused) in [
        ("a number", board.post("x").details(7).await),
        ("a list", board.post("x").details(["a"]).await),
        ("no JSON", board.post("x").details(std::collections::BTreeMap::from([(vec![1], 1)])).await),
    ] {
        assert!(matches!(refused, Err(BoardError::Details { .. })), "{what}: {refused:?}");
    }
}

async fn jobs_are_equal_if_they_are_the_same_posting(store: Store) {
    let ((_a, ours), (_b, theirs)) = (worker(&store, "a").await, worker(&store, "b").await);
    let posted = ours.post("x").await.unwrap();
    ours.post("x").await.unwrap();
    let seen: HashSet<_> = theirs.jobs().ensure_fresh().await.unwrap().into_iter().collect();
    assert_eq!(seen.len(), 2);
    assert!(seen.contains(&posted));
}

async fn events_are_a_stream(store: Store) {
    let (_a, board) = worker(&store, "a").await;
    let events = board.events();
    board.post("x").await.unwrap();
    board.claim_next().await.unwrap().consume().await.unwrap();
    board.post("y").await.unwrap();
    let is_y = |event: &BoardEvent| event.job().name() == "y";
    let mut found = events.filter(|event| std::future::ready(is_y(event))).boxed();
    assert!(matches!(timeout(TIMEOUT, found.next()).await.unwrap(), Some(BoardEvent::Posted(_))));
}

on_both_backends!(
    a_worker_claims_what_it_wants_the_most_urgent_first,
    details_go_in_and_come_out_as_types_of_the_caller,
    jobs_are_equal_if_they_are_the_same_posting,
    events_are_a_stream,
);
