//! The world of the explorer: a store, a clock that ticks, and a few processes with one key.
//!
//! One tick is the shortest time, and a lease lasts one or two. What a process does, it does at any time or never: it
//! wakes up, reads the head, reads a donor again, sends a heartbeat, tries to publish. A read is answered at once, because
//! a late answer is the same as a read that others have overtaken. A write to one's own znode is answered late; it takes
//! effect at once, or, in the full scope, late as well. An epoch is written some time after the members were listed.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    super::{
        history::History,
        rules::Rules,
        settings::Settings,
        state::Handover,
        types::{
            Action, Epoch, Event, Head, HeadRead, Listing, MemberRead, Outcome, Part, Presence, Purpose,
            Refusal, Snapshot, Write,
        },
    },
    register::Register,
};
use crate::{
    clock::Moment,
    member::MemberId,
    ring::{HashRing, Label},
    session::timing::Timing,
};

const TICK: Duration = Duration::from_secs(1);
const FOREVER: Duration = Duration::from_secs(1 << 32);

/// What may happen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Scope {
    pub(super) slots: usize,
    /// How many guards a process has at most.
    pub(super) guards: usize,
    /// How many epochs there are at most above the oldest floor that any process uses.
    pub(super) window: i32,
    /// In ticks.
    pub(super) lease: u32,
    pub(super) is_strict: bool,
    /// A write to the own znode takes effect some time after it was sent, not at once.
    pub(super) is_full: bool,
    /// A crashed process leaves its znode until its lease has ended.
    pub(super) znodes_stay: bool,
    /// The znode of a living process may expire.
    pub(super) may_expire: bool,
    /// The znode of a living process may be deleted at any time.
    pub(super) may_delete: bool,
    pub(super) may_crash: bool,
    /// A member may be held out of the ring although it lives, and let in again.
    pub(super) may_hold: bool,
    /// How often the head may be deleted.
    pub(super) recreations: u8,
    /// How many starts, crashes, expiries and deletions there may be; `u8::MAX`: any number.
    pub(super) faults: u8,
    /// How often the time may pass; `u8::MAX`: any number.
    pub(super) ticks: u8,
    /// From which slot on processes may crash, expire, be held and be deleted.
    pub(super) faulty_from: usize,
    /// Who may publish.
    pub(super) publishers: usize,
}

impl Scope {
    pub(super) const TWO: Scope = Scope {
        slots: 2,
        guards: 1,
        window: 3,
        lease: 1,
        is_strict: false,
        is_full: false,
        znodes_stay: false,
        may_expire: true,
        may_delete: false,
        may_crash: true,
        may_hold: false,
        recreations: 0,
        faults: u8::MAX,
        ticks: u8::MAX,
        faulty_from: 0,
        publishers: 8,
    };
}

#[derive(Clone)]
pub(super) struct World {
    pub(super) scope: Scope,
    pub(super) rules: Rules,
    pub(super) now: Moment,
    pub(super) key: u32,
    pub(super) zxid: i64,
    pub(super) head: Option<StoredHead>,
    pub(super) members: Vec<Option<Stored>>,
    pub(super) processes: Vec<Option<Process>>,
    pub(super) faults_left: u8,
    pub(super) ticks_left: u8,
    pub(super) recreations_left: u8,
}

#[derive(Clone)]
pub(super) struct StoredHead {
    pub(super) czxid: i64,
    pub(super) version: i32,
    pub(super) head: Arc<Head>,
    pub(super) snapshot: Arc<Snapshot>,
}

#[derive(Clone)]
pub(super) struct Stored {
    pub(super) czxid: i64,
    pub(super) version: i32,
    pub(super) part: Part,
    pub(super) is_held: bool,
    /// When every lease that rests on this znode has ended.
    pub(super) lease: Moment,
}

#[derive(Clone)]
pub(super) struct Process {
    pub(super) core: Handover,
    pub(super) register: Register,
    pub(super) pending: BTreeMap<Request, Pending>,
    pub(super) wants_to_join: bool,
}

/// What is answered late. At most one of each is under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Request {
    Write,
    Publish,
}

#[derive(Clone)]
pub(super) struct Pending {
    pub(super) writes: Vec<Write>,
    /// The epoch that the process followed.
    pub(super) at: Option<Epoch>,
    sent: Moment,
    /// It has taken effect.
    pub(super) reply: Option<Outcome>,
}

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

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

fn id(slot: usize) -> MemberId {
    MemberId::new(NAMES[slot]).unwrap()
}

fn slot_of(id: &MemberId) -> usize {
    NAMES.iter().position(|name| *id == *name).unwrap()
}

impl World {
    pub(super) fn new(scope: Scope, rules: Rules) -> World {
        let ring =
            HashRing::builder().replicas(1).members(NAMES[..scope.slots].iter().copied()).build().unwrap();
        // Whoever comes last takes the key from those before it: with all members, from the one before it.
        let owners = |key: u32| -> Vec<bool> {
            (1..scope.slots)
                .map(|others| {
                    let ring = HashRing::builder()
                        .replicas(1)
                        .members(NAMES[..=others].iter().copied())
                        .build()
                        .unwrap();
                    ring.is_owner_at(NAMES[others], key)
                })
                .collect()
        };
        let candidates = ring.ranges(NAMES[scope.slots - 1]);
        let key = candidates
            .iter()
            .map(|range| *range.start())
            .find(|key| owners(*key).iter().all(|it| *it))
            .or_else(|| candidates.iter().next().map(|range| *range.start()))
            .unwrap();
        World {
            scope,
            rules,
            now: Moment::from_origin(1000 * TICK),
            key,
            zxid: 1,
            head: None,
            members: vec![None; scope.slots],
            processes: (0..scope.slots).map(|_| None).collect(),
            faults_left: scope.faults,
            ticks_left: scope.ticks,
            recreations_left: scope.recreations,
        }
    }

    /// How long a lease is, and how long others wait for it: a little less than its ticks, so that what began within
    /// a tick has passed with the last of them.
    pub(super) fn wait(&self) -> Duration {
        self.scope.lease * TICK - Duration::from_millis(1)
    }

    fn timing(&self) -> Timing {
        Timing {
            timeout: FOREVER,
            heartbeat: FOREVER,
            heartbeat_validity: self.wait(),
            margin: Duration::ZERO,
            server_tick: Duration::ZERO,
        }
    }

    fn settings(&self, slot: usize) -> Settings {
        Settings {
            is_strict: self.scope.is_strict,
            max_drain: FOREVER,
            settle: FOREVER,
            max_settle: FOREVER,
            recheck: FOREVER,
            joiner_delay: FOREVER,
            rank_delay: Duration::ZERO,
            bundle: Duration::ZERO,
            retry: Duration::ZERO,
            log_limit: 0,
            hold_down: false,
            rules: self.rules.clone(),
            ..Settings::new(id(slot), Label::Plain, 1)
        }
    }

    /// Who may act on the key at this moment.
    pub(super) fn acting(&self) -> Vec<usize> {
        let acts = |process: &Process| {
            process.register.guards.iter().any(|it| process.register.is_valid(it, self.now))
        };
        let slots = self.processes.iter().enumerate();
        slots.filter(|(_, process)| process.as_ref().is_some_and(acts)).map(|(slot, _)| slot).collect()
    }

    // --- Which steps there are --------------------------------------------------------------------------------

    pub(super) fn moves(&self) -> Vec<Move> {
        let mut moves = vec![];
        let any_fault = self.faults_left > 0;
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
        if self.recreations_left > 0 && self.head.is_some() {
            moves.push(Move::DeleteHead);
        }
        if self.ticks_left > 0 {
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
        if self.faults_left > 0 && slot >= self.scope.faulty_from {
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

    // --- What they do -----------------------------------------------------------------------------------------

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
        if is_fault && self.faults_left < u8::MAX {
            self.faults_left = self.faults_left.saturating_sub(1);
        }
        self.make(step);
        // What has ended for good does not matter any more.
        for process in self.processes.iter_mut().flatten() {
            process.register.guards.retain(|guard| !guard.is_ended);
        }
    }

    fn make(&mut self, step: Move) {
        match step {
            Move::Tick => {
                self.now = self.now + TICK;
                if self.ticks_left < u8::MAX {
                    self.ticks_left -= 1;
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
                let member = self.members[slot].as_mut().unwrap();
                member.is_held = !member.is_held;
            }
            Move::DeleteHead => {
                self.recreations_left -= 1;
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

    fn process(&mut self, slot: usize) -> &mut Process {
        self.processes[slot].as_mut().unwrap()
    }

    /// A new session, and a new znode in it.
    fn start(&mut self, slot: usize) {
        let settings = self.settings(slot);
        let mut process = self.processes[slot].take().unwrap_or_else(|| Process {
            core: Handover::new(settings),
            register: Register::default(),
            pending: BTreeMap::new(),
            wants_to_join: false,
        });
        process.pending.clear();
        process.wants_to_join = false;
        self.processes[slot] = Some(process);
        self.feed(slot, Event::SessionEnded);
        let (asked, timing) = (self.now, self.timing());
        self.feed(slot, Event::SessionBegan { asked, timing });
        // Reading the head, making it, and joining are one step here.
        assert!(std::mem::take(&mut self.process(slot).wants_to_join));
        self.zxid += 1;
        let czxid = self.zxid;
        let version = i32::try_from(czxid * 1000).unwrap();
        let part = self.process(slot).core.part();
        self.members[slot] = Some(Stored { czxid, version, part, is_held: false, lease: self.now });
        self.feed(slot, Event::Joined { czxid, version });
    }

    /// Passes an event to a process, and what follows from it at once.
    fn feed(&mut self, slot: usize, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let (now, random) = (self.now, self.zxid as u64);
            let Some(process) = &mut self.processes[slot] else { return };
            let actions = process.core.step(now, random, event);
            let at = process.core.followed;
            for action in actions {
                if let Some(marked) = self.process(slot).register.apply(&action) {
                    events.push_front(marked);
                }
                events.extend(self.perform(slot, action, at));
            }
        }
    }

    /// Does what a process asks for; gives the answer, if it comes at once.
    fn perform(&mut self, slot: usize, action: Action, at: Option<Epoch>) -> Option<Event> {
        Some(match action {
            Action::ReadHead => Event::Head(Ok(self.head.as_ref().map(|it| HeadRead {
                czxid: it.czxid,
                version: it.version,
                mzxid: 0,
                head: it.head.clone(),
            }))),
            Action::ReadSnapshot { name } => {
                let found = self.head.as_ref().filter(|head| head.head.snapshot == name);
                Event::Snapshot(Ok(found.map(|head| (*head.snapshot).clone())))
            }
            Action::ReadMembers { ids } => {
                let read = ids.into_iter().map(|id| (id.clone(), self.read(slot_of(&id))));
                Event::Members(Ok(read.collect()))
            }
            Action::ListMembers { .. } => {
                let members = (0..self.scope.slots).filter_map(|slot| Some((id(slot), self.read(slot)?)));
                Event::Listed(Ok(Listing { pzxid: 0, members: members.collect() }))
            }
            Action::StatGroup { .. } => Event::GroupStat(Ok(0)),
            Action::ReadOwn => Event::Own(Ok(self.read(slot))),
            Action::Commit { purpose, writes } => {
                let mut pending = Pending { writes, at, sent: self.now, reply: None };
                let request = match purpose {
                    Purpose::Own => Request::Write,
                    Purpose::Publish => Request::Publish,
                    _ => {
                        let outcome = self.commit(slot, &pending, purpose == Purpose::Heartbeat);
                        return Some(Event::Committed { purpose, outcome });
                    }
                };
                if purpose == Purpose::Own && !self.scope.is_full {
                    pending.reply = Some(self.commit(slot, &pending, true));
                }
                self.process(slot).pending.insert(request, pending);
                return None;
            }
            Action::Rejoin => {
                self.process(slot).wants_to_join = true;
                return None;
            }
            _ => return None,
        })
    }

    /// A transaction takes effect.
    fn commit(&mut self, slot: usize, pending: &Pending, extends: bool) -> Outcome {
        let mut writes = pending.writes.iter().enumerate();
        let refused = writes.find_map(|(index, write)| Some((index, self.refusal(slot, write)?)));
        if let Some((index, why)) = refused {
            return Outcome::Refused { index, why };
        }
        pending.writes.iter().for_each(|write| self.write(slot, write));
        if extends {
            let end = pending.sent + self.wait();
            let member = self.members[slot].as_mut().unwrap();
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
                let member = self.members[slot].as_mut().unwrap();
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

    fn apply(&mut self, slot: usize) {
        let mut pending = self.process(slot).pending.remove(&Request::Write).unwrap();
        pending.reply = Some(self.commit(slot, &pending, true));
        self.process(slot).pending.insert(Request::Write, pending);
    }

    fn answer(&mut self, slot: usize, request: Request) {
        let pending = self.process(slot).pending.remove(&request).unwrap();
        let outcome = pending.reply.clone().unwrap_or_else(|| self.commit(slot, &pending, false));
        let purpose = if request == Request::Write { Purpose::Own } else { Purpose::Publish };
        self.feed(slot, Event::Committed { purpose, outcome });
    }

    fn read(&self, slot: usize) -> Option<MemberRead> {
        self.members[slot].as_ref().map(|member| MemberRead {
            czxid: member.czxid,
            version: member.version,
            weight: 1,
            part: Some(member.part.clone()),
            fits: !member.is_held,
        })
    }

    /// Who owns the key in the newest epoch, if that is of the members that are there.
    pub(super) fn owner(&self) -> Option<usize> {
        let presence = |slot: &usize| {
            self.members[*slot].as_ref().is_some_and(|member| member.part.presence == Presence::Ready)
        };
        let members = (0..self.scope.slots).filter(presence).map(|slot| NAMES[slot]);
        let ring = HashRing::builder().replicas(1).members(members).build().unwrap();
        (0..self.scope.slots).find(|slot| ring.is_owner_at(NAMES[*slot], self.key))
    }
}
