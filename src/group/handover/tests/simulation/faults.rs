//! The faults, and how they are healed.

use super::{
    super::super::types::Event,
    parts::{MS, Queued, SECOND, TIMEOUT, duration},
    run::Simulation,
};
use crate::{
    backend::{CreateMode, Op, SessionId},
    group::member::Payload,
};

/// The id of a member that does not use this library.
const PLAIN: &str = "plain";

impl Simulation {
    pub(super) fn fault(&mut self) {
        if self.is_healing {
            return;
        }
        let it = self.rng.usize(..self.processes.len());
        let is_alive = self.processes[it].is_alive;
        let kind =
            if self.profile.is_restless && self.rng.u32(0..10) < 8 { 99 } else { self.rng.u32(0..100) };
        self.note(format!("fault {kind} at {}", self.processes[it].id));
        match kind {
            _ if !is_alive => {}
            _ if self.profile.is_wide && self.rng.bool() => self.wide_fault(it),
            0..12 => {
                self.crash(it);
                let life = self.processes[it].life;
                let pause = if self.profile.is_hectic {
                    self.rng.u64(20 * MS..SECOND)
                } else {
                    self.rng.u64(20 * MS..2 * TIMEOUT)
                };
                self.at(self.now + pause, Queued::Start(it, life));
            }
            12..22 => {
                self.processes[it].leaves = true;
                let is_idle = self.processes[it].register.guards.is_empty();
                let drain = duration(self.rng.u64(100 * MS..3 * SECOND));
                self.feed(it, Event::Leave { is_idle, drain });
            }
            22..36 => {
                let pause = self.rng.u64(50 * MS..2 * TIMEOUT);
                self.processes[it].paused_until = self.now + pause;
            }
            36..46 => self.break_connection(it),
            46..52 => {
                let server = self.rng.usize(1..3);
                self.ensemble.servers[server].is_cut = true;
                let pause = self.rng.u64(100 * MS..2 * TIMEOUT);
                self.at(self.now + pause, Queued::Repair(server));
            }
            52..58 => {
                let pause = self.rng.u64(100 * MS..TIMEOUT + SECOND);
                self.leader_paused_until = self.now + pause;
            }
            58..72 if self.profile.is_strict => self.delete_member(it),
            58..86 if self.profile.deletes => {
                let its = self.ensemble.newest().nodes.keys();
                let its =
                    its.filter(|path| **path == self.head || path.parent().as_ref() == Some(&self.head));
                let mut ops: Vec<Op> =
                    its.map(|path| Op::Delete { path: path.clone(), version: None }).collect();
                ops.reverse();
                let _ = self.ensemble.commit(SessionId(0), &ops);
                self.fire_all();
            }
            // It changes its weight, so that keys move between members that live.
            _ => {
                let weight = self.rng.u32(1..6);
                self.weights.insert(self.processes[it].id.clone(), weight);
                self.feed(it, Event::ChildrenChanged);
            }
        }
        let pause = if self.profile.is_restless {
            self.rng.u64(10 * MS..200 * MS)
        } else if self.profile.is_hectic {
            self.rng.u64(20 * MS..900 * MS)
        } else {
            self.rng.u64(200 * MS..3 * SECOND)
        };
        self.at(self.now + pause, Queued::Fault);
    }

    fn wide_fault(&mut self, it: usize) {
        let kind = self.rng.u32(0..10);
        self.note(format!("wide fault {kind}"));
        match kind {
            // They come again when the head or a member is read anew.
            0..3 => self.processes[it].watches.clear(),
            3..5 => {
                let pause = self.rng.u64(100 * MS..2 * TIMEOUT);
                self.processes[it].denied_until = self.now + pause;
            }
            5..8 => {
                let places = &self.processes[it].places;
                let path = places.group.join(PLAIN).expect("a name");
                let data = Payload { weight: 1, ours: None }.encode();
                let op = Op::Create { path, data, mode: CreateMode::Ephemeral };
                let _ = self.ensemble.commit(SessionId(0), &[op]);
                self.fire_all();
                let pause = self.rng.u64(100 * MS..2 * TIMEOUT);
                self.at(self.now + pause, Queued::EndPlain);
            }
            _ => {
                let pause = self.rng.bool();
                self.feed(it, Event::Pause(pause));
            }
        }
    }

    pub(super) fn end_plain(&mut self) {
        let path = self.group.join(PLAIN).expect("a name");
        let _ = self.ensemble.commit(SessionId(0), &[Op::Delete { path, version: None }]);
        self.fire_all();
    }

    /// An operator deletes the znode of a member that lives.
    fn delete_member(&mut self, it: usize) {
        let op = Op::Delete { path: self.processes[it].places.own.clone(), version: None };
        let _ = self.ensemble.commit(SessionId(0), &[op]);
        self.fire_all();
    }

    pub(super) fn heal(&mut self) {
        self.is_healing = true;
        self.leader_paused_until = self.now;
        self.end_plain();
        for server in 1..3 {
            self.repair(server);
        }
        for it in 0..self.processes.len() {
            self.processes[it].paused_until = self.now;
            self.processes[it].denied_until = self.now;
            if !self.processes[it].is_alive {
                let life = self.processes[it].life;
                self.at(self.now + 10 * MS, Queued::Start(it, life));
            }
        }
    }

    pub(super) fn repair(&mut self, server: usize) {
        self.ensemble.servers[server].is_cut = false;
        self.replicate_soon();
        // Its clients notice that requests were lost.
        for it in 0..self.processes.len() {
            let session = self.processes[it].session.and_then(|session| self.sessions.get(&session));
            if session.is_some_and(|session| session.server == server) && self.processes[it].is_alive {
                self.break_connection(it);
            }
        }
    }
}
