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
        super::{
            rules::Rules,
            settings::Settings,
            state::Handover,
            types::{
                Action, Epoch, Event, GroupStat, Head, HeadRead, Listing, Outcome, Part, Purpose, Snapshot,
                Write,
            },
        },
        register::Register,
    },
    scope::{Budget, Scope},
};
use crate::{
    clock::Moment,
    member::MemberId,
    ring::{HashRing, Label},
    session::timing::Timing,
};

pub(super) const TICK: Duration = Duration::from_secs(1);
const FOREVER: Duration = Duration::from_secs(1 << 32);

#[derive(Clone)]
pub(super) struct World {
    pub(super) scope: Scope,
    pub(super) rules: Rules,
    pub(super) now: Moment,
    pub(super) key: u32,
    pub(super) zxid: i64,
    pub(super) head: Option<StoredHead>,
    pub(super) members: Vec<Option<Arc<Stored>>>,
    /// Shared with the worlds before, as long as nothing happens to it.
    pub(super) processes: Vec<Option<Arc<Process>>>,
    pub(super) left: Budget,
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
    pub(super) sent: Moment,
    /// It has taken effect.
    pub(super) reply: Option<Outcome>,
}

pub(super) const NAMES: [&str; 4] = ["a", "b", "c", "d"];

pub(super) fn id(slot: usize) -> MemberId {
    MemberId::new(NAMES[slot]).unwrap()
}

pub(super) fn slot_of(id: &MemberId) -> usize {
    NAMES.iter().position(|name| *id == *name).unwrap()
}

impl World {
    pub(super) fn new(scope: Scope, rules: Rules) -> World {
        let ring =
            HashRing::builder().replicas(1).members(NAMES[..scope.slots].iter().copied()).build().unwrap();
        // The member that comes last takes the key from those before it: with all members, from the one before it.
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
            left: scope.budget,
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
            heartbeat: FOREVER / 8,
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
        slots.filter(|(_, process)| process.as_deref().is_some_and(acts)).map(|(slot, _)| slot).collect()
    }

    pub(super) fn process(&mut self, slot: usize) -> &mut Process {
        Arc::make_mut(self.processes[slot].as_mut().unwrap())
    }

    pub(super) fn member(&mut self, slot: usize) -> &mut Stored {
        Arc::make_mut(self.members[slot].as_mut().unwrap())
    }

    /// A new session, and a new znode in it.
    pub(super) fn start(&mut self, slot: usize) {
        let settings = self.settings(slot);
        self.processes[slot].get_or_insert_with(|| {
            Arc::new(Process {
                core: Handover::new(settings),
                register: Register::default(),
                pending: BTreeMap::new(),
                wants_to_join: false,
            })
        });
        let process = self.process(slot);
        process.pending.clear();
        process.wants_to_join = false;
        self.feed(slot, Event::SessionEnded);
        let (asked, timing) = (self.now, self.timing());
        self.feed(slot, Event::SessionBegan { asked, timing });
        // Reading the head, making it, and joining are one step here.
        assert!(std::mem::take(&mut self.process(slot).wants_to_join));
        self.zxid += 1;
        let czxid = self.zxid;
        let version = i32::try_from(czxid * 1000).unwrap();
        let part = self.process(slot).core.part();
        let lease = self.now;
        self.members[slot] = Some(Arc::new(Stored { czxid, version, part, is_held: false, lease }));
        self.feed(slot, Event::Joined { czxid, version });
    }

    /// Passes an event to a process, and what follows from it at once.
    pub(super) fn feed(&mut self, slot: usize, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            let (now, random) = (self.now, self.zxid as u64);
            if self.processes[slot].is_none() {
                return;
            }
            let process = self.process(slot);
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
            Action::StatGroup { .. } => {
                Event::GroupStat(Ok(GroupStat { pzxid: 0, children: self.scope.slots }))
            }
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
}
