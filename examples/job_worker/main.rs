//! Workers that take jobs from a board: each job is the MD5 of one file.
//!
//! ```text
//! cargo run --example job_worker                       # three in one process; one crashes, one loses contact
//! cargo run --example job_worker -- --backend zookeeper://127.0.0.1:2181 --role post src/*.rs
//! cargo run --example job_worker -- --backend zookeeper://127.0.0.1:2181 --member-id a
//! ```
//!
//! The second line posts jobs and checks in the end that each was done once. The third starts a worker: start as many
//! as you like, and kill some.

#![allow(unreachable_pub, reason = "a program has no public interface")]

mod batch;
mod demo;
mod fleet;
mod store;
#[path = "../support/mod.rs"]
mod support;
mod task;

use std::{path::PathBuf, pin::pin, process::ExitCode, time::Duration};

use self::{
    store::What,
    support::{Failure, MemberArgs, exit},
    task::{Stage, Task},
};
use apportion::board::{BoardError, JobBoard};
use clap::{Parser, ValueEnum};

/// After so many failures, of all workers together, a job goes to the trash.
const ATTEMPTS: usize = 3;
/// How long a job that has failed waits for the next attempt, at any worker.
const RETRY: Duration = Duration::from_secs(1);

/// One worker: takes one job after the other until `stop`. The board gives each job to one worker at a time. If the
/// worker is gone, its job comes back.
async fn work(
    board: &JobBoard,
    stage: &Stage,
    stop: impl Future<Output = ()>,
    mut report: impl FnMut(&Task, &Event),
) -> Result<(), BoardError> {
    let mut stop = pin!(stop);
    loop {
        let claim = tokio::select! {
            () = &mut stop => return Ok(()),
            claim = board.claim_next() => claim?,
        };
        let task = match Task::read(&claim, stage) {
            Ok(task) => task,
            Err(failure) => {
                eprintln!("{} is not a job for this worker, to the trash: {failure}", claim.job());
                is_ours(claim.trash_because(failure).await)?;
                continue;
            }
        };
        report(&task, &Event::Taken);
        let outcome = tokio::select! {
            () = &mut stop => {
                // It was not tried to the end, so another worker may take it at once.
                is_ours(claim.abandon().uncounted().await)?;
                let _ = task.record(What::Returned).await;
                return Ok(());
            }
            outcome = claim.lease().while_held(task.run()) => outcome,
        };
        let event = match outcome {
            Ok(Ok(bytes)) => {
                if is_ours(claim.consume().await)? {
                    let _ = task.record(What::Consumed).await;
                    Event::Done(bytes)
                } else {
                    Event::Lost
                }
            }
            Ok(Err(failure)) => {
                let failures = task.record(What::Failed { error: failure.to_string() }).await;
                if failures.is_ok_and(|failures| failures < ATTEMPTS) {
                    is_ours(claim.abandon_after(RETRY).because(&failure).await)?;
                    Event::Failed(failure.to_string())
                } else if is_ours(claim.trash_because(&failure).await)? {
                    let _ = task.record(What::Trashed).await;
                    Event::Trashed(failure.to_string())
                } else {
                    Event::Lost
                }
            }
            Err(_) => Event::Lost,
        };
        report(&task, &event);
    }
}

/// Whether the claim was still held when it was to end. If not, another worker has the job, or will have it.
fn is_ours(ended: Result<(), BoardError>) -> Result<bool, BoardError> {
    match ended {
        Ok(()) => Ok(true),
        Err(error) if error.may_be_lost() => Ok(false),
        Err(error) => Err(error),
    }
}

/// An event of a job at a worker.
#[derive(Debug)]
enum Event {
    Taken,
    /// With the size of the file.
    Done(u64),
    /// It goes back to the board, after a while.
    Failed(String),
    /// It has failed too often.
    Trashed(String),
    /// Another worker may have it.
    Lost,
}

/// Computes the MD5 of files: one job on a board for each, which workers share.
///
/// Without --backend, three workers share the jobs within this process for about ten seconds: one crashes, one loses
/// contact, one job fails once and one always. With --backend it is one process of a fleet: it posts jobs, or works.
/// In the end it is checked that each job was done exactly once; if not, the exit code is 1.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES, max_term_width = 80)]
struct Args {
    /// The files; with --backend, of --role post, and the workers have to see them under the same names [default:
    /// the sources of the library]
    files: Vec<PathBuf>,
    #[command(flatten)]
    member: MemberArgs,
    /// What this process does
    #[arg(long, value_enum, default_value = "work", requires = "backend")]
    role: Role,
    /// Where the board is
    #[arg(long, value_name = "PATH", default_value = "/job-worker/jobs", requires = "backend")]
    board: String,
    /// The file to which the workers append results and the rest of what they do, with --role post [default: a new
    /// one among the temporary files]
    #[arg(long, value_name = "FILE", requires = "backend")]
    results: Option<PathBuf>,
    /// Takes so long for each file, for those who watch [default: 0s, without --backend about 0.3s]
    #[arg(long, value_parser = support::duration)]
    pace: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Post a job for each file, wait until all are done, and check
    Post,
    /// Take jobs and do them, until stopped
    Work,
}

const EXAMPLES: &str = "Examples:\n\
\x20 job_worker --backend zookeeper://127.0.0.1:2181 --member-id a --pace 1s\n\
\x20 job_worker --backend zookeeper://127.0.0.1:2181 --role post src/*.rs";

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    args.member.print_events();
    exit(run(args).await)
}

async fn run(args: Args) -> Result<(), Failure> {
    let config = args.member.config()?;
    match config {
        Some(config) if args.role == Role::Work => fleet::work(config, args).await,
        Some(config) => fleet::post(config, args).await,
        None => demo::run(task::files(args.files)?, args.pace).await,
    }
}
