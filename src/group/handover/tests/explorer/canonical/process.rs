//! The part of a fingerprint that is a process: its core, its guards, and what it has asked for.

use std::time::Duration;

use super::{
    super::{
        super::{
            super::{
                history::History,
                marks::BatchState,
                parts::Stage,
                state::Handover,
                types::{Epoch, Outcome, Write},
            },
            register::{Guard, Register},
        },
        world::Process,
    },
    Walk,
};

impl Walk<'_> {
    pub(super) fn process(&mut self, process: &Process) {
        self.flag(process.wants_to_join);
        self.core(&process.core);
        self.register(&process.register);
        for (request, pending) in &process.pending {
            self.number(*request as u64);
            self.epoch(pending.at);
            self.flag(pending.reply.is_some());
            match &pending.reply {
                Some(Outcome::Applied) => self.number(1),
                Some(Outcome::Refused { index, .. }) => self.number(2 + *index as u64),
                Some(Outcome::Unknown | Outcome::Failed) | None => {}
            }
            for write in &pending.writes {
                self.write(write, pending.at);
            }
        }
        self.number(99);
    }

    fn write(&mut self, write: &Write, at: Option<Epoch>) {
        match write {
            Write::SetHead { head, version } => {
                self.number(50);
                if let Some(at) = at {
                    self.version(at.head, *version);
                    self.head(at.head, head);
                }
            }
            Write::CheckMember { version, .. } | Write::CheckOwn { version } => {
                self.number(51);
                self.data_version(*version);
            }
            Write::CheckSnapshot { name } | Write::DeleteSnapshot { name } => {
                let is_current = self.snapshot == Some(*name);
                self.flag(is_current);
            }
            // The core, or the write itself, has the rest.
            _ => {}
        }
    }

    fn register(&mut self, register: &Register) {
        self.deadline(register.lease);
        // Marks without guards do not matter.
        let is_used = |mark: &u64| register.guards.iter().any(|guard| guard.mark == Some(*mark));
        let marks = register.marks.iter().filter(|(mark, _)| is_used(mark));
        let rank =
            |guard: &Guard| guard.mark.map_or(0, |mark| 1 + marks.clone().filter(|it| *it.0 > mark).count());
        // Nor does the order of the guards.
        let mut guards: Vec<(usize, bool)> =
            register.guards.iter().map(|guard| (rank(guard), guard.is_ended)).collect();
        guards.sort_unstable();
        for (rank, is_ended) in guards {
            self.number(1);
            self.number(rank as u64);
            self.flag(is_ended);
        }
        for (_, deadline) in marks {
            self.number(2);
            deadline.iter().for_each(|deadline| self.deadline(*deadline));
        }
    }

    fn core(&mut self, core: &Handover) {
        self.flag(core.history.is_some());
        core.history.iter().for_each(|history| self.history(history));
        self.flag(core.seen.head.is_some());
        core.seen.head.iter().for_each(|head| {
            self.zxid(*head);
            if core.seen.epochs.keys().all(|version| *version == 0) {
                self.since(core.seen.since);
            }
            let floor = core.history.as_ref().map_or(0, History::floor);
            for (version, seen) in core.seen.epochs.iter().filter(|(version, _)| **version > floor) {
                self.version(*head, *version);
                self.since(*seen);
            }
        });
        for (who, since) in &core.gone {
            self.incarnation(who);
            if core.settings.is_strict {
                self.since(*since);
            }
        }
        self.flag(core.own.is_some());
        if let Some(own) = &core.own {
            self.zxid(own.me.czxid);
            self.data_version(own.version);
            self.part(&own.part);
            self.flag(own.is_uncertain);
            self.flag(own.is_reading);
            self.flag(own.is_deleting);
            self.flag(own.write.is_some());
            if let Some(write) = &own.write {
                self.part(&write.part);
                self.deadline(write.sent.at + world_lease(core));
                self.flag(write.sent.revives);
                self.flag(write.is_unknown);
                self.data_version(write.version);
            }
        }
        self.epoch(core.followed);
        self.flag(core.owes_ack());
        let write = core.own.as_ref().and_then(|own| own.write.as_ref());
        let acknowledges = |loss: Epoch| {
            write
                .and_then(|write| write.part.ack)
                .is_some_and(|it| it.head == loss.head && it.version >= loss.version)
        };
        self.flag(core.newest_loss.is_some_and(acknowledges));
        for (mark, batch) in &core.marks.batches {
            self.flag(core.followed.is_some_and(|followed| followed.head == batch.at.head));
            let ack = write.filter(|write| write.mark >= *mark).and_then(|write| write.part.ack);
            self.flag(ack.is_some_and(|ack| ack.head == batch.at.head && ack.version >= batch.at.version));
            self.number(match batch.state {
                BatchState::Frozen => 0,
                BatchState::Kept => 1,
                BatchState::Ending => 2,
            });
            if batch.state != BatchState::Kept {
                self.deadline(batch.deadline);
            }
            self.flag(batch.is_awaited);
            self.number(batch.positions.values().map(|count| u64::from(*count)).sum());
        }
        self.number(98);
        self.deadline(core.lease.deadline);
        self.flag(core.lease.has_lapsed);
        self.flag(core.lease.has_reread);
        self.flag(core.lease.is_refused);
        let reading = &core.head_reading;
        for flag in [
            reading.wanted,
            reading.under_way.is_some(),
            reading.under_way == Some(true),
            reading.under_way.is_some() && reading.after_lapse,
            reading.waits.is_some(),
            reading.is_missing,
            reading.is_creating,
        ] {
            self.flag(flag);
        }
        self.donors(core);
        match core.publisher.stage {
            Stage::Idle => self.number(0),
            Stage::Listing(epoch) => self.epoch(Some(epoch)),
            Stage::Committing => self.number(1),
        }
    }

    fn donors(&mut self, core: &Handover) {
        let donors = &core.donors;
        for ((version, who), ranges) in &donors.unreleased {
            if ranges.contains_position(self.key) {
                core.history.iter().for_each(|history| self.version(history.epoch.head, *version));
                self.incarnation(who);
            }
        }
        self.number(97);
        for (who, kept) in &donors.carried {
            self.incarnation(who);
            self.flag(kept.is_some());
            kept.iter().for_each(|kept| self.ranges(kept));
        }
        self.number(96);
        for (id, donor) in &donors.read {
            self.id(id);
            self.flag(Some(donor.at) == core.followed);
            self.read(&donor.read);
        }
        self.flag(donors.under_way.is_some());
        if let Some((at, ids)) = &donors.under_way {
            self.epoch(Some(*at));
            ids.iter().for_each(|id| self.id(id));
        }
        self.flag(donors.check.is_some());
        if let Some(check) = &donors.check {
            self.incarnation(&check.donor);
            for version in &check.epochs {
                self.version(check.head, *version);
            }
        }
        self.ranges(&donors.startable);
    }
}

fn world_lease(core: &Handover) -> Duration {
    core.session.map_or(Duration::ZERO, |timing| timing.heartbeat_validity)
}
