//! [`Leases`]: the locks that one coordinator holds, and the work that goes on after its caller is gone.

use std::{
    collections::HashSet,
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::mpsc;

use crate::{
    backend::{SessionId, path::ZnodePath},
    error::Error,
    future::BoxFuture,
    member::MemberId,
    random::Random,
    session::access::Access,
    task::Tasks,
};

/// The leases of one coordinator.
pub(crate) struct Leases {
    access: Access,
    me: MemberId,
    tasks: Arc<Tasks>,
    held: Mutex<HashSet<Held>>,
    background: mpsc::UnboundedSender<BoxFuture<'static, ()>>,
}

/// A session and a lock in it. With the session in the key, a lease of an earlier session that a caller still has does
/// not prevent a new one.
type Held = (SessionId, ZnodePath);

/// A lock that this process holds or is about to take. The store cannot distinguish two claims of one session, so the
/// second one is refused here.
pub(super) struct Registered {
    leases: Arc<Leases>,
    held: Held,
}

impl Registered {
    pub(super) fn leases(&self) -> &Arc<Leases> {
        &self.leases
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.leases.held().remove(&self.held);
    }
}

impl Leases {
    /// Starts the task that gives back dropped leases.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub(crate) fn start(access: Access, me: MemberId, tasks: Arc<Tasks>) -> Arc<Self> {
        let (background, mut work) = mpsc::unbounded_channel::<BoxFuture<'static, ()>>();
        let (cancelled, owner) = (tasks.cancelled(), Arc::downgrade(&tasks));
        tasks.spawn("leases", async move {
            while let Some(Some(work)) = cancelled.run_until_cancelled(work.recv()).await {
                let Some(tasks) = owner.upgrade() else { break };
                tasks.spawn("give back", work);
            }
        });
        Arc::new(Leases { access, me, tasks, held: Mutex::default(), background })
    }

    /// Access to the current session.
    pub(crate) fn access(&self) -> &Access {
        &self.access
    }

    /// The owner of these leases.
    pub(crate) fn me(&self) -> &MemberId {
        &self.me
    }

    /// The source of random numbers and ids of this coordinator.
    pub(crate) fn random(&self) -> &Random {
        self.access.random()
    }

    /// Runs the work that has to go on without its caller.
    pub(crate) fn tasks(&self) -> &Arc<Tasks> {
        &self.tasks
    }

    /// Runs `work` to its end, whether or not the caller waits for it. If no caller waits, the result is dropped.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the coordinator is shut down, or the work has panicked.
    ///
    /// # Cancel safety
    ///
    /// Safe: if it is cancelled, the work goes on in the background.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, Error> {
        self.tasks.complete(name, work).await.ok_or_else(Error::closed)
    }

    /// Registers `lock` as held or about to be taken in this session; `None` if it is registered already.
    pub(super) fn register(self: &Arc<Self>, session: SessionId, lock: &ZnodePath) -> Option<Registered> {
        let held = (session, lock.clone());
        let is_new = self.held().insert(held.clone());
        is_new.then(|| Registered { leases: Arc::clone(self), held })
    }

    /// Runs `work` in the background; may be called outside a runtime. Drops it if the coordinator is shut down.
    pub(crate) fn in_background(&self, work: impl Future<Output = ()> + Send + 'static) {
        // Without the task, the end of the session gives everything back.
        let _ = self.background.send(Box::pin(work));
    }

    fn held(&self) -> MutexGuard<'_, HashSet<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn holds_nothing(&self) -> bool {
        self.held().is_empty()
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
