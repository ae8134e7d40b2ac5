//! What the driver of exclusive shares does with the guards whose items are lost while they are in progress.
//!
//! Such a guard is *marked* until it is dropped. At first it is *frozen*: it keeps the deadline that it had, and no
//! heartbeat extends it. Once the store has confirmed a write that names it, it lives as long as the session again. A
//! guard that is frozen for good, or whose frozen deadline has passed, ends at that deadline and stays ended.

use std::{sync::atomic::Ordering, time::Duration};

use tokio::time::sleep;

use super::{
    Register, Slot,
    marks::{Mark, Until},
};
use crate::{
    clock::Moment,
    ring::{Position, Ranges},
};

/// For how long ends of marked guards are collected before the driver is woken, unless no marked guard is left.
pub(super) const BUNDLE: Duration = Duration::from_millis(100);

/// The marked guards when a write was made. Only these may be unfrozen when it is confirmed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Written(u64);

/// The driver is the only caller, so these calls do not overlap.
impl Register {
    /// The positions of all work in progress within `ranges`, in ascending order.
    pub(crate) fn in_flight(&self, ranges: &Ranges) -> Vec<Position> {
        let ranges = ranges.clone().index();
        let mut found = Vec::new();
        for shard in &self.shards {
            let slots = shard.lock();
            let unmarked = slots.slots.iter().filter_map(|slot| match slot {
                Slot::InFlight(position) => Some(*position),
                Slot::Free { .. } | Slot::Marked => None,
            });
            let all = unmarked.chain(slots.marks.values().map(|mark| mark.position));
            found.extend(all.filter(|position| ranges.contains(*position)));
        }
        in_order(found)
    }

    /// How many guards each shard has.
    pub(crate) fn counts(&self) -> impl Iterator<Item = usize> {
        self.shards.iter().map(|shard| shard.lock().len)
    }

    /// Marks the guards in flight within `lost` that are not marked yet, and freezes them: they keep the deadline
    /// `until`. Returns how many these are. Comes after [`Register::admit`] with a snapshot without these ranges.
    pub(crate) fn mark(&self, lost: &Ranges, since: Moment, until: Moment) -> usize {
        let (lost, number) = (lost.clone().index(), self.marking.next());
        let mark = |position| {
            let until = Until::Frozen(until);
            lost.contains(position).then_some(Mark { position, number, since, until })
        };
        let marked = self.shards.iter().map(|shard| shard.lock().mark(mark)).sum();
        self.frozen.notify_waiters();
        marked
    }

    /// Marks all guards and freezes them for good, at the latest until `until`: what was promised about them is not
    /// known any more.
    pub(crate) fn freeze_all_for_good(&self, since: Moment, until: Moment) {
        let number = self.marking.next();
        for shard in &self.shards {
            let mut slots = shard.lock();
            let mark = |position| Some(Mark { position, number, since, until: Until::Final(until) });
            slots.mark(mark);
            slots.marks.values_mut().for_each(|mark| mark.finish(until));
        }
        self.frozen.notify_waiters();
    }

    /// Freezes for good, until `until`, the guards that were marked `max_drain` ago or earlier. Returns when the next
    /// ones are due.
    pub(crate) fn freeze_overdue(&self, max_drain: Duration, now: Moment, until: Moment) -> Option<Moment> {
        let mut next = None;
        for shard in &self.shards {
            for mark in shard.lock().marks.values_mut() {
                let due = mark.since + max_drain;
                match mark.until {
                    Until::Final(_) => {}
                    Until::Valid | Until::Frozen(_) if due <= now => mark.finish(until),
                    Until::Valid | Until::Frozen(_) => {
                        next = Some(next.map_or(due, |next: Moment| next.min(due)));
                    }
                }
            }
        }
        self.frozen.notify_waiters();
        next
    }

    /// The positions of the marked guards that have not ended for good, in ascending order, for a write that names
    /// them. The driver then knows of all ends so far.
    pub(crate) fn marked(&self, now: Moment) -> (Vec<Position>, Written) {
        // First: a guard that ends meanwhile is reported, even if it is in the answer.
        *self.marking.first_end() = None;
        let mut found = Vec::new();
        for shard in &self.shards {
            found.extend(
                shard.lock().marks.values().filter(|mark| !mark.is_over(now)).map(|mark| mark.position),
            );
        }
        (in_order(found), Written(self.marking.newest.load(Ordering::Relaxed)))
    }

    /// A write was confirmed: the guards that were marked when it was made live as long as the session again, if their
    /// frozen deadline is after `now`. Guards that were marked later stay frozen.
    pub(crate) fn unfreeze(&self, written: Written, now: Moment) {
        for shard in &self.shards {
            for mark in shard.lock().marks.values_mut().filter(|mark| mark.number <= written.0) {
                if matches!(mark.until, Until::Frozen(until) if now < until) {
                    mark.until = Until::Valid;
                }
            }
        }
    }

    /// Whether a marked guard is left within `ranges` that has not ended for good.
    pub(crate) fn has_marked(&self, ranges: &Ranges, now: Moment) -> bool {
        self.any_mark(|mark| !mark.is_over(now) && ranges.contains_position(mark.position))
    }

    fn any_mark(&self, is_wanted: impl Fn(&Mark) -> bool) -> bool {
        self.shards.iter().any(|shard| shard.lock().marks.values().any(&is_wanted))
    }

    /// Waits until marked guards were dropped since [`Register::marked`] was read last: not at all if no marked guard
    /// is left, and otherwise until further ones could end within a tenth of a second of the first. Cancel safe.
    pub(crate) async fn marked_ended(&self) {
        loop {
            let further = self.marking.has_ended.notified();
            let first = *self.marking.first_end();
            let Some(first) = first else {
                further.await;
                continue;
            };
            let now = self.validity.now();
            let left = (first + BUNDLE).saturating_since(now);
            if left.is_zero() || !self.any_mark(|mark| !mark.is_over(now)) {
                return;
            }
            tokio::select! {
                biased;
                () = further => {}
                () = sleep(left) => {}
            }
        }
    }
}

/// Sorted, so that the order of the shards and of the drops decides nothing.
fn in_order(mut positions: Vec<Position>) -> Vec<Position> {
    positions.sort_unstable();
    positions.dedup();
    positions
}
