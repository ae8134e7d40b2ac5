// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Marks`]: guards that were in flight when their keys were lost.

use std::collections::BTreeMap;

use super::types::Epoch;
use crate::{clock::Moment, ring::Ranges};

/// Guards that were in flight when their keys were lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Marks {
    /// By their number. Numbers grow and are not used again.
    pub(super) batches: BTreeMap<u64, Batch>,
    pub(super) newest: u64,
}

/// The guards that were marked at one adoption.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Batch {
    /// The epoch that was adopted.
    pub(super) at: Epoch,
    pub(super) since: Moment,
    pub(super) state: BatchState,
    /// Of a frozen or ending batch.
    pub(super) deadline: Moment,
    /// The register has not reported its guards yet.
    pub(super) is_awaited: bool,
    /// How many guards are in flight at each position.
    pub(super) positions: BTreeMap<u32, u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum BatchState {
    /// Valid until the deadline, unless a write that lists it is confirmed before.
    Frozen,
    /// As valid as the lease.
    Kept,
    /// Valid until the deadline, for good.
    Ending,
}

impl Marks {
    /// Forgets all guards. Their numbers are not used again: one that has ended already may still be dropped.
    pub(super) fn clear(&mut self) {
        self.batches.clear();
    }

    pub(super) fn newest(&self) -> u64 {
        self.newest
    }

    pub(super) fn is_awaiting(&self) -> bool {
        self.batches.values().any(|batch| batch.is_awaited)
    }

    /// Whether marked guards may still act.
    pub(super) fn is_any_valid(&self, now: Moment) -> bool {
        self.batches.values().any(|batch| !batch.has_ended(now))
    }

    pub(super) fn marked(&mut self, mark: u64, positions: Vec<u32>) {
        if let Some(batch) = self.batches.get_mut(&mark) {
            batch.is_awaited = false;
            for position in positions {
                *batch.positions.entry(position).or_default() += 1;
            }
            if batch.positions.is_empty() {
                self.batches.remove(&mark);
            }
        }
    }

    pub(super) fn dropped(&mut self, mark: u64, position: u32) {
        let Some(batch) = self.batches.get_mut(&mark) else { return };
        if let Some(count) = batch.positions.get_mut(&position) {
            *count -= 1;
            if *count == 0 {
                batch.positions.remove(&position);
            }
        }
        if batch.positions.is_empty() && !batch.is_awaited {
            self.batches.remove(&mark);
        }
    }

    /// The positions of all marked guards that may still act.
    pub(super) fn kept(&self, now: Moment) -> Ranges {
        let live = self.batches.values().filter(|batch| !batch.has_ended(now));
        Ranges::from_parts(live.flat_map(|batch| batch.positions.keys().map(|it| (*it, *it))))
    }

    /// Forgets the marks of guards on `regained`: what must not be done.
    pub(super) fn forget(&mut self, regained: &Ranges) {
        for batch in self.batches.values_mut() {
            batch.positions.retain(|position, _| !regained.contains_position(*position));
        }
        self.batches.retain(|_, batch| batch.is_awaited || !batch.positions.is_empty());
    }

    /// Thaws the batches that a confirmed write covers, and returns their marks.
    pub(super) fn thaw(&mut self, ack: Option<Epoch>, up_to: u64, all: bool, same_head: bool) -> Vec<u64> {
        let covers = |batch: &Batch| {
            ack.is_some_and(|ack| !same_head || ack.head == batch.at.head && ack.version >= batch.at.version)
        };
        let frozen = self.batches.iter_mut().filter(|(mark, batch)| {
            batch.state == BatchState::Frozen && (all || **mark <= up_to && covers(batch))
        });
        frozen
            .map(|(mark, batch)| {
                batch.state = BatchState::Kept;
                *mark
            })
            .collect()
    }
}

impl Batch {
    fn has_ended(&self, now: Moment) -> bool {
        self.state == BatchState::Ending && now >= self.deadline
    }
}
