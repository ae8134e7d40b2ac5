//! One process of a real fleet: a worker, or somebody who posts.

use std::{pin::pin, time::Duration};

use apportion::{Config, PartitionCoordinator, board::Priority};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::{Args, Event, batch::Batch, store::Store, task};
use crate::support::{
    Failure, Gate, say,
    screen::{bytes, count, dim, red, yellow},
    stopped, time_of_day,
};

/// Does jobs until somebody stops it.
pub async fn work(config: Config, args: Args) -> Result<(), Failure> {
    if !args.files.is_empty() || args.results.is_some() {
        return Err("a worker takes what is on the board; files and --results are for --role post".into());
    }
    let servers = config.hosts().join(", ");
    let stop = stopped();
    let coordinator = PartitionCoordinator::connect(config).await?;
    let board = coordinator.job_board(&args.board).await?;
    let me = coordinator.member_id().to_string();
    say!("worker {me}: {} at {servers}; times are UTC, Ctrl-C ends it", board.path());
    let stage = task::Stage {
        worker: me,
        pace: args.pace.unwrap_or_default(),
        halfway: Gate::default(),
        to_store: Gate::default(),
    };
    let outcome = super::work(&board, &stage, stop, |task, event| {
        let (job, file) = (&task.name, task.file.display());
        let text = match event {
            Event::Taken => dim(format!("takes {job}  {file}")),
            Event::Done(size) => format!("done  {job}  {file}, {}", bytes(*size)),
            Event::Failed(error) => yellow(format!("fails {job}  {file}: {error}; later again")),
            Event::Trashed(error) => red(format!("trash {job}  {file}: {error}")),
            Event::Lost => yellow(format!("lost  {job}  {file}: another worker may have it")),
        };
        say!("{}  {text}", time_of_day());
    })
    .await;
    // What it had goes back now instead of a session timeout later.
    match coordinator.shutdown().await {
        Ok(()) => say!("{}  stopped; the others can have what it had", time_of_day()),
        Err(error) => say!("{}  stopped; {error}", time_of_day()),
    }
    Ok(outcome?)
}

/// Posts a job for each file and waits until all are done.
pub async fn post(config: Config, args: Args) -> Result<(), Failure> {
    let mut stop = pin!(stopped());
    let files = task::files(args.files)?;
    let results = match args.results {
        Some(file) => std::path::absolute(file)?,
        None => std::env::temp_dir().join(format!("job_worker-{}.jsonl", Uuid::new_v4())),
    };
    let coordinator = PartitionCoordinator::connect(config).await?;
    let mut batch = Batch::new(coordinator.job_board(&args.board).await?, Store::open(&results)?);
    for file in &files {
        batch.post(file, Priority::Normal).await?;
    }
    say!("{} posted at {}; times are UTC", count(batch.len(), "job"), batch.board.path());
    say!("results go to {}", results.display());

    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = String::new();
    let mut finished = pin!(batch.finished());
    loop {
        tokio::select! {
            finished = &mut finished => break finished?,
            _ = ticks.tick() => {
                let progress = batch.progress().await?;
                if progress != last {
                    say!("{}  {progress}", time_of_day());
                    last = progress;
                }
            }
            () = &mut stop => {
                let left = batch.left().await?.len();
                coordinator.shutdown().await?;
                return Err(format!("stopped: {} left on the board", count(left, "job")).into());
            }
        }
    }
    say!("{}  {}", time_of_day(), batch.progress().await?);
    let outcome = batch.check(&[]).await;
    coordinator.shutdown().await?;
    outcome
}
