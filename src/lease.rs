//! [`Lease`]: exclusive, temporary ownership of one thing, with a token that other stores can compare.
//!
//! A lease is an ephemeral znode, its *lock*, that one transaction creates together with whatever marks the thing
//! as taken. It comes back by itself when its holder dies, and it ends at the holder, by the holder's own clock,
//! before the server can give it to somebody else (the deadline of a [`Share`](crate::Share)).
//!
//! Three things keep a stale holder from doing harm. Every write of a holder goes through the session that owns
//! the lock, which the server refuses once that session is over. It names version 1 of the lock: ours are set in
//! the transaction that creates them, those of Python peers never. And it names the version of the thing as the
//! claim left it. (A version check on a re-created lock alone proves nothing: its version starts again.)

use std::{
    collections::HashSet,
    fmt,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::Poll,
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};
use tracing::{debug, warn};

use crate::{
    backend::{self, CommitError, CreateMode, Done, Loss, Op, SessionId, Stat, Znode, path::ZnodePath},
    error::Error,
    group::member::MemberId,
    session::{Live, access::Access, requests::make_way, tenure::Tenure},
    task::Tasks,
};

/// Grows from one lease of a thing to the next, never otherwise: the transaction that created the lock.
///
/// Hand it to the store that the work writes to. A store that remembers the highest token it has seen for a thing
/// and refuses lower ones is safe even from a holder that was stopped between its last look at the lease and its
/// write. The tokens of one ensemble are comparable; an ensemble that was wiped starts again.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FencingToken(u64);

impl FencingToken {
    /// The number: a zxid of ZooKeeper.
    pub const fn get(self) -> u64 {
        self.0
    }

    fn of(lock: &Stat) -> Self {
        FencingToken(lock.czxid.unsigned_abs())
    }
}

impl fmt::Display for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.0)
    }
}

impl fmt::Debug for FencingToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The lease has lapsed or was lost: somebody else may hold it now.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("the lease on `{lock}` is lost: another process may hold it now")]
pub struct LeaseLost {
    /// The znode that was the lease.
    pub lock: String,
}

/// Exclusive, temporary ownership of one thing. Cheap to clone; all clones look at the same lease, and none of
/// them keeps it: that is up to the claim or the delivery it came from.
#[derive(Clone)]
pub struct Lease {
    inner: Arc<Inner>,
}

struct Inner {
    live: Arc<Live>,
    tenure: Tenure,
    lock: ZnodePath,
    token: FencingToken,
    subject: Option<(ZnodePath, i32)>,
}

/// The version of every lock of ours: created, then set in the same transaction.
const LOCK_VERSION: i32 = 1;

impl Lease {
    /// Whether this process may act on it at this moment. A look at a clock, no I/O; it may come true again after a
    /// pause in the connection, if the session has survived it.
    pub fn is_held(&self) -> bool {
        self.inner.tenure.is_valid()
    }

    /// How long it is certain to last if nothing more is heard from the store.
    pub fn remaining(&self) -> Duration {
        self.inner.tenure.remaining()
    }

    /// What a downstream store compares.
    pub fn token(&self) -> FencingToken {
        self.inner.token
    }

    /// The znode that is the lease.
    pub fn path(&self) -> &ZnodePath {
        &self.inner.lock
    }

    /// Waits until the lease has lapsed or was lost, for instance in a `select!` beside the work.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn lost(&self) -> LeaseLost {
        while self.is_held() {
            self.inner.tenure.changed(true).await;
        }
        LeaseLost { lock: self.inner.lock.to_string() }
    }

    /// Does `work` as long as the lease is held: before each step of the future the lease is looked at.
    ///
    /// A step that blocks the thread cannot be interrupted, and what the last step has sent may still arrive:
    /// hand [`Lease::token`] to stores that can compare it.
    ///
    /// # Errors
    ///
    /// [`LeaseLost`]: then `work` was dropped where it stood.
    ///
    /// # Cancel safety
    ///
    /// That of `work`.
    pub async fn while_held<F: Future>(&self, work: F) -> Result<F::Output, LeaseLost> {
        let mut work = pin!(work);
        let mut lost = pin!(self.lost());
        poll_fn(|context| {
            // A host that was suspended wakes the work first and the timer of the deadline later.
            if let Poll::Ready(lost) = lost.as_mut().poll(context) {
                return Poll::Ready(Err(lost));
            }
            if !self.is_held() {
                return Poll::Ready(Err(LeaseLost { lock: self.inner.lock.to_string() }));
            }
            work.as_mut().poll(context).map(Ok)
        })
        .await
    }

    /// The same question as operations of a transaction on the same store, in whatever session: it is refused
    /// unless this very lease holds when the store applies it.
    pub fn checks(&self) -> Vec<Op> {
        let lock = (self.inner.lock.clone(), LOCK_VERSION);
        let checks = [Some(lock), self.inner.subject.clone()].into_iter().flatten();
        checks.map(|(path, version)| Op::Check { path, version: Some(version) }).collect()
    }

    /// The session that owns the lock.
    pub fn session_id(&self) -> SessionId {
        self.inner.live.id()
    }

    /// The session that owns the lock, for writes in it.
    pub(crate) fn live(&self) -> &Arc<Live> {
        &self.inner.live
    }

    fn is_ours(&self, found: Option<&Znode>) -> bool {
        found.is_some_and(|(_, stat)| {
            is_made_by(&self.inner.live, stat) && FencingToken::of(stat) == self.token()
        })
    }

    /// Deletes the lock alone, if it is still this one: the thing or the lock was touched by somebody, and the lock
    /// must not stay for that.
    async fn delete_what_is_left(&self) {
        let Inner { live, lock, .. } = &*self.inner;
        let Ok(Some((data, stat))) = live.read_back(lock).await else { return };
        let version = Some(stat.version);
        if self.is_ours(Some(&(data, stat))) {
            warn!(%lock, "somebody has touched what was held: the lock alone is given back");
            if let Err(error) = live.session.commit(vec![Op::delete(lock, version)]).await {
                warn!(%lock, %error, "it stays until the session ends");
            }
        }
    }

    fn delete_lock(&self) -> Op {
        Op::delete(&self.inner.lock, Some(LOCK_VERSION))
    }

    /// Deletes the lock between `before` and `after`, all or nothing; repeats what a lost reply left undone.
    async fn give_up(
        &self,
        ops: &Around,
        evidence: Option<&ZnodePath>,
    ) -> Result<Option<Vec<Done>>, Unfinished> {
        let live = &self.inner.live;
        let all = ops.with([self.delete_lock()]);
        loop {
            let error = match live.session.commit(all.clone()).await {
                Ok(done) => return Ok(Some(done)),
                Err(CommitError { index: Some(index), error }) => {
                    if index == ops.before.len() {
                        debug!(lock = %self.inner.lock, %error, "the lock is gone");
                        return Err(Unfinished::Lost);
                    }
                    if make_way(&*live.session, &all[index], &error).await {
                        continue;
                    }
                    return Err(Unfinished::Refused { index, error });
                }
                Err(CommitError { index: None, error }) => error,
            };
            if !error.is_unknown() {
                return Err(Unfinished::Backend(error));
            }
            match live.read_back(&self.inner.lock).await {
                Ok(found) if self.is_ours(found.as_ref()) => continue,
                Ok(_) => {}
                Err(_) if evidence.is_none() => return Ok(None),
                Err(loss) => return Err(Unfinished::Unknown(loss)),
            }
            // Nobody else deletes our lock, but people do.
            return match evidence {
                None => Ok(None),
                Some(path) => match live.read_back(path).await {
                    Ok(None) => Ok(None),
                    Ok(Some(_)) => Err(Unfinished::Lost),
                    Err(loss) => Err(Unfinished::Unknown(loss)),
                },
            };
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lease")
            .field("lock", &self.inner.lock)
            .field("token", &self.token())
            .field("is_held", &self.is_held())
            .finish_non_exhaustive()
    }
}

fn is_made_by(live: &Live, stat: &Stat) -> bool {
    stat.ephemeral_owner == Some(live.id())
}

/// The operations around those on the lock.
#[derive(Debug, Clone, Default)]
pub(crate) struct Around {
    pub(crate) before: Vec<Op>,
    pub(crate) after: Vec<Op>,
}

impl Around {
    fn with(&self, on_lock: impl IntoIterator<Item = Op>) -> Vec<Op> {
        self.before.iter().cloned().chain(on_lock).chain(self.after.iter().cloned()).collect()
    }
}

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

/// Why a lease could not be given up in the way that was asked for.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Unfinished {
    /// The lease was lost before: nothing was done.
    #[error("the lease was lost before")]
    Lost,
    /// The operation with this index, counted in `before`, one on the lock, `after`. Nothing was done.
    #[error("operation {index} was refused: {error}")]
    Refused { index: usize, error: backend::Error },
    /// The session ended before the reply came: it was done, or the lease has ended with the session.
    #[error("the outcome is unknown: {0}")]
    Unknown(Loss),
    /// Nothing was done.
    #[error(transparent)]
    Backend(backend::Error),
}

/// A lease that is to be given up once: dropped, it is given back in the background.
pub(crate) struct Hold {
    lease: Lease,
    /// What to do beside deleting the lock when nobody says otherwise.
    back: Around,
    /// `None` once it is settled.
    entry: Option<Entry>,
}

impl Hold {
    pub(crate) fn lease(&self) -> &Lease {
        &self.lease
    }

    /// What to do beside deleting the lock if the hold is dropped.
    pub(crate) fn set_back(&mut self, back: Around) {
        self.back = back;
    }

    /// Has each heartbeat check the thing as well, so that the lease ends when somebody else touches it: for things
    /// that the holder itself does not change. Whoever breaks a lock by hand lets another process make one that
    /// looks the same, down to its version; the thing does not.
    pub(crate) fn attend_subject(&self) {
        let Inner { live, tenure, subject, .. } = &*self.lease.inner;
        if let Some((path, version)) = subject {
            live.attend_with(tenure, path, *version);
        }
    }

    /// Deletes the lock between `ops.before` and `ops.after`, all or nothing. `evidence` is a znode that is there
    /// before and not after: without one, the end of the session counts as success.
    ///
    /// `None` if the reply was lost. If it fails, what is left of the hold is given back.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it goes on in the background.
    pub(crate) async fn finish(
        self,
        ops: Around,
        evidence: Option<ZnodePath>,
    ) -> Result<Result<Option<Vec<Done>>, Unfinished>, Error> {
        let leases = self.entry.as_ref().expect("a hold is settled once, by value").leases.clone();
        // Here first: once the store has done it, others may take over.
        self.lease.inner.tenure.end();
        leases
            .run("finish", async move {
                let mut hold = self;
                // Asked before anything is sent: then it is certain that nothing was done.
                if hold.lease.live().is_over() {
                    return Err(Unfinished::Lost);
                }
                let finished = hold.lease.give_up(&ops, evidence.as_ref()).await;
                if matches!(finished, Ok(_) | Err(Unfinished::Unknown(_))) {
                    hold.settle();
                }
                finished
            })
            .await
    }

    /// Waits until a heartbeat has shown that the session lives, if none has for a while. After an outage that the
    /// session has survived, a lease would else be lost at the first look, given back, and taken again at once, for
    /// as long as the heartbeat takes.
    async fn confirmed(&self) -> Result<(), Refused> {
        let Inner { live, tenure, lock, .. } = &*self.lease.inner;
        while !tenure.is_valid() {
            if tenure.has_ended() {
                return Err(live.read_back(lock).await.map_or_else(Refused::Lost, |_| Refused::Taken));
            }
            tenure.changed(false).await;
        }
        Ok(())
    }

    fn settle(&mut self) {
        self.entry = None;
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        let Some(entry) = self.entry.take() else { return };
        self.lease.inner.tenure.end();
        let dropped = Dropped { lease: self.lease.clone(), back: std::mem::take(&mut self.back), entry };
        let leases = dropped.entry.leases.clone();
        // Without a task to do it, the end of the session gives everything back.
        let _ = leases.dropped.send(dropped);
    }
}

impl fmt::Debug for Hold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lease.fmt(f)
    }
}

struct Dropped {
    lease: Lease,
    back: Around,
    entry: Entry,
}

impl Dropped {
    async fn give_back(self) {
        let lease = &self.lease;
        let lock = &lease.inner.lock;
        match lease.give_up(&self.back, None).await {
            Ok(_) => debug!(%lock, "given back"),
            Err(error) => {
                debug!(%lock, %error, "not given back as it was taken");
                lease.delete_what_is_left().await;
            }
        }
        drop(self.entry);
    }
}

/// A lock that this process holds or is about to take: two claims in one session cannot be told apart at the store.
struct Entry {
    leases: Arc<Leases>,
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
        let hold = Hold { lease, back: Around::default(), entry: Some(entry) };
        hold.confirmed().await?;
        Ok((hold, done))
    }

    fn held(&self) -> MutexGuard<'_, HashSet<Held>> {
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

#[cfg(test)]
mod tests;
