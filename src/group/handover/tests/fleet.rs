//! A few members on a store that answers at once, for directed tests: a test decides what is held back, and what fails.

mod answers;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{
    super::{
        places::Places,
        rules::{Rule, Rules},
        settings::Settings,
        shown::Startable,
        state::Handover,
        types::{Ended, Event, HeadRead, Part, Purpose},
    },
    ensemble::Ensemble,
    register::Register,
};
use crate::{
    backend::{CreateMode, Op, SessionId, path::ZnodePath},
    clock::Moment,
    group::member::{Ours, Payload},
    member::MemberId,
    ring::{HashRing, Label},
    session::timing::Timing,
};

const REPLICAS: u32 = 8;
/// The lease, and how long others wait for it.
pub(super) const LEASE: Duration = Duration::from_secs(5);
pub(super) const WAIT: Duration = Duration::from_millis(5500);
pub(super) const MS: Duration = Duration::from_millis(1);

/// The times of all sessions but those of [`Fleet::start_timed`].
pub(super) const TIMING: Timing = Timing {
    timeout: Duration::from_secs(10),
    heartbeat: Duration::from_secs(1),
    heartbeat_validity: LEASE,
    margin: Duration::from_millis(500),
    server_tick: Duration::from_secs(1),
};

pub(super) struct Fleet {
    pub(super) now: Moment,
    rules: Rules,
    number: u64,
    ensemble: Ensemble,
    members: BTreeMap<&'static str, Member>,
    events: VecDeque<(&'static str, Event)>,
    /// Only they themselves may read their znodes.
    denied: BTreeSet<MemberId>,
    /// How often members were read, not counting lists.
    pub(super) reads: u32,
    /// How often the head was read.
    pub(super) head_reads: u32,
    /// How often all members were listed.
    pub(super) lists: u32,
    /// Of members that start from now on these answers are held back.
    pub(super) holds: BTreeSet<Held>,
    /// The handovers that have ended.
    pub(super) ended: Vec<(&'static str, Ended)>,
}

struct Member {
    core: Handover,
    register: Register,
    places: Places,
    session: SessionId,
    timing: Timing,
    /// What each watched znode was when it was read: the transaction that set it.
    watches: BTreeMap<Watched, i64>,
    /// Nothing reaches it; it still acts.
    is_deaf: bool,
    /// The answers to these are held back.
    holds: BTreeSet<Held>,
    held: Vec<Event>,
    /// Transactions for these purposes fail, and do nothing.
    fails: BTreeSet<Purpose>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Held {
    Head,
    Stat,
    List,
    Commit(Purpose),
}

#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Watched {
    Head,
    Children,
    Member(MemberId),
}

pub(super) fn id(name: &str) -> MemberId {
    MemberId::new(name).unwrap()
}

pub(super) fn settings(name: &str) -> Settings {
    Settings::new(id(name), Label::Plain, REPLICAS)
}

/// A position that the last of each of these groups owns.
pub(super) fn key_of(groups: &[&[&str]]) -> u32 {
    let rings = groups.iter().map(|group| {
        let ring = HashRing::builder().replicas(REPLICAS).members(group.iter().copied()).build().unwrap();
        (ring, *group.last().unwrap())
    });
    let rings: Vec<_> = rings.collect();
    let mut keys = (0..u32::MAX).step_by(1 << 16);
    keys.find(|key| rings.iter().all(|(ring, owner)| ring.is_owner_at(owner, *key))).unwrap()
}

impl Fleet {
    pub(super) fn new() -> Fleet {
        Fleet::with(Rules::default())
    }

    pub(super) fn without(rule: Rule) -> Fleet {
        Fleet::with(Rules::without(rule))
    }

    fn with(rules: Rules) -> Fleet {
        Fleet {
            now: Moment::from_origin(Duration::from_secs(1000)),
            rules,
            number: 0,
            ensemble: new_store(),
            members: BTreeMap::new(),
            events: VecDeque::new(),
            denied: BTreeSet::new(),
            reads: 0,
            head_reads: 0,
            lists: 0,
            holds: BTreeSet::new(),
            ended: Vec::new(),
        }
    }

    // --- What a test does -------------------------------------------------------------------------------------

    /// Starts a process with settings of its own.
    pub(super) fn start_with(&mut self, name: &'static str, settings: Settings) {
        self.start_process(name, settings, 1, TIMING);
    }

    pub(super) fn start_weighted(&mut self, name: &'static str, weight: u32) {
        self.start_process(name, settings(name), weight, TIMING);
    }

    /// Starts a process whose session has other times.
    pub(super) fn start_timed(&mut self, name: &'static str, timing: Timing) {
        self.start_process(name, settings(name), 1, timing);
    }

    fn start_process(&mut self, name: &'static str, settings: Settings, weight: u32, timing: Timing) {
        let ours =
            Ours { version: 1, label: Some(Label::Plain), replicas: Some(REPLICAS), ..Ours::default() };
        let namespace = ZnodePath::parse("/tooz").unwrap();
        let places = Places::new(&namespace, "group", &id(name), Payload::new(weight, ours)).unwrap();
        self.number += 1;
        let member = Member {
            core: Handover::new(Settings { rules: self.rules.clone(), ..settings }),
            register: Register::default(),
            places,
            session: SessionId(self.number as i64),
            timing,
            watches: BTreeMap::new(),
            is_deaf: false,
            holds: self.holds.clone(),
            held: Vec::new(),
            fails: BTreeSet::new(),
        };
        self.members.insert(name, member);
        self.open(name);
    }

    /// The session of a process ends, and it opens another one.
    pub(super) fn renew(&mut self, name: &'static str) {
        self.ensemble.expire(self.members[name].session);
        self.number += 1;
        let session = SessionId(self.number as i64);
        let member = self.member(name);
        member.session = session;
        member.watches.clear();
        self.events.retain(|(other, _)| *other != name);
        self.tell(name, Event::SessionEnded);
        self.open(name);
    }

    fn open(&mut self, name: &'static str) {
        let timing = self.members[name].timing;
        self.tell(name, Event::SessionBegan { asked: self.now, timing });
    }

    pub(super) fn start(&mut self, name: &'static str) {
        self.start_with(name, settings(name));
    }

    /// Starts a member that does not use this library.
    pub(super) fn start_plain(&mut self, name: &str) {
        let path = member_path(name);
        let data = Payload { weight: 1, ours: None }.encode();
        self.number += 1;
        let owner = SessionId(self.number as i64);
        self.ensemble.commit(owner, &[create(path, data, CreateMode::Ephemeral)]).unwrap();
        self.notice();
    }

    /// The znode of a member without a process says this.
    pub(super) fn say(&mut self, name: &str, part: Part) {
        let ours = Ours {
            version: 1,
            label: Some(Label::Plain),
            replicas: Some(REPLICAS),
            handover: Some(part),
            ..Ours::default()
        };
        let (path, data) = (member_path(name), Payload::new(1, ours).encode());
        let op = if self.exists(name) {
            Op::set(&path, &*data, None)
        } else {
            create(path, data, CreateMode::Ephemeral)
        };
        self.number += 1;
        self.ensemble.commit(SessionId(self.number as i64), &[op]).unwrap();
        self.notice();
    }

    /// Another process overwrites the znode of a member.
    pub(super) fn overwrite(&mut self, name: &str, data: &[u8]) {
        self.ensemble.commit(SessionId(0), &[Op::set(&member_path(name), data, None)]).unwrap();
        self.notice();
    }

    /// Ends a process: its session ends at once.
    pub(super) fn stop(&mut self, name: &str) {
        let member = self.members.remove(name).unwrap();
        self.ensemble.expire(member.session);
        self.notice();
    }

    /// A plain member leaves.
    pub(super) fn stop_plain(&mut self, name: &str) {
        self.delete(name);
    }

    /// An operator deletes the znode of a member.
    pub(super) fn delete(&mut self, name: &str) {
        let path = member_path(name);
        self.ensemble.commit(SessionId(0), &[Op::Delete { path, version: None }]).unwrap();
        self.notice();
    }

    /// An operator denies all others permission to read the znode of a member, or grants it again.
    pub(super) fn deny(&mut self, name: &str, is_denied: bool) {
        if is_denied {
            self.denied.insert(id(name))
        } else {
            self.denied.remove(&id(name))
        };
    }

    /// An operator deletes the head, and its snapshot.
    pub(super) fn delete_head(&mut self) {
        self.delete_snapshot();
        let path = ZnodePath::parse("/tooz.ring/group").unwrap();
        self.ensemble.commit(SessionId(0), &[Op::Delete { path, version: None }]).unwrap();
        self.notice();
    }

    /// The snapshot of the head is gone, if it was there.
    pub(super) fn delete_snapshot(&mut self) {
        let path = ZnodePath::parse("/tooz.ring/group").unwrap();
        let path = path.join(&format!("{:016x}", self.head().head.snapshot)).unwrap();
        let _ = self.ensemble.commit(SessionId(0), &[Op::Delete { path, version: None }]);
        self.notice();
    }

    /// All data of the servers are deleted. A member finds that out with its next session: see [`Fleet::renew`].
    pub(super) fn delete_all(&mut self) {
        self.ensemble = new_store();
        self.members.values_mut().for_each(|member| member.watches.clear());
    }

    /// Passes an event, and everything that follows from it at once.
    pub(super) fn tell(&mut self, name: &'static str, event: Event) {
        self.events.push_back((name, event));
        self.notice();
    }

    /// Nothing reaches this member from now on, until it hears again.
    pub(super) fn is_deaf(&mut self, name: &str, is_deaf: bool) {
        self.member(name).is_deaf = is_deaf;
        self.notice();
    }

    pub(super) fn lose_watches(&mut self, name: &str) {
        self.member(name).watches.clear();
    }

    /// The answers to these are held back from now on.
    pub(super) fn hold(&mut self, name: &str, what: Held) {
        self.member(name).holds.insert(what);
    }

    /// The answers that were held back arrive.
    pub(super) fn release(&mut self, name: &'static str) {
        self.member(name).holds.clear();
        let held = std::mem::take(&mut self.member(name).held);
        assert!(!held.is_empty(), "nothing was held back");
        self.events.extend(held.into_iter().map(|event| (name, event)));
        self.notice();
    }

    /// The first answer that was held back arrives; the others, and further ones, are still held back.
    pub(super) fn release_first(&mut self, name: &'static str) {
        let first = self.member(name).held.remove(0);
        self.tell(name, first);
    }

    /// These transactions fail from now on, and do nothing.
    pub(super) fn fail(&mut self, name: &str, purpose: Purpose) {
        self.member(name).fails.insert(purpose);
    }

    /// Lets the time pass.
    pub(super) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        for _ in 0..100_000 {
            let due = |(name, it): (&&'static str, &Member)| {
                (!it.is_deaf && it.core.wakeup() <= end).then(|| (it.core.wakeup(), *name))
            };
            let Some((due, name)) = self.members.iter().filter_map(due).min() else {
                self.now = end;
                return;
            };
            self.now = due.max(self.now);
            self.tell(name, Event::Tick);
        }
        panic!("a hot loop");
    }

    /// The member begins to work on that position.
    #[track_caller]
    pub(super) fn take(&mut self, name: &str, key: u32) {
        assert!(self.may_start(name, key), "{name} may not start: {:?}", self.core(name).status());
        self.member(name).register.start(0, key);
    }

    /// The member ends its work.
    pub(super) fn end(&mut self, name: &'static str) {
        if let Some(event) = self.member(name).register.drop_guard(0) {
            self.tell(name, event);
        }
    }

    // --- What it sees -----------------------------------------------------------------------------------------

    pub(super) fn core(&self, name: &str) -> &Handover {
        &self.members[name].core
    }

    pub(super) fn startable(&self, name: &str) -> Startable {
        self.core(name).startable()
    }

    pub(super) fn may_start(&self, name: &str, key: u32) -> bool {
        self.core(name).may_start(self.now, key)
    }

    /// The creation of the head that a member follows.
    pub(super) fn epoch(&self, name: &str) -> Option<i64> {
        self.startable(name).epoch.map(|epoch| epoch.head)
    }

    /// Whether the work of a member may act.
    pub(super) fn acts(&self, name: &str) -> bool {
        let register = &self.members[name].register;
        register.guards.iter().any(|guard| register.is_valid(guard, self.now))
    }

    /// The head in the store.
    pub(super) fn head(&self) -> HeadRead {
        let path = ZnodePath::parse("/tooz.ring/group").unwrap();
        Places::read_head(self.ensemble.newest().get(&path).unwrap()).unwrap()
    }

    /// Whether the znode of a member exists.
    pub(super) fn exists(&self, name: &str) -> bool {
        self.ensemble.newest().get(&member_path(name)).is_some()
    }

    /// What the znode of a member says about it.
    pub(super) fn part(&self, name: &str) -> Part {
        let places = &self.members[name].places;
        let node = self.ensemble.newest().get(&places.own).unwrap().clone();
        places.read_member(&node).unwrap().part.unwrap()
    }

    /// The members of the epoch that this one follows.
    pub(super) fn ring(&self, name: &str) -> Vec<String> {
        let ring = self.startable(name).ring.unwrap();
        let mut members: Vec<String> = ring.members().map(str::to_owned).collect();
        members.sort();
        members
    }

    // --- How it works -----------------------------------------------------------------------------------------

    fn member(&mut self, name: &str) -> &mut Member {
        self.members.get_mut(name).unwrap()
    }
}

fn new_store() -> Ensemble {
    let mut ensemble = Ensemble::new(1);
    for path in ["/tooz", "/tooz/group", "/tooz.ring"] {
        let path = ZnodePath::parse(path).unwrap();
        ensemble.commit(SessionId(0), &[create(path, vec![], CreateMode::Persistent)]).unwrap();
    }
    ensemble
}

fn member_path(name: &str) -> ZnodePath {
    ZnodePath::parse("/tooz/group").unwrap().join(name).unwrap()
}

fn create(path: ZnodePath, data: Vec<u8>, mode: CreateMode) -> Op {
    Op::Create { path, data, mode }
}
