//! A run: everything that happens, in its order.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap},
};

use super::{
    super::super::{rules::Rules, types::Event},
    super::ensemble::Ensemble,
    parts::{
        FAULTS, Process, Profile, Queued, REST, Ready, SECOND, SERVER_TICK, Session, Time, Watched, process,
    },
};
use crate::{
    backend::{CreateMode, Op, SessionId, path::ZnodePath},
    member::MemberId,
    ring::Label,
};

/// How often it is checked whether the fleet has come to rest.
const CHECK: Time = SECOND / 4;

pub(super) struct Simulation {
    pub(super) rng: fastrand::Rng,
    pub(super) profile: Profile,
    pub(super) now: Time,
    pub(super) number: u64,
    pub(super) queue: BinaryHeap<Reverse<(Time, u64, Queued)>>,
    /// What waits under the number of a request.
    pub(super) ready: BTreeMap<u64, Ready>,
    pub(super) ensemble: Ensemble,
    pub(super) leader_paused_until: Time,
    /// Whether a follower is about to apply something.
    pub(super) is_replicating: [bool; 3],
    pub(super) sessions: BTreeMap<i64, Session>,
    pub(super) processes: Vec<Process>,
    pub(super) group: ZnodePath,
    pub(super) head: ZnodePath,
    pub(super) keys: Vec<u32>,
    /// The weights of members that have changed theirs.
    pub(super) weights: BTreeMap<MemberId, u32>,
    pub(super) is_healing: bool,
    /// How long after that the fleet had come to rest.
    pub(super) rested: Option<Time>,
    /// Everything that happened, as one number.
    pub(super) digest: u64,
    /// Whether that has each action in full.
    pub(super) is_exact: bool,
    pub(super) actions: u64,
    pub(super) steps: u64,
    pub(super) violation: Option<String>,
    pub(super) trace: Option<Vec<String>>,
}

impl Simulation {
    pub(super) fn new(seed: u64, rules: &Rules) -> Simulation {
        Simulation::on(Label::Plain, seed, rules)
    }

    /// With rings of another kind.
    pub(super) fn on(label: Label, seed: u64, rules: &Rules) -> Simulation {
        Simulation::of(label, false, seed, rules)
    }

    /// With faults of more kinds.
    pub(super) fn wide(seed: u64, rules: &Rules) -> Simulation {
        Simulation::of(Label::Plain, true, seed, rules)
    }

    fn of(label: Label, is_wide: bool, seed: u64, rules: &Rules) -> Simulation {
        let mut rng = fastrand::Rng::with_seed(seed);
        let profile = Profile {
            processes: rng.usize(2..=4),
            keys: rng.usize(2..=6),
            is_strict: seed % 4 == 2,
            deletes: seed % 4 >= 2,
            is_hectic: (seed / 4).is_multiple_of(2),
            is_restless: seed % 4 == 1 || seed % 16 == 2 || seed % 16 == 3,
            is_wide,
            label,
        };
        let namespace = ZnodePath::parse("/tooz").expect("a path");
        let processes =
            (0..profile.processes).map(|number| process(number, &namespace, profile, rules, &mut rng));
        let processes: Vec<Process> = processes.collect();
        let places = processes[0].places.clone();
        let keys = (0..profile.keys).map(|_| rng.u32(..)).collect();
        let mut simulation = Simulation {
            rng,
            profile,
            now: 0,
            number: 0,
            queue: BinaryHeap::new(),
            ready: BTreeMap::new(),
            ensemble: Ensemble::new(3),
            leader_paused_until: 0,
            is_replicating: [false; 3],
            sessions: BTreeMap::new(),
            processes,
            group: places.group,
            head: places.head,
            keys,
            weights: BTreeMap::new(),
            is_healing: false,
            rested: None,
            digest: seed,
            is_exact: false,
            actions: 0,
            steps: 0,
            violation: None,
            trace: std::env::var_os("SIM_TRACE").map(|_| Vec::new()),
        };
        simulation.begin();
        simulation
    }

    fn begin(&mut self) {
        let parents = [self.group.parent(), Some(self.group.clone()), self.head.parent()];
        for path in parents.into_iter().flatten() {
            let op = Op::Create { path, data: Vec::new(), mode: CreateMode::Persistent };
            let _ = self.ensemble.commit(SessionId(0), &[op]);
        }
        for server in 1..3 {
            self.ensemble.servers[server].applied = self.ensemble.log.len() - 1;
        }
        for process in 0..self.processes.len() {
            let start = self.rng.u64(0..2 * SECOND);
            self.at(start, Queued::Start(process, 0));
        }
        self.at(SERVER_TICK, Queued::LeaderTick);
        let first = self.rng.u64(SECOND / 2..3 * SECOND);
        self.at(first, Queued::Fault);
        self.at(FAULTS, Queued::Heal);
        for time in (FAULTS + CHECK..=FAULTS + REST).step_by(CHECK as usize) {
            self.at(time, Queued::Check);
        }
    }

    /// Runs to the end, or to the first violation.
    pub(super) fn run(&mut self) {
        while let Some(Reverse((time, _, event))) = self.queue.pop() {
            self.now = time;
            if self.trace.is_some() {
                self.note(format!("{event:?}"));
            }
            self.handle(event);
            if time >= FAULTS + REST || self.violation.is_some() {
                return;
            }
        }
    }

    fn handle(&mut self, event: Queued) {
        let (it, is_current, is_for_process) = match &event {
            Queued::Arrive(it, connection, _) | Queued::AtLeader(it, connection, _) => (
                *it,
                self.processes[*it].connection == *connection || matches!(event, Queued::AtLeader(..)),
                false,
            ),
            Queued::Answer(it, connection, _)
            | Queued::Watch(it, connection, _)
            | Queued::SessionLost(it, connection) => {
                (*it, self.processes[*it].connection == *connection, true)
            }
            Queued::Wake(it, life)
            | Queued::Open(it, life)
            | Queued::Warm(it, life)
            | Queued::Work(it, life)
            | Queued::End(it, life, _) => {
                (*it, self.processes[*it].life == *life && self.processes[*it].is_alive, true)
            }
            Queued::Start(it, life) => {
                (*it, self.processes[*it].life == *life && !self.processes[*it].is_alive, false)
            }
            _ => (0, true, false),
        };
        if !is_current {
            return;
        }
        if is_for_process && self.now < self.processes[it].paused_until {
            self.at(self.processes[it].paused_until, event);
            return;
        }
        match event {
            Queued::Arrive(it, connection, number) => self.arrive(it, connection, number),
            Queued::AtLeader(it, connection, number) => self.at_leader(it, connection, number),
            Queued::Answer(it, _, number) => self.answer(it, number),
            Queued::Watch(it, _, watched) => {
                self.processes[it].watches.remove(&watched);
                let event = match watched {
                    Watched::Head => Event::HeadChanged,
                    Watched::Member(id) => Event::MemberChanged(id),
                    Watched::Children => Event::ChildrenChanged,
                };
                self.feed(it, event);
            }
            Queued::Wake(it, _) => {
                if self.processes[it].wake <= self.now {
                    self.feed(it, Event::Tick);
                }
            }
            Queued::Open(it, _) => {
                if self.processes[it].session.is_none() {
                    self.open(it);
                }
            }
            Queued::Work(it, _) => self.work(it),
            Queued::End(it, _, name) => self.end_guard(it, name),
            Queued::Start(it, _) => self.start(it),
            Queued::Warm(it, _) => self.feed(it, Event::Ready),
            Queued::EndPlain => self.end_plain(),
            Queued::SessionLost(it, _) => self.lose_session(it),
            Queued::Replicate(server) => self.replicate(server),
            Queued::LeaderTick => self.leader_tick(),
            Queued::Fault => self.fault(),
            Queued::Repair(server) => self.repair(server),
            Queued::Heal => self.heal(),
            Queued::Check => self.check(),
        }
    }

    pub(super) fn at(&mut self, time: Time, event: Queued) {
        self.number += 1;
        self.queue.push(Reverse((time, self.number, event)));
    }

    pub(super) fn note(&mut self, what: impl Into<String>) {
        let what = what.into();
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9.3} {what}", now as f64 / 1e6));
        }
    }

    /// The last steps, if they were noted.
    pub(super) fn story(&self) -> String {
        let lines = self.trace.iter().flatten();
        lines.map(|line| format!("{line}\n")).collect()
    }

    pub(super) fn violate(&mut self, what: impl Into<String>) {
        let what = what.into();
        self.violation.get_or_insert(format!("after {:.3} s: {what}", self.now as f64 / 1e6));
    }
}
