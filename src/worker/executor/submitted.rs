//! The handle of a request: [`Submitted`], and [`Progress`].

use std::{
    collections::VecDeque,
    fmt,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::sync::{mpsc, oneshot, watch};

use super::driver::Command;
use crate::worker::{
    engine::{Outcome, RequestError},
    lifecycle::State,
    message::Response,
};

/// How many events are kept for those who look at them late.
const KEPT: usize = 64;

/// Where a request stands, and what happened on the way.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) state: State,
    /// Who it was sent to.
    pub(super) topic: Option<Arc<str>>,
    events: VecDeque<Response>,
    /// How many events came before the first of these.
    dropped: u64,
}

impl Life {
    pub(super) fn new() -> Self {
        Life { state: State::Waiting, topic: None, events: VecDeque::new(), dropped: 0 }
    }

    pub(super) fn add(&mut self, event: Response) {
        if self.events.len() == KEPT {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back(event);
    }

    /// The first event that is kept from number `next` on, and its number.
    fn event(&self, next: u64) -> Option<(u64, &Response)> {
        let number = next.max(self.dropped);
        let index = usize::try_from(number - self.dropped).ok()?;
        Some((number, self.events.get(index)?))
    }
}

/// A request on its way: a future of its [`Outcome`]. From [`Executor::submit`](super::Executor::submit).
///
/// # Cancel safety
///
/// Polling it by reference is safe to stop at any point. **Dropping it forgets the request**: if it was not sent yet, it
/// never will be; if it was, the worker runs it all the same, because the protocol has no word for "stop", and what
/// becomes of it is dropped.
#[must_use = "dropping it forgets the request"]
pub struct Submitted {
    id: String,
    outcome: oneshot::Receiver<Outcome>,
    life: watch::Receiver<Life>,
    commands: mpsc::UnboundedSender<Command>,
    has_ended: bool,
}

impl Submitted {
    pub(super) fn new(
        id: String,
        outcome: oneshot::Receiver<Outcome>,
        life: watch::Receiver<Life>,
        commands: mpsc::UnboundedSender<Command>,
    ) -> Self {
        Submitted { id, outcome, life, commands, has_ended: false }
    }

    /// The id of the request, its correlation id on the wire.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The topic of the worker that it was sent to, `None` while it waits for one. It stays when the request has ended.
    pub fn topic(&self) -> Option<String> {
        self.life.borrow().topic.as_deref().map(str::to_owned)
    }

    /// Where the request stands. One that ended without a result is in [`State::Failure`], however that came.
    pub fn state(&self) -> State {
        let has_ended = self.life.has_changed().is_err();
        let state = self.life.borrow().state;
        // Nobody is left to say so if the executor is gone.
        if has_ended && !state.is_final() { State::Failure } else { state }
    }

    /// Waits until the request is in a state that `is_wanted` accepts. Returns it, or the last state if the request
    /// ends before.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait_for_state(&self, mut is_wanted: impl FnMut(State) -> bool) -> State {
        let mut life = self.life.clone();
        if let Ok(found) = life.wait_for(|life| is_wanted(life.state) || life.state.is_final()).await {
            return found.state;
        }
        self.state()
    }

    /// What happens on the way, from the start. The last 64 events are kept for those who look late.
    pub fn progress(&self) -> Progress {
        Progress { life: self.life.clone(), next: 0 }
    }
}

impl Future for Submitted {
    type Output = Outcome;

    /// # Panics
    ///
    /// If it is polled again after it was ready.
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Outcome> {
        assert!(!self.has_ended, "polled after it was ready");
        let polled = Pin::new(&mut self.outcome).poll(cx);
        // Nobody is left to end it: the executor is gone.
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

/// What happens to a request on the way. From [`Submitted::progress`].
pub struct Progress {
    life: watch::Receiver<Life>,
    next: u64,
}

impl Progress {
    /// Waits for the next event: `None` when the request has ended. See [`Response::as_progress`] for the one that
    /// tells how much is done. Who is more than 64 events behind misses the oldest.
    ///
    /// # Cancel safety
    ///
    /// Safe: no event is lost.
    pub async fn next(&mut self) -> Option<Response> {
        loop {
            // Before the look, so that what comes after it is not taken for seen.
            let has_ended = self.life.has_changed().is_err();
            if let Some((number, event)) = self.life.borrow_and_update().event(self.next) {
                self.next = number + 1;
                return Some(event.clone());
            }
            if has_ended {
                return None;
            }
            // An error is found by the next look, after which nothing comes.
            let _ = self.life.changed().await;
        }
    }
}

impl fmt::Debug for Progress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Progress").field("next", &self.next).finish_non_exhaustive()
    }
}
