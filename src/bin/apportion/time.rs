//! Times and durations, as an operator reads them.

use std::time::{Duration, SystemTime};

/// The time by the wall clock of this host. It only says how old something is.
#[allow(clippy::disallowed_methods, reason = "nothing is decided by it")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

/// How long ago that was; zero if the clock of the server is ahead.
pub(crate) fn age(then: SystemTime) -> Duration {
    now().duration_since(then).unwrap_or_default()
}

pub(crate) fn from_ms(ms: i64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or_default())
}

/// Milliseconds since 1970.
pub(crate) fn ms(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// `850 ms`, `12 s`, `5 min`, `7 h`, `3 d`.
pub(crate) fn short(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{} ms", duration.as_millis()),
        1..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Reads `90`, `90s`, `5m`, `2h`, `1d`, `500ms`.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 =
        number.parse().map_err(|_| format!("`{text}` is no duration: write 90s, 5m, 2h or 1d"))?;
    let seconds = |each: u64| number.checked_mul(each).map(Duration::from_secs);
    let duration = match unit {
        "ms" => Some(Duration::from_millis(number)),
        "" | "s" => seconds(1),
        "m" | "min" => seconds(60),
        "h" => seconds(3600),
        "d" => seconds(86_400),
        _ => None,
    };
    duration.ok_or_else(|| format!("`{text}` is no duration: write 90s, 5m, 2h or 1d"))
}
