//! Long-running work, a task for each shard, that follows the membership: what is lost is stopped before what is
//! gained is started.
//!
//! ```text
//! cargo run --example watch_rebalances                  # workers come and go in one process
//! cargo run --example watch_rebalances -- --backend zookeeper://127.0.0.1:2181 --member-id a
//! ```

#![allow(unreachable_pub, reason = "a program has no public interface")]

mod support;

use std::{
    collections::{BTreeMap, HashMap},
    process::ExitCode,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use apportion::{Config, Group, Held, PartitionCoordinator, backend::Memory, group::Rebalance, ring::Ranges};
use clap::Parser;
use tokio::{task::JoinSet, time::sleep};

use self::support::{
    Failure, FleetArgs, exit, say,
    screen::{bold, count, dim, some_of},
    stopped, time, time_of_day,
};

/// One worker: has a task running for each shard that is its own, and for no other. Returns when the group is left.
async fn follow(group: Group, shards: &[String], workers: &mut Workers, mut report: impl FnMut(&Rebalance)) {
    let mut rebalances = group.rebalances();
    while let Some(change) = rebalances.next().await {
        for shard in change.lost(shards) {
            workers.stop(shard).await;
        }
        for shard in change.gained(shards) {
            workers.start(shard.map(String::clone));
        }
        report(&change);
    }
}

/// The tasks of one worker.
struct Workers {
    name: String,
    tasks: HashMap<String, JoinSet<()>>,
    board: Board,
}

impl Workers {
    fn new(name: &str, board: &Board) -> Workers {
        Workers { name: name.into(), tasks: HashMap::new(), board: board.clone() }
    }

    /// The task has the guard of its shard: when the task has ended, so has the work on the shard.
    fn start(&mut self, shard: Held<String>) {
        let (name, mut task) = (shard.to_string(), JoinSet::new());
        task.spawn(work(shard, self.board.enter(name.clone(), self.name.clone())));
        self.tasks.insert(name, task);
    }

    /// Returns when the work has stopped, not only when the stop was requested.
    async fn stop(&mut self, shard: &str) {
        if let Some(mut task) = self.tasks.remove(shard) {
            task.shutdown().await;
        }
    }
}

/// What is done for a shard, for as long as it is ours: follow a log, hold a connection, consume a stream...
async fn work(shard: Held<String>, _entry: Entry) {
    loop {
        if shard.is_valid() {
            // One step of the work, which ends well before `shard.remaining()` has passed.
        }
        sleep(Duration::from_millis(100)).await;
    }
}

/// Shows how workers follow a membership that changes.
///
/// Without --backend, several workers come and go within this process for fifteen seconds. With --backend it is one
/// worker of a fleet and runs until it is stopped.
#[derive(Debug, Parser)]
#[command(after_help = EXAMPLES, max_term_width = 80)]
struct Args {
    #[command(flatten)]
    fleet: FleetArgs,
    /// How many shards there are; the same in the whole fleet
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(1..))]
    shards: u16,
    /// The share of this worker relative to others
    #[arg(long, default_value_t = 1, requires = "backend")]
    weight: u32,
    /// Follow a change only when the membership has been quiet for so long, such as 2s
    #[arg(long, value_parser = support::duration, requires = "backend")]
    settle: Option<Duration>,
}

const EXAMPLES: &str = "Examples:\n\
\x20 watch_rebalances --backend zookeeper://127.0.0.1:2181 --member-id a --weight 2";

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    args.fleet.print_events();
    exit(run(args).await)
}

async fn run(args: Args) -> Result<(), Failure> {
    let shards: Vec<String> = (0..args.shards).map(|number| format!("shard-{number:02}")).collect();
    match args.fleet.config()? {
        Some(config) => one_of_a_fleet(config, &args, &shards).await,
        None => demonstration(shards).await,
    }
}

/// One worker of a real fleet, until it is stopped.
async fn one_of_a_fleet(config: Config, args: &Args, shards: &[String]) -> Result<(), Failure> {
    let servers = config.hosts().join(", ");
    let coordinator = PartitionCoordinator::start(config)?;
    let settle = args.settle.unwrap_or_default();
    let group =
        coordinator.join(args.fleet.group("watch-rebalances")).weight(args.weight).settle(settle).await?;
    let me = coordinator.member_id().to_string();
    say!("worker {me}: {}\nat {servers}; times are UTC, Ctrl-C ends it", count(shards.len(), "shard"));

    let mut workers = Workers::new(&me, &Board::default());
    let report = |change: &Rebalance| {
        let (lost, gained) = (change.lost_ranges(), change.gained_ranges());
        for (word, ranges) in [("lost  ", lost), ("gained", gained)] {
            let some: Vec<_> = ranges.select(shards).collect();
            if !some.is_empty() {
                say!("{}  {word} {:>3}: {}", time_of_day(), some.len(), dim(some_of(&some, 58)));
            }
        }
        say!("{}  {change}", time_of_day());
    };
    tokio::select! {
        () = follow(group.clone(), shards, &mut workers, report) => {}
        () = stopped() => {}
    }
    // Our work ends before others may start with it.
    for shard in shards {
        workers.stop(shard).await;
    }
    if let Some(refusal) = group.view().refusal() {
        say!("{}  {refusal}", time_of_day());
    }
    match coordinator.shutdown().await {
        Ok(()) => say!("{}  stopped; the others know", time_of_day()),
        Err(error) => say!("{}  stopped; {error}", time_of_day()),
    }
    Ok(())
}

/// Workers that come and go in this process.
async fn demonstration(shards: Vec<String>) -> Result<(), Failure> {
    const SESSION_TIMEOUT: Duration = Duration::from_secs(3);
    let mut demo = Demo {
        ensemble: Memory::new(),
        timeout: SESSION_TIMEOUT,
        board: Board::default(),
        shards: shards.into(),
        start: time::now(),
        workers: BTreeMap::new(),
    };
    let shards = bold(count(demo.shards.len(), "shard"));
    say!("{shards}, and workers that come and go; a session expires after 3 s of silence.");
    say!("{}", dim("On the right who works on each shard: 1, 2, 3, no worker (.) or two (*)."));
    let pause = Duration::from_millis(1500);

    demo.title("worker-1 joins");
    demo.join("worker-1").await?;
    sleep(pause).await;
    demo.title("worker-2 and worker-3 join");
    demo.join("worker-2").await?;
    demo.join("worker-3").await?;
    sleep(pause).await;

    demo.title("worker-2 loses contact: it stops by itself, before the others can take over");
    let session = demo.workers["worker-2"].coordinator.session_id().ok_or("worker-2 has no session")?;
    demo.ensemble.suspend(session);
    demo.ensemble.refuse_connections(true);
    sleep(SESSION_TIMEOUT + pause).await;
    demo.title("worker-2 has contact again: it re-joins by itself");
    demo.ensemble.refuse_connections(false);
    sleep(pause).await;

    demo.title("worker-3 shuts down: the others know at once");
    demo.leave("worker-3").await?;
    sleep(pause).await;
    demo.title("worker-1 crashes: the others know when its session expires");
    demo.crash("worker-1");
    sleep(SESSION_TIMEOUT + pause).await;

    demo.title("worker-2 shuts down");
    demo.leave("worker-2").await?;
    match &demo.board.shared()[..] {
        [] => Ok(()),
        shared => Err(format!("two workers have worked at once on {shared:?}").into()),
    }
}

struct Demo {
    ensemble: Memory,
    timeout: Duration,
    board: Board,
    shards: Arc<[String]>,
    start: Instant,
    workers: BTreeMap<&'static str, Worker>,
}

struct Worker {
    coordinator: PartitionCoordinator,
    /// One task; dropping it stops the worker with all its work.
    task: JoinSet<()>,
}

impl Demo {
    fn title(&self, text: &str) {
        say!("\n{}", bold(text));
    }

    async fn join(&mut self, name: &'static str) -> Result<(), Failure> {
        let config = Config::for_backend(self.ensemble.clone())
            .member_id(name)
            .session_timeout(self.timeout)
            .server_tick(Duration::from_millis(300));
        let coordinator = PartitionCoordinator::connect(config).await?;
        let group = coordinator.join("watch-rebalances").await?;
        let (shards, board, start) = (self.shards.clone(), self.board.clone(), self.start);
        let mut task = JoinSet::new();
        task.spawn(async move {
            let report = |change: &Rebalance| {
                let number = |ranges: Ranges| ranges.select(&*shards).count();
                let (lost, gained) = (number(change.lost_ranges()), number(change.gained_ranges()));
                let words = match (lost, gained) {
                    (0, gained) => format!("gained {gained}"),
                    (lost, 0) => format!("lost {lost}"),
                    (lost, gained) => format!("lost {lost}, gained {gained}"),
                };
                let at = start.elapsed().as_secs_f64();
                say!("  {at:>5.2} s  {name}  {words:<20}  {}", board.picture(&shards));
            };
            follow(group, &shards, &mut Workers::new(name, &board), report).await;
        });
        self.workers.insert(name, Worker { coordinator, task });
        Ok(())
    }

    async fn leave(&mut self, name: &str) -> Result<(), Failure> {
        let Some(mut worker) = self.workers.remove(name) else { return Ok(()) };
        worker.coordinator.shutdown().await?;
        worker.task.join_next().await;
        Ok(())
    }

    fn crash(&mut self, name: &str) {
        let Some(worker) = self.workers.remove(name) else { return };
        if let Some(session) = worker.coordinator.session_id() {
            self.ensemble.suspend(session);
        }
    }
}

/// Who works on what at this moment, as the work itself says.
#[derive(Clone, Default)]
struct Board {
    workers: Arc<Mutex<HashMap<String, Vec<String>>>>,
    /// Shards on which two workers have worked at once.
    shared: Arc<Mutex<Vec<String>>>,
}

/// The entry of a task; it goes when the task ends, however it ends.
struct Entry {
    board: Board,
    shard: String,
    worker: String,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Vec<String>>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shared(&self) -> MutexGuard<'_, Vec<String>> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self, shard: String, worker: String) -> Entry {
        let mut board = self.lock();
        let workers = board.entry(shard.clone()).or_default();
        if workers.iter().any(|other| *other != worker) {
            self.shared().push(shard.clone());
        }
        workers.push(worker.clone());
        Entry { board: self.clone(), shard, worker }
    }

    /// A character for each shard.
    fn picture(&self, shards: &[String]) -> String {
        let board = self.lock();
        let workers = |shard| board.get(shard).map_or(&[][..], Vec::as_slice);
        let character = |shard| match workers(shard) {
            [] => '.',
            [one] => one.chars().next_back().unwrap_or('?'),
            _ => '*',
        };
        shards.iter().map(character).collect()
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if let Some(workers) = self.board.lock().get_mut(&self.shard) {
            workers.retain(|worker| *worker != self.worker);
        }
    }
}
