//! The steps that `board` and `board_peer` measure. Each step opens what it needs before it starts its clock.
//!
//! Each worker has a thread, a runtime and a session of its own, as if it were a process.
#![allow(dead_code, reason = "each benchmark uses its part")]
#![expect(clippy::disallowed_methods, reason = "this measures real time")]

use std::{
    future::Future,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use apportion::{Config, PartitionCoordinator, backend::Memory, run::JobTask};
use serde_json::json;
use tokio_util::sync::CancellationToken;

/// The store to use.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Memory(Memory),
    /// A server, as `host:port`.
    Server(String),
}

impl Place {
    async fn connect(&self) -> PartitionCoordinator {
        let config = match self {
            Place::Memory(memory) => Config::for_backend(memory.clone()),
            Place::Server(host) => Config::from_url(format!("zookeeper://{host}")).expect("it is one"),
        };
        PartitionCoordinator::connect(config).await.expect("the store answers")
    }
}

/// Runs it on a runtime of one thread.
pub(crate) fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("there is a thread").block_on(work)
}

/// Posts jobs, one after the other.
pub(crate) fn post(place: &Place, path: &str, count: usize) -> Duration {
    block_on(async {
        let coordinator = place.connect().await;
        let board = coordinator.job_board(path).await.expect("it opens");
        let start = Instant::now();
        for number in 0..count {
            let name = format!("job-{number}");
            board.post(name).details(json!({ "number": number })).await.expect("it is posted");
        }
        let took = start.elapsed();
        coordinator.shutdown().await.expect("it ends");
        took
    })
}

/// Claims and consumes all jobs of a board.
pub(crate) fn consume(place: &Place, path: &str, workers: usize, count: usize) -> Duration {
    by_all(workers, count, async |turns| {
        let coordinator = place.connect().await;
        let board = coordinator.job_board(path).await.expect("it opens");
        turns.start();
        while turns.next() {
            board.claim_next().await.expect("there is one").consume().await.expect("it is consumed");
        }
        turns.end();
        coordinator.shutdown().await.expect("it ends");
    })
}

/// The name of the job that fails each time.
const FAILS: &str = "fails";

/// Claims and consumes all jobs of a board, which has one more: the first one, whose worker fails each time.
pub(crate) fn consume_beside_a_failure(place: &Place, path: &str, workers: usize, count: usize) -> Duration {
    block_on(async {
        let coordinator = place.connect().await;
        let board = coordinator.job_board(path).await.expect("it opens");
        board.post(FAILS).await.expect("it is posted");
        coordinator.shutdown().await.expect("it ends");
    });
    post(place, path, count);
    by_all(workers, count, async |turns| {
        let coordinator = place.connect().await;
        let board = coordinator.job_board(path).await.expect("it opens");
        turns.start();
        while turns.next() {
            loop {
                let claim = board.claim_next().await.expect("there is one");
                if claim.job().name() != FAILS {
                    break claim.consume().await.expect("it is consumed");
                }
                claim.abandon().because("as always").await.expect("it is given back");
            }
        }
        turns.end();
        coordinator.shutdown().await.expect("it ends");
    })
}

/// The time in which runners with four handlers each do all jobs of a board. With `fails`, it has one more: the first one,
/// whose handler fails each time.
pub(crate) fn run_jobs(place: &Place, path: &str, workers: usize, count: usize, fails: bool) -> Duration {
    if fails {
        block_on(async {
            let coordinator = place.connect().await;
            let board = coordinator.job_board(path).await.expect("it opens");
            board.post(FAILS).await.expect("it is posted");
            coordinator.shutdown().await.expect("it ends");
        });
    }
    post(place, path, count);
    let (done, all_done) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    by_all(workers, count, async |turns| {
        let coordinator = place.connect().await;
        let board = coordinator.job_board(path).await.expect("it opens");
        let (done, end) = (done.clone(), all_done.clone());
        let handler = move |job: JobTask| {
            let is_last = job.name() != FAILS && done.fetch_add(1, Ordering::Relaxed) + 1 == count;
            if is_last {
                end.cancel();
            }
            async move { if job.name() == FAILS { Err("as always") } else { Ok(()) } }
        };
        let running = board.run().otherwise(handler).concurrency(4).max_attempts(3);
        turns.start();
        running.until(all_done.clone().cancelled_owned()).await.expect("it runs");
        turns.end();
        coordinator.shutdown().await.expect("it ends");
    })
}

/// Takes and finishes all entries of a queue, which has one more: the most urgent one, whose worker fails each time.
pub(crate) fn finish_beside_a_failure(place: &Place, root: &str, workers: usize, count: usize) -> Duration {
    block_on(async {
        let coordinator = place.connect().await;
        let queue = coordinator.queue(root).await.expect("it opens");
        queue.put(FAILS).priority(900).await.expect("it is put");
        coordinator.shutdown().await.expect("it ends");
    });
    put(place, root, count);
    by_all(workers, count, async |turns| {
        let coordinator = place.connect().await;
        let queue = coordinator.queue(root).await.expect("it opens");
        turns.start();
        while turns.next() {
            loop {
                let delivery = queue.take().await.expect("there is one");
                if delivery.entry().priority() != 900 {
                    break delivery.done(true).await.expect("it is finished");
                }
                delivery.release().because("as always").await.expect("it is given back");
            }
        }
        turns.end();
        coordinator.shutdown().await.expect("it ends");
    })
}

/// Connects, opens the board and iterates over the jobs with their state; then iterates again after a new listing.
pub(crate) fn iterate(place: &Place, path: &str, count: usize) -> [Duration; 2] {
    block_on(async {
        let mut start = Instant::now();
        let coordinator = place.connect().await;
        let board = coordinator.job_board(path).await.expect("it opens");
        let mut both = [Duration::ZERO; 2];
        for took in &mut both {
            let jobs = board.jobs().ensure_fresh().await.expect("it is listed");
            let unclaimed = jobs.iter().filter(|job| !job.is_claimed()).count();
            *took = start.elapsed();
            assert_eq!((jobs.len(), unclaimed), (count, count));
            start = Instant::now();
        }
        coordinator.shutdown().await.expect("it ends");
        both
    })
}

/// Puts entries into a queue, one after the other.
pub(crate) fn put(place: &Place, root: &str, count: usize) -> Duration {
    block_on(async {
        let coordinator = place.connect().await;
        let queue = coordinator.queue(root).await.expect("it opens");
        let start = Instant::now();
        for number in 0..count {
            queue.put(json!({ "number": number })).await.expect("it is put");
        }
        let took = start.elapsed();
        coordinator.shutdown().await.expect("it ends");
        took
    })
}

/// Puts entries of labels that are not queued yet into a queue that has `queued` others.
pub(crate) fn put_labelled(place: &Place, root: &str, queued: usize, count: usize) -> Duration {
    put(place, root, queued);
    block_on(async {
        let coordinator = place.connect().await;
        let queue = coordinator.queue(root).await.expect("it opens");
        let start = Instant::now();
        for number in 0..count {
            queue.put(number).unless_queued(format!("label-{number}")).await.expect("it is put");
        }
        let took = start.elapsed();
        coordinator.shutdown().await.expect("it ends");
        took
    })
}

/// Takes and finishes all entries of a queue.
pub(crate) fn finish(place: &Place, root: &str, workers: usize, count: usize) -> Duration {
    by_all(workers, count, async |turns| {
        let coordinator = place.connect().await;
        let queue = coordinator.queue(root).await.expect("it opens");
        turns.start();
        while turns.next() {
            queue.take().await.expect("there is one").done(true).await.expect("it is finished");
        }
        turns.end();
        coordinator.shutdown().await.expect("it ends");
    })
}

/// Gives out as many turns as there is work.
struct Turns {
    left: AtomicUsize,
    all: Barrier,
}

impl Turns {
    /// Waits until all are ready.
    fn start(&self) {
        self.all.wait();
    }

    fn next(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }

    /// Waits until all have ended.
    fn end(&self) {
        self.all.wait();
    }
}

/// The time from when all are ready until all have ended.
fn by_all(workers: usize, count: usize, work: impl AsyncFn(&Turns) + Sync) -> Duration {
    let turns = Turns { left: AtomicUsize::new(count), all: Barrier::new(workers + 1) };
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| block_on(work(&turns)));
        }
        turns.start();
        let start = Instant::now();
        turns.end();
        start.elapsed()
    })
}
