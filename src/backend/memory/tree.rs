// Pure: no runtime, no clock, no socket, no random numbers.

//! The tree of znodes. A transaction on it is undone when one of its operations fails.
//!
//! It does what ZooKeeper does, and in the same order of checks; the differential test compares the two. A failed
//! transaction is rolled back from a log of the values that it replaced, so that the time of a commit does not depend
//! on the number of znodes.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use crate::backend::{CreateMode, Done, Error, Op, SessionId, Stat, path::ZnodePath};

/// The user of a session; `None` if it is anonymous.
pub(super) type User = Option<Arc<str>>;

/// All znodes, and which of them belong to which session.
#[derive(Debug)]
pub(super) struct Tree {
    zxid: i64,
    nodes: HashMap<ZnodePath, Node>,
    ephemerals: HashMap<SessionId, BTreeSet<ZnodePath>>,
}

#[derive(Debug, Default)]
struct Node {
    data: Vec<u8>,
    /// The lengths and counts that follow from the rest are filled in by [`Node::stat`].
    stat: Stat,
    /// How many children were ever created: the next sequence number.
    creates: i32,
    children: BTreeSet<Box<str>>,
    /// The only user with permission to it. `None`: every client has it.
    owner: User,
}

impl Node {
    fn permit(&self, user: &User) -> Result<(), Error> {
        if self.owner.is_none() || self.owner == *user { Ok(()) } else { Err(Error::NotPermitted) }
    }

    fn stat(&self) -> Stat {
        let num_children = i32::try_from(self.children.len()).unwrap_or(i32::MAX);
        Stat {
            // Each child that was created and no longer exists was deleted.
            cversion: self.creates.wrapping_mul(2).wrapping_sub(num_children),
            data_length: i32::try_from(self.data.len()).unwrap_or(i32::MAX),
            num_children,
            ..self.stat
        }
    }
}

/// A visible change of one znode, for which watches fire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Change {
    Created(ZnodePath),
    Set(ZnodePath),
    Deleted(ZnodePath),
}

/// How to undo one operation. `parent` has the values before it.
enum Undo {
    Created { path: ZnodePath, parent: (Stat, i32) },
    Set { path: ZnodePath, data: Vec<u8>, stat: Stat },
    Deleted { path: ZnodePath, node: Node, parent: (Stat, i32) },
}

/// The transaction that is being applied.
struct Txn {
    session: SessionId,
    user: User,
    zxid: i64,
    now_ms: i64,
    changes: Vec<Change>,
    undo: Vec<Undo>,
}

impl Tree {
    /// A root without children.
    pub(super) fn new() -> Self {
        Tree {
            zxid: 0,
            nodes: HashMap::from([(ZnodePath::root(), Node::default())]),
            ephemerals: HashMap::new(),
        }
    }

    /// Counts an event that changes no znode, such as the start of a session.
    pub(super) fn tick(&mut self) {
        self.zxid += 1;
    }

    /// The data and stat of a znode.
    pub(super) fn get(&self, path: &ZnodePath, user: &User) -> Result<Option<(&[u8], Stat)>, Error> {
        let Some(node) = self.nodes.get(path) else { return Ok(None) };
        node.permit(user)?;
        Ok(Some((node.data.as_slice(), node.stat())))
    }

    /// Whether every client has permission to a znode.
    pub(super) fn is_open(&self, path: &ZnodePath) -> Result<bool, Error> {
        Ok(self.node(path)?.owner.is_none())
    }

    /// Whether there is a znode to which this user has no permission.
    pub(super) fn denies(&self, path: &ZnodePath, user: &User) -> bool {
        self.nodes.get(path).is_some_and(|node| node.permit(user).is_err())
    }

    /// The names of the children and the stat of the parent.
    pub(super) fn children(&self, path: &ZnodePath, user: &User) -> Result<(Vec<String>, Stat), Error> {
        let node = self.node(path)?;
        node.permit(user)?;
        Ok((node.children.iter().map(ToString::to_string).collect(), node.stat()))
    }

    /// Applies all of `ops` and returns the changes, or applies none and returns the index of the one that was refused.
    pub(super) fn commit(
        &mut self,
        session: SessionId,
        user: User,
        ops: Vec<Op>,
        now_ms: i64,
    ) -> Result<(Vec<Done>, Vec<Change>), (usize, Error)> {
        let mut txn = Txn {
            session,
            user,
            zxid: self.zxid + 1,
            now_ms,
            changes: Vec::new(),
            undo: Vec::with_capacity(ops.len()),
        };
        let mut done = Vec::with_capacity(ops.len());
        for (index, op) in ops.into_iter().enumerate() {
            match self.apply(&mut txn, op) {
                Ok(result) => done.push(result),
                Err(error) => {
                    self.roll_back(txn.undo);
                    return Err((index, error));
                }
            }
        }
        self.zxid = txn.zxid;
        Ok((done, txn.changes))
    }

    /// Deletes the ephemeral znodes of a session that has ended, in one transaction.
    pub(super) fn end_session(&mut self, session: SessionId) -> Vec<Change> {
        self.zxid += 1;
        let mut changes = Vec::new();
        for path in self.ephemerals.remove(&session).unwrap_or_default() {
            let zxid = self.zxid;
            self.unlink(&path);
            self.parent_mut(&path).stat.pzxid = zxid;
            changes.push(Change::Deleted(path));
        }
        changes
    }

    fn apply(&mut self, txn: &mut Txn, op: Op) -> Result<Done, Error> {
        match op {
            Op::Check { path, version } => {
                let node = self.node(&path)?;
                node.permit(&txn.user)?;
                expect_version(node, version)?;
                Ok(Done::Checked)
            }
            Op::Create { path, data, mode } => self.create(txn, &path, data, mode).map(Done::Created),
            Op::Set { path, data, version } => self.set(txn, path, data, version).map(Done::Set),
            Op::Delete { path, version } => {
                self.delete(txn, path, version)?;
                Ok(Done::Deleted)
            }
        }
    }

    fn create(
        &mut self,
        txn: &mut Txn,
        path: &ZnodePath,
        data: Vec<u8>,
        mode: CreateMode,
    ) -> Result<ZnodePath, Error> {
        let Some(parent_path) = path.parent() else {
            return Err(Error::Other("the root cannot be created".into()));
        };
        let parent = self.nodes.get_mut(&parent_path).ok_or(Error::NoNode)?;
        parent.permit(&txn.user)?;
        let path = if mode.is_sequential() { numbered(path, parent.creates) } else { path.clone() };
        if parent.children.contains(path.name()) {
            return Err(Error::NodeExists);
        }
        if parent.stat.ephemeral_owner.is_some() {
            return Err(Error::EphemeralParent);
        }
        txn.undo.push(Undo::Created { path: path.clone(), parent: (parent.stat, parent.creates) });
        parent.creates = parent.creates.wrapping_add(1);
        parent.stat.pzxid = txn.zxid;
        let stat = Stat {
            czxid: txn.zxid,
            mzxid: txn.zxid,
            pzxid: txn.zxid,
            ephemeral_owner: mode.is_ephemeral().then_some(txn.session),
            created_ms: txn.now_ms,
            modified_ms: txn.now_ms,
            ..Stat::default()
        };
        self.link(path.clone(), Node { data, stat, owner: txn.user.clone(), ..Node::default() });
        txn.changes.push(Change::Created(path.clone()));
        Ok(path)
    }

    fn set(
        &mut self,
        txn: &mut Txn,
        path: ZnodePath,
        data: Vec<u8>,
        version: Option<i32>,
    ) -> Result<Stat, Error> {
        let node = self.nodes.get_mut(&path).ok_or(Error::NoNode)?;
        node.permit(&txn.user)?;
        expect_version(node, version)?;
        let before = node.stat;
        let replaced = std::mem::replace(&mut node.data, data);
        node.stat.version = before.version.wrapping_add(1);
        node.stat.mzxid = txn.zxid;
        node.stat.modified_ms = txn.now_ms;
        let after = node.stat();
        txn.undo.push(Undo::Set { path: path.clone(), data: replaced, stat: before });
        txn.changes.push(Change::Set(path));
        Ok(after)
    }

    fn delete(&mut self, txn: &mut Txn, path: ZnodePath, version: Option<i32>) -> Result<(), Error> {
        if path.is_root() {
            return Err(Error::Other("the root cannot be deleted".into()));
        }
        // The permission to delete is that of the parent.
        let parent = path.parent().expect("it is not the root");
        self.node(&parent)?.permit(&txn.user)?;
        let node = self.node(&path)?;
        expect_version(node, version)?;
        if !node.children.is_empty() {
            return Err(Error::NotEmpty);
        }
        let node = self.unlink(&path);
        if let Some(owner) = node.stat.ephemeral_owner {
            self.disown(owner, &path);
        }
        let parent = self.parent_mut(&path);
        txn.undo.push(Undo::Deleted { path: path.clone(), node, parent: (parent.stat, parent.creates) });
        parent.stat.pzxid = txn.zxid;
        txn.changes.push(Change::Deleted(path));
        Ok(())
    }

    fn roll_back(&mut self, undo: Vec<Undo>) {
        for entry in undo.into_iter().rev() {
            match entry {
                Undo::Created { path, parent } => {
                    let node = self.unlink(&path);
                    if let Some(owner) = node.stat.ephemeral_owner {
                        self.disown(owner, &path);
                    }
                    self.restore_parent(&path, parent);
                }
                Undo::Set { path, data, stat } => {
                    let node = self.nodes.get_mut(&path).expect("it was set, and what came later is undone");
                    node.data = data;
                    node.stat = stat;
                }
                Undo::Deleted { path, node, parent } => {
                    self.link(path.clone(), node);
                    self.restore_parent(&path, parent);
                }
            }
        }
    }

    fn node(&self, path: &ZnodePath) -> Result<&Node, Error> {
        self.nodes.get(path).ok_or(Error::NoNode)
    }

    fn parent_mut(&mut self, path: &ZnodePath) -> &mut Node {
        let parent = path.parent().expect("the root is never linked or unlinked");
        self.nodes.get_mut(&parent).expect("a znode with children cannot be deleted")
    }

    fn restore_parent(&mut self, path: &ZnodePath, (stat, creates): (Stat, i32)) {
        let parent = self.parent_mut(path);
        parent.stat = stat;
        parent.creates = creates;
    }

    fn link(&mut self, path: ZnodePath, node: Node) {
        self.parent_mut(&path).children.insert(path.name().into());
        if let Some(owner) = node.stat.ephemeral_owner {
            self.ephemerals.entry(owner).or_default().insert(path.clone());
        }
        self.nodes.insert(path, node);
    }

    fn unlink(&mut self, path: &ZnodePath) -> Node {
        self.parent_mut(path).children.remove(path.name());
        self.nodes.remove(path).expect("only existing znodes are unlinked")
    }

    fn disown(&mut self, owner: SessionId, path: &ZnodePath) {
        if let Some(paths) = self.ephemerals.get_mut(&owner) {
            paths.remove(path);
        }
    }
}

/// In the protocol of ZooKeeper -1 means any version, so it does here, too.
fn expect_version(node: &Node, version: Option<i32>) -> Result<(), Error> {
    match version {
        Some(version) if version != -1 && version != node.stat.version => Err(Error::BadVersion),
        _ => Ok(()),
    }
}

fn numbered(path: &ZnodePath, number: i32) -> ZnodePath {
    ZnodePath::parse(&format!("{path}{number:010}")).expect("digits may end any name")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ME: SessionId = SessionId(1);

    fn path(text: &str) -> ZnodePath {
        ZnodePath::parse(text).unwrap()
    }

    fn commit(tree: &mut Tree, ops: Vec<Op>) -> Result<(Vec<Done>, Vec<Change>), (usize, Error)> {
        tree.commit(ME, None, ops, 0)
    }

    fn persistent(text: &str) -> Op {
        Op::create(&path(text), "", CreateMode::Persistent)
    }

    #[test]
    fn a_failed_transaction_leaves_no_trace() {
        let mut tree = Tree::new();
        commit(&mut tree, vec![persistent("/a"), persistent("/a/b"), persistent("/a/c")]).unwrap();
        let before = format!("{:?}", sorted(&tree));
        let refused = commit(
            &mut tree,
            vec![
                Op::delete(&path("/a/b"), None),
                Op::create(&path("/a/b"), "again", CreateMode::Ephemeral),
                Op::create(&path("/a/n-"), "", CreateMode::EphemeralSequential),
                Op::set(&path("/a/b"), "new", None),
                Op::delete(&path("/a/b"), None),
                Op::delete(&path("/a/c"), None),
                Op::set(&path("/a"), "new", None),
                Op::delete(&path("/a"), None),
            ],
        );
        assert_eq!(refused, Err((7, Error::NotEmpty)), "the sequential child is still there");
        assert_eq!(format!("{:?}", sorted(&tree)), before);
        assert!(tree.ephemerals.values().all(BTreeSet::is_empty));
        let (done, _) =
            commit(&mut tree, vec![Op::create(&path("/a/n-"), "", CreateMode::PersistentSequential)])
                .unwrap();
        assert_eq!(done, [Done::Created(path("/a/n-0000000002"))], "the numbers it used are free again");
    }

    fn sorted(tree: &Tree) -> Vec<(&ZnodePath, &Node)> {
        let mut nodes: Vec<_> = tree.nodes.iter().collect();
        nodes.sort_by_key(|(path, _)| *path);
        nodes
    }

    #[test]
    fn the_version_is_checked_before_the_children() {
        let mut tree = Tree::new();
        commit(&mut tree, vec![persistent("/a"), persistent("/a/b")]).unwrap();
        assert_eq!(commit(&mut tree, vec![Op::delete(&path("/a"), Some(3))]), Err((0, Error::BadVersion)));
        assert_eq!(commit(&mut tree, vec![Op::delete(&path("/a"), Some(0))]), Err((0, Error::NotEmpty)));
    }

    #[test]
    fn the_end_of_a_session_is_one_transaction() {
        let mut tree = Tree::new();
        let ephemeral = |text| Op::create(&path(text), "", CreateMode::Ephemeral);
        commit(&mut tree, vec![persistent("/a"), ephemeral("/a/x"), ephemeral("/a/y"), ephemeral("/z")])
            .unwrap();
        let changes = tree.end_session(ME);
        let gone = ["/a/x", "/a/y", "/z"].map(|text| Change::Deleted(path(text)));
        assert_eq!(changes, gone);
        let (_, a) = tree.get(&path("/a"), &None).unwrap().unwrap();
        assert_eq!((a.pzxid, a.num_children, a.cversion), (2, 0, 4));
    }
}
