// Pure: no runtime, no clock, no socket, no random numbers.

//! The lease of a view: heartbeats check our znode and the head, and are counted from when they were sent.
//!
//! So a lease that was extended after epoch `w` was committed belongs to a member that follows `w` or a newer epoch. A
//! lease that has lapsed goes on only after the head was read anew.

use std::time::Duration;

use super::{
    parts::{Own, Sent},
    rules::Rule,
    settings::Problem,
    state::Handover,
    types::{Action, Outcome, Purpose, Refusal, Write},
};
use crate::{clock::Moment, session::timing::Timing};

/// The place of the check of the snapshot in a heartbeat, and in a write of our znode.
const SNAPSHOT: usize = 2;
/// How much a heartbeat is longer for each member.
const A_MEMBER: Duration = Duration::from_millis(10);

impl Handover {
    pub(super) fn lease_due(&self) -> Option<Moment> {
        let end = (!self.lease.has_lapsed).then_some(self.lease.deadline);
        let next = (self.can_send_heartbeat()).then_some(self.lease.next);
        end.into_iter().chain(next).min()
    }

    /// Notes that the lease has lapsed.
    pub(super) fn expire_lease(&mut self) {
        if !self.lease.has_lapsed && self.now >= self.lease.deadline {
            self.lease.has_lapsed = true;
            self.lease.has_reread = false;
            self.head_reading.wanted = true;
        }
    }

    fn can_send_heartbeat(&self) -> bool {
        self.followed.is_some()
            && self.lease.under_way.is_none()
            && self.own.as_ref().is_some_and(Own::is_settled)
            && (!self.lease.has_lapsed || self.lease.has_reread)
            // It would be refused again until we follow the head that the last one has found.
            && !self.lease.is_refused
    }

    pub(super) fn pursue_heartbeat(&mut self) {
        if self.now < self.lease.next || !self.can_send_heartbeat() {
            return;
        }
        let (Some(own), Some(view), Some(timing)) = (&self.own, self.followed, self.session) else { return };
        let mut writes = vec![Write::CheckOwn { version: own.version }];
        if self.settings.rules.hold(Rule::HeartbeatChecksHead) {
            writes.push(Write::CheckHead { version: view.version });
        }
        writes.extend(self.check_of_the_head_itself());
        self.lease.under_way = Some(self.lease.sent(self.now, view));
        self.lease.next = self.now + self.heartbeat(timing);
        self.actions.push(Action::Commit { purpose: Purpose::Heartbeat, writes });
    }

    /// From one heartbeat to the next. It grows with the group, as far as the lease allows, because the leader writes each
    /// heartbeat into its log.
    fn heartbeat(&self, timing: Timing) -> Duration {
        let members = self.history.as_ref().map_or(0, |history| history.members().len());
        let grown = A_MEMBER * u32::try_from(members).unwrap_or(u32::MAX);
        let lease = self.history.as_ref().map_or(Duration::ZERO, |history| history.head.common.lease);
        let lease = timing.heartbeat_validity.min(lease);
        let before_expiry = timing.timeout.saturating_sub(timing.server_tick);
        // The second, so that a lease which has lapsed can go on: see `session/deadline.rs`.
        let most =
            (before_expiry.saturating_sub(lease) / 2).min(before_expiry.saturating_sub(timing.margin) / 4);
        timing.heartbeat.max(grown.min(most).min(lease / 3))
    }

    /// For a transaction that may extend a lease that has lapsed: the head that was read may be an old one that was
    /// deleted meanwhile, and the version of the one after it may be the same. Its snapshot is another one.
    pub(super) fn check_of_the_head_itself(&self) -> Option<Write> {
        let history = self.history.as_ref().filter(|_| self.lease.has_lapsed)?;
        let is_checked = self.settings.rules.hold(Rule::RevivalChecksSnapshot);
        is_checked.then_some(Write::CheckSnapshot { name: history.head.snapshot })
    }

    /// When the next heartbeat is due.
    pub(crate) fn next_heartbeat(&self) -> Moment {
        self.lease.next
    }

    pub(super) fn on_heartbeat(&mut self, outcome: &Outcome) {
        let Some(sent) = self.lease.under_way.take() else { return };
        match outcome {
            Outcome::Applied => self.confirm_lease(sent),
            Outcome::Refused { index: 0, why: Refusal::NoNode } => self.on_gone(),
            Outcome::Refused { index: 0, .. } => self.own_is_uncertain(),
            Outcome::Refused { index, why } => self.head_is_another(sent, *index, *why),
            Outcome::Unknown | Outcome::Failed => self.lease.next = self.now + self.settings.retry,
        }
    }

    /// A transaction with checks of our znode and of the head was confirmed.
    pub(super) fn confirm_lease(&mut self, sent: Sent) {
        if self.lease.has_lapsed && !sent.revives {
            return;
        }
        let Some(timing) = self.session else { return };
        let interval = self.heartbeat(timing);
        let Some(counted) = &mut self.lease.counted else { return };
        let longest = self.history.as_ref().map_or(Duration::ZERO, |history| history.head.common.lease);
        let deadline = counted.note(sent.at, self.now).min(sent.at + longest);
        // A lease that goes on must not lapse again before the next heartbeat counts.
        let goes_on = !self.lease.has_lapsed || counted.lasts(interval);
        if goes_on && deadline > self.now && deadline > self.lease.deadline {
            self.lease.has_lapsed = false;
            self.lease.deadline = deadline;
            self.actions.push(Action::Lease(deadline));
        }
        if sent.revives && self.head_reading.missing.take().is_some() {
            // It was checked that the snapshot is there.
            (self.head_reading.misfits, self.problem) = (0, None);
        }
        let problems = [Some(Problem::NotPermitted), None];
        if problems.contains(&self.problem) {
            self.problem = None;
        }
    }

    /// A check of the head, or of its snapshot, has failed: read it, adopt it, and send the next heartbeat at once.
    pub(super) fn head_is_another(&mut self, sent: Sent, index: usize, why: Refusal) {
        if (index, why) == (SNAPSHOT, Refusal::NoNode) {
            self.snapshot_was_refused();
        }
        self.head_reading.wanted = true;
        if why == Refusal::NotPermitted {
            // A stat that is the same may be all that is read of the head next, and some servers deny nobody a stat.
            let pause = self.head_problem(Problem::NotPermitted);
            self.read_head_later(pause);
        }
        self.lease.next = self.now + self.settings.retry;
        if self.followed == Some(sent.view) {
            self.lease.is_refused = true;
        }
    }
}
