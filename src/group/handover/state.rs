// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Handover`]: the state of one membership, and its steps.

use std::{collections::BTreeMap, time::Duration};

use super::{
    history::History,
    marks::Marks,
    parts::{Donors, HeadReading, Lease, Ongoing, Own, Publisher},
    rules::Rule,
    settings::{Problem, Settings},
    types::{Action, Ended, Epoch, Event, Incarnation, Outcome, Part, Presence, Purpose},
};
use crate::{clock::Moment, member::MemberId, ring::Ranges, session::timing::Timing};

/// One membership in one group.
#[derive(Clone, Debug)]
pub(crate) struct Handover {
    pub(super) settings: Settings,
    pub(super) now: Moment,
    pub(super) random: u64,
    pub(super) actions: Vec<Action>,
    pub(super) problem: Option<Problem>,

    /// What is known of the group. It outlives sessions.
    pub(super) history: Option<History>,
    /// When this process first saw the head, and each of its epochs.
    pub(super) seen: Seen,
    /// The longest lease of the heads that this process has followed.
    pub(super) longest_lease: Duration,
    /// What was read before this head is of a store that was replaced by another one. Others may still act by it.
    pub(super) is_restored: bool,
    /// When this process first knew that these are gone.
    pub(super) gone: BTreeMap<Incarnation, Moment>,

    pub(super) session: Option<Timing>,
    pub(super) own: Option<Own>,
    /// The epoch that our incarnation follows. Only what was read after the creation of our znode counts.
    pub(super) followed: Option<Epoch>,
    /// The newest epoch at which our incarnation lost something.
    pub(super) newest_loss: Option<Epoch>,
    pub(super) marks: Marks,
    pub(super) lease: Lease,
    pub(super) head_reading: HeadReading,
    pub(super) donors: Donors,
    pub(super) publisher: Publisher,
    pub(super) leaving: Option<Leaving>,
    /// A plain member that seems to use the ring of tooz, while this one does not.
    pub(super) tooz_hint: Option<MemberId>,
    /// The handover that this member waits for.
    pub(super) ongoing: Option<Ongoing>,
    /// The last one that has ended.
    pub(super) ended: Option<Ended>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(super) head: Option<i64>,
    pub(super) since: Moment,
    pub(super) epochs: BTreeMap<i32, Moment>,
}

#[derive(Clone, Debug)]
pub(crate) struct Leaving {
    /// Nothing is in flight any more.
    is_idle: bool,
    /// When what is in flight is ended.
    until: Moment,
    /// Strict mode: until when the epoch is waited for that says what we have released. After that, others know as early
    /// by themselves.
    released_by: Option<Moment>,
    has_left: bool,
}

impl Handover {
    pub(crate) fn new(settings: Settings) -> Handover {
        Handover {
            settings,
            now: Moment::default(),
            random: 0,
            actions: Vec::new(),
            problem: None,
            history: None,
            seen: Seen::default(),
            longest_lease: Duration::ZERO,
            is_restored: false,
            gone: BTreeMap::new(),
            session: None,
            own: None,
            followed: None,
            newest_loss: None,
            marks: Marks::default(),
            lease: Lease::default(),
            head_reading: HeadReading::default(),
            donors: Donors::default(),
            publisher: Publisher::default(),
            leaving: None,
            tooz_hint: None,
            ongoing: None,
            ended: None,
        }
    }

    /// Takes an event, and gives what has to be done. `random` is a new random number for each call.
    pub(crate) fn step(&mut self, now: Moment, random: u64, event: Event) -> Vec<Action> {
        (self.now, self.random) = (now, random);
        let before = self.status_changes();
        self.expire();
        self.handle(event);
        self.pursue();
        self.handover_ends();
        if self.status_changes() != before {
            self.actions.push(Action::Status);
        }
        std::mem::take(&mut self.actions)
    }

    /// When [`Event::Tick`] has to come, if no other event comes before. Later than the last step.
    pub(crate) fn wakeup(&self) -> Moment {
        let times = [
            self.lease_due(),
            self.marks_due(),
            self.own_due(),
            self.head_due(),
            self.release_due(),
            self.publish_due(),
            self.leaving.as_ref().and_then(|it| if it.is_idle { it.released_by } else { Some(it.until) }),
        ];
        times.into_iter().flatten().filter(|due| *due > self.now).min().unwrap_or(Moment::NEVER)
    }

    /// What has to be in the payload of our znode when it is created.
    pub(crate) fn part(&self) -> Part {
        Part {
            presence: self.settings.presence,
            zone: self.settings.zone.clone(),
            lease: self.session.map(|timing| timing.heartbeat_validity),
            ..Part::default()
        }
    }

    /// Whether this member takes part in the ring, as far as it is concerned.
    pub(crate) fn presence(&self) -> Presence {
        self.settings.presence
    }

    /// Leaves a new one behind, while a step of this one runs elsewhere.
    pub(crate) fn take(&mut self) -> Handover {
        let settings = self.settings.clone();
        std::mem::replace(self, Handover::new(settings))
    }

    /// How many points the rings have that `event` may make: a measure of the time that its step takes.
    pub(crate) fn points(&self, event: &Event) -> u64 {
        let known = self.history.as_ref().map_or(0, |history| history.ring.points() as u64);
        let weight: u64 = match event {
            Event::Head(Ok(Some(read))) => read.head.added_weight(),
            Event::Snapshot(Ok(Some(snapshot))) => {
                snapshot.weight()
                    + self.head_reading.waits.iter().map(|read| read.head.added_weight()).sum::<u64>()
            }
            Event::Listed(Ok(listing)) => listing.members.values().map(|read| u64::from(read.weight)).sum(),
            _ => return 0,
        };
        known + u64::from(self.settings.replicas) * weight
    }

    /// Whether work on `position` may start at `now`.
    #[cfg(test)]
    pub(crate) fn may_start(&self, now: Moment, position: u32) -> bool {
        now < self.lease.deadline && self.donors.startable.contains_position(position)
    }

    pub(super) fn handle(&mut self, event: Event) {
        match event {
            Event::SessionBegan { asked, timing } => self.on_session(asked, timing),
            Event::SessionEnded => {
                self.lose_own();
                self.session = None;
            }
            Event::Reported(moment) => {
                self.lease.counted.iter_mut().for_each(|counted| counted.report(moment));
            }
            Event::Joined { czxid, version } => self.on_joined(czxid, version),
            Event::Head(read) => self.on_head(read),
            Event::Snapshot(read) => self.on_snapshot(read),
            Event::Members(read) => self.on_members(read),
            Event::Listed(read) => self.on_listed(read),
            Event::GroupStat(read) => self.on_group_stat(&read),
            Event::Own(read) => self.on_own(read),
            Event::Committed { purpose, outcome } => self.on_committed(purpose, &outcome),
            Event::HeadChanged => self.on_head_changed(),
            Event::MemberChanged(id) => self.donors.forget(&id),
            Event::ChildrenChanged => self.on_children_changed(),
            Event::Marked { mark, positions } => self.marks.marked(mark, positions),
            Event::Dropped { mark, position } => self.marks.dropped(mark, position),
            Event::Idle => self.leaving.iter_mut().for_each(|leaving| leaving.is_idle = true),
            Event::Tick => {}
            Event::Leave { is_idle, drain } => self.on_leave(is_idle, drain),
            Event::Ready => {
                self.settings.presence = Presence::Ready;
                if self.own.is_some() {
                    self.handover_begins();
                }
            }
            Event::Pause(pause) => self.on_pause(pause),
        }
    }

    pub(super) fn on_committed(&mut self, purpose: Purpose, outcome: &Outcome) {
        match purpose {
            Purpose::Heartbeat => self.on_heartbeat(outcome),
            Purpose::Own => self.on_own_written(outcome),
            Purpose::Publish => self.on_published(outcome),
            Purpose::CreateHead => self.on_head_created(outcome),
            Purpose::CheckDonor => self.on_donor_checked(outcome),
            Purpose::Leave => self.on_own_deleted(outcome),
        }
    }

    /// What has to be asked for now.
    pub(super) fn pursue(&mut self) {
        if self.session.is_none() || self.has_left() {
            if self.leaving.is_some() && self.own.is_none() {
                self.finish_leaving();
            }
            return;
        }
        self.pursue_head();
        self.pursue_leaving();
        self.pursue_own();
        self.pursue_heartbeat();
        self.pursue_release();
        self.pursue_publish();
    }

    // --- Sessions, and our znode ------------------------------------------------------------------------------

    pub(super) fn on_session(&mut self, asked: Moment, timing: Timing) {
        self.lose_own();
        self.session = Some(timing);
        self.lease = Lease::new(timing, asked);
    }

    pub(super) fn on_joined(&mut self, czxid: i64, version: i32) {
        // It may have changed while our znode was being created. Then it is written once more.
        let presence = self.head_reading.joins_as;
        self.lose_own();
        if self.history.as_ref().is_some_and(|history| czxid < history.token) {
            self.forget_the_store();
        }
        let me = Incarnation { id: self.settings.me.clone(), czxid };
        self.own = Some(Own::new(me, version, Part { presence, ..self.part() }));
        // A head that was asked for before does not count.
        self.head_reading.restart();
        self.publisher.join(self.now, self.settings.presence == Presence::Ready);
        self.handover_begins();
    }

    /// Transactions are numbered anew: the data of the servers were deleted, or replaced by an older copy. What was read
    /// of them before says nothing any more. All our guards have ended with the znode that we had there.
    fn forget_the_store(&mut self) {
        self.history = None;
        self.seen = Seen::default();
        self.gone.clear();
        self.donors = Donors::default();
        self.is_restored = true;
        self.actions.push(Action::StoreWentBack);
    }

    pub(super) fn on_gone(&mut self) {
        self.lose_own();
        if self.session.is_some() {
            self.head_reading.join_wanted = true;
        }
    }

    /// Our znode is not ours any more: everything that it allowed ends.
    pub(super) fn lose_own(&mut self) {
        if self.own.take().is_some() || self.followed.is_some() {
            if self.settings.rules.hold(Rule::GuardsEndWithTheirZnode) {
                self.actions.push(Action::EndAll);
                // Nothing says any more when the work on them ends.
                self.leaving.iter_mut().for_each(|leaving| leaving.is_idle = true);
            }
            self.actions.push(Action::Update);
        }
        self.followed = None;
        self.ongoing = None;
        self.newest_loss = None;
        self.marks.clear();
        self.lease.end();
        self.head_reading = HeadReading::default();
        self.donors.end_session();
        self.publisher.end_session();
    }

    // --- Leaving ----------------------------------------------------------------------------------------------

    pub(super) fn on_leave(&mut self, is_idle: bool, drain: Duration) {
        if self.leaving.is_none() {
            self.leaving =
                Some(Leaving { is_idle, until: self.now + drain, released_by: None, has_left: false });
            self.settings.presence = Presence::Draining;
            self.compute_startable();
            self.actions.push(Action::Update);
            if !is_idle {
                self.actions.push(Action::WatchIdle);
            }
        }
    }

    pub(super) fn pursue_leaving(&mut self) {
        let wait = self.wait();
        let is_paused = self.history.as_ref().is_some_and(|history| history.head.is_paused);
        let is_waited_for = !is_paused && self.problem.is_none();
        let Some(leaving) = &mut self.leaving else { return };
        if !leaving.is_idle && self.now >= leaving.until {
            leaving.is_idle = true;
            self.marks.clear();
            self.actions.push(Action::EndAll);
        }
        if !leaving.is_idle {
            return;
        }
        if self.settings.is_strict {
            // Within the drain: the caller waits no longer, and no member may be able to publish it.
            let by = leaving.released_by.unwrap_or((self.now + wait).min(leaving.until));
            leaving.released_by = Some(by);
            self.settings.presence = Presence::Drained;
            if self.now < by && is_waited_for && self.is_releasing() {
                return;
            }
        }
        match &mut self.own {
            None => self.finish_leaving(),
            Some(own) => own.delete(self.now, self.settings.retry, &mut self.actions),
        }
    }

    /// Strict mode: we have ended our work, and others do not know yet that they need not wait for us.
    pub(super) fn is_releasing(&self) -> bool {
        let waits = |me| self.history.as_ref().is_some_and(|history| history.waits_for(me));
        self.settings.presence == Presence::Drained && self.followed.is_some() && self.me().is_some_and(waits)
    }

    pub(super) fn is_idle_and_leaving(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| leaving.is_idle)
    }

    pub(super) fn finish_leaving(&mut self) {
        if let Some(leaving) = self.leaving.as_mut().filter(|leaving| !leaving.has_left) {
            leaving.has_left = true;
            self.actions.push(Action::HasLeft);
        }
    }

    pub(super) fn has_left(&self) -> bool {
        self.leaving.as_ref().is_some_and(|leaving| leaving.has_left)
    }

    // --- What several parts use -------------------------------------------------------------------------------

    /// How long others have to be waited for: the lease that they may have, and a margin for their clocks.
    pub(super) fn wait(&self) -> Duration {
        let lease = self.history.as_ref().map(|history| history.head.common.lease);
        self.wait_for(lease.unwrap_or_default())
    }

    /// How long such a lease has to be waited for. Our margin fits our own: what a longer one has more, a clock may
    /// measure wrong by a thousandth at each side.
    pub(super) fn wait_for(&self, lease: Duration) -> Duration {
        let Some(timing) = &self.session else { return lease };
        lease + timing.margin + lease.saturating_sub(timing.heartbeat_validity) / 500
    }

    /// Our incarnation; `None` without a znode.
    pub(super) fn me(&self) -> Option<&Incarnation> {
        self.own.as_ref().map(|own| &own.me)
    }

    /// A random duration below `limit`.
    pub(super) fn jitter(&mut self, limit: Duration) -> Duration {
        // The next number of a linear congruential generator, so that one step can ask twice.
        self.random =
            self.random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        limit.mul_f64((self.random >> 11) as f64 / (1_u64 << 53) as f64)
    }

    /// What we own in the newest epoch.
    pub(super) fn owned(&self) -> Ranges {
        let (Some(history), Some(me)) = (&self.history, self.me()) else { return Ranges::default() };
        let is_in = history.has(me)
            || !self.settings.rules.hold(Rule::IdentityHasCreation) && history.ring.contains(me.id.as_str());
        if is_in { history.ring.ranges(me.id.as_str()) } else { Ranges::default() }
    }
}
