//! Runs the same random steps on two backends, and panics at the first visible difference.
//!
//! A few sessions on each side open and close, read, arm watches and commit transactions; about half of these fail. All
//! that a caller can see is compared: results and failing indexes, data, versions, counts, sequence names, owners, the
//! order of zxids, the watches that fire, and the znodes that are left after the sessions end.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    mem::{Discriminant, discriminant},
    ops::Bound::{Excluded, Unbounded},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use super::{
    SESSION_TIMEOUT, create_with_ancestors, delete_subtree, delete_what_it_may, fence, fired_by_now, in_time,
    subtree, with_context,
};
use crate::backend::{
    CommitError, Connector, CreateMode, Done, Error, Fired, Op, Session, SessionId, Stat, Watch,
    path::ZnodePath,
};

/// Runs the same random `steps` on `a` and on `b` below `root`, which must not exist on either side.
///
/// Equal seeds give equal steps as long as the two sides agree.
///
/// # Panics
///
/// At the first difference, with the seed and the number of the step.
pub async fn run(a: Arc<dyn Connector>, b: Arc<dyn Connector>, root: &ZnodePath, seed: u64, steps: usize) {
    run_as_users([&[a], &[b]], root, seed, steps).await;
}

/// Like [`run`], with sessions of several users. Both sides have the same users in the same order. The first is
/// anonymous and creates `root`. The znodes that another user creates are accessible to this user only, so reads, watches
/// and writes of the others are refused.
///
/// # Panics
///
/// As for [`run`], and if a side has no user or one more than the other.
pub async fn run_as_users(users: [&[Arc<dyn Connector>]; 2], root: &ZnodePath, seed: u64, steps: usize) {
    assert!(!users[0].is_empty() && users[0].len() == users[1].len(), "both sides have the same users");
    let connectors: Vec<_> =
        users[0].iter().zip(users[1]).map(|(a, b)| [Arc::clone(a), Arc::clone(b)]).collect();
    let step = AtomicUsize::new(0);
    let work = async {
        let mut pair = Pair::new(connectors, root, seed).await;
        for n in 0..steps {
            step.store(n, Relaxed);
            pair.step().await;
        }
        step.store(steps, Relaxed);
        pair.finish().await;
    };
    with_context(|| format!("differential: seed {seed}, step {}", step.load(Relaxed)), work).await;
}

/// How many sessions are open at a time.
const SLOTS: usize = 3;

/// Two values, one for each side.
type Both<T> = [T; 2];

struct Pair {
    rng: fastrand::Rng,
    root: ZnodePath,
    /// One for each user.
    connectors: Vec<Both<Arc<dyn Connector>>>,
    /// Sessions that only read, of each user.
    observers: Vec<Both<Arc<dyn Session>>>,
    slots: Vec<Option<Both<Arc<dyn Session>>>>,
    watches: Vec<Armed>,
    /// The paths to choose from. Not all of them exist.
    paths: Vec<ZnodePath>,
    /// Sessions by the order in which they were opened.
    ordinals: Both<HashMap<SessionId, usize>>,
    zxids: BTreeMap<i64, i64>,
}

/// The same watch on both sides.
struct Armed {
    what: String,
    slot: usize,
    watches: Both<Watch>,
}

/// The parts of a stat that are the same in both stores.
#[derive(Debug, PartialEq)]
struct Shape {
    versions: [i32; 2],
    data_length: i32,
    num_children: i32,
    /// The number of the owner; `Err` for an unknown session.
    owner: Option<Result<usize, SessionId>>,
}

impl Pair {
    async fn new(connectors: Vec<Both<Arc<dyn Connector>>>, root: &ZnodePath, seed: u64) -> Self {
        let mut paths = Vec::new();
        for name in ["a", "b", "c"] {
            let child = join(root, name);
            paths.extend(["x", "y"].map(|name| join(&child, name)));
            paths.push(join(&join(&child, "x"), "deep"));
            paths.push(child);
        }
        paths.push(root.clone());
        let mut observers = Vec::new();
        for connectors in &connectors {
            observers.push(open(connectors).await);
        }
        for observer in &observers[0] {
            create_with_ancestors(&**observer, root).await;
        }
        Pair {
            rng: fastrand::Rng::with_seed(seed),
            root: root.clone(),
            connectors,
            observers,
            slots: (0..SLOTS).map(|_| None).collect(),
            watches: Vec::new(),
            paths,
            ordinals: Both::default(),
            zxids: BTreeMap::new(),
        }
    }

    async fn step(&mut self) {
        let slot = self.rng.usize(..SLOTS);
        let Some(sessions) = self.slots[slot].clone() else {
            let user = self.rng.usize(..self.connectors.len());
            let opened = open(&self.connectors[user]).await;
            for (ordinals, session) in self.ordinals.iter_mut().zip(&opened) {
                let known = ordinals.insert(session.id(), ordinals.len());
                assert_eq!(known, None, "{session:?} has the id of an earlier one");
            }
            self.slots[slot] = Some(opened);
            return;
        };
        match self.rng.u32(..100) {
            0..60 => self.commit(&sessions).await,
            60..75 => self.read(&sessions).await,
            75..93 => self.arm(slot, &sessions).await,
            _ => self.close(slot).await,
        }
        self.compare_watches().await;
        if self.rng.u32(..8) == 0 {
            self.compare_trees().await;
        }
    }

    async fn finish(mut self) {
        for slot in 0..SLOTS {
            self.close(slot).await;
            self.compare_watches().await;
        }
        self.compare_trees().await;
        // What is below a znode of another user can be deleted only by that user, and before that znode.
        for _ in 1..self.observers.len() {
            for observer in self.observers.iter().flatten() {
                delete_what_it_may(&**observer, &self.root).await;
            }
        }
        for observer in &self.observers[0] {
            delete_subtree(&**observer, &self.root).await;
        }
        for observer in self.observers.into_iter().flatten() {
            observer.close().await;
        }
    }

    async fn commit(&mut self, [a, b]: &Both<Arc<dyn Session>>) {
        // Long transactions mostly fail. Short ones create the znodes on which the long ones fail in different ways.
        let length = [0, 1, 1, 1, 1, 2, 2, 3, 4][self.rng.usize(..9)];
        let ops: Vec<_> = (0..length).map(|_| self.op()).collect();
        let what = format!("{} commits {ops:?}", self.name(a));
        let done_a = in_time("a commit", a.commit(ops.clone())).await;
        let done_b = in_time("a commit", b.commit(ops)).await;
        match (done_a, done_b) {
            (Ok(a), Ok(b)) => {
                assert_eq!(a.len(), b.len(), "{what}");
                for (a, b) in a.iter().zip(&b) {
                    self.same_done(&what, a, b);
                }
            }
            (Err(a), Err(b)) => assert_eq!(kind(&a), kind(&b), "{what}: {a} and {b}"),
            (a, b) => panic!("{what}: {a:?} and {b:?}"),
        }
    }

    fn op(&mut self) -> Op {
        let path = self.path();
        let version = (self.rng.u32(..3) == 0).then(|| self.rng.i32(0..3));
        let data = "x".repeat(self.rng.usize(..4));
        match self.rng.u32(..100) {
            0..8 => Op::Check { path, version },
            8..55 => {
                let mode = match self.rng.u32(..4) {
                    0 => CreateMode::PersistentSequential,
                    1 => CreateMode::Ephemeral,
                    2 => CreateMode::EphemeralSequential,
                    _ => CreateMode::Persistent,
                };
                // A numbered sibling of the root would be out of bounds.
                let path = if path == self.root { join(&path, "n-") } else { path };
                Op::create(&path, data, mode)
            }
            55..70 => Op::set(&path, data, version),
            _ if path == self.root => Op::set(&path, data, version),
            _ => Op::delete(&path, version),
        }
    }

    fn path(&mut self) -> ZnodePath {
        self.paths[self.rng.usize(..self.paths.len())].clone()
    }

    fn same_done(&mut self, what: &str, a: &Done, b: &Done) {
        match (a, b) {
            (Done::Set(a), Done::Set(b)) => self.same_stat(what, a, b),
            (a, b) => assert_eq!(a, b, "{what}"),
        }
        // Numbered names are used again, but the set of paths stays small, so that operations use the same znodes.
        if let Done::Created(path) = a
            && !self.paths.contains(path)
            && self.paths.len() < 30
        {
            self.paths.push(path.clone());
        }
    }

    async fn read(&mut self, [a, b]: &Both<Arc<dyn Session>>) {
        let path = self.path();
        let what = format!("{} reads {path}", self.name(a));
        for session in [a, b] {
            in_time("a sync", session.sync(&path)).await.expect("a connected session syncs");
        }
        if self.rng.bool() {
            let paths = [path, self.path(), self.path()];
            match (a.get_many(&paths).await, b.get_many(&paths).await) {
                (Ok(found_a), Ok(found_b)) => {
                    assert_eq!(found_a.len(), found_b.len(), "{what}");
                    for (a, b) in found_a.iter().zip(&found_b) {
                        self.same_znode(&what, a.as_ref(), b.as_ref());
                    }
                }
                (a, b) => assert_eq!(a.err(), b.err(), "{what}"),
            }
        } else {
            self.same_children(&what, a.children(&path).await, b.children(&path).await);
            self.same_read(&what, a.get(&path).await, b.get(&path).await);
        }
    }

    async fn arm(&mut self, slot: usize, [a, b]: &Both<Arc<dyn Session>>) {
        let path = self.path();
        for session in [a, b] {
            in_time("a sync", session.sync(&path)).await.expect("a connected session syncs");
        }
        if self.rng.bool() {
            let what = format!("{} watches {path}", self.name(a));
            match (a.watch_node(&path).await, b.watch_node(&path).await) {
                (Ok((stat_a, watch_a)), Ok((stat_b, watch_b))) => {
                    match (stat_a, stat_b) {
                        (Some(a), Some(b)) => self.same_stat(&what, &a, &b),
                        (a, b) => assert_eq!(a, b, "{what}"),
                    }
                    self.watches.push(Armed { what, slot, watches: [watch_a, watch_b] });
                }
                (a, b) => assert_eq!(a.err(), b.err(), "{what}"),
            }
        } else {
            let what = format!("{} watches the children of {path}", self.name(a));
            let (list_a, watch_a) = split(a.watch_children(&path).await);
            let (list_b, watch_b) = split(b.watch_children(&path).await);
            self.same_children(&what, list_a, list_b);
            if let (Some(watch_a), Some(watch_b)) = (watch_a, watch_b) {
                self.watches.push(Armed { what, slot, watches: [watch_a, watch_b] });
            }
        }
    }

    async fn close(&mut self, slot: usize) {
        let Some(sessions) = self.slots[slot].take() else { return };
        for session in sessions {
            in_time("closing", session.close()).await;
        }
        let (ended, armed) =
            std::mem::take(&mut self.watches).into_iter().partition(|armed| armed.slot == slot);
        self.watches = armed;
        let ended: Vec<Armed> = ended;
        for Armed { what, watches: [mut a, mut b], .. } in ended {
            let (a, b) = (in_time(&what, a.fired()).await, in_time(&what, b.fired()).await);
            assert_eq!(a, b, "{what} until it closes");
        }
    }

    /// Compares which watches have fired by now, and forgets those.
    async fn compare_watches(&mut self) {
        for session in self.slots.iter().flatten().flatten() {
            in_time("a sync", fence(&**session, &self.root)).await.expect("a connected session reads");
        }
        let mut armed = Vec::new();
        for mut watch in std::mem::take(&mut self.watches) {
            let Armed { what, watches: [a, b], .. } = &mut watch;
            match (fired_by_now(a).await, fired_by_now(b).await) {
                (None, None) => armed.push(watch),
                (Some(fired), None) => same(what, &fired, &late(what, "second", b).await),
                (None, Some(fired)) => same(what, &late(what, "first", a).await, &fired),
                (Some(a), Some(b)) => same(what, &a, &b),
            }
        }
        self.watches = armed;
    }

    async fn compare_trees(&mut self) {
        for [a, b] in self.observers.clone() {
            for session in [&a, &b] {
                in_time("a sync", session.sync(&self.root)).await.expect("a connected session syncs");
            }
            let (paths, others) = (subtree(&*a, &self.root).await, subtree(&*b, &self.root).await);
            assert_eq!(paths, others, "the two trees");
            for path in &paths {
                self.same_read(path.as_str(), a.get(path).await, b.get(path).await);
            }
        }
    }

    fn same_read(
        &mut self,
        what: &str,
        a: Result<Option<(Vec<u8>, Stat)>, Error>,
        b: Result<Option<(Vec<u8>, Stat)>, Error>,
    ) {
        match (a, b) {
            (Ok(a), Ok(b)) => self.same_znode(what, a.as_ref(), b.as_ref()),
            (a, b) => assert_eq!(a.err(), b.err(), "{what}"),
        }
    }

    fn same_znode(&mut self, what: &str, a: Option<&(Vec<u8>, Stat)>, b: Option<&(Vec<u8>, Stat)>) {
        match (a, b) {
            (Some((data_a, a)), Some((data_b, b))) => {
                assert_eq!(data_a, data_b, "{what}");
                self.same_stat(what, a, b);
            }
            (a, b) => assert_eq!(a, b, "{what}"),
        }
    }

    fn same_children(
        &mut self,
        what: &str,
        a: Result<(Vec<String>, Stat), Error>,
        b: Result<(Vec<String>, Stat), Error>,
    ) {
        match (a, b) {
            (Ok((mut names_a, a)), Ok((mut names_b, b))) => {
                names_a.sort_unstable();
                names_b.sort_unstable();
                assert_eq!(names_a, names_b, "{what}");
                self.same_stat(what, &a, &b);
            }
            (a, b) => assert_eq!(a.err(), b.err(), "{what}"),
        }
    }

    fn same_stat(&mut self, what: &str, a: &Stat, b: &Stat) {
        let shape = |stat: &Stat, ordinals: &HashMap<SessionId, usize>| Shape {
            versions: [stat.version, stat.cversion],
            data_length: stat.data_length,
            num_children: stat.num_children,
            owner: stat.ephemeral_owner.map(|id| ordinals.get(&id).copied().ok_or(id)),
        };
        assert_eq!(shape(a, &self.ordinals[0]), shape(b, &self.ordinals[1]), "{what}");
        for (a, b) in [(a.czxid, b.czxid), (a.mzxid, b.mzxid), (a.pzxid, b.pzxid)] {
            self.same_zxid(what, a, b);
        }
    }

    /// Zxids match if each one of one side belongs to one of the other side, in the same order.
    fn same_zxid(&mut self, what: &str, a: i64, b: i64) {
        let before = self.zxids.range(..a).next_back();
        let after = self.zxids.range((Excluded(a), Unbounded)).next();
        let fits = match self.zxids.get(&a) {
            Some(known) => *known == b,
            None => before.is_none_or(|(_, known)| *known < b) && after.is_none_or(|(_, known)| b < *known),
        };
        assert!(fits, "{what}: zxid {a:#x} does not match {b:#x} between {before:x?} and {after:x?}");
        self.zxids.insert(a, b);
    }

    fn name(&self, session: &Arc<dyn Session>) -> String {
        self.ordinals[0].get(&session.id()).map(|n| format!("session {n}")).unwrap_or_default()
    }
}

async fn open(connectors: &Both<Arc<dyn Connector>>) -> Both<Arc<dyn Session>> {
    let [a, b] = connectors.each_ref().map(|connector| connector.open(SESSION_TIMEOUT));
    let a = in_time("opening a session", a).await.expect("the first store can be reached");
    let b = in_time("opening a session", b).await.expect("the second store can be reached");
    [a, b]
}

fn join(path: &ZnodePath, name: &str) -> ZnodePath {
    path.join(name).expect("the names of this file are valid")
}

fn kind(error: &CommitError) -> (Option<usize>, Discriminant<Error>) {
    (error.index, discriminant(&error.error))
}

type Listed = Result<(Vec<String>, Stat), Error>;

fn split(watched: Result<(Vec<String>, Stat, Watch), Error>) -> (Listed, Option<Watch>) {
    match watched {
        Ok((names, stat, watch)) => (Ok((names, stat)), Some(watch)),
        Err(error) => (Err(error), None),
    }
}

async fn late(what: &str, side: &str, watch: &mut Watch) -> Fired {
    in_time(&format!("{what}, which fired, but not on the {side} side"), watch.fired()).await
}

fn same<T: PartialEq + Debug>(what: &str, a: &T, b: &T) {
    assert_eq!(a, b, "{what}");
}
