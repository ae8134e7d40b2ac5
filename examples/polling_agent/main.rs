//! Polling agents that share their targets: HTTP and TCP endpoints.
//!
//! ```text
//! cargo run --example polling_agent                    # several agents and some endpoints in one process
//! cargo run --example polling_agent -- --backend zookeeper://127.0.0.1:2181 --targets examples/targets.txt
//! # one more agent beside those of ceilometer
//! cargo run --example polling_agent -- --backend zookeeper://127.0.0.1:2181 --targets examples/targets.txt \
//!     --ceilometer central
//! ```

#![allow(unreachable_pub, reason = "a program has no public interface")]

mod ceilometer;
mod demo;
mod endpoints;
#[path = "../support/mod.rs"]
mod support;
mod target;

use std::{path::PathBuf, pin::pin, process::ExitCode, sync::Arc, time::Duration};

use apportion::{Config, Error, Group, PartitionCoordinator, group::Standing};
use clap::Parser;
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use self::{
    ceilometer::CeilometerArgs,
    support::{
        Failure, FleetArgs, exit, say,
        screen::{count, red, yellow},
        seconds, stopped, time_of_day,
    },
    target::{Poll, Target},
};

/// One round of one agent: polls the targets that are its own, a few at a time.
async fn poll_my_targets(group: &Group, targets: &[Target], limits: Limits) -> Result<Vec<Poll>, Error> {
    let slots = Arc::new(Semaphore::new(limits.concurrency));
    let mut polls = JoinSet::new();
    let mut mine = group.extract_my_subset(targets.iter().cloned()).await?.into_iter();
    loop {
        // The slot comes first, which may take a while; then `next` checks whether the target still belongs to this
        // agent.
        let slot = slots.clone().acquire_owned().await.expect("it is never closed");
        let Some(target) = mine.next() else { break };
        polls.spawn(async move {
            let poll = target.clone().poll(limits.timeout).await;
            // The guard: the work on this target has ended.
            drop(target);
            drop(slot);
            poll
        });
    }
    Ok(polls.join_all().await)
}

/// What one agent may do at a time.
#[derive(Debug, Clone, Copy)]
struct Limits {
    concurrency: usize,
    timeout: Duration,
}

/// Polls HTTP and TCP endpoints, sharing them with other agents.
///
/// Without --backend, several agents share some endpoints within this process for a few rounds. With --backend it
/// is one agent of a fleet and runs until it is stopped.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES, max_term_width = 80)]
struct Args {
    #[command(flatten)]
    fleet: FleetArgs,
    #[command(flatten)]
    ceilometer: CeilometerArgs,
    /// The targets, one http:// or tcp:// URL a line; the same in the whole fleet [default: local ones, started
    /// for the demonstration]
    #[arg(long, value_name = "FILE")]
    targets: Option<PathBuf>,
    /// How often each target is polled, such as 10s [default: 1500ms, with --backend 10s]
    #[arg(long, value_parser = support::duration)]
    interval: Option<Duration>,
    /// How long a target may take to answer
    #[arg(long, value_parser = support::duration, default_value = "1s")]
    timeout: Duration,
    /// How many targets are polled at a time
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..))]
    concurrency: u16,
}

const EXAMPLES: &str = "Examples:\n\
\x20 polling_agent --backend zookeeper://127.0.0.1:2181 --targets examples/targets.txt\n\
\x20 polling_agent --backend zookeeper://127.0.0.1:2181 --targets examples/targets.txt --ceilometer central";

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    args.fleet.print_events();
    exit(run(args).await)
}

async fn run(args: Args) -> Result<(), Failure> {
    let targets = args.targets.as_deref().map(target::load).transpose()?;
    let limits = Limits { concurrency: args.concurrency.into(), timeout: args.timeout };
    let (settings, group) = args
        .ceilometer
        .fleet()
        .unwrap_or_else(|| (Config::default(), args.fleet.group("polling-agent").to_owned()));
    match (args.fleet.config_from(settings)?, targets) {
        (Some(config), Some(targets)) => one_of_a_fleet(config, &group, &args, &targets, limits).await,
        (Some(_), None) => Err("--backend needs --targets: what shall the fleet poll?".into()),
        (None, targets) => {
            demo::run(targets, limits, args.interval.unwrap_or(Duration::from_millis(1500))).await
        }
    }
}

/// One agent of a real fleet, until it is stopped.
async fn one_of_a_fleet(
    config: Config,
    group: &str,
    args: &Args,
    targets: &[Target],
    limits: Limits,
) -> Result<(), Failure> {
    let servers = config.hosts().join(", ");
    let mut stop = pin!(stopped());
    let mut rounds = interval(args.interval.unwrap_or(Duration::from_secs(10)));
    rounds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first round begins when this agent is in the group.
    rounds.reset();

    let coordinator = PartitionCoordinator::start(config)?;
    let group = coordinator.join(group).await?;
    let mut rebalances = group.rebalances();
    let number = count(targets.len(), "target");
    say!("agent {}: {number}\nat {servers}; times are UTC, Ctrl-C ends it", coordinator.member_id());
    let failure = loop {
        tokio::select! {
            () = &mut stop => break None,
            change = rebalances.next() => match change {
                // Back in the group: no need to wait for the next round.
                Some(change) if change.members().0 == 0 => rounds.reset(),
                Some(_) => continue,
                None => break Some(Error::Closed { group: group.name() }),
            },
            _ = rounds.tick() => {}
        }
        let polls = tokio::select! {
            () = &mut stop => break None,
            polls = poll_my_targets(&group, targets, limits) => polls,
        };
        match polls {
            Ok(polls) => report(polls, targets, &group),
            Err(error @ (Error::MemberIdTaken { .. } | Error::Closed { .. })) => break Some(error),
            Err(error) => say!("{}  {}", time_of_day(), yellow(format!("nothing polled: {error}"))),
        }
    };
    // The others take over now instead of a session timeout later.
    match coordinator.shutdown().await {
        Ok(()) => say!("{}  stopped; the others know", time_of_day()),
        Err(error) => say!("{}  stopped; {error}", time_of_day()),
    }
    failure.map_or(Ok(()), |error| Err(error.into()))
}

fn report(mut polls: Vec<Poll>, targets: &[Target], group: &Group) {
    polls.sort_by(|one, other| one.target.cmp(&other.target));
    let (view, now) = (group.view(), time_of_day());
    if view.standing() != Standing::Member {
        return say!("{now}  {}", yellow("not in the group at present: polling nothing"));
    }
    let down: Vec<_> = polls.iter().filter(|poll| poll.outcome.is_err()).collect();
    let members = count(view.members().len(), "agent");
    say!(
        "{now}  {members}, {} of {} targets mine: {} up, {} down",
        polls.len(),
        targets.len(),
        polls.len() - down.len(),
        down.len()
    );
    for poll in down {
        let reason = poll.outcome.as_ref().err().map_or("", String::as_str);
        say!("{now}    {}  {reason} ({})", red(&poll.target), seconds(poll.took));
    }
}
