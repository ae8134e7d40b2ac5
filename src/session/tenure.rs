//! [`Lifeline`] and [`Tenure`]: whether we may still act, by our own clock.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, Moment};

/// Timers stand still while a host is suspended, so nobody sleeps longer than this towards a deadline.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Until when one session is certain to live. Looked at on every use; depends on no background task, so that a
/// stopped process, a starved runtime or a suspended host finds it passed at the first look.
#[derive(Debug, Clone)]
pub(crate) struct Lifeline {
    clock: Arc<dyn Clock>,
    deadline: watch::Receiver<Moment>,
    over: CancellationToken,
}

impl Lifeline {
    /// Follows the deadline that `deadline` announces.
    pub(crate) fn new(clock: Arc<dyn Clock>, deadline: watch::Receiver<Moment>) -> Self {
        Lifeline { clock, deadline, over: CancellationToken::new() }
    }

    /// Ends it for good, and every tenure that hangs on it.
    pub(crate) fn end(&self) {
        self.over.cancel();
    }

    /// Whether it is over for good.
    pub(crate) fn has_ended(&self) -> bool {
        self.over.is_cancelled()
    }
}

/// One life of one ephemeral znode in one session: what a share rests on.
///
/// It ends for good when the session or the znode is gone. In between it lapses when the deadline passes, and
/// comes back if a later heartbeat shows that the session has survived after all.
#[derive(Debug, Clone)]
pub(crate) struct Tenure {
    /// `None` where there is nobody to share with: then it never ends.
    lifeline: Option<Lifeline>,
    gone: CancellationToken,
}

impl Tenure {
    /// A tenure in the session of `lifeline`.
    pub(crate) fn new(lifeline: &Lifeline) -> Self {
        Tenure { gone: lifeline.over.child_token(), lifeline: Some(lifeline.clone()) }
    }

    /// A tenure that only [`Tenure::end`] ends.
    pub(crate) fn unlimited() -> Self {
        Tenure { lifeline: None, gone: CancellationToken::new() }
    }

    /// Whether we may act at this moment.
    pub(crate) fn is_valid(&self) -> bool {
        !self.has_ended()
            && self.lifeline.as_ref().is_none_or(|life| life.clock.now() < *life.deadline.borrow())
    }

    /// Whether it is over for good.
    pub(crate) fn has_ended(&self) -> bool {
        self.gone.is_cancelled()
    }

    /// Until when we may act if nothing else is confirmed.
    pub(crate) fn deadline(&self) -> Moment {
        self.lifeline.as_ref().map_or(Moment::NEVER, |life| *life.deadline.borrow())
    }

    /// How long we may still act if nothing else is confirmed.
    pub(crate) fn remaining(&self) -> Duration {
        match &self.lifeline {
            _ if self.has_ended() => Duration::ZERO,
            Some(life) => life.deadline.borrow().saturating_since(life.clock.now()),
            None => Duration::MAX,
        }
    }

    /// Ends it for good.
    pub(crate) fn end(&self) {
        self.gone.cancel();
    }

    /// Waits until it is over for good.
    pub(crate) async fn ended(&self) {
        self.gone.cancelled().await;
    }

    /// Waits until [`Tenure::is_valid`] may be other than `was_valid`, what the caller saw last. Cancel safe.
    pub(crate) async fn changed(&self, was_valid: bool) {
        let Some(life) = &self.lifeline else { return self.ended().await };
        let mut deadline = life.deadline.clone();
        let remaining = deadline.borrow_and_update().saturating_since(life.clock.now());
        // The deadline may have passed, or moved, since the caller looked.
        if remaining.is_zero() == was_valid {
            return;
        }
        tokio::select! {
            () = self.ended() => {}
            // Each heartbeat moves the deadline; that is news only to whoever had lapsed.
            Ok(()) = deadline.changed(), if !was_valid => {}
            () = tokio::time::sleep(remaining.min(LOOK_AGAIN)), if was_valid => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::TokioClock;

    fn lifeline() -> (Arc<TokioClock>, watch::Sender<Moment>, Lifeline) {
        let clock = Arc::new(TokioClock::new());
        let (sender, receiver) = watch::channel(clock.now() + Duration::from_secs(5));
        (clock.clone(), sender, Lifeline::new(clock, receiver))
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenure_lapses_at_the_deadline_and_comes_back_with_a_later_heartbeat() {
        let (clock, deadline, life) = lifeline();
        let tenure = Tenure::new(&life);
        assert!(tenure.is_valid());
        while tenure.is_valid() {
            tenure.changed(true).await;
        }
        assert!(!tenure.has_ended());
        deadline.send_replace(clock.now() + Duration::from_secs(5));
        assert!(tenure.is_valid());
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_was_suspended_finds_the_tenure_lapsed_at_the_first_look() {
        let (clock, _deadline, life) = lifeline();
        let tenure = Tenure::new(&life);
        clock.jump(Duration::from_secs(60));
        assert!(!tenure.is_valid());
    }

    #[tokio::test(start_paused = true)]
    async fn a_change_between_the_last_look_and_the_wait_is_not_waited_for() {
        let (clock, deadline, life) = lifeline();
        let tenure = Tenure::new(&life);
        let soon = |was_valid| tokio::time::timeout(Duration::from_millis(1), tenure.changed(was_valid));
        assert!(soon(true).await.is_err(), "nothing has changed");
        clock.jump(Duration::from_secs(60));
        assert!(soon(true).await.is_ok(), "the deadline has passed");
        assert!(soon(false).await.is_err(), "nothing has changed");
        deadline.send_replace(clock.now() + Duration::from_secs(5));
        assert!(soon(false).await.is_ok(), "a heartbeat was confirmed");
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenure_ends_with_its_session_but_not_with_another_tenure() {
        let (_clock, _deadline, life) = lifeline();
        let (one, two) = (Tenure::new(&life), Tenure::new(&life));
        one.end();
        assert!(one.has_ended() && !one.is_valid() && two.is_valid());
        life.end();
        two.ended().await;
        assert!(!two.is_valid());
    }
}
