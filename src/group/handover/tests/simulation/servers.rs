//! The servers: what they answer, when followers apply what the leader has committed, watches, and ends of sessions.

use super::{
    super::super::{
        places::Places,
        types::{Event, GroupStat, Listing, ReadError},
    },
    parts::{Asked, MS, Queued, SERVER_TICK, TIMEOUT, Watched},
    run::Simulation,
};
use crate::{
    backend::{SessionId, path::ZnodePath},
    member::MemberId,
};

impl Simulation {
    pub(super) fn any_server(&mut self, seen: usize) -> usize {
        let fit = |it: &usize| self.ensemble.servers[*it].applied >= seen;
        let fit: Vec<usize> = (0..3).filter(fit).collect();
        fit[self.rng.usize(..fit.len())]
    }

    /// What a server answers.
    pub(super) fn read(&mut self, it: usize, server: usize, asked: &Asked) -> Event {
        let state = self.ensemble.at(server).clone();
        let places = &self.processes[it].places;
        let member = |id: &MemberId| {
            let path = places.group.join(id.as_str()).expect("a name");
            state.get(&path).and_then(|node| places.read_member(node))
        };
        let mut watches = Vec::new();
        let event = match asked {
            Asked::Head if self.now < self.processes[it].denied_until => {
                Event::Head(Err(ReadError::NotPermitted))
            }
            Asked::Head => {
                let node = state.get(&places.head);
                watches.push((Watched::Head, node.map_or(-1, |node| node.1.mzxid)));
                match node.map(Places::read_head) {
                    None => Event::Head(Ok(None)),
                    Some(Ok(read)) => Event::Head(Ok(Some(read))),
                    Some(Err(error)) => Event::Head(Err(ReadError::Format(error))),
                }
            }
            Asked::Snapshot(name) => {
                let node = state.get(&places.snapshot(*name));
                let read = node.map(|node| Places::read_snapshot(node).expect("it was written by a member"));
                Event::Snapshot(Ok(read))
            }
            Asked::Members(ids) => {
                for id in ids {
                    let path = places.group.join(id.as_str()).expect("a name");
                    let seen = state.get(&path).map_or(-1, |node| node.1.mzxid);
                    watches.push((Watched::Member(id.clone()), seen));
                }
                Event::Members(Ok(ids.iter().map(|id| (id.clone(), member(id))).collect()))
            }
            Asked::List(watch) | Asked::Stat(watch) => {
                let pzxid = state.pzxid(&places.group);
                if *watch {
                    watches.push((Watched::Children, pzxid));
                }
                if matches!(asked, Asked::Stat(_)) {
                    let children = state.children(&places.group).count();
                    Event::GroupStat(Ok(GroupStat { pzxid, children }))
                } else {
                    let members = state.children(&places.group).filter_map(|(name, node)| {
                        let (id, mut read) = (MemberId::new(name).ok()?, places.read_member(node)?);
                        read.weight = self.weights.get(&id).copied().unwrap_or(1);
                        Some((id, read))
                    });
                    Event::Listed(Ok(Listing { pzxid, members: members.collect() }))
                }
            }
            Asked::Own | Asked::Commit(_) | Asked::Join => Event::Own(Ok(member(&self.processes[it].id))),
        };
        let watches = watches.into_iter().map(|(watched, seen)| (watched, (seen, false)));
        self.processes[it].watches.extend(watches);
        event
    }

    /// Fires the watches of processes whose server shows a change.
    pub(super) fn fire_all(&mut self) {
        for it in 0..self.processes.len() {
            self.fire_watches(it);
        }
        self.replicate_soon();
    }

    /// Followers apply what they have not applied yet.
    pub(super) fn replicate_soon(&mut self) {
        let newest = self.ensemble.log.len() - 1;
        for server in 1..3 {
            let follower = &self.ensemble.servers[server];
            if follower.applied < newest && !follower.is_cut && !self.is_replicating[server] {
                self.is_replicating[server] = true;
                let lags = !self.is_healing && self.rng.u32(0..40) == 0;
                let pause = if lags { self.rng.u64(10 * MS..400 * MS) } else { self.rng.u64(MS / 2..4 * MS) };
                self.at((self.now + pause).max(self.leader_paused_until), Queued::Replicate(server));
            }
        }
    }

    pub(super) fn fire_watches(&mut self, it: usize) {
        let process = &self.processes[it];
        let Some(session) = process.session.and_then(|session| self.sessions.get(&session)) else { return };
        let state = self.ensemble.at(session.server).clone();
        let mzxid = |path: &ZnodePath| state.get(path).map_or(-1, |node| node.1.mzxid);
        let fired: Vec<Watched> = process
            .watches
            .iter()
            .filter(|(watched, (seen, is_on_its_way))| {
                let found = match watched {
                    Watched::Head => mzxid(&process.places.head),
                    Watched::Member(id) => mzxid(&process.places.group.join(id.as_str()).expect("a name")),
                    Watched::Children => state.pzxid(&process.places.group),
                };
                found != *seen && !is_on_its_way
            })
            .map(|(watched, _)| watched.clone())
            .collect();
        for watched in fired {
            if let Some((_, is_on_its_way)) = self.processes[it].watches.get_mut(&watched) {
                *is_on_its_way = true;
            }
            let delay = self.delay() * if self.is_healing { 1 } else { self.rng.u64(1..4) };
            let process = &self.processes[it];
            let at = (self.now + delay).max(process.reconnects_at);
            let connection = process.connection;
            self.at(at, Queued::Watch(it, connection, watched));
        }
    }

    pub(super) fn expire(&mut self, session: i64) {
        if let Some(it) = self.sessions.get_mut(&session) {
            it.is_over = true;
        }
        self.ensemble.expire(SessionId(session));
        self.fire_all();
    }

    /// A follower applies what it has received.
    pub(super) fn replicate(&mut self, server: usize) {
        self.is_replicating[server] = false;
        if !self.ensemble.servers[server].is_cut {
            self.ensemble.servers[server].applied = self.ensemble.log.len() - 1;
            self.fire_all();
        }
    }

    /// The leader hears of the sessions at its followers, and ends those that it has not heard of for their timeout.
    pub(super) fn leader_tick(&mut self) {
        self.at(self.now + SERVER_TICK, Queued::LeaderTick);
        if self.now < self.leader_paused_until {
            return;
        }
        let touching: Vec<i64> = self
            .processes
            .iter()
            .filter(|it| it.is_alive && self.now >= it.paused_until && self.now >= it.reconnects_at)
            .filter_map(|it| it.session)
            .filter(|session| {
                self.sessions.get(session).is_some_and(|it| !self.ensemble.servers[it.server].is_cut)
            })
            .collect();
        let over: Vec<i64> = self
            .sessions
            .iter()
            .filter(|(_, it)| !it.is_over && self.now > it.touched + TIMEOUT)
            .map(|(session, _)| *session)
            .collect();
        for session in over {
            self.expire(session);
            let owner = self.processes.iter().position(|it| it.session == Some(session) && it.is_alive);
            if let Some(it) = owner.filter(|_| !self.ensemble.servers[self.sessions[&session].server].is_cut)
            {
                let connection = self.processes[it].connection;
                let delay = self.delay();
                self.at(self.now + delay, Queued::SessionLost(it, connection));
            }
        }
        for session in touching {
            self.touch(session);
        }
    }
}
