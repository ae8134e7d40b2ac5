//! What the handles of a board and its driver share.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU64, AtomicUsize, Ordering},
};

use tokio::{
    sync::{Notify, mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    cache::{Cache, Known, Mark},
    entity::Entity,
    error::BoardError,
    layout::Layout,
};
use crate::{
    backend::{self, BoxFuture, Op, path::ZnodePath},
    error::Error,
    lease::Leases,
    session::{Live, Status, requests::ensure},
};

/// What handles and driver share.
pub(super) struct Shared {
    pub(super) layout: Layout,
    pub(super) leases: Arc<Leases>,
    pub(super) cache: Mutex<Cache>,
    /// Counts the changes of the cache.
    pub(super) revision: watch::Sender<u64>,
    /// Counts the listings that somebody waits for: asked for, and done.
    pub(super) wanted: AtomicU64,
    pub(super) serial: AtomicU64,
    pub(super) wake: Notify,
    pub(super) suspicion: Notify,
    pub(super) interest: Notify,
    /// Why the board could not be listed the last time.
    pub(super) trouble: Mutex<Option<Error>>,
    pub(super) entities: Mutex<Vec<Entity>>,
    pub(super) markers: mpsc::UnboundedSender<ZnodePath>,
    /// Among how many jobs a worker chooses: one, the first, unless it keeps losing races.
    pub(super) width: AtomicUsize,
    pub(super) dice: Mutex<fastrand::Rng>,
    pub(super) over: CancellationToken,
}

impl Shared {
    /// Nothing is known yet. The second value receives the markers of posts.
    pub(super) fn new(
        layout: Layout,
        leases: Arc<Leases>,
    ) -> (Arc<Self>, mpsc::UnboundedReceiver<ZnodePath>) {
        let (markers, to_clean) = mpsc::unbounded_channel();
        let over = leases.tasks().cancelled().child_token();
        let shared = Shared {
            layout,
            leases,
            cache: Mutex::default(),
            revision: watch::Sender::new(0),
            wanted: AtomicU64::new(0),
            serial: AtomicU64::new(0),
            wake: Notify::new(),
            suspicion: Notify::new(),
            interest: Notify::new(),
            trouble: Mutex::default(),
            entities: Mutex::default(),
            markers,
            width: AtomicUsize::new(1),
            dice: Mutex::new(fastrand::Rng::new()),
            over,
        };
        (Arc::new(shared), to_clean)
    }

    pub(super) fn cache(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn entities(&self) -> MutexGuard<'_, Vec<Entity>> {
        self.entities.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn closed(&self) -> BoardError {
        BoardError::Closed { board: self.layout.board.to_string() }
    }

    /// An error of the service as one of this board.
    pub(super) fn service(&self, error: Error) -> BoardError {
        if matches!(error, Error::Closed { .. }) { self.closed() } else { error.into() }
    }

    /// The live session, if there is one at this moment.
    pub(super) fn present(&self) -> Option<Arc<Live>> {
        match &*self.leases.access().status().borrow() {
            Status::Live(live) => Some(live.clone()),
            Status::Opening { .. } | Status::Closed => None,
        }
    }

    pub(super) async fn live(&self) -> Result<Arc<Live>, BoardError> {
        self.leases.access().live().await.map_err(|error| self.service(error))
    }

    /// Runs what must not stop half-way.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        name: &'static str,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, BoardError> {
        if self.over.is_cancelled() {
            return Err(self.closed());
        }
        self.leases.run(name, work).await.map_err(|error| self.service(error))
    }

    pub(super) async fn read<T>(
        &self,
        path: &ZnodePath,
        work: impl for<'a> Fn(&'a Live) -> BoxFuture<'a, Result<T, backend::Error>>,
    ) -> Result<T, BoardError> {
        if self.over.is_cancelled() {
            return Err(self.closed());
        }
        self.leases.access().repeat(path, work).await.map_err(|error| self.service(error))
    }

    /// Asks the server for the two kinds of requests that came late to ZooKeeper, and makes what is missing.
    pub(super) async fn prepare(self: &Arc<Self>) -> Result<(), BoardError> {
        let shared = self.clone();
        let prepared = self.read(&self.layout.board, move |live| {
            let shared = shared.clone();
            Box::pin(async move {
                match probe(live).await {
                    Err(backend::Error::Other(reason)) => Ok(Err(BoardError::Incompatible { reason })),
                    Err(error) => Err(error),
                    Ok(()) => shared.ensure(live).await.map(Ok),
                }
            })
        });
        prepared.await?
    }

    pub(super) fn revision(&self) -> u64 {
        *self.revision.borrow()
    }

    /// Waits until `probe` finds something in what is known.
    pub(super) async fn until<T>(&self, probe: impl Fn(&Shared) -> Option<T>) -> Result<T, BoardError> {
        let mut revision = self.revision.subscribe();
        let found = self.over.run_until_cancelled(async {
            loop {
                revision.mark_unchanged();
                if let Some(found) = probe(self) {
                    return found;
                }
                self.interest.notify_one();
                // The sender is ours.
                let _ = revision.changed().await;
            }
        });
        found.await.ok_or_else(|| self.closed())
    }

    /// Waits until the board was listed by a request that was sent after this call.
    pub(super) async fn fresh(&self) -> Result<(), BoardError> {
        let ticket = self.wanted.fetch_add(1, Ordering::SeqCst) + 1;
        self.wake.notify_one();
        let patience = self.leases.access().patience();
        let listed = |shared: &Shared| match shared.trouble() {
            _ if shared.serial() >= ticket => Some(Ok(())),
            Some(error) if !error.is_transient() => Some(Err(error.into())),
            _ => None,
        };
        match timeout(patience, self.until(listed)).await {
            Ok(listed) => listed?,
            Err(_) => {
                let trouble = self.trouble().or_else(|| self.leases.access().last_error());
                Err(Error::unreachable_after(patience, trouble.as_ref()).into())
            }
        }
    }

    pub(super) fn wanted(&self) -> u64 {
        self.wanted.load(Ordering::SeqCst)
    }

    /// Up to which request for a listing all are answered.
    pub(super) fn serial(&self) -> u64 {
        self.serial.load(Ordering::SeqCst)
    }

    /// Waits until somebody waits for a listing.
    pub(super) async fn is_wanted(&self) {
        while self.wanted() <= self.serial() {
            self.wake.notified().await;
        }
    }

    pub(super) fn has_listed(&self, serial: u64) {
        self.serial.store(serial, Ordering::SeqCst);
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        self.revision.send_modify(|revision| *revision += 1);
    }

    pub(super) fn has_failed(&self, error: Error) {
        *self.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        self.revision.send_modify(|revision| *revision += 1);
    }

    pub(super) fn trouble(&self) -> Option<Error> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Has the board listed again soon: what is known may be wrong.
    pub(super) fn suspect(&self) {
        self.suspicion.notify_one();
    }

    pub(super) async fn is_suspected(&self) {
        self.suspicion.notified().await;
    }

    /// Has the marker of a post deleted.
    pub(super) fn clean(&self, marker: ZnodePath) {
        // Without a task to do it, the end of the session does.
        let _ = self.markers.send(marker);
    }

    /// Waits until somebody waits for news or wants to claim a job.
    pub(super) async fn is_of_interest(&self) {
        if self.revision.receiver_count() == 0 {
            self.interest.notified().await;
        }
    }

    /// One of the first unclaimed jobs of the highest priority there is: the first of all, unless there are rivals.
    pub(super) fn choose(&self) -> Option<Arc<Known>> {
        let cache = self.cache();
        let first = cache.unclaimed().next()?;
        let width = self.width.load(Ordering::Relaxed);
        let alike =
            cache.unclaimed().take(width).take_while(|it| it.posting.priority() == first.posting.priority());
        let alike: Vec<_> = alike.collect();
        let at = self.dice.lock().unwrap_or_else(PoisonError::into_inner).usize(..alike.len());
        Some(Arc::clone(alike[at]))
    }

    /// Makes sure that the folders of the board exist.
    pub(super) async fn ensure(&self, live: &Live) -> Result<(), backend::Error> {
        for folder in [&self.layout.board, &self.layout.trash, &self.layout.posting] {
            ensure(&*live.session, folder).await?;
        }
        Ok(())
    }

    /// Notes what was done here, for the next who looks.
    pub(super) fn mark(&self, mark: Mark) {
        self.cache().mark(mark);
        self.revision.send_modify(|revision| *revision += 1);
    }
}

async fn probe(live: &Live) -> Result<(), backend::Error> {
    let root = ZnodePath::root();
    live.session.commit(vec![Op::exists(&root)]).await.map_err(|error| error.error)?;
    live.session.get_many(std::slice::from_ref(&root)).await.map(drop)
}
