//! The store: one transaction after the other.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    super::super::types::{Event, MemberRead, Outcome, Purpose, Refusal, Snapshot, Write},
    world::{Pending, Request, StoredHead, World, slot_of},
};

impl World {
    /// A transaction takes effect.
    pub(super) fn commit(&mut self, slot: usize, pending: &Pending, extends: bool) -> Outcome {
        let mut writes = pending.writes.iter().enumerate();
        let refused = writes.find_map(|(index, write)| Some((index, self.refusal(slot, write)?)));
        if let Some((index, why)) = refused {
            return Outcome::Refused { index, why };
        }
        pending.writes.iter().for_each(|write| self.write(slot, write));
        if extends {
            let end = pending.sent + self.wait();
            let member = self.member(slot);
            member.lease = member.lease.max(end);
        }
        Outcome::Applied
    }

    fn refusal(&self, slot: usize, write: &Write) -> Option<Refusal> {
        let member = |slot: usize, version: i32| match &self.members[slot] {
            None => Some(Refusal::NoNode),
            Some(member) => (member.version != version).then_some(Refusal::BadVersion),
        };
        let snapshot = |name: u64| {
            let is_there = self.head.as_ref().is_some_and(|head| head.head.snapshot == name);
            (!is_there).then_some(Refusal::NoNode)
        };
        match write {
            Write::CheckOwn { version } | Write::SetOwn { version, .. } | Write::DeleteOwn { version } => {
                member(slot, *version)
            }
            Write::CheckMember { id, version } => member(slot_of(id), *version),
            Write::CheckHead { version } | Write::SetHead { version, .. } => match &self.head {
                None => Some(Refusal::NoNode),
                Some(head) => (head.version != *version).then_some(Refusal::BadVersion),
            },
            Write::CheckSnapshot { name } | Write::DeleteSnapshot { name } => snapshot(*name),
            Write::CreateHead { .. } => self.head.is_some().then_some(Refusal::NodeExists),
            Write::CreateSnapshot { .. } => None,
        }
    }

    fn write(&mut self, slot: usize, write: &Write) {
        self.zxid += 1;
        match write {
            Write::SetOwn { part, version } => {
                let member = self.member(slot);
                (member.part, member.version) = (part.clone(), version + 1);
            }
            Write::SetHead { head, version } => {
                let stored = self.head.as_mut().unwrap();
                (stored.head, stored.version) = (head.clone(), version + 1);
            }
            Write::CreateHead { head } => {
                let snapshot = Arc::new(Snapshot { epoch: 0, members: BTreeMap::new() });
                self.head = Some(StoredHead { czxid: self.zxid, version: 0, head: head.clone(), snapshot });
            }
            Write::CreateSnapshot { snapshot, .. } => self.head.as_mut().unwrap().snapshot = snapshot.clone(),
            Write::DeleteOwn { .. } => self.members[slot] = None,
            Write::CheckOwn { .. }
            | Write::CheckHead { .. }
            | Write::CheckSnapshot { .. }
            | Write::CheckMember { .. }
            | Write::DeleteSnapshot { .. } => {}
        }
    }

    pub(super) fn apply(&mut self, slot: usize) {
        let mut pending = self.process(slot).pending.remove(&Request::Write).unwrap();
        pending.reply = Some(self.commit(slot, &pending, true));
        self.process(slot).pending.insert(Request::Write, pending);
    }

    pub(super) fn answer(&mut self, slot: usize, request: Request) {
        let pending = self.process(slot).pending.remove(&request).unwrap();
        let outcome = pending.reply.clone().unwrap_or_else(|| self.commit(slot, &pending, false));
        let purpose = if request == Request::Write { Purpose::Own } else { Purpose::Publish };
        self.feed(slot, Event::Committed { purpose, outcome });
    }

    pub(super) fn read(&self, slot: usize) -> Option<MemberRead> {
        self.members[slot].as_ref().map(|member| MemberRead {
            czxid: member.czxid,
            version: member.version,
            weight: 1,
            part: Some(member.part.clone()),
            fits: !member.is_held,
            unclear: None,
            hints_at_tooz: false,
        })
    }
}
