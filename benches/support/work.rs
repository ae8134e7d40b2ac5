//! What `board` and `board_peer` measure. Each step opens what it needs first, and starts its clock then.
#![allow(dead_code, reason = "each benchmark uses its part")]

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use apportion::{Config, PartitionCoordinator, backend::Memory};
use serde_json::json;
use tokio::{sync::Barrier, task::JoinSet};

/// Where the store is.
#[derive(Debug, Clone)]
pub(crate) enum Place {
    Memory(Memory),
    /// A server, as `host:port`.
    Server(String),
}

impl Place {
    /// A process of its own, as far as the store can tell.
    pub(crate) async fn connect(&self) -> PartitionCoordinator {
        let config = match self {
            Place::Memory(memory) => Config::for_backend(memory.clone()),
            Place::Server(host) => Config::from_url(&format!("zookeeper://{host}")).expect("it is one"),
        };
        PartitionCoordinator::connect(config).await.expect("the store answers")
    }
}

/// Posts jobs, one after the other.
pub(crate) async fn post(place: &Place, path: &str, count: usize) -> Duration {
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
}

/// Claims and consumes all jobs of a board, with workers that have a session each.
pub(crate) async fn consume(place: &Place, path: &str, workers: usize, count: usize) -> Duration {
    by_all(place, workers, count, |coordinator, turns| {
        let path = path.to_owned();
        async move {
            let board = coordinator.job_board(&path).await.expect("it opens");
            turns.start().await;
            while turns.next() {
                board.claim_next().await.expect("there is one").consume().await.expect("it is consumed");
            }
            turns.end().await;
            coordinator.shutdown().await.expect("it ends");
        }
    })
    .await
}

/// From no connection to the jobs with their state, and the same again, read anew.
pub(crate) async fn iterate(place: &Place, path: &str, count: usize) -> [Duration; 2] {
    let start = Instant::now();
    let coordinator = place.connect().await;
    let board = coordinator.job_board(path).await.expect("it opens");
    let mut took = [Duration::ZERO; 2];
    let mut start = start;
    for took in &mut took {
        let jobs = board.jobs().ensure_fresh().await.expect("it is listed");
        let unclaimed = jobs.iter().filter(|job| !job.is_claimed()).count();
        *took = start.elapsed();
        assert_eq!((jobs.len(), unclaimed), (count, count));
        start = Instant::now();
    }
    coordinator.shutdown().await.expect("it ends");
    took
}

/// Puts entries into a queue, one after the other.
pub(crate) async fn put(place: &Place, root: &str, count: usize) -> Duration {
    let coordinator = place.connect().await;
    let queue = coordinator.queue(root).await.expect("it opens");
    let start = Instant::now();
    for number in 0..count {
        queue.put(json!({ "number": number })).await.expect("it is put");
    }
    let took = start.elapsed();
    coordinator.shutdown().await.expect("it ends");
    took
}

/// Takes and finishes all entries of a queue, with workers that have a session each.
pub(crate) async fn finish(place: &Place, root: &str, workers: usize, count: usize) -> Duration {
    by_all(place, workers, count, |coordinator, turns| {
        let root = root.to_owned();
        async move {
            let queue = coordinator.queue(root).await.expect("it opens");
            turns.start().await;
            while turns.next() {
                queue.take().await.expect("there is one").done(true).await.expect("it is finished");
            }
            turns.end().await;
            coordinator.shutdown().await.expect("it ends");
        }
    })
    .await
}

/// Hands out as many turns as there is work.
struct Turns {
    left: AtomicUsize,
    all: Barrier,
}

impl Turns {
    /// Waits until all are ready.
    async fn start(&self) {
        self.all.wait().await;
    }

    /// Waits until all are through.
    async fn end(&self) {
        self.all.wait().await;
    }

    fn next(&self) -> bool {
        self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// From when all are ready until all are through.
async fn by_all<F: Future<Output = ()> + Send + 'static>(
    place: &Place,
    workers: usize,
    count: usize,
    work: impl Fn(PartitionCoordinator, Arc<Turns>) -> F,
) -> Duration {
    let turns = Arc::new(Turns { left: AtomicUsize::new(count), all: Barrier::new(workers + 1) });
    let mut running = JoinSet::new();
    for _ in 0..workers {
        running.spawn(work(place.connect().await, turns.clone()));
    }
    turns.start().await;
    let start = Instant::now();
    turns.end().await;
    let took = start.elapsed();
    running.join_all().await;
    took
}
