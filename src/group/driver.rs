//! Runs the membership engine over a session: does its actions and passes it their outcomes.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    engine::{Action, Engine, Event, Occupant},
    member::{Member, Payload},
    process,
    view::{self, View},
};
use crate::{
    backend::{self, CommitError, CreateMode, Done, Fired, Op, Session, Watch, path::ZnodePath},
    clock::{Clock, Moment},
    error::Error,
    member::MemberId,
    random::Random,
    ring::{HashRing, Label, RingError},
    session::{
        Live,
        follow::{Change, Sessions},
        read::{Denied, Sizes, read_each},
        requests::ensure,
        validity::Validity,
    },
    watch,
};

/// The engine, and what the driver needs to run it.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sessions: Sessions,
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) places: Places,
    pub(crate) views: watch::Sender<Arc<View>>,
    pub(crate) random: Random,
}

/// What a handle asks of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    Leave,
}

/// The znodes and the ring of one member in one group.
#[derive(Debug)]
pub(crate) struct Places {
    pub(crate) me: MemberId,
    pub(crate) group: ZnodePath,
    pub(crate) own: ZnodePath,
    pub(crate) payload: Vec<u8>,
    pub(crate) label: Label,
    pub(crate) replicas: u32,
    /// The sizes of the members' znodes.
    pub(crate) sizes: Sizes,
}

/// The current session as the driver uses it.
struct Present {
    live: Arc<Live>,
    validity: Option<Validity>,
    watch: Option<Watch>,
}

impl Drop for Present {
    fn drop(&mut self) {
        self.validity.iter().for_each(Validity::end);
    }
}

impl Driver {
    pub(crate) async fn run(mut self, cancelled: CancellationToken) {
        let mut present: Option<Present> = None;
        let mut revision = 0;
        loop {
            self.follow_session(&mut present);
            let action = self.engine.poll_action(self.clock.now());
            self.follow_own_znode(&mut present);
            if std::mem::replace(&mut revision, self.engine.picture().revision) != revision {
                self.publish(present.as_ref());
            }
            if self.engine.picture().has_left && self.engine.poll_timeout().is_none() && action.is_none() {
                info!(group = %self.places.group, member = %self.places.me, "left");
                return;
            }
            let event = tokio::select! {
                biased;
                () = cancelled.cancelled() => return,
                event = self.step(&mut present, action) => event,
            };
            if let Some(event) = event {
                debug!(group = %self.places.group, ?event);
                self.engine.handle(self.clock.now(), self.random.unit(), event);
            }
        }
    }

    /// Waits for the next event: the outcome of `action`, or another event if that comes first. `None`: poll the engine
    /// again.
    async fn step(&mut self, present: &mut Option<Present>, action: Option<Action>) -> Option<Event> {
        let now = self.clock.now();
        let due = self.engine.poll_timeout();
        let is_acting = action.is_some();
        let (live, validity, mut watch) = match present {
            Some(present) => (Some(present.live.clone()), present.validity.clone(), present.watch.as_mut()),
            None => (None, None, None),
        };
        let outcome = tokio::select! {
            biased;
            () = self.sessions.changed() => return None,
            Some(Command::Leave) = self.commands.recv() => return Some(Event::Leave),
            () = async { validity.as_ref().expect("guarded").ended().await }, if validity.is_some() => {
                return Some(Event::Gone);
            }
            outcome = perform(live.as_deref(), &self.places, action), if is_acting => outcome,
            fired = async { watch.as_mut().expect("guarded").fired().await }, if watch.is_some() && !is_acting => {
                present.as_mut()?.watch = None;
                // The keeper announces a lost session.
                return (fired == Fired::Changed).then_some(Event::WatchFired);
            }
            () = sleep_until(now, due), if !is_acting => return None,
        };
        if let (Some(present), Some(watch)) = (present.as_mut(), outcome.watch) {
            present.watch = Some(watch);
        }
        Some(outcome.event)
    }

    /// Passes the engine the start and the end of a session.
    fn follow_session(&mut self, present: &mut Option<Present>) {
        let (now, random) = (self.clock.now(), self.random.unit());
        match self.sessions.poll() {
            Some(Change::Live(live)) => {
                let timing = live.timing;
                let lifetime = timing.timeout + 2 * timing.server_tick;
                self.engine.handle(now, random, Event::SessionUp { session: live.id(), lifetime });
                *present = Some(Present { live, validity: None, watch: None });
            }
            Some(Change::Lost) => {
                self.engine.handle(now, random, Event::SessionLost);
                *present = None;
            }
            Some(Change::Closed) => {
                *present = None;
                self.engine.handle(now, random, Event::SessionLost);
                self.engine.handle(now, random, Event::Leave);
            }
            Some(Change::Refused(_)) | None => {}
        }
    }

    /// Starts and ends the validity of our znode: it exists as long as the engine knows the znode.
    fn follow_own_znode(&mut self, present: &mut Option<Present>) {
        let Some(present) = present else { return };
        match (self.engine.own(), &present.validity) {
            (Some(own), None) => {
                present.validity = Some(present.live.validity_of(&self.places.own, own.version));
            }
            (None, Some(validity)) => {
                validity.end();
                present.validity = None;
                present.watch = None;
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    fn publish(&self, present: Option<&Present>) {
        let picture = self.engine.picture();
        let previous = self.views.borrow().clone();
        let mut refusal = picture.refusal.clone();
        let had_ring = !matches!(previous.refusal, Some(Error::Ring { .. }));
        let (members, ring) = if had_ring && *previous.members == *picture.members {
            (previous.members.clone(), previous.ring.clone())
        } else {
            let ring = self.ring(&picture.members).unwrap_or_else(|reason| {
                refusal = Some(Error::Ring { group: previous.group.to_string(), reason });
                view::empty_ring()
            });
            (picture.members.clone().into(), Arc::new(ring))
        };
        let view = View {
            group: previous.group.clone(),
            me: previous.me.clone(),
            epoch: picture.epoch,
            members,
            ring,
            validity: present.and_then(|present| present.validity.clone()).filter(|_| picture.own.is_some()),
            is_settling: picture.is_settling,
            refusal,
            has_left: picture.has_left,
        };
        let View { group, me, epoch, .. } = &view;
        if let Some(error) = &view.refusal {
            let is_known = previous.refusal.as_ref().is_some_and(|it| it.to_string() == error.to_string());
            if !is_known {
                warn!(%group, member = %me, %error, "without a share");
            }
        } else {
            let (standing, members) = (view.standing(), view.members.len());
            info!(%group, member = %me, %standing, epoch, members, "membership");
        }
        self.views.send_replace(Arc::new(view));
    }

    /// The ring of a membership. A plain Python peer cannot read weights and gives every member the weight 1. While
    /// there is one, all members do the same. Otherwise a key would have two owners for as long as that peer stays.
    fn ring(&self, members: &[Member]) -> Result<HashRing, RingError> {
        let any_plain = members.iter().any(Member::is_plain);
        let mut builder = HashRing::builder().replicas(self.places.replicas).label(self.places.label);
        for member in members {
            builder =
                builder.weighted_member(member.id().as_str(), if any_plain { 1 } else { member.weight() });
        }
        builder.build()
    }
}

async fn sleep_until(now: Moment, due: Option<Moment>) {
    match due {
        Some(due) => tokio::time::sleep(due.saturating_since(now)).await,
        None => std::future::pending().await,
    }
}

struct Outcome {
    event: Event,
    watch: Option<Watch>,
}

impl From<Event> for Outcome {
    fn from(event: Event) -> Self {
        Outcome { event, watch: None }
    }
}

async fn perform(live: Option<&Live>, places: &Places, action: Option<Action>) -> Outcome {
    let (Some(live), Some(action)) = (live, action) else { return std::future::pending().await };
    let session = &*live.session;
    let failed = |error: backend::Error| {
        let shown = Error::from_backend(error.clone(), &places.own);
        Outcome::from(Event::Failed(error, shown))
    };
    match action {
        Action::CreateGroup => match ensure(session, &places.group).await {
            Ok(()) => Event::GroupReady.into(),
            Err(error) => failed(error),
        },
        Action::Join => join(session, places, None).await.unwrap_or_else(failed),
        Action::TakeOver { version } => join(session, places, Some(version)).await.unwrap_or_else(failed),
        Action::Inspect => match session.get(&places.own).await {
            Ok(found) => Event::Occupant(found.map(|(data, stat)| {
                let payload = Payload::decode(&data);
                let dead = payload.process().is_some_and(process::is_dead);
                Occupant {
                    owner: stat.ephemeral_owner,
                    czxid: stat.czxid,
                    version: stat.version,
                    payload,
                    dead,
                }
            }))
            .into(),
            Err(error) => failed(error),
        },
        Action::List => match list(session, places).await {
            Ok(outcome) => outcome,
            Err(backend::Error::NoNode) => Event::GroupMissing.into(),
            Err(error) => failed(error),
        },
        Action::Leave => match leave(session, places).await {
            Ok(()) => Event::HasLeft.into(),
            Err(error) => failed(error),
        },
    }
}

/// Creates and sets our znode in one transaction: the stat of the set has the right creation zxid and owner.
async fn join(session: &dyn Session, places: &Places, over: Option<i32>) -> Result<Outcome, backend::Error> {
    let takes_over = over.map(|version| Op::delete(&places.own, Some(version)));
    let mut ops: Vec<Op> = takes_over.into_iter().collect();
    ops.push(Op::create(&places.own, [], CreateMode::Ephemeral));
    ops.push(Op::set(&places.own, places.payload.clone(), None));
    match session.commit(ops).await {
        Ok(done) => match done.last() {
            Some(Done::Set(stat)) => Ok(Event::Joined { czxid: stat.czxid, version: stat.version }.into()),
            other => Err(backend::Error::Other(format!("a join ended with {other:?}"))),
        },
        Err(CommitError { error: backend::Error::NodeExists | backend::Error::BadVersion, .. }) => {
            Ok(Event::Occupied.into())
        }
        // The znode to take over is gone already: the next attempt can create ours.
        Err(CommitError { index: Some(0), error: backend::Error::NoNode }) if over.is_some() => {
            Ok(Event::Occupied.into())
        }
        Err(CommitError { error: backend::Error::NoNode, .. }) => Ok(Event::GroupMissing.into()),
        Err(CommitError { error, .. }) => Err(error),
    }
}

/// How often a group is listed until the list and the znodes that were read after it show one membership. There is a
/// limit, because a huge group may change all the time.
const MAX_LISTINGS: u32 = 3;

async fn list(session: &dyn Session, places: &Places) -> Result<Outcome, backend::Error> {
    let mut listings = 0;
    let (paths, found, stat, watch) = loop {
        let (names, stat, watch) = session.watch_children(&places.group).await?;
        // A name that is not valid in a path is not that of a member: no member could have created it.
        let paths: Vec<_> = names.iter().filter_map(|name| places.group.join(name).ok()).collect();
        let found = read_each(session, &paths, &places.sizes).await?;
        listings += 1;
        let is_inconsistent = found.iter().any(|it| match it {
            Ok(it) => it.as_ref().is_none_or(|(_, its)| its.czxid > stat.pzxid),
            Err(Denied) => false,
        });
        if !is_inconsistent || listings == MAX_LISTINGS {
            break (paths, found, stat, watch);
        }
    };
    let members = paths.iter().zip(found).filter_map(|(path, found)| match found {
        Ok(found) => {
            let (data, stat) = found?;
            // Only ephemeral children are members: an election under the group leaves a persistent child.
            stat.ephemeral_owner?;
            Member::read(path.name(), &data, stat.czxid)
        }
        // It must not keep all others from their shares. Python peers count each name as a member, so it is a plain
        // member here. Servers from 3.8.4 on do not give its stat, either, so it is not known whether it is ephemeral.
        Err(Denied) => Member::denied(path.name()),
    });
    let members = members.collect();
    Ok(Outcome { event: Event::Listed { epoch: stat.pzxid, members }, watch: Some(watch) })
}

async fn leave(session: &dyn Session, places: &Places) -> Result<(), backend::Error> {
    let Some((_, stat)) = session.get(&places.own).await? else { return Ok(()) };
    if stat.ephemeral_owner != Some(session.id()) {
        return Ok(());
    }
    match session.commit(vec![Op::delete(&places.own, Some(stat.version))]).await {
        Ok(_) | Err(CommitError { error: backend::Error::NoNode, .. }) => Ok(()),
        Err(CommitError { error, .. }) => Err(error),
    }
}
