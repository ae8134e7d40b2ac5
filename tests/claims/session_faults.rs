//! [`SessionFaults`]: a hook that ends or stalls a session at a chosen call.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use apportion::{
    backend::{BoxFuture, Error, Loss, Memory, SessionId, memory::LostReply},
    testing::{Call, Hook, Intercept, Outcome, Request},
};
use tokio::task::{JoinSet, yield_now};

/// The fault at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The session ends before the write arrives.
    ExpiresBefore,
    /// The session ends after the write was applied and before the reply is sent.
    ExpiresAfter,
    /// The session ends before a read is answered.
    ExpiresAtRead,
    /// The connection breaks before the write arrives and is back a while later, when the write arrives.
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

    /// Whether it is combined with this lost reply: not all pairs test something new.
    pub(crate) fn is_thorough(self, lost: LostReply) -> bool {
        match lost {
            LostReply::AfterApplying => matches!(self, Fault::ExpiresAtRead | Fault::Outage),
            LostReply::BeforeApplying => self == Fault::ExpiresAfter,
        }
    }
}

/// How long a connection is away that comes back in time.
const STALL: Duration = Duration::from_secs(3);

/// Faults at the calls of sessions of an ensemble in memory.
#[derive(Debug)]
pub(crate) struct SessionFaults {
    memory: Memory,
    plan: Mutex<Plan>,
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

impl SessionFaults {
    pub(crate) fn new(memory: &Memory) -> SessionFaults {
        let (plan, expired) = (Mutex::default(), Arc::default());
        SessionFaults { memory: memory.clone(), plan, is_slow: false, expired }
    }

    /// One whose calls take several turns of the runtime, so that a caller can be dropped in between.
    pub(crate) fn slow(memory: &Memory) -> SessionFaults {
        SessionFaults { is_slow: true, ..SessionFaults::new(memory) }
    }

    /// One that notes there which sessions it has ended before their time.
    pub(crate) fn noting(self, expired: Arc<Mutex<BTreeSet<SessionId>>>) -> SessionFaults {
        SessionFaults { expired, ..self }
    }

    /// The way to the ensemble on which they happen.
    pub(crate) fn connector(self: &Arc<Self>) -> Intercept {
        Intercept::new(Arc::new(self.memory.clone()), self.clone())
    }

    /// How many calls were made at which this fault can happen.
    pub(crate) fn calls(&self, fault: Fault) -> u64 {
        let plan = self.plan.lock().unwrap();
        if fault.is_at_read() { plan.reads } else { plan.writes }
    }

    /// Has the fault happen at the `n`-th such call from now on.
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

    /// Counts a call, and says what is to happen at it.
    fn count(&self, is_read: bool) -> Option<Fault> {
        let mut plan = self.plan.lock().unwrap();
        let count = if is_read { &mut plan.reads } else { &mut plan.writes };
        *count += 1;
        let count = *count;
        plan.armed
            .take_if(|(at, fault)| fault.is_at_read() == is_read && *at == count)
            .map(|(_, fault)| fault)
    }

    async fn make(&self, call: Call<'_>, id: SessionId) -> Outcome {
        match self.count(!call.request().is_write()) {
            None => call.send().await,
            Some(Fault::ExpiresBefore | Fault::ExpiresAtRead) => {
                self.expire(id);
                call.send().await
            }
            Some(Fault::ExpiresAfter) => {
                let _ = call.send().await;
                self.expire(id);
                Err(Error::Lost(Loss::Expired).into())
            }
            Some(Fault::Stalls) => {
                self.memory.suspend(id);
                let memory = self.memory.clone();
                self.plan.lock().unwrap().stalls.spawn(async move {
                    tokio::time::sleep(STALL).await;
                    memory.resume(id);
                });
                call.send().await
            }
            Some(Fault::Outage) => {
                self.memory.suspend(id);
                call.send().await
            }
        }
    }
}

impl Hook for SessionFaults {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        Box::pin(async move {
            let is_heartbeat = matches!(call.request(), Request::Commit(_)) && !call.request().is_write();
            // Heartbeats do not count, because their time is not fixed.
            let Some(id) = call.session().filter(|_| !is_heartbeat && *call.request() != Request::Close)
            else {
                return call.send().await;
            };
            if self.is_slow {
                yield_now().await;
            }
            let outcome = self.make(call, id).await;
            if self.is_slow {
                yield_now().await;
            }
            outcome
        })
    }
}
