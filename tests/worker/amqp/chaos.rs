//! Executor and workers under load over a broker whose connections break all the time.
//!
//! `APPORTION_CHAOS_BREAKS=1000 cargo test --all-features --test worker chaos -- --nocapture` breaks more often and
//! prints how requests ended; `APPORTION_CHAOS_SEED` chooses other breaks.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::Duration,
};

use apportion::worker::{Arguments, Executor, Failure, Request, RequestError, Worker, amqp::AmqpTransport};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::support::{Broker, MS, Mode, Proxy, SECOND, eventually};

const TOPICS: [&str; 3] = ["a", "b", "c"];
/// How many requests are open at a time.
const OPEN: usize = 60;
/// After so many breaks in quick succession the test waits until more requests than that have succeeded, so that it does
/// not depend on the speed of the machine.
const BURST: u32 = 6;

/// Raises the memory alarm for half a second.
const MEMORY_ALARM: &str = "vm_memory_monitor:set_vm_memory_high_watermark({absolute, 1000000}), timer:sleep(500), \
     true = lists:member({{resource_limit, memory, node()}, []}, rabbit_alarm:get_alarms()), \
     vm_memory_monitor:set_vm_memory_high_watermark(0.6).";

/// What a run of a request did.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The number of the worker.
    worker: u64,
    has_ended: bool,
}

/// The runs of each request, by its number.
#[derive(Debug, Default)]
struct Ledger(Mutex<BTreeMap<u64, Vec<Run>>>);

impl Ledger {
    fn begin(&self, number: u64, worker: u64) -> usize {
        let mut runs = self.0.lock().unwrap();
        let runs = runs.entry(number).or_default();
        runs.push(Run { worker, has_ended: false });
        runs.len() - 1
    }

    fn end(&self, number: u64, run: usize) {
        self.0.lock().unwrap().get_mut(&number).unwrap()[run].has_ended = true;
    }

    fn runs(&self, number: u64) -> Vec<Run> {
        self.0.lock().unwrap().get(&number).cloned().unwrap_or_default()
    }
}

/// A worker with a connection of its own.
struct Site {
    topic: &'static str,
    number: u64,
    proxy: Proxy,
    worker: Option<Worker>,
}

async fn connect(proxy: &Proxy) -> AmqpTransport {
    let url = format!("amqp://{}/?heartbeat=2", proxy.connect_string());
    eventually("connected", 20 * SECOND, || async { AmqpTransport::connect(&url, "chaos").await.ok() }).await
}

impl Site {
    async fn start(topic: &'static str, number: u64, broker: u16, ledger: &Arc<Ledger>) -> Site {
        let proxy = Proxy::start(broker).await;
        let ledger = ledger.clone();
        let work = move |_, arguments: Arguments| {
            let ledger = ledger.clone();
            async move {
                let request: u64 = arguments.get("number")?;
                let run = ledger.begin(request, number);
                sleep(MS * u32::try_from(20 + request * 7 % 180).unwrap()).await;
                ledger.end(request, run);
                Ok::<_, Failure>(request * 2)
            }
        };
        let worker = loop {
            let builder = Worker::builder(connect(&proxy).await).topic(topic).task("work", work.clone());
            if let Ok(worker) = builder.concurrency(4).heartbeat(SECOND / 2).await {
                break Some(worker);
            }
        };
        Site { topic, number, proxy, worker }
    }

    /// No message leaves it from now on, and its tasks are dropped.
    fn kill(&mut self) {
        self.proxy.set(Mode::Cut);
        drop(self.worker.take());
    }
}

/// Everything that is broken.
struct Fleet {
    broker: Broker,
    ledger: Arc<Ledger>,
    executor_proxy: Proxy,
    sites: Vec<Site>,
    killed: BTreeSet<u64>,
    started: u64,
}

impl Fleet {
    async fn start_site(&mut self, topic: &'static str) {
        self.started += 1;
        let site = Site::start(topic, self.started, self.broker.port(), &self.ledger).await;
        self.sites.push(site);
    }

    /// Starts a worker at each topic that has none.
    async fn start_missing(&mut self) {
        for topic in TOPICS {
            if self.sites.iter().all(|site| site.topic != topic) {
                self.start_site(topic).await;
            }
        }
    }

    async fn break_something(&mut self, number: u32, rng: &mut fastrand::Rng) {
        let chosen = rng.usize(..self.sites.len());
        match number % 30 {
            15 if number % 60 == 45 => self.start_missing().await,
            // A node that dies and comes back.
            29 if number % 60 == 29 => self.broker.restart().await,
            // The memory alarm: the broker confirms nothing, and reads nothing from those that send.
            14 if number % 60 == 14 => {
                self.broker.ctl(&["eval", MEMORY_ALARM]).await;
            }
            // Not at the end, because it takes the expiry until the requests that ran there end.
            5 | 20 if number % 60 < 40 => {
                let mut site = self.sites.swap_remove(chosen);
                site.kill();
                self.killed.insert(site.number);
                if number % 60 != 20 {
                    self.start_site(site.topic).await;
                }
            }
            10 => self.sites[chosen].black_hole().await,
            25 => {
                self.executor_proxy.set(Mode::BlackHole);
                sleep(SECOND / 2).await;
                self.executor_proxy.set(Mode::Pass);
            }
            8 | 18 | 28 => {
                self.executor_proxy.reset();
                self.sites.iter().for_each(|site| site.proxy.reset());
            }
            even if even % 2 == 0 => self.executor_proxy.reset(),
            _ => self.sites[chosen].proxy.reset(),
        }
    }
}

impl Site {
    async fn black_hole(&self) {
        self.proxy.set(Mode::BlackHole);
        sleep(SECOND / 2).await;
        self.proxy.set(Mode::Pass);
    }
}

fn variable(name: &str, default: u32) -> u32 {
    env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name} is a number")))
}

async fn every_request_ends_once_with_the_truth(breaks: u32) {
    let seed = variable("APPORTION_CHAOS_SEED", 7);
    println!("seed {seed}, {breaks} breaks");
    let mut rng = fastrand::Rng::with_seed(seed.into());
    let broker = Broker::start().await;
    let executor_proxy = Proxy::start(broker.port()).await;
    let ledger = Arc::<Ledger>::default();
    let executor = Executor::builder(connect(&executor_proxy).await)
        .topics(TOPICS)
        .notify_period(SECOND / 2)
        .worker_expiry(12 * SECOND)
        .request_timeout(None)
        .await
        .unwrap();
    let (sites, killed) = (Vec::new(), BTreeSet::new());
    let mut fleet = Fleet { broker, ledger: ledger.clone(), executor_proxy, sites, killed, started: 0 };
    fleet.start_missing().await;
    assert!(timeout(20 * SECOND, executor.wait_for_workers("work", 3)).await.unwrap());

    let (stop, next) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
    let succeeded = Arc::<AtomicU64>::default();
    let mut callers = JoinSet::new();
    for _ in 0..OPEN {
        let (executor, stop, next) = (executor.clone(), stop.clone(), next.clone());
        let succeeded = succeeded.clone();
        callers.spawn(async move {
            let mut ends = Vec::new();
            while !stop.load(SeqCst) {
                let number = next.fetch_add(1, SeqCst);
                let request = executor.submit(Request::execute("work").argument("number", number));
                let end = request.await;
                succeeded.fetch_add(end.is_ok().into(), SeqCst);
                ends.push((number, end));
            }
            ends
        });
    }
    for number in 0..breaks {
        sleep(MS * rng.u32(50..200)).await;
        fleet.break_something(number, &mut rng).await;
        if number % BURST == BURST - 1 {
            let enough = succeeded.load(SeqCst) + u64::from(BURST);
            eventually("requests succeed after a burst of breaks", 60 * SECOND, || async {
                (succeeded.load(SeqCst) > enough).then_some(())
            })
            .await;
        }
    }
    stop.store(true, SeqCst);
    let ends = timeout(60 * SECOND, callers.join_all()).await.expect("a request never ends");

    let mut summary = BTreeMap::<String, u32>::new();
    for (number, end) in ends.into_iter().flatten() {
        let runs = ledger.runs(number);
        assert!(runs.len() <= 1, "request {number} ran {runs:?}");
        let ran_to_its_end = runs.iter().any(|run| run.has_ended);
        let is_alive = runs.iter().all(|run| !fleet.killed.contains(&run.worker));
        let name = match &end {
            Ok(value) => {
                assert_eq!(value.get::<u64>().unwrap(), number * 2);
                assert!(ran_to_its_end, "request {number} has a result and did not run");
                "success".to_owned()
            }
            Err(error) => {
                assert!(
                    !(ran_to_its_end && is_alive),
                    "request {number} ran to its end, and ended as: {error}"
                );
                assert!(
                    error.may_have_run() || runs.is_empty(),
                    "request {number} has run, and ended as: {error}"
                );
                let vanished = matches!(error, RequestError::WorkerVanished { .. });
                assert!(
                    !vanished || !is_alive || runs.is_empty(),
                    "request {number}: its worker lives: {error}"
                );
                println!("{number}: {error} {runs:?}");
                error.to_string()
            }
        };
        *summary.entry(name).or_default() += 1;
    }
    println!("{summary:#?}");
    assert!(summary["success"] > breaks, "{summary:?}");
    // After all this, everybody still works.
    fleet.start_missing().await;
    assert!(timeout(30 * SECOND, executor.wait_for_workers("work", 3)).await.unwrap());
    let last: Vec<_> =
        (0..30_u64).map(|_| executor.submit(Request::execute("work").argument("number", 1))).collect();
    for request in last {
        assert_eq!(timeout(20 * Duration::from_secs(1), request).await.expect("it hangs"), Ok(2.into()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_ends_every_request_once_with_the_truth() {
    every_request_ends_once_with_the_truth(variable("APPORTION_CHAOS_BREAKS", 60)).await;
}
