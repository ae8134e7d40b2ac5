//! Runs the membership engine over a session: does its actions and passes it their outcomes.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info};

use super::{
    engine::{Action, Engine, Event},
    joining::{Outcome, Znode, failed},
    large,
    placement::{Plan, Rings},
    register::{Admission, Register},
    roster::Roster,
    status,
    view::{self, View},
};
use crate::{
    backend::{self, Fired, Session, Watch, path::ZnodePath},
    clock::{Clock, Moment},
    error::Error,
    member::MemberId,
    metrics,
    random::Random,
    ring::{HashRing, Label, Ranges, RingError},
    session::{
        Live,
        follow::{Change, Sessions},
        read::{Sizes, read_each},
        validity::Validity,
    },
    token::FencingToken,
    watch,
};

/// The engine, and what the driver needs to run it.
#[derive(Debug)]
pub(crate) struct Driver {
    pub(crate) engine: Engine,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sessions: Sessions,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) places: Places,
    pub(crate) views: watch::Sender<Arc<View>>,
    pub(crate) random: Random,
}

/// What a handle asks of the driver.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Command {
    /// The member is ready for a share. Nothing in an immediate group.
    Ready,
    /// Pause the group, or end its pause. Nothing in an immediate group.
    Pause(bool),
    /// Leave when the work in progress has ended, at the latest after `drain`. In an immediate group it ends at once.
    Leave { drain: Duration },
}

impl Command {
    /// What it is for the engine.
    fn event(self) -> Option<Event> {
        matches!(self, Command::Leave { .. }).then_some(Event::Leave)
    }
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
        let _gauges = status::Gauges(self.views.borrow().group.clone());
        let mut present: Option<Present> = None;
        let (mut revision, mut has_hinted) = (0, self.places.rings.label == Label::Tooz);
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
                has_hinted = has_hinted || hint_at_tooz(&self.views.borrow());
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
                Some(command) = self.commands.recv() => return command.event(),
                () = sleep_until(now, due) => return None,
            }
        };
        let Present { live, validity, watch, connection, roster, .. } = present;
        let outcome = tokio::select! {
            biased;
            () = self.sessions.changed() => return None,
            Some(command) = self.commands.recv() => return command.event(),
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
                metrics::GROUP_JOINS.add(&[&group]);
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
        let mut view = View {
            group: previous.group.clone(),
            me: previous.me.clone(),
            epoch: picture.epoch,
            members,
            ring,
            mine: Arc::default(),
            is_exclusive: false,
            left_out,
            is_read: picture.is_read,
            validity: validity.filter(|_| picture.own.is_some()),
            register: register.filter(|_| picture.own.is_some()),
            is_settling: picture.is_settling,
            is_warming: false,
            shown: None,
            blocked: picture.blocked.clone(),
            refusal,
            has_left: picture.has_left,
        };
        let (mine, admission) = owned(&view).await;
        view.mine = Arc::new(mine);
        view::report(&view, &previous);
        status::measure(&view, Some(&previous));
        // Before the view is seen: what its shares give out may start.
        if let Some(register) = &view.register {
            register.admit_only(&admission);
        }
        self.views.send_replace(Arc::new(view));
    }
}

/// Warns if a Python peer seems to use the ring of tooz, and this member does not. Returns whether it has.
fn hint_at_tooz(view: &View) -> bool {
    let is_tooz = |it: &&super::Member| it.is_plain() && it.announces_weight();
    let Some(other) = view.members.iter().find(is_tooz) else { return false };
    view::hint_at_tooz(view, other.id());
    true
}

async fn make(plan: Plan) -> Result<Arc<HashRing>, RingError> {
    large::on_points(plan.work(), move || plan.ring()).await
}

/// What this member owns, and may start: in an immediate group that is the same.
async fn owned(view: &View) -> (Ranges, Admission) {
    if view.acting().is_none() {
        return (Ranges::none(), Admission::none());
    }
    let (ring, me, token) = (view.ring.clone(), view.me.clone(), FencingToken::new(view.epoch));
    let owned = move || {
        let ranges = ring.ranges(me.as_str());
        (ranges.clone(), Admission::within(ranges).under(token))
    };
    large::on_points(view.ring.points() as u64, owned).await
}

/// Waits until the state of the connection changes; returns whether it is up then.
pub(super) async fn connected(connection: &mut watch::Receiver<bool>) -> bool {
    match connection.changed().await {
        Ok(()) => *connection.borrow_and_update(),
        // The keeper announces the end of the session.
        Err(_) => std::future::pending().await,
    }
}

pub(super) async fn sleep_until(now: Moment, due: Option<Moment>) {
    match due {
        Some(due) => tokio::time::sleep(due.saturating_since(now)).await,
        None => std::future::pending().await,
    }
}

async fn perform(live: &Live, places: &Places, roster: &mut Roster, action: Option<Action>) -> Outcome {
    let session = &*live.session;
    let listed = match action {
        None => std::future::pending().await,
        Some(Action::List) => list(session, places, roster).await,
        Some(Action::Check) => check(session, places, roster).await,
        Some(action) => {
            let Places { group, own, payload, .. } = places;
            return Znode { group, own, payload: payload.clone() }.perform(session, action).await;
        }
    };
    match listed {
        Ok(outcome) => outcome,
        Err(backend::Error::NoNode) => Event::GroupMissing.into(),
        Err(error) => failed(error, &places.own),
    }
}

/// Lists the group, unless nothing has changed since the last list. Compares the stat of the group: it changes whenever
/// a child is created or deleted.
async fn check(
    session: &dyn Session,
    places: &Places,
    roster: &mut Roster,
) -> Result<Outcome, backend::Error> {
    let (_, stat) = session.get(&places.group).await?.ok_or(backend::Error::NoNode)?;
    let is_current = roster.is_current(&stat);
    if is_current && !(places.rings.label == Label::Tooz && roster.forget_plain()) {
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
    if places.rings.label == Label::Tooz {
        // A Python peer that has joined now has the present weights of all others.
        roster.forget_plain();
    }
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
