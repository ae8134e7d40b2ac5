//! Time as a value: [`Moment`], and the [`Clock`]s that measure it.
//!
//! This is the only file that reads a clock. Everything else takes a [`Moment`], so that expiry, suspension
//! and drift can be tested without waiting for them.

use std::{
    fmt,
    ops::{Add, Sub},
    sync::atomic::{AtomicI64, Ordering},
    time::{Duration, SystemTime},
};

/// A point in time: the duration since the origin of one [`Clock`], which is arbitrary.
///
/// Moments of different clocks cannot be compared.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Moment(Duration);

impl Moment {
    /// A moment that never comes.
    pub const NEVER: Moment = Moment(Duration::MAX);

    /// The moment `since_origin` after the clock's origin.
    pub const fn from_origin(since_origin: Duration) -> Self {
        Moment(since_origin)
    }

    /// The time since the clock's origin.
    pub const fn since_origin(self) -> Duration {
        self.0
    }

    /// The time from `earlier` to this moment, zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Moment) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

impl Add<Duration> for Moment {
    type Output = Moment;

    fn add(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_add(duration))
    }
}

impl Sub<Duration> for Moment {
    type Output = Moment;

    fn sub(self, duration: Duration) -> Moment {
        Moment(self.0.saturating_sub(duration))
    }
}

impl fmt::Debug for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Moment::NEVER { f.write_str("never") } else { write!(f, "{:?}", self.0) }
    }
}

/// Measures time. Each backend has its own clock (see [`Connector::clock`](crate::backend::Connector::clock)).
pub trait Clock: fmt::Debug + Send + Sync + 'static {
    /// The current moment. It never goes back.
    fn now(&self) -> Moment;

    /// The time since 1970, by the wall clock of this host, which may be wrong and may go back. It is used only for when
    /// a job or an entry may be tried again, which processes on several hosts have to agree about roughly. Who may act
    /// never depends on it.
    #[allow(clippy::disallowed_methods, reason = "the file that reads time")]
    fn unix_time(&self) -> Duration {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default()
    }
}

impl dyn Clock {
    /// The wall clock after this time, in milliseconds since 1970.
    pub(crate) fn unix_ms_in(&self, pause: Duration) -> u64 {
        u64::try_from(self.unix_time().saturating_add(pause).as_millis()).unwrap_or(u64::MAX)
    }

    /// When this time of the wall clock comes; `None` if it has come.
    pub(crate) fn moment_of(&self, unix_ms: u64) -> Option<Moment> {
        let left = Duration::from_millis(unix_ms).saturating_sub(self.unix_time());
        (!left.is_zero()).then(|| self.now() + left)
    }
}

/// The time from now until `then`, by the wall clock of this host; zero if it has passed.
#[allow(clippy::disallowed_methods, reason = "the file that reads time")]
pub(crate) fn time_until(then: SystemTime) -> Duration {
    then.duration_since(SystemTime::now()).unwrap_or_default()
}

/// The clock for production: it counts the time for which a host is suspended.
///
/// Linux: `CLOCK_BOOTTIME`. The monotonic clock of `std::time::Instant` stands still while a laptop sleeps or a virtual
/// machine is suspended. A member that used it would treat its share as valid afterwards, although other members took
/// it over long ago. macOS and the other Apple systems: `CLOCK_MONOTONIC`, which counts sleep there. Other systems: the
/// monotonic clock, which does not count suspension.
#[derive(Debug, Default, Clone, Copy)]
pub struct BootClock;

impl Clock for BootClock {
    #[cfg(unix)]
    fn now(&self) -> Moment {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Boottime;
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        const CLOCK: rustix::time::ClockId = rustix::time::ClockId::Monotonic;
        let now = rustix::time::clock_gettime(CLOCK);
        // Both parts count up from the boot of the host, so neither is ever negative.
        Moment(Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0)))
    }

    #[cfg(not(unix))]
    #[allow(clippy::disallowed_methods, reason = "the file that reads time")]
    fn now(&self) -> Moment {
        static ORIGIN: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        Moment(ORIGIN.get_or_init(std::time::Instant::now).elapsed())
    }
}

/// Tokio's clock, for tests: it follows paused time, and it can jump forward as if the host had been suspended.
#[derive(Debug)]
pub struct TokioClock {
    origin: tokio::time::Instant,
    jumped_nanos: AtomicI64,
}

impl TokioClock {
    /// Tokio starts a paused clock at an arbitrary instant. The first deadlines may lie up to an hour before it.
    const HEAD_START: Duration = Duration::from_secs(3600);

    /// A clock that starts now.
    #[allow(clippy::disallowed_methods, reason = "the file that reads time")]
    pub fn new() -> Self {
        TokioClock { origin: tokio::time::Instant::now(), jumped_nanos: AtomicI64::new(0) }
    }

    /// Lets the clock jump forward by `by`, as after a suspension of the host. Timers do not move with it.
    pub fn jump(&self, by: Duration) {
        let nanos = i64::try_from(by.as_nanos()).unwrap_or(i64::MAX);
        let _ = self
            .jumped_nanos
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |jumped| Some(jumped.saturating_add(nanos)));
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        TokioClock::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Moment {
        let jumped = Duration::from_nanos(self.jumped_nanos.load(Ordering::SeqCst).unsigned_abs());
        Moment(TokioClock::HEAD_START + self.origin.elapsed() + jumped)
    }

    /// That of the in-memory store: it starts in 1970, so that a run can be repeated to the byte.
    fn unix_time(&self) -> Duration {
        self.now().since_origin()
    }
}
