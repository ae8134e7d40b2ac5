//! [`Heart`]: sends the heartbeats of one session, and says when its shares and leases lapse and are valid again.

use std::{future::Future, pin::pin, sync::Arc};

use futures_util::future::join_all;
use tokio::time::sleep;
use tracing::{debug, info, warn};

use super::{
    deadline::Deadline,
    live::{Live, Relayed},
    requests::ensure,
    validity::{SessionValidity, Validity},
};
use crate::{
    backend::{self, CommitError, Loss, Op, Session, SessionState, path::ZnodePath},
    backoff::Backoff,
    clock::{Clock, Moment},
    error::Error,
    metrics,
};

/// How many checks are sent one by one at the same time, to find those that fail.
const CHECKED_AT_ONCE: usize = 256;

/// Why a session was left.
#[derive(Debug)]
pub(super) enum End {
    Lost(Loss),
    /// No heartbeat was confirmed for the session timeout, so the server has ended the session or will. The client
    /// crate would notice up to 0.8 timeouts later.
    Unconfirmed,
    /// The namespace is gone and cannot be created again.
    Refused(Error),
}

impl End {
    /// In one word.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            End::Lost(Loss::Expired) => "expired",
            End::Lost(Loss::Closed) => "given_up",
            End::Lost(Loss::AuthFailed) => "auth_failed",
            End::Unconfirmed => "unconfirmed",
            End::Refused(_) => "refused",
        }
    }
}

/// Keeps one session.
pub(super) struct Heart {
    live: Arc<Live>,
    namespace: ZnodePath,
    clock: Arc<dyn Clock>,
    deadline: Deadline,
    validity: SessionValidity,
    /// When the last request was sent that shows that the session lived.
    confirmed: Moment,
    was_confirmed: bool,
    /// Whether the deadline has passed.
    is_lapsed: bool,
}

impl Heart {
    pub(super) fn new(
        live: Arc<Live>,
        namespace: ZnodePath,
        clock: Arc<dyn Clock>,
        deadline: Deadline,
        validity: SessionValidity,
    ) -> Self {
        let confirmed = clock.now();
        let is_lapsed = confirmed >= deadline.moment();
        Heart { live, namespace, clock, deadline, validity, confirmed, was_confirmed: false, is_lapsed }
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Sends heartbeats until the session has ended, or probably has. Also returns whether a heartbeat was confirmed.
    pub(super) async fn keep(mut self, backoff: &mut Backoff) -> (End, bool) {
        let end = self.beat(backoff).await;
        (end, self.was_confirmed)
    }

    async fn beat(&mut self, backoff: &mut Backoff) -> End {
        let live = self.live.clone();
        let timing = live.timing;
        // The first deadline counts from the request for the session, which may be long ago.
        let mut next = (self.confirmed + timing.heartbeat).min(self.deadline.moment() - timing.heartbeat);
        loop {
            let clock = self.clock.clone();
            if let Err(end) = self.unless_ended(due(&live, &*clock, next)).await {
                return end;
            }
            if let Some(Relayed { sent, next: following }) = live.take_relayed() {
                if sent > self.confirmed {
                    (self.confirmed, self.was_confirmed) = (sent, true);
                    backoff.reset();
                    self.confirm(sent);
                }
                // Half an interval is time enough for the reply. If it does not come, the keeper sends one itself.
                let late = following + timing.heartbeat / 2;
                if late > self.clock.now() {
                    next = late.min(self.deadline.moment() - 2 * timing.heartbeat).max(sent);
                    if next > self.clock.now() {
                        continue;
                    }
                }
            }
            let sent = self.clock.now();
            next = sent + timing.heartbeat;
            let (checks, validities) = live.checks(&self.namespace);
            let outcome = match self.unless_ended(check(&*live.session, &checks)).await {
                Ok(outcome) => outcome,
                Err(end) => return end,
            };
            if let Err(CommitError { error: backend::Error::Lost(loss), .. }) = outcome {
                return End::Lost(loss);
            }
            if !matches!(outcome, Err(CommitError { index: None, .. })) {
                // Also a refusal: the leader has compared the checks in this session.
                (self.confirmed, self.was_confirmed) = (sent, true);
                backoff.reset();
            }
            match outcome {
                Ok(()) => {
                    let took = self.clock.now().saturating_since(sent);
                    metrics::HEARTBEAT_DURATION.record(&["session"], took);
                    self.confirm(sent);
                }
                Err(CommitError { index: Some(0), error }) => {
                    warn!(namespace = %self.namespace, %error, "the namespace could not be checked; creating it if it is gone");
                    validities.iter().for_each(Validity::end);
                    let namespace = self.namespace.clone();
                    match self.unless_ended(ensure(&*live.session, &namespace)).await {
                        Ok(Ok(())) => next = sent,
                        Ok(Err(failure)) if failure.error.is_unknown() => {}
                        Ok(Err(failure)) => return End::Refused(failure.into_error(&namespace)),
                        Err(end) => return end,
                    }
                }
                Err(CommitError { index: Some(index), error }) => {
                    let gone = match self.unless_ended(failing(&*live.session, &checks[index..])).await {
                        Ok(gone) => gone,
                        Err(end) => return end,
                    };
                    debug!(%error, count = gone.len(), "znodes of this process are gone");
                    let gone = gone.into_iter().filter_map(|at| validities.get(index + at - 1));
                    gone.for_each(Validity::end);
                    next = sent;
                }
                Err(CommitError { index: None, error }) => debug!(%error, "heartbeat not confirmed"),
            }
        }
    }

    /// Notes a confirmed heartbeat.
    fn confirm(&mut self, sent: Moment) {
        let now = self.clock.now();
        // The timer may be late, after a suspension of the host for instance.
        self.note_lapse(now);
        let moment = self.deadline.confirm(sent, now);
        self.live.note_reported(self.deadline.reported());
        self.validity.move_to(moment);
        let until = self.clock.unix_time() + moment.saturating_since(now);
        metrics::SESSION_VALID_UNTIL.set(&[], until.as_secs_f64());
        if self.is_lapsed && now < moment {
            self.is_lapsed = false;
            info!(session = %self.live.id(), valid_for = ?moment.saturating_since(now), "heartbeats are confirmed again: shares and leases are valid");
        }
    }

    /// Says that the deadline has passed, once.
    fn note_lapse(&mut self, now: Moment) {
        if self.is_lapsed || now < self.deadline.moment() {
            return;
        }
        self.is_lapsed = true;
        metrics::SESSION_LAPSES.add(&[]);
        let since_confirmation = now.saturating_since(self.confirmed);
        warn!(session = %self.live.id(), ?since_confirmation, "no heartbeat is confirmed: shares and leases have lapsed");
    }

    /// Waits for `work`, unless the session ends before, or probably has ended.
    async fn unless_ended<T>(&mut self, work: impl Future<Output = T>) -> Result<T, End> {
        let mut work = pin!(work);
        let mut state = self.live.session.state();
        loop {
            let now = self.clock.now();
            self.note_lapse(now);
            let remaining = (self.confirmed + self.live.timing.timeout).saturating_since(now);
            if remaining.is_zero() {
                return Err(End::Unconfirmed);
            }
            let lapse = self.deadline.moment().saturating_since(now);
            let pause = if self.is_lapsed { remaining } else { remaining.min(lapse) };
            tokio::select! {
                biased;
                loss = lost(&self.live, &mut state) => return Err(End::Lost(loss)),
                done = &mut work => return Ok(done),
                () = sleep(pause) => {}
            }
        }
    }
}

/// Waits until it is `next` and the session is connected.
async fn due(live: &Live, clock: &dyn Clock, next: Moment) {
    let mut state = live.session.state();
    loop {
        let is_connected = matches!(*state.borrow_and_update(), SessionState::Connected { .. });
        let pause = next.saturating_since(clock.now());
        if is_connected && pause.is_zero() {
            return;
        }
        tokio::select! {
            biased;
            // Without a sender, the session is lost, which the caller notices.
            Ok(()) = state.changed() => {}
            () = sleep(pause), if is_connected => {}
            else => std::future::pending().await,
        }
    }
}

/// Sends one heartbeat, in several requests if the checks of many leases are too large for one. The heartbeat counts as
/// sent at the first request.
async fn check(session: &dyn Session, checks: &[Op]) -> Result<(), CommitError> {
    // Small enough not to delay other requests.
    let limit = session.max_request_bytes() / 8;
    let mut done = 0;
    while done < checks.len() {
        let mut bytes = 0;
        let fits = |check: &&Op| {
            bytes += check.encoded_len();
            bytes <= limit
        };
        let count = checks[done..].iter().take_while(fits).count().max(1);
        let outcome = session.commit(checks[done..done + count].to_vec()).await;
        outcome.map_err(|CommitError { index, error }| CommitError {
            index: index.map(|index| done + index),
            error,
        })?;
        done += count;
    }
    Ok(())
}

/// The indexes of the checks that fail. A transaction names the first one only, so each is sent by itself, many at the
/// same time: if an operator deletes many locks at once, their leases end in a few round trips, and the next heartbeat
/// is not late. A check without a reply is left to that heartbeat.
async fn failing(session: &dyn Session, checks: &[Op]) -> Vec<usize> {
    let mut failing = Vec::new();
    for (number, some) in checks.chunks(CHECKED_AT_ONCE).enumerate() {
        let outcomes = join_all(some.iter().map(|check| session.commit(vec![check.clone()]))).await;
        let failed = outcomes.into_iter().enumerate().filter(|(_, outcome)| {
            matches!(outcome, Err(CommitError { index: Some(_), error }) if !error.is_unknown())
        });
        failing.extend(failed.map(|(at, _)| number * CHECKED_AT_ONCE + at));
    }
    failing
}

/// Waits until the session is lost, and notes meanwhile whether its connection is up.
async fn lost(live: &Live, state: &mut tokio::sync::watch::Receiver<SessionState>) -> Loss {
    loop {
        let now = *state.borrow_and_update();
        live.note_connection(matches!(now, SessionState::Connected { .. }));
        if let SessionState::Lost(loss) = now {
            return loss;
        }
        if state.changed().await.is_err() {
            return Loss::Closed;
        }
    }
}

#[cfg(test)]
mod tests;
