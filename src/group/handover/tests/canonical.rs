//! A number for each state of the explorer, equal for states that differ only in names: of transactions, of versions, and
//! of the time.

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::{
        history::History,
        marks::BatchState,
        parts::Stage,
        state::Handover,
        types::{Change, Entry, Epoch, Head, Incarnation, MemberRead, Members, Outcome, Part, Write},
    },
    register::Register,
    world::{Process, World},
};
use crate::{clock::Moment, member::MemberId, ring::Ranges};

/// The names in use, to number them by their order.
#[derive(Default)]
struct Names {
    zxids: Vec<i64>,
    /// Data versions of members.
    data: Vec<i32>,
    /// The oldest floor of each head that is in use. Versions up to it are all the same.
    heads: BTreeMap<i64, i32>,
}

/// Walks through a state: first to collect its names, then to hash.
struct Walk<'a> {
    now: Moment,
    wait: Duration,
    key: u32,
    /// The name of the snapshot in the store.
    snapshot: Option<u64>,
    names: Option<&'a Names>,
    found: Names,
    hash: u64,
}

/// The number of a state.
pub(super) fn fingerprint(world: &World) -> u64 {
    let start = |names| Walk {
        now: world.now,
        wait: world.wait(),
        key: world.key,
        snapshot: world.head.as_ref().map(|head| head.head.snapshot),
        names,
        found: Names::default(),
        hash: 0xcbf2_9ce4_8422_2325,
    };
    let mut first = start(None);
    first.world(world);
    let mut names = first.found;
    names.zxids.sort_unstable();
    names.zxids.dedup();
    names.data.sort_unstable();
    names.data.dedup();
    let mut second = start(Some(&names));
    second.world(world);
    second.hash
}

impl Walk<'_> {
    fn number(&mut self, number: u64) {
        if self.names.is_some() {
            let mixed = (self.hash ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.hash = mixed ^ (mixed >> 29);
        }
    }

    fn flag(&mut self, flag: bool) {
        self.number(u64::from(flag));
    }

    fn zxid(&mut self, zxid: i64) {
        match self.names {
            None => self.found.zxids.push(zxid),
            Some(names) => {
                let rank = names.zxids.binary_search(&zxid).expect("it was collected");
                self.number(rank as u64);
            }
        }
    }

    /// The znodes of the explorer have versions that no other znode has.
    fn data_version(&mut self, version: i32) {
        match self.names {
            None => self.found.data.push(version),
            Some(names) => {
                let at = names.data.binary_search(&version).expect("it was collected");
                self.number(at as u64);
            }
        }
    }

    fn version(&mut self, head: i64, version: i32) {
        if let Some(names) = self.names {
            let floor = names.heads.get(&head).copied().unwrap_or(i32::MAX);
            // Version 0 is unlike the others.
            let from_floor = i64::from(version.max(floor)) - i64::from(floor) + i64::from(floor > 0);
            self.number(from_floor.unsigned_abs());
        }
    }

    fn floor(&mut self, head: i64, floor: i32) {
        if self.names.is_none() {
            let oldest = self.found.heads.entry(head).or_insert(floor);
            *oldest = floor.min(*oldest);
        }
    }

    fn epoch(&mut self, epoch: Option<Epoch>) {
        self.flag(epoch.is_some());
        if let Some(epoch) = epoch {
            self.zxid(epoch.head);
            self.version(epoch.head, epoch.version);
        }
    }

    /// A moment that matters until it has come.
    fn deadline(&mut self, moment: Moment) {
        self.number(moment.saturating_since(self.now).as_millis() as u64);
    }

    /// A moment that matters until it is longer ago than others wait.
    fn since(&mut self, moment: Moment) {
        let age = self.now.saturating_since(moment);
        self.number(age.min(self.wait + Duration::from_millis(1)).as_millis() as u64);
    }

    fn id(&mut self, id: &MemberId) {
        self.number(u64::from(id.as_str().as_bytes()[0]));
    }

    fn incarnation(&mut self, it: &Incarnation) {
        self.id(&it.id);
        self.zxid(it.czxid);
    }

    /// Only one position matters.
    fn ranges(&mut self, ranges: &Ranges) {
        self.flag(ranges.contains_position(self.key));
    }

    fn part(&mut self, part: &Part) {
        self.number(part.presence as u64);
        self.epoch(part.ack);
        self.ranges(&part.keep);
    }

    fn read(&mut self, read: &Option<MemberRead>) {
        self.flag(read.is_some());
        if let Some(read) = read {
            self.zxid(read.czxid);
            self.data_version(read.version);
            read.part.iter().for_each(|part| self.part(part));
        }
    }

    fn members(&mut self, members: &Members) {
        self.number(members.len() as u64);
        for (id, entry) in members {
            self.entry(id, entry);
        }
    }

    fn entry(&mut self, id: &MemberId, entry: &Entry) {
        self.id(id);
        self.zxid(entry.czxid);
    }

    fn change(&mut self, change: &Change) {
        self.number(change.add.len() as u64);
        change.add.iter().for_each(|(id, entry)| self.entry(id, entry));
        self.number(change.del.len() as u64);
        change.del.iter().for_each(|it| self.incarnation(it));
    }

    fn head(&mut self, czxid: i64, head: &Head) {
        self.floor(czxid, head.floor);
        self.version(czxid, head.floor);
        self.version(czxid, head.base);
        self.number(head.carried.len() as u64);
        head.carried.iter().for_each(|it| self.incarnation(it));
        self.number(head.log.len() as u64);
        head.log.iter().for_each(|change| self.change(change));
    }

    fn history(&mut self, history: &History) {
        self.epoch(Some(history.epoch));
        self.head(history.epoch.head, &history.head);
        self.members(history.members());
        // Who had the key at each epoch since the floor follows from the members and from what was lost.
        for (version, losses) in history.losses_after(history.floor()) {
            self.version(history.epoch.head, version);
            for (who, ranges) in losses {
                self.incarnation(who);
                self.ranges(ranges);
            }
        }
    }

    fn world(&mut self, world: &World) {
        self.flag(world.head.is_some());
        if let Some(head) = &world.head {
            self.zxid(head.czxid);
            self.version(head.czxid, head.version);
            self.head(head.czxid, &head.head);
            self.members(&head.snapshot.members);
        }
        for member in &world.members {
            self.flag(member.is_some());
            if let Some(member) = member {
                self.zxid(member.czxid);
                self.data_version(member.version);
                self.part(&member.part);
                self.deadline(member.lease);
                self.flag(member.is_held);
            }
        }
        self.number(world.faults_left.into());
        self.number(world.ticks_left.into());
        self.number(world.recreations_left.into());
        for process in &world.processes {
            self.flag(process.is_some());
            process.iter().for_each(|process| self.process(process));
        }
    }

    fn process(&mut self, process: &Process) {
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
        for guard in &register.guards {
            self.number(1);
            self.flag(guard.is_ended);
            let rank = guard.mark.map(|mark| register.marks.keys().filter(|other| **other >= mark).count());
            self.number(rank.map_or(0, |rank| rank as u64 + 1));
        }
        // Marks without guards do not matter.
        for (mark, deadline) in &register.marks {
            if register.guards.iter().any(|guard| guard.mark == Some(*mark)) {
                self.number(2);
                deadline.iter().for_each(|deadline| self.deadline(*deadline));
            }
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
                self.data_version(write.version);
            }
        }
        self.epoch(core.followed);
        self.flag(core.owes_ack());
        let write = core.own.as_ref().and_then(|own| own.write.as_ref());
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
