//! What can go wrong: each fault begins, and some time later it is healed.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use apportion::backend::{CommitError, CreateMode, Error, Op, Session};
use fastrand::Rng;

use crate::{
    agent::Mode,
    crew::{Crew, IDS, SESSION_TIMEOUT},
    support::{MS, Mode as Link, SECOND, eventually, expiry, fleet::delete_recursively},
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
    ShortStop "stop, short",
    LongStop "stop, long",
    Reset "reset",
    ShortBlackHole "black hole, short",
    LongBlackHole "black hole, long",
    RequestsLost "requests lost",
    RepliesLost "replies lost",
    Delay "delay",
    FollowerKilled "kill follower",
    LeaderKilled "kill leader",
    FollowerPaused "pause follower",
    LeaderPaused "pause leader",
    FollowerCut "cut follower",
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
                | Fault::ShortStop
                | Fault::LongStop
                | Fault::Reset
                | Fault::ShortBlackHole
                | Fault::LongBlackHole
                | Fault::RequestsLost
                | Fault::RepliesLost
                | Fault::Delay
                | Fault::StuckItem
        )
    }

    /// Whether a server is away for a while: it takes the servers some time to elect a leader.
    pub(crate) fn is_of_servers(self) -> bool {
        self.is_of_store() && self < Fault::HeadDeleted
    }

    fn is_permitted(self, crew: &Crew<'_>) -> bool {
        let size = crew.ids().len();
        match self {
            Fault::Join => size < *SIZES.end(),
            Fault::Leave | Fault::Kill => size > *SIZES.start(),
            // Only the end of a session, or its owner, deletes a member in fast mode.
            Fault::SessionClosed | Fault::MemberDeleted | Fault::GroupDeleted => crew.mode == Mode::Strict,
            _ => true,
        }
    }

    /// How long it lasts.
    fn duration(self, rng: &mut Rng) -> Duration {
        let timeout = u64::try_from(SESSION_TIMEOUT.as_millis()).expect("it is short");
        let range = match self {
            Fault::ShortStop | Fault::ShortBlackHole => 100..timeout - 100,
            Fault::LongStop | Fault::LongBlackHole => timeout + 300..timeout * 2,
            Fault::RequestsLost | Fault::RepliesLost => 300..timeout * 2,
            Fault::Delay => 1000..2000,
            Fault::FollowerKilled | Fault::LeaderKilled => 200..1500,
            // At the most 50 ticks less than a server waits for another one.
            Fault::FollowerPaused | Fault::LeaderPaused | Fault::FollowerCut => 300..timeout * 2,
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
    pub(crate) fn new(seed: u64) -> Deck {
        Deck { faults: VecDeque::new(), rng: Rng::with_seed(seed) }
    }

    /// The next fault that these agents can have now, beside others that they have.
    fn draw(&mut self, crew: &Crew<'_>, beside: &[Fault]) -> Fault {
        loop {
            let fits = |fault: &Fault| {
                let is_free =
                    beside.iter().all(|it| it != fault && !(it.is_of_store() && fault.is_of_store()));
                is_free && fault.is_permitted(crew)
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
    pub(crate) fn step(&mut self, crew: &Crew<'_>) -> Vec<Fault> {
        let mut faults = vec![self.draw(crew, &[])];
        if self.rng.u32(0..3) == 0 {
            faults.push(self.draw(crew, &faults));
        }
        faults
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
        Fault::ShortStop | Fault::LongStop => crew.signal(agent, "STOP"),
        Fault::Reset => crew.ways(agent).iter().for_each(crate::support::Proxy::reset),
        Fault::ShortBlackHole | Fault::LongBlackHole => crew.set(agent, Link::BlackHole),
        Fault::RequestsLost => crew.set(agent, Link::SwallowToServer),
        Fault::RepliesLost => crew.set(agent, Link::SwallowToClient),
        Fault::Delay => crew.set(agent, Link::Delay(MS * rng.u32(30..250))),
        Fault::StuckItem => crew.signal(agent, "USR1"),
        Fault::FollowerKilled | Fault::FollowerPaused | Fault::FollowerCut => {
            open.servers.push(rng.choice(crew.ensemble.followers().await).expect("one follows"));
        }
        Fault::LeaderKilled | Fault::LeaderPaused => open.servers.push(crew.ensemble.leader().await),
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
            _ => crew.ensemble.kill(*server),
        }
    }
    if matches!(fault, Fault::LongStop | Fault::LongBlackHole | Fault::SessionClosed | Fault::MemberDeleted) {
        crew.will_join(agent);
    }
    open
}

/// Heals a fault.
pub(crate) async fn heal(open: Open, crew: &mut Crew<'_>) {
    match open.fault {
        Fault::ShortStop | Fault::LongStop => crew.signal(open.agent, "CONT"),
        Fault::ShortBlackHole
        | Fault::LongBlackHole
        | Fault::RequestsLost
        | Fault::RepliesLost
        | Fault::Delay
        | Fault::SessionClosed
        | Fault::MemberDeleted => crew.set(open.agent, Link::Pass),
        Fault::FollowerPaused | Fault::LeaderPaused => crew.ensemble.server(open.servers[0]).resume(),
        Fault::FollowerCut => crew.ensemble.heal(),
        Fault::FollowerKilled | Fault::LeaderKilled | Fault::QuorumLost => {
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
