// Pure: no runtime, no clock, no socket, no random numbers.

//! Publishing: the next epoch, from a list of the members that was read after the newest one. When that is tried is
//! decided in `attempts.rs`.
//!
//! Any member may publish; the write names the version before it, so one succeeds.

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
use crate::{group::placement, member::MemberId, ring::Label};

/// The place of what is done to the snapshot in the transaction of an epoch.
const SNAPSHOT: usize = 1;
/// A log that adds and deletes more members than this is shortened: all members read it at each epoch.
const MOST_ENTRIES: usize = 64;

impl Handover {
    // --- What -------------------------------------------------------------------------------------------------

    pub(super) fn on_listed(&mut self, read: Result<Listing, ReadError>) {
        let Stage::Listing(base) = std::mem::take(&mut self.publisher.stage) else { return };
        self.publisher.first_change = None;
        self.publisher.listed = read.as_ref().ok().map(|listing| listing.pzxid);
        let Ok(listing) = read else {
            self.publisher.is_watching = false;
            self.publisher.not_before = self.now + self.settings.retry;
            self.publish_at(self.publisher.not_before);
            self.publisher.helps = !self.has_own_change();
            return;
        };
        let tooz = listing.members.iter().find(|(_, read)| read.hints_at_tooz);
        self.tooz_hint = self.tooz_hint.take().or(tooz.map(|(id, _)| id.clone()));
        self.sees_group(listing.pzxid, listing.members.len());
        let Some(history) = self.history.clone() else { return };
        if self.followed != Some(base) {
            // There is a newer epoch, and the list may be older than it.
            self.is_overtaken();
            return;
        }
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
        let mut change = difference(history.members(), &wanted, |old, new| {
            old.czxid == new.czxid || !self.settings.rules.hold(Rule::IdentityHasCreation)
        });
        change.released = if is_paused { Vec::new() } else { self.released(history, listing) };
        let is_same = change.add.is_empty() && change.del.is_empty() && change.released.is_empty();
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
        let del = head.log.iter().flat_map(|change| change.del.iter().chain(&change.released));
        let del = del.chain(&head.carried);
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
            let known = history.members().get(id).filter(|entry| entry.czxid == read.czxid);
            if let Some(known) = known.filter(|known| read.part.is_none() && !known.is_plain) {
                // Another process has overwritten its data. It still acts, and writes them again.
                members.insert(id.clone(), known.clone());
                continue;
            }
            let is_known = known.is_some();
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

    /// The members that have ended their work for good, if others wait for them. Members say so in strict mode only: without
    /// it, the end of their znodes is enough. Any member publishes it, whatever its own mode is.
    fn released(&self, history: &History, listing: &Listing) -> Vec<Incarnation> {
        let drained = listing.members.iter().filter(|(_, read)| {
            read.part.as_ref().is_some_and(|part| match part.presence {
                Presence::Drained => part.keep.is_empty(),
                Presence::Draining => !self.settings.rules.hold(Rule::ReleasedIsDrained),
                Presence::Ready | Presence::Warming => false,
            })
        });
        let drained = drained.map(|(id, read)| Incarnation { id: id.clone(), czxid: read.czxid });
        drained.filter(|who| history.waits_for(who)).collect()
    }

    /// The first epoch after a new head: the leases under the head before have to end, if there may have been one. They
    /// may be longer than those under the new one, which has the lease of the process that made it.
    fn must_wait_for_old_leases(&mut self, history: &History, listing: &Listing) -> bool {
        if history.epoch.version > 0 || !self.settings.rules.hold(Rule::NewHeadWaits) {
            return false;
        }
        let me = &self.settings.me;
        let is_first = listing.members.iter().all(|(id, read)| id == me || read.czxid > history.epoch.head);
        let others_may_act = self.settings.is_strict || self.is_restored || !is_first;
        if !others_may_act && !self.marks.is_any_valid(self.now) {
            return false;
        }
        let older = listing.members.values().filter(|read| read.czxid < history.epoch.head);
        let theirs = older.filter_map(|read| read.part.as_ref()?.lease).max().unwrap_or_default();
        let over = self.seen.since + self.wait_for(theirs.max(self.longest_lease));
        if self.now > over {
            return false;
        }
        self.publish_with_others_at(over + Duration::from_millis(1));
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
        self.publish_with_others_at(since + wait);
        true
    }

    pub(super) fn on_published(&mut self, outcome: &Outcome) {
        self.publisher.stage = Stage::Idle;
        match outcome {
            Outcome::Applied => {
                self.publisher.mass_loss = None;
                self.publisher.pause = None;
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
                if *outcome == (Outcome::Refused { index: SNAPSHOT, why: Refusal::NoNode }) {
                    self.snapshot_was_refused();
                }
                self.head_reading.wanted = true;
                let settle = self.settings.settle.min(Duration::from_secs(1));
                let pause = settle / 2 + self.jitter(settle);
                self.publish_at((self.now + pause).max(self.head_reading.not_before));
                self.publisher.helps = !self.has_own_change();
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
    let add = add.map(|(id, entry)| (id.clone(), entry.clone())).collect();
    Change { add, del, released: Vec::new() }
}
