// Pure: no runtime, no clock, no socket, no random numbers.

//! Release: which of our keys another member may still act on, and until when they have to wait.
//!
//! A member that lost a key at epoch `w` has released it if its znode shows an acknowledgement of `w` or a newer epoch
//! and does not list the key as kept; or if it is gone; or if it has not acknowledged `w` for longer than its lease can
//! last, which a check of its znode proves.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use super::{
    history::History,
    parts::{Blocking, Check, Denied, DonorRead},
    rules::Rule,
    state::Handover,
    types::{Action, Epoch, Incarnation, MemberRead, Outcome, Purpose, ReadError, Write},
};
use crate::{clock::Moment, member::MemberId, ring::Ranges};

impl Handover {
    pub(super) fn donors_adopt(&mut self, next: &History) {
        let known = self.history.as_ref().filter(|known| known.epoch.head == next.epoch.head);
        let reset = known.is_none();
        let known = known.map(|history| history.epoch.version);
        let afresh = self.settings.rules.hold(Rule::CarriedReadAfresh);
        let me = self.me().cloned();
        let others = next.head.carried.iter().filter(|who| Some(*who) != me.as_ref());
        let carried =
            others.map(|who| (who.clone(), self.donors.carried.remove(who).flatten().filter(|_| !afresh)));
        self.donors.carried = carried.collect();
        self.donors.adopt(next, known, reset);
        if !self.gone.is_empty() {
            let losers = self.donors.unreleased.keys().map(|(_, who)| who);
            let losers: BTreeSet<&Incarnation> = losers.chain(&next.head.carried).collect();
            self.gone.retain(|who, _| losers.contains(who));
        }
    }

    /// Whether the znode that was read is that of `who`.
    pub(super) fn is_same(&self, who: &Incarnation, read: &MemberRead) -> bool {
        read.czxid == who.czxid || !self.settings.rules.hold(Rule::IdentityHasCreation)
    }

    fn is_me(&self, who: &Incarnation) -> bool {
        let Some(me) = self.me() else { return false };
        me.id == who.id && (me.czxid == who.czxid || !self.settings.rules.hold(Rule::IdentityHasCreation))
    }

    /// What the losses since the floor, and carried members, keep from us.
    fn blocking(&self) -> Vec<Blocking> {
        let mut blocking = Vec::new();
        let owned = self.owned().rounded_out();
        if owned.is_empty() || !self.settings.rules.hold(Rule::GainerWaits) {
            return blocking;
        }
        let all = self.settings.rules.hold(Rule::AllLosersAsked);
        let mut newer = Ranges::default();
        for ((version, who), ranges) in self.donors.unreleased.iter().rev() {
            if !self.is_me(who) && ranges.intersects(&owned) {
                let mut ranges = ranges.intersection(&owned);
                if !all {
                    ranges = ranges.difference(&newer);
                }
                if !ranges.is_empty() {
                    blocking.push(Blocking { who: who.clone(), version: Some(*version), ranges });
                }
            }
            if !all {
                let lost = self.history.iter().flat_map(|history| history.losses_after(*version - 1).next());
                for (_, losses) in lost {
                    newer = losses.values().fold(newer, |newer, ranges| newer.union(ranges));
                }
            }
        }
        for (who, kept) in &self.donors.carried {
            let ranges = kept.as_ref().map_or_else(|| owned.clone(), |kept| kept.intersection(&owned));
            if !ranges.is_empty() {
                blocking.push(Blocking { who: who.clone(), version: None, ranges });
            }
        }
        blocking
    }

    pub(super) fn compute_startable(&mut self) {
        if self.leaving.is_some() {
            self.donors.blocking.clear();
            self.donors.startable = Ranges::default();
            return;
        }
        self.donors.blocking = self.blocking();
        self.startable_is_the_rest();
    }

    /// The same after these were released, or have released a part: nothing else has changed. In a large group there are
    /// many, and each of them may be released by itself.
    fn compute_startable_after(&mut self, released: &BTreeSet<(Option<i32>, Incarnation)>) {
        if self.leaving.is_some() || !self.settings.rules.hold(Rule::AllLosersAsked) {
            return self.compute_startable();
        }
        if released.iter().any(|(version, _)| version.is_none()) {
            // What carried members keep was read.
            return self.compute_startable();
        }
        let unreleased = &self.donors.unreleased;
        self.donors.blocking.retain_mut(|it| {
            let Some(version) = it.version else { return true };
            if !released.contains(&(it.version, it.who.clone())) {
                return true;
            }
            let left = unreleased.get(&(version, it.who.clone()));
            it.ranges = left.map_or_else(Ranges::default, |left| it.ranges.intersection(left));
            !it.ranges.is_empty()
        });
        self.startable_is_the_rest();
    }

    fn startable_is_the_rest(&mut self) {
        if self.settings.rules.hold(Rule::CarriedReadAfresh) {
            let blocking: BTreeSet<&MemberId> = self.donors.blocking.iter().map(|it| &it.who.id).collect();
            self.donors.read.retain(|id, _| blocking.contains(id));
        }
        let parts = self.donors.blocking.iter().flat_map(|it| it.ranges.iter());
        let blocked = Ranges::from_parts(parts.map(|range| (*range.start(), *range.end())));
        self.donors.startable = self.owned().difference(&blocked);
    }

    // --- What has been read -----------------------------------------------------------------------------------

    pub(super) fn on_members(&mut self, read: Result<BTreeMap<MemberId, Option<MemberRead>>, ReadError>) {
        let Some((at, ids)) = self.donors.under_way.take() else { return };
        match read {
            Ok(read) => {
                let longest = self.settings.recheck.max(self.settings.retry);
                self.donors.denied.retain(|id, _| !read.contains_key(id));
                for id in ids.iter().filter(|id| !read.contains_key(id)) {
                    // An operator may change that.
                    let pause = self.donors.denied.get(id).map_or(self.settings.retry, |it| 2 * it.pause);
                    let pause = pause.min(longest);
                    self.donors.denied.insert(id.clone(), Denied { pause, until: self.now + pause });
                }
                let read = read.into_iter().filter(|(id, _)| ids.contains(id));
                self.donors.read.extend(read.map(|(id, read)| (id, DonorRead { at, read })));
            }
            Err(_) => self.donors.not_before = self.now + self.settings.retry,
        }
    }

    /// Notes what is released by what is known now. Returns who has released something of which loss; `None` for a carried
    /// member.
    fn settle(&mut self) -> BTreeSet<(Option<i32>, Incarnation)> {
        let mut released = BTreeSet::new();
        let Some(followed) = self.followed else { return released };
        let blocking = self.donors.blocking.iter().filter_map(|it| Some((it.version?, it.who.clone())));
        for (version, who) in blocking.collect::<Vec<_>>() {
            let Some(left) = self.still_unreleased(followed, version, &who) else { continue };
            released.insert((Some(version), who.clone()));
            if left.is_empty() {
                self.donors.unreleased.remove(&(version, who));
            } else {
                self.donors.unreleased.insert((version, who), Arc::new(left));
            }
        }
        let afresh = self.settings.rules.hold(Rule::CarriedReadAfresh);
        for who in self.donors.carried.keys().cloned().collect::<Vec<_>>() {
            let Some(donor) = self.donors.read.get(&who.id).filter(|it| it.at == followed || !afresh) else {
                continue;
            };
            let kept = match &donor.read {
                Some(read) if self.is_same(&who, read) => {
                    // No plain member is carried: another process has written what cannot be read.
                    read.part.as_ref().map_or_else(Ranges::all, |part| part.keep.clone())
                }
                _ => {
                    if !self.has_stopped_now(&who) {
                        continue;
                    }
                    Ranges::default()
                }
            };
            let known = self.donors.carried.insert(who.clone(), Some(kept.clone()));
            if known != Some(Some(kept)) {
                released.insert((None, who));
            }
        }
        released
    }

    /// What `who` has not released yet of what it lost at `version`; `None` if that is as before.
    fn still_unreleased(&mut self, followed: Epoch, version: i32, who: &Incarnation) -> Option<Ranges> {
        if self.is_me(who) {
            return None;
        }
        if self.donors.plain.contains(who) {
            let seen = self.seen.epochs.get(&version)?;
            return (self.now >= *seen + self.settings.plain_grace).then(Ranges::default);
        }
        if self.gone.contains_key(who) {
            return self.has_stopped(who).then(Ranges::default);
        }
        let donor = self.donors.read.get(&who.id)?;
        match &donor.read {
            Some(read) if self.is_same(who, read) => {
                let part = read.part.as_ref()?;
                let names_head = self.settings.rules.hold(Rule::AckNamesHead);
                let ack = part.ack.filter(|ack| ack.head == followed.head || !names_head)?;
                if ack.version < version {
                    return None;
                }
                let ranges = &self.donors.unreleased[&(version, who.clone())];
                let left = ranges.intersection(&part.keep);
                (left != **ranges).then_some(left)
            }
            // Only a read that was asked for after the head had named the member shows that it is gone.
            _ if donor.at == followed => self.has_stopped_now(who).then(Ranges::default),
            _ => None,
        }
    }

    /// Notes that `who` is gone, and returns whether it has certainly stopped.
    pub(super) fn has_stopped_now(&mut self, who: &Incarnation) -> bool {
        self.gone.entry(who.clone()).or_insert(self.now);
        self.has_stopped(who)
    }

    /// Whether `who` is known to be gone, in strict mode for long enough.
    pub(super) fn has_stopped(&self, who: &Incarnation) -> bool {
        let waits = self.settings.is_strict && self.settings.rules.hold(Rule::StrictGoneWaits);
        self.gone.get(who).is_some_and(|since| !waits || self.now > *since + self.wait())
    }

    // --- Asking -----------------------------------------------------------------------------------------------

    pub(super) fn release_due(&self) -> Option<Moment> {
        self.followed?;
        let just_after = |moment: Moment| moment + Duration::from_nanos(1);
        let mut due = vec![self.donors.not_before];
        due.extend(self.donors.denied.values().map(|denied| denied.until));
        for Blocking { who, version, .. } in &self.donors.blocking {
            let seen = version.and_then(|version| self.seen.epochs.get(&version));
            if self.donors.plain.contains(who) {
                due.extend(seen.map(|seen| *seen + self.settings.plain_grace));
            } else if let Some(gone) = self.gone.get(who) {
                due.push(just_after(*gone + self.wait()));
            } else {
                due.extend(seen.map(|seen| just_after(*seen + self.wait())));
            }
        }
        due.into_iter().filter(|due| *due > self.now).min()
    }

    pub(super) fn pursue_release(&mut self) {
        let Some(followed) = self.followed else { return };
        if self.leaving.is_some() {
            return;
        }
        let released = self.settle();
        if !released.is_empty() {
            let before = self.donors.startable.clone();
            self.compute_startable_after(&released);
            if self.donors.startable != before {
                self.actions.push(Action::Update);
            }
        }
        if self.now < self.donors.not_before {
            return;
        }
        if self.donors.under_way.is_none() {
            let unread =
                self.donors.blocking.iter().filter(|it| self.has_to_be_read(followed, &it.who, it.version));
            let ids: BTreeSet<MemberId> = unread.map(|it| it.who.id.clone()).collect();
            if !ids.is_empty() {
                self.donors.under_way = Some((followed, ids.clone()));
                self.actions.push(Action::ReadMembers { ids: ids.into_iter().collect() });
            }
        }
        self.check_a_lapsed_donor(followed);
    }

    fn has_to_be_read(&self, followed: Epoch, who: &Incarnation, version: Option<i32>) -> bool {
        if self.donors.plain.contains(who) || self.gone.contains_key(who) && version.is_some() {
            return false;
        }
        if self.donors.denied.get(&who.id).is_some_and(|denied| self.now < denied.until) {
            return false;
        }
        match self.donors.read.get(&who.id) {
            None => true,
            Some(donor) if donor.at == followed => false,
            Some(donor) => match version {
                None => self.settings.rules.hold(Rule::CarriedReadAfresh),
                Some(_) => !donor.read.as_ref().is_some_and(|read| self.is_same(who, read)),
            },
        }
    }

    /// A donor that has not acknowledged for longer than its lease can last is released, if it has certainly not
    /// written since it was read.
    fn check_a_lapsed_donor(&mut self, followed: Epoch) {
        if self.donors.check.is_some() {
            return;
        }
        let wait = self.wait();
        let waits = self.settings.rules.hold(Rule::LapseWaits);
        let mut lapsed: BTreeMap<Incarnation, Vec<i32>> = BTreeMap::new();
        for Blocking { who, version, .. } in &self.donors.blocking {
            let Some(version) = version else { continue };
            let seen = self.seen.epochs.get(version);
            if seen.is_some_and(|seen| !waits || self.now > *seen + wait)
                && !self.donors.plain.contains(who)
                && !self.gone.contains_key(who)
            {
                lapsed.entry(who.clone()).or_default().push(*version);
            }
        }
        for (who, versions) in lapsed {
            let Some(read) = self.donors.read.get(&who.id).and_then(|donor| donor.read.as_ref()) else {
                continue;
            };
            if !self.is_same(&who, read) {
                continue;
            }
            // Another process may have overwritten what it has acknowledged, and keeps.
            let Some(part) = &read.part else { continue };
            let ack = part.ack;
            if ack.is_some_and(|ack| ack.head > followed.head)
                && self.settings.rules.hold(Rule::NewerHeadIsNoLapse)
            {
                // It may have acknowledged our head before, and kept work: only the new head tells more.
                if !self.head_reading.wanted {
                    self.read_head_later(self.settings.retry);
                }
                continue;
            }
            let ack =
                ack.filter(|ack| ack.head == followed.head || !self.settings.rules.hold(Rule::AckNamesHead));
            let epochs: Vec<i32> =
                versions.into_iter().filter(|version| ack.is_none_or(|ack| ack.version < *version)).collect();
            if epochs.is_empty() {
                continue;
            }
            let (id, version) = (who.id.clone(), read.version);
            self.donors.check = Some(Check { donor: who.clone(), epochs, head: followed.head });
            if !self.settings.rules.hold(Rule::LapseIsChecked) {
                self.on_donor_checked(&Outcome::Applied);
                return;
            }
            let writes = vec![Write::CheckMember { id, version }];
            self.actions.push(Action::Commit { purpose: Purpose::CheckDonor, writes });
            return;
        }
    }

    pub(super) fn on_donor_checked(&mut self, outcome: &Outcome) {
        let Some(check) = self.donors.check.take() else { return };
        match outcome {
            Outcome::Applied if self.followed.is_some_and(|followed| followed.head == check.head) => {
                for version in check.epochs {
                    self.donors.unreleased.remove(&(version, check.donor.clone()));
                }
                self.compute_startable();
                self.actions.push(Action::Update);
            }
            Outcome::Refused { .. } => self.donors.forget(&check.donor.id),
            _ => self.donors.not_before = self.now + self.settings.retry,
        }
    }
}
