//! Workers that hash files for an executor.
//!
//! ```text
//! cargo run --example worker_fleet                     # all in one process; one worker crashes, one task fails
//! cargo run --features amqp --example worker_fleet -- --amqp amqp://localhost --role worker
//! cargo run --features amqp --example worker_fleet -- --amqp amqp://localhost --role executor src
//! ```
//!
//! The second line starts one worker at a real broker: start as many as you like, kill some while the third runs.

#![allow(unreachable_pub, reason = "a program has no public interface")]

mod demo;
mod files;
#[cfg(feature = "amqp")]
mod fleet;
mod order;
#[path = "../support/mod.rs"]
mod support;
mod work;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};

use self::support::{Failure, exit};

/// Hashes files (MD5), with workers that do the work and an executor that hands it out.
///
/// Without --amqp, an executor and three workers hash the files within this process, which takes six to ten seconds:
/// one worker crashes, and one task fails and is reverted. With --amqp it is one worker, or the executor, at a broker.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES, max_term_width = 80)]
struct Args {
    /// What to hash, with all that is in the folders [default: src, or else the files of this folder]
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Work through this broker. Workers have to see the same files as the executor
    #[arg(long, value_name = "amqp://USER:PASSWORD@HOST", requires = "role")]
    amqp: Option<String>,
    /// What to be at the broker
    #[arg(long, requires = "amqp")]
    role: Option<Role>,
    /// The topic where a worker takes requests; for the executor, the topics of its workers, divided by commas. Workers
    /// may share a topic
    #[arg(long, value_delimiter = ',', default_value = "worker-fleet", requires = "amqp")]
    topic: Vec<String>,
    /// After how long a request is sent again that no worker has started on, or whose worker has fallen silent; the
    /// same for all of a fleet
    #[arg(long, value_parser = support::duration, default_value = "60s", requires = "amqp")]
    expiry: Duration,
    /// How many requests a worker runs, or the executor has open, at a time [default: 2, executor 8]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=1000), requires = "amqp")]
    concurrency: Option<u32>,
    /// Print the library's events to stderr: -v what happens, -vv everything
    #[arg(short, long, action = clap::ArgAction::Count)]
    verbose: u8,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Hands out the files, prints their hashes and ends
    Executor,
    /// Hashes files until it is stopped
    Worker,
}

const EXAMPLES: &str = "Examples:\n\
\x20 worker_fleet Cargo.toml src\n\
\x20 worker_fleet --amqp amqp://localhost --role worker --expiry 10s\n\
\x20 worker_fleet --amqp amqp://localhost --role executor --expiry 10s src tests";

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    support::print_events(args.verbose, args.amqp.is_none());
    exit(run(args).await)
}

async fn run(args: Args) -> Result<(), Failure> {
    match (&args.amqp, args.role) {
        (Some(url), Some(role)) => at_broker(url, role, &args).await,
        _ => demo::run(files::find(&args.files)?).await,
    }
}

#[cfg(feature = "amqp")]
async fn at_broker(url: &str, role: Role, args: &Args) -> Result<(), Failure> {
    match role {
        Role::Worker if !args.files.is_empty() => Err("files are for the executor, not for a worker".into()),
        Role::Worker => fleet::worker(url, args).await,
        Role::Executor => fleet::executor(url, files::find(&args.files)?, args).await,
    }
}

#[cfg(not(feature = "amqp"))]
async fn at_broker(_: &str, role: Role, _: &Args) -> Result<(), Failure> {
    let role = role.to_possible_value().map_or_else(String::new, |role| role.get_name().to_owned());
    Err(format!(
        "this was built without AMQP. Build it with:\n\
         cargo run --features amqp --example worker_fleet -- --amqp URL --role {role}"
    )
    .into())
}
