//! [`Leases`]: how the leases of one coordinator are taken, and what outlives its caller.

use std::{
    collections::HashSet,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::{mpsc, oneshot};
use tracing::debug;

use super::{
    FencingToken, Inner, LOCK_VERSION, Lease,
    hold::{Around, Dropped, Hold, is_made_by},
};
use crate::{
    backend::{self, CommitError, CreateMode, Done, Loss, Op, SessionId, path::ZnodePath},
    error::Error,
    group::member::MemberId,
    session::{Live, access::Access, requests::make_way},
    task::Tasks,
};

/// What a lease is asked for with.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub(crate) lock: ZnodePath,
    pub(crate) data: Vec<u8>,
    /// Done in the same transaction.
    pub(crate) with: Around,
    /// The thing, and its version after the transaction.
    pub(crate) subject: Option<(ZnodePath, i32)>,
}

/// Why there is no lease.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Refused {
    /// The lock exists, or this very process is about to create it.
    #[error("somebody else has it")]
    Taken,
    /// The operation with this index, counted in `before`, two on the lock, `after`.
    #[error("operation {index} was refused: {error}")]
    Op { index: usize, error: backend::Error },
    /// The session ended meanwhile: nothing is held.
    #[error("{0}")]
    Lost(Loss),
    #[error(transparent)]
    Backend(backend::Error),
}

/// A lock that this process holds or is about to take: two claims in one session cannot be told apart at the store.
pub(super) struct Entry {
    pub(super) leases: Arc<Leases>,
    held: Held,
}

/// A session of ours and its lock: whoever keeps a lease that was lost with an earlier session is in nobody's way.
type Held = (SessionId, ZnodePath);

impl Drop for Entry {
    fn drop(&mut self) {
        self.leases.held().remove(&self.held);
    }
}

/// The leases of one coordinator.
pub(crate) struct Leases {
    access: Access,
    me: MemberId,
    tasks: Arc<Tasks>,
    held: Mutex<HashSet<Held>>,
    dropped: mpsc::UnboundedSender<Dropped>,
}

impl Leases {
    /// Starts the task that gives back what is dropped.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub(crate) fn start(access: Access, me: MemberId, tasks: Arc<Tasks>) -> Arc<Self> {
        let (sender, mut dropped) = mpsc::unbounded_channel::<Dropped>();
        let (cancelled, owner) = (tasks.cancelled(), Arc::downgrade(&tasks));
        tasks.spawn("leases", async move {
            while let Some(Some(dropped)) = cancelled.run_until_cancelled(dropped.recv()).await {
                let Some(tasks) = owner.upgrade() else { break };
                tasks.spawn("give back", dropped.give_back());
            }
        });
        Arc::new(Leases { access, me, tasks, held: Mutex::default(), dropped: sender })
    }

    /// The door to the present session.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// Who holds what is held here.
    pub(crate) fn me(&self) -> &MemberId {
        &self.me
    }

    /// Where what has to outlive its caller runs.
    pub(crate) fn tasks(&self) -> &Arc<Tasks> {
        &self.tasks
    }

    /// Runs `work` to its end, whether or not the caller waits for it; what nobody waits for is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the coordinator is shut down, or the work has panicked.
    ///
    /// # Cancel safety
    ///
    /// Safe: cancelled, the work goes on in the background.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        let closed = || Error::Closed { group: String::new() };
        let cancelled = self.tasks.cancelled();
        if cancelled.is_cancelled() {
            return Err(closed());
        }
        let (sender, receiver) = oneshot::channel();
        self.tasks.spawn(name, async move {
            if let Some(found) = cancelled.run_until_cancelled(work).await {
                // Nobody waits for it any more: dropping it gives it back.
                let _ = sender.send(found);
            }
        });
        receiver.await.map_err(|_| closed())
    }

    /// Takes the lease of `request` in the session `live`. The second value is what became of the operations,
    /// `None` if the reply was lost and the lock shows that they were done.
    ///
    /// Not cancel safe: goes into [`Leases::run`].
    pub(crate) async fn acquire(
        self: &Arc<Self>,
        live: &Arc<Live>,
        request: Request,
    ) -> Result<(Hold, Option<Vec<Done>>), Refused> {
        let Request { lock, data, with, subject } = request;
        let held = (live.id(), lock.clone());
        if !self.held().insert(held.clone()) {
            return Err(Refused::Taken);
        }
        let entry = Entry { leases: Arc::clone(self), held };
        let ops = with
            .with([Op::create(&lock, data.clone(), CreateMode::Ephemeral), Op::set(&lock, data, Some(0))]);
        let (stat, done) = loop {
            let error = match live.session.commit(ops.clone()).await {
                Ok(done) => match done.get(with.before.len() + 1) {
                    Some(Done::Set(stat)) => break (*stat, Some(done)),
                    _ => backend::Error::Other("a set without a stat".into()),
                },
                Err(CommitError { index: Some(index), error: backend::Error::NodeExists })
                    if index == with.before.len() =>
                {
                    return Err(Refused::Taken);
                }
                Err(CommitError { index: Some(index), error }) => {
                    if make_way(&*live.session, &ops[index], &error).await {
                        continue;
                    }
                    return Err(Refused::Op { index, error });
                }
                Err(CommitError { index: None, error }) => error,
            };
            if !error.is_unknown() {
                return Err(Refused::Backend(error));
            }
            match live.read_back(&lock).await.map_err(Refused::Lost)? {
                Some((_, stat)) if is_made_by(live, &stat) => break (stat, None),
                Some(_) => return Err(Refused::Taken),
                None => debug!(%lock, "the reply was lost, and the request as well"),
            }
        };
        let tenure = live.attend(&lock, LOCK_VERSION);
        let token = FencingToken::of(&stat);
        debug!(%lock, %token, "taken");
        let lease = Lease { inner: Arc::new(Inner { live: live.clone(), tenure, lock, token, subject }) };
        let hold = Hold::new(lease, entry);
        hold.confirmed().await?;
        Ok((hold, done))
    }

    pub(super) fn give_back(&self, dropped: Dropped) {
        // Without a task to do it, the end of the session gives everything back.
        let _ = self.dropped.send(dropped);
    }

    pub(super) fn held(&self) -> MutexGuard<'_, HashSet<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Leases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Leases")
            .field("me", &self.me)
            .field("held", &self.held().len())
            .finish_non_exhaustive()
    }
}
