//! Keeps one live session: opens it, sends heartbeats, publishes its state, and opens the next one with backoff.
//!
//! A [`Keeper`] has at most one session at a time. If a session is lost, or if none of its heartbeats was confirmed for
//! its whole timeout, the keeper gives it up and opens a new one, with capped, jittered backoff. A heartbeat is a
//! transaction of checks: of the namespace, and of every znode that was passed to [`Live::validity_of`]. It goes
//! through the leader; a ping or a read does not. The index of a failed check shows which znode is gone.
//!
//! Groups, leases, boards and queues use the modules below this one: [`commit`], [`follow`], [`listing`], [`read`],
//! [`receipts`] and [`rivals`].

pub(crate) mod access;
pub(crate) mod commit;
pub(crate) mod deadline;
pub(crate) mod follow;
pub(crate) mod listing;
pub(crate) mod live;
pub(crate) mod read;
pub(crate) mod receipts;
pub(crate) mod requests;
pub(crate) mod rivals;
#[cfg(test)]
mod tests;
pub(crate) mod timing;
pub(crate) mod validity;

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

pub(crate) use self::live::{Live, Status};
use self::{
    access::Access,
    deadline::Deadline,
    requests::ensure,
    timing::Timing,
    validity::{SessionValidity, Validity},
};
use crate::{
    backend::{self, CommitError, Connector, Loss, Op, Session, SessionState, path::ZnodePath},
    backoff::Backoff,
    clock::Clock,
    config::Config,
    error::Error,
    random::Random,
    task::Tasks,
    watch,
};

/// The owner of the session task.
#[derive(Debug)]
pub(crate) struct Keeper {
    status: watch::Receiver<Status>,
    tasks: Tasks,
    random: Random,
    /// How long closing the session may take.
    close_timeout: Duration,
}

impl Keeper {
    /// Starts to open a session, without waiting for it.
    pub(crate) fn start(
        connector: Arc<dyn Connector>,
        config: Config,
        namespace: ZnodePath,
        random: Random,
    ) -> Self {
        let (sender, status) = watch::channel(Status::Opening { error: None });
        let tasks = Tasks::new();
        let close_timeout = config.session_timeout.min(Duration::from_secs(5));
        let task = KeeperTask {
            clock: connector.clock(),
            backoff: Backoff::new(config.retry_backoff, config.max_retry_interval),
            connector,
            config,
            namespace,
            status: sender,
            close_timeout,
            random: random.clone(),
        };
        tasks.spawn("session", task.run(tasks.cancelled()));
        Keeper { status, tasks, random, close_timeout }
    }

    pub(crate) fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }

    /// The live session, if there is one.
    pub(crate) fn live(&self) -> Option<Arc<Live>> {
        self.access(Duration::ZERO).present()
    }

    /// Access to the current session, for callers that wait for one at most `timeout`.
    pub(crate) fn access(&self, timeout: Duration) -> Access {
        Access::new(self.status(), timeout, self.random.clone())
    }

    /// How long closing the session may take.
    pub(crate) fn close_timeout(&self) -> Duration {
        self.close_timeout
    }

    /// Closes the session without waiting.
    pub(crate) fn cancel(&self) {
        self.tasks.cancel();
    }

    /// Closes the session and waits for that. Returns whether it was closed in time.
    pub(crate) async fn close(&self) -> bool {
        self.tasks.shutdown(self.close_timeout + CLOSE_WAIT).await
    }
}

struct KeeperTask {
    connector: Arc<dyn Connector>,
    clock: Arc<dyn Clock>,
    config: Config,
    namespace: ZnodePath,
    status: watch::Sender<Status>,
    backoff: Backoff,
    /// How long closing the last session may take.
    close_timeout: Duration,
    random: Random,
}

/// A session, and what the keeper needs to keep it.
struct Opened {
    live: Arc<Live>,
    deadline: Deadline,
    validity: SessionValidity,
}

/// Why a session was left.
#[derive(Debug)]
enum End {
    Lost(Loss),
    /// No heartbeat was confirmed for the session timeout, so the server has ended the session or will. The client
    /// crate would notice up to 0.8 timeouts later.
    Unconfirmed,
    /// The namespace is gone and cannot be created again.
    Refused(Error),
}

impl KeeperTask {
    async fn run(mut self, cancelled: CancellationToken) {
        loop {
            let attempt = tokio::select! {
                biased;
                () = cancelled.cancelled() => break,
                attempt = self.open() => attempt,
            };
            let error = match attempt {
                Ok(opened) => {
                    let live = opened.live.clone();
                    info!(session = %live.id(), timeout = ?live.timing.timeout, "session opened");
                    self.status.send_replace(Status::Live(live.clone()));
                    let end = tokio::select! {
                        biased;
                        () = cancelled.cancelled() => None,
                        end = self.keep(opened) => Some(end),
                    };
                    // Before the close: once the server has ended the session, other processes may take over.
                    live.end();
                    let Some(end) = end else {
                        let _ = timeout(self.close_timeout, live.session.close()).await;
                        break;
                    };
                    let (wait, error) = self.report(&live, end);
                    self.status.send_replace(Status::Opening { error: error.clone() });
                    // The server of the old session may be unreachable: closing it must not delay the next session.
                    let _ = timeout(CLOSE_WAIT, live.session.close()).await;
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
            let delay = self.backoff.next_delay(self.random.unit()).max(least);
            if let Some(error) = &error {
                warn!(%error, ?delay, "no session; trying again");
            }
            tokio::select! {
                biased;
                () = cancelled.cancelled() => break,
                () = sleep(delay) => {}
            }
        }
        self.status.send_replace(Status::Closed);
    }

    /// Logs why the session was left; returns whether to wait before the next one, and the error to show.
    fn report(&self, live: &Live, (end, was_confirmed): (End, bool)) -> (bool, Option<Error>) {
        let session = live.id();
        match end {
            End::Refused(error) => return (true, Some(error)),
            End::Lost(Loss::AuthFailed) => return (true, Some(Error::AuthFailed)),
            End::Lost(loss) => warn!(%session, %loss, "session lost; opening a new one"),
            End::Unconfirmed => {
                warn!(%session, "no heartbeat confirmed for its timeout; opening a new session");
            }
        }
        // Without a confirmed heartbeat the session may have been lost at once, and so may the next one.
        (!was_confirmed, None)
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
        let no_reply = |_| Err(backend::Error::Unreachable("no answer in a new session".into()));
        let made =
            timeout(session.timeout(), ensure(&*session, &self.namespace)).await.unwrap_or_else(no_reply);
        if let Err(error) = made {
            session.close().await;
            return Err(Error::from_backend(error, &self.namespace));
        }
        let deadline = Deadline::new(timing, sent);
        let validity = SessionValidity::new(self.clock.clone(), deadline.moment());
        let live = Arc::new(Live::new(session, timing, validity.clone(), self.random.clone()));
        Ok(Opened { live, deadline, validity })
    }

    /// Sends heartbeats until the session has ended, or probably has. Also returns whether a heartbeat was confirmed.
    async fn keep(&mut self, opened: Opened) -> (End, bool) {
        let Opened { live, mut deadline, validity } = opened;
        let timing = live.timing;
        let mut state = live.session.state();
        let mut was_confirmed = false;
        let mut confirmed = self.clock.now();
        // The first deadline counts from the request for the session, which may be long ago.
        let mut next = (confirmed + timing.heartbeat).min(deadline.moment() - timing.heartbeat);
        loop {
            let now = self.clock.now();
            let remaining = (confirmed + timing.timeout).saturating_since(now);
            if remaining.is_zero() {
                return (End::Unconfirmed, was_confirmed);
            }
            let connected = match *state.borrow_and_update() {
                SessionState::Lost(loss) => return (End::Lost(loss), was_confirmed),
                SessionState::Suspended => false,
                SessionState::Connected { .. } => true,
            };
            if !connected || now < next {
                tokio::select! {
                    biased;
                    changed = state.changed() => if changed.is_err() {
                        return (End::Lost(Loss::Closed), was_confirmed);
                    },
                    () = sleep(next.saturating_since(now)), if connected => {}
                    () = sleep(remaining) => {}
                }
                continue;
            }
            let sent = now;
            next = sent + timing.heartbeat;
            let (checks, validities) = live.checks(&self.namespace);
            let outcome = tokio::select! {
                biased;
                outcome = check(&*live.session, checks) => outcome,
                loss = lost(&mut state) => return (End::Lost(loss), was_confirmed),
                () = sleep(remaining) => return (End::Unconfirmed, was_confirmed),
            };
            match outcome {
                Ok(()) => {
                    (confirmed, was_confirmed) = (sent, true);
                    validity.move_to(deadline.confirm(sent));
                    self.backoff.reset();
                }
                Err(CommitError { index: Some(0), error }) => {
                    warn!(namespace = %self.namespace, %error, "the namespace is gone; creating it again");
                    validities.iter().for_each(Validity::end);
                    let made = tokio::select! {
                        biased;
                        made = ensure(&*live.session, &self.namespace) => made,
                        loss = lost(&mut state) => return (End::Lost(loss), was_confirmed),
                        () = sleep(remaining) => return (End::Unconfirmed, was_confirmed),
                    };
                    match made {
                        Ok(()) => next = now,
                        Err(error) if error.is_unknown() => {}
                        Err(error) => {
                            return (
                                End::Refused(Error::from_backend(error, &self.namespace)),
                                was_confirmed,
                            );
                        }
                    }
                }
                Err(CommitError { index: Some(index), error }) => {
                    debug!(%error, index, "a znode of this process is gone");
                    validities.get(index - 1).into_iter().for_each(Validity::end);
                    next = now;
                }
                Err(CommitError { index: None, error: backend::Error::Lost(loss) }) => {
                    return (End::Lost(loss), was_confirmed);
                }
                Err(CommitError { index: None, error }) => debug!(%error, "heartbeat not confirmed"),
            }
        }
    }
}

/// Sends one heartbeat, in several requests if the checks of many leases are too large for one. The heartbeat counts as
/// sent at the first request.
async fn check(session: &dyn Session, checks: Vec<Op>) -> Result<(), CommitError> {
    // Small enough not to delay other requests.
    let limit = session.max_request_bytes() / 8;
    let mut checks = checks.into_iter().peekable();
    let mut number = 0;
    while checks.peek().is_some() {
        let mut bytes = 0;
        let mut some = Vec::new();
        while let Some(check) = checks.next_if(|check| bytes == 0 || bytes + check.encoded_len() <= limit) {
            bytes += check.encoded_len();
            some.push(check);
        }
        let count = some.len();
        let outcome = session.commit(some).await;
        outcome.map_err(|CommitError { index, error }| CommitError {
            index: index.map(|index| number + index),
            error,
        })?;
        number += count;
    }
    Ok(())
}

/// The shortest pause after a refusal.
const REFUSED_RETRY: Duration = Duration::from_secs(1);

/// How long the next session waits until the server has confirmed the end of the last one.
const CLOSE_WAIT: Duration = Duration::from_millis(100);

async fn lost(state: &mut tokio::sync::watch::Receiver<SessionState>) -> Loss {
    loop {
        if let SessionState::Lost(loss) = *state.borrow_and_update() {
            return loss;
        }
        if state.changed().await.is_err() {
            return Loss::Closed;
        }
    }
}
