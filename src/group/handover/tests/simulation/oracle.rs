//! The work of the members, and the oracle: no two act on one key, and at the end all have come to rest.

use std::collections::BTreeSet;

use super::{
    super::super::types::Event,
    parts::{FAULTS, MS, Queued, REST, SECOND, SETTLES, TIMEOUT},
    run::Simulation,
};

impl Simulation {
    pub(super) fn work(&mut self, it: usize) {
        let now = self.clock(it, self.now);
        if self.now > self.processes[it].last_confirmed + TIMEOUT && self.processes[it].session.is_some() {
            self.lose_session(it);
        }
        let key = self.keys[self.rng.usize(..self.keys.len())];
        let process = &mut self.processes[it];
        if process.core.may_start(now, key) && process.register.guards.len() < 3 {
            self.number += 1;
            process.register.start(self.number, key);
            self.actions += 1;
            let (name, life) = (self.number, process.life);
            let lasts = match self.rng.u32(0..10) {
                0..5 => self.rng.u64(MS..50 * MS),
                5..8 => self.rng.u64(50 * MS..SECOND),
                _ => self.rng.u64(SECOND..7 * SECOND),
            };
            // At the end all work has to have ended that another member may wait for.
            let lasts = if self.is_healing { lasts.min(SECOND) } else { lasts };
            self.at(self.now + lasts, Queued::End(it, life, name));
            self.note(format!("  {} acts on {key} for {} ms", self.processes[it].id, lasts / MS));
            self.watch_over(it);
        }
        let life = self.processes[it].life;
        let pause = self.rng.u64(5 * MS..60 * MS);
        self.at(self.now + pause, Queued::Work(it, life));
    }

    pub(super) fn end_guard(&mut self, it: usize, name: u64) {
        let guards = &self.processes[it].register.guards;
        let Some(index) = guards.iter().position(|guard| guard.name == name) else { return };
        if let Some(event) = self.processes[it].register.drop_guard(index) {
            self.feed(it, event);
        }
    }

    /// The oracle: no other process may act on what this process may act on.
    pub(super) fn watch_over(&mut self, it: usize) {
        let valid = |it: usize| -> BTreeSet<u32> {
            let process = &self.processes[it];
            if !process.is_alive || process.register.guards.is_empty() {
                return BTreeSet::new();
            }
            let now = self.clock(it, self.now);
            let guards = process.register.guards.iter().filter(|guard| process.register.is_valid(guard, now));
            guards.map(|guard| guard.position).collect()
        };
        let mine = valid(it);
        if mine.is_empty() {
            return;
        }
        for other in (0..self.processes.len()).filter(|other| *other != it) {
            if let Some(key) = valid(other).intersection(&mine).next() {
                let (a, b) = (&self.processes[it].id, &self.processes[other].id);
                self.violate(format!("{a} and {b} act on {key}"));
                return;
            }
        }
    }

    /// After the faults all come to follow one epoch, and every key can be worked on by exactly one. Then it stays so.
    pub(super) fn check(&mut self) {
        if self.profile.is_wide {
            self.resume();
        }
        let since = self.now - FAULTS;
        let is_last = since >= REST;
        if self.rested.is_some() && !is_last {
            return;
        }
        match self.unrest() {
            None if self.rested.is_none() => {
                self.rested = Some(since);
                if since > SETTLES {
                    self.violate(format!("came to rest after {} ms", since / MS));
                }
            }
            Some(what) if is_last => self.violate(what),
            None | Some(_) => {}
        }
    }

    /// An operator ends a pause, until it has ended.
    fn resume(&mut self) {
        for it in 0..self.processes.len() {
            if self.processes[it].is_alive && self.processes[it].core.status().is_paused {
                self.feed(it, Event::Pause(false));
            }
        }
    }

    /// Why the fleet has not come to rest.
    fn unrest(&self) -> Option<String> {
        let newest = self.processes.iter().filter_map(|it| it.core.startable().epoch).max();
        for process in self.processes.iter().filter(|process| process.is_alive) {
            let (id, startable, status) = (&process.id, process.core.startable(), process.core.status());
            if startable.epoch != newest || !status.waiting.is_empty() {
                return Some(format!("{id} has not come to rest: {status:?}, newest {newest:?}"));
            }
            if startable.members.map_or(0, |members| members.len())
                != self.processes.iter().filter(|it| it.is_alive).count()
            {
                return Some(format!("{id} misses members: {status:?}"));
            }
        }
        for key in &self.keys {
            let able = (0..self.processes.len()).filter(|it| {
                self.processes[*it].is_alive
                    && self.processes[*it].core.may_start(self.clock(*it, self.now), *key)
            });
            let able = able.count();
            if able != 1 {
                return Some(format!("{able} members can work on {key}"));
            }
        }
        None
    }
}
