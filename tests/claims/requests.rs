//! The number of requests of each operation of the board and the queue.
//!
//! Requests up to the return of the operation count. Requests in the background, mostly listings, are for all
//! operations of some time together.

use std::future::Future;

use apportion::{
    board::JobState,
    testing::{Calls, Faults},
};
use serde_json::json;
use tokio::time::sleep;

use crate::support::{
    SECOND,
    fleet::{Agent, Store},
};

/// Requests that the caller waits for: transactions with writes, and reads.
type Count = (u64, u64);

fn reads(calls: Calls) -> u64 {
    calls.lists + calls.gets + calls.get_manys + calls.node_watches + calls.syncs
}

/// A listing in the background, with the reads of its jobs, may come at the same moment.
#[track_caller]
fn assert_takes(what: &str, (writes, readings): Count, expected: Count) {
    let without_look = [readings, readings.saturating_sub(1), readings.saturating_sub(2)];
    let is_so = writes == expected.0 && without_look.contains(&expected.1);
    assert!(is_so, "{what}: {writes} writes and {readings} readings, not {expected:?}");
}

/// Runs `work` when nothing else goes on, and returns the number of requests.
async fn counted<T>(faults: &Faults, work: impl Future<Output = T>) -> (T, Count) {
    sleep(3 * SECOND).await;
    let before = faults.calls();
    let done = work.await;
    let after = faults.calls();
    (done, (after.writes - before.writes, reads(after) - reads(before)))
}

async fn agent(store: &Store) -> (Agent, Faults) {
    let agent = store.agent("counted").await;
    let faults = agent.faults().clone();
    (agent, faults)
}

#[tokio::test(start_paused = true)]
async fn each_operation_on_a_job_takes_one_write_or_two_readings() {
    let (agent, faults) = agent(&Store::memory()).await;
    let board = agent.coordinator.job_board("/jobs").await.unwrap();
    for number in 0..4 {
        let (_, count) = counted(&faults, async { board.post(format!("{number}")).await.unwrap() }).await;
        assert_takes("post", count, (1, 0));
    }
    let (jobs, count) = counted(&faults, async { board.jobs().await.unwrap() }).await;
    assert_eq!(jobs.len(), 4);
    assert_takes("jobs", count, (0, 0));
    let (_, count) = counted(&faults, async { board.jobs().ensure_fresh().await.unwrap() }).await;
    assert_takes("jobs, ensure fresh", count, (0, 2));
    let (claim, count) = counted(&faults, async { board.claim_next().await.unwrap() }).await;
    assert_takes("claim_next", count, (1, 0));
    let (owner, count) = counted(&faults, async { board.find_owner(claim.job()).await.unwrap() }).await;
    assert_eq!(owner.as_deref(), Some("counted"));
    assert_takes("find_owner", count, (0, 2));
    let (state, count) = counted(&faults, async { board.state(claim.job()).await.unwrap() }).await;
    assert_eq!(state, JobState::Claimed);
    assert_takes("state", count, (0, 2));
    let ((), count) = counted(&faults, async { claim.consume().await.unwrap() }).await;
    assert_takes("consume", count, (1, 0));
    // The first one on a board creates the folder of the records.
    board.claim_next().await.unwrap().abandon().await.unwrap();
    let claim = board.claim_next().await.unwrap();
    let ((), count) = counted(&faults, async { claim.abandon().await.unwrap() }).await;
    assert_takes("abandon", count, (1, 0));
    let claim = board.claim_next().await.unwrap();
    let ((), count) = counted(&faults, async { claim.trash().await.unwrap() }).await;
    assert_takes("trash", count, (1, 0));
}

#[tokio::test(start_paused = true)]
async fn a_board_of_ten_thousand_jobs_is_listed_with_a_few_requests_and_then_with_two() {
    let store = Store::memory();
    let (poster, _) = agent(&store).await;
    let board = poster.coordinator.job_board("/jobs").await.unwrap();
    for number in 0..10_000 {
        board.post(format!("{number}")).await.unwrap();
    }
    let reader = store.agent("reader").await;
    let faults = reader.faults().clone();
    let open = async { reader.coordinator.job_board("/jobs").await.unwrap() };
    let (board, count) = counted(&faults, open).await;
    assert_eq!(board.jobs().await.unwrap().len(), 10_000);
    // A reply has at most 256 znodes, and the first replies have few, because the sizes are not known yet.
    assert!(count.0 == 0 && (7 + 40..7 + 50).contains(&count.1), "open: {count:?}");
    let (jobs, count) = counted(&faults, async { board.jobs().ensure_fresh().await.unwrap() }).await;
    assert_eq!(jobs.len(), 10_000);
    assert_takes("jobs, ensure fresh", count, (0, 2));
}

#[tokio::test(start_paused = true)]
async fn each_operation_on_a_queue_takes_one_write_and_a_reading_at_most() {
    let (agent, faults) = agent(&Store::memory()).await;
    let queue = agent.coordinator.queue("/reports").await.unwrap();
    let put = |number: usize| {
        let queue = queue.clone();
        async move { drop(queue.put(json!(number)).await.unwrap()) }
    };
    let ((), count) = counted(&faults, put(0)).await;
    assert_takes("the first put, which counts what waits before", count, (1, 1));
    let ((), count) = counted(&faults, put(1)).await;
    assert_takes("put, long after another", count, (1, 1));
    // Ten seconds after a change it is listed in the background.
    let (mut delivery, count) = counted(&faults, async { queue.take().await.unwrap() }).await;
    assert_takes("take, with a listing", count, (1, 2));
    let ((), count) = counted(&faults, async { delivery.update(json!("half")).await.unwrap() }).await;
    assert_takes("update", count, (1, 0));
    let ((), count) = counted(&faults, async { delivery.done(json!("all")).await.unwrap() }).await;
    assert_takes("done", count, (1, 0));
    let ((), count) = counted(&faults, async { (put(2).await, put(3).await).1 }).await;
    assert_takes("put, soon after another", count, (2, 1));
    let (_, count) = counted(&faults, async { queue.len().await.unwrap() }).await;
    assert_takes("len", count, (0, 1));
    let delivery = queue.take().await.unwrap();
    let ((), count) = counted(&faults, async { delivery.release().await.unwrap() }).await;
    assert_takes("release", count, (1, 0));
    let (deliveries, count) = counted(&faults, async { queue.take_many(3).await.unwrap() }).await;
    assert_eq!(deliveries.len(), 3);
    assert_takes("take_many", count, (3, 2));
}

#[tokio::test(start_paused = true)]
async fn a_fresh_process_passes_over_many_paused_jobs_and_entries_with_few_requests() {
    const PAUSED: usize = 500;
    let store = Store::memory();
    let (first, _) = agent(&store).await;
    let board = first.coordinator.job_board("/jobs").await.unwrap();
    let queue = first.coordinator.queue("/reports").await.unwrap();
    let hour = 3600 * SECOND;
    for number in 0..PAUSED {
        board.post(format!("{number}")).priority(apportion::board::Priority::High).await.unwrap();
        board.claim_next().await.unwrap().abandon_after(hour).await.unwrap();
        queue.put(json!(number)).priority(900).delay(hour).await.unwrap();
    }
    board.post("good").await.unwrap();
    queue.put("good").await.unwrap();
    let late = store.agent("late").await;
    let faults = late.faults().clone();
    let board = late.coordinator.job_board("/jobs").await.unwrap();
    let (claim, count) = counted(&faults, async { board.claim_next().await.unwrap() }).await;
    assert_eq!(claim.job().name(), "good");
    assert!(count.1 <= 3 * PAUSED as u64 / 100, "{count:?}");
    let queue = late.coordinator.queue("/reports").await.unwrap();
    let (delivery, count) = counted(&faults, async { queue.take().await.unwrap() }).await;
    assert_eq!(delivery.payload(), Some(&json!("good")));
    assert!(count.1 <= 4 * PAUSED as u64 / 100, "{count:?}");
}

#[tokio::test(start_paused = true)]
async fn the_entries_of_a_dead_worker_are_given_back_with_one_write_each() {
    let store = Store::memory();
    let (survivor, faults) = agent(&store).await;
    let queue = survivor.coordinator.queue("/reports").await.unwrap();
    for number in 0..10 {
        queue.put(json!(number)).await.unwrap();
    }
    let worker = store.agent("worker").await;
    let theirs = worker.coordinator.queue("/reports").await.unwrap();
    let taken = theirs.take_many(10).await.unwrap();
    assert_eq!(taken.len(), 10);
    sleep(3 * SECOND).await;
    let before = faults.calls();
    worker.crash();
    while queue.len().await.unwrap() < 10 {
        sleep(SECOND / 10).await;
    }
    assert_eq!(faults.calls().writes - before.writes, 10);
}
