// Pure: no runtime, no clock, no socket, no random numbers.

//! The states that a request goes through, which step may follow which, and when it expires.

use std::{fmt, str::FromStr, time::Duration};

use crate::clock::Moment;

/// How long a request waits for a worker to start on it, unless told otherwise.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

/// How often an executor asks the workers what they can run.
pub const NOTIFY_PERIOD: Duration = Duration::from_secs(5);

/// A worker that has not answered for this long is gone; at exactly this age it is gone already.
pub const WORKER_EXPIRY: Duration = Duration::from_secs(60);

/// Where a request stands.
///
/// Source: `taskflow.engines.worker_based.protocol`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// No worker is known yet that lists the task.
    Waiting,
    /// Sent to a worker that has not said yet that it runs.
    Pending,
    /// A worker runs it.
    Running,
    /// Over, with a result.
    Success,
    /// Over, without a result.
    Failure,
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [State; 5] =
        [State::Waiting, State::Pending, State::Running, State::Success, State::Failure];

    /// The name on the wire: `WAITING`, `PENDING`, `RUNNING`, `SUCCESS` or `FAILURE`.
    pub const fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "WAITING",
            State::Pending => "PENDING",
            State::Running => "RUNNING",
            State::Success => "SUCCESS",
            State::Failure => "FAILURE",
        }
    }

    /// Whether the request may still expire: nobody has started on it.
    pub const fn is_waiting(self) -> bool {
        matches!(self, State::Waiting | State::Pending)
    }

    /// Whether the request is over.
    pub const fn is_final(self) -> bool {
        matches!(self, State::Success | State::Failure)
    }

    /// Whether `next` may follow this state. No state follows itself.
    pub const fn allows(self, next: State) -> bool {
        matches!(
            (self, next),
            (State::Waiting, State::Pending | State::Failure)
                | (State::Pending, State::Running | State::Failure)
                | (State::Running, State::Success | State::Failure)
        )
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not the name of a [`State`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not a state of a request", .0.escape_debug())]
pub struct UnknownState(pub String);

impl FromStr for State {
    type Err = UnknownState;

    /// Reads a name as it is on the wire, in capitals only: the original takes `running` as well, but by
    /// accident, and forgets to stop the clock then.
    fn from_str(name: &str) -> Result<Self, UnknownState> {
        State::ALL
            .into_iter()
            .find(|state| state.as_str() == name)
            .ok_or_else(|| UnknownState(name.chars().take(64).collect()))
    }
}

/// What [`Lifecycle::step`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transition {
    /// The request is in the new state.
    Moved,
    /// The request was in that state before: a duplicate, to be ignored.
    Unchanged,
}

/// A step that no request takes. The request stays where it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[error("a request that is {from} cannot become {to}")]
pub struct InvalidTransition {
    /// Where the request stands, still.
    pub from: State,
    /// Where it cannot go from there.
    pub to: State,
}

/// The life of one request: its state, and the clock that runs until somebody starts on it.
///
/// ```
/// # use std::time::Duration;
/// use apportion::{clock::Moment, worker::lifecycle::{Lifecycle, State, Transition}};
///
/// let sent = Moment::default();
/// let mut life = Lifecycle::new(sent, Some(Duration::from_secs(60)));
/// assert_eq!(life.step(State::Pending), Ok(Transition::Moved));
/// assert!(life.is_expired(sent + Duration::from_secs(61)));
///
/// // A request that runs is waited for, however long it takes.
/// assert_eq!(life.step(State::Running), Ok(Transition::Moved));
/// assert!(!life.is_expired(sent + Duration::from_secs(61)));
/// assert!(life.step(State::Pending).is_err());
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lifecycle {
    state: State,
    created: Moment,
    timeout: Option<Duration>,
}

impl Lifecycle {
    /// A request that was made at `created` and waits; `None` waits for ever.
    pub const fn new(created: Moment, timeout: Option<Duration>) -> Self {
        Lifecycle { state: State::Waiting, created, timeout }
    }

    /// Where the request stands.
    pub const fn state(&self) -> State {
        self.state
    }

    /// When the request was made.
    pub const fn created(&self) -> Moment {
        self.created
    }

    /// How long it may wait for a worker to start on it; `None` is for ever.
    pub const fn timeout(&self) -> Option<Duration> {
        self.timeout
    }

    /// Goes to `to`, or says that it is there already.
    ///
    /// # Errors
    ///
    /// [`InvalidTransition`] if `to` may not follow the present state, which is then kept.
    pub fn step(&mut self, to: State) -> Result<Transition, InvalidTransition> {
        if self.state == to {
            return Ok(Transition::Unchanged);
        }
        if !self.state.allows(to) {
            return Err(InvalidTransition { from: self.state, to });
        }
        self.state = to;
        Ok(Transition::Moved)
    }

    /// Whether the request has waited for longer than its timeout, and nobody has started on it.
    pub fn is_expired(&self, now: Moment) -> bool {
        self.deadline().is_some_and(|deadline| now > deadline)
    }

    /// The last moment at which the request is not expired; `None` if it cannot expire, or cannot any more.
    pub fn deadline(&self) -> Option<Moment> {
        self.timeout.filter(|_| self.state.is_waiting()).map(|timeout| self.created + timeout)
    }
}
