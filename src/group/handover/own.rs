// Pure: no runtime, no clock, no socket, no random numbers.

//! Our own znode: what it says, and the writes to it, one at a time.

use super::{
    parts::OwnWrite,
    rules::Rule,
    settings::Problem,
    state::Handover,
    types::{Action, Epoch, MAX_KEEP, MemberRead, Outcome, Part, Purpose, ReadError, Refusal, Write},
};
use crate::{clock::Moment, ring::Ranges};

impl Handover {
    pub(super) fn own_due(&self) -> Option<Moment> {
        let own = self.own.as_ref()?;
        [Some(own.not_before), own.bundled].into_iter().flatten().filter(|due| *due > self.now).min()
    }

    /// Whether an acknowledgement is owed: we have lost something since the last one that is confirmed.
    pub(super) fn owes_ack(&self) -> bool {
        let (Some(loss), Some(own)) = (self.newest_loss, &self.own) else { return false };
        !own.part.ack.is_some_and(|ack| ack.head == loss.head && ack.version >= loss.version)
    }

    pub(super) fn pursue_own(&mut self) {
        let keep = self.marks.kept(self.now).covered_by_at_most(MAX_KEEP);
        let (owed, is_refused) = (self.owes_ack(), self.lease.is_refused);
        let (snapshot, unchanged) = (self.check_of_the_head_itself(), self.part());
        let Some(own) = &mut self.own else { return };
        // While the answer to a write may come, a read shows nothing.
        let is_out = own.write.as_ref().is_some_and(|write| !write.is_unknown);
        if own.is_uncertain && !is_out && !own.is_reading && self.now >= own.not_before {
            own.is_reading = true;
            own.not_before = self.now + self.settings.retry;
            self.actions.push(Action::ReadOwn);
        }
        let (Some(view), true) = (self.followed, own.is_settled() && !is_refused) else { return };
        if self.marks.is_awaiting() || self.now < own.not_before {
            return;
        }
        let keep = if self.settings.rules.hold(Rule::AckListsKept) { keep } else { Ranges::default() };
        let shrinks = keep != own.part.keep;
        if shrinks {
            own.bundled.get_or_insert(self.now + self.settings.bundle);
        } else {
            own.bundled = None;
        }
        let is_time = keep.is_empty() || own.bundled.is_some_and(|due| self.now >= due);
        let is_wrong = own.is_overwritten || own.part.presence != self.settings.presence;
        if !(owed || shrinks && is_time || is_wrong) {
            return;
        }
        let ack = if owed { Some(view) } else { own.part.ack };
        let part = Part { ack, keep, ..unchanged };
        let mut writes = vec![
            Write::CheckHead { version: view.version },
            Write::SetOwn { part: part.clone(), version: own.version },
        ];
        writes.extend(snapshot);
        own.bundled = None;
        let sent = self.lease.sent(self.now, view);
        own.write =
            Some(OwnWrite { part, mark: self.marks.newest(), sent, version: own.version, is_unknown: false });
        self.actions.push(Action::Commit { purpose: Purpose::Own, writes });
    }

    pub(super) fn on_own_written(&mut self, outcome: &Outcome) {
        let Some(own) = &mut self.own else { return };
        let Some(write) = own.write.take() else { return };
        match outcome {
            Outcome::Applied => self.own_is_confirmed(write),
            Outcome::Refused { index: index @ (0 | 2), why } => {
                self.head_is_another(write.sent, *index, *why);
            }
            Outcome::Refused { why: Refusal::NoNode, .. } => self.on_gone(),
            Outcome::Refused { why: Refusal::BadVersion, .. } => self.own_is_uncertain(),
            Outcome::Refused { .. } => {
                self.problem = Some(Problem::NotPermitted);
                own.not_before = self.now + 10 * self.settings.retry;
            }
            Outcome::Unknown => {
                own.write = Some(OwnWrite { is_unknown: true, ..write });
                own.is_uncertain = true;
            }
            Outcome::Failed => own.not_before = self.now + self.settings.retry,
        }
    }

    /// `write` is in the store. It counts as a heartbeat, and the guards that it covers go on.
    fn own_is_confirmed(&mut self, write: OwnWrite) {
        let Some(own) = &mut self.own else { return };
        let was = std::mem::replace(&mut own.part, write.part);
        own.version = write.version + 1;
        own.is_overwritten = false;
        let (ack, is_changed) = (own.part.ack, was.presence != own.part.presence);
        self.confirm_lease(write.sent);
        self.thaw(ack, write.mark);
        if is_changed {
            // Who changes its own data publishes the change.
            self.publish_at(self.now);
        }
    }

    fn thaw(&mut self, ack: Option<Epoch>, mark: u64) {
        let all = !self.settings.rules.hold(Rule::ThawOnlyWhatWasSent);
        let head = self.settings.rules.hold(Rule::AckNamesHead);
        for mark in self.marks.thaw(ack, mark, all, head) {
            self.actions.push(Action::Thaw { mark });
        }
    }

    pub(super) fn own_is_uncertain(&mut self) {
        if let Some(own) = &mut self.own {
            own.is_uncertain = true;
        }
    }

    pub(super) fn on_own(&mut self, read: Result<Option<MemberRead>, ReadError>) {
        let Some(own) = &mut self.own else { return };
        own.is_reading = false;
        match read {
            Err(ReadError::NotPermitted) => {
                self.problem = Some(Problem::NotPermitted);
                own.not_before = self.now + 10 * self.settings.retry;
                if self.is_idle_and_leaving() {
                    self.give_own_up();
                }
            }
            Err(_) => {}
            Ok(None) => self.on_gone(),
            Ok(Some(read)) if read.czxid != own.me.czxid => self.on_gone(),
            Ok(Some(read)) => {
                own.is_uncertain = false;
                if read.version != own.version {
                    own.not_before = self.now;
                }
                let write = own.write.take();
                match (write, read.part) {
                    (Some(write), Some(part)) if read.version == write.version + 1 && part == write.part => {
                        self.own_is_confirmed(write);
                    }
                    (_, part) => {
                        own.version = read.version;
                        // Nothing of it can be read: another process has written it.
                        own.is_overwritten = part.is_none();
                        own.part = part.unwrap_or_default();
                    }
                }
            }
        }
    }

    pub(super) fn on_own_deleted(&mut self, outcome: &Outcome) {
        let Some(own) = &mut self.own else { return };
        own.is_deleting = false;
        match outcome {
            // Without the permission to delete it, only the end of the session removes it.
            Outcome::Applied | Outcome::Refused { why: Refusal::NoNode | Refusal::NotPermitted, .. } => {
                self.give_own_up();
            }
            Outcome::Refused { .. } | Outcome::Unknown => own.is_uncertain = true,
            Outcome::Failed => {}
        }
    }

    fn give_own_up(&mut self) {
        self.lose_own();
        self.finish_leaving();
    }
}
