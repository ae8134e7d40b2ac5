//! [`Trap`]: a connector to an ensemble in memory that ends or stalls a session at a chosen call.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use apportion::{
    backend::{
        BoxFuture, CommitError, Connector, Done, Error, Memory, Op, Session, SessionId, SessionState, Stat,
        Watch, memory::LostReply, path::ZnodePath,
    },
    clock::Clock,
};
use tokio::{
    sync::watch,
    task::{JoinSet, yield_now},
};

/// What happens at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The session ends before the write arrives.
    ExpiresBefore,
    /// The session ends after the write was applied and before the reply is sent.
    ExpiresAfter,
    /// The session ends before a read is answered.
    ExpiresAtRead,
    /// The connection breaks before the write arrives and is mended a while later, when the write goes through.
    Stalls,
    /// The connection breaks before the write arrives, for longer than the session lasts.
    Outage,
}

impl Fault {
    pub(crate) const ALL: [Fault; 5] =
        [Fault::ExpiresBefore, Fault::ExpiresAfter, Fault::ExpiresAtRead, Fault::Stalls, Fault::Outage];

    fn is_at_read(self) -> bool {
        self == Fault::ExpiresAtRead
    }

    /// Whether it is tried together with this: not all pairs tell something new.
    pub(crate) fn is_thorough(self, lost: LostReply) -> bool {
        match lost {
            LostReply::AfterApplying => matches!(self, Fault::ExpiresAtRead | Fault::Outage),
            LostReply::BeforeApplying => self == Fault::ExpiresAfter,
        }
    }
}

/// How long a connection is away that comes back in time.
const STALL: Duration = Duration::from_secs(3);

#[derive(Debug, Clone)]
pub(crate) struct Trap {
    memory: Memory,
    plan: Arc<Mutex<Plan>>,
    /// Whether each call lets others go on before it is made and before it is answered.
    is_slow: bool,
    /// The sessions that it has ended before their time.
    expired: Arc<Mutex<BTreeSet<SessionId>>>,
}

#[derive(Debug, Default)]
struct Plan {
    reads: u64,
    writes: u64,
    armed: Option<(u64, Fault)>,
    stalls: JoinSet<()>,
}

impl Trap {
    pub(crate) fn new(memory: &Memory) -> Trap {
        Trap { memory: memory.clone(), plan: Arc::default(), is_slow: false, expired: Arc::default() }
    }

    /// One whose calls take several turns of the runtime, so that a caller can be dropped in between.
    pub(crate) fn slow(memory: &Memory) -> Trap {
        Trap { is_slow: true, ..Trap::new(memory) }
    }

    /// One that notes there which sessions it has ended before their time.
    pub(crate) fn noting(self, expired: Arc<Mutex<BTreeSet<SessionId>>>) -> Trap {
        Trap { expired, ..self }
    }

    /// How many calls were made at which this fault can happen.
    pub(crate) fn calls(&self, fault: Fault) -> u64 {
        let plan = self.plan.lock().unwrap();
        if fault.is_at_read() { plan.reads } else { plan.writes }
    }

    /// Sets the trap for the `n`-th such call from now on.
    pub(crate) fn arm(&self, n: u64, fault: Fault) {
        let at = self.calls(fault) + n;
        self.plan.lock().unwrap().armed = Some((at, fault));
    }

    pub(crate) fn disarm(&self) {
        self.plan.lock().unwrap().armed = None;
    }

    fn expire(&self, id: SessionId) {
        self.expired.lock().unwrap().insert(id);
        self.memory.expire(id);
    }

    fn step(&self, is_read: bool) -> Option<Fault> {
        let mut plan = self.plan.lock().unwrap();
        let count = if is_read { &mut plan.reads } else { &mut plan.writes };
        *count += 1;
        let count = *count;
        plan.armed
            .take_if(|(at, fault)| fault.is_at_read() == is_read && *at == count)
            .map(|(_, fault)| fault)
    }

    async fn read(&self, id: SessionId) {
        if self.is_slow {
            yield_now().await;
        }
        if self.step(true).is_some() {
            self.expire(id);
        }
    }
}

impl Connector for Trap {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, Error>> {
        Box::pin(async move {
            let inner = self.memory.open(timeout).await?;
            let session: Arc<dyn Session> = Arc::new(Trapped { inner, trap: self.clone() });
            Ok(session)
        })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Connector::clock(&self.memory)
    }
}

#[derive(Debug)]
struct Trapped {
    inner: Arc<dyn Session>,
    trap: Trap,
}

impl Trapped {
    async fn answered<T>(&self, work: impl Future<Output = T>) -> T {
        self.trap.read(self.id()).await;
        let answer = work.await;
        if self.trap.is_slow {
            yield_now().await;
        }
        answer
    }

    async fn write(&self, ops: Vec<Op>) -> Result<Vec<Done>, CommitError> {
        let (memory, id) = (&self.trap.memory, self.id());
        match self.trap.step(false) {
            None | Some(Fault::ExpiresAtRead) => self.inner.commit(ops).await,
            Some(Fault::ExpiresBefore) => {
                self.trap.expire(id);
                self.inner.commit(ops).await
            }
            Some(Fault::ExpiresAfter) => {
                let _ = self.inner.commit(ops).await;
                self.trap.expire(id);
                Err(Error::Lost(apportion::backend::Loss::Expired).into())
            }
            Some(Fault::Stalls) => {
                memory.suspend(id);
                let memory = memory.clone();
                self.trap.plan.lock().unwrap().stalls.spawn(async move {
                    tokio::time::sleep(STALL).await;
                    memory.resume(id);
                });
                self.inner.commit(ops).await
            }
            Some(Fault::Outage) => {
                memory.suspend(id);
                self.inner.commit(ops).await
            }
        }
    }
}

impl Session for Trapped {
    fn id(&self) -> SessionId {
        self.inner.id()
    }

    fn timeout(&self) -> Duration {
        self.inner.timeout()
    }

    fn state(&self) -> watch::Receiver<SessionState> {
        self.inner.state()
    }

    fn get<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<Option<(Vec<u8>, Stat)>, Error>> {
        Box::pin(self.answered(self.inner.get(path)))
    }

    fn get_many<'a>(
        &'a self,
        paths: &'a [ZnodePath],
    ) -> BoxFuture<'a, Result<Vec<Option<(Vec<u8>, Stat)>>, Error>> {
        Box::pin(self.answered(self.inner.get_many(paths)))
    }

    fn children<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Vec<String>, Stat), Error>> {
        Box::pin(self.answered(self.inner.children(path)))
    }

    fn watch_children<'a>(
        &'a self,
        path: &'a ZnodePath,
    ) -> BoxFuture<'a, Result<(Vec<String>, Stat, Watch), Error>> {
        Box::pin(self.answered(self.inner.watch_children(path)))
    }

    fn watch_node<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(Option<Stat>, Watch), Error>> {
        Box::pin(self.answered(self.inner.watch_node(path)))
    }

    fn commit(&self, ops: Vec<Op>) -> BoxFuture<'_, Result<Vec<Done>, CommitError>> {
        Box::pin(async move {
            // Heartbeats come when they come.
            if ops.iter().all(|op| matches!(op, Op::Check { .. })) {
                return self.inner.commit(ops).await;
            }
            if self.trap.is_slow {
                yield_now().await;
            }
            let outcome = self.write(ops).await;
            if self.trap.is_slow {
                yield_now().await;
            }
            outcome
        })
    }

    fn sync<'a>(&'a self, path: &'a ZnodePath) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.answered(self.inner.sync(path)))
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.inner.close()
    }
}
