//! One process of a real fleet: a compute node, or the dispatcher.

use std::{pin::pin, time::Duration};

use apportion::{
    Config, PartitionCoordinator,
    queue::{Finished, QueueError, WorkQueue},
};
use tokio::time::{MissedTickBehavior, interval};

use super::{
    Args, Event, Node,
    dispatch::{self, Answers},
};
use crate::support::{
    Failure, Progress, say,
    screen::{bold, count, dim, yellow},
    seconds, stopped, time, time_of_day,
};

/// Computes until it is stopped.
pub async fn compute(config: Config, args: &Args, node: &Node) -> Result<(), Failure> {
    let servers = config.hosts().join(", ");
    let stop = stopped();
    let coordinator = PartitionCoordinator::connect(config).await?;
    let queue = coordinator.queue(&args.queue).await?;
    say!("node {}: {queue}\nat {servers}; times are UTC, Ctrl-C ends it", coordinator.member_id());
    let outcome = super::compute(&queue, node, stop, |delivery, event| {
        let text = match event {
            Event::Taken => dim(format!("takes {delivery}")),
            Event::Answered(answer) if answer.hit => format!("done  {delivery}: from the cache"),
            Event::Answered(_) => format!("done  {delivery}: loaded"),
            Event::Failed(error) => yellow(format!("fails {delivery}: {error}")),
            Event::Lost => yellow(format!("lost  {delivery}: another node gets it")),
        };
        say!("{}  {text}", time_of_day());
    })
    .await;
    // Its entry goes back now instead of a session timeout later.
    match coordinator.shutdown().await {
        Ok(()) => say!("{}  stopped; the others can have what it had", time_of_day()),
        Err(error) => say!("{}  stopped; {error}", time_of_day()),
    }
    Ok(outcome?)
}

/// Puts work and collects the results.
pub async fn dispatch(config: Config, args: &Args) -> Result<(), Failure> {
    let mut stop = pin!(stopped());
    let coordinator = PartitionCoordinator::connect(config).await?;
    let queue = coordinator.queue(&args.queue).await?;
    let old = queue.try_collect(usize::MAX).await?.confirm().await?;
    if !old.is_empty() {
        say!("{} of before thrown away", count(old.len(), "result"));
    }
    let mut answers = Answers::new(time::now());
    let (new, known) = dispatch::put(&queue).await?;
    say!("{} put into {queue}, {known} there already;\ntimes are UTC", count(new, "question"));
    let mut progress = Progress::of(answers.all(), Duration::from_secs(1));
    let mut ticks = interval(Duration::from_secs(1));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !answers.is_complete() {
        tokio::select! {
            collected = queue.collect(100) => {
                for (finished, _) in answers.take(collected?).await?.iter().filter(|(it, _)| it.attempts() > 1) {
                    let worker = finished.worker().unwrap_or("?");
                    say!("{}  {} done by {worker}, attempt {}", time_of_day(), finished.entry(), finished.attempts());
                }
            }
            _ = ticks.tick() => {
                if let Some(line) = progress.show(answers.seen.len(), "") {
                    say!("{}  {line}", time_of_day());
                }
                if let Some(letter) = given_up(&queue).await? {
                    let (entry, attempts) = (letter.entry(), letter.attempts());
                    return Err(format!("{entry} was delivered {attempts} times and never ended").into());
                }
            }
            () = &mut stop => {
                coordinator.shutdown().await?;
                return Err("stopped: the rest of the work is in the queue".into());
            }
        }
    }
    drop(progress);
    say!("{}  {} of {} are answered", time_of_day(), answers.seen.len(), answers.all());
    say!("\n{}", bold("SUMMARY"));
    answers.print_nodes();
    let score = answers.score();
    say!(
        "\n  {} of {} from a cache, {} %; {} in all, the urgent ones after {}.",
        score.hits,
        score.entries,
        score.hit_rate(),
        seconds(score.took),
        seconds(score.urgent),
    );
    let checked = answers.check();
    coordinator.shutdown().await?;
    checked?;
    answers.say_that_it_is_right();
    Ok(())
}

/// Reports dead letters: they never get an answer until an operator handles them.
async fn given_up(queue: &WorkQueue) -> Result<Option<Finished>, QueueError> {
    match queue.dead_letters().await {
        Ok(letters) => Ok(letters.into_iter().next()),
        // The servers are unreachable for a while: it tries again later.
        Err(QueueError::Service(error)) if error.is_transient() => Ok(None),
        Err(error) => Err(error),
    }
}
