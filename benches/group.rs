//! What a change of the membership costs in a large group on a real server: bytes that all members read, and the time
//! until all of them agree.
//!
//! `cargo bench --bench group`, with the number of members as an argument (default: 1000), and the ring points of each
//! as a second one (default: 100). It takes some minutes, and needs what the tests need: run scripts/test once. All
//! members are in this process, each with a session of its own, so they and the server share the processors. On
//! separate hosts only the load of the server is the same.

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use apportion::{
    Config, Group, PartitionCoordinator,
    backend::{BoxFuture, Connector, Done, Znode},
    group::Standing,
    testing::{Call, Hook, Intercept, Outcome, Reply},
};

use support::{Server, Settings, zookeeper};

/// How long the traffic of a group at rest is measured.
const REST: Duration = Duration::from_secs(20);
/// After how long a group counts as one that does not agree.
const LONGEST: Duration = Duration::from_secs(300);

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let count = numbers.next().unwrap_or(1000);
    let replicas = numbers.next().unwrap_or(100);
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(measure(count, u32::try_from(replicas).expect("a small number")));
}

/// Counts what all members read, in bytes on the wire.
#[derive(Default)]
struct Meter {
    names: AtomicU64,
    znodes: AtomicU64,
    rest: AtomicU64,
    /// The time of the slowest heartbeat, in microseconds.
    slowest: AtomicU64,
}

#[derive(Clone, Copy)]
struct Reading {
    names: u64,
    znodes: u64,
    rest: u64,
}

const HEADER: usize = 20;
const OPERATION: usize = 9;
const STAT: usize = 68;

impl Meter {
    fn note(&self, reply: &Reply) {
        let znode = |znode: &Option<Znode>| znode.as_ref().map_or(4, |(data, _)| 4 + data.len() + STAT);
        let (counter, bytes) = match reply {
            Reply::Children((names, _)) | Reply::WatchedChildren((names, _), _) => {
                let names: usize = names.iter().map(|name| 4 + name.len()).sum();
                (&self.names, names + 4 + STAT)
            }
            Reply::Znode(found) => (&self.znodes, znode(found)),
            Reply::Znodes(found) => {
                (&self.znodes, OPERATION + found.iter().map(|one| OPERATION + znode(one)).sum::<usize>())
            }
            Reply::Committed(done) => {
                let of = |done: &Done| match done {
                    Done::Created(path) => OPERATION + 4 + path.as_str().len(),
                    Done::Set(_) => OPERATION + STAT,
                    Done::Checked | Done::Deleted => OPERATION,
                };
                (&self.rest, OPERATION + done.iter().map(of).sum::<usize>())
            }
            Reply::WatchedNode(..) => (&self.rest, STAT),
            _ => (&self.rest, 0),
        };
        counter.fetch_add((HEADER + bytes) as u64, Relaxed);
    }

    fn read(&self) -> Reading {
        Reading {
            names: self.names.load(Relaxed),
            znodes: self.znodes.load(Relaxed),
            rest: self.rest.load(Relaxed),
        }
    }

    fn report(&self, what: &str, since: Reading, took: Duration) {
        let now = self.read();
        let slowest = Duration::from_micros(self.slowest.swap(0, Relaxed));
        let kilobytes = |now: u64, since: u64| (now - since) as f64 / 1000.0;
        println!(
            "{what:44} {:8.3} s  names {:10.1} kB  znodes {:10.1} kB  other {:8.1} kB  slowest heartbeat {slowest:.1?}",
            took.as_secs_f64(),
            kilobytes(now.names, since.names),
            kilobytes(now.znodes, since.znodes),
            kilobytes(now.rest, since.rest),
        );
    }
}

impl Hook for Meter {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let is_heartbeat = !call.request().is_write()
                && matches!(call.request(), apportion::testing::Request::Commit(_));
            #[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
            let begin = Instant::now();
            let outcome = call.send().await;
            if is_heartbeat {
                self.slowest
                    .fetch_max(u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX), Relaxed);
            }
            if let Ok(reply) = &outcome {
                self.note(reply);
            }
            outcome
        })
    }
}

struct Fleet {
    connector: Intercept,
    meter: Arc<Meter>,
    replicas: u32,
}

impl Fleet {
    async fn member(&self, number: usize) -> (PartitionCoordinator, Group) {
        let config = Config::for_backend(self.connector.clone())
            .member_id(format!("member-{number:05}"))
            .replicas(self.replicas)
            .session_timeout(Duration::from_secs(10));
        let coordinator = PartitionCoordinator::start(config).expect("the settings are valid");
        let group = coordinator.join("large").await.expect("it does not wait");
        (coordinator, group)
    }

    /// Waits until all members agree on a group of `count`.
    async fn agree(&self, what: &str, groups: &[&Group], count: usize, work: impl Future<Output = ()>) {
        let before = self.meter.read();
        #[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
        let begin = Instant::now();
        work.await;
        while !agrees(groups, count) {
            if begin.elapsed() > LONGEST {
                let reached = groups.iter().filter(|group| group.view().members().len() == count).count();
                let share = groups.iter().filter(|group| group.view().standing() == Standing::Member).count();
                println!("{what}: no agreement; {reached} of {} see all, {share} have a share", groups.len());
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.meter.report(what, before, begin.elapsed());
    }
}

fn agrees(groups: &[&Group], count: usize) -> bool {
    let digest = groups[0].view().ring().digest();
    groups.iter().all(|group| {
        let view = group.view();
        view.ring().len() == count && view.ring().digest() == digest && view.standing() == Standing::Member
    })
}

async fn measure(count: usize, replicas: u32) {
    let settings = Settings {
        tick: Duration::from_secs(2),
        min_session_timeout: Duration::from_secs(4),
        // Debian's default.
        java: vec!["-Xmx1000m".into()],
        ..Settings::default()
    };
    let server = Server::start_with(&settings).await;
    let meter = Arc::<Meter>::default();
    let backend: Arc<dyn Connector> = Arc::new(zookeeper(&server.connect_string()));
    let fleet = Fleet { connector: Intercept::new(backend, meter.clone()), meter, replicas };
    println!("{count} members of {replicas} points each, on one server");

    let before = fleet.meter.read();
    #[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    let begin = Instant::now();
    let mut members = Vec::new();
    for number in 0..count {
        members.push(fleet.member(number).await);
    }
    let groups: Vec<_> = members.iter().map(|(_, group)| group).collect();
    fleet.agree("", &groups, count, async {}).await;
    fleet.meter.report("all start at once, until all agree", before, begin.elapsed());

    tokio::time::sleep(Duration::from_secs(15)).await;
    let before = fleet.meter.read();
    fleet.meter.slowest.store(0, Relaxed);
    tokio::time::sleep(REST).await;
    fleet.meter.report("at rest", before, REST);

    let (last, group) = members.pop().expect("there is one");
    let groups: Vec<_> = members.iter().map(|(_, group)| group).collect();
    fleet.agree("one leaves", &groups, count - 1, async { group.leave().await.expect("it is in it") }).await;
    drop(last);
    tokio::time::sleep(Duration::from_secs(5)).await;
    let joiner = fleet.member(count).await;
    let groups: Vec<_> = members.iter().chain([&joiner]).map(|(_, group)| group).collect();
    fleet.agree("one joins", &groups, count, async {}).await;
    tokio::time::sleep(Duration::from_secs(5)).await;

    // In one transaction its znode is replaced: the names are the same, and an incarnation has changed.
    let (ended, group) = joiner;
    drop(group);
    let _ = ended.shutdown().await;
    let joiner = fleet.member(count).await;
    let groups: Vec<_> = members.iter().chain([&joiner]).map(|(_, group)| group).collect();
    fleet.agree("one is restarted under its id", &groups, count, async {}).await;
    tokio::time::sleep(Duration::from_secs(5)).await;

    let leavers: Vec<_> = members.drain(..count / 10).collect();
    let groups: Vec<_> = members.iter().chain([&joiner]).map(|(_, group)| group).collect();
    let leave = async {
        for (coordinator, group) in leavers {
            drop(group);
            drop(coordinator);
        }
    };
    fleet.agree("a tenth leaves at once", &groups, count - count / 10, leave).await;
    std::process::exit(0);
}
