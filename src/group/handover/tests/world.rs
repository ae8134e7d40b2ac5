//! The world of the explorer: a store, a clock that ticks, and a few processes with one key.
//!
//! One tick is the shortest time. A lease lasts one tick or two; a process that is not told of a tick is one that is not
//! run. Requests are answered in any order, and at any time; a request other than a write to one's own znode takes effect
//! when it is answered.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    super::{
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
const FOREVER: Duration = Duration::from_secs(1 << 40);

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
    /// How often the head may be deleted.
    pub(super) recreations: u8,
    /// How many starts, crashes, expiries and deletions there may be; `u8::MAX`: any number.
    pub(super) faults: u8,
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
        recreations: 0,
        faults: u8::MAX,
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

/// At most one of each is under way.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Request {
    Head,
    Members,
    List,
    Own,
    Heartbeat,
    Write,
    Publish,
    Create,
    Check,
    Leave,
}

#[derive(Clone)]
pub(super) struct Pending {
    pub(super) ids: Vec<MemberId>,
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
    Start(usize),
    Crash(usize),
    Expire(usize),
    Delete(usize),
    DeleteHead,
    Take(usize),
    Drop(usize, usize),
    /// A write takes effect.
    Apply(usize),
    Answer(usize, Request),
    /// The watch of the head fires.
    HeadChanged(usize),
    /// The watch of a member fires.
    MemberChanged(usize, usize),
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
            recreations_left: scope.recreations,
        }
    }

    /// What others wait for a lease.
    pub(super) fn wait(&self) -> Duration {
        self.scope.lease * TICK
    }

    fn timing(&self) -> Timing {
        Timing {
            timeout: FOREVER,
            heartbeat: Duration::ZERO,
            heartbeat_validity: self.wait(),
            margin: Duration::ZERO,
            server_tick: Duration::ZERO,
        }
    }

    fn settings(&self, slot: usize) -> Settings {
        Settings {
            is_strict: self.scope.is_strict,
            max_drain: FOREVER,
            settle: Duration::ZERO,
            max_settle: Duration::ZERO,
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
        moves.push(Move::Tick);
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
        let followed = process.core.followed;
        let stored = self.head.as_ref().map(|head| Epoch { head: head.czxid, version: head.version });
        if followed.is_some() && stored != followed && !process.pending.contains_key(&Request::Head) {
            moves.push(Move::HeadChanged(slot));
        }
        for (who, read) in &process.core.donors.read {
            let other = slot_of(who);
            let stored = self.members[other].as_ref().map(|it| (it.czxid, it.version));
            if stored != read.read.as_ref().map(|it| (it.czxid, it.version)) {
                moves.push(Move::MemberChanged(slot, other));
            }
        }
        if slot < self.scope.publishers
            && self.has_news(process)
            && !process.pending.contains_key(&Request::List)
        {
            moves.push(Move::Publish(slot));
        }
        if process.core.may_start(self.now, self.key) && process.register.guards.len() < self.scope.guards {
            moves.push(Move::Take(slot));
        }
        moves.extend((0..process.register.guards.len()).map(|index| Move::Drop(slot, index)));
        if self.faults_left > 0 {
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
        let floors = histories.filter(|it| it.epoch.head == followed.head).map(|it| it.floor());
        let stored = self.head.iter().filter(|head| head.czxid == followed.head).map(|head| head.head.floor);
        let oldest = floors.chain(stored).min().unwrap_or(0);
        followed.version + 1 - oldest <= self.scope.window && {
            let stored =
                self.members.iter().enumerate().filter_map(|(slot, it)| Some((id(slot), it.as_ref()?.czxid)));
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
        let is_fault = matches!(step, Move::Start(_) | Move::Crash(_) | Move::Expire(_) | Move::Delete(_));
        if is_fault && self.faults_left < u8::MAX {
            self.faults_left = self.faults_left.saturating_sub(1);
        }
        match step {
            Move::Tick => {
                self.now = self.now + TICK;
                for slot in 0..self.scope.slots {
                    self.feed(slot, Event::Tick);
                }
            }
            Move::Start(slot) => self.start(slot),
            Move::Crash(slot) => {
                self.processes[slot] = None;
                if !self.scope.znodes_stay {
                    self.members[slot] = None;
                }
            }
            Move::Expire(slot) | Move::Delete(slot) => self.members[slot] = None,
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
            Move::Apply(slot) => self.apply(slot, Request::Write),
            Move::Answer(slot, request) => self.answer(slot, request),
            Move::HeadChanged(slot) => self.feed(slot, Event::HeadChanged),
            Move::MemberChanged(slot, other) => self.feed(slot, Event::MemberChanged(id(other))),
            Move::Publish(slot) => self.feed(slot, Event::ChildrenChanged),
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
        while !self.process(slot).wants_to_join {
            let request = *self.process(slot).pending.keys().next().unwrap();
            self.answer(slot, request);
        }
        self.process(slot).wants_to_join = false;
        self.process(slot).pending.clear();
        self.zxid += 1;
        let czxid = self.zxid;
        let version = i32::try_from(czxid * 1000).unwrap();
        let part = self.process(slot).core.part();
        self.members[slot] = Some(Stored { czxid, version, part, lease: self.now });
        self.feed(slot, Event::Joined { czxid, version });
    }

    /// Passes an event to a process, and what follows from it at once.
    fn feed(&mut self, slot: usize, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let (now, random) = (self.now, self.zxid as u64);
            let snapshot = self.head.as_ref().map(|head| (head.head.snapshot, head.snapshot.clone()));
            let Some(process) = &mut self.processes[slot] else { return };
            let actions = process.core.step(now, random, event);
            let mut marked = None;
            for action in actions {
                marked = process.register.apply(&action).or(marked);
                let (request, ids, writes) = match action {
                    Action::ReadHead => (Request::Head, vec![], vec![]),
                    Action::ReadMembers { ids } => (Request::Members, ids, vec![]),
                    Action::ListMembers { .. } => (Request::List, vec![], vec![]),
                    Action::ReadOwn => (Request::Own, vec![], vec![]),
                    Action::Commit { purpose, writes } => (Request::of(purpose), vec![], writes),
                    Action::ReadSnapshot { name } => {
                        let found = snapshot.as_ref().filter(|(it, _)| *it == name);
                        events.push_back(Event::Snapshot(Ok(found.map(|(_, it)| (**it).clone()))));
                        continue;
                    }
                    Action::StatGroup { .. } => {
                        events.push_back(Event::GroupStat(Ok(0)));
                        continue;
                    }
                    Action::Rejoin => {
                        process.wants_to_join = true;
                        continue;
                    }
                    _ => continue,
                };
                let at = process.core.followed;
                process.pending.insert(request, Pending { ids, writes, at, sent: now, reply: None });
            }
            if let Some(marked) = marked {
                events.push_front(marked);
            }
            if !self.scope.is_full
                && process.pending.get(&Request::Write).is_some_and(|it| it.reply.is_none())
            {
                self.apply(slot, Request::Write);
            }
        }
    }

    /// A transaction takes effect.
    fn apply(&mut self, slot: usize, request: Request) {
        let pending = self.process(slot).pending[&request].clone();
        let refused =
            pending.writes.iter().enumerate().find_map(|(index, write)| {
                self.refusal(slot, write).map(|why| Outcome::Refused { index, why })
            });
        if refused.is_none() {
            for write in &pending.writes {
                self.write(slot, write);
            }
            if matches!(request, Request::Heartbeat | Request::Write) {
                let end = pending.sent + self.wait();
                let member = self.members[slot].as_mut().unwrap();
                member.lease = member.lease.max(end);
            }
        }
        let pending = self.process(slot).pending.get_mut(&request).unwrap();
        pending.reply = Some(refused.unwrap_or(Outcome::Applied));
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

    fn answer(&mut self, slot: usize, request: Request) {
        if let Some(purpose) = request.purpose() {
            if self.process(slot).pending[&request].reply.is_none() {
                self.apply(slot, request);
            }
            let pending = self.process(slot).pending.remove(&request).unwrap();
            let outcome = pending.reply.unwrap();
            self.feed(slot, Event::Committed { purpose, outcome });
            return;
        }
        let pending = self.process(slot).pending.remove(&request).unwrap();
        let event = match request {
            Request::Head => Event::Head(Ok(self.head.as_ref().map(|it| HeadRead {
                czxid: it.czxid,
                version: it.version,
                mzxid: 0,
                head: it.head.clone(),
            }))),
            Request::Members => {
                let read = pending.ids.into_iter().map(|id| (id.clone(), self.read(slot_of(&id))));
                Event::Members(Ok(read.collect()))
            }
            Request::List => {
                let members = (0..self.scope.slots).filter_map(|slot| Some((id(slot), self.read(slot)?)));
                Event::Listed(Ok(Listing { pzxid: 0, members: members.collect() }))
            }
            _ => Event::Own(Ok(self.read(slot))),
        };
        self.feed(slot, event);
    }

    fn read(&self, slot: usize) -> Option<MemberRead> {
        self.members[slot].as_ref().map(|member| MemberRead {
            czxid: member.czxid,
            version: member.version,
            weight: 1,
            part: Some(member.part.clone()),
            fits: true,
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

impl Request {
    fn of(purpose: Purpose) -> Request {
        match purpose {
            Purpose::Heartbeat => Request::Heartbeat,
            Purpose::Own => Request::Write,
            Purpose::Publish => Request::Publish,
            Purpose::CreateHead => Request::Create,
            Purpose::CheckDonor => Request::Check,
            Purpose::Leave => Request::Leave,
        }
    }

    fn purpose(self) -> Option<Purpose> {
        Some(match self {
            Request::Heartbeat => Purpose::Heartbeat,
            Request::Write => Purpose::Own,
            Request::Publish => Purpose::Publish,
            Request::Create => Purpose::CreateHead,
            Request::Check => Purpose::CheckDonor,
            Request::Leave => Purpose::Leave,
            Request::Head | Request::Members | Request::List | Request::Own => return None,
        })
    }
}
