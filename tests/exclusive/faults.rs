//! What can go wrong: each fault begins, and some time later it is healed.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use apportion::backend::{CommitError, CreateMode, Error, Op, Session};
use fastrand::Rng;

use crate::{
    agent::Mode,
    crew::{Crew, IDS, SESSION_TIMEOUT},
    scenarios::FAULTS,
    support::{MS, Mode as Link, Release, SECOND, eventually, expiry, fleet::delete_recursively},
};

macro_rules! faults {
    ($($fault:ident $name:literal,)+) => {
        /// One kind of fault, or of change.
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
        pub(crate) enum Fault { $($fault,)+ }

        impl Fault {
            pub(crate) const ALL: &[Fault] = &[$(Fault::$fault,)+];

            /// Its name in reports.
            pub(crate) fn name(self) -> &'static str {
                match self { $(Fault::$fault => $name,)+ }
            }
        }
    };
}

faults! {
    Join "join",
    Leave "leave",
    Kill "kill -9",
    KillAndRestart "kill -9, restart",
    LeaveAndRestart "leave, restart",
    Twin "second process of an id",
    RollingRestart "restart of all, one by one",
    BriefStop "stop, less than the lease",
    ShortStop "stop, short",
    LongStop "stop, long",
    Reset "reset",
    ShortBlackHole "black hole, short",
    LongBlackHole "black hole, long",
    RequestsLost "requests lost",
    RepliesLost "replies lost",
    Delay "delay",
    LongDelay "delay, 1 to 3 s",
    FollowerKilled "kill follower",
    LeaderKilled "kill leader",
    ServerTerminated "terminate server",
    FollowerPaused "pause follower",
    LeaderPaused "pause leader",
    FollowerCut "cut follower",
    LeaderCut "cut leader from both",
    QuorumLost "quorum lost",
    HeadDeleted "delete head",
    PlainMember "plain member",
    StuckItem "item of 60 s",
    SessionClosed "close session",
    MemberDeleted "delete member",
    GroupDeleted "delete group",
}

/// The least and the most agents.
const SIZES: std::ops::RangeInclusive<usize> = 3..=IDS.len();

impl Fault {
    /// Whether it is one of the servers, or done by an operator: one such at a time.
    fn is_of_store(self) -> bool {
        !matches!(
            self,
            Fault::Join
                | Fault::Leave
                | Fault::Kill
                | Fault::KillAndRestart
                | Fault::LeaveAndRestart
                | Fault::Twin
                | Fault::RollingRestart
                | Fault::BriefStop
                | Fault::ShortStop
                | Fault::LongStop
                | Fault::Reset
                | Fault::ShortBlackHole
                | Fault::LongBlackHole
                | Fault::RequestsLost
                | Fault::RepliesLost
                | Fault::Delay
                | Fault::LongDelay
                | Fault::StuckItem
        )
    }

    /// Whether a server is away for a while: it takes the servers some time to elect a leader.
    pub(crate) fn is_of_servers(self) -> bool {
        self.is_of_store() && self < Fault::HeadDeleted
    }

    /// Whether it may happen to so many agents.
    fn is_permitted(self, mode: Mode, size: usize) -> bool {
        match self {
            Fault::Join => size < *SIZES.end(),
            Fault::Leave | Fault::Kill => size > *SIZES.start(),
            // Only the end of a session, or its owner, deletes a member in fast mode.
            Fault::SessionClosed | Fault::MemberDeleted | Fault::GroupDeleted => mode == Mode::Strict,
            // Strict mode needs that no two live processes have one id.
            Fault::Twin => mode != Mode::Strict,
            _ => true,
        }
    }

    /// Whether it can happen at the same time as `other`.
    fn fits_beside(self, other: Fault) -> bool {
        self != other && !(self.is_of_store() && other.is_of_store()) && self != Fault::RollingRestart
    }

    /// How long it lasts.
    fn duration(self, rng: &mut Rng) -> Duration {
        let timeout = u64::try_from(SESSION_TIMEOUT.as_millis()).expect("it is short");
        let range = match self {
            // A lease lasts for half of the timeout, less a tenth for a heartbeat and a margin.
            Fault::BriefStop => 50..timeout / 4,
            Fault::ShortStop | Fault::ShortBlackHole => 100..timeout - 100,
            Fault::Twin => 300..timeout,
            Fault::LongStop | Fault::LongBlackHole => timeout + 300..timeout * 2,
            Fault::RequestsLost | Fault::RepliesLost => 300..timeout * 2,
            Fault::Delay | Fault::LongDelay => 1000..2000,
            Fault::FollowerKilled | Fault::LeaderKilled | Fault::ServerTerminated => 200..1500,
            // At the most 50 ticks less than a server waits for another one.
            Fault::FollowerPaused | Fault::LeaderPaused | Fault::FollowerCut | Fault::LeaderCut => {
                300..timeout * 2
            }
            Fault::QuorumLost => 500..2500,
            Fault::PlainMember => 500..1500,
            Fault::SessionClosed | Fault::MemberDeleted => 100..1500,
            _ => return Duration::ZERO,
        };
        Duration::from_millis(rng.u64(range))
    }
}

/// The faults to come. Each kind comes before any comes again.
#[derive(Debug)]
pub(crate) struct Deck {
    faults: VecDeque<Fault>,
    pub(crate) rng: Rng,
}

impl Deck {
    /// The decks of one seed for the two releases begin at opposite ends: the few draws of the test command have all kinds
    /// together.
    pub(crate) fn new(seed: u64, release: Release) -> Deck {
        let mut faults = Fault::ALL.to_vec();
        Rng::with_seed(seed).shuffle(&mut faults);
        if release == Release::V39 {
            faults.reverse();
            // What may have had no turn where it came late.
            let is_always_permitted = |fault: &Fault| {
                let sizes = [*SIZES.start(), *SIZES.end()];
                [Mode::Fast, Mode::Strict]
                    .iter()
                    .all(|mode| sizes.iter().all(|size| fault.is_permitted(*mode, *size)))
            };
            faults.sort_by_key(is_always_permitted);
        }
        let rng = Rng::with_seed(seed.wrapping_add(1 + release as u64));
        Deck { faults: faults.into(), rng }
    }

    /// The next fault that these agents can have now, beside others that they have.
    fn draw(&mut self, mode: Mode, size: usize, beside: &[Fault]) -> Fault {
        loop {
            let fits = |fault: &Fault| {
                beside.iter().all(|it| fault.fits_beside(*it)) && fault.is_permitted(mode, size)
            };
            if let Some(index) = self.faults.iter().position(fits) {
                return self.faults.remove(index).expect("it is there");
            }
            let mut more = Fault::ALL.to_vec();
            more.retain(|fault| !self.faults.contains(fault));
            self.rng.shuffle(&mut more);
            self.faults.extend(more);
        }
    }

    /// The faults of one step: mostly one, else two at once.
    pub(crate) fn step(&mut self, mode: Mode, size: usize) -> Vec<Fault> {
        let mut faults = vec![self.draw(mode, size, &[])];
        if faults != [Fault::RollingRestart] && self.rng.u32(0..3) == 0 {
            faults.push(self.draw(mode, size, &faults));
        }
        faults
    }
}

#[test]
fn the_few_faults_of_the_test_command_on_two_releases_are_of_all_kinds() {
    for seed in 0..1000 {
        let mut drawn = std::collections::BTreeSet::new();
        for release in [Release::System, Release::V39] {
            let mut deck = Deck::new(seed, release);
            for mode in [Mode::Fast, Mode::Strict] {
                let mut left = FAULTS / 2;
                while left > 0 {
                    let size = deck.rng.usize(SIZES);
                    let step = deck.step(mode, size);
                    left = left.saturating_sub(step.len());
                    drawn.extend(step);
                }
            }
        }
        let missing: Vec<_> = Fault::ALL.iter().filter(|fault| !drawn.contains(fault)).collect();
        assert!(missing.is_empty(), "seed {seed}: {missing:?}");
    }
}

/// A fault that is not healed yet.
pub(crate) struct Open {
    pub(crate) fault: Fault,
    /// The agent or the server.
    pub(crate) who: String,
    /// After which time it has to be healed.
    pub(crate) lasts: Duration,
    agent: &'static str,
    servers: Vec<usize>,
    plain: Option<Arc<dyn Session>>,
}

/// Chooses an agent that is in none of `others`, rather one that did not join often.
fn victim(crew: &Crew<'_>, others: &[Open], rng: &mut Rng) -> &'static str {
    let mut ids = crew.ids();
    ids.retain(|id| others.iter().all(|open| open.agent != *id));
    rng.shuffle(&mut ids);
    ids.sort_by_key(|id| crew.recent_joins(id).saturating_sub(2));
    ids.first().expect("there are more agents than faults")
}

/// Lets a fault begin.
pub(crate) async fn begin(fault: Fault, crew: &mut Crew<'_>, others: &[Open], rng: &mut Rng) -> Open {
    let agent = victim(crew, others, rng);
    let lasts = fault.duration(rng);
    let mut open = Open { fault, who: agent.to_owned(), lasts, agent, servers: Vec::new(), plain: None };
    match fault {
        Fault::Join => {
            let is_used = |id: &str| crew.ids().contains(&id) || others.iter().any(|open| open.agent == id);
            let mut free: Vec<_> = IDS.into_iter().filter(|id| !is_used(id)).collect();
            free.sort_by_key(|id| crew.recent_joins(id));
            open.agent = free.first().expect("a join is permitted");
            open.who = open.agent.to_owned();
            crew.start(open.agent);
        }
        Fault::Leave => crew.leave(agent).await,
        Fault::Kill => crew.kill(agent).await,
        Fault::KillAndRestart => {
            crew.kill(agent).await;
            crew.start(agent);
        }
        Fault::LeaveAndRestart => {
            crew.leave(agent).await;
            crew.start(agent);
        }
        Fault::Twin => crew.start_twin(agent),
        Fault::RollingRestart => {
            open.who = "all".to_owned();
            for id in crew.ids() {
                crew.leave(id).await;
                crew.start(id);
            }
        }
        Fault::BriefStop | Fault::ShortStop | Fault::LongStop => crew.signal(agent, "STOP"),
        Fault::Reset => crew.ways(agent).iter().for_each(crate::support::Proxy::reset),
        Fault::ShortBlackHole | Fault::LongBlackHole => crew.set(agent, Link::BlackHole),
        Fault::RequestsLost => crew.set(agent, Link::SwallowToServer),
        Fault::RepliesLost => crew.set(agent, Link::SwallowToClient),
        Fault::Delay => crew.set(agent, Link::Delay(MS * rng.u32(30..250))),
        Fault::LongDelay => crew.set(agent, Link::Delay(MS * rng.u32(1000..3000))),
        Fault::StuckItem => crew.signal(agent, "USR1"),
        Fault::FollowerKilled | Fault::FollowerPaused | Fault::FollowerCut => {
            open.servers.push(rng.choice(crew.ensemble.followers().await).expect("one follows"));
        }
        Fault::LeaderKilled | Fault::LeaderPaused | Fault::LeaderCut => {
            open.servers.push(crew.ensemble.leader().await);
        }
        Fault::ServerTerminated => open.servers.push(rng.usize(0..3)),
        Fault::QuorumLost => {
            open.servers = vec![0, 1, 2];
            rng.shuffle(&mut open.servers);
            open.servers.pop();
        }
        Fault::HeadDeleted => delete(crew, &mut open, "the head", ".ring", "").await,
        Fault::MemberDeleted => {
            notices_late(crew, agent, rng);
            delete(crew, &mut open, agent, "", &format!("/{agent}")).await;
        }
        Fault::GroupDeleted => delete(crew, &mut open, "the group", "", "").await,
        Fault::PlainMember => {
            open.who = "plain".to_owned();
            open.plain = Some(plain_member(crew).await);
        }
        Fault::SessionClosed => {
            notices_late(crew, agent, rng);
            close_session(crew, agent).await;
        }
    }
    if !open.servers.is_empty() {
        let numbers: Vec<_> = open.servers.iter().map(|server| (server + 1).to_string()).collect();
        (open.agent, open.who) = ("", format!("server {}", numbers.join(" and ")));
    }
    for server in &open.servers {
        match fault {
            Fault::FollowerPaused | Fault::LeaderPaused => crew.ensemble.server(*server).pause(),
            Fault::FollowerCut => crew.ensemble.cut_from_leader(*server).await,
            Fault::LeaderCut => crew.ensemble.cut_off(*server),
            Fault::ServerTerminated => crew.ensemble.terminate(*server),
            _ => crew.ensemble.kill(*server),
        }
    }
    if matches!(
        fault,
        Fault::LongStop
            | Fault::LongBlackHole
            | Fault::LongDelay
            | Fault::SessionClosed
            | Fault::MemberDeleted
    ) {
        crew.will_join(agent);
    }
    open
}

/// Heals a fault.
pub(crate) async fn heal(open: Open, crew: &mut Crew<'_>) {
    match open.fault {
        Fault::Twin => crew.kill_twin(open.agent).await,
        Fault::BriefStop | Fault::ShortStop | Fault::LongStop => crew.signal(open.agent, "CONT"),
        Fault::ShortBlackHole
        | Fault::LongBlackHole
        | Fault::RequestsLost
        | Fault::RepliesLost
        | Fault::Delay
        | Fault::LongDelay
        | Fault::SessionClosed
        | Fault::MemberDeleted => crew.set(open.agent, Link::Pass),
        Fault::FollowerPaused | Fault::LeaderPaused => crew.ensemble.server(open.servers[0]).resume(),
        Fault::FollowerCut | Fault::LeaderCut => crew.ensemble.heal(),
        Fault::FollowerKilled | Fault::LeaderKilled | Fault::ServerTerminated | Fault::QuorumLost => {
            // One that was told to end may not have.
            open.servers.iter().for_each(|server| crew.ensemble.kill(*server));
            crew.ensemble.restart_all(&open.servers).await;
        }
        Fault::PlainMember => open.plain.expect("it was begun").close().await,
        _ => {}
    }
}

async fn delete(crew: &Crew<'_>, open: &mut Open, what: &str, beside: &str, below: &str) {
    what.clone_into(&mut open.who);
    let operator = crew.operator().await;
    delete_recursively(&*operator, &crew.path(beside, below)).await;
    operator.close().await;
}

/// Half of the time, an agent whose znode will be deleted receives nothing for a while: it goes on as long as its lease.
fn notices_late(crew: &Crew<'_>, agent: &str, rng: &mut Rng) {
    if rng.bool() {
        crew.set(agent, Link::SwallowToClient);
    }
}

/// A member as a Python process writes it: its data has a weight and nothing else.
async fn plain_member(crew: &Crew<'_>) -> Arc<dyn Session> {
    let session = crew.operator().await;
    let data = b"\x81\xa6weight\x01";
    let create = Op::create(&crew.path("", "/plain"), data.to_vec(), CreateMode::Ephemeral);
    match session.commit(vec![create]).await {
        Ok(_) | Err(CommitError { error: Error::NodeExists, .. }) => session,
        Err(error) => panic!("{error}"),
    }
}

/// Ends the session of an agent by a second connection.
async fn close_session(crew: &Crew<'_>, agent: &str) {
    let port = crew.ensemble.server(0).port();
    // One of its ways was used last, and it may be opening a session at this moment.
    eventually("a session is closed", 10 * SECOND, || async {
        let granted = crew.ways(agent).iter().filter_map(crate::support::Proxy::granted);
        for session in granted {
            if expiry::close(port, session).await.is_ok_and(|is_closed| is_closed) {
                return Some(());
            }
        }
        None
    })
    .await;
}

#[tokio::test]
async fn a_session_that_is_taken_up_and_closed_is_gone() {
    use apportion::backend::Connector as _;

    let server = crate::support::shared_server().await;
    let proxy = crate::support::Proxy::start(server.port()).await;
    let session = crate::support::zookeeper(&proxy.connect_string()).open(10 * SECOND).await.unwrap();
    let path = crate::support::path("/closed");
    session.commit(vec![Op::create(&path, "", CreateMode::Ephemeral)]).await.unwrap();
    let granted = proxy.granted().unwrap();
    // The client opens its next connection at once, and the server may end ours for it.
    eventually("the session is closed", 10 * SECOND, || async {
        expiry::close(server.port(), granted).await.is_ok_and(|is_closed| is_closed).then_some(())
    })
    .await;
    let other = crate::support::zookeeper(&server.connect_string()).open(10 * SECOND).await.unwrap();
    assert!(other.get(&path).await.unwrap().is_none());
    assert!(!expiry::close(server.port(), granted).await.unwrap());
}
