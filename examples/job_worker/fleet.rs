//! One process of a real fleet: a worker, or a process that posts.

use std::{pin::pin, time::Duration};

use apportion::{Config, PartitionCoordinator, board::Priority, uuid::Uuid};
use indicatif::DecimalBytes;
use tokio::time::{MissedTickBehavior, interval};

use super::{Args, Event, batch::Batch, store::Store, task};
use crate::support::{
    Failure, Gate, Progress, say,
    screen::{count, dim, end_of, reason, red, yellow},
    stopped, time_of_day,
};

/// Does jobs until it is stopped.
pub async fn work(config: Config, args: Args) -> Result<(), Failure> {
    if !args.files.is_empty() || args.results.is_some() {
        return Err("a worker takes what is on the board; files and --results are for --role post".into());
    }
    let servers = config.hosts().join(", ");
    let stop = stopped();
    let coordinator = PartitionCoordinator::connect(config).await?;
    let board = coordinator.job_board(&args.board).await?;
    let me = coordinator.member_id().to_string();
    say!("worker {me}: {}\nat {servers}; times are UTC, Ctrl-C ends it", board.path());
    let stage = task::Stage {
        worker: me,
        pace: args.pace.unwrap_or_default(),
        halfway: Gate::default(),
        to_store: Gate::default(),
    };
    let outcome = super::work(&board, &stage, stop, |task, event| {
        let (job, file) = (&task.name, end_of(&task.file.to_string_lossy(), 36));
        let text = match event {
            Event::Taken => dim(format!("takes {job}  {file}")),
            Event::Done(size) => format!("done  {job}  {file}, {}", DecimalBytes(*size)),
            Event::Failed(error) => yellow(format!("fails {job}  {file}: {}", reason(error))),
            Event::Trashed(error) => red(format!("trash {job}  {file}: {}", reason(error))),
            Event::Lost => yellow(format!("lost  {job}  {file}")),
        };
        say!("{}  {text}", time_of_day());
    })
    .await;
    // Its job goes back now instead of a session timeout later.
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

    let mut progress = Progress::of(batch.len(), Duration::from_secs(1));
    let mut ticks = interval(Duration::from_millis(250));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut finished = pin!(batch.finished());
    loop {
        tokio::select! {
            finished = &mut finished => break finished?,
            _ = ticks.tick() => {
                if let Some(line) = progress.show(batch.done().await?, "") {
                    say!("{}  {line}", time_of_day());
                }
            }
            () = &mut stop => {
                let left = batch.left().await?.len();
                coordinator.shutdown().await?;
                return Err(format!("stopped: {} left on the board", count(left, "job")).into());
            }
        }
    }
    drop(progress);
    say!("{}  {} of {} are done", time_of_day(), batch.done().await?, batch.len());
    let outcome = batch.check(&[]).await;
    coordinator.shutdown().await?;
    outcome
}
