//! [`Receipts`]: transactions whose outcome can be read back as long as the session lives.
//!
//! If the store chooses the name of a created znode, a process that lost the reply cannot recognize that znode: another
//! process may have taken it already. So each transaction also creates an ephemeral znode, its receipt, or sets one
//! from an earlier transaction. After a lost reply, the version of the receipt shows the outcome. This costs no extra
//! request, and as many receipts as there are transactions at the same time. The stat of the receipt also has the
//! transaction id, which is that of everything that was created in the same transaction.

use std::{
    fmt,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tracing::debug;

use super::{
    Live,
    access::Access,
    commit::{Applied, Evidence, Unapplied, Verdict},
    requests::{delete_each, persist},
};
use crate::backend::{self, CreateMode, Done, Op, SessionId, Stat, path::ZnodePath};

/// See the module documentation.
pub(crate) struct Receipts {
    folder: ZnodePath,
    free: Mutex<Vec<Receipt>>,
    /// Whether nothing is kept any more.
    is_cleared: AtomicBool,
}

#[derive(Debug, Clone)]
struct Receipt {
    session: SessionId,
    path: ZnodePath,
    /// `None` if it does not exist yet.
    version: Option<i32>,
}

/// A transaction that was applied.
#[derive(Debug)]
pub(crate) struct Receipted {
    pub(crate) applied: Applied,
    /// The stat of the receipt: `mzxid` is the transaction, `modified_ms` its time at the server.
    pub(crate) stat: Stat,
}

impl Receipt {
    /// The operations on the receipt, and its version after them. A receipt that is created is also set: on servers
    /// before 3.8.2, the stat of a create in a transaction is invalid (ZOOKEEPER-4026).
    fn write(&self) -> (Vec<Op>, i32) {
        match self.version {
            None => {
                let create = Op::create(&self.path, [], CreateMode::Ephemeral);
                (vec![create, Op::set(&self.path, [], Some(0))], 1)
            }
            Some(version) => (vec![Op::set(&self.path, [], Some(version))], version.wrapping_add(1)),
        }
    }
}

impl Receipts {
    /// Receipts in `folder`, which is created if it is missing.
    pub(crate) fn new(folder: ZnodePath) -> Self {
        Receipts { folder, free: Mutex::default(), is_cleared: AtomicBool::new(false) }
    }

    /// Applies all of `ops` or none, once.
    ///
    /// Not cancel safe: to be run by [`Tasks::complete`](crate::task::Tasks::complete).
    pub(crate) async fn commit(&self, live: &Live, ops: Vec<Op>) -> Result<Receipted, Unapplied> {
        let mut receipt = self.take(live);
        loop {
            let (write, version) = receipt.write();
            let all: Vec<_> = ops.iter().cloned().chain(write).collect();
            let before = receipt.version;
            let judge = move |found: Option<&backend::Znode>| match found.map(|(_, stat)| stat.version) {
                found if found == before => Verdict::NotApplied,
                Some(found) if found == version => Verdict::Applied,
                _ => Verdict::Overtaken,
            };
            let outcome = live.commit_once(&all, Evidence::new(&receipt.path, &judge)).await;
            match outcome {
                Ok(applied) => {
                    let stat = match &applied {
                        Applied::Replied(done) => match done.last() {
                            Some(Done::Set(stat)) => Some(*stat),
                            _ => None,
                        },
                        Applied::Seen(found) => found.as_ref().map(|(_, stat)| *stat),
                    };
                    let stat = stat.unwrap_or_default();
                    self.put_back(Receipt { version: Some(version), ..receipt });
                    self.clear_late(live).await;
                    return Ok(Receipted { applied, stat });
                }
                Err(Unapplied::Refused { index, error, .. }) if index >= ops.len() && before.is_some() => {
                    debug!(receipt = %receipt.path, %error, "an operator has changed it");
                    receipt = self.fresh(live);
                }
                Err(Unapplied::Overtaken) => {
                    let error = backend::Error::Unknown("an operator has changed the receipt".into());
                    return Err(Unapplied::Unknown(error));
                }
                Err(unapplied) => {
                    if !matches!(unapplied, Unapplied::Unknown(_)) {
                        self.put_back(receipt);
                        self.clear_late(live).await;
                    }
                    return Err(unapplied);
                }
            }
        }
    }

    /// Deletes the receipts of the current session. For when no more transactions come. Those of transactions that are
    /// still under way are deleted when these end.
    pub(crate) async fn clear(&self, access: &Access) {
        self.is_cleared.store(true, Ordering::SeqCst);
        let Some(live) = access.present() else { return };
        let ours = self.take_free(&live);
        let cleared = persist(&live, || delete_each(&*live.session, ours.clone())).await;
        self.note_cleared(cleared);
    }

    async fn clear_late(&self, live: &Live) {
        if self.is_cleared.load(Ordering::SeqCst) {
            // Once: a caller waits for the transaction.
            self.note_cleared(delete_each(&*live.session, self.take_free(live)).await);
        }
    }

    fn take_free(&self, live: &Live) -> Vec<ZnodePath> {
        let free = std::mem::take(&mut *self.lock());
        let ours = free.into_iter().filter(|it| it.session == live.id() && it.version.is_some());
        ours.map(|it| it.path).collect()
    }

    fn note_cleared(&self, cleared: Result<(), backend::Error>) {
        if let Err(error) = cleared {
            debug!(folder = %self.folder, %error, "the receipts stay until the session ends");
        }
    }

    fn take(&self, live: &Live) -> Receipt {
        let left = {
            let mut free = self.lock();
            free.retain(|receipt| receipt.session == live.id());
            free.pop()
        };
        left.unwrap_or_else(|| self.fresh(live))
    }

    fn fresh(&self, live: &Live) -> Receipt {
        let name = live.random.uuid().simple().to_string();
        let path = self.folder.join(&name).expect("a uuid is a name");
        Receipt { session: live.id(), path, version: None }
    }

    fn put_back(&self, receipt: Receipt) {
        self.lock().push(receipt);
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Receipt>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Receipts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receipts")
            .field("folder", &self.folder)
            .field("free", &self.lock().len())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
