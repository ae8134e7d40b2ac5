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
pub(crate) mod due;
pub(crate) mod follow;
mod heartbeat;
pub(crate) mod later;
pub(crate) mod listing;
pub(crate) mod live;
mod measured;
pub(crate) mod read;
pub(crate) mod receipts;
pub(crate) mod requests;
pub(crate) mod rivals;
pub(crate) mod shown;
#[cfg(test)]
mod tests;
pub(crate) mod timing;
pub(crate) mod validity;

use std::{sync::Arc, time::Duration};

use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

pub(crate) use self::live::{Live, Status};
use self::{
    access::Access,
    deadline::Deadline,
    heartbeat::{End, Heart},
    measured::{counted, measured},
    requests::ensure,
    shown::SessionState,
    timing::Timing,
    validity::SessionValidity,
};
use crate::{
    backend::{self, Connector, Loss, path::ZnodePath},
    backoff::Backoff,
    clock::Clock,
    config::Config,
    error::Error,
    metrics,
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

impl Drop for KeeperTask {
    /// Also after a panic, and if the runtime ends before the task: no handle may wait for a session that never comes.
    fn drop(&mut self) {
        self.show(Status::Closed);
    }
}

/// Ends the validity of everything in a session, however the task leaves it. If the runtime ends, so does the session: the
/// client crate closes it.
struct EndOnDrop(Arc<Live>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl KeeperTask {
    fn show(&self, status: Status) {
        let state = match &status {
            Status::Opening { .. } => SessionState::Opening,
            Status::Live(_) => SessionState::Connected,
            Status::Closed => SessionState::Closed,
        };
        state.measure();
        self.status.send_replace(status);
    }

    async fn run(mut self, cancelled: CancellationToken) {
        loop {
            let attempt = tokio::select! {
                biased;
                () = cancelled.cancelled() => break,
                attempt = self.open() => attempt,
            };
            let error = match attempt {
                Ok(opened) => {
                    let live = opened.live().clone();
                    let ending = EndOnDrop(live.clone());
                    info!(session = %live.id(), timeout = ?live.timing.timeout, "session opened");
                    metrics::SESSIONS_OPENED.add(&[]);
                    self.show(Status::Live(live.clone()));
                    let end = tokio::select! {
                        biased;
                        () = cancelled.cancelled() => None,
                        end = opened.keep(&mut self.backoff) => Some(end),
                    };
                    // Before the close: once the server has ended the session, other processes may take over.
                    drop(ending);
                    let Some(end) = end else {
                        let _ = timeout(self.close_timeout, live.session.close()).await;
                        break;
                    };
                    let (wait, error) = self.report(&live, end);
                    self.show(Status::Opening { error: error.clone() });
                    // The server of the old session may be unreachable: closing it must not delay the next session.
                    let _ = timeout(CLOSE_WAIT, live.session.close()).await;
                    if !wait {
                        continue;
                    }
                    error
                }
                Err(error) => {
                    self.show(Status::Opening { error: Some(error.clone()) });
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
    }

    /// Logs why the session was left; returns whether to wait before the next one, and the error to show.
    fn report(&self, live: &Live, (end, was_confirmed): (End, bool)) -> (bool, Option<Error>) {
        let session = live.id();
        metrics::SESSIONS_LOST.add(&[end.reason()]);
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

    async fn open(&mut self) -> Result<Heart, Error> {
        let asked = self.clock.now();
        let opening = self.connector.open(self.config.session_timeout);
        let session = counted(&*self.clock, "open", opening).await.map_err(Error::from_open)?;
        let session = measured(session, &self.clock);
        let requested = session.requested().unwrap_or(asked);
        let (wanted, granted) = (self.config.session_timeout, session.timeout());
        // The protocol counts milliseconds.
        if wanted.as_millis() != granted.as_millis() {
            warn!(
                ?wanted,
                ?granted,
                "the server has granted another session timeout than the one of the configuration"
            );
        }
        let timing = match Timing::fit(&self.config.timing(), session.timeout()) {
            Ok(timing) => timing,
            Err(error) => {
                session.close().await;
                return Err(Error::Config(error.into()));
            }
        };
        let no_reply = |_| Err(backend::Error::Unreachable("no answer in a new session".into()).into());
        let made =
            timeout(session.timeout(), ensure(&*session, &self.namespace)).await.unwrap_or_else(no_reply);
        if let Err(failure) = made {
            session.close().await;
            return Err(failure.into_error(&self.namespace));
        }
        session.give_up_after(timing.heartbeat_validity);
        let opened = self.clock.now();
        let deadline = Deadline::new(timing, requested, opened);
        let validity = SessionValidity::new(self.clock.clone(), deadline.moment());
        let live = Arc::new(Live::new(session, timing, validity.clone(), self.random.clone(), requested));
        Ok(Heart::new(live, self.namespace.clone(), self.clock.clone(), deadline, validity))
    }
}

/// The shortest pause after a refusal.
const REFUSED_RETRY: Duration = Duration::from_secs(1);

/// How long the next session waits until the server has confirmed the end of the last one.
const CLOSE_WAIT: Duration = Duration::from_millis(100);
