// Pure: no runtime, no clock, no socket, no random numbers.

//! The floor: up to which epoch a new publication says that all losses are released.

use std::collections::BTreeMap;

use super::{
    history::History,
    rules::Rule,
    state::Handover,
    types::{Incarnation, Listing, MemberRead, Write},
};
use crate::ring::Ranges;

/// Floor and carried members of the next epoch, and the checks that make them right.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FloorPlan {
    pub(crate) floor: i32,
    pub(crate) carried: Vec<Incarnation>,
    pub(crate) checks: Vec<Write>,
}

impl Handover {
    /// From what was listed after the newest epoch was read.
    pub(super) fn plan_floor(&mut self, history: &History, listing: &Listing) -> FloorPlan {
        let old = history.floor();
        self.note_the_gone(history, listing);
        let floor = self.highest_floor(history, listing);
        let present = |who: &Incarnation| listing.members.get(&who.id).filter(|read| self.may_be(who, read));

        // The newest loss of each member that the floor passes.
        let mut passed: BTreeMap<&Incarnation, i32> = BTreeMap::new();
        for (version, losses) in history.losses_after(old).filter(|(version, _)| *version <= floor) {
            passed.extend(losses.keys().map(|who| (who, version)));
        }
        let mut checks = Vec::new();
        for (who, version) in &passed {
            // A check of what may not be read is refused.
            let Some(read) = present(who).filter(|read| !read.is_denied()) else { continue };
            let ack = read.part.as_ref().and_then(|part| part.ack);
            let ack = ack.filter(|ack| {
                ack.head == history.epoch.head || !self.settings.rules.hold(Rule::AckNamesHead)
            });
            if ack.is_none_or(|ack| ack.version < *version)
                && self.settings.rules.hold(Rule::FloorChecksUnacked)
            {
                checks.push(Write::CheckMember { id: who.id.clone(), version: read.version });
            }
        }
        let inherited = history.head.carried.iter().filter(|_| self.settings.rules.hold(Rule::CarriedStays));
        let mut carried: Vec<Incarnation> = passed.keys().copied().chain(inherited).cloned().collect();
        carried.sort();
        carried.dedup();
        carried.retain(|who| match present(who) {
            // A plain member keeps nothing. One of ours without a readable part is not known to have ended anything.
            Some(read) => match &read.part {
                Some(part) => part.keep != Ranges::default(),
                None => history.head.carried.contains(who),
            },
            None if history.released().any(|it| *it == *who) => false,
            None => {
                let waits = self.settings.is_strict && self.settings.rules.hold(Rule::StrictCarriedWaits);
                waits && !self.has_stopped(who) && history.head.carried.contains(who)
            }
        });
        if !self.settings.rules.hold(Rule::Carried) {
            carried.clear();
        }
        FloorPlan { floor, carried, checks }
    }

    /// Whether what was listed may be the znode of `who`. If permission is denied, that is not known.
    fn may_be(&self, who: &Incarnation, read: &MemberRead) -> bool {
        self.is_same(who, read) || read.is_denied()
    }

    /// Notes since when members that lost something, or are carried, are gone.
    fn note_the_gone(&mut self, history: &History, listing: &Listing) {
        let losers = history.losses_after(history.floor()).flat_map(|(_, losses)| losses.keys());
        for who in losers.chain(&history.head.carried) {
            if !listing.members.get(&who.id).is_some_and(|read| self.may_be(who, read)) {
                self.gone.entry(who.clone()).or_insert(self.now);
            }
        }
    }

    /// The newest epoch that this process first saw more than a lease ago. It stays below the loss of a member of which
    /// nothing can be read, and below that of a plain member while that is waited for; in strict mode also below the
    /// first loss of a member that is not gone for as long.
    fn highest_floor(&self, history: &History, listing: &Listing) -> i32 {
        let (old, wait) = (history.floor(), self.wait());
        let waits = self.settings.rules.hold(Rule::FloorWaits);
        let known = self.seen.epochs.range(old..=history.epoch.version);
        let seen = known.filter(|(_, seen)| !waits || self.now > **seen + wait);
        let mut floor = seen.map(|(version, _)| *version).max().unwrap_or(old).max(old);
        for (version, losses) in history.losses_after(old) {
            let is_early = losses.keys().any(|who| {
                let plain = self.donors.plain.contains(who)
                    && self
                        .seen
                        .epochs
                        .get(&version)
                        .is_some_and(|seen| self.now < *seen + self.settings.plain_grace);
                let read = listing.members.get(&who.id).filter(|read| self.may_be(who, read));
                let is_unknown =
                    read.is_some_and(|read| read.part.is_none()) && !history.was_plain(version, who);
                let strict = self.settings.is_strict && self.settings.rules.hold(Rule::StrictFloorWaits);
                plain || is_unknown || strict && read.is_none() && !self.has_stopped(who)
            });
            if is_early {
                floor = floor.min(version - 1);
            }
        }
        floor
    }
}
