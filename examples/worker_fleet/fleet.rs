//! One worker, or the executor, at a real broker.

use std::{convert::Infallible, pin::pin, sync::Arc, time::Duration};

use apportion::worker::{Executor, Worker, amqp::AmqpTransport, transport::Transport};
use indicatif::DecimalBytes;
use tokio::{task::JoinSet, time::timeout};

use super::{
    Args,
    files::File,
    order::{self, News},
    work::{self, Hashed, Manner},
};
use crate::support::{
    Failure, say,
    screen::{count, dim, end_of, green, red, yellow},
    seconds, stopped, time, time_of_day,
};

/// The exchange that all of a fleet has in common.
const EXCHANGE: &str = "worker-fleet";
/// How long those that are asked to stop finish what they run.
const TIMEOUT: Duration = Duration::from_secs(30);
/// How many heartbeats fit into the time after which a silent worker is gone.
const PULSES: u32 = 5;

/// How often workers are asked, and say of a request that it is running: every 5 s, or as often as `expiry` needs it.
fn pulse(expiry: Duration) -> Duration {
    (expiry / PULSES).min(Duration::from_secs(5))
}

/// Hashes files until an operator stops it.
pub async fn worker(url: &str, args: &Args) -> Result<(), Failure> {
    let [topic] = &args.topic[..] else { return Err("a worker has one topic".into()) };
    let mut stop = pin!(stopped());
    let name = format!("pid-{}", std::process::id());
    let transport = AmqpTransport::connect(url, EXCHANGE).await?;
    let manner = Manner { name: name.clone(), pace: None, talks: true };
    let worker: Worker = work::hasher(transport.clone(), topic, manner)
        .concurrency(args.concurrency.unwrap_or(2))
        .heartbeat(pulse(args.expiry))
        .await?;
    say!("worker {name}: hashing what comes to topic {topic};\ntimes are UTC, Ctrl-C ends it");
    stop.as_mut().await;
    say!("{}  stopping; {}", time_of_day(), running(worker.running()));
    let is_drained = tokio::select! {
        is_drained = worker.shutdown(TIMEOUT) => is_drained,
        () = stopped() => false,
    };
    transport.close().await;
    let how = if is_drained { "stopped; nothing was left" } else { "stopped; what was left has failed" };
    say!("{}  {how}", time_of_day());
    Ok(())
}

fn running(number: usize) -> String {
    match number {
        0 => "nothing is running".into(),
        _ => format!("{} may finish, unless Ctrl-C comes again", count(number, "request")),
    }
}

/// Has `files` hashed, or as many as are done when an operator stops it.
pub async fn executor(url: &str, files: Vec<File>, args: &Args) -> Result<(), Failure> {
    let mut stop = pin!(stopped());
    let transport = AmqpTransport::connect(url, EXCHANGE).await?;
    let executor = Executor::builder(transport.clone())
        .topics(&args.topic)
        .notify_period(pulse(args.expiry))
        .worker_expiry(args.expiry)
        .request_timeout(args.expiry)
        .await?;
    let all = count(files.len(), "file");
    say!("executor: {all} to hash at topic {};\ntimes are UTC, Ctrl-C ends it", args.topic.join(", "));
    let has_workers = tokio::select! {
        has_workers = executor.wait_for_workers(work::HASH, 1) => has_workers,
        () = &mut stop => false,
        never = say_that_it_waits() => match never {},
    };

    let mut work = Work::new(files.into(), args.concurrency.unwrap_or(8) as usize);
    if has_workers {
        tokio::select! {
            () = work.hash_all(&executor) => {}
            () = &mut stop => {
                say!("{}  stopping; {}", time_of_day(), running(work.requests.len()));
                tokio::select! {
                    _ = timeout(TIMEOUT, work.finish()) => {}
                    () = stopped() => {}
                }
            }
        }
    }
    work.requests.shutdown().await;
    executor.shutdown().await;
    transport.close().await;
    work.summary()
}

async fn say_that_it_waits() -> Infallible {
    tokio::time::sleep(Duration::from_secs(1)).await;
    say!("{}  no worker there yet; waiting for one", time_of_day());
    std::future::pending().await
}

/// The files on their way through the fleet.
struct Work {
    files: Arc<[File]>,
    concurrency: usize,
    requests: JoinSet<(usize, Result<Hashed, Failure>)>,
    next: usize,
    start: std::time::Instant,
    done: usize,
    bytes: u64,
    failed: usize,
}

impl Work {
    fn new(files: Arc<[File]>, concurrency: usize) -> Work {
        let requests = JoinSet::new();
        Work { files, concurrency, requests, next: 0, start: time::now(), done: 0, bytes: 0, failed: 0 }
    }

    async fn hash_all(&mut self, executor: &Executor) {
        loop {
            while self.requests.len() < self.concurrency && self.next < self.files.len() {
                let (executor, files, number) = (executor.clone(), self.files.clone(), self.next);
                self.requests.spawn(async move {
                    let file = &files[number];
                    let outcome = order::hash(&executor, file, |news| print(file, &news)).await;
                    (number, outcome)
                });
                self.next += 1;
            }
            if !self.end_one().await {
                return;
            }
        }
    }

    async fn finish(&mut self) {
        while self.end_one().await {}
    }

    /// Waits for the end of a request. Returns false if there is none.
    async fn end_one(&mut self) -> bool {
        let Some(ended) = self.requests.join_next().await else { return false };
        let Ok((number, outcome)) = ended else {
            self.failed += 1;
            return true;
        };
        let (file, now) = (&self.files[number], time_of_day());
        match outcome {
            Ok(Hashed { md5, bytes, worker }) => {
                say!("{md5}  {}  {}", end_of(&file.name, 30), dim(format!("by {worker}")));
                self.done += 1;
                self.bytes += bytes;
            }
            Err(error) => {
                say!("{now}  {}  {}", red(&file.name), error);
                self.failed += 1;
            }
        }
        true
    }

    fn summary(&self) -> Result<(), Failure> {
        let took = self.start.elapsed();
        let (done, failed, all) = (self.done, self.failed, self.files.len());
        let now = time_of_day();
        say!("{now}  {done} of {all} hashed, {} in {}", DecimalBytes(self.bytes), seconds(took));
        if failed > 0 {
            return Err(format!("{failed} of {all} could not be hashed").into());
        }
        match all - done {
            0 => say!("{now}  {}", green("nothing failed")),
            left => say!("{now}  {}", yellow(format!("{left} were left out"))),
        }
        Ok(())
    }
}

/// Prints what is out of the ordinary.
fn print(file: &File, news: &News) {
    if let News::SentAgain(error) = news {
        say!("{}  {}  {error}; it is sent again", time_of_day(), yellow(&file.name));
    }
}
