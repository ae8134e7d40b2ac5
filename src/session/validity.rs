//! [`SessionValidity`] and [`Validity`]: whether this process may still act, by its own clock.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Moment};

/// The longest wait for a deadline without reading the clock: timers stand still while a host is suspended.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Until when one session certainly lives. Each use compares the deadline with the clock, without any background task.
/// So after a stop of the process, a starved runtime or a suspended host, the first use already finds that it has
/// passed.
#[derive(Debug, Clone)]
pub(crate) struct SessionValidity(Arc<Session>);

/// Read for each item of a share, so without a lock.
#[derive(Debug)]
struct Session {
    clock: Arc<dyn Clock>,
    /// In nanoseconds since the origin of the clock.
    deadline: AtomicU64,
    moved: Notify,
    over: End,
}

/// Happens once.
#[derive(Debug, Default)]
struct End {
    /// Set before the token is cancelled. To read a token takes a lock.
    has_come: AtomicBool,
    token: CancellationToken,
}

impl End {
    fn come(&self) {
        self.has_come.store(true, Ordering::Release);
        self.token.cancel();
    }

    fn has_come(&self) -> bool {
        self.has_come.load(Ordering::Acquire)
    }
}

impl SessionValidity {
    /// Until `deadline`, which [`SessionValidity::move_to`] moves.
    pub(crate) fn new(clock: Arc<dyn Clock>, deadline: Moment) -> Self {
        let deadline = AtomicU64::new(nanos(deadline));
        SessionValidity(Arc::new(Session { clock, deadline, moved: Notify::new(), over: End::default() }))
    }

    /// Another one, by the same clock.
    pub(super) fn beside(&self, deadline: Moment) -> Self {
        SessionValidity::new(self.0.clock.clone(), deadline)
    }

    /// Moves the deadline.
    pub(crate) fn move_to(&self, deadline: Moment) {
        self.0.deadline.store(nanos(deadline), Ordering::Release);
        self.0.moved.notify_waiters();
    }

    /// Ends it for ever, and every validity in this session.
    pub(crate) fn end(&self) {
        self.0.over.come();
    }

    /// Whether it has ended, which is final.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.over.has_come()
    }

    /// Waits until it is over for good.
    pub(crate) async fn ended(&self) {
        self.0.over.token.cancelled().await;
    }

    fn deadline(&self) -> Moment {
        Moment::from_origin(Duration::from_nanos(self.0.deadline.load(Ordering::Acquire)))
    }

    fn now(&self) -> Moment {
        self.0.clock.now()
    }
}

/// Enough for 584 years since the origin of a clock.
fn nanos(moment: Moment) -> u64 {
    u64::try_from(moment.since_origin().as_nanos()).unwrap_or(u64::MAX)
}

/// The validity of a share or a lease: whether one ephemeral znode of one session still counts.
///
/// It ends for ever when the session or the znode is gone. Before that, it lapses when the deadline passes. It is valid
/// again if a later heartbeat shows that the session has survived.
#[derive(Debug, Clone)]
pub(crate) struct Validity {
    /// `None` without a backend: then it never lapses.
    session: Option<SessionValidity>,
    gone: Arc<End>,
}

impl Validity {
    /// The validity of a znode in this session.
    pub(crate) fn new(session: &SessionValidity) -> Self {
        let gone = End { has_come: AtomicBool::new(false), token: session.0.over.token.child_token() };
        Validity { gone: Arc::new(gone), session: Some(session.clone()) }
    }

    /// A validity that only [`Validity::end`] ends.
    pub(crate) fn unlimited() -> Self {
        Validity { session: None, gone: Arc::default() }
    }

    /// Whether this process may act at this moment.
    pub(crate) fn is_valid(&self) -> bool {
        !self.has_ended() && self.session.as_ref().is_none_or(|session| session.now() < session.deadline())
    }

    /// Whether it has ended, which is final.
    pub(crate) fn has_ended(&self) -> bool {
        self.gone.has_come() || self.session.as_ref().is_some_and(SessionValidity::has_ended)
    }

    /// Until when this process may act if no further heartbeat is confirmed.
    pub(crate) fn deadline(&self) -> Moment {
        self.session.as_ref().map_or(Moment::NEVER, SessionValidity::deadline)
    }

    /// How long this process may still act if no further heartbeat is confirmed.
    pub(crate) fn remaining(&self) -> Duration {
        match &self.session {
            _ if self.has_ended() => Duration::ZERO,
            Some(session) => session.deadline().saturating_since(session.now()),
            None => Duration::MAX,
        }
    }

    /// The current moment of the clock that the deadlines belong to. Without a backend there is no deadline, and the
    /// moment is always the same.
    pub(crate) fn now(&self) -> Moment {
        self.session.as_ref().map_or(Moment::default(), SessionValidity::now)
    }

    /// Ends it for ever.
    pub(crate) fn end(&self) {
        self.gone.come();
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        self.gone.token.cancelled().await;
    }

    /// Waits until [`Validity::is_valid`] may differ from `was_valid`, the value that the caller read last.
    ///
    /// Cancel safe.
    pub(crate) async fn changed(&self, was_valid: bool) {
        self.changed_until(was_valid, None).await;
    }

    /// The same, where no heartbeat moves the deadline beyond `limit`.
    pub(crate) async fn changed_until(&self, was_valid: bool, limit: Option<Moment>) {
        let Some(session) = &self.session else { return self.ended().await };
        // Before the deadline is read, so that every later move ends the wait.
        let moved = session.0.moved.notified();
        let until = session.deadline().min(limit.unwrap_or(Moment::NEVER));
        let remaining = until.saturating_since(session.now());
        // The deadline may have passed, or moved, since the caller read it.
        if remaining.is_zero() == was_valid {
            return;
        }
        tokio::select! {
            biased;
            () = self.ended() => {}
            // Each heartbeat moves the deadline; that matters only where it has passed.
            () = moved, if !was_valid => {}
            () = tokio::time::sleep(remaining.min(LONGEST_WAIT)), if was_valid => {}
        }
    }
}

/// Runs `work` as long as this process may act: asks `check` before each poll. `lost` ends when it may not any more.
/// Returns the output of `work`, or the error of the two.
///
/// Cancel safe if `work` is.
pub(crate) async fn while_valid<F: Future, E>(
    work: F,
    lost: impl Future<Output = E>,
    check: impl Fn() -> Result<(), E>,
) -> Result<F::Output, E> {
    let (mut work, mut lost) = (pin!(work), pin!(lost));
    poll_fn(|context| {
        // After a suspension of the host, the work may be woken before the timer of the deadline.
        if let Poll::Ready(lost) = lost.as_mut().poll(context) {
            return Poll::Ready(Err(lost));
        }
        if let Err(lost) = check() {
            return Poll::Ready(Err(lost));
        }
        work.as_mut().poll(context).map(Ok)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;

    fn session() -> (Arc<TokioClock>, SessionValidity) {
        let clock = Arc::new(TokioClock::new());
        let deadline = clock.now() + Duration::from_secs(5);
        (clock.clone(), SessionValidity::new(clock, deadline))
    }

    #[tokio::test(start_paused = true)]
    async fn a_validity_lapses_at_the_deadline_and_comes_back_with_a_later_heartbeat() {
        let (clock, session) = session();
        let validity = Validity::new(&session);
        assert!(validity.is_valid());
        while validity.is_valid() {
            validity.changed(true).await;
        }
        assert!(!validity.has_ended());
        session.move_to(clock.now() + Duration::from_secs(5));
        assert!(validity.is_valid());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_was_suspended_finds_the_validity_lapsed_at_the_first_use() {
        let (clock, session) = session();
        let validity = Validity::new(&session);
        clock.jump(Duration::from_secs(60));
        assert!(!validity.is_valid());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_between_the_last_use_and_the_wait_is_not_waited_for() {
        let (clock, session) = session();
        let validity = Validity::new(&session);
        let soon = |was_valid| tokio::time::timeout(Duration::from_millis(1), validity.changed(was_valid));
        assert!(soon(true).await.is_err(), "nothing has changed");
        clock.jump(Duration::from_secs(60));
        assert!(soon(true).await.is_ok(), "the deadline has passed");
        assert!(soon(false).await.is_err(), "nothing has changed");
        session.move_to(clock.now() + Duration::from_secs(5));
        assert!(soon(false).await.is_ok(), "a heartbeat was confirmed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_validity_ends_with_its_session_but_not_with_another_validity() {
        let (_clock, session) = session();
        let (one, two) = (Validity::new(&session), Validity::new(&session));
        one.end();
        assert!(one.has_ended() && !one.is_valid() && two.is_valid());
        session.end();
        two.ended().await;
        assert!(!two.is_valid());
    }
}
