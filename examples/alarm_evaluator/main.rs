//! Alarm evaluators that share the alarms of this host, as the evaluators of OpenStack aodh do.
//!
//! ```text
//! cargo run --example alarm_evaluator                  # four in one process; one leaves, one crashes
//! cargo run --example alarm_evaluator -- --backend zookeeper://127.0.0.1:2181 --member-id a
//! ```
//!
//! The second line starts one evaluator of a real fleet. Start as many as you like, and kill some.

#![allow(unreachable_pub, reason = "a program has no public interface")]

mod alarm;
mod demo;
mod fleet;
mod host;
#[path = "../support/mod.rs"]
mod support;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use apportion::{Error, Group};
use clap::Parser;

use self::{
    alarm::{Alarm, State},
    host::Metrics,
    support::{Failure, FleetArgs, exit},
};

/// One cycle of one evaluator. To share the alarms with all others takes one call: `extract_my_subset`.
async fn evaluate_my_alarms(
    group: &Group,
    alarms: &[Alarm],
    metrics: &Metrics,
    mut record: impl FnMut(&Alarm, State, i64),
) -> Result<Turn, Error> {
    let mine = group.extract_my_subset(alarms).await?;
    let mut turn = Turn { epoch: mine.epoch(), share: mine.len(), ..Turn::default() };
    // The loop ends early if another evaluator may have taken over meanwhile.
    for alarm in &mine {
        let state = alarm.evaluate(metrics);
        record(&alarm, state, mine.epoch());
        turn.evaluated += 1;
        turn.firing += usize::from(matches!(state, State::Alarm(_)));
    }
    Ok(turn)
}

/// What one evaluator did in one cycle.
#[derive(Debug, Default)]
struct Turn {
    /// The generation of the membership that its share came from.
    epoch: i64,
    share: usize,
    evaluated: usize,
    firing: usize,
}

/// Evaluates alarms about this host, sharing them with other evaluators.
///
/// Without --backend, four evaluators share the alarms within this process for a quarter of a minute: one joins
/// late, one leaves, one crashes. With --backend it is one evaluator of a fleet and runs until it is stopped.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES, max_term_width = 80)]
struct Args {
    #[command(flatten)]
    fleet: FleetArgs,
    /// How often each alarm is evaluated, such as 5s or 500ms [default: 1s, with --backend 5s]
    #[arg(long, value_parser = support::duration)]
    cycle: Option<Duration>,
    /// The alarms, as in examples/alarms.json, which is the default
    #[arg(long, value_name = "FILE")]
    alarms: Option<PathBuf>,
    /// Append a line of JSON for each evaluation: when, in which cycle, which alarm, its state, by which member,
    /// and the generation (epoch) and size of the membership by which the alarm was this member's
    #[arg(long, value_name = "FILE", requires = "backend")]
    log_evaluations: Option<PathBuf>,
}

const EXAMPLES: &str = "Examples:\n\
\x20 alarm_evaluator --backend zookeeper://127.0.0.1:2181 --member-id a\n\
\x20 alarm_evaluator --backend zookeeper://127.0.0.1:2181 --member-id b --cycle 2s";

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    args.fleet.print_events();
    exit(run(args).await)
}

async fn run(args: Args) -> Result<(), Failure> {
    let alarms = alarm::load(args.alarms.as_deref())?;
    match args.fleet.config()? {
        Some(config) => fleet::run(config, &args, alarms).await,
        None => demo::run(alarms, args.cycle.unwrap_or(Duration::from_secs(1))).await,
    }
}
