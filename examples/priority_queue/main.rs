//! Compute nodes that take work from a priority queue, and prefer work whose data they have.
//!
//! ```text
//! cargo run --example priority_queue                   # three nodes in one process: twice, and once with a crash
//! cargo run --example priority_queue -- --backend zookeeper://127.0.0.1:2181 --role dispatch
//! cargo run --example priority_queue -- --backend zookeeper://127.0.0.1:2181 --member-id a
//! ```
//!
//! The second line puts work and collects the results. The third starts a compute node: start as many as you like, and
//! kill some.

#![allow(unreachable_pub, reason = "a program has no public interface")]

mod data;
mod demo;
mod dispatch;
mod fleet;
#[path = "../support/mod.rs"]
mod support;

use std::{pin::pin, process::ExitCode, time::Duration};

use apportion::queue::{QueueError, WorkQueue};
use clap::{Parser, ValueEnum};

use self::{
    data::{Answer, Cache, Question},
    support::{Failure, Gate, MemberArgs, exit},
};

/// One compute node, until `stop`: takes entries whose data it has first, then the most urgent, then the oldest. The
/// queue gives each entry to one node at a time. If the node is gone, its entry comes back.
async fn compute(
    queue: &WorkQueue,
    node: &Node,
    stop: impl Future<Output = ()>,
    mut report: impl FnMut(&str, &Event),
) -> Result<(), QueueError> {
    let mut stop = pin!(stop);
    let mut cache = Cache::of(node.cache);
    loop {
        let take = async {
            if node.prefers {
                // The name of an entry has its data set, so choosing needs no further request.
                queue.take_preferring(|entry| cache.has(data::set_of(entry.label()))).await
            } else {
                queue.take().await
            }
        };
        let delivery = tokio::select! {
            () = &mut stop => return Ok(()),
            delivery = take => delivery?,
        };
        let name = delivery.to_string();
        let question: Question = match delivery.payload_as() {
            Ok(question) => question,
            Err(error) => {
                // It would fail everywhere: the dispatcher gets the error as its result.
                report(&name, &Event::Failed(error.to_string()));
                is_ours(delivery.fail(error).await)?;
                continue;
            }
        };
        report(&name, &Event::Taken);
        let answer = tokio::select! {
            () = &mut stop => {
                // It was not tried to the end, so another node may take it at once.
                is_ours(delivery.release().uncounted().await)?;
                return Ok(());
            }
            answer = delivery.lease().while_held(answer(&question, node, &mut cache)) => answer,
        };
        let event = match answer {
            Ok(answer) if is_ours(delivery.done(&answer).await)? => Event::Answered(answer),
            Ok(_) | Err(_) => Event::Lost,
        };
        report(&name, &event);
    }
}

/// The real work: about one group of a data set, which has to be loaded first if it is not in the cache.
async fn answer(question: &Question, node: &Node, cache: &mut Cache) -> Answer {
    node.gate.pass().await;
    let (set, hit) = cache.load(&question.dataset, node.load).await;
    tokio::time::sleep(node.pace).await;
    set.answer(question.group, hit)
}

/// Whether the delivery was still held when it was to end. If not, the entry is or was delivered again.
fn is_ours(ended: Result<(), QueueError>) -> Result<bool, QueueError> {
    match ended {
        Ok(()) => Ok(true),
        Err(error) if error.may_be_lost() => Ok(false),
        Err(error) => Err(error),
    }
}

/// How a compute node works.
#[derive(Debug, Clone)]
struct Node {
    /// Whether it chooses by what is in its cache.
    prefers: bool,
    /// How many data sets its cache holds.
    cache: usize,
    /// How long it takes to load a data set, and then for the answer.
    load: Duration,
    pace: Duration,
    /// The point at which the demonstration can stop it.
    gate: Gate,
}

/// An event of an entry at a node.
#[derive(Debug)]
enum Event {
    Taken,
    Answered(Answer),
    Failed(String),
    /// Another node gets it.
    Lost,
}

/// Computes statistics of data sets: one entry of a priority queue for each group of each data set, which compute
/// nodes share. Each node takes entries whose data it has first, then the most urgent, then the oldest.
///
/// Without --backend, three nodes work through the queue within this process, first without and then with that
/// preference, and once more while one of them crashes: ten seconds in all. With --backend it is one process of a
/// fleet: it computes, or it dispatches, collects and checks the results.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES, max_term_width = 80)]
struct Args {
    #[command(flatten)]
    member: MemberArgs,
    /// What this process does
    #[arg(long, value_enum, default_value = "compute", requires = "backend")]
    role: Role,
    /// Where the queue is
    #[arg(long, value_name = "PATH", default_value = "/priority-queue", requires = "backend")]
    queue: String,
    /// Take the most urgent entry, without regard to the cache
    #[arg(long, requires = "backend")]
    no_preference: bool,
    /// How many data sets the cache of a node holds
    #[arg(long, value_name = "NUMBER", default_value_t = 2)]
    cache: usize,
    /// How long it takes to load a data set
    #[arg(long, value_parser = support::duration, default_value = "200ms")]
    load: Duration,
    /// How long an answer takes, once the data is there
    #[arg(long, value_parser = support::duration, default_value = "40ms")]
    pace: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Put an entry for each group of each data set, collect the results and check them
    Dispatch,
    /// Take entries and compute, until stopped
    Compute,
}

const EXAMPLES: &str = "Examples:\n\
\x20 priority_queue --backend zookeeper://127.0.0.1:2181 --member-id a\n\
\x20 priority_queue --backend zookeeper://127.0.0.1:2181 --role dispatch";

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    args.member.print_events();
    exit(run(args).await)
}

async fn run(args: Args) -> Result<(), Failure> {
    let node = Node {
        prefers: !args.no_preference,
        cache: args.cache,
        load: args.load,
        pace: args.pace,
        gate: Gate::default(),
    };
    match args.member.config()? {
        Some(config) if args.role == Role::Compute => fleet::compute(config, &args, &node).await,
        Some(config) => fleet::dispatch(config, &args).await,
        None => demo::run(&node).await,
    }
}
