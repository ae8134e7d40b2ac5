//! The cost of a change of the membership: for the ring of this crate, for other ways to place keys, and for your own
//! keys.
//!
//! ```text
//! cargo run --release --example rebalance_cost               # writes tables, CSV and a page with plots
//! cargo run --release --example rebalance_cost -- --quick    # the same in seconds, with more noise
//! cargo run --release --example rebalance_cost -- --keys keys.txt --members members.txt --leave host-3
//! ```
//!
//! The last line shows which of your own keys would move, and to which member.

#![allow(unreachable_pub, reason = "a program has no public interface")]

mod arcs;
mod own;
mod report;
mod sampled;
mod schemes;
mod study;
#[path = "../support/mod.rs"]
mod support;
mod trial;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::Parser;
use peak_alloc::PeakAlloc;

use self::{
    own::OwnArgs,
    study::Plan,
    support::{Failure, Progress, exit, time},
};

/// Counts the bytes that a ring takes.
#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What a change of the membership costs: which keys move, how evenly they are spread, how long it takes.
///
/// Without --keys: for the ring with 1 to 1000 points a member, for 3 to 1000 members, and for rendezvous,
/// jump, Maglev, anchor, multi-probe and bounded loads beside it. The same members and keys in every run, so
/// only the times differ. Takes a minute or two.
///
/// With --keys and --members: which of these keys would move where if some members left or joined.
#[derive(Debug, Parser)]
#[command(name = "rebalance_cost", after_help = EXAMPLES, max_term_width = 80)]
struct Args {
    /// Fewer trials and fewer keys: seconds instead of minutes, and more noise
    #[arg(long, conflicts_with = "keys")]
    quick: bool,
    /// Where the CSV files and the page go; what is there is replaced
    #[arg(long, value_name = "DIR", default_value = "target/rebalance_cost")]
    out: PathBuf,
    #[command(flatten)]
    own: OwnArgs,
}

const EXAMPLES: &str = "Examples:\n\
\x20 rebalance_cost --quick\n\
\x20 rebalance_cost --keys alarms.txt --members hosts.txt --leave host-3\n\
\x20 rebalance_cost --keys alarms.txt --members hosts.txt --join 'host-9 2'";

fn main() -> ExitCode {
    exit(run(&Args::parse()))
}

fn run(args: &Args) -> Result<(), Failure> {
    match args.own.files() {
        Some((keys, members)) => own::run(keys, members, &args.own, &args.out),
        None => compare(if args.quick { Plan::quick() } else { Plan::full() }, &args.out),
    }
}

fn compare(plan: Plan, out: &Path) -> Result<(), Failure> {
    report::create(out)?;
    let start = time::now();
    let mut progress = Progress::of(plan.steps(), Duration::from_secs(10));
    let mut begun = 0;
    let results = study::run(plan, |what| {
        if let Some(line) = progress.show(begun, &what.to_string()) {
            eprintln!("{line}");
        }
        begun += 1;
    });
    drop(progress);
    let files = report::write(&results, out)?;
    // At the end, so that the files are complete also if the reader of a pipe has ended, as in `| head`.
    report::print(&results);
    report::print_files(&files, start.elapsed());
    Ok(())
}
