//! Requests and answers on their way: they take time, and get lost when a connection breaks.

use super::{
    super::{
        super::types::{Event, Outcome, Refusal},
        ensemble::LEADER,
    },
    parts::{Asked, MS, Queued, Ready, SECOND, Time},
    run::Simulation,
};
use crate::backend::{CreateMode, Op, SessionId, path::ZnodePath};

impl Simulation {
    /// A delay on the network: mostly short.
    pub(super) fn delay(&mut self) -> Time {
        match self.rng.u32(0..100) {
            _ if self.is_healing => self.rng.u64(MS / 2..3 * MS),
            0..70 => self.rng.u64(MS / 2..3 * MS),
            70..95 => self.rng.u64(3 * MS..60 * MS),
            _ => self.rng.u64(60 * MS..900 * MS),
        }
    }

    pub(super) fn join(&mut self, it: usize) {
        self.processes[it].is_joining = true;
        self.ask(it, Asked::Join, vec![]);
    }

    pub(super) fn ask(&mut self, it: usize, asked: Asked, ops: Vec<Op>) {
        let Some(session) = self.processes[it].session else { return };
        self.number += 1;
        let number = self.number;
        let delay = self.delay();
        let process = &mut self.processes[it];
        process.under_way.insert(number, asked);
        let start = self.now.max(process.reconnects_at);
        // Requests of one session arrive in their order.
        process.last_reply = process.last_reply.max(start + delay) + 1;
        let (arrives, connection) = (process.last_reply, process.connection);
        if !ops.is_empty() {
            self.ready.insert(number, Ready::Ops(session, ops));
        }
        self.at(arrives, Queued::Arrive(it, connection, number));
    }

    pub(super) fn arrive(&mut self, it: usize, connection: u64, number: u64) {
        let Some(asked) = self.processes[it].under_way.get(&number).cloned() else { return };
        let Some(session) = self.processes[it].session else { return };
        let server = self.sessions[&session].server;
        if matches!(asked, Asked::Commit(_) | Asked::Join | Asked::Own) {
            if self.ensemble.servers[server].is_cut {
                // It waits at the follower, until the follower notices.
                return;
            }
            let is_late = !self.is_healing && self.rng.u32(0..100) == 0;
            let delay = if is_late { self.rng.u64(SECOND..4 * SECOND) } else { self.delay() / 2 };
            let at = (self.now + delay).max(self.leader_paused_until + 1);
            self.at(at, Queued::AtLeader(it, connection, number));
            return;
        }
        if server == LEADER {
            if self.now < self.leader_paused_until {
                self.at(self.leader_paused_until + 1, Queued::Arrive(it, connection, number));
                return;
            }
            self.touch(session);
        }
        if server == LEADER && self.sessions[&session].is_over {
            self.at(self.now + MS, Queued::SessionLost(it, connection));
            return;
        }
        let event = self.read(it, server, &asked);
        self.answer_later(it, connection, number, event, server);
    }

    pub(super) fn touch(&mut self, session: i64) {
        let now = self.now;
        if let Some(session) = self.sessions.get_mut(&session) {
            session.touched = now;
        }
    }

    pub(super) fn at_leader(&mut self, it: usize, connection: u64, number: u64) {
        if self.now < self.leader_paused_until {
            self.at(self.leader_paused_until + 1, Queued::AtLeader(it, connection, number));
            return;
        }
        let ready = self.ready.remove(&number);
        let process = &self.processes[it];
        // A transaction that has left its process takes effect, whatever has become of the process.
        let owner = if let Some(Ready::Ops(owner, _)) = &ready { Some(*owner) } else { None };
        let Some(session) = process.session.filter(|_| process.connection == connection).or(owner) else {
            return;
        };
        if self.sessions.get(&session).is_none_or(|session| session.is_over) {
            if self.processes[it].connection == connection {
                self.at(self.now + MS, Queued::SessionLost(it, connection));
            }
            return;
        }
        let server = self.sessions[&session].server;
        if server == LEADER {
            self.touch(session);
        }
        let asked = self.processes[it].under_way.get(&number).cloned();
        let event = match asked {
            Some(Asked::Own) => self.read(it, LEADER, &Asked::Own),
            Some(Asked::Join) => self.create_member(it, session),
            _ => {
                let Some(Ready::Ops(_, ops)) = ready else { return };
                let outcome = match self.denied(it, &ops) {
                    Some(index) => Outcome::Refused { index, why: Refusal::NotPermitted },
                    None => match self.ensemble.commit(SessionId(session), &ops) {
                        Ok(()) => Outcome::Applied,
                        Err((index, why)) => Outcome::Refused { index, why },
                    },
                };
                self.fire_all();
                let Some(Asked::Commit(purpose)) = asked else { return };
                Event::Committed { purpose, outcome }
            }
        };
        self.processes[it].wrote = self.ensemble.log.len() - 1;
        self.answer_later(it, connection, number, event, server);
    }

    /// A server answers a transaction when it has applied it. Without that, as in the narrow runs, a session may read what
    /// is older than its own writes. Safety does not need it; a member that has warmed up and lists the group does.
    fn catch_up(&mut self, it: usize) {
        let process = &self.processes[it];
        let (wrote, session) = (process.wrote, process.session.and_then(|it| self.sessions.get(&it)));
        let Some(server) = session.map(|session| session.server) else { return };
        if self.ensemble.servers[server].applied < wrote {
            self.ensemble.servers[server].applied = wrote;
            self.fire_all();
        }
    }

    /// Which of the operations an access control list denies: all on the head but checks.
    fn denied(&self, it: usize, ops: &[Op]) -> Option<usize> {
        let head = |path: &ZnodePath| *path == self.head || path.parent().as_ref() == Some(&self.head);
        let is_denied = self.now < self.processes[it].denied_until;
        ops.iter().position(|op| match op {
            Op::Check { .. } => false,
            Op::Set { path, .. } | Op::Create { path, .. } | Op::Delete { path, .. } => {
                is_denied && head(path)
            }
        })
    }

    /// Creates the znode of a process. That of an earlier session of the same process, and that of a process that has
    /// certainly ended, is deleted in the same transaction.
    fn create_member(&mut self, it: usize, session: i64) -> Event {
        let part = self.processes[it].core.part();
        let places = &self.processes[it].places;
        let (path, data) = (places.own.clone(), places.own_data(&part));
        let (mut ops, mut over) = (Vec::new(), 0);
        if let Some((_, stat)) = self.ensemble.newest().get(&path) {
            if stat.ephemeral_owner == Some(SessionId(session)) {
                return Event::Joined { czxid: stat.czxid, version: stat.version };
            }
            over = stat.version + 2;
            ops.push(Op::Delete { path: path.clone(), version: None });
        }
        ops.push(Op::Create { path: path.clone(), data: data.clone(), mode: CreateMode::Ephemeral });
        // A write of the earlier session may still be on its way: no version that it can expect may come again.
        ops.extend((0..over).map(|_| Op::Set { path: path.clone(), data: data.clone(), version: None }));
        let _ = self.ensemble.commit(SessionId(session), &ops);
        self.fire_all();
        let (_, stat) = self.ensemble.newest().get(&path).expect("it was created");
        Event::Joined { czxid: stat.czxid, version: stat.version }
    }

    fn answer_later(&mut self, it: usize, connection: u64, number: u64, event: Event, server: usize) {
        let delay = self.delay() + if server == LEADER { 0 } else { MS };
        let process = &mut self.processes[it];
        if process.connection != connection {
            return;
        }
        process.last_reply = process.last_reply.max(self.now + delay) + 1;
        process.seen = process.seen.max(self.ensemble.servers[server].applied);
        let at = process.last_reply;
        self.ready.insert(number, Ready::Event(event));
        self.at(at, Queued::Answer(it, connection, number));
    }

    pub(super) fn answer(&mut self, it: usize, number: u64) {
        let Some(asked) = self.processes[it].under_way.remove(&number) else { return };
        let Some(Ready::Event(event)) = self.ready.remove(&number) else {
            return;
        };
        if asked == Asked::Join {
            self.processes[it].is_joining = false;
        }
        if matches!(&event, Event::Committed { outcome: Outcome::Applied | Outcome::Refused { .. }, .. }) {
            self.processes[it].last_confirmed = self.now;
        }
        if self.profile.is_wide && matches!(event, Event::Committed { .. } | Event::Joined { .. }) {
            self.catch_up(it);
        }
        self.feed(it, event);
    }
}
