//! Three members divide ten tasks. One leaves, and the other two take over its tasks.
//!
//! It runs in memory. With servers: `cargo run --example hello_group -- zookeeper://localhost:2181`

use std::error::Error;

use apportion::{Config, Group, PartitionCoordinator, backend::Memory};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let config = match std::env::args().nth(1) {
        Some(url) => Config::from_url(url)?,
        None => Config::for_backend(Memory::new()),
    };
    // A service has one member in each of its processes.
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        let coordinator = PartitionCoordinator::connect(config.clone().member_id(name)).await?;
        members.push((coordinator.join("hello").await?, coordinator));
    }
    print_shares(&members).await?;
    members.remove(1).1.shutdown().await?;
    print_shares(&members).await
}

async fn print_shares(members: &[(Group, PartitionCoordinator)]) -> Result<(), Box<dyn Error>> {
    println!("{} members:", members.len());
    for (group, coordinator) in members {
        // A service does not wait for the others: it asks again in each of its cycles.
        let mut changes = group.rebalances();
        // A task that another member had before comes when that member has let go of it.
        let is_done = || group.view().members().len() == members.len() && group.status().waiting.is_empty();
        while !is_done() && changes.next().await.is_some() {}
        let mine = group.extract_my_subset((1..=10).map(|number| format!("task-{number}"))).await?;
        println!("  {} has {}", coordinator.member_id(), mine.into_vec().join(", "));
    }
    Ok(())
}
