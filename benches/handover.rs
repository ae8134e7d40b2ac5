//! How long keys have no owner, or two, when members come and go: exclusive and immediate groups on one real server.
//!
//! `cargo bench --bench handover`, with the number of rounds as an argument (default: 30), and the number of rounds of
//! crashes as a second one (default: a third). It takes some minutes, and needs what the tests need: run scripts/test
//! once. Three members with 300 keys stay, and a fourth comes and goes. Each has a session of its own, all in this
//! process. Each millisecond all of them are asked which keys they may start, and which they work on.
//!
//! With `serve` it answers another program that takes turns with it: `scripts/bench-python handover`.

#[path = "support/handover/figures.rs"]
mod figures;
#[path = "support/handover/recorder.rs"]
mod recorder;
#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    io::{BufRead as _, Write as _, stdin, stdout},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use apportion::{Config, Group, HashRing, KeySet, PartitionCoordinator, group::Standing};
use futures_util::FutureExt as _;

use figures::Figures;
use recorder::{Finding, KEYS, Recorder, Seat, now};
use support::{Mode, Proxy, Server, Settings, zookeeper};

const TIMEOUT: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(100);
const PATIENT: Duration = Duration::from_secs(60);
const STAYING: [&str; 3] = ["member-0", "member-1", "member-2"];
/// How long the group rests between two events: changes that follow one another faster are bundled.
const REST: Duration = Duration::from_secs(1);

/// What happens.
const EVENTS: [&str; 11] = [
    "join",
    "leave",
    "open a session, and join",
    "restart under the same id",
    "leave while others have work in progress",
    "join while others have work in progress",
    "that work ends",
    "leave with one item in progress",
    "crash",
    "crash while another member is stuck",
    "crash, and restart under the same id",
];

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match &arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["serve"] => runtime.block_on(serve()),
        ["member", port, namespace, id, mode] => {
            runtime.block_on(member(port, namespace, id, *mode == "immediate"));
        }
        numbers => {
            let mut numbers = numbers.iter().filter_map(|number| number.parse().ok());
            let rounds: usize = numbers.next().unwrap_or(30);
            let crashes = numbers.next().unwrap_or(rounds.div_ceil(3));
            runtime.block_on(async {
                let server = start().await;
                report(&measure(&server, rounds, crashes).await);
            });
        }
    }
}

async fn start() -> Server {
    Server::start_with(&Settings { tick: TICK, ..Settings::default() }).await
}

/// Prints the address of a server, and answers each `ROUNDS CRASHES` with the figures of all events.
async fn serve() {
    let server = start().await;
    println!("{}", server.connect_string());
    for line in stdin().lock().lines() {
        let line = line.expect("the other program writes text");
        let numbers: Vec<_> = line.split(' ').filter_map(|number| number.parse().ok()).collect();
        let [rounds, crashes] = numbers[..] else { panic!("unknown command `{line}`") };
        let [exclusive, immediate] = measure(&server, rounds, crashes).await;
        for (figures, mode) in [(exclusive, "exclusive"), (immediate, "immediate")] {
            for (event, figures) in EVENTS.iter().zip(figures) {
                println!("{mode}\t{event}\t{}", figures.line());
            }
        }
        println!();
        stdout().flush().expect("the other program reads it");
    }
}

fn report([exclusive, immediate]: &[Vec<Figures>; 2]) {
    println!(
        "T = {TIMEOUT:?}, {KEYS} keys, {} members; milliseconds\n\n\
         | event | group | first key of the member that comes, p50 / max | every key owned, p50 / max | \
         a key that moves has no owner, p50 / p99 / max | keys with two owners, a round | for how long, p50 / max |\n\
         |---|---|---|---|---|---|---|",
        STAYING.len() + 1
    );
    for (number, event) in EVENTS.iter().enumerate() {
        let (ours, other) = (&exclusive[number], &immediate[number]);
        println!("| {event} | exclusive | {} |", ours.cells());
        println!("| | immediate | {} |", other.cells());
        println!("| | exclusive / immediate | | {:.2} | | | |", ours.ratio(other));
    }
}

/// The figures of each event, in an exclusive and in an immediate group. Rounds take turns.
async fn measure(server: &Server, rounds: usize, crashes: usize) -> [Vec<Figures>; 2] {
    let mut fleets = [Fleet::new(server, false).await, Fleet::new(server, true).await];
    for round in 0..rounds.max(crashes) {
        for fleet in &mut fleets {
            if round < rounds {
                fleet.come_and_go().await;
            }
            if round < crashes {
                fleet.crash().await;
            }
        }
    }
    fleets.map(|fleet| fleet.figures)
}

/// A member, and how it reaches the server.
struct Member {
    coordinator: PartitionCoordinator,
    seat: Arc<Seat>,
    line: Proxy,
}

struct Fleet {
    port: u16,
    namespace: String,
    is_immediate: bool,
    recorder: Arc<Recorder>,
    keys: &'static KeySet<u64>,
    staying: Vec<Member>,
    /// How many have come. Each has an id of its own: one that comes again and again would be held back.
    came: usize,
    figures: Vec<Figures>,
}

impl Fleet {
    async fn new(server: &Server, is_immediate: bool) -> Fleet {
        let mut fleet = Fleet {
            port: server.port(),
            namespace: format!("bench-{}-{:?}", if is_immediate { "immediate" } else { "exclusive" }, now())
                .replace(|other: char| !other.is_ascii_alphanumeric(), "-"),
            is_immediate,
            recorder: Recorder::start(),
            keys: Box::leak(Box::new(KeySet::new(0..KEYS as u64))),
            staying: Vec::new(),
            came: 0,
            figures: EVENTS.iter().map(|_| Figures::default()).collect(),
        };
        for id in STAYING {
            let member = fleet.come(id).await;
            fleet.staying.push(member);
        }
        fleet.settled(None, &[]).await;
        fleet
    }

    /// The id of the next member that comes.
    fn next_id(&mut self) -> String {
        self.came += 1;
        format!("coming-{}", self.came)
    }

    /// Of each member that stays, a key that goes to that one.
    fn moving_to(&self, id: &str) -> Vec<usize> {
        let ring = HashRing::builder().members(STAYING.iter().copied().chain([id])).build();
        let ring = ring.expect("the settings are valid");
        let goes = |key: &usize| ring.owner(&(*key as u64)) == Some(id);
        let one = |member: &Member| self.recorder.keys_of(&member.seat).into_iter().find(goes);
        self.staying.iter().filter_map(one).collect()
    }

    /// The events of a round without a crash.
    async fn come_and_go(&mut self) {
        let id = self.next_id();
        let coordinator = self.connect(&id).await;
        let (begin, fourth) = (self.recorder.begin(), self.join(coordinator).await);
        self.settled(Some(&fourth), &[]).await;
        self.note("join", begin, &[], Some(&fourth.seat), None).await;

        let begin = self.recorder.begin();
        self.go(fourth).await;
        self.note("leave", begin, &[], None, None).await;

        let id = self.next_id();
        let (begin, fourth) = (self.recorder.begin(), self.come(&id).await);
        self.settled(Some(&fourth), &[]).await;
        self.note("open a session, and join", begin, &[], Some(&fourth.seat), None).await;

        let begin = self.recorder.begin();
        fourth.seat.leaves();
        fourth.coordinator.shutdown().await.expect("the server is there");
        let again = self.come(&id).await;
        self.settled(Some(&again), &[]).await;
        self.note("restart under the same id", begin, &[], Some(&again.seat), None).await;
        self.recorder.remove(&fourth.seat);

        // Work on keys that stay where they are.
        for member in &self.staying {
            let kept = self.recorder.keys_of(&member.seat);
            member.seat.begin(self.keys, &kept[..1]).await;
        }
        let begin = self.recorder.begin();
        self.go(again).await;
        self.note("leave while others have work in progress", begin, &[], None, None).await;
        self.staying.iter().for_each(|member| member.seat.end());

        // Work on keys that go to the fourth member: they wait, and the others do not.
        let id = self.next_id();
        let moving = self.moving_to(&id);
        let coordinator = self.connect(&id).await;
        for member in &self.staying {
            member.seat.begin(self.keys, &moving).await;
        }
        let (begin, fourth) = (self.recorder.begin(), self.join(coordinator).await);
        self.settled(Some(&fourth), &moving).await;
        self.note("join while others have work in progress", begin, &moving, Some(&fourth.seat), None).await;
        let begin = self.recorder.begin();
        self.staying.iter().for_each(|member| member.seat.end());
        self.settled(Some(&fourth), &[]).await;
        self.note("that work ends", begin, &[], None, None).await;

        let kept = self.recorder.keys_of(&fourth.seat)[..1].to_vec();
        fourth.seat.begin(self.keys, &kept).await;
        let begin = self.recorder.begin();
        fourth.seat.leaves();
        let left = fourth.seat.group.clone().leave().now_or_never();
        assert!(left.is_none(), "it goes on in the background, until its work has ended");
        self.settled(None, &kept).await;
        self.note("leave with one item in progress", begin, &kept, None, None).await;
        fourth.seat.end();
        self.settled(None, &[]).await;
        fourth.coordinator.shutdown().await.expect("the server is there");
        self.recorder.remove(&fourth.seat);
        rest().await;
    }

    /// The events of a round of crashes.
    async fn crash(&mut self) {
        let id = self.next_id();
        let fourth = self.come(&id).await;
        self.settled(Some(&fourth), &[]).await;
        self.lose("crash", fourth).await;

        // A key of the fourth member, on which another one still works.
        let id = self.next_id();
        let stuck = self.moving_to(&id)[..1].to_vec();
        self.staying[0].seat.begin(self.keys, &stuck).await;
        let fourth = self.come(&id).await;
        self.settled(Some(&fourth), &stuck).await;
        self.lose("crash while another member is stuck", fourth).await;
        self.staying[0].seat.end();

        let id = self.next_id();
        let mut process = OtherProcess::start(self.port, &self.namespace, &id, self.is_immediate);
        until("the process has joined", || {
            self.staying.iter().all(|member| member.seat.group.view().members().len() == 4)
        })
        .await;
        rest().await;
        let begin = self.recorder.begin();
        process.kill();
        let again = self.come(&id).await;
        self.settled(Some(&again), &[]).await;
        self.note("crash, and restart under the same id", begin, &[], Some(&again.seat), None).await;
        self.go(again).await;
        rest().await;
    }

    /// Cuts the line of a member that counts as dead from then on. It is still asked what it would act on.
    async fn lose(&mut self, event: &str, member: Member) {
        let begin = self.recorder.begin();
        member.line.set(Mode::BlackHole);
        member.seat.dies();
        self.settled(None, &[]).await;
        self.note(event, begin, &[], None, Some(&member.seat)).await;
        self.recorder.remove(&member.seat);
        drop(member.coordinator);
    }

    async fn note(
        &mut self,
        event: &str,
        begin: Instant,
        except: &[usize],
        newcomer: Option<&Seat>,
        gone: Option<&Seat>,
    ) {
        let finding: Finding = self.recorder.find(begin, except, newcomer, gone);
        let is_safe = self.is_immediate || finding.doubles.is_empty();
        assert!(is_safe, "two owners at the event `{event}`: {:?}", finding.doubles);
        let number = EVENTS.iter().position(|name| *name == event).expect("it is in the list");
        self.figures[number].add(finding);
        rest().await;
    }

    /// A coordinator whose session is open, and its way to the server.
    async fn connect(&self, id: &str) -> (PartitionCoordinator, Proxy) {
        let (coordinator, line) = self.launch(id).await;
        until("a session is open", || coordinator.session_id().is_some()).await;
        (coordinator, line)
    }

    async fn launch(&self, id: &str) -> (PartitionCoordinator, Proxy) {
        let line = Proxy::start(self.port).await;
        let config = settings(&line.connect_string(), &self.namespace, id);
        (PartitionCoordinator::start(config).expect("the settings are valid"), line)
    }

    /// Joins, without waiting until it is in.
    async fn join(&self, (coordinator, line): (PartitionCoordinator, Proxy)) -> Member {
        let group = join(&coordinator, self.is_immediate).await;
        Member { seat: self.recorder.seat(&group), coordinator, line }
    }

    async fn come(&self, id: &str) -> Member {
        self.join(self.launch(id).await).await
    }

    /// Leaves in good order.
    async fn go(&self, member: Member) {
        member.seat.leaves();
        let (left, ()) = tokio::join!(member.seat.group.clone().leave(), self.settled(None, &[]));
        left.expect("it has not left before");
        member.coordinator.shutdown().await.expect("the server is there");
        self.recorder.remove(&member.seat);
    }

    /// Waits until all have the same members, and each key but those of `except` has one owner.
    async fn settled(&self, newcomer: Option<&Member>, except: &[usize]) {
        let groups: Vec<_> = self.staying.iter().chain(newcomer).map(|member| &member.seat.group).collect();
        let agree = || {
            let mut digests = groups.iter().map(|group| {
                let view = group.view();
                (view.standing() == Standing::Member && view.members().len() == groups.len())
                    .then(|| view.ring().digest())
            });
            let first = digests.next().flatten();
            first.is_some() && digests.all(|digest| digest == first)
        };
        let is_settled = || {
            self.recorder.sample();
            agree() && self.recorder.is_owned(except)
        };
        until("the group settles", is_settled).await;
    }
}

fn settings(hosts: &str, namespace: &str, id: &str) -> Config {
    Config::for_backend(zookeeper(hosts))
        .member_id(id)
        .namespace(namespace)
        .session_timeout(TIMEOUT)
        .server_tick(TICK)
}

async fn join(coordinator: &PartitionCoordinator, is_immediate: bool) -> Group {
    let join = coordinator.join("bench");
    let join = if is_immediate { join.immediate() } else { join };
    join.await.expect("it can join")
}

async fn rest() {
    tokio::time::sleep(REST).await;
}

async fn until(what: &str, holds: impl FnMut() -> bool) {
    support::until(what, PATIENT, holds).await;
}

/// A member in a process of its own, for a real crash.
struct OtherProcess(Child);

impl OtherProcess {
    fn start(port: u16, namespace: &str, id: &str, is_immediate: bool) -> OtherProcess {
        let mode = if is_immediate { "immediate" } else { "exclusive" };
        let program = std::env::current_exe().expect("this program has a file");
        let child = Command::new(program)
            .args(["member", &port.to_string(), namespace, id, mode])
            .stdin(Stdio::piped())
            .spawn()
            .expect("it starts");
        OtherProcess(child)
    }

    fn kill(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it ends");
    }
}

/// Joins, and works on nothing until its parent ends.
async fn member(port: &str, namespace: &str, id: &str, is_immediate: bool) {
    let config = settings(&format!("127.0.0.1:{port}"), namespace, id);
    let coordinator = PartitionCoordinator::connect(config).await.expect("the server is there");
    let group = join(&coordinator, is_immediate).await;
    tokio::task::spawn_blocking(|| stdin().lock().lines().last()).await.expect("it waits");
    group.leave().await.expect("it is in the group");
}
