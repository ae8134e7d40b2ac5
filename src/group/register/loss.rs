//! What the driver of exclusive shares does with the guards whose items are lost while they are in progress.
//!
//! Such a guard is *marked* until it is dropped. At first it is *frozen*: it keeps the deadline that it had, and no
//! heartbeat extends it. Once the store has confirmed a write that names it, it is thawed, and lives as long as the lease
//! again. Which guards that are is decided by the [`handover`](super::super::handover); the register does as it says.

use std::sync::atomic::Ordering;

#[cfg(test)]
use super::Slot;
use super::{Register, marks::Mark};
use crate::{
    clock::Moment,
    ring::{Position, Ranges},
};

/// A guard has ended of which the driver has to know.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum End {
    /// A marked guard was dropped.
    Marked { mark: u64, position: Position },
    /// No guard is left, as [`Register::watch_idle`] has asked for.
    Last,
}

/// The driver is the only caller, so these calls do not overlap.
impl Register {
    /// Marks the guards in progress within `lost` that are not marked yet, and freezes them: they are valid until
    /// `deadline`. Returns the position of each, in ascending order. Comes after [`Register::admit`] with a snapshot
    /// without these ranges.
    pub(crate) fn freeze(&self, number: u64, lost: &Ranges, deadline: Moment) -> Vec<Position> {
        let lost = lost.clone().index();
        let mark = |position| {
            lost.contains_position(position).then_some(Mark { position, number, until: Some(deadline) })
        };
        let mut marked: Vec<_> = self.shards.iter().flat_map(|shard| shard.lock().mark(mark)).collect();
        self.frozen.notify_waiters();
        // So that the order of the shards decides nothing.
        marked.sort_unstable();
        marked
    }

    /// The guards with this mark are valid as long as the lease from now on.
    pub(crate) fn thaw(&self, number: u64) {
        self.each_mark(number, |mark| mark.until = None);
    }

    /// The guards with this mark are valid until `deadline` and no longer.
    pub(crate) fn freeze_again(&self, number: u64, deadline: Moment) {
        self.each_mark(number, |mark| mark.until = Some(mark.until.map_or(deadline, |it| it.min(deadline))));
        self.frozen.notify_waiters();
    }

    fn each_mark(&self, number: u64, change: impl Fn(&mut Mark)) {
        for shard in &self.shards {
            shard.lock().marks.values_mut().filter(|mark| mark.number == number).for_each(&change);
        }
    }

    /// How many guards each shard has.
    pub(crate) fn counts(&self) -> impl Iterator<Item = usize> {
        self.shards.iter().map(|shard| shard.lock().len)
    }

    /// Whether no guard is in progress.
    pub(crate) fn is_idle(&self) -> bool {
        self.counts().all(|count| count == 0)
    }

    /// Reports [`End::Last`] when no guard is in progress any more. Comes after [`Register::admit`] of nothing.
    pub(crate) fn watch_idle(&self) {
        self.watches_idle.store(true, Ordering::SeqCst);
        self.has_ended.notify_one();
    }

    /// Waits for the next end that the driver has to know. For one waiting task. Cancel safe.
    pub(crate) async fn next_end(&self) -> End {
        loop {
            if let Some((mark, position)) = self.ended().pop_front() {
                return End::Marked { mark, position };
            }
            if self.watches_idle.load(Ordering::SeqCst) && self.is_idle() {
                self.watches_idle.store(false, Ordering::SeqCst);
                return End::Last;
            }
            self.has_ended.notified().await;
        }
    }

    /// The positions of all work in progress within `ranges`, in ascending order.
    #[cfg(test)]
    pub(crate) fn in_flight(&self, ranges: &Ranges) -> Vec<Position> {
        let mut found = Vec::new();
        for shard in &self.shards {
            let slots = shard.lock();
            let unmarked = slots.slots.iter().filter_map(|slot| match slot {
                Slot::InFlight(position) => Some(*position),
                Slot::Free { .. } | Slot::Marked => None,
            });
            let all = unmarked.chain(slots.marks.values().map(|mark| mark.position));
            found.extend(all.filter(|position| ranges.contains_position(*position)));
        }
        found.sort_unstable();
        found.dedup();
        found
    }
}
