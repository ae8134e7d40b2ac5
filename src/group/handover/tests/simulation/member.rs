//! A simulated process: its clock, its core, and its beginning and end.

use super::{
    super::{
        super::{
            settings::Settings,
            state::Handover,
            types::{Action, Event, Outcome, Presence, ReadError},
        },
        register::Register,
    },
    parts::{
        Asked, HEARTBEAT, MARGIN, MS, Queued, SECOND, SERVER_TICK, Session, TIMEOUT, Time, duration, settings,
    },
    run::Simulation,
};
use crate::{clock::Moment, session::timing::Timing};

impl Simulation {
    pub(super) fn clock(&self, it: usize, time: Time) -> Moment {
        let process = &self.processes[it];
        let drifted = time as i64 + time as i64 * process.drift / 1_000_000;
        Moment::from_origin(duration(process.offset + drifted.unsigned_abs()))
    }

    /// When the clock of a process shows `moment`, or a little later.
    fn when(&self, it: usize, moment: Moment) -> Time {
        let process = &self.processes[it];
        let since = moment.since_origin().as_micros().min(u128::from(u64::MAX / 4)) as u64;
        let since = since.saturating_sub(process.offset) as i64;
        (since - since * process.drift / 1_000_000).unsigned_abs() + 10
    }

    /// Passes an event to the core of a process, and does what it asks for.
    pub(super) fn feed(&mut self, it: usize, event: Event) {
        let mut next = Some(event);
        while let Some(event) = next.take() {
            if self.trace.is_some() {
                let text = format!("{event:?}");
                self.note(format!(
                    "  {} <- {}",
                    self.processes[it].id,
                    text.chars().take(200).collect::<String>()
                ));
            }
            let (now, random) = (self.clock(it, self.now), self.rng.u64(..));
            let process = &mut self.processes[it];
            let actions = process.core.step(now, random, event);
            self.steps += 1;
            let second = self.now / SECOND;
            process.busy = if process.busy.0 == second { (second, process.busy.1 + 1) } else { (second, 1) };
            if process.busy.1 > 3000 {
                self.violate(format!("{} is in a hot loop", self.processes[it].id));
                return;
            }
            for action in actions {
                self.mix(self.now);
                if self.is_exact {
                    let text = format!("{action:?}");
                    text.bytes().for_each(|byte| self.mix(byte.into()));
                }
                if self.trace.is_some() {
                    let text = format!("{action:?}");
                    self.note(format!(
                        "  {} -> {}",
                        self.processes[it].id,
                        text.chars().take(200).collect::<String>()
                    ));
                }
                if let Some(marked) = self.processes[it].register.apply(&action) {
                    next = Some(marked);
                }
                self.perform(it, action);
            }
        }
        self.watch_over(it);
        self.set_wakeup(it);
    }

    fn mix(&mut self, number: u64) {
        self.digest = (self.digest ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23);
    }

    fn set_wakeup(&mut self, it: usize) {
        let wakeup = self.processes[it].core.wakeup();
        if wakeup < Moment::NEVER {
            let time = self.when(it, wakeup).max(self.now + 1);
            if self.processes[it].wake != time {
                self.processes[it].wake = time;
                let life = self.processes[it].life;
                self.at(time, Queued::Wake(it, life));
            }
        }
    }

    fn perform(&mut self, it: usize, action: Action) {
        match action {
            Action::ReadHead => self.ask(it, Asked::Head, vec![]),
            Action::ReadSnapshot { name } => self.ask(it, Asked::Snapshot(name), vec![]),
            Action::ReadMembers { ids } => self.ask(it, Asked::Members(ids), vec![]),
            Action::ListMembers { watch } => self.ask(it, Asked::List(watch), vec![]),
            Action::StatGroup { watch } => self.ask(it, Asked::Stat(watch), vec![]),
            Action::ReadOwn => self.ask(it, Asked::Own, vec![]),
            Action::Commit { purpose, writes } => {
                let ops = self.processes[it].places.ops(&writes).expect("it is small");
                self.ask(it, Asked::Commit(purpose), ops);
            }
            Action::Rejoin => self.join(it),
            Action::HasLeft => self.end_process(it),
            _ => {}
        }
    }

    pub(super) fn start(&mut self, it: usize) {
        let rules = self.processes[it].rules.clone();
        let profile = self.profile;
        let drift = self.rng.i64(-450..=450);
        let offset = self.rng.u64(100..2000) * SECOND;
        let is_warm = !profile.is_wide || self.rng.u32(0..3) > 0;
        let process = &mut self.processes[it];
        let presence = if is_warm { Presence::Ready } else { Presence::Warming };
        process.core = Handover::new(Settings { presence, ..settings(&process.id, profile, rules) });
        process.register = Register::default();
        process.life += 1;
        process.is_alive = true;
        process.leaves = false;
        (process.drift, process.offset) = (drift, offset);
        process.session = None;
        let life = process.life;
        self.at(self.now + MS, Queued::Open(it, life));
        self.at(self.now + 20 * MS, Queued::Work(it, life));
        if !is_warm {
            let warms_up = self.rng.u64(100 * MS..2 * SECOND);
            self.at(self.now + warms_up, Queued::Warm(it, life));
        }
    }

    pub(super) fn end_process(&mut self, it: usize) {
        let session = self.processes[it].session;
        let process = &mut self.processes[it];
        process.is_alive = false;
        process.life += 1;
        process.connection += 1;
        process.under_way.clear();
        process.watches.clear();
        process.register = Register::default();
        // A process that has left closes its session.
        if process.leaves {
            let life = process.life;
            if let Some(session) = session {
                self.expire(session);
            }
            let pause = self.rng.u64(20 * MS..3 * SECOND);
            self.at(self.now + pause, Queued::Start(it, life));
        }
    }

    pub(super) fn crash(&mut self, it: usize) {
        self.processes[it].leaves = false;
        self.end_process(it);
        self.note(format!("{} has crashed", self.processes[it].id));
    }

    pub(super) fn open(&mut self, it: usize) {
        if self.now < self.leader_paused_until {
            let life = self.processes[it].life;
            self.at(self.leader_paused_until + MS, Queued::Open(it, life));
            return;
        }
        let asked = self.clock(it, self.now);
        let session = self.number as i64 + 1;
        let server = self.any_server(0);
        self.sessions.insert(session, Session { touched: self.now, is_over: false, server });
        let process = &mut self.processes[it];
        process.session = Some(session);
        process.connection += 1;
        process.seen = self.ensemble.servers[server].applied;
        process.reconnects_at = self.now;
        process.last_reply = self.now;
        process.last_confirmed = self.now;
        process.under_way.clear();
        process.watches.clear();
        process.is_joining = false;
        let timing = Timing {
            timeout: duration(TIMEOUT),
            heartbeat: duration(HEARTBEAT),
            heartbeat_validity: duration(self.processes[it].lease),
            margin: duration(MARGIN),
            server_tick: duration(SERVER_TICK),
        };
        self.feed(it, Event::SessionBegan { asked, timing });
    }

    pub(super) fn lose_session(&mut self, it: usize) {
        let process = &mut self.processes[it];
        process.session = None;
        process.connection += 1;
        process.under_way.clear();
        process.watches.clear();
        let life = process.life;
        self.feed(it, Event::SessionEnded);
        let pause = self.rng.u64(10 * MS..200 * MS);
        self.at(self.now + pause, Queued::Open(it, life));
    }

    /// The connection breaks: what was under way has an unknown outcome.
    pub(super) fn break_connection(&mut self, it: usize) {
        let Some(session) = self.processes[it].session else { return };
        let pause = self.rng.u64(5 * MS..if self.is_healing { 20 * MS } else { 1500 * MS });
        let server = self.any_server(self.processes[it].seen);
        if let Some(session) = self.sessions.get_mut(&session) {
            session.server = server;
        }
        let process = &mut self.processes[it];
        process.connection += 1;
        process.reconnects_at = self.now + pause;
        process.last_reply = process.reconnects_at;
        let under_way = std::mem::take(&mut process.under_way);
        let watches = std::mem::take(&mut process.watches);
        for asked in under_way.into_values() {
            let event = match asked {
                Asked::Head => Event::Head(Err(ReadError::Failed)),
                Asked::Snapshot(_) => Event::Snapshot(Err(ReadError::Failed)),
                Asked::Members(_) => Event::Members(Err(ReadError::Failed)),
                Asked::List(_) => Event::Listed(Err(ReadError::Failed)),
                Asked::Stat(_) => Event::GroupStat(Err(ReadError::Failed)),
                Asked::Own => Event::Own(Err(ReadError::Failed)),
                Asked::Commit(purpose) => Event::Committed { purpose, outcome: Outcome::Unknown },
                Asked::Join => {
                    self.join(it);
                    continue;
                }
            };
            self.feed(it, event);
        }
        // The client sets its watches again; what has changed meanwhile fires them.
        for (watched, (seen, _)) in watches {
            self.processes[it].watches.entry(watched).or_insert((seen, false));
        }
        self.fire_watches(it);
    }
}
