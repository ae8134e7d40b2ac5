//! Workers do the jobs of a board, one of which always fails: it keeps no other waiting, and is in the trash in the end.
//!
//! It runs in memory. With servers: `cargo run --example hello_pool -- zookeeper://localhost:2181`

use std::{error::Error, time::Duration};

use apportion::{Config, PartitionCoordinator, backend::Memory, run::JobTask, serde_json::json};
use futures_util::future::try_join_all;
use tokio::{task::JoinSet, time::sleep};

type Failure = Box<dyn Error + Send + Sync>;

async fn resize(job: JobTask) -> Result<(), Failure> {
    sleep(Duration::from_millis(20)).await; // the work
    let size = job.details()["size"].as_u64().ok_or("it has no size")?;
    println!("{job}: {size} GB");
    Ok(())
}

/// One process of a service.
async fn work(config: Config, stop: impl Future + Send + 'static) -> Result<u64, Failure> {
    let coordinator = PartitionCoordinator::connect(config).await?;
    let (first, longest) = (Duration::from_millis(50), Duration::from_secs(1));
    let board = coordinator.job_board("/pool/jobs").pauses(first, longest).await?;
    let counts = board.run().on("resize", resize).concurrency(4).max_attempts(3).until(stop).await?;
    println!("{}: {counts}", coordinator.member_id());
    coordinator.shutdown().await?;
    Ok(counts.finished)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let config = match std::env::args().nth(1) {
        Some(url) => Config::from_url(url)?,
        None => Config::for_backend(Memory::new()),
    };
    let coordinator = PartitionCoordinator::connect(config.clone()).await?;
    let board = coordinator.job_board("/pool/jobs").await?;
    let mut jobs = vec![board.post("resize").details(json!({ "volume": "broken" })).await?];
    for number in 1..=100 {
        jobs.push(board.post("resize").details(json!({ "volume": number, "size": 10 * number })).await?);
    }
    let mut workers = JoinSet::new();
    for name in ["a", "b", "c"] {
        // A service stops at a signal, for instance `tokio::signal::ctrl_c()`.
        let ends = try_join_all(jobs.clone().into_iter().map(|job| async move { job.wait_for_end().await }));
        workers.spawn(work(config.clone().member_id(name), ends));
    }
    let done: u64 = workers.join_all().await.into_iter().sum::<Result<u64, _>>()?;
    let trashed = board.trashed().await?.pop().ok_or("the trash is empty")?;
    println!("{} is in the trash after {:?} attempts: {:?}", trashed.path, trashed.attempts, trashed.reason);
    coordinator.shutdown().await?;
    if done == 100 { Ok(()) } else { Err(format!("{done} of 100 are done").into()) }
}
