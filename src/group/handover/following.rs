// Pure: no runtime, no clock, no socket, no random numbers.

//! Following: reading the head, adopting its newest epoch, and marking work on what was lost.

use std::{collections::BTreeMap, time::Duration};

use super::{
    history::{History, HistoryError},
    marks::{Batch, BatchState},
    rules::Rule,
    settings::Problem,
    state::{Handover, Seen},
    types::{Action, Epoch, HeadRead, Incarnation, MemberRead, Outcome, ReadError, Refusal, Snapshot},
};
use crate::{clock::Moment, ring::Ranges};

/// After so many failures to make the first head the pauses grow.
const FEW_FAILURES: u32 = 8;
/// After so many misfits in a row they are a problem. Before that, a head that was written meanwhile explains them.
const FEW_MISFITS: u32 = 6;
const MISSING: Problem =
    Problem::Inconsistent("its snapshot is missing; delete the head, then the members make a new one");

impl Handover {
    // --- Reading ----------------------------------------------------------------------------------------------

    pub(super) fn head_due(&self) -> Option<Moment> {
        let reading = &self.head_reading;
        let due = if reading.wanted || reading.is_missing { reading.not_before } else { reading.recheck };
        self.session.is_some().then_some(due)
    }

    pub(super) fn pursue_head(&mut self) {
        if self.own.is_none() {
            self.pursue_join();
            return;
        }
        if self.head_reading.is_missing {
            self.create_head();
            return;
        }
        let is_time = self.head_reading.wanted || self.now >= self.head_reading.recheck;
        if is_time && self.now >= self.head_reading.not_before {
            if self.now >= self.head_reading.recheck {
                // A watch may have been lost.
                self.donors.read.clear();
            }
            self.read_head();
        }
    }

    /// The first head is made before our znode: then no znode of this group is older than its head, and no
    /// member has to be waited for.
    fn pursue_join(&mut self) {
        if self.leaving.is_some() || self.head_reading.join_asked {
            return;
        }
        if self.head_reading.is_missing {
            self.create_head();
        } else if self.head_reading.join_wanted {
            self.head_reading.join_asked = true;
            self.head_reading.joins_as = self.settings.presence;
            self.actions.push(Action::Rejoin);
        } else if self.head_reading.under_way.is_none() && self.head_reading.waits.is_none() {
            self.read_head();
        }
    }

    fn read_head(&mut self) {
        if self.head_reading.under_way.is_some() || self.head_reading.waits.is_some() {
            return;
        }
        let recheck = self.settings.recheck.mul_f64(0.5) + self.jitter(self.settings.recheck);
        let reading = &mut self.head_reading;
        reading.wanted = false;
        reading.recheck = self.now + recheck;
        reading.under_way = Some(true);
        reading.after_lapse = self.lease.has_lapsed;
        self.actions.push(Action::ReadHead);
    }

    pub(super) fn read_head_later(&mut self, pause: Duration) {
        self.head_reading.wanted = true;
        self.head_reading.not_before = self.now + pause;
    }

    pub(super) fn on_head(&mut self, read: Result<Option<HeadRead>, ReadError>) {
        let Some(counts) = self.head_reading.under_way.take() else { return };
        if !counts {
            return;
        }
        if self.own.is_none() {
            // Only whether there is one matters so far.
            self.head_reading.is_missing = matches!(read, Ok(None));
            self.head_reading.join_wanted = !self.head_reading.is_missing;
            return;
        }
        match read {
            Ok(Some(read)) => self.on_head_read(read),
            Ok(None) => self.head_reading.is_missing = true,
            Err(error) => self.on_head_error(error),
        }
    }

    fn on_head_error(&mut self, error: ReadError) {
        let pause = match error {
            ReadError::Failed => self.settings.retry,
            ReadError::NotPermitted => self.head_problem(Problem::NotPermitted),
            ReadError::Format(error) => self.head_problem(Problem::Format(error)),
        };
        self.read_head_later(pause);
    }

    /// Notes a problem that lasts, and returns the pause before the next read.
    pub(super) fn head_problem(&mut self, problem: Problem) -> Duration {
        self.problem = Some(problem);
        self.settings.recheck.max(self.settings.retry)
    }

    fn on_head_read(&mut self, read: HeadRead) {
        let known = self.history.as_ref().map(|history| history.epoch);
        if let Some(known) = known
            && (read.czxid < known.head || read.czxid == known.head && read.version < known.version)
        {
            // A server that lags behind, or data from a backup. Views never go backwards.
            let problem = Problem::WentBack { found: read.version, known: known.version };
            self.problem = Some(problem.clone());
            self.misfit(problem);
            return;
        }
        if !self.can_follow(&read) {
            self.read_head_later(self.settings.recheck);
            return;
        }
        let next = match &self.history {
            Some(history) if history.reaches(&read) => {
                if history.epoch.version == read.version {
                    Ok(history.clone())
                } else {
                    history.extended(&read)
                }
            }
            _ => {
                let name = read.head.snapshot;
                self.head_reading.waits = Some(read);
                self.actions.push(Action::ReadSnapshot { name });
                return;
            }
        };
        self.on_history(next);
    }

    /// Whether this member can follow that head.
    fn can_follow(&mut self, read: &HeadRead) -> bool {
        let common = read.head.common;
        if (common.label, common.replicas) != (self.settings.label, self.settings.replicas) {
            self.problem = Some(Problem::OtherRing { label: common.label, replicas: common.replicas });
            return false;
        }
        if read.head.floor < read.head.base && self.settings.rules.hold(Rule::SnapshotUpToFloor) {
            self.problem = Some(Problem::Inconsistent("its snapshot is newer than its floor"));
            return false;
        }
        true
    }

    pub(super) fn on_snapshot(&mut self, read: Result<Option<Snapshot>, ReadError>) {
        let Some(head) = self.head_reading.waits.take() else { return };
        match read {
            Ok(Some(snapshot)) => {
                self.head_reading.missing = None;
                self.on_history(History::new(&head, &snapshot));
            }
            // The head may have been written anew meanwhile: read both again.
            Ok(None) => self.snapshot_is_missing(head.head.snapshot),
            Err(error) => self.on_head_error(error),
        }
    }

    fn on_history(&mut self, next: Result<History, HistoryError>) {
        match next {
            Ok(next) => self.adopt(next),
            Err(HistoryError::DoNotFit) => {
                self.misfit(Problem::Inconsistent("its snapshot does not belong to it"));
            }
            Err(error) => {
                let problem = match error {
                    HistoryError::Inconsistent(why) => Problem::Inconsistent(why),
                    HistoryError::DoNotFit | HistoryError::Ring(_) => Problem::TooManyPoints,
                };
                let pause = self.head_problem(problem);
                self.read_head_later(pause);
            }
        }
    }

    /// What was read cannot be used together: reads the head again, at first soon. `problem`: what it is if that lasts.
    fn misfit(&mut self, problem: Problem) {
        let count = self.head_reading.misfits;
        self.head_reading.misfits = count.saturating_add(1);
        if count >= FEW_MISFITS {
            self.problem = Some(problem);
        }
        let pause = (self.settings.retry / 4).saturating_mul(1 << count.min(16));
        self.read_head_later(pause.min(self.settings.recheck.max(self.settings.retry)));
    }

    /// There is no snapshot of this name, and the head names it.
    fn snapshot_is_missing(&mut self, name: u64) {
        self.head_reading.missing = Some(name);
        self.misfit(MISSING);
    }

    /// A check of the snapshot of the head that we follow was refused. If a read of the head is to come, that may explain it.
    pub(super) fn snapshot_was_refused(&mut self) {
        if let Some(history) = &self.history
            && !self.head_reading.wanted
            && self.head_reading.under_way.is_none()
        {
            self.snapshot_is_missing(history.head.snapshot);
        }
    }

    /// The head has changed: what was not usable may be so now.
    pub(super) fn on_head_changed(&mut self) {
        self.head_reading.wanted = true;
        if self.head_reading.misfits > 0 {
            self.head_reading.not_before = self.now;
        }
    }

    pub(super) fn on_head_created(&mut self, outcome: &Outcome) {
        self.head_reading.is_creating = false;
        let failures = std::mem::take(&mut self.head_reading.failures);
        match outcome {
            Outcome::Applied | Outcome::Refused { why: Refusal::NodeExists, .. } => {}
            Outcome::Refused { why: Refusal::NotPermitted, .. } => {
                let pause = self.head_problem(Problem::NotPermitted);
                self.read_head_later(pause);
                // The znode of the member shows the operator that it is there.
                self.head_reading.join_wanted = true;
                return;
            }
            Outcome::Refused { why: Refusal::TooLarge, .. } if self.own.is_none() => {
                // The creation of our znode will show the caller what is too large.
                self.read_head_later(self.settings.recheck);
                self.head_reading.join_wanted = true;
                return;
            }
            Outcome::Refused { .. } | Outcome::Unknown | Outcome::Failed => {
                // A connection that breaks a few times is worth no pause; a store that never takes it is.
                let power = failures.saturating_sub(FEW_FAILURES).min(16);
                self.head_reading.failures = failures.saturating_add(1);
                let pause = self.settings.retry.saturating_mul(1 << power);
                self.read_head_later(pause.min(self.settings.max_retry.max(self.settings.retry)));
                return;
            }
        }
        self.head_reading.wanted = true;
        self.head_reading.join_wanted = true;
    }

    // --- Adopting ---------------------------------------------------------------------------------------------

    fn adopt(&mut self, next: History) {
        let Some(timing) = self.session else { return };
        let is_replaced =
            |me: &Incarnation| next.members().get(&me.id).is_some_and(|entry| entry.czxid > me.czxid);
        if self.me().is_some_and(is_replaced) && self.settings.rules.hold(Rule::IdentityHasCreation) {
            // Another process has our id. Its znode may have the data version of ours, so no check of a version shows it.
            self.on_gone();
            return;
        }
        self.lease.has_reread |= self.head_reading.after_lapse;
        let needed = 3 * timing.heartbeat;
        let lease = next.head.common.lease;
        let is_same = self.followed == Some(next.epoch);
        let is_denied = is_same && self.lease.is_refused && self.problem == Some(Problem::NotPermitted);
        let is_missing = is_same
            && self.head_reading.missing == Some(next.head.snapshot)
            && self.head_reading.misfits > FEW_MISFITS;
        if !is_same || self.head_reading.missing.is_none() {
            (self.head_reading.misfits, self.head_reading.missing) = (0, None);
        }
        self.problem = if is_denied {
            Some(Problem::NotPermitted)
        } else if is_missing {
            Some(MISSING)
        } else {
            (lease < needed).then_some(Problem::LeaseTooShort { group: lease, heartbeat: timing.heartbeat })
        };
        let published = next.members().get(&self.settings.me);
        if self.own.is_some()
            && published.is_some_and(|entry| entry.czxid == MemberRead::denied(self.settings.label).czxid)
        {
            self.problem = Some(Problem::Unreadable);
        }
        if self.lease.has_lapsed || self.lease.is_refused && self.followed != Some(next.epoch) {
            self.lease.is_refused = false;
            self.lease.next = self.now.min(self.lease.next);
        }
        let (before, epoch) = (self.followed, next.epoch);
        if before == Some(epoch) {
            if self.lease.is_refused {
                // A server that lags behind has answered.
                self.read_head_later(self.settings.retry);
            }
            return;
        }
        let lost = self.lost(&next);
        let owned = self.owned();
        self.see(&next);
        self.donors_adopt(&next);
        let is_new_head = before.is_some_and(|before| before.head != epoch.head);
        self.history = Some(next);
        self.followed = Some(epoch);
        self.is_restored &= epoch.version == 0;
        self.compute_startable();
        self.actions.push(Action::Update);
        self.mark(&lost, is_new_head);
        self.handover_follows(before, &owned);
        self.publisher_adopts();
    }

    /// When each epoch was first seen, and which members are new.
    fn see(&mut self, next: &History) {
        let known = self.history.as_ref().filter(|known| known.epoch.head == next.epoch.head);
        let known = known.map(|history| history.epoch.version);
        self.longest_lease = self.longest_lease.max(next.head.common.lease);
        if self.seen.head != Some(next.epoch.head) {
            self.seen = Seen { head: Some(next.epoch.head), since: self.now, ..Seen::default() };
        }
        let floor = next.floor();
        let new = known.unwrap_or(floor.saturating_sub(1)).max(floor.saturating_sub(1)) + 1;
        for version in new..=next.epoch.version {
            self.seen.epochs.entry(version).or_insert(self.now);
        }
        self.seen.epochs.retain(|version, _| *version >= floor);
        self.publisher.see(self.now, known, next);
    }

    /// What our incarnation lost between the view that it followed and `next`, and notes the newest loss.
    fn lost(&mut self, next: &History) -> Ranges {
        let Some(me) = self.me().cloned() else { return Ranges::default() };
        let newest = |after: i32| {
            let mut losses = next.losses_after(after).rev();
            losses.find(|(_, losses)| losses.contains_key(&me)).map(|(version, _)| version)
        };
        let Some(before) = self.followed else {
            // Others may have published us before we read anything. We own nothing yet, so nothing is in flight; but
            // others wait for our acknowledgement.
            let version = newest(next.floor());
            self.newest_loss = version.map(|version| Epoch { version, ..next.epoch });
            return Ranges::default();
        };
        let is_absent = !next.has(&me);
        let reaches = before.head == next.epoch.head && before.version >= next.head.base;
        if !reaches {
            self.newest_loss = Some(next.epoch);
            return if is_absent && !self.settings.rules.hold(Rule::AbsentFollows) {
                Ranges::default()
            } else {
                Ranges::all()
            };
        }
        if let Some(version) = newest(before.version) {
            self.newest_loss = Some(Epoch { version, ..next.epoch });
        }
        let mut lost = Ranges::default();
        for (_, losses) in next.losses_after(before.version) {
            if let Some(ranges) = losses.get(&me) {
                lost = lost.union(ranges);
            }
        }
        if !self.settings.rules.hold(Rule::LostIsUnion) {
            let left = if is_absent { Ranges::default() } else { next.ring.ranges(me.id.as_str()) };
            lost = self.owned().difference(&left).rounded_out();
        }
        if is_absent && !self.settings.rules.hold(Rule::AbsentFollows) { Ranges::default() } else { lost }
    }

    /// Freezes the guards on what was lost; after a new head, all guards, and for good.
    fn mark(&mut self, lost: &Ranges, is_new_head: bool) {
        let for_good = is_new_head && self.settings.rules.hold(Rule::NewHeadFreezesForGood);
        let deadline = self.lease.deadline;
        if for_good {
            for (mark, batch) in &mut self.marks.batches {
                if batch.state == BatchState::Kept {
                    batch.deadline = deadline;
                    self.actions.push(Action::FreezeAgain { mark: *mark, deadline });
                }
                batch.state = BatchState::Ending;
            }
        }
        if !self.settings.rules.hold(Rule::MarkStays) {
            let regained = self.owned();
            self.marks.forget(&regained);
        }
        let Some(at) = self.followed.filter(|_| !lost.is_empty()) else { return };
        self.marks.newest += 1;
        let mark = self.marks.newest;
        let state = if for_good { BatchState::Ending } else { BatchState::Frozen };
        let positions = BTreeMap::new();
        let batch = Batch { at, since: self.now, state, deadline, is_awaited: true, positions };
        self.marks.batches.insert(mark, batch);
        self.actions.push(Action::Freeze { mark, lost: lost.clone(), deadline });
    }

    pub(super) fn marks_due(&self) -> Option<Moment> {
        let due = self.marks.batches.values().map(|batch| match batch.state {
            BatchState::Frozen | BatchState::Ending => batch.deadline,
            BatchState::Kept => batch.since + self.settings.max_drain,
        });
        due.filter(|due| *due > self.now).min()
    }

    /// Ends what the time has ended.
    pub(super) fn expire(&mut self) {
        self.expire_lease();
        let stays_ended = self.settings.rules.hold(Rule::EndedStaysEnded);
        for (mark, batch) in &mut self.marks.batches {
            match batch.state {
                BatchState::Frozen if self.now >= batch.deadline && stays_ended => {
                    batch.state = BatchState::Ending;
                }
                BatchState::Kept if self.now >= batch.since + self.settings.max_drain => {
                    (batch.state, batch.deadline) = (BatchState::Ending, self.lease.deadline);
                    let deadline = batch.deadline;
                    self.actions.push(Action::FreezeAgain { mark: *mark, deadline });
                }
                BatchState::Frozen | BatchState::Kept | BatchState::Ending => {}
            }
        }
    }
}
