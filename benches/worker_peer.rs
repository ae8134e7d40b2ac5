//! Runs an executor and a worker of this crate on command, at a broker of its own, for a program in another language
//! that takes turns with it there. `scripts/bench-python worker` starts it.
//!
//! Prints the URL of the broker, then answers each `requests COUNT IN_FLIGHT` with the seconds that these took.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    error::Error,
    io::{BufRead as _, BufReader, Write as _, stdin, stdout},
    process::{Child, Command, Stdio},
    time::Instant,
};

use apportion::worker::{Executor, Request, Worker, amqp::AmqpTransport, transport::TransportError};
use support::Broker;
use tokio::task::JoinSet;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The same as in `benches/python/worker.py`.
const CONCURRENCY: u32 = 16;
const TOPIC: &str = "rust-worker";
const EXCHANGE: &str = "rust";
const TASK: &str = "nothing";

#[tokio::main]
async fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["executor"] => executor().await,
        ["worker", url] => worker(url).await,
        _ => {
            println!("this one takes turns with Python: scripts/bench-python worker");
            Ok(())
        }
    }
}

/// Runs requests, until stdin ends.
async fn worker(url: &str) -> Outcome<()> {
    let worker = Worker::builder(AmqpTransport::connect(url, EXCHANGE).await?)
        .topic(TOPIC)
        .task(TASK, async |_, _| Ok::<_, TransportError>(()))
        .concurrency(CONCURRENCY)
        .await?;
    say("ready")?;
    tokio::task::spawn_blocking(|| stdin().lock().lines().last()).await?;
    drop(worker);
    Ok(())
}

async fn executor() -> Outcome<()> {
    let broker = Broker::start().await;
    let mut worker = OwnWorker::start(&broker.url())?;
    let transport = AmqpTransport::connect(&broker.url(), EXCHANGE).await?;
    let executor = Executor::builder(transport).topics([TOPIC]).await?;
    executor.wait_for_workers(TASK, 1).await;
    say(&broker.url())?;
    for line in stdin().lock().lines() {
        let line = line?;
        let ["requests", count, in_flight] = line.split(' ').collect::<Vec<_>>()[..] else {
            return Err(format!("unknown command `{line}`").into());
        };
        say(&format!("{:.6}", requests(&executor, count.parse()?, in_flight.parse()?).await?))?;
    }
    executor.shutdown().await;
    worker.end();
    Ok(())
}

/// How many seconds it takes to have `count` requests run, `in_flight` at a time.
#[expect(clippy::disallowed_methods, reason = "this measures real time")]
async fn requests(executor: &Executor, count: usize, in_flight: usize) -> Outcome<f64> {
    let start = Instant::now();
    let mut open = JoinSet::new();
    for _ in 0..count {
        if open.len() == in_flight {
            open.join_next().await.expect("it is not empty")??;
        }
        open.spawn(executor.submit(Request::execute(TASK)));
    }
    while let Some(ended) = open.join_next().await {
        ended??;
    }
    Ok(start.elapsed().as_secs_f64())
}

/// A process of its own, as workers are.
struct OwnWorker(Child);

impl OwnWorker {
    fn start(url: &str) -> Outcome<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["worker", url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut line = String::new();
        BufReader::new(process.stdout.take().expect("it is piped")).read_line(&mut line)?;
        if line != "ready\n" {
            return Err("the worker did not start".into());
        }
        Ok(OwnWorker(process))
    }

    fn end(&mut self) {
        // It ends with its stdin. Its exit status does not matter.
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn say(line: &str) -> Outcome<()> {
    println!("{line}");
    Ok(stdout().flush()?)
}
