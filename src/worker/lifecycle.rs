// Pure: no runtime, no clock, no socket, no random numbers.

//! The states of a request, their order, and the expiry of a request: [`Lifecycle`].
//!
//! The [`Executor`](super::Executor) applies these rules. They are public for tools that follow the messages of a
//! fleet.

use std::time::Duration;

use super::state::RequestState;
pub use super::state::UnknownState;
use crate::clock::Moment;

/// The default of [`ExecutorBuilder::request_timeout`](super::ExecutorBuilder::request_timeout): how long a request
/// waits for a worker to start on it.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// The default of [`ExecutorBuilder::notify_period`](super::ExecutorBuilder::notify_period): how often an executor asks
/// the workers for their tasks.
pub const NOTIFY_PERIOD: Duration = Duration::from_secs(5);

/// The default of [`ExecutorBuilder::worker_expiry`](super::ExecutorBuilder::worker_expiry): how long a worker may be
/// silent. When it has been silent for exactly this long, it is removed.
pub const WORKER_EXPIRY: Duration = Duration::from_secs(60);

/// How many heartbeats after its acknowledgement a worker may still start a request. An executor that receives nothing
/// about it for longer sends it again.
pub(super) const START_HEARTBEATS: u32 = 8;

/// How long one attempt to send a message may take. A connection that hangs must not delay a request beyond its timeout.
pub(super) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);

/// The effect of [`Lifecycle::step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transition {
    /// The request is in the new state.
    Moved,
    /// The request was in that state before: the message is a duplicate, to be ignored.
    Unchanged,
}

/// A step that is not allowed. The request keeps its state. From [`Lifecycle::step`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("a request that is {from} cannot become {to}")]
pub struct InvalidTransition {
    /// The present state of the request.
    pub from: RequestState,
    /// The state that may not follow.
    pub to: RequestState,
}

/// The life of one request: its state, and how long it may wait until a worker starts on it.
///
/// ```
/// # use std::time::Duration;
/// use apportion::{clock::Moment, worker::{RequestState, lifecycle::{Lifecycle, Transition}}};
///
/// let sent = Moment::default();
/// let mut life = Lifecycle::new(sent, Some(Duration::from_secs(60)));
/// assert_eq!(life.step(RequestState::Pending), Ok(Transition::Moved));
/// assert!(life.is_expired(sent + Duration::from_secs(61)));
///
/// // A request that runs does not expire, however long it takes.
/// assert_eq!(life.step(RequestState::Running), Ok(Transition::Moved));
/// assert!(!life.is_expired(sent + Duration::from_secs(61)));
/// assert!(life.step(RequestState::Pending).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifecycle {
    state: RequestState,
    created: Moment,
    /// When its clock began to run.
    waits_since: Moment,
    timeout: Option<Duration>,
}

impl Lifecycle {
    /// A request that was created at `created` and is waiting. Without a `timeout` it never expires.
    pub const fn new(created: Moment, timeout: Option<Duration>) -> Self {
        Lifecycle { state: RequestState::Waiting, created, waits_since: created, timeout }
    }

    /// The state of the request.
    pub const fn state(&self) -> RequestState {
        self.state
    }

    /// When the request was created.
    pub const fn created(&self) -> Moment {
        self.created
    }

    /// How long it may wait for a worker to start on it; `None` if it never expires.
    pub const fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Goes to the state `to`. Returns whether that is a new state.
    ///
    /// # Errors
    ///
    /// [`InvalidTransition`] if `to` may not follow the present state, which is kept.
    pub fn step(&mut self, to: RequestState) -> Result<Transition, InvalidTransition> {
        if self.state == to {
            return Ok(Transition::Unchanged);
        }
        if !self.state.allows(to) {
            return Err(InvalidTransition { from: self.state, to });
        }
        self.state = to;
        Ok(Transition::Moved)
    }

    /// Starts its clock again: a live worker has it, or has others before it, and it waits for its turn.
    pub fn acknowledge(&mut self, now: Moment) {
        self.waits_since = self.waits_since.max(now);
    }

    /// Makes a request that was sent wait again, because the worker does not have it. Its clock goes on. Returns false
    /// if it was not sent, or a worker has started on it.
    pub fn take_back(&mut self) -> bool {
        let is_pending = self.state == RequestState::Pending;
        if is_pending {
            self.state = RequestState::Waiting;
        }
        is_pending
    }

    /// Whether the request has waited for longer than its timeout, and no worker has started on it.
    pub fn is_expired(&self, now: Moment) -> bool {
        self.deadline().is_some_and(|deadline| now > deadline)
    }

    /// The last moment at which the request is not expired, if no worker [acknowledges](Self::acknowledge) it before;
    /// `None` if it does not expire, because it has no timeout or a worker has started on it.
    pub fn deadline(&self) -> Option<Moment> {
        self.timeout.filter(|_| self.state.is_waiting()).map(|timeout| self.waits_since + timeout)
    }
}
