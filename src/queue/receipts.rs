//! [`Receipts`]: transactions of which it is always known whether they were applied, as long as the session lives.
//!
//! A put cannot be recognised by what it leaves behind: the store gives the name, and the entry may have been taken
//! before one looks. So each transaction also creates an ephemeral znode of our own, its receipt, or sets one that
//! is left from an earlier transaction: after a lost reply its version tells. That costs no request, and as many
//! znodes as there were transactions at once.

use std::{
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tracing::debug;

use crate::{
    backend::{self, CommitError, CreateMode, Done, Op, SessionId, path::ZnodePath},
    session::{Live, requests::make_way},
};

/// See the module documentation.
pub(crate) struct Receipts {
    folder: ZnodePath,
    free: Mutex<Vec<Receipt>>,
}

struct Receipt {
    session: SessionId,
    path: ZnodePath,
    /// `None` if it is still to be created.
    version: Option<i32>,
}

/// Why a transaction was not applied, or may not have been.
#[derive(Debug)]
pub(crate) enum NotDone {
    /// The store refused the operation with this index.
    Refused { index: usize, error: backend::Error },
    /// Nothing was done.
    Backend(backend::Error),
    /// The session is over, and with it what would have told.
    Unknown,
}

impl Receipts {
    pub(crate) fn new(folder: ZnodePath) -> Self {
        Receipts { folder, free: Mutex::default() }
    }

    /// Applies all of `ops` or none, once. `None`: applied, but the reply was lost.
    ///
    /// Not cancel safe: goes into [`Leases::run`](crate::lease::Leases::run).
    pub(crate) async fn commit(&self, live: &Live, ops: Vec<Op>) -> Result<Option<Vec<Done>>, NotDone> {
        let mut receipt = self.take(live.id());
        loop {
            let (expected, write) = match receipt.version {
                None => (0, Op::create(&receipt.path, [], CreateMode::Ephemeral)),
                Some(version) => (version.wrapping_add(1), Op::set(&receipt.path, [], Some(version))),
            };
            let all: Vec<_> = ops.iter().cloned().chain([write]).collect();
            let error = match live.session.commit(all.clone()).await {
                Ok(done) => {
                    self.keep(receipt, expected);
                    return Ok(Some(done));
                }
                Err(CommitError { index: Some(index), .. })
                    if index == ops.len() && receipt.version.is_some() =>
                {
                    debug!(receipt = %receipt.path, "somebody has touched it");
                    receipt = self.fresh(live.id());
                    continue;
                }
                Err(CommitError { index: Some(index), error }) => {
                    if make_way(&*live.session, &all[index], &error).await {
                        continue;
                    }
                    self.put_back(receipt);
                    return Err(NotDone::Refused { index, error });
                }
                Err(CommitError { index: None, error }) => error,
            };
            if !error.is_unknown() {
                self.put_back(receipt);
                return Err(NotDone::Backend(error));
            }
            let Ok(found) = live.read_back(&receipt.path).await else { return Err(NotDone::Unknown) };
            match found.map(|(_, stat)| stat.version) {
                version if version == receipt.version => {
                    debug!(receipt = %receipt.path, "not applied: again");
                }
                Some(version) if version == expected => {
                    self.keep(receipt, expected);
                    return Ok(None);
                }
                _ => return Err(NotDone::Unknown),
            }
        }
    }

    /// What is to be deleted when nothing is written any more.
    pub(crate) fn cleared(&self, session: SessionId) -> Vec<Op> {
        let free = std::mem::take(&mut *self.lock());
        let ours = free.into_iter().filter(|receipt| receipt.session == session && receipt.version.is_some());
        ours.map(|receipt| Op::delete(&receipt.path, receipt.version)).collect()
    }

    fn take(&self, session: SessionId) -> Receipt {
        let mut free = self.lock();
        free.retain(|receipt| receipt.session == session);
        let left = free.pop();
        drop(free);
        left.unwrap_or_else(|| self.fresh(session))
    }

    fn fresh(&self, session: SessionId) -> Receipt {
        let name = uuid::Uuid::new_v4().simple().to_string();
        let path = self.folder.join(&name).expect("a uuid is a name");
        Receipt { session, path, version: None }
    }

    fn keep(&self, receipt: Receipt, version: i32) {
        self.put_back(Receipt { version: Some(version), ..receipt });
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
