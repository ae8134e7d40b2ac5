//! A ZooKeeper ensemble on simulated time: a leader that commits, and followers that answer reads from what they have
//! applied so far.

use std::{collections::BTreeMap, sync::Arc};

use super::super::types::Refusal;
use crate::backend::{CreateMode, Op, SessionId, Stat, Znode, path::ZnodePath};

/// All znodes after one transaction.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) nodes: BTreeMap<ZnodePath, Arc<Znode>>,
    /// Per parent: the last transaction that created or deleted a child.
    pzxids: BTreeMap<ZnodePath, i64>,
}

impl State {
    pub(super) fn get(&self, path: &ZnodePath) -> Option<&Znode> {
        self.nodes.get(path).map(|node| &**node)
    }

    pub(super) fn children<'a>(
        &'a self,
        parent: &'a ZnodePath,
    ) -> impl Iterator<Item = (&'a str, &'a Znode)> {
        let children = self.nodes.iter().filter(|(path, _)| path.parent().as_ref() == Some(parent));
        children.map(|(path, node)| (path.name(), &**node))
    }

    pub(super) fn pzxid(&self, parent: &ZnodePath) -> i64 {
        self.pzxids.get(parent).copied().unwrap_or(0)
    }

    fn touch_parent(&mut self, path: &ZnodePath, zxid: i64) {
        if let Some(parent) = path.parent() {
            self.pzxids.insert(parent, zxid);
        }
    }

    fn apply(&mut self, zxid: i64, owner: SessionId, op: &Op) -> Result<(), Refusal> {
        let checked = |node: Option<&Arc<Znode>>, version: &Option<i32>| match node {
            None => Err(Refusal::NoNode),
            Some(node) if version.is_some_and(|version| version != node.1.version) => {
                Err(Refusal::BadVersion)
            }
            Some(node) => Ok((**node).clone()),
        };
        match op {
            Op::Check { path, version } => checked(self.nodes.get(path), version).map(|_| ()),
            Op::Set { path, data, version } => {
                let (_, stat) = checked(self.nodes.get(path), version)?;
                let stat = Stat { version: stat.version + 1, mzxid: zxid, ..stat };
                self.nodes.insert(path.clone(), Arc::new((data.clone(), stat)));
                Ok(())
            }
            Op::Create { path, data, mode } => {
                if self.nodes.contains_key(path) {
                    return Err(Refusal::NodeExists);
                }
                let ephemeral_owner = (*mode == CreateMode::Ephemeral).then_some(owner);
                let stat = Stat { czxid: zxid, mzxid: zxid, ephemeral_owner, ..Stat::default() };
                self.nodes.insert(path.clone(), Arc::new((data.clone(), stat)));
                self.touch_parent(path, zxid);
                Ok(())
            }
            Op::Delete { path, version } => {
                checked(self.nodes.get(path), version)?;
                self.nodes.remove(path);
                self.touch_parent(path, zxid);
                Ok(())
            }
        }
    }
}

/// The history of the store, and how much of it each server has.
pub(super) struct Ensemble {
    /// The state after each transaction; the number of a transaction is its place.
    pub(super) log: Vec<Arc<State>>,
    pub(super) servers: Vec<Server>,
}

#[derive(Clone, Default)]
pub(super) struct Server {
    /// How many transactions it has applied. Always all, at the leader.
    pub(super) applied: usize,
    /// It has no connection to the leader.
    pub(super) is_cut: bool,
}

/// The leader. It stays the leader.
pub(super) const LEADER: usize = 0;

impl Ensemble {
    pub(super) fn new(servers: usize) -> Ensemble {
        Ensemble { log: vec![Arc::default()], servers: vec![Server::default(); servers] }
    }

    pub(super) fn newest(&self) -> &Arc<State> {
        self.log.last().expect("there is a first state")
    }

    /// What a server answers reads from.
    pub(super) fn at(&self, server: usize) -> &Arc<State> {
        &self.log[self.servers[server].applied]
    }

    /// Commits all of `ops` or none.
    pub(super) fn commit(&mut self, owner: SessionId, ops: &[Op]) -> Result<(), (usize, Refusal)> {
        let mut next = (**self.newest()).clone();
        let zxid = self.log.len() as i64;
        for (index, op) in ops.iter().enumerate() {
            next.apply(zxid, owner, op).map_err(|why| (index, why))?;
        }
        // Checks alone are a transaction, too.
        self.log.push(Arc::new(next));
        self.servers[LEADER].applied = self.log.len() - 1;
        Ok(())
    }

    /// Deletes the ephemeral znodes of a session.
    pub(super) fn expire(&mut self, session: SessionId) {
        let its = self.newest().nodes.iter().filter(|(_, node)| node.1.ephemeral_owner == Some(session));
        let ops: Vec<Op> = its.map(|(path, _)| Op::Delete { path: path.clone(), version: None }).collect();
        if !ops.is_empty() {
            let _ = self.commit(session, &ops);
        }
    }
}
