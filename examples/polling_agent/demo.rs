//! A few agents and rounds in one process, on the in-memory backend.

use std::{collections::BTreeMap, time::Duration};

use apportion::{Config, Group, PartitionCoordinator, backend::Memory};
use comfy_table::{Cell, Color};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use super::{
    Limits,
    endpoints::Endpoints,
    poll_my_targets,
    target::{Poll, Target},
};
use crate::support::{
    Column, Failure, say,
    screen::{bold, count, green},
    seconds, table,
};

/// Polls `targets`, or local endpoints, for six rounds; one agent comes and one goes meanwhile.
pub async fn run(targets: Option<Vec<Target>>, limits: Limits, period: Duration) -> Result<(), Failure> {
    let endpoints = Endpoints::start().await?;
    let targets = targets.unwrap_or_else(|| endpoints.targets.clone());
    let ensemble = Memory::new();
    say!(
        "{}, shared by polling agents in one process: a round every {},\n\
         at most {} polls at a time and agent, at most {} for each.",
        bold(count(targets.len(), "target")),
        seconds(period),
        limits.concurrency,
        seconds(limits.timeout),
    );
    let mut agents = BTreeMap::new();
    let mut rounds = interval(period);
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut wrong = Vec::new();
    let mut last = Vec::new();
    for round in 1..=6 {
        let news = match round {
            1 => {
                agents.insert("agent-1", join(&ensemble, "agent-1").await?);
                agents.insert("agent-2", join(&ensemble, "agent-2").await?);
                "agent-1 and agent-2 start"
            }
            3 => {
                agents.insert("agent-3", join(&ensemble, "agent-3").await?);
                "agent-3 joins"
            }
            5 => {
                let leaving = agents.remove("agent-1").ok_or("agent-1 is gone")?;
                leaving.0.shutdown().await?;
                "agent-1 shuts down"
            }
            _ => "",
        };
        rounds.tick().await;
        for (_, group) in agents.values() {
            same_size(group, agents.len()).await;
        }
        let mut turns = JoinSet::new();
        for (name, (_, group)) in &agents {
            let (name, group, targets) = (*name, group.clone(), targets.clone());
            turns.spawn(async move { (name, poll_my_targets(&group, &targets, limits).await) });
        }
        let mut turns = turns.join_all().await;
        turns.sort_by_key(|(name, _)| *name);

        say!("\n{} {news}", bold(format!("ROUND {round}")));
        let mut rows = Vec::new();
        last.clear();
        for (name, polls) in turns {
            let polls = polls?;
            let up = polls.iter().filter(|poll| poll.outcome.is_ok()).count();
            let slowest = polls.iter().map(|poll| poll.took).max().unwrap_or_default();
            let (all, down) = (polls.len(), polls.len() - up);
            rows.push(vec![
                name.to_owned(),
                all.to_string(),
                up.to_string(),
                down.to_string(),
                seconds(slowest),
            ]);
            last.extend(polls.into_iter().map(|poll| (name, poll)));
        }
        let numbers = ["targets", "up", "down", "slowest"].map(Column::Right);
        table(&[&[Column::Left("agent")], &numbers[..]].concat(), rows);
        if !is_each_once(&last, &targets) {
            wrong.push(round);
        }
    }
    for (coordinator, _) in agents.values() {
        coordinator.shutdown().await?;
    }

    say!("\n{}", bold("RESULTS of the last round"));
    last.sort_by(|(_, a), (_, b)| a.target.cmp(&b.target));
    table(
        &[Column::Left("target"), Column::Left("agent"), Column::Right("took"), Column::Left("result")],
        last.iter().map(|(name, poll)| row(name, poll)),
    );
    if !wrong.is_empty() {
        return Err(format!("in the rounds {wrong:?} not every target was polled exactly once").into());
    }
    say!("\n{}", green("In each round every target was polled exactly once."));
    Ok(())
}

async fn join(ensemble: &Memory, name: &str) -> Result<(PartitionCoordinator, Group), Failure> {
    let coordinator =
        PartitionCoordinator::connect(Config::for_backend(ensemble.clone()).member_id(name)).await?;
    let group = coordinator.join("polling-agent").await?;
    Ok((coordinator, group))
}

/// A round of the demonstration starts when all agents know each other. A fleet would not wait: a change moves
/// some targets, and some of those are not polled in that round.
async fn same_size(group: &Group, size: usize) {
    let mut rebalances = group.rebalances();
    while group.view().members().len() != size {
        rebalances.next().await;
    }
}

fn is_each_once(polls: &[(&str, Poll)], targets: &[Target]) -> bool {
    let mut polled: Vec<_> = polls.iter().map(|(_, poll)| &poll.target).collect();
    let mut wanted: Vec<_> = targets.iter().collect();
    polled.sort();
    wanted.sort();
    polled == wanted
}

fn row(agent: &str, poll: &Poll) -> [Cell; 4] {
    let result = match &poll.outcome {
        Ok(good) => Cell::new(good),
        Err(bad) => Cell::new(bad).fg(Color::Red),
    };
    let took = format!("{} ms", poll.took.as_millis());
    [Cell::new(&poll.target), Cell::new(agent), Cell::new(took), result]
}
