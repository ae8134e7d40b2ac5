//! A number for each state of the explorer, equal for states that differ only in names: of transactions, of versions, and
//! of the time. What is left of the budget is not in it.

mod process;

use std::{collections::BTreeMap, time::Duration};

use super::{
    super::super::{
        history::History,
        types::{Change, Entry, Epoch, Head, Incarnation, MemberRead, Members, Part},
    },
    world::World,
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
        change.released.iter().for_each(|it| self.incarnation(it));
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
        for process in &world.processes {
            self.flag(process.is_some());
            process.iter().for_each(|process| self.process(process));
        }
    }
}
