//! Keeps one live session: opens it, backs off, beats its heart, announces where it stands.
//!
//! A [`Keeper`] has at most one session at a time. A session that is lost, or of which nothing was confirmed
//! for its whole timeout, is given up and a new one is opened, with capped, jittered backoff. The heartbeat is
//! one transaction of checks: on the namespace and on every znode that was handed over with
//! [`Live::attend`]. It goes through the leader, which a ping or a read does not; and the index of a failed
//! check names the znode that is gone.

pub(crate) mod access;
pub(crate) mod deadline;
pub(crate) mod requests;
pub(crate) mod tenure;
pub(crate) mod timing;

use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    sync::watch,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use self::{
    access::Access,
    deadline::Deadline,
    requests::ensure,
    tenure::{Lifeline, Tenure},
    timing::Timing,
};
use crate::{
    backend::{self, CommitError, Connector, Loss, Op, Session, SessionId, SessionState, path::ZnodePath},
    backoff::Backoff,
    clock::{Clock, Moment},
    config::Config,
    error::Error,
    task::Tasks,
};

/// Where the keeper stands.
#[derive(Debug, Clone)]
pub(crate) enum Status {
    /// No session at present; `error` says why the last attempt failed.
    Opening { error: Option<Error> },
    /// There is a session.
    Live(Arc<Live>),
    /// The keeper has ended.
    Closed,
}

/// One live session, as its users see it.
pub(crate) struct Live {
    pub(crate) session: Arc<dyn Session>,
    pub(crate) timing: Timing,
    lifeline: Lifeline,
    attended: Mutex<Vec<Attended>>,
}

struct Attended {
    path: ZnodePath,
    version: i32,
    tenure: Tenure,
}

impl Live {
    /// Has the znode at `path`, which this session owns, checked by each heartbeat from now on.
    pub(crate) fn attend(&self, path: &ZnodePath, version: i32) -> Tenure {
        let tenure = Tenure::new(&self.lifeline);
        self.attend_with(&tenure, path, version);
        tenure
    }

    /// Like [`Live::attend`], for one more znode of a tenure, whoever owns it.
    pub(crate) fn attend_with(&self, tenure: &Tenure, path: &ZnodePath, version: i32) {
        let attended = Attended { path: path.clone(), version, tenure: tenure.clone() };
        self.attended.lock().unwrap_or_else(PoisonError::into_inner).push(attended);
    }

    pub(crate) fn id(&self) -> SessionId {
        self.session.id()
    }

    /// Whether the connection is up at this moment.
    pub(crate) fn is_connected(&self) -> bool {
        matches!(*self.session.state().borrow(), SessionState::Connected { .. })
    }

    /// Whether nothing can be written in it any more.
    pub(crate) fn is_over(&self) -> bool {
        self.lifeline.has_ended() || matches!(*self.session.state().borrow(), SessionState::Lost(_))
    }

    /// Waits for the server's word on everything that was asked of it before; whether it came. A client cannot
    /// see whether its last request, the end of the session, has arrived, so this is asked before.
    pub(crate) async fn has_heard(&self) -> bool {
        if !self.is_connected() {
            return *self.session.state().borrow() == SessionState::Lost(Loss::Expired);
        }
        match self.session.commit(vec![Op::exists(&ZnodePath::root())]).await {
            Ok(_) => true,
            Err(CommitError { index, error }) => {
                index.is_some() || error == backend::Error::Lost(Loss::Expired)
            }
        }
    }

    /// The checks of a heartbeat, and whose they are. A tenure that has ended is no longer attended to.
    fn checks(&self, namespace: &ZnodePath) -> (Vec<Op>, Vec<Tenure>) {
        let mut attended = self.attended.lock().unwrap_or_else(PoisonError::into_inner);
        attended.retain(|one| !one.tenure.has_ended());
        let mut ops = vec![Op::exists(namespace)];
        ops.extend(
            attended.iter().map(|one| Op::Check { path: one.path.clone(), version: Some(one.version) }),
        );
        (ops, attended.iter().map(|one| one.tenure.clone()).collect())
    }
}

impl fmt::Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Live")
            .field("session", &self.id())
            .field("timing", &self.timing)
            .finish_non_exhaustive()
    }
}

/// The owner of the session task.
#[derive(Debug)]
pub(crate) struct Keeper {
    status: watch::Receiver<Status>,
    tasks: Tasks,
    patience: Duration,
}

impl Keeper {
    /// Starts to open a session, without waiting for it.
    pub(crate) fn start(connector: Arc<dyn Connector>, config: Config, namespace: ZnodePath) -> Self {
        let (sender, status) = watch::channel(Status::Opening { error: None });
        let tasks = Tasks::new();
        let patience = config.session_timeout.min(Duration::from_secs(5));
        let task = KeeperTask {
            clock: connector.clock(),
            backoff: Backoff::new(config.retry_backoff, config.max_retry_interval),
            connector,
            config,
            namespace,
            status: sender,
            patience,
            dice: fastrand::Rng::new(),
        };
        tasks.spawn("session", task.run(tasks.cancelled()));
        Keeper { status, tasks, patience }
    }

    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// The live session, if there is one.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        match &*self.status.borrow() {
            Status::Live(live) => Some(live.clone()),
            Status::Opening { .. } | Status::Closed => None,
        }
    }

    /// The door to the present session, for those who wait for one at most `patience`.
    pub(crate) fn access(&self, patience: Duration) -> Access {
        Access::new(self.status(), patience)
    }

    /// How long an orderly end may take.
    pub(crate) fn patience(&self) -> Duration {
        self.patience
    }

    /// Ends it without waiting.
    pub(crate) fn cancel(&self) {
        self.tasks.cancel();
    }

    /// Ends it and waits for that. Returns whether it came in time.
    pub(crate) async fn close(&self) -> bool {
        self.tasks.shutdown(self.patience + CLOSE_PATIENCE).await
    }
}

struct KeeperTask {
    connector: Arc<dyn Connector>,
    clock: Arc<dyn Clock>,
    config: Config,
    namespace: ZnodePath,
    status: watch::Sender<Status>,
    backoff: Backoff,
    /// How long the end of the last session may take.
    patience: Duration,
    dice: fastrand::Rng,
}

/// A session with what it takes to keep it.
struct Opened {
    live: Arc<Live>,
    deadline: Deadline,
    moves: watch::Sender<Moment>,
}

/// Why a session was left.
#[derive(Debug)]
enum End {
    Lost(Loss),
    /// Nothing was confirmed for the session timeout: the server has ended it, or will. The client would
    /// find out up to 0.8 timeouts later.
    Unconfirmed,
    /// The namespace is gone and cannot be made again.
    Refused(Error),
}

impl KeeperTask {
    async fn run(mut self, cancelled: CancellationToken) {
        loop {
            let attempt = tokio::select! {
                () = cancelled.cancelled() => break,
                attempt = self.open() => attempt,
            };
            let error = match attempt {
                Ok(opened) => {
                    let live = opened.live.clone();
                    info!(session = %live.id(), timeout = ?live.timing.timeout, "session opened");
                    self.status.send_replace(Status::Live(live.clone()));
                    let end = tokio::select! {
                        () = cancelled.cancelled() => None,
                        end = self.beat(opened) => Some(end),
                    };
                    // Before the close: once the server knows, others may take over.
                    live.lifeline.end();
                    let Some(end) = end else {
                        let _ = timeout(self.patience, live.session.close()).await;
                        break;
                    };
                    let (wait, error) = self.report(&live, end);
                    self.status.send_replace(Status::Opening { error: error.clone() });
                    // The old session may be out of reach: its end must not delay the next one.
                    let _ = timeout(CLOSE_PATIENCE, live.session.close()).await;
                    if !wait {
                        continue;
                    }
                    error
                }
                Err(error) => {
                    self.status.send_replace(Status::Opening { error: Some(error.clone()) });
                    Some(error)
                }
            };
            let is_refused = matches!(error, Some(Error::NotPermitted { .. } | Error::AuthFailed));
            let least = if is_refused { REFUSED_RETRY } else { Duration::ZERO };
            let delay = self.backoff.next_delay(self.dice.f64()).max(least);
            if let Some(error) = &error {
                warn!(%error, ?delay, "no session; trying again");
            }
            tokio::select! {
                () = cancelled.cancelled() => break,
                () = sleep(delay) => {}
            }
        }
        self.status.send_replace(Status::Closed);
    }

    /// Says why the session was left; returns whether to wait before the next one, and the error to show.
    fn report(&self, live: &Live, (end, has_beaten): (End, bool)) -> (bool, Option<Error>) {
        let session = live.id();
        match end {
            End::Refused(error) => return (true, Some(error)),
            End::Lost(Loss::AuthFailed) => return (true, Some(Error::AuthFailed)),
            End::Lost(loss) => warn!(%session, %loss, "session lost; opening a new one"),
            End::Unconfirmed => {
                warn!(%session, "no heartbeat confirmed for its timeout; opening a new session");
            }
        }
        // A session that never saw a heartbeat may have been taken away at once, and so may the next.
        (!has_beaten, None)
    }

    async fn open(&mut self) -> Result<Opened, Error> {
        let sent = self.clock.now();
        let session = self.connector.open(self.config.session_timeout).await.map_err(Error::from_open)?;
        let timing = match Timing::fit(&self.config.timing(), session.timeout()) {
            Ok(timing) => timing,
            Err(error) => {
                session.close().await;
                return Err(Error::Config(error.into()));
            }
        };
        let silence = |_| Err(backend::Error::Unreachable("no answer in a new session".into()));
        let made =
            timeout(session.timeout(), ensure(&*session, &self.namespace)).await.unwrap_or_else(silence);
        if let Err(error) = made {
            session.close().await;
            return Err(Error::from_backend(error, &self.namespace));
        }
        let deadline = Deadline::new(timing, sent);
        let (moves, moment) = watch::channel(deadline.moment());
        let lifeline = Lifeline::new(self.clock.clone(), moment);
        let live = Arc::new(Live { session, timing, lifeline, attended: Mutex::default() });
        Ok(Opened { live, deadline, moves })
    }

    /// Beats until the session is over, or has to be taken for it; says also whether a heartbeat was confirmed.
    async fn beat(&mut self, opened: Opened) -> (End, bool) {
        let Opened { live, mut deadline, moves } = opened;
        let timing = live.timing;
        let mut state = live.session.state();
        let mut has_beaten = false;
        let mut confirmed = self.clock.now();
        // The lease counts from the moment the session was asked for, which may be long ago.
        let mut next = (confirmed + timing.heartbeat).min(deadline.moment() - timing.heartbeat);
        loop {
            let now = self.clock.now();
            let remaining = (confirmed + timing.timeout).saturating_since(now);
            if remaining.is_zero() {
                return (End::Unconfirmed, has_beaten);
            }
            let connected = match *state.borrow_and_update() {
                SessionState::Lost(loss) => return (End::Lost(loss), has_beaten),
                SessionState::Suspended => false,
                SessionState::Connected { .. } => true,
            };
            if !connected || now < next {
                tokio::select! {
                    changed = state.changed() => if changed.is_err() {
                        return (End::Lost(Loss::Closed), has_beaten);
                    },
                    () = sleep(next.saturating_since(now)), if connected => {}
                    () = sleep(remaining) => {}
                }
                continue;
            }
            let sent = now;
            next = sent + timing.heartbeat;
            let (checks, tenures) = live.checks(&self.namespace);
            let outcome = tokio::select! {
                outcome = check(&*live.session, &checks) => outcome,
                loss = lost(&mut state) => return (End::Lost(loss), has_beaten),
                () = sleep(remaining) => return (End::Unconfirmed, has_beaten),
            };
            match outcome {
                Ok(()) => {
                    (confirmed, has_beaten) = (sent, true);
                    moves.send_replace(deadline.confirm(sent));
                    self.backoff.reset();
                }
                Err(CommitError { index: Some(0), error }) => {
                    warn!(namespace = %self.namespace, %error, "the namespace is gone; making it again");
                    tenures.iter().for_each(Tenure::end);
                    let made = tokio::select! {
                        made = ensure(&*live.session, &self.namespace) => made,
                        loss = lost(&mut state) => return (End::Lost(loss), has_beaten),
                        () = sleep(remaining) => return (End::Unconfirmed, has_beaten),
                    };
                    match made {
                        Ok(()) => next = now,
                        Err(error) if error.is_unknown() => {}
                        Err(error) => {
                            return (End::Refused(Error::from_backend(error, &self.namespace)), has_beaten);
                        }
                    }
                }
                Err(CommitError { index: Some(index), error }) => {
                    debug!(%error, index, "a znode of ours is gone");
                    tenures.get(index - 1).into_iter().for_each(Tenure::end);
                    next = now;
                }
                Err(CommitError { index: None, error: backend::Error::Lost(loss) }) => {
                    return (End::Lost(loss), has_beaten);
                }
                Err(CommitError { index: None, error }) => debug!(%error, "heartbeat not confirmed"),
            }
        }
    }
}

/// Most checks of a heartbeat that go out in one request: of many leases, all together would be too large for one.
const CHECKS_AT_ONCE: usize = 500;

/// One heartbeat, in as many requests as it takes. It counts from the first of them.
async fn check(session: &dyn Session, checks: &[Op]) -> Result<(), CommitError> {
    for (number, some) in checks.chunks(CHECKS_AT_ONCE).enumerate() {
        let outcome = session.commit(some.to_vec()).await;
        outcome.map_err(|CommitError { index, error }| CommitError {
            index: index.map(|index| number * CHECKS_AT_ONCE + index),
            error,
        })?;
    }
    Ok(())
}

/// A refusal is not tried again sooner.
const REFUSED_RETRY: Duration = Duration::from_secs(1);

/// How long the next session waits for the server's word on the end of the last one.
const CLOSE_PATIENCE: Duration = Duration::from_millis(100);

async fn lost(state: &mut watch::Receiver<SessionState>) -> Loss {
    loop {
        if let SessionState::Lost(loss) = *state.borrow_and_update() {
            return loss;
        }
        if state.changed().await.is_err() {
            return Loss::Closed;
        }
    }
}
