// Pure: no runtime, no clock, no socket, no random numbers.

//! Publishing: the next epoch, from a list of the members that was read after the newest one.
//!
//! Any member may publish; the write names the version before it, so one succeeds. The three members of the lowest ranks
//! watch the group, a joiner waits for them, and all others compare once in a while.

use std::{sync::Arc, time::Duration};

use super::{
    codec,
    history::{self, History},
    parts::Stage,
    rules::Rule,
    settings::Problem,
    state::Handover,
    types::{
        Action, Change, Common, Entry, Head, Incarnation, Listing, MAX_BYTES, Members, Outcome, Presence,
        Purpose, ReadError, Refusal, Snapshot, Write,
    },
};
use crate::{clock::Moment, group::placement, member::MemberId, ring::Label};

/// How many members watch the group.
const WATCHERS: usize = 3;
/// A log that adds and deletes more members than this is shortened: all members read it at each epoch.
const MOST_ENTRIES: usize = 64;

impl Handover {
    // --- When -------------------------------------------------------------------------------------------------

    pub(super) fn publish_due(&self) -> Option<Moment> {
        self.followed?;
        let due = self.publisher.due.filter(|_| self.publisher.stage == Stage::Idle);
        let compare = (!self.publisher.is_comparing).then_some(self.publisher.compare);
        let compare = compare.into_iter().chain([self.publisher.not_before]);
        due.into_iter().chain(compare).filter(|due| *due > self.now).min()
    }

    /// Publishes at `due`, if not before.
    pub(super) fn publish_at(&mut self, due: Moment) {
        let due = self.publisher.due.map_or(due, |known| known.min(due));
        self.publisher.due = Some(due);
        self.publisher.helps = false;
    }

    pub(super) fn on_children_changed(&mut self) {
        self.publisher.is_watching = false;
        self.bundle();
    }

    pub(super) fn on_pause(&mut self, pause: bool) {
        self.publisher.pause = Some(pause);
        self.publish_at(self.now);
    }

    /// A change was seen: publish when no more have come for a while.
    fn bundle(&mut self) {
        let quiet = self.now.saturating_since(self.publisher.last) >= self.publisher.settle.saturating_mul(4);
        if quiet || self.publisher.settle < self.settings.settle {
            self.publisher.settle = self.settings.settle;
        }
        let due = self.now + self.publisher.settle;
        if self.settings.settles <= 1 {
            return self.publish_at(due);
        }
        let first = *self.publisher.first_change.get_or_insert(self.now);
        let last = first + self.publisher.settle.saturating_mul(self.settings.settles);
        self.publisher.due = Some(due.min(last));
    }

    /// Whether our znode waits for the settling time of the caller before it is published.
    pub(crate) fn is_settling(&self) -> bool {
        self.settings.settles > 1 && self.own.is_some() && self.rank().is_none()
    }

    /// Our place among the members that can publish; `None` if we are not in the epoch.
    fn rank(&self) -> Option<usize> {
        let (history, me) = (self.history.as_ref()?, self.me()?);
        history.publishers().position(|id| *id == me.id).filter(|_| history.has(me))
    }

    pub(super) fn publisher_adopts(&mut self) {
        if std::mem::take(&mut self.publisher.helps) {
            // Another member has published. If that was not all, the next comparison shows it.
            self.publisher.due = None;
        }
        if self.rank().is_some() || self.settings.presence != Presence::Ready {
            return;
        }
        let publishers: Vec<_> = self.history.iter().flat_map(History::publishers).collect();
        let pause = match publishers.iter().position(|id| **id == self.settings.me) {
            // It is the member of this id that was restarted.
            Some(rank) => {
                let rank = u32::try_from(rank).unwrap_or(100).min(100);
                self.settings.settle.saturating_add(self.settings.rank_delay.saturating_mul(rank))
            }
            // A joiner leaves it to the members, if there are any.
            None if !publishers.is_empty() => {
                self.settings.joiner_delay.saturating_add(self.jitter(self.settings.joiner_delay))
            }
            None if self.settings.settles > 1 => self.settings.settle,
            None => self.jitter(self.settings.settle),
        };
        self.publish_at(self.now + pause);
    }

    pub(super) fn pursue_publish(&mut self) {
        let (Some(followed), Some(_)) = (self.followed, &self.own) else { return };
        let watches = self.rank().is_some_and(|rank| rank < WATCHERS);
        let compares = self.now >= self.publisher.compare;
        let may_read = self.now >= self.publisher.not_before;
        if may_read && !self.publisher.is_comparing && (compares || watches && !self.publisher.is_watching) {
            let watch = watches && !self.publisher.is_watching;
            self.publisher.is_watching |= watch;
            self.publisher.is_comparing = true;
            self.publisher.compare =
                self.now + self.settings.recheck.mul_f64(0.5) + self.jitter(self.settings.recheck);
            self.actions.push(Action::StatGroup { watch });
            if watches && compares && self.has_python_weights() {
                // No stat of the group shows that a member has changed its weight.
                self.publish_at(self.now);
            }
        }
        let is_due = self.publisher.due.is_some_and(|due| self.now >= due);
        if is_due && self.publisher.stage == Stage::Idle {
            self.publisher.due = None;
            self.publisher.stage = Stage::Listing(followed);
            let watch = watches && !self.publisher.is_watching;
            self.publisher.is_watching |= watch;
            self.actions.push(Action::ListMembers { watch });
        }
    }

    /// Whether plain members are there whose weights count.
    fn has_python_weights(&self) -> bool {
        self.settings.label == Label::Tooz
            && self.history.as_ref().is_some_and(|history| history.members().values().any(|it| it.is_plain))
    }

    pub(super) fn on_group_stat(&mut self, read: &Result<i64, ReadError>) {
        self.publisher.is_comparing = false;
        match read {
            Ok(pzxid) if self.has_changed(*pzxid) => {
                let rank = self.rank().unwrap_or(WATCHERS);
                if rank < WATCHERS {
                    self.publish_at(self.now + self.settings.settle);
                } else if self.publisher.due.is_none() {
                    // Those who watch should do it. If they are gone, one of the others does, and not all.
                    let delay = self.settings.rank_delay.saturating_mul(3);
                    let pause = delay.saturating_add(self.jitter(delay));
                    self.publish_at(self.now + pause);
                    self.publisher.helps = true;
                }
            }
            Ok(_) => {}
            Err(_) => {
                self.publisher.is_watching = false;
                self.publisher.not_before = self.now + self.settings.retry;
                self.publisher.compare = self.publisher.compare.min(self.publisher.not_before);
            }
        }
    }

    /// Whether the group has changed since it was listed for the head, or in vain during a pause.
    fn has_changed(&self, pzxid: i64) -> bool {
        let Some(history) = &self.history else { return false };
        history.head.pzxid != pzxid && !(history.head.is_paused && self.publisher.listed == Some(pzxid))
    }

    // --- What -------------------------------------------------------------------------------------------------

    pub(super) fn on_listed(&mut self, read: Result<Listing, ReadError>) {
        let Stage::Listing(base) = std::mem::take(&mut self.publisher.stage) else { return };
        self.publisher.first_change = None;
        self.publisher.listed = read.as_ref().ok().map(|listing| listing.pzxid);
        if let Ok(listing) = &read {
            let tooz = listing.members.iter().find(|(_, read)| read.hints_at_tooz);
            self.tooz_hint = self.tooz_hint.take().or(tooz.map(|(id, _)| id.clone()));
        }
        let Ok(listing) = read else {
            self.publisher.is_watching = false;
            self.publisher.not_before = self.now + self.settings.retry;
            self.publish_at(self.publisher.not_before);
            return;
        };
        if self.followed != Some(base) {
            // There is a newer epoch, and the list may be older than it.
            self.publish_at(self.now);
            return;
        }
        let Some(history) = self.history.clone() else { return };
        if let Some(writes) = self.plan(&history, &listing) {
            self.publisher.stage = Stage::Committing;
            self.actions.push(Action::Commit { purpose: Purpose::Publish, writes });
        } else if self.publisher.pause.is_some() && self.publisher.due.is_none() {
            self.publish_at(self.now + self.settings.recheck);
        }
    }

    /// The transaction for the next epoch; `None` if there is nothing to publish now.
    fn plan(&mut self, history: &History, listing: &Listing) -> Option<Vec<Write>> {
        let pause = self.publisher.pause.filter(|pause| *pause != history.head.is_paused);
        if pause.is_none() {
            self.publisher.pause = None;
        }
        let is_paused = pause.unwrap_or(history.head.is_paused);
        let mut wanted = self.eligible(history, listing);
        if is_paused {
            // A plain member knows no pause: it works on its keys, so those who had them have to stop.
            wanted.retain(|_, entry| entry.is_plain);
            let unchanged = history.members().iter().map(|(id, entry)| (id.clone(), entry.clone()));
            wanted = unchanged.chain(wanted).collect();
        }
        let change = difference(history.members(), &wanted, |old, new| {
            old.czxid == new.czxid || !self.settings.rules.hold(Rule::IdentityHasCreation)
        });
        let is_same = change.add.is_empty() && change.del.is_empty();
        if is_same && pause.is_none() && (is_paused || listing.pzxid == history.head.pzxid) {
            self.publisher.mass_loss = None;
            return None;
        }
        // Also if no member takes part yet: an epoch without members would be the first.
        if self.must_wait_for_old_leases(history, listing) || !is_same && self.is_mass_loss(history, &wanted)
        {
            return None;
        }
        let plan = self.plan_floor(history, listing);
        let Ok(ring) = history::ring(&history.head.common, &wanted, Some(&history.ring)) else {
            self.problem = Some(Problem::TooManyPoints);
            return None;
        };
        let mut head = Head {
            is_paused,
            floor: plan.floor,
            carried: plan.carried,
            digest: ring.digest(),
            pzxid: if is_paused { history.head.pzxid } else { listing.pzxid },
            ..(*history.head).clone()
        };
        head.log.push(change);
        let snapshot = self.new_snapshot(history, &mut head, &wanted);
        let old = history.head.snapshot;
        let mut writes = vec![];
        let version = history.epoch.version;
        let name = head.snapshot;
        if !self.fits(&head, snapshot.as_ref()) {
            self.problem = Some(Problem::TooLarge);
            return None;
        }
        writes.push(Write::SetHead { head: Arc::new(head), version });
        match snapshot {
            Some(snapshot) => {
                writes.push(Write::DeleteSnapshot { name: old });
                writes.push(Write::CreateSnapshot { name, snapshot: Arc::new(snapshot) });
            }
            None if self.settings.rules.hold(Rule::PublishChecksSnapshot) => {
                writes.push(Write::CheckSnapshot { name: old });
            }
            None => {}
        }
        writes.extend(plan.checks);
        Some(writes)
    }

    /// Truncates the log at the floor, if it is long enough, and gives the snapshot for that.
    fn new_snapshot(&self, history: &History, head: &mut Head, wanted: &Members) -> Option<Snapshot> {
        let up_to_floor = self.settings.rules.hold(Rule::SnapshotUpToFloor);
        let epoch = if up_to_floor { head.floor } else { history.epoch.version + 1 };
        let entries = head.log.iter().map(|change| change.add.len() + change.del.len()).sum::<usize>();
        let is_long = head.log.len() >= self.settings.log_limit.max(1) || entries > MOST_ENTRIES;
        if !is_long || epoch <= head.base {
            return None;
        }
        let members = if epoch > history.epoch.version { wanted } else { &**history.members_at(epoch)? };
        let known = usize::try_from(epoch - head.base).unwrap_or(0);
        head.log.drain(..known);
        (head.base, head.snapshot) = (epoch, self.random);
        Some(Snapshot { epoch, members: members.clone() })
    }

    /// Whether head and snapshot fit into one request, as an estimate that is never too low.
    fn fits(&self, head: &Head, snapshot: Option<&Snapshot>) -> bool {
        let add = head.log.iter().flat_map(|change| &change.add);
        let del = head.log.iter().flat_map(|change| &change.del).chain(&head.carried);
        let head = 128
            + head.log.len() * 16
            + add.map(|(id, entry)| codec::entry_bytes(id, entry)).sum::<usize>()
            + del.map(|gone| 16 + gone.id.as_str().len()).sum::<usize>();
        let members = snapshot.iter().flat_map(|snapshot| &snapshot.members);
        let snapshot = 64 + members.map(|(id, entry)| codec::entry_bytes(id, entry)).sum::<usize>();
        head <= MAX_BYTES && snapshot <= MAX_BYTES
    }

    /// The members that take part in the ring, as listed.
    fn eligible(&mut self, history: &History, listing: &Listing) -> Members {
        let mut members = Members::new();
        for (id, read) in &listing.members {
            let is_ready = read.part.as_ref().is_none_or(|part| part.presence == Presence::Ready);
            if !is_ready || !read.fits {
                continue;
            }
            let is_known = history.members().get(id).is_some_and(|entry| entry.czxid == read.czxid);
            let mut until = self.publisher.held_until(id);
            if self.me().is_some_and(|me| me.id == *id && me.czxid == read.czxid) {
                until = until.max(self.publisher.is_held_until(&history.head, read.czxid));
            }
            if let Some(until) = until
                && self.settings.hold_down
                && !is_known
                && self.now < until
            {
                self.publish_at(until);
                continue;
            }
            let entry = Entry {
                czxid: read.czxid,
                weight: read.weight,
                is_plain: read.part.is_none(),
                zone: read.part.as_ref().and_then(|part| part.zone.clone()),
                unclear: read.unclear.clone(),
            };
            members.insert(id.clone(), entry);
        }
        let has_plain = members.values().any(|entry| entry.is_plain);
        let common = &history.head.common;
        if has_plain && common.label == Label::Tooz {
            // Python leaves no member out: if there are too many points, the ring is unclear.
            return members;
        }
        let weight = |entry: &Entry| placement::counted_weight(common.label, has_plain, entry.weight);
        let wanted = members.iter().map(|(id, entry)| (entry.czxid, id, weight(entry)));
        for (id, _) in placement::left_out(common.replicas, wanted) {
            members.remove(&id);
        }
        members
    }

    /// The first epoch after a new head: the leases under the head before have to end, if there may have been one.
    fn must_wait_for_old_leases(&mut self, history: &History, listing: &Listing) -> bool {
        if history.epoch.version > 0 || !self.settings.rules.hold(Rule::NewHeadWaits) {
            return false;
        }
        let me = &self.settings.me;
        let is_first = listing.members.iter().all(|(id, read)| id == me || read.czxid > history.epoch.head);
        if !self.settings.is_strict && is_first && !self.marks.is_any_valid(self.now) {
            return false;
        }
        let over = self.seen.since + self.wait();
        if self.now > over {
            return false;
        }
        self.publish_at(over + Duration::from_millis(1));
        true
    }

    /// Whether most members are missing, and not for long enough.
    fn is_mass_loss(&mut self, history: &History, wanted: &Members) -> bool {
        let Some(wait) = self.settings.mass_loss else { return false };
        let before = history.members();
        let left =
            before.iter().filter(|(id, entry)| wanted.get(*id).is_some_and(|it| it.czxid == entry.czxid));
        if before.len() < 4 || 2 * left.count() >= before.len() {
            self.publisher.mass_loss = None;
            return false;
        }
        let since = *self.publisher.mass_loss.get_or_insert(self.now);
        if self.now >= since + wait {
            return false;
        }
        self.publish_at(since + wait);
        true
    }

    pub(super) fn on_published(&mut self, outcome: &Outcome) {
        self.publisher.stage = Stage::Idle;
        match outcome {
            Outcome::Applied => {
                self.publisher.mass_loss = None;
                self.publisher.pause = None;
                self.publisher.last = self.now;
                self.publisher.settle = self.publisher.settle.saturating_mul(2).min(self.settings.max_settle);
                self.head_reading.wanted = true;
            }
            Outcome::Refused { why: Refusal::TooLarge, .. } => {
                self.problem = Some(Problem::TooLarge);
                self.publish_at(self.now + self.settings.recheck);
            }
            Outcome::Refused { why: Refusal::NotPermitted, .. } => {
                self.problem = Some(Problem::NotPermitted);
                self.publish_at(self.now + self.settings.recheck);
            }
            Outcome::Refused { .. } | Outcome::Unknown | Outcome::Failed => {
                // Another one was faster, or a member has changed: read the head, and list again.
                self.head_reading.wanted = true;
                let settle = self.settings.settle.min(Duration::from_secs(1));
                let pause = settle / 2 + self.jitter(settle);
                self.publish_at(self.now + pause);
            }
        }
    }

    // --- The first head ---------------------------------------------------------------------------------------

    pub(super) fn create_head(&mut self) {
        let Some(timing) = self.session.filter(|_| !self.head_reading.is_creating) else { return };
        if self.now < self.head_reading.not_before {
            return;
        }
        let common = Common {
            label: self.settings.label,
            replicas: self.settings.replicas,
            lease: timing.heartbeat_validity,
        };
        let Ok(ring) = history::ring(&common, &Members::new(), None) else {
            self.problem = Some(Problem::TooManyPoints);
            return;
        };
        let head = Head {
            common,
            is_paused: false,
            floor: 0,
            carried: Vec::new(),
            snapshot: self.random,
            base: 0,
            log: Vec::new(),
            digest: ring.digest(),
            pzxid: 0,
        };
        let snapshot = Snapshot { epoch: 0, members: Members::new() };
        self.head_reading.is_missing = false;
        self.head_reading.is_creating = true;
        let writes = vec![
            Write::CreateHead { head: Arc::new(head) },
            Write::CreateSnapshot { name: self.random, snapshot: Arc::new(snapshot) },
        ];
        self.actions.push(Action::Commit { purpose: Purpose::CreateHead, writes });
    }
}

/// What turns `before` into `after`. A member that changes is deleted and added.
fn difference(before: &Members, after: &Members, is_same: impl Fn(&Entry, &Entry) -> bool) -> Change {
    let equal = |old: &Entry, new: &Entry| {
        is_same(old, new)
            && (old.weight, old.is_plain, &old.zone, &old.unclear)
                == (new.weight, new.is_plain, &new.zone, &new.unclear)
    };
    let stays = |id: &MemberId, entry: &Entry, other: &Members, flip: bool| {
        other.get(id).is_some_and(|it| if flip { equal(it, entry) } else { equal(entry, it) })
    };
    let del = before.iter().filter(|(id, entry)| !stays(id, entry, after, false));
    let del = del.map(|(id, entry)| Incarnation { id: id.clone(), czxid: entry.czxid }).collect();
    let add = after.iter().filter(|(id, entry)| !stays(id, entry, before, true));
    Change { add: add.map(|(id, entry)| (id.clone(), entry.clone())).collect(), del }
}
