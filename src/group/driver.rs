//! Runs the membership engine over a session: does its actions and passes it their outcomes.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use super::{
    engine::{Action, Engine, Event, Occupant},
    member::Payload,
    placement::{Plan, Rings},
    process,
    register::{Admission, Register},
    roster::Roster,
    view::{self, View},
};
use crate::{
    backend::{self, CommitError, CreateMode, Done, Fired, Op, Session, Watch, path::ZnodePath},
    clock::{Clock, Moment},
    error::Error,
    member::MemberId,
    random::Random,
    ring::{HashRing, RingError},
    session::{
        Live,
        follow::{Change, Sessions},
        read::{Sizes, read_each},
        requests::ensure,
        validity::Validity,
    },
    task, watch,
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
    pub(crate) rings: Rings,
    /// The sizes of the members' znodes.
    pub(crate) sizes: Sizes,
}

/// The current session as the driver uses it.
struct Present {
    live: Arc<Live>,
    validity: Option<Validity>,
    /// The work in progress of our znode's incarnation, beside its validity.
    register: Option<Arc<Register>>,
    watch: Option<Watch>,
    connection: watch::Receiver<bool>,
    /// What was read in this session. The next one begins anew: its servers may have other data.
    roster: Roster,
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
                let present = present.as_ref();
                let validity = present.and_then(|present| present.validity.clone());
                let register = present.and_then(|present| present.register.clone());
                tokio::select! {
                    biased;
                    () = cancelled.cancelled() => return,
                    () = self.publish(validity, register) => {}
                }
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
        let Some(present) = present else {
            tokio::select! {
                biased;
                () = self.sessions.changed() => return None,
                Some(Command::Leave) = self.commands.recv() => return Some(Event::Leave),
                () = sleep_until(now, due) => return None,
            }
        };
        let Present { live, validity, watch, connection, roster, .. } = present;
        let outcome = tokio::select! {
            biased;
            () = self.sessions.changed() => return None,
            Some(Command::Leave) = self.commands.recv() => return Some(Event::Leave),
            () = async { validity.as_ref().expect("guarded").ended().await }, if validity.is_some() => {
                return Some(Event::Gone);
            }
            outcome = perform(live, &self.places, roster, action), if is_acting => outcome,
            state = connected(connection), if !is_acting => return state.then_some(Event::Connected),
            fired = async { watch.as_mut().expect("guarded").fired().await }, if watch.is_some() && !is_acting => {
                *watch = None;
                // The keeper announces a lost session.
                return (fired == Fired::Changed).then_some(Event::WatchFired);
            }
            () = sleep_until(now, due), if !is_acting => return None,
        };
        if outcome.watch.is_some() {
            *watch = outcome.watch;
        }
        Some(outcome.event)
    }

    /// Passes the engine the start and the end of a session.
    fn follow_session(&mut self, present: &mut Option<Present>) {
        let Some(change) = self.sessions.poll() else { return };
        let (now, random) = (self.clock.now(), self.random.unit());
        match change {
            Change::Live(live) => {
                let timing = live.timing;
                let lifetime = timing.timeout + 2 * timing.server_tick;
                self.engine.handle(now, random, Event::SessionUp { session: live.id(), lifetime });
                let connection = live.connection();
                let (validity, register, watch, roster) = (None, None, None, Roster::default());
                *present = Some(Present { live, validity, register, watch, connection, roster });
            }
            Change::Lost => {
                self.engine.handle(now, random, Event::SessionLost);
                *present = None;
            }
            Change::Closed => {
                *present = None;
                self.engine.handle(now, random, Event::SessionLost);
                self.engine.handle(now, random, Event::Leave);
            }
            Change::Refused(_) => {}
        }
    }

    /// Starts and ends the validity of our znode: it exists as long as the engine knows the znode.
    fn follow_own_znode(&mut self, present: &mut Option<Present>) {
        let Some(present) = present else { return };
        match (self.engine.own(), &present.validity) {
            (Some(own), None) => {
                let validity = present.live.validity_of(&self.places.own, own.version);
                let group = self.views.borrow().group.clone();
                present.register = Some(Register::new(group, validity.clone()));
                present.validity = Some(validity);
            }
            (None, Some(validity)) => {
                // All its guards end with it, before another znode of ours can be created.
                validity.end();
                present.validity = None;
                present.register = None;
                present.watch = None;
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }

    async fn publish(&self, validity: Option<Validity>, register: Option<Arc<Register>>) {
        let picture = self.engine.picture();
        let previous = self.views.borrow().clone();
        let mut refusal = picture.refusal.clone();
        let has_ring = !previous.ring.is_empty() || previous.members.is_empty();
        let (members, ring, left_out) = if has_ring && *previous.members == *picture.members {
            (previous.members.clone(), previous.ring.clone(), previous.left_out.clone())
        } else {
            let plan = self.places.rings.plan(&picture.members, &previous.ring);
            let left_out: Arc<[_]> = plan.left_out.clone().into();
            let ring = make(plan).await.unwrap_or_else(|reason| {
                refusal = Some(Error::Ring { group: previous.group.to_string(), reason });
                Arc::new(view::empty_ring())
            });
            (picture.members.clone().into(), ring, left_out)
        };
        if let Some((_, reason)) = left_out.iter().find(|(id, _)| *id == self.places.me) {
            refusal = Some(Error::Ring { group: previous.group.to_string(), reason: reason.clone() });
        }
        let view = Arc::new(View {
            group: previous.group.clone(),
            me: previous.me.clone(),
            epoch: picture.epoch,
            members,
            ring,
            left_out,
            is_read: picture.is_read,
            validity: validity.filter(|_| picture.own.is_some()),
            register: register.filter(|_| picture.own.is_some()),
            is_settling: picture.is_settling,
            blocked: picture.blocked.clone(),
            refusal,
            has_left: picture.has_left,
        });
        report(&view, &previous);
        // Before the view is seen: what its shares give out may start.
        if let Some(register) = &view.register {
            register.admit_only(&admission(&view).await);
        }
        self.views.send_replace(view);
    }
}

/// Logs what has changed, each problem once.
fn report(view: &View, previous: &View) {
    let View { group, me, epoch, .. } = view;
    let problem = |view: &View| view.refusal.as_ref().or(view.blocked.as_ref()).map(ToString::to_string);
    match problem(view) {
        Some(error) if problem(previous).as_ref() == Some(&error) => {}
        Some(error) => warn!(%group, member = %me, %error, "without a share"),
        None => {
            let (standing, members) = (view.standing(), view.members.len());
            info!(%group, member = %me, %standing, epoch, members, "membership");
        }
    }
    if !view.left_out.is_empty() && view.left_out != previous.left_out {
        warn!(%group, left_out = ?view.left_out, "there is no room in the ring for members of so large a weight");
    }
}

/// A ring of more points is made and read on another thread: it takes so long that the runtime could not serve others.
const LARGE: u64 = 200_000;

async fn make(plan: Plan) -> Result<Arc<HashRing>, RingError> {
    if plan.work() > LARGE { task::off_runtime(move || plan.ring()).await } else { plan.ring() }
}

async fn admission(view: &Arc<View>) -> Admission {
    if view.ring.points() as u64 > LARGE {
        let view = view.clone();
        task::off_runtime(move || view.admission()).await
    } else {
        view.admission()
    }
}

/// Waits until the state of the connection changes; returns whether it is up then.
async fn connected(connection: &mut watch::Receiver<bool>) -> bool {
    match connection.changed().await {
        Ok(()) => *connection.borrow_and_update(),
        // The keeper announces the end of the session.
        Err(_) => std::future::pending().await,
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

async fn perform(live: &Live, places: &Places, roster: &mut Roster, action: Option<Action>) -> Outcome {
    let Some(action) = action else { return std::future::pending().await };
    let session = &*live.session;
    let failed = |error: backend::Error| {
        let shown = Error::from_backend(error.clone(), &places.own);
        Outcome::from(Event::Failed(error, shown))
    };
    match action {
        Action::CreateGroup => match ensure(session, &places.group).await {
            Ok(()) => Event::GroupReady.into(),
            Err(failure) => {
                let shown = failure.clone().into_error(&places.group);
                Outcome::from(Event::Failed(failure.error, shown))
            }
        },
        Action::Join => join(session, places, None).await.unwrap_or_else(failed),
        Action::TakeOver { version } => join(session, places, Some(version)).await.unwrap_or_else(failed),
        Action::Inspect => inspect(session, places).await.unwrap_or_else(failed),
        Action::List => match list(session, places, roster).await {
            Ok(outcome) => outcome,
            Err(backend::Error::NoNode) => Event::GroupMissing.into(),
            Err(error) => failed(error),
        },
        Action::Check => match check(session, places, roster).await {
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

/// Reads the znode that has the path of ours. Its watch fires when it is gone.
async fn inspect(session: &dyn Session, places: &Places) -> Result<Outcome, backend::Error> {
    // The watch first, so that no change after the read is missed.
    let (_, watch) = session.watch_node(&places.own).await?;
    let occupant = session.get(&places.own).await?.map(|(data, stat)| {
        let payload = Payload::decode(&data);
        Occupant {
            owner: stat.ephemeral_owner,
            czxid: stat.czxid,
            version: stat.version,
            created_ms: stat.created_ms,
            dead: payload.process().is_some_and(process::is_dead),
            payload,
        }
    });
    Ok(Outcome { event: Event::Occupant(occupant), watch: Some(watch) })
}

/// Lists the group, unless nothing has changed since the last list. Compares the stat of the group: it changes whenever
/// a child is created or deleted.
async fn check(
    session: &dyn Session,
    places: &Places,
    roster: &mut Roster,
) -> Result<Outcome, backend::Error> {
    let (_, stat) = session.get(&places.group).await?.ok_or(backend::Error::NoNode)?;
    if roster.is_current(&stat) {
        return Ok(Event::Unchanged.into());
    }
    list(session, places, roster).await
}

/// How often a group is listed until the list and the znodes that were read after it show one membership. There is a
/// limit, because a huge group may change all the time.
const MAX_LISTINGS: u32 = 3;

async fn list(
    session: &dyn Session,
    places: &Places,
    roster: &mut Roster,
) -> Result<Outcome, backend::Error> {
    let mut listings = 0;
    loop {
        let (names, stat, watch) = session.watch_children(&places.group).await?;
        roster.list(names, &stat);
        loop {
            let due = roster.due();
            if due.is_empty() {
                break;
            }
            let path = |id: &MemberId| places.group.join(id.as_str()).expect("a member id is a name");
            let paths: Vec<_> = due.iter().map(path).collect();
            let found = read_each(session, &paths, &places.sizes).await?;
            roster.note(due.into_iter().zip(found));
            // Decoding many payloads takes long.
            tokio::task::yield_now().await;
        }
        listings += 1;
        if roster.is_complete() || listings == MAX_LISTINGS {
            let event = Event::Listed { epoch: stat.pzxid, members: roster.members() };
            return Ok(Outcome { event, watch: Some(watch) });
        }
    }
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
