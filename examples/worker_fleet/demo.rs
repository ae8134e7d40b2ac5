//! An executor and three workers in one process, on the in-process broker. One worker crashes, and a backup fails and
//! is reverted. The hashes are compared with those that are computed without any worker.

mod backup;
mod process;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use apportion::worker::{Executor, LocalBroker, RequestError};
use indicatif::DecimalBytes;
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

use self::process::Process;
use super::{
    files::File,
    order::{self, News},
    work::{self, Hashed, Manner},
};
use crate::support::{
    Column, Failure, Progress, say,
    screen::{bold, count, end_of, green, red, yellow},
    seconds, table, time,
};

const NAMES: [&str; 3] = ["worker-1", "worker-2", "worker-3"];
/// How many requests a worker runs at a time.
const SLOTS: u32 = 2;
/// The defaults are those of TaskFlow, a minute: too long for a demonstration.
const WORKER_EXPIRY: Duration = Duration::from_secs(2);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(3);
/// How often workers are asked, and say of a request that it is running.
const PULSE: Duration = Duration::from_millis(400);
/// How long the hashing is to take, so that there is something to see.
const SHOW: Duration = Duration::from_secs(4);

/// Runs the demonstration; fails if a hash is wrong, or a worker that crashed took a request with it.
pub async fn run(files: Vec<File>) -> Result<(), Failure> {
    let total: u64 = files.iter().map(|file| file.bytes).sum();
    let pace = pace(&files, total);
    say!(
        "{} to hash, {} in all, by an executor and three workers.\n\
         A worker runs {SLOTS} requests at a time, each at no more than {} a second,\n\
         so that there is something to see; it is gone when it was silent for {}.",
        bold(count(files.len(), "file")),
        DecimalBytes(total),
        DecimalBytes(pace as u64),
        seconds(WORKER_EXPIRY),
    );

    let broker = LocalBroker::new();
    let mut workers = Vec::new();
    for name in NAMES {
        let manner = Manner { name: name.into(), pace: Some(pace), talks: false };
        let worker = work::with_backups(work::hasher(broker.clone(), name, manner));
        workers.push(Process::start(name, worker.concurrency(SLOTS).heartbeat(PULSE)).await?);
    }
    let executor = Executor::builder(broker)
        .topics(NAMES)
        .notify_period(PULSE)
        .worker_expiry(WORKER_EXPIRY)
        .request_timeout(REQUEST_TIMEOUT)
        .await?;
    executor.wait_for_workers(work::HASH, NAMES.len()).await;

    let mut hashing = Hashing::new(files, total, workers);
    hashing.run(&executor).await?;
    let backups = backup::run(&executor, &hashing.hashed()).await?;

    let mut ends = BTreeMap::new();
    for worker in hashing.workers.drain(..) {
        let name = worker.name;
        let end = if worker.shut_down().await { "shut down" } else { "did not end in time" };
        ends.insert(name, end.to_owned());
    }
    executor.shutdown().await;
    hashing.summary(ends, &backups)
}

/// How many bytes a second a request may read, so that all of them take about [`SHOW`].
fn pace(files: &[File], total: u64) -> f64 {
    let slots = (NAMES.len() * SLOTS as usize).min(files.len());
    let largest = files.iter().map(|file| file.bytes).max().unwrap_or_default();
    (total as f64 / slots as f64).max(largest as f64) / SHOW.as_secs_f64()
}

/// A request that did not end yet.
#[derive(Default)]
struct Open {
    worker: Option<String>,
    done: f64,
}

/// A worker that crashed.
struct Crash {
    name: &'static str,
    at: Instant,
    /// When the executor no longer counted on it.
    noticed: Option<Instant>,
}

/// The files on their way through the fleet.
struct Hashing {
    files: Arc<[File]>,
    total: u64,
    workers: Vec<Process>,
    start: Instant,
    open: BTreeMap<usize, Open>,
    results: BTreeMap<usize, Hashed>,
    crash: Option<Crash>,
    /// How many requests ended because their worker had vanished, and because no worker started on them.
    vanished: usize,
    expired: usize,
}

impl Hashing {
    fn new(files: Vec<File>, total: u64, workers: Vec<Process>) -> Hashing {
        Hashing {
            files: files.into(),
            total,
            workers,
            start: time::now(),
            open: BTreeMap::new(),
            results: BTreeMap::new(),
            crash: None,
            vanished: 0,
            expired: 0,
        }
    }

    /// Has all files hashed.
    async fn run(&mut self, executor: &Executor) -> Result<(), Failure> {
        say!("\n{}", bold("HASH"));
        self.start = time::now();
        let mut progress = Progress::of(self.files.len(), SHOW / 8);
        let mut lines = interval(SHOW / 40);
        lines.set_missed_tick_behavior(MissedTickBehavior::Delay);
        lines.tick().await;
        let (report, mut news) = mpsc::unbounded_channel();
        let mut requests = JoinSet::new();
        let mut waiting = 0..self.files.len();
        loop {
            // No more than the workers can run. A request that waits for one of them is not safe from expiry.
            let room = executor.workers().len().max(1) * SLOTS as usize;
            while requests.len() < room
                && let Some(number) = waiting.next()
            {
                let (executor, files, report) = (executor.clone(), self.files.clone(), report.clone());
                self.open.insert(number, Open::default());
                requests.spawn(async move {
                    // The receiver lives as long as these tasks.
                    let report = |news| drop(report.send((number, news)));
                    (number, order::hash(&executor, &files[number], report).await)
                });
            }
            let mut started = None;
            tokio::select! {
                biased;
                Some((number, news)) = news.recv() => started = self.note(number, news),
                ended = requests.join_next() => match ended {
                    Some(ended) => self.end(ended?)?,
                    None => break,
                },
                _ = lines.tick() => self.show(&mut progress),
            }
            self.check_crash(executor, started).await;
        }
        drop(progress);
        self.say(&format!("all {} are hashed", count(self.results.len(), "file")));
        Ok(())
    }

    /// Returns which worker has just started on a file, if that is what happened.
    fn note(&mut self, number: usize, news: News) -> Option<String> {
        let open = self.open.entry(number).or_default();
        match news {
            News::Started { worker } => {
                open.worker = Some(worker.clone());
                return Some(worker);
            }
            News::Progress(done) => open.done = done,
            News::SentAgain(error) => {
                *open = Open::default();
                match error {
                    RequestError::Expired { .. } => self.expired += 1,
                    _ => self.vanished += 1,
                }
                let name = end_of(&self.files[number].name, 60);
                self.say(&yellow(format!("{error}:")));
                say!("{:10}{name} is sent again", "");
            }
        }
        None
    }

    fn end(&mut self, (number, outcome): (usize, Result<Hashed, Failure>)) -> Result<(), Failure> {
        self.open.remove(&number);
        let hashed = outcome.map_err(|error| format!("{}: {error}", self.files[number].name))?;
        self.results.insert(number, hashed);
        Ok(())
    }

    /// Lets a worker crash in the middle of its work, and prints when the executor notices.
    ///
    /// `started`: which worker has just started on a file. Files of like sizes are done at the same moments, and then no
    /// worker is in the middle of one.
    async fn check_crash(&mut self, executor: &Executor, started: Option<String>) {
        match &mut self.crash {
            None => {
                if let Some(victim) = started.and_then(|name| self.victim(&name)) {
                    self.crash(victim).await;
                }
            }
            Some(Crash { noticed: Some(_), .. }) => {}
            Some(crash) => {
                if !executor.workers().contains_key(crash.name) {
                    crash.noticed = Some(time::now());
                    let text = format!("the executor no longer counts on {}", crash.name);
                    self.say(&text);
                }
            }
        }
    }

    /// After a third of the bytes, the place of the worker of this name.
    fn victim(&self, name: &str) -> Option<usize> {
        let place = self.workers.iter().position(|worker| worker.name == name)?;
        (self.fraction() > 0.33).then_some(place)
    }

    async fn crash(&mut self, victim: usize) {
        let worker = self.workers.remove(victim);
        let name = worker.name;
        self.crash = Some(Crash { name, at: time::now(), noticed: None });
        worker.crash().await;
        self.say(&red(format!("{name} crashes. It was in the middle of:")));
        for (number, open) in &self.open {
            if open.worker.as_deref() == Some(name) {
                say!("{:10}{} ({:.0} %)", "", end_of(&self.files[*number].name, 60), open.done * 100.0);
            }
        }
    }

    fn say(&self, text: &str) {
        say!("  {:>6}  {text}", seconds(self.start.elapsed()));
    }

    /// How much is done. For a file that is being hashed, its requests report it.
    fn fraction(&self) -> f64 {
        let done: u64 = self.results.keys().map(|&number| self.files[number].bytes).sum();
        let open = self.open.iter().map(|(&number, open)| self.files[number].bytes as f64 * open.done);
        (done as f64 + open.sum::<f64>()) / self.total as f64
    }

    fn files_of(&self, worker: &str) -> impl Iterator<Item = &Hashed> {
        self.results.values().filter(move |hashed| hashed.worker == worker)
    }

    fn show(&self, progress: &mut Progress) {
        let workers = NAMES.map(|name| match &self.crash {
            Some(crash) if crash.name == name => red("crashed"),
            _ => self.files_of(name).count().to_string(),
        });
        let percent = (self.fraction() * 100.0).floor();
        let words = format!("{percent:>3.0} % of bytes; workers {}", workers.join(", "));
        if let Some(line) = progress.show(self.results.len(), &words) {
            self.say(&line);
        }
    }

    /// The files with their hashes, the smallest first.
    fn hashed(&self) -> Vec<(File, Hashed)> {
        let all = self.results.iter().rev();
        all.map(|(&number, hashed)| (self.files[number].clone(), hashed.clone())).collect()
    }

    fn summary(
        &self,
        mut ends: BTreeMap<&'static str, String>,
        backups: &backup::Summary,
    ) -> Result<(), Failure> {
        say!("\n{}", bold("SUMMARY"));
        if let Some(crash) = &self.crash {
            let noticed =
                crash.noticed.map_or("never".into(), |at| format!("{} later", seconds(at - crash.at)));
            let at = seconds(crash.at - self.start);
            ends.insert(crash.name, format!("crashed after {at}, noticed {noticed}"));
        }
        let rows = NAMES.iter().map(|name| {
            let size = self.files_of(name).map(|hashed| hashed.bytes).sum();
            let files = self.files_of(name).count().to_string();
            let size = DecimalBytes(size).to_string();
            vec![(*name).into(), files, size, ends.remove(name).unwrap_or_default()]
        });
        let columns =
            [Column::Left("worker"), Column::Right("files"), Column::Right("bytes"), Column::Left("end")];
        table(&columns, rows);

        let rows = [
            ("SUCCESS", self.results.len() + backups.succeeded, "the task gave a result"),
            ("WorkerVanished", self.vanished, "the worker that ran it crashed: sent again"),
            ("Expired", self.expired, "no worker started on it: sent again"),
            ("Failed", backups.failed, "the task failed: what was done is reverted"),
        ];
        let requests: usize = rows.iter().map(|(_, number, _)| number).sum();
        say!("\n  Each of the {requests} requests has ended once:");
        let rows = rows.iter().filter(|(_, number, _)| *number > 0);
        let rows = rows.map(|(end, number, why)| vec![(*end).into(), number.to_string(), (*why).into()]);
        let columns = [Column::Left("end"), Column::Right("requests"), Column::Left("because")];
        table(&columns, rows);

        say!("");
        let mut wrong = Vec::new();
        for (number, hashed) in &self.results {
            let file = &self.files[*number];
            if work::digest_here(&file.path)? != hashed.md5 {
                wrong.push(file.name.as_str());
            }
        }
        if !wrong.is_empty() {
            return Err(format!("not what this process finds itself: the MD5 of {}", wrong.join(", ")).into());
        }
        if self.crash.is_none() || self.vanished + self.expired == 0 {
            return Err("no worker crashed in the middle of its work".into());
        }
        let right = green(format!("The hashes of all {} are right:", count(self.results.len(), "file")));
        say!("  {right}\n  computed again without workers, they are the same.");
        Ok(())
    }
}
