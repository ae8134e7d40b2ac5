// Pure: no runtime, no clock, no socket, no random numbers.

//! The membership state machine. It takes events and gives actions. The time and a random number are arguments.
//!
//! ```text
//!            session up                    joined                     listed, our znode in it
//! NoSession ------------> Outside(step) --------------> Inside ------------------------------> (a picture)
//!     ^                     ^   |  ^ |                    |
//!     |      retry later    +---+  | +-- taken, refused   | our znode is gone, or is another's
//!     +--- session lost            +----------------------+
//! ```
//!
//! The driver asks for the next action with [`Engine::poll_action`], does it, and passes its outcome to
//! [`Engine::handle`] as an [`Event`]. If there is no action, it waits for [`Engine::poll_timeout`] or for another
//! event. At most one action is under way at any time. The end of the session ends it, too.

mod debounce;
mod event;

use std::time::Duration;

use self::debounce::Debounce;
pub(crate) use self::event::{Action, Event, Occupant, Own, Picture, Settings};
use super::{member::Member, python};
use crate::{
    backend::{self, SessionId},
    backoff::Backoff,
    clock::Moment,
    error::Error,
    ring::Label,
};

#[derive(Debug)]
enum Phase {
    NoSession,
    Outside {
        step: Action,
        at: Moment,
    },
    /// The step is a list or a check.
    Inside {
        own: Own,
        step: Action,
        at: Moment,
    },
    Leaving {
        at: Moment,
    },
    Left,
}

/// The state machine of one membership.
#[derive(Debug)]
pub(crate) struct Engine {
    settings: Settings,
    phase: Phase,
    session: Option<(SessionId, Duration)>,
    is_out: bool,
    /// When the last action began.
    began: Moment,
    backoff: Backoff,
    /// Steps taken without a pause since a list last showed our znode.
    hops: u32,
    /// How many requests in a row had no reply because the connection broke.
    cuts: u32,
    /// Since when another process has had our member id.
    blocked_since: Option<Moment>,
    watch: Debounce,
    candidate: Option<Candidate>,
    picture: Picture,
}

/// A membership that is adopted when no further change has come for the settling time.
#[derive(Debug)]
struct Candidate {
    epoch: i64,
    members: Vec<Member>,
    first_change: Moment,
    last_change: Moment,
}

/// A change is adopted after this many settling times even if further changes keep coming.
pub(crate) const MAX_SETTLES: u32 = 5;
/// How many steps may follow each other without a pause: create the group, join, inspect, take over. If there are more,
/// another process undoes them.
const MAX_HOPS: u32 = 6;
/// The pause between two joins while another process has our member id: that process may still prove to be dead.
const BLOCKED_RETRY: Duration = Duration::from_secs(1);
/// The shortest pause after a refusal.
const REFUSED_RETRY: Duration = Duration::from_secs(1);
/// After this many requests in a row without a reply, the next one waits for a pause: perhaps it is the request that
/// breaks the connection. Before that it is sent at once. The backend holds it back until the connection is up.
const MAX_CUTS: u32 = 8;
/// The longest such pause after the connection is up again.
const CUT_RETRY: Duration = Duration::from_secs(1);
/// A znode of a higher data version is not replaced but waited for: the new one has to have a higher version still, one
/// operation each.
const MAX_REPLACED: i32 = 4000;

impl Engine {
    pub(crate) fn new(settings: Settings) -> Self {
        Engine {
            backoff: Backoff::new(settings.retry, settings.max_retry),
            settings,
            phase: Phase::NoSession,
            session: None,
            is_out: false,
            began: Moment::default(),
            hops: 0,
            cuts: 0,
            blocked_since: None,
            watch: Debounce::default(),
            candidate: None,
            picture: Picture::default(),
        }
    }

    /// The current knowledge of the engine.
    pub(crate) fn picture(&self) -> &Picture {
        &self.picture
    }

    /// Our znode as it was created last, whether or not a list has shown it yet.
    pub(crate) fn own(&self) -> Option<Own> {
        match self.phase {
            Phase::Inside { own, .. } => Some(own),
            _ => None,
        }
    }

    /// The next action, if one is due. To be called after each event and at [`Engine::poll_timeout`].
    pub(crate) fn poll_action(&mut self, now: Moment) -> Option<Action> {
        if let Some(candidate) = self.candidate.take_if(|it| now >= it.due(self.settings.settle)) {
            self.adopt(candidate.epoch, candidate.members);
        }
        if self.is_out {
            return None;
        }
        let (action, at) = match &self.phase {
            Phase::Outside { step, at } | Phase::Inside { step, at, .. } => (step.clone(), *at),
            Phase::Leaving { at } => (Action::Leave, *at),
            Phase::NoSession | Phase::Left => return None,
        };
        self.is_out = now >= at;
        if self.is_out {
            self.began = now;
        }
        self.is_out.then_some(action)
    }

    /// When to call [`Engine::poll_action`] if no event comes before.
    pub(crate) fn poll_timeout(&self) -> Option<Moment> {
        let due = match &self.phase {
            _ if self.is_out => None,
            Phase::Outside { at, .. } | Phase::Inside { at, .. } | Phase::Leaving { at } => Some(*at),
            Phase::NoSession | Phase::Left => None,
        };
        let settled = self.candidate.as_ref().map(|it| it.due(self.settings.settle));
        due.into_iter().chain(settled).min()
    }

    /// Handles an event. `random` is a uniform number in `[0, 1]`.
    pub(crate) fn handle(&mut self, now: Moment, random: f64, event: Event) {
        match event {
            Event::SessionUp { session, lifetime } => {
                self.lose_session();
                self.session = Some((session, lifetime));
                // The servers may have been down meanwhile. Then no session has expired, so the wait starts again.
                self.unblock();
                if matches!(self.phase, Phase::NoSession) {
                    self.go(Action::Join, now);
                }
            }
            Event::SessionLost => self.lose_session(),
            Event::Gone => self.rejoin(now, random),
            Event::Settled => self.settled(),
            Event::Connected => {
                if self.cuts > 0 {
                    self.hurry(now + CUT_RETRY.mul_f64(random));
                }
            }
            Event::WatchFired => {
                let due = now + self.watch.delay(now, random);
                match &mut self.phase {
                    Phase::Inside { .. } if !self.settings.lists => return,
                    Phase::Inside { step, .. } => *step = Action::List,
                    _ => {}
                }
                self.hurry(due);
            }
            Event::Leave => match self.phase {
                Phase::NoSession => self.leave_inside(Phase::Left),
                Phase::Leaving { .. } | Phase::Left => {}
                // Also from outside: a join whose reply was lost may have been applied.
                Phase::Outside { .. } | Phase::Inside { .. } => {
                    self.is_out = false;
                    self.leave_inside(Phase::Leaving { at: now });
                }
            },
            outcome => {
                // Without an action under way, it is an outcome from an earlier session.
                if std::mem::take(&mut self.is_out) {
                    self.handle_outcome(now, random, outcome);
                }
            }
        }
    }

    fn handle_outcome(&mut self, now: Moment, random: f64, outcome: Event) {
        match (&self.phase, outcome) {
            (Phase::Leaving { .. }, Event::Failed(error, _)) => {
                let delay =
                    if error.is_unknown() { self.cut_delay(random) } else { self.backoff.next_delay(random) };
                let at = now + delay.min(BLOCKED_RETRY);
                // Without the permission to delete it, only the end of the session removes the znode.
                let is_over = matches!(error, backend::Error::NoNode | backend::Error::NotPermitted);
                self.phase = if is_over { Phase::Left } else { Phase::Leaving { at } };
            }
            (Phase::Leaving { .. }, _) => self.leave_inside(Phase::Left),
            (_, Event::GroupReady) => self.hop(Action::Join, now, random),
            (Phase::Inside { .. }, Event::GroupMissing) => self.rejoin(now, random),
            (_, Event::GroupMissing) => self.hop(Action::CreateGroup, now, random),
            (_, Event::Joined { czxid, version }) => {
                self.unblock();
                if self.picture.refusal.take().is_some() {
                    self.picture.revision += 1;
                }
                let at = if self.settings.lists { now } else { Moment::NEVER };
                self.phase = Phase::Inside { own: Own { czxid, version }, step: Action::List, at };
            }
            (_, Event::Occupied) => self.hop(Action::Inspect, now, random),
            (_, Event::Occupant(None)) => self.hop(Action::Join, now, random),
            (_, Event::Occupant(Some(occupant))) => self.handle_occupant(now, random, &occupant),
            (Phase::Inside { own, .. }, Event::Listed { epoch, members }) => {
                self.handle_list(now, random, *own, epoch, members);
            }
            (Phase::Inside { own, .. }, Event::Unchanged) => self.wait_for_change(now, random, *own),
            (_, Event::Failed(error, shown)) => self.handle_failure(now, random, &error, shown),
            // No other outcome belongs to an action of this phase.
            (_, _) => {}
        }
    }

    /// "Node exists" can mean three things. The owner of the znode shows which one it is.
    fn handle_occupant(&mut self, now: Moment, random: f64, occupant: &Occupant) {
        let Occupant { owner, czxid, version, .. } = *occupant;
        let (session, lifetime) = self.session.unwrap_or((SessionId(0), Duration::ZERO));
        if owner == Some(session) {
            // We created it, and the reply was lost.
            return self.handle_outcome(now, random, Event::Joined { czxid, version });
        }
        let is_from_old_session = occupant.payload.is_by(&self.settings.ours);
        if (is_from_old_session || occupant.dead) && version <= MAX_REPLACED {
            // It is ours from an earlier session, or that of a dead process: no process acts on it any more.
            return self.hop(Action::TakeOver { version }, now, random);
        }
        let since = *self.blocked_since.get_or_insert(now);
        let Settings { group, me, .. } = &self.settings;
        let holder = Box::new(occupant.holder());
        let error = Error::MemberIdTaken { group: group.clone(), member: me.clone(), holder };
        let left = lifetime.saturating_sub(now.saturating_since(since));
        // The watch of the inspection ends the pause when the znode is gone.
        let delay = self.backoff.next_delay(random);
        if left.is_zero() {
            self.refuse(error);
            self.pause(Action::Join, now, delay.max(BLOCKED_RETRY));
        } else {
            let is_known =
                self.picture.blocked.as_ref().is_some_and(|it| it.to_string() == error.to_string());
            if !is_known {
                self.picture.blocked = Some(error);
                self.picture.revision += 1;
            }
            self.pause(Action::Join, now, delay.min(BLOCKED_RETRY).min(left));
        }
    }

    fn handle_list(&mut self, now: Moment, random: f64, own: Own, epoch: i64, mut members: Vec<Member>) {
        members.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        let me = members.iter().find(|member| *member.id() == self.settings.me);
        let seen = me.map(Member::incarnation);
        if seen != Some(own.czxid) {
            // It is gone, or another process has created one of the same name: a heartbeat does not notice the latter.
            (self.picture.members, self.picture.is_read) = (members, true);
            return self.rejoin(now, random);
        }
        self.watch.listed(now.saturating_since(self.began));
        self.wait_for_change(now, random, own);
        let is_first = self.picture.own != Some(own);
        if epoch < self.picture.epoch && !is_first {
            return;
        }
        let is_same = !is_first && members == self.picture.members;
        if is_same || self.settings.settle.is_zero() {
            self.candidate = None;
            self.adopt(epoch, members);
        } else {
            let (first_change, last_change) = match &self.candidate {
                Some(old) if old.members == members => (old.first_change, old.last_change),
                Some(old) => (old.first_change, now),
                None => (now, now),
            };
            self.candidate = Some(Candidate { epoch, members, first_change, last_change });
            if is_first && !std::mem::replace(&mut self.picture.is_settling, true) {
                self.picture.revision += 1;
            }
        }
    }

    /// Waits for the watch, or for the next check, after all that is known was confirmed.
    fn wait_for_change(&mut self, now: Moment, random: f64, own: Own) {
        self.settled();
        let spread = 0.8 + 0.4 * random;
        let at = now + self.settings.check.mul_f64(spread);
        self.phase = Phase::Inside { own, step: Action::Check, at };
    }

    fn settled(&mut self) {
        (self.hops, self.cuts) = (0, 0);
        self.backoff.reset();
    }

    fn adopt(&mut self, epoch: i64, members: Vec<Member>) {
        let Phase::Inside { own, .. } = self.phase else { return };
        let refusal = self.mismatch(&members);
        let is_news = self.picture.own != Some(own)
            || self.picture.epoch != epoch
            || self.picture.members != members
            || refusal.is_some() != self.picture.refusal.is_some();
        if is_news {
            let revision = self.picture.revision + 1;
            let own = Some(own);
            self.picture =
                Picture { revision, epoch, members, is_read: true, own, refusal, ..Picture::default() };
        }
    }

    fn mismatch(&self, members: &[Member]) -> Option<Error> {
        let Settings { ours, group, .. } = &self.settings;
        let group = group.clone();
        if let Some((other, theirs)) = members.iter().find_map(|it| Some((it, it.other_ring(ours)?))) {
            let member = other.id().clone();
            return Some(Error::RingMismatch { group, member, theirs, ours: ours.ring_as_text() });
        }
        let partitions = ours.replicas.filter(|_| ours.label == Some(Label::Tooz))?;
        let (member, reason) = python::unclear(members.iter().map(Member::as_peer), partitions)?;
        Some(Error::RingUnclear { group, member: member.clone(), reason })
    }

    fn handle_failure(&mut self, now: Moment, random: f64, error: &backend::Error, shown: Error) {
        let is_refused = match error {
            backend::Error::NotPermitted => true,
            // If a list fails, this member is still in the group. If a join fails with one of these, it will fail
            // again.
            backend::Error::TooLarge { .. } | backend::Error::EphemeralParent | backend::Error::Other(_) => {
                matches!(self.phase, Phase::Outside { .. })
            }
            _ => false,
        };
        let delay = match error {
            error if error.is_unknown() => self.cut_delay(random),
            _ if is_refused => self.backoff.next_delay(random).max(REFUSED_RETRY),
            _ => self.backoff.next_delay(random),
        };
        if is_refused {
            self.refuse(shown);
        }
        match &mut self.phase {
            Phase::Inside { at, .. } => *at = now + delay,
            // Whichever step failed: the outcome of a new join shows the state of our znode.
            Phase::Outside { .. } => self.pause(Action::Join, now, delay),
            Phase::NoSession | Phase::Leaving { .. } | Phase::Left => {}
        }
    }

    /// The pause after a request without a reply, because the connection broke. Only what the server refused is worth
    /// a pause: until this member has listed the group again, it acts on an old membership.
    fn cut_delay(&mut self, random: f64) -> Duration {
        self.cuts += 1;
        if self.cuts <= MAX_CUTS { Duration::ZERO } else { self.backoff.next_delay(random) }
    }

    /// Takes the next step at `due` if it would come later.
    fn hurry(&mut self, due: Moment) {
        match &mut self.phase {
            Phase::Outside { at, .. } | Phase::Inside { at, .. } | Phase::Leaving { at } => {
                *at = due.min(*at);
            }
            Phase::NoSession | Phase::Left => {}
        }
    }

    fn unblock(&mut self) {
        self.blocked_since = None;
        if self.picture.blocked.take().is_some() {
            self.picture.revision += 1;
        }
    }

    fn refuse(&mut self, error: Error) {
        self.picture.blocked = None;
        self.picture.refusal = Some(error);
        self.picture.revision += 1;
    }

    fn lose_session(&mut self) {
        self.is_out = false;
        self.cuts = 0;
        self.session = None;
        let is_leaving = matches!(self.phase, Phase::Leaving { .. } | Phase::Left);
        self.leave_inside(if is_leaving { Phase::Left } else { Phase::NoSession });
    }

    /// Joins again after our znode was lost while the session lives.
    fn rejoin(&mut self, now: Moment, random: f64) {
        if matches!(self.phase, Phase::Inside { .. }) {
            self.is_out = false;
            self.leave_inside(Phase::NoSession);
            self.hop(Action::Join, now, random);
        }
    }

    fn leave_inside(&mut self, phase: Phase) {
        self.picture.own = None;
        self.picture.is_settling = false;
        self.picture.has_left = matches!(phase, Phase::Leaving { .. } | Phase::Left);
        self.picture.revision += 1;
        self.candidate = None;
        self.phase = phase;
    }

    fn go(&mut self, step: Action, at: Moment) {
        self.phase = Phase::Outside { step, at };
    }

    /// Takes the next step at once, or after a pause if many steps have not led into the group.
    fn hop(&mut self, step: Action, now: Moment, random: f64) {
        self.hops += 1;
        if self.hops > MAX_HOPS {
            let delay = self.backoff.next_delay(random);
            self.pause(step, now, delay);
        } else {
            self.go(step, now);
        }
    }

    fn pause(&mut self, step: Action, now: Moment, delay: Duration) {
        self.hops = 0;
        self.go(step, now + delay);
    }
}

impl Candidate {
    fn due(&self, settle: Duration) -> Moment {
        (self.last_change + settle).min(self.first_change + settle.saturating_mul(MAX_SETTLES))
    }
}

#[cfg(test)]
mod tests;
