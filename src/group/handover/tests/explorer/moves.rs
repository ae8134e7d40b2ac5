//! Which steps the world can take, and what they do.

use super::{
    super::super::{
        history::History,
        types::{Epoch, Event},
    },
    world::{Process, Request, TICK, World, id, slot_of},
};
use crate::clock::Moment;

/// One step of the world.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Move {
    Tick,
    /// It notices the time.
    Wake(usize),
    Start(usize),
    Crash(usize),
    Expire(usize),
    Delete(usize),
    /// It is held out of the ring, or let in again.
    Hold(usize),
    DeleteHead,
    Take(usize),
    Drop(usize, usize),
    /// A write takes effect.
    Apply(usize),
    Answer(usize, Request),
    /// It reads the head.
    ReadHead(usize),
    /// It reads a donor again.
    ReadMember(usize, usize),
    Heartbeat(usize),
    /// It wants to publish.
    Publish(usize),
}

impl World {
    pub(super) fn moves(&self) -> Vec<Move> {
        let mut moves = vec![];
        let any_fault = self.left.faults > 0;
        for (slot, process) in self.processes.iter().enumerate() {
            match process {
                None => {
                    if self.members[slot].is_some() {
                        if self.now >= self.members[slot].as_ref().unwrap().lease {
                            moves.push(Move::Expire(slot));
                        }
                    } else if any_fault {
                        moves.push(Move::Start(slot));
                    }
                }
                Some(process) => self.moves_of(slot, process, &mut moves),
            }
        }
        if self.left.recreations > 0 && self.head.is_some() {
            moves.push(Move::DeleteHead);
        }
        if self.left.ticks > 0 {
            moves.push(Move::Tick);
        }
        moves
    }

    fn moves_of(&self, slot: usize, process: &Process, moves: &mut Vec<Move>) {
        for (request, pending) in &process.pending {
            if *request == Request::Write && pending.reply.is_none() {
                moves.push(Move::Apply(slot));
            } else {
                moves.push(Move::Answer(slot, *request));
            }
        }
        let core = &process.core;
        if core.now < self.now {
            moves.push(Move::Wake(slot));
        }
        let stored = self.head.as_ref().map(|head| Epoch { head: head.czxid, version: head.version });
        if core.followed.is_some() && stored != core.followed {
            moves.push(Move::ReadHead(slot));
        }
        if core.followed.is_some() && core.lease.deadline < self.now + self.wait() && core.own.is_some() {
            moves.push(Move::Heartbeat(slot));
        }
        for (who, read) in &core.donors.read {
            let other = slot_of(who);
            let stored = self.members[other].as_ref().map(|it| (it.czxid, it.version));
            if stored != read.read.as_ref().map(|it| (it.czxid, it.version)) {
                moves.push(Move::ReadMember(slot, other));
            }
        }
        if slot < self.scope.publishers && self.has_news(process) {
            moves.push(Move::Publish(slot));
        }
        if process.core.may_start(self.now, self.key) && process.register.guards.len() < self.scope.guards {
            moves.push(Move::Take(slot));
        }
        moves.extend((0..process.register.guards.len()).map(|index| Move::Drop(slot, index)));
        if self.left.faults > 0 && slot >= self.scope.faulty_from {
            if self.scope.may_crash {
                moves.push(Move::Crash(slot));
            }
            if process.wants_to_join && self.members[slot].is_none() {
                moves.push(Move::Start(slot));
            }
            if let Some(member) = &self.members[slot] {
                if self.scope.may_expire && self.now >= member.lease && process.core.own.is_some() {
                    moves.push(Move::Expire(slot));
                }
                if self.scope.may_hold {
                    moves.push(Move::Hold(slot));
                }
                if self.scope.may_delete {
                    moves.push(Move::Delete(slot));
                }
            }
        }
    }

    /// Whether the members differ from those of the epoch that the process follows, and there is room in the window.
    fn has_news(&self, process: &Process) -> bool {
        let (Some(history), Some(followed)) = (&process.core.history, process.core.followed) else {
            return false;
        };
        if process.pending.contains_key(&Request::Publish) {
            return false;
        }
        let histories = self.processes.iter().flatten().filter_map(|it| it.core.history.as_ref());
        let floors = histories.filter(|it| it.epoch.head == followed.head).map(History::floor);
        let stored = self.head.iter().filter(|head| head.czxid == followed.head).map(|head| head.head.floor);
        let oldest = floors.chain(stored).min().unwrap_or(0);
        followed.version + 1 - oldest <= self.scope.window && {
            let stored = self.members.iter().enumerate().filter_map(|(slot, it)| {
                let member = it.as_ref().filter(|member| !member.is_held)?;
                Some((id(slot), member.czxid))
            });
            let known = history.members().iter().map(|(id, entry)| (id.clone(), entry.czxid));
            !stored.eq(known)
        }
    }

    pub(super) fn after(&self, step: Move) -> World {
        let mut next = self.clone();
        next.take(step);
        next
    }

    pub(super) fn take(&mut self, step: Move) {
        let is_fault = matches!(
            step,
            Move::Start(_) | Move::Crash(_) | Move::Expire(_) | Move::Delete(_) | Move::Hold(_)
        );
        if is_fault && self.left.faults < u8::MAX {
            self.left.faults = self.left.faults.saturating_sub(1);
        }
        self.make(step);
        // What has ended for good does not matter any more.
        for slot in 0..self.processes.len() {
            let guards = self.processes[slot].iter().flat_map(|process| &process.register.guards);
            if guards.into_iter().any(|guard| guard.is_ended) {
                self.process(slot).register.guards.retain(|guard| !guard.is_ended);
            }
        }
    }

    fn make(&mut self, step: Move) {
        match step {
            Move::Tick => {
                self.now = self.now + TICK;
                if self.left.ticks < u8::MAX {
                    self.left.ticks -= 1;
                }
            }
            Move::Wake(slot) => self.feed(slot, Event::Tick),
            Move::Start(slot) => self.start(slot),
            Move::Crash(slot) => {
                self.processes[slot] = None;
                if !self.scope.znodes_stay {
                    self.members[slot] = None;
                }
            }
            Move::Expire(slot) | Move::Delete(slot) => self.members[slot] = None,
            Move::Hold(slot) => {
                let member = self.member(slot);
                member.is_held = !member.is_held;
            }
            Move::DeleteHead => {
                self.left.recreations -= 1;
                self.head = None;
            }
            Move::Take(slot) => {
                let key = self.key;
                self.process(slot).register.start(0, key);
            }
            Move::Drop(slot, index) => {
                if let Some(event) = self.process(slot).register.drop_guard(index) {
                    self.feed(slot, event);
                }
            }
            Move::Apply(slot) => self.apply(slot),
            Move::Answer(slot, request) => self.answer(slot, request),
            Move::ReadHead(slot) => self.feed(slot, Event::HeadChanged),
            Move::ReadMember(slot, other) => self.feed(slot, Event::MemberChanged(id(other))),
            Move::Heartbeat(slot) => {
                self.process(slot).core.lease.next = Moment::default();
                self.feed(slot, Event::Tick);
            }
            Move::Publish(slot) => {
                let now = self.now;
                self.process(slot).core.publisher.due = Some(now);
                self.feed(slot, Event::Tick);
                self.process(slot).core.publisher.due = None;
            }
        }
    }
}
