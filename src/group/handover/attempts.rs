// Pure: no runtime, no clock, no socket, no random numbers.

//! Attempts: when a member tries to publish the next epoch.
//!
//! One attempt lists the group and reads all its members. So few members may try at about the same time, however large the
//! group is. The three members of the lowest ranks watch the group. A joiner leaves it to them, and all others compare once
//! in a while; if nothing is published, they try after a random pause, which grows with the group. An attempt that was to
//! help is void once another member has published. Before the first epoch no member watches: then each joiner waits until
//! no more come, and one is the first.

use std::time::Duration;

use super::{
    parts::Stage,
    state::Handover,
    types::{Action, GroupStat, Presence, ReadError},
};
use crate::{clock::Moment, ring::Label};

/// How many members watch the group.
const WATCHERS: usize = 3;
/// So many members share the time of one attempt. In a larger group their attempts are spread over more time, up to
/// [`MOST_SPREAD`] times as much.
const SHARE_A_TIME: usize = 16;
const MOST_SPREAD: usize = 64;
/// When there was no epoch for so many settling times, the next change of a small group waits only for one part of so many
/// of one.
const CALM: u32 = 20;
const QUICK: u32 = 5;
/// While many members come and go, the longest time in which changes are collected is longer by a part for so many of the
/// same: each epoch costs every member a read and a ring.
const SPREAD_OF_A_PART: u32 = 16;

impl Handover {
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

    /// The same for what all members are to publish at that moment: in a large group not all at once, and one is enough.
    pub(super) fn publish_with_others_at(&mut self, due: Moment) {
        let spread = self.spread();
        if spread == 1 {
            return self.publish_at(due);
        }
        let pause = self.jitter(self.settings.settle.saturating_mul(spread));
        self.publish_at(due + pause);
        self.publisher.helps = !self.has_own_change();
    }

    // --- What is known ----------------------------------------------------------------------------------------

    /// The group was read.
    pub(super) fn sees_group(&mut self, pzxid: i64, children: usize) {
        self.publisher.newest = self.publisher.newest.max(pzxid);
        self.publisher.children = children;
    }

    /// Whether the newest epoch was made from the newest list that is known to exist.
    fn is_up_to_date(&self) -> bool {
        self.history.as_ref().is_some_and(|history| history.head.pzxid >= self.publisher.newest)
    }

    /// Whether our incarnation is in the newest epoch.
    pub(super) fn is_published(&self) -> bool {
        let (Some(history), Some(me)) = (&self.history, self.me()) else { return false };
        history.has(me) && history.members().get(&me.id).is_some_and(|entry| !entry.is_plain)
    }

    /// Our place among the members that watch the group.
    fn watch(&self) -> Option<u32> {
        let first = self.history.as_ref()?.publishers().take(WATCHERS);
        let place = (0..).zip(first).find(|(_, id)| **id == self.settings.me).map(|(place, _)| place);
        place.filter(|_| self.is_published())
    }

    /// Whether our znode waits for the settling time of the caller before it is published.
    pub(crate) fn is_settling(&self) -> bool {
        self.settings.settles > 1 && self.own.is_some() && !self.is_published()
    }

    /// Whether there is a change that only this member is certain to publish.
    pub(super) fn has_own_change(&self) -> bool {
        let part = self.own.as_ref().map(|own| own.part.presence);
        let is_out = part.is_some_and(|it| it != Presence::Ready && it == self.settings.presence);
        self.publisher.pause.is_some() || is_out && (self.is_published() || self.is_releasing())
    }

    /// Over how many times their usual time the attempts of members that do not watch are spread.
    fn spread(&self) -> u32 {
        let members = self.history.as_ref().map_or(0, |history| history.members().len());
        let spread = self.publisher.children.max(members) / SHARE_A_TIME;
        u32::try_from(spread.clamp(1, MOST_SPREAD)).unwrap_or(1)
    }

    /// For how long changes are collected at most while they follow one another.
    fn longest_settle(&self) -> Duration {
        self.settings.max_settle.saturating_mul(1 + self.spread() / SPREAD_OF_A_PART)
    }

    // --- Changes ----------------------------------------------------------------------------------------------

    pub(super) fn on_children_changed(&mut self) {
        self.publisher.is_watching = false;
        // While many changes come, each new watch costs a list of the names.
        self.publisher.not_before = self.publisher.not_before.max(self.now + self.publisher.settle / 2);
        let known = self.history.as_ref().map_or(0, |history| history.head.pzxid);
        self.publisher.newest = self.publisher.newest.max(known + 1);
        self.publisher.changed.get_or_insert(self.now);
        self.bundle();
    }

    pub(super) fn on_pause(&mut self, pause: bool) {
        self.publisher.pause = Some(pause);
        self.publish_at(self.now);
    }

    /// A change was seen: publish when no more have come for a while, and at the latest after a longer while.
    fn bundle(&mut self) {
        let usual = self.settings.settle;
        let since = self.now.saturating_since(self.publisher.last);
        if since >= self.publisher.settle.saturating_mul(4) || self.publisher.settle < usual {
            self.publisher.settle = usual;
        }
        // After a long calm most changes come alone; in a small group an epoch more costs little.
        let is_calm = self.spread() == 1 && since >= usual.saturating_mul(CALM);
        let (usual, settle) =
            if is_calm { (usual / QUICK, usual / QUICK) } else { (usual, self.publisher.settle) };
        let is_first = self.publisher.first_change.is_none();
        let first = *self.publisher.first_change.get_or_insert(self.now);
        let due = if self.settings.settles > 1 {
            let settle = self.publisher.settle;
            (self.now + settle).min(first + settle.saturating_mul(self.settings.settles))
        } else {
            let last = first + self.longest_settle().max(settle);
            (self.now + usual).max(first + settle).min(last) + self.lag()
        };
        if let Some(known) = self.publisher.due.filter(|_| is_first || !self.publisher.helps) {
            self.publisher.due = Some(due.min(known));
        } else {
            self.publisher.due = Some(due);
            self.publisher.helps = true;
        }
    }

    /// How much longer this member waits than the first of those that watch: in a large group one list is enough.
    fn lag(&self) -> Duration {
        let place = self.watch().unwrap_or(0);
        self.settings.settle.saturating_mul(place * (self.spread() - 1).min(2))
    }

    pub(super) fn on_group_stat(&mut self, read: &Result<GroupStat, ReadError>) {
        self.publisher.is_comparing = false;
        let is_probing = std::mem::take(&mut self.publisher.is_probing);
        let Ok(GroupStat { pzxid, children }) = *read else {
            self.publisher.is_watching = false;
            self.publisher.not_before = self.now + self.settings.retry;
            self.publisher.compare = self.publisher.compare.min(self.publisher.not_before);
            if is_probing {
                self.publish_at(self.publisher.not_before);
                self.publisher.helps = true;
            }
            return;
        };
        let is_new = pzxid > self.publisher.newest;
        self.sees_group(pzxid, children);
        if is_probing {
            // How large the group is was not known when this attempt was planned: then many others try as well, and it
            // has to wait for its turn among them.
            let is_larger = self.spread() > self.publisher.spread;
            self.publisher.is_quiet = !is_new && !is_larger;
            // The next read shows whether they still come. If they do, it is the turn of another joiner.
            let had_turn = std::mem::replace(&mut self.publisher.has_probed, is_new);
            let pause = match (is_new, had_turn) {
                (false, _) if is_larger => self.pause_of_a_joiner(),
                (false, _) => Duration::ZERO,
                (true, false) => self.settings.settle.saturating_mul(1 + self.spread() / SPREAD_OF_A_PART),
                (true, true) => self.pause_of_a_joiner(),
            };
            self.publish_at(self.now + pause);
            self.publisher.helps = true;
        } else if self.publisher.helps && !self.is_published() && self.spread() > self.publisher.spread {
            // The group is larger than we knew when we planned it.
            self.publisher.due = None;
            self.leave_it_to_others();
        } else if self.has_changed(pzxid) {
            self.publisher.changed.get_or_insert(self.now);
            if self.watch().is_some() {
                if is_new || self.publisher.first_change.is_none() {
                    self.bundle();
                }
            } else if self.publisher.due.is_none() {
                // Those who watch should do it. If they are gone, one of the others does, and not all.
                let delay = self.settings.rank_delay.saturating_mul(3);
                // During a pause the head does not show that one has listed the group for this change.
                let sharers = self.history.as_ref().filter(|history| history.head.is_paused);
                let sharers = sharers.map_or(1, |history| history.members().len().max(1));
                let delay = delay.saturating_mul(u32::try_from(sharers).unwrap_or(u32::MAX));
                let pause = delay.saturating_add(self.jitter(delay.saturating_mul(self.spread())));
                self.publish_at(self.now + pause);
                self.publisher.helps = true;
            }
        }
    }

    /// Whether the group has changed since it was listed for the head, or in vain during a pause.
    fn has_changed(&self, pzxid: i64) -> bool {
        let Some(history) = &self.history else { return false };
        history.head.pzxid != pzxid && !(history.head.is_paused && self.publisher.listed == Some(pzxid))
    }

    /// Whether plain members are there whose weights count.
    fn has_python_weights(&self) -> bool {
        self.settings.label == Label::Tooz
            && self.history.as_ref().is_some_and(|history| history.members().values().any(|it| it.is_plain))
    }

    // --- A new epoch ------------------------------------------------------------------------------------------

    pub(super) fn publisher_adopts(&mut self) {
        self.publisher.last = self.now;
        self.publisher.settle = self.publisher.settle.saturating_mul(2).min(self.settings.max_settle);
        self.publisher.is_quiet = false;
        // Another publisher may have seen that the missing ones are back.
        self.publisher.mass_loss = None;
        if self.publisher.helps && (self.watch().is_none() || self.is_up_to_date()) {
            // Another member has published. If that was not all, the next comparison shows it.
            self.publisher.due = None;
            self.publisher.helps = false;
            self.publisher.first_change = None;
        }
        if self.has_own_change() {
            self.publish_at(self.now);
        } else {
            self.leave_it_to_others();
        }
    }

    /// A list is older than the newest epoch.
    pub(super) fn is_overtaken(&mut self) {
        if self.has_own_change() || self.watch().is_some() && !self.is_up_to_date() {
            self.publish_at(self.now);
        } else {
            self.leave_it_to_others();
        }
    }

    /// If we are not in the epoch: tries to publish it ourselves if no other member does.
    fn leave_it_to_others(&mut self) {
        if self.is_published() || self.settings.presence != Presence::Ready {
            return;
        }
        let pause = self.pause_of_a_joiner();
        self.publish_at(self.now + pause);
        // Otherwise each of many that join at once would list all the others, also after it was published.
        self.publisher.helps = self.publisher.pause.is_none();
    }

    fn pause_of_a_joiner(&mut self) -> Duration {
        let spread = self.spread();
        self.publisher.spread = spread;
        let Some(history) = &self.history else { return Duration::ZERO };
        let settle = self.settings.settle;
        if let Some(rank) = history.publishers().position(|id| *id == self.settings.me) {
            // It is the member of this id that was restarted.
            let rank = u32::try_from(rank).unwrap_or(100).min(100);
            return settle.saturating_add(self.settings.rank_delay.saturating_mul(rank));
        }
        if history.publishers().next().is_some() {
            // A joiner leaves it to the members, if there are any.
            let delay = self.settings.joiner_delay;
            return delay.saturating_add(self.jitter(delay.saturating_mul(spread)));
        }
        if self.settings.settles > 1 {
            return settle;
        }
        // Each of them may try, and one attempt takes as long as the group is large.
        self.publisher.has_probed = false;
        self.jitter(settle.saturating_mul(spread.max(spread * spread / 4)))
    }

    // --- Trying -----------------------------------------------------------------------------------------------

    pub(super) fn pursue_publish(&mut self) {
        let (Some(followed), Some(_)) = (self.followed, &self.own) else { return };
        let watches = self.watch().is_some();
        let compares = self.now >= self.publisher.compare;
        let may_read = self.now >= self.publisher.not_before;
        if may_read && !self.publisher.is_comparing && (compares || watches && !self.publisher.is_watching) {
            let watch = watches && !self.publisher.is_watching;
            self.publisher.is_watching |= watch;
            self.publisher.compare =
                self.now + self.settings.recheck.mul_f64(0.5) + self.jitter(self.settings.recheck);
            self.stat_group(watch);
            if watches && compares && self.has_python_weights() {
                // No stat of the group shows that a member has changed its weight.
                self.publish_at(self.now);
            }
        }
        let is_due = self.publisher.due.is_some_and(|due| self.now >= due);
        // If there may be a newer epoch, a list would be in vain. The stat of the group may show that it is larger than we
        // knew, and many others try as well.
        let is_open = self.head_reading.is_open() || self.publisher.is_comparing;
        if !is_due || is_open || self.publisher.stage != Stage::Idle {
            return;
        }
        if self.has_to_probe() {
            self.publisher.due = None;
            self.publisher.is_probing = true;
            self.stat_group(false);
            return;
        }
        self.publisher.due = None;
        self.publisher.stage = Stage::Listing(followed);
        let watch = watches && !self.publisher.is_watching;
        self.publisher.is_watching |= watch;
        self.actions.push(Action::ListMembers { watch });
    }

    fn stat_group(&mut self, watch: bool) {
        self.publisher.is_comparing = true;
        self.actions.push(Action::StatGroup { watch });
    }

    /// Before the first epoch of a large group: whether more members may still come, so that they are published at once.
    fn has_to_probe(&self) -> bool {
        let is_first = self.history.as_ref().is_some_and(|history| history.publishers().next().is_none());
        let until = self.publisher.joined.map(|joined| joined + self.longest_settle());
        is_first
            && self.publisher.helps
            && !self.publisher.is_quiet
            && self.settings.settles <= 1
            && self.spread() > 1
            && until.is_some_and(|until| self.now < until)
    }
}
