//! Three workers do the jobs of a board. Each job is done once.
//!
//! It runs in memory. With servers: `cargo run --example hello_board -- zookeeper://localhost:2181`

use std::{error::Error, time::Duration};

use apportion::{Config, PartitionCoordinator, backend::Memory, serde_json::json};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = match std::env::args().nth(1) {
        Some(url) => Config::from_url(url)?,
        None => Config::for_backend(Memory::new()),
    };
    let coordinator = PartitionCoordinator::connect(config.clone()).await?;
    let board = coordinator.job_board("/hello/jobs").await?;
    for number in 1..=10 {
        board.post("greet").details(json!({ "world": number })).await?;
    }
    // A service has one worker in each of its processes.
    tokio::try_join!(work("a", &config), work("b", &config), work("c", &config))?;
    Ok(coordinator.shutdown().await?)
}

async fn work(name: &str, config: &Config) -> Result<(), Box<dyn Error>> {
    let coordinator = PartitionCoordinator::connect(config.clone()).await?;
    let board = coordinator.job_board("/hello/jobs").await?;
    // A service takes its next job with `claim_next`, which waits until there is one.
    while let Some(claim) = board.try_claim_next().await? {
        let greet = async {
            println!("{name}: hello, world {}", claim.job().details()["world"]);
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        match claim.lease().while_held(greet).await {
            Ok(()) => claim.consume().await?,
            Err(lost) => println!("{lost}: another worker may have the job now"),
        }
    }
    Ok(coordinator.shutdown().await?)
}
