//! The work in flight of one member, as the driver keeps it.

use std::collections::BTreeMap;

use super::super::types::{Action, Event};
use crate::clock::Moment;

#[derive(Clone, Debug, Default)]
pub(super) struct Register {
    pub(super) lease: Moment,
    pub(super) guards: Vec<Guard>,
    /// Until when the guards with a mark are valid; `None`: as long as the lease.
    pub(super) marks: BTreeMap<u64, Option<Moment>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Guard {
    pub(super) name: u64,
    pub(super) position: u32,
    pub(super) mark: Option<u64>,
    pub(super) is_ended: bool,
}

impl Register {
    pub(super) fn start(&mut self, name: u64, position: u32) {
        self.guards.push(Guard { name, position, mark: None, is_ended: false });
    }

    /// Ends a guard; gives the event for the core.
    pub(super) fn drop_guard(&mut self, index: usize) -> Option<Event> {
        let guard = self.guards.remove(index);
        let mark = guard.mark.filter(|mark| self.marks.contains_key(mark))?;
        Some(Event::Dropped { mark, position: guard.position })
    }

    /// Until when a guard is valid.
    pub(super) fn deadline(&self, guard: &Guard) -> Moment {
        if guard.is_ended {
            return Moment::default();
        }
        guard.mark.and_then(|mark| self.marks.get(&mark).copied().flatten()).unwrap_or(self.lease)
    }

    pub(super) fn is_valid(&self, guard: &Guard, now: Moment) -> bool {
        now < self.deadline(guard)
    }

    /// Does an action, if it is one for the register; gives the event that has to follow.
    pub(super) fn apply(&mut self, action: &Action) -> Option<Event> {
        match action {
            Action::Lease(deadline) => self.lease = *deadline,
            Action::Freeze { mark, lost, deadline } => {
                let mut positions = Vec::new();
                for guard in &mut self.guards {
                    if guard.mark.is_none() && !guard.is_ended && lost.contains_position(guard.position) {
                        guard.mark = Some(*mark);
                        positions.push(guard.position);
                    }
                }
                self.marks.insert(*mark, Some(*deadline));
                return Some(Event::Marked { mark: *mark, positions });
            }
            Action::Thaw { mark } => {
                self.marks.insert(*mark, None);
            }
            Action::FreezeAgain { mark, deadline } => {
                self.marks.insert(*mark, Some(*deadline));
            }
            Action::EndAll => {
                self.guards.iter_mut().for_each(|guard| guard.is_ended = true);
                self.marks.clear();
                self.lease = Moment::default();
            }
            _ => {}
        }
        None
    }
}
