//! Durations in a readable form, and the time of day.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// This instant, to measure how long something took.
#[expect(clippy::disallowed_methods, reason = "an example shows real time; it decides nothing")]
pub fn now() -> Instant {
    Instant::now()
}

/// Milliseconds since 1970.
#[expect(clippy::disallowed_methods, reason = "as above")]
pub fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// The time of day, UTC, as `14:03:05`.
pub fn time_of_day() -> String {
    let now = UNIX_EPOCH + Duration::from_millis(unix_ms());
    humantime::format_rfc3339_seconds(now).to_string()[11..19].into()
}

/// `1.3 s`.
pub fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

/// Reads `5s`, `500ms` or `2m`.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text) {
        Ok(duration) if duration >= Duration::from_millis(10) => Ok(duration),
        Ok(_) => Err("it has to be at least 10ms".into()),
        Err(error) => Err(error.to_string()),
    }
}

/// Cycles by the time of day: the n-th starts n times the period after 1970. So all processes of a fleet agree on
/// the number of a cycle without talking to each other, as far as their clocks agree.
#[derive(Debug)]
pub struct Cycles {
    period_ms: u64,
    /// The last one that was started.
    last: Option<u64>,
}

impl Cycles {
    /// Cycles that take `period` each.
    pub fn every(period: Duration) -> Cycles {
        Cycles { period_ms: u64::try_from(period.as_millis()).unwrap_or(u64::MAX).max(1), last: None }
    }

    /// The number of the present cycle.
    pub fn current(&self) -> u64 {
        unix_ms() / self.period_ms
    }

    /// Waits for the start of the next cycle and returns its number. Cancel safe.
    pub async fn next(&mut self) -> u64 {
        let mut next = self.last.map_or(0, |last| last + 1).max(self.current() + 1);
        tokio::time::sleep(Duration::from_millis((next * self.period_ms).saturating_sub(unix_ms()))).await;
        // Later, if this process did not run for a while.
        next = next.max(self.current());
        self.last = Some(next);
        next
    }
}
