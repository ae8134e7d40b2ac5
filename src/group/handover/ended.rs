// Pure: no runtime, no clock, no socket, no random numbers.

//! How long it takes until this member has the keys that it gained: a handover begins when its cause is known, and ends when
//! every key of the newest epoch is this member's to start on.

use super::{
    history::History,
    parts::Ongoing,
    state::Handover,
    types::{Action, Cause, Ended, Epoch},
};
use crate::ring::Ranges;

impl Handover {
    /// Our znode was created, or has become ready.
    pub(super) fn handover_begins(&mut self) {
        self.ongoing = Some(Ongoing { cause: Cause::Join, since: self.now });
    }

    /// An epoch was adopted after `before`, when we owned `owned`.
    pub(super) fn handover_follows(&mut self, before: Option<Epoch>, owned: &Ranges) {
        let since = self.publisher.changed.take().unwrap_or(self.now);
        let (Some(before), Some(history)) = (before, &self.history) else { return };
        let is_new_head = before.head != history.epoch.head;
        if self.ongoing.is_some() || !is_new_head && self.owned().difference(owned).is_empty() {
            return;
        }
        self.ongoing = Some(Ongoing { cause: cause(before, history), since });
    }

    /// Notes the end of a handover.
    pub(super) fn handover_ends(&mut self) {
        let Some(Ongoing { cause, since }) = self.ongoing else { return };
        if self.leaving.is_some() {
            self.ongoing = None;
        } else if !self.lease.has_lapsed && self.donors.blocking.is_empty() && self.is_published() {
            self.ongoing = None;
            let ended = Ended { cause, waited: self.now.saturating_since(since) };
            self.ended = Some(ended);
            self.actions.push(Action::Ended(ended));
        }
    }
}

/// Why members have gained keys since `before`.
fn cause(before: Epoch, history: &History) -> Cause {
    if before.head != history.epoch.head {
        return Cause::Head;
    }
    let head = &history.head;
    let new = usize::try_from(before.version - head.base).unwrap_or(0);
    let mut cause = Cause::Weights;
    for change in head.log.iter().skip(new) {
        for gone in &change.del {
            match change.add.iter().find(|(id, _)| *id == gone.id) {
                None => return Cause::Leave,
                Some((_, entry)) if entry.czxid != gone.czxid => cause = Cause::Restart,
                Some(_) => {}
            }
        }
    }
    cause
}
