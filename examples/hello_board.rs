//! Three workers do the jobs of a board. Each job is done once.
//!
//! It runs in memory. With servers: `cargo run --example hello_board -- zookeeper://localhost:2181`

use std::{convert::Infallible, error::Error, time::Duration};

use apportion::{Config, PartitionCoordinator, backend::Memory, run::JobTask, serde_json::json};
use tokio::sync::watch;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = match std::env::args().nth(1) {
        Some(url) => Config::from_url(url)?,
        None => Config::for_backend(Memory::new()),
    };
    let coordinator = PartitionCoordinator::connect(config.clone()).await?;
    let board = coordinator.job_board("/hello/jobs").await?;
    let mut jobs = Vec::new();
    for number in 1..=10 {
        jobs.push(board.post("greet").details(json!({ "world": number })).await?);
    }
    let (stop, stopped) = watch::channel(());
    let all_done = async {
        for job in &jobs {
            job.wait_for_end().await?;
        }
        drop(stop);
        Ok(())
    };
    // A service has one worker in each of its processes.
    let (a, b, c) =
        (work("a", &config, &stopped), work("b", &config, &stopped), work("c", &config, &stopped));
    tokio::try_join!(a, b, c, all_done)?;
    Ok(coordinator.shutdown().await?)
}

async fn work(
    name: &'static str,
    config: &Config,
    stopped: &watch::Receiver<()>,
) -> Result<(), Box<dyn Error>> {
    let coordinator = PartitionCoordinator::connect(config.clone()).await?;
    let board = coordinator.job_board("/hello/jobs").await?;
    let greet = move |job: JobTask| async move {
        println!("{name}: hello, world {}", job.details()["world"]);
        tokio::time::sleep(Duration::from_millis(50)).await;
        Ok::<_, Infallible>(())
    };
    // A service runs until a signal, for instance `tokio::signal::ctrl_c()`.
    let mut stopped = stopped.clone();
    board.run().on("greet", greet).until(async move { stopped.changed().await }).await?;
    Ok(coordinator.shutdown().await?)
}
