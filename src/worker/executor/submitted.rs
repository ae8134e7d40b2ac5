//! The handle of a request: [`Submitted`], and [`Progress`].

use std::{
    fmt,
    future::{Future, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_core::Stream;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::ReusableBoxFuture;
use tracing::Span;

use super::command::{Command, Status};
use crate::{
    watch,
    worker::{
        engine::Ended, error::RequestError, message::event::Event, outcome::Outcome, state::RequestState,
    },
};

/// A submitted request: a future of its [`Outcome`]. From [`Executor::submit`](super::Executor::submit).
///
/// # Errors
///
/// [`RequestError`], if the request ends without a result.
///
/// # Cancel safety
///
/// Safe by reference: a poll can be dropped at any point. **Dropping the handle drops the request**: if it was not sent
/// yet, it is never sent. If it was sent, the worker still runs it, because the protocol has no message to stop it, and
/// its outcome is dropped.
#[must_use = "dropping the handle drops the request"]
pub struct Submitted {
    id: String,
    outcome: oneshot::Receiver<Ended>,
    status: watch::Receiver<Status>,
    commands: mpsc::UnboundedSender<Command>,
    has_ended: bool,
    span: Span,
}

impl Submitted {
    pub(super) fn new(
        id: String,
        outcome: oneshot::Receiver<Ended>,
        status: watch::Receiver<Status>,
        commands: mpsc::UnboundedSender<Command>,
        span: Span,
    ) -> Self {
        Submitted { id, outcome, status, commands, has_ended: false, span }
    }

    /// The id of the request, its correlation id on the wire.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The tracing span of the request, `request`: from its submission until it has ended and this handle is dropped. That at
    /// the worker has the same id.
    pub fn span(&self) -> &Span {
        &self.span
    }

    /// The topic of the worker that it was sent to; `None` if it was not sent. Still known after the request has ended.
    pub fn topic(&self) -> Option<String> {
        self.status.borrow().topic.as_deref().map(str::to_owned)
    }

    /// The state of the request. After any end without a result it is [`RequestState::Failure`].
    pub fn state(&self) -> RequestState {
        let has_ended = self.status.has_changed().is_err();
        let state = self.status.borrow().state;
        // Without an executor, and for a request that was never given to one, no state is set at the end.
        if has_ended && !state.is_final() { RequestState::Failure } else { state }
    }

    /// Waits until the request is in a state that `is_wanted` accepts. Returns it, or the last state if the request
    /// ends before.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait_for_state(&self, mut is_wanted: impl FnMut(RequestState) -> bool) -> RequestState {
        let mut status = self.status.clone();
        let is_reached = |status: &Status| is_wanted(status.state) || status.state.is_final();
        if let Ok(found) = status.wait_for(is_reached).await {
            return found.state;
        }
        self.state()
    }

    /// The events of the request, from its start. The last 64 events are kept for late readers.
    pub fn progress(&self) -> Progress {
        Progress { status: self.status.clone(), next: 0, changed: None }
    }
}

impl Future for Submitted {
    type Output = Result<Outcome, RequestError>;

    /// # Panics
    ///
    /// If it is polled again after it has returned its outcome.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Ended> {
        assert!(!self.has_ended, "polled after it was ready");
        let polled = Pin::new(&mut self.outcome).poll(cx);
        // The sender is dropped when the executor is gone.
        let polled = polled.map(|outcome| outcome.unwrap_or(Err(RequestError::Closed)));
        self.has_ended = polled.is_ready();
        polled
    }
}

impl Drop for Submitted {
    fn drop(&mut self) {
        if !self.has_ended {
            // An error means that the executor is gone, and with it the request.
            let _ = self.commands.send(Command::Forget { id: std::mem::take(&mut self.id) });
        }
    }
}

impl fmt::Debug for Submitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Submitted")
            .field("id", &self.id)
            .field("state", &self.state())
            .field("topic", &self.topic())
            .finish_non_exhaustive()
    }
}

/// The events of a request: a [`Stream`] of [`Event`]s that ends with the request. From [`Submitted::progress`].
///
/// A reader that is more than 64 events behind misses the oldest.
#[must_use = "it yields nothing until it is polled"]
pub struct Progress {
    status: watch::Receiver<Status>,
    next: u64,
    /// Ready when the status is another than at the last check. A `BoxFuture` would not be `Sync`.
    changed: Option<ReusableBoxFuture<'static, ()>>,
}

impl Progress {
    /// Waits for the next event; `None` when the request has ended. See [`Event::as_progress`] for events that report
    /// how much is done.
    ///
    /// # Cancel safety
    ///
    /// Safe: no event is lost.
    pub async fn next(&mut self) -> Option<Event> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl Stream for Progress {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        let this = &mut *self;
        loop {
            // Read before the events, so that none that comes in between is missed.
            let has_ended = this.status.has_changed().is_err();
            let found =
                this.status.borrow_and_update().event(this.next).map(|(at, event)| (at, event.clone()));
            if let Some((number, event)) = found {
                this.next = number + 1;
                return Poll::Ready(Some(event));
            }
            if has_ended {
                return Poll::Ready(None);
            }
            let changed =
                this.changed.get_or_insert_with(|| ReusableBoxFuture::new(change(this.status.clone())));
            ready!(changed.poll(cx));
            this.changed = None;
        }
    }
}

/// Waits until the status is another than the one that `status` has seen.
async fn change(mut status: watch::Receiver<Status>) {
    // An error means that the request has ended, which the next check finds.
    let _ = status.changed().await;
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("next", &self.next).finish_non_exhaustive()
    }
}
