//! Runs the handover of keys over a session: does its actions, and passes it what happens.
//!
//! The [`Engine`] creates the znode of this member, as in an immediate group; it does not list the group. All else is
//! decided by the [`Handover`]. Requests are sent one after another, so they are answered in their order; a heartbeat goes
//! beside them.

mod present;
mod requests;
mod said;
mod sight;
mod watches;

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::{
    present::{Own, Present, Reply, Request},
    requests::Answer,
    said::Said,
    sight::{Sight, UnderWay},
};
use super::{
    driver::{Command, connected, sleep_until},
    engine::{self, Engine},
    handover::{self, Action, Event, Handover, Incarnation, Places, Purpose},
    large::LARGE,
    register::{Admission, Register, loss::End},
    status,
    view::View,
};
use crate::{
    clock::{Clock, Moment},
    member::MemberId,
    metrics,
    random::Random,
    session::{
        follow::{Change, Sessions},
        validity::Validity,
    },
    task,
    token::FencingToken,
    watch,
};

/// A membership with exclusive shares, and what is needed to run it.
#[derive(Debug)]
pub(crate) struct Exclusive {
    pub(crate) me: MemberId,
    pub(crate) engine: Engine,
    pub(crate) core: Handover,
    pub(crate) places: Arc<Places>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) sessions: Sessions,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) views: watch::Sender<Arc<View>>,
    pub(crate) random: Random,
}

/// The membership while it runs.
struct Running {
    it: Exclusive,
    present: Option<Present>,
    is_leaving: bool,
    handing: UnderWay,
    said: Said,
    /// A caller may see something new.
    is_news: bool,
    /// That of the picture of the engine which callers have seen.
    revision: u64,
}

/// What the driver waits for.
enum Happened {
    Session,
    Command(Command),
    Reply(Reply),
    Event(Event),
    Connected,
    Occupied,
}

impl Exclusive {
    pub(crate) async fn run(self, cancelled: CancellationToken) {
        let _gauges = status::Gauges(self.views.borrow().group.clone());
        let mut running = Running {
            it: self,
            present: None,
            is_leaving: false,
            handing: UnderWay::default(),
            said: Said::default(),
            is_news: false,
            revision: 0,
        };
        loop {
            running.follow_session();
            running.drive_engine();
            running.publish_news();
            if running.is_over() {
                info!(group = %running.it.places.group, member = %running.it.me, "left");
                return;
            }
            let happened = tokio::select! {
                biased;
                () = cancelled.cancelled() => return,
                happened = running.next() => happened,
            };
            tokio::select! {
                biased;
                () = cancelled.cancelled() => return,
                () = running.handle(happened) => {}
            }
        }
    }
}

impl Running {
    /// Waits for what happens next.
    async fn next(&mut self) -> Happened {
        let now = self.it.clock.now();
        let due = [self.it.engine.poll_timeout(), Some(self.it.core.wakeup())].into_iter().flatten().min();
        let due = due.filter(|due| *due < Moment::NEVER);
        let Exclusive { sessions, commands, core, .. } = &mut self.it;
        let Some(present) = &mut self.present else {
            return tokio::select! {
                biased;
                () = sessions.changed() => Happened::Session,
                Some(command) = commands.recv() => Happened::Command(command),
                () = sleep_until(now, due) => Happened::Event(Event::Tick),
            };
        };
        present.ask_next(core);
        let Present { under_way, heartbeat, watches, occupied, connection, own, is_joining, .. } = present;
        let register = own.as_ref().map(|own| own.register.clone());
        tokio::select! {
            biased;
            () = sessions.changed() => Happened::Session,
            Some(command) = commands.recv() => Happened::Command(command),
            // Before the others: what follows it may write what it checks.
            answer = async { heartbeat.as_mut().expect("guarded").await }, if heartbeat.is_some() => {
                *heartbeat = None;
                Happened::Reply(Reply::Core(answer))
            }
            reply = async { under_way.as_mut().expect("guarded").await }, if under_way.is_some() => {
                *under_way = None;
                Happened::Reply(reply)
            }
            end = async { register.expect("guarded").next_end().await }, if own.is_some() => {
                Happened::Event(match end {
                    End::Marked { mark, position } => Event::Dropped { mark, position },
                    End::Last => Event::Idle,
                })
            }
            watched = watches.fired() => Happened::Event(watched.event()),
            _ = async { occupied.as_mut().expect("guarded").fired().await }, if occupied.is_some() => {
                *occupied = None;
                Happened::Occupied
            }
            is_up = connected(connection), if own.is_none() && *is_joining => {
                if is_up { Happened::Connected } else { Happened::Session }
            }
            () = sleep_until(now, due) => Happened::Event(Event::Tick),
        }
    }

    async fn handle(&mut self, happened: Happened) {
        match happened {
            Happened::Session => {}
            Happened::Command(command) => self.command(command),
            Happened::Event(event) => self.feed(event),
            Happened::Connected => self.tell_engine(engine::Event::Connected),
            Happened::Occupied => self.tell_engine(engine::Event::WatchFired),
            Happened::Reply(Reply::Join(outcome)) => {
                if let (Some(watch), Some(present)) = (outcome.watch, &mut self.present) {
                    present.occupied = Some(watch);
                }
                self.tell_engine(outcome.event);
            }
            Happened::Reply(Reply::Core(Answer { event, watches })) => {
                if let Some(present) = &mut self.present {
                    present.watches.extend(watches);
                }
                let is_heartbeat = matches!(
                    event,
                    Event::Committed { purpose: Purpose::Heartbeat, outcome: handover::Outcome::Applied }
                );
                let sent = self.present.as_ref().map(|present| present.heartbeat_sent);
                self.feed_answer(event).await;
                if let (Some(present), Some(sent), true) = (&self.present, sent, is_heartbeat) {
                    present.store.live.relay(sent, self.it.core.next_heartbeat());
                    metrics::HEARTBEAT_DURATION
                        .record(&["group"], self.it.clock.now().saturating_since(sent));
                    status::measure_items(&self.it.views.borrow());
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Ready => self.feed(Event::Ready),
            Command::Pause(pause) => self.feed(Event::Pause(pause)),
            Command::Leave { drain } => {
                self.is_leaving = true;
                self.is_news = true;
                // Nothing may start any more when it is decided whether work is in progress.
                self.register().into_iter().for_each(|register| register.admit(&Admission::none()));
                let is_idle = self.register().is_none_or(|register| register.is_idle());
                self.feed(Event::Leave { is_idle, drain });
            }
        }
    }

    fn tell_engine(&mut self, event: engine::Event) {
        let (now, random) = (self.it.clock.now(), self.it.random.unit());
        debug!(group = %self.it.places.group, ?event);
        self.it.engine.handle(now, random, event);
    }

    /// Passes an event to the handover, and does what it says.
    fn feed(&mut self, event: Event) {
        let (now, random) = self.note(&event);
        let actions = self.it.core.step(now, random, event);
        self.perform_all(actions);
    }

    /// The same with an answer of the store. Large rings are made elsewhere, so that the runtime can serve others.
    async fn feed_answer(&mut self, event: Event) {
        if self.it.core.points(&event) <= LARGE {
            return self.feed(event);
        }
        let (now, random) = self.note(&event);
        let mut core = self.it.core.take();
        let step = move || {
            let actions = core.step(now, random, event);
            (core, actions)
        };
        let (core, actions) = task::off_runtime(step).await;
        self.it.core = core;
        self.perform_all(actions);
    }

    /// Logs an event; returns the time and a random number for its step.
    fn note(&self, event: &Event) -> (Moment, u64) {
        let (now, random) = (self.it.clock.now(), self.it.random.bits());
        if *event != Event::Tick {
            debug!(group = %self.it.places.group, ?event);
        }
        (now, random)
    }

    /// Does the actions of a step, and those that follow from them.
    fn perform_all(&mut self, mut actions: Vec<Action>) {
        loop {
            let mut next = None;
            for action in actions {
                next = self.perform(action).or(next);
            }
            // It has to come before any other event.
            let Some(event) = next else { return };
            let (now, random) = self.note(&event);
            actions = self.it.core.step(now, random, event);
        }
    }

    fn register(&self) -> Option<&Arc<Register>> {
        Some(&self.present.as_ref()?.own.as_ref()?.register)
    }

    /// Does an action; returns the event that has to follow at once.
    fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Update => self.update(),
            Action::Status => self.is_news = true,
            Action::Ended(ended) => {
                let handover::Ended { cause, waited } = ended;
                let kind = status::HandoverEnded::from(ended).kind;
                metrics::GROUP_HANDOVER_DURATION
                    .record(&[&self.it.views.borrow().group, kind.as_str()], waited);
                let (group, member) = (&self.it.places.group, &self.it.me);
                debug!(%group, %member, ?cause, ?waited, "this member has the keys that it gained");
                self.is_news = true;
            }
            Action::StoreWentBack => {
                let (group, member) = (&self.it.places.group, &self.it.me);
                warn!(%group, %member, "the data of the servers were deleted, or replaced by an older copy: tokens may be lower than before");
                // The number of an epoch there may be the same, with other members.
                let view = View { epoch: 0, ..View::clone(&self.it.views.borrow()) };
                self.it.views.send_replace(Arc::new(view));
            }
            Action::Rejoin => self.rejoin(),
            Action::HasLeft => self.tell_engine(engine::Event::Leave),
            Action::Lease(deadline) => {
                let now = self.it.clock.now();
                if let Some(own) = self.present.as_mut().and_then(|present| present.own.as_mut()) {
                    own.lease.move_to(deadline);
                    own.confirmed = now;
                    if !std::mem::replace(&mut own.is_granted, true) {
                        self.is_news = true;
                        self.tell_engine(engine::Event::Settled);
                    }
                }
            }
            Action::Freeze { mark, lost, deadline } => {
                let frozen = self.register().map(|register| register.freeze(mark, &lost, deadline));
                return Some(Event::Marked { mark, positions: frozen.unwrap_or_default() });
            }
            Action::Thaw { mark } => self.register().into_iter().for_each(|register| register.thaw(mark)),
            Action::FreezeAgain { mark, deadline } => {
                self.register().into_iter().for_each(|register| register.freeze_again(mark, deadline));
            }
            Action::EndAll => {
                if let Some(present) = &mut self.present
                    && let Some(own) = present.own.take()
                {
                    own.lease.end();
                }
                self.is_news = true;
            }
            Action::WatchIdle => match self.register() {
                Some(register) => register.watch_idle(),
                None => return Some(Event::Idle),
            },
            heartbeat @ Action::Commit { purpose: Purpose::Heartbeat, .. } => {
                let now = self.it.clock.now();
                if let Some(present) = &mut self.present {
                    present.heartbeat_sent = now;
                    // One that is still there belongs to a znode that was lost: its answer does not count.
                    present.heartbeat = Some(Box::pin(present.store.clone().ask(heartbeat, Vec::new())));
                }
            }
            request => {
                if let Some(present) = &mut self.present {
                    present.requests.push_back(Request::Core(request));
                }
            }
        }
        None
    }

    /// What may be started has changed.
    fn update(&mut self) {
        let startable = self.it.core.startable();
        if let Some(register) = self.register() {
            let token = FencingToken::new(startable.token);
            register.admit(&Admission::within(startable.ranges).under(token));
        }
        self.is_news = true;
    }

    /// Lets the engine create our znode.
    fn rejoin(&mut self) {
        let Some(present) = &mut self.present else { return };
        let event = if std::mem::replace(&mut present.is_joining, true) {
            engine::Event::Gone
        } else {
            let timing = present.store.live.timing;
            let lifetime = timing.timeout + 2 * timing.server_tick;
            engine::Event::SessionUp { session: present.store.live.id(), lifetime }
        };
        self.tell_engine(event);
    }

    /// Follows the start and the end of a session.
    fn follow_session(&mut self) {
        let Some(change) = self.it.sessions.poll() else { return };
        match change {
            Change::Live(live) => {
                let (asked, timing) = (live.reported(), live.timing);
                // The end of the one before may have gone unseen.
                self.tell_engine(engine::Event::SessionLost);
                self.present = Some(Present::new(live, self.it.places.clone()));
                self.feed(Event::SessionBegan { asked, timing });
            }
            Change::Lost | Change::Closed => {
                self.present = None;
                self.is_news = true;
                self.tell_engine(engine::Event::SessionLost);
                self.feed(Event::SessionEnded);
                if matches!(change, Change::Closed) {
                    self.is_leaving = true;
                    self.feed(Event::Leave { is_idle: true, drain: Duration::ZERO });
                }
            }
            Change::Refused(_) => {}
        }
    }

    /// Takes the actions of the engine, and tells the handover of our znode.
    fn drive_engine(&mut self) {
        if let Some(action) = self.it.engine.poll_action(self.it.clock.now())
            && let Some(present) = &mut self.present
        {
            present.requests.push_back(Request::Join(action));
        }
        let Some(znode) = self.it.engine.own() else { return };
        let Some(present) = self.present.as_mut() else { return };
        if present.announced.replace(znode.czxid) == Some(znode.czxid) {
            return;
        }
        let lease = present.store.live.lease();
        let group = self.it.views.borrow().group.clone();
        metrics::GROUP_JOINS.add(&[&group]);
        let register = Register::new(group, Validity::new(&lease));
        let incarnation = Incarnation { id: self.it.me.clone(), czxid: znode.czxid };
        present.own =
            Some(Own { incarnation, lease, register, is_granted: false, confirmed: self.it.clock.now() });
        let reported = present.store.live.reported();
        // The session may have gone on for long without this group.
        self.feed(Event::Reported(reported));
        self.feed(Event::Joined { czxid: znode.czxid, version: znode.version });
    }

    fn is_over(&self) -> bool {
        let is_idle = self
            .present
            .as_ref()
            .is_none_or(|present| present.under_way.is_none() && present.requests.is_empty());
        self.it.engine.picture().has_left && self.it.engine.poll_timeout().is_none() && is_idle
    }

    /// Shows callers what is new.
    fn publish_news(&mut self) {
        let revision = self.it.engine.picture().revision;
        let has_changed = std::mem::replace(&mut self.revision, revision) != revision;
        if !(std::mem::take(&mut self.is_news) | has_changed) {
            return;
        }
        let previous = self.it.views.borrow().clone();
        let Exclusive { me, core, engine, places, clock, .. } = &self.it;
        let own = self.present.as_ref().and_then(|present| present.own.as_ref());
        let picture = engine.picture();
        let sight = Sight { me, core, picture, places, own, is_leaving: self.is_leaving, clock };
        let view = sight.view(&previous);
        self.said.report(&view, &previous, self.present.as_ref(), clock.now());
        status::measure(&view, Some(&previous));
        self.handing.follow(&view);
        self.it.views.send_replace(Arc::new(view));
    }
}
