//! What a change of the membership costs in a large group on a real server: bytes that all members read and write, and the
//! time until all of them agree.
//!
//! `cargo bench --bench group`, with the number of members as an argument (default: 1000), the ring points of each as a
//! second one (default: 100), and the word `immediate` for a group of that mode. It takes some minutes, and needs what the
//! tests need: run scripts/test once. All members are in this process, each with a session of its own, so they and the
//! server share the processors. On separate hosts only the load of the server is the same.

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
    backend::{BoxFuture, Connector, CreateMode, Done, Op, Znode, path::ZnodePath},
    group::{Standing, View},
    testing::{Call, Hook, Intercept, Outcome, Reply, Request},
};

use support::{Server, Settings, zookeeper};

/// How long the traffic of a group at rest is measured.
const REST: Duration = Duration::from_secs(20);
/// The pause between two measurements.
const QUIET: Duration = Duration::from_secs(10);
/// How many members are replaced by others one after another, as in a rolling restart.
const RESTARTED: usize = 20;
/// After how long a group counts as one that does not agree.
const LONGEST: Duration = Duration::from_secs(300);

fn main() {
    let mut numbers = std::env::args().skip(1).filter_map(|argument| argument.parse().ok());
    let count = numbers.next().unwrap_or(1000);
    let replicas = numbers.next().unwrap_or(100);
    let is_immediate = std::env::args().any(|argument| argument == "immediate");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    runtime.block_on(measure(count, u32::try_from(replicas).expect("a small number"), is_immediate));
}

/// Counts what all members read and write, in bytes on the wire.
#[derive(Default)]
struct Meter {
    names: AtomicU64,
    znodes: AtomicU64,
    rest: AtomicU64,
    /// In the requests that change something.
    written: AtomicU64,
    /// The time of the slowest heartbeat, in microseconds.
    slowest: AtomicU64,
}

#[derive(Clone, Copy)]
struct Reading {
    names: u64,
    znodes: u64,
    rest: u64,
    written: u64,
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
            written: self.written.load(Relaxed),
        }
    }

    fn report(&self, what: &str, since: Since) {
        let (now, took) = (self.read(), since.begin.elapsed());
        let slowest = Duration::from_micros(self.slowest.swap(0, Relaxed));
        let kilobytes = |now: u64, since: u64| (now - since) as f64 / 1000.0;
        println!(
            "{what:32} {:7.2} s {:7.2} s of processors  names {:9.1} kB  znodes {:9.1} kB  other {:7.1} kB  \
             written {:7.1} kB  slowest heartbeat {slowest:.1?}",
            took.as_secs_f64(),
            processor_seconds() - since.processors,
            kilobytes(now.names, since.reading.names),
            kilobytes(now.znodes, since.reading.znodes),
            kilobytes(now.rest, since.reading.rest),
            kilobytes(now.written, since.reading.written),
        );
    }

    #[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    fn now(&self) -> Since {
        self.slowest.store(0, Relaxed);
        Since { reading: self.read(), begin: Instant::now(), processors: processor_seconds() }
    }
}

/// The beginning of a measurement.
#[derive(Clone, Copy)]
struct Since {
    reading: Reading,
    begin: Instant,
    processors: f64,
}

/// The processor time of this process, with all members and without the server. Zero where the system does not say.
fn processor_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after = stat.rsplit_once(") ").map_or("", |(_, after)| after);
    let ticks = after.split(' ').skip(11).take(2).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

impl Hook for Meter {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let is_heartbeat = matches!(call.request(), Request::Commit(_)) && !call.request().is_write();
            #[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
            let begin = Instant::now();
            if call.request().is_write() {
                self.written.fetch_add(call.request().bytes() as u64, Relaxed);
            }
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
    is_immediate: bool,
}

impl Fleet {
    async fn member(&self, number: usize) -> (PartitionCoordinator, Group) {
        let config = Config::for_backend(self.connector.clone())
            .member_id(format!("member-{number:05}"))
            .namespace("tooz")
            .replicas(self.replicas)
            .session_timeout(Duration::from_secs(10));
        let coordinator = PartitionCoordinator::start(config).expect("the settings are valid");
        let join = coordinator.join("large");
        let join = if self.is_immediate { join.immediate() } else { join };
        let group = join.await.expect("it does not wait");
        (coordinator, group)
    }

    fn znode(&self, id: &str) -> ZnodePath {
        let group = ZnodePath::root().join("tooz").and_then(|namespace| namespace.join("large"));
        group.and_then(|group| group.join(id)).expect("a valid path")
    }

    /// Waits until all of `groups` have seen something, and reports what that has cost.
    async fn wait(&self, what: &str, since: Since, groups: &[&Group], has_seen: impl Fn(&View) -> bool) {
        while !groups.iter().all(|group| has_seen(&group.view())) {
            if since.begin.elapsed() > LONGEST {
                let reached = groups.iter().filter(|group| has_seen(&group.view())).count();
                println!("{what}: only {reached} of {} have seen it", groups.len());
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.meter.report(what, since);
        tokio::time::sleep(QUIET).await;
    }
}

/// Whether a member has a share, by a ring of so many.
fn counts(count: usize) -> impl Fn(&View) -> bool {
    move |view| view.ring().len() == count && view.standing() == Standing::Member
}

async fn measure(count: usize, replicas: u32, is_immediate: bool) {
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
    let fleet = Fleet { connector: Intercept::new(backend, meter.clone()), meter, replicas, is_immediate };
    let mode = if is_immediate { "immediate" } else { "exclusive" };
    println!("{count} members of {replicas} points each, {mode}, on one server");

    let since = fleet.meter.now();
    let mut members = Vec::new();
    for number in 0..count {
        members.push(fleet.member(number).await);
    }
    let groups: Vec<_> = members.iter().map(|(_, group)| group).collect();
    fleet.wait("all start at once", since, &groups, counts(count)).await;

    let since = fleet.meter.now();
    tokio::time::sleep(REST).await;
    fleet.meter.report("at rest", since);

    let (last, group) = members.pop().expect("there is one");
    let groups: Vec<_> = members.iter().map(|(_, group)| group).collect();
    let since = fleet.meter.now();
    group.leave().await.expect("it is in the group");
    fleet.wait("one leaves", since, &groups, counts(count - 1)).await;
    drop(last);

    let session = fleet.connector.open(Duration::from_secs(30)).await.expect("a session");
    let found = session.get(&fleet.znode("member-00000")).await.expect("a reply");
    let (payload, _) = found.expect("it is in the group");
    let other = fleet.znode("member-00500-b");
    let create = Op::create(&other, payload, CreateMode::Ephemeral);
    let since = fleet.meter.now();
    session.commit(vec![create.clone()]).await.expect("it is created");
    fleet.wait("one joins", since, &groups, counts(count)).await;

    // In one transaction its znode is replaced: the names are the same, and an incarnation has changed.
    let since = fleet.meter.now();
    session.commit(vec![Op::delete(&other, None), create]).await.expect("it is replaced");
    let (_, stat) = session.get(&other).await.expect("a reply").expect("it is there");
    let has_seen = |view: &View| view.members().iter().any(|member| member.incarnation() == stat.czxid);
    fleet.wait("one is restarted under its id", since, &groups, has_seen).await;

    let since = fleet.meter.now();
    for (number, member) in members.iter_mut().take(RESTARTED).enumerate() {
        let (coordinator, group) = std::mem::replace(member, fleet.member(number + count).await);
        group.leave().await.expect("it is in the group");
        coordinator.shutdown().await.expect("it ends");
        while member.1.view().standing() != Standing::Member {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let groups: Vec<_> = members.iter().map(|(_, group)| group).collect();
    fleet.wait(&format!("{RESTARTED} are replaced, one by one"), since, &groups, counts(count)).await;

    let leavers: Vec<_> = members.drain(..count / 10).collect();
    let groups: Vec<_> = members.iter().map(|(_, group)| group).collect();
    let since = fleet.meter.now();
    drop(leavers);
    fleet.wait("a tenth leaves at once", since, &groups, counts(count - count / 10)).await;
    std::process::exit(0);
}
