//! [`SessionValidity`] and [`Validity`]: whether this process may still act, by its own clock.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    clock::{Clock, Moment},
    watch,
};

/// The longest wait for a deadline without reading the clock: timers stand still while a host is suspended.
const LONGEST_WAIT: Duration = Duration::from_secs(1);

/// Until when one session certainly lives. Each use compares the deadline with the clock, without any background task.
/// So after a stop of the process, a starved runtime or a suspended host, the first use already finds that it has
/// passed.
#[derive(Debug, Clone)]
pub(crate) struct SessionValidity {
    clock: Arc<dyn Clock>,
    deadline: watch::Receiver<Moment>,
    over: CancellationToken,
}

impl SessionValidity {
    /// Until the moment that `deadline` gives.
    pub(crate) fn new(clock: Arc<dyn Clock>, deadline: watch::Receiver<Moment>) -> Self {
        SessionValidity { clock, deadline, over: CancellationToken::new() }
    }

    /// Ends it for ever, and every validity in this session.
    pub(crate) fn end(&self) {
        self.over.cancel();
    }

    /// Whether it has ended, which is final.
    pub(crate) fn has_ended(&self) -> bool {
        self.over.is_cancelled()
    }
}

/// The validity of a share or a lease: whether one ephemeral znode of one session still counts.
///
/// It ends for ever when the session or the znode is gone. Before that, it lapses when the deadline passes. It is valid
/// again if a later heartbeat shows that the session has survived.
#[derive(Debug, Clone)]
pub(crate) struct Validity {
    /// `None` without a backend: then it never lapses.
    session: Option<SessionValidity>,
    gone: CancellationToken,
}

impl Validity {
    /// The validity of a znode in this session.
    pub(crate) fn new(session: &SessionValidity) -> Self {
        Validity { gone: session.over.child_token(), session: Some(session.clone()) }
    }

    /// A validity that only [`Validity::end`] ends.
    pub(crate) fn unlimited() -> Self {
        Validity { session: None, gone: CancellationToken::new() }
    }

    /// Whether this process may act at this moment.
    pub(crate) fn is_valid(&self) -> bool {
        !self.has_ended()
            && self.session.as_ref().is_none_or(|session| session.clock.now() < *session.deadline.borrow())
    }

    /// Whether it has ended, which is final.
    pub(crate) fn has_ended(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Until when this process may act if no further heartbeat is confirmed.
    pub(crate) fn deadline(&self) -> Moment {
        self.session.as_ref().map_or(Moment::NEVER, |session| *session.deadline.borrow())
    }

    /// How long this process may still act if no further heartbeat is confirmed.
    pub(crate) fn remaining(&self) -> Duration {
        match &self.session {
            _ if self.has_ended() => Duration::ZERO,
            Some(session) => session.deadline.borrow().saturating_since(session.clock.now()),
            None => Duration::MAX,
        }
    }

    /// Ends it for ever.
    pub(crate) fn end(&self) {
        self.gone.cancel();
    }

    /// Waits until it has ended.
    pub(crate) async fn ended(&self) {
        self.gone.cancelled().await;
    }

    /// Waits until [`Validity::is_valid`] may differ from `was_valid`, the value that the caller read last.
    ///
    /// Cancel safe.
    pub(crate) async fn changed(&self, was_valid: bool) {
        let Some(session) = &self.session else { return self.ended().await };
        let mut deadline = session.deadline.clone();
        let remaining = deadline.borrow_and_update().saturating_since(session.clock.now());
        // The deadline may have passed, or moved, since the caller read it.
        if remaining.is_zero() == was_valid {
            return;
        }
        tokio::select! {
            biased;
            () = self.ended() => {}
            // Each heartbeat moves the deadline; that matters only where it has passed.
            Ok(()) = deadline.changed(), if !was_valid => {}
            () = tokio::time::sleep(remaining.min(LONGEST_WAIT)), if was_valid => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;

    fn session() -> (Arc<TokioClock>, watch::Sender<Moment>, SessionValidity) {
        let clock = Arc::new(TokioClock::new());
        let (sender, receiver) = watch::channel(clock.now() + Duration::from_secs(5));
        (clock.clone(), sender, SessionValidity::new(clock, receiver))
    }

    #[tokio::test(start_paused = true)]
    async fn a_validity_lapses_at_the_deadline_and_comes_back_with_a_later_heartbeat() {
        let (clock, deadline, session) = session();
        let validity = Validity::new(&session);
        assert!(validity.is_valid());
        while validity.is_valid() {
            validity.changed(true).await;
        }
        assert!(!validity.has_ended());
        deadline.send_replace(clock.now() + Duration::from_secs(5));
        assert!(validity.is_valid());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_was_suspended_finds_the_validity_lapsed_at_the_first_use() {
        let (clock, _deadline, session) = session();
        let validity = Validity::new(&session);
        clock.jump(Duration::from_secs(60));
        assert!(!validity.is_valid());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_between_the_last_use_and_the_wait_is_not_waited_for() {
        let (clock, deadline, session) = session();
        let validity = Validity::new(&session);
        let soon = |was_valid| tokio::time::timeout(Duration::from_millis(1), validity.changed(was_valid));
        assert!(soon(true).await.is_err(), "nothing has changed");
        clock.jump(Duration::from_secs(60));
        assert!(soon(true).await.is_ok(), "the deadline has passed");
        assert!(soon(false).await.is_err(), "nothing has changed");
        deadline.send_replace(clock.now() + Duration::from_secs(5));
        assert!(soon(false).await.is_ok(), "a heartbeat was confirmed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_validity_ends_with_its_session_but_not_with_another_validity() {
        let (_clock, _deadline, session) = session();
        let (one, two) = (Validity::new(&session), Validity::new(&session));
        one.end();
        assert!(one.has_ended() && !one.is_valid() && two.is_valid());
        session.end();
        two.ended().await;
        assert!(!two.is_valid());
    }
}
