// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Holder`]: which process has a member id.

use std::fmt;

use crate::backend::SessionId;

/// The process whose znode has the id of this member, as far as that znode shows it. Its text names the process, the
/// session and the time.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Holder {
    /// The host of the process; `None` if it is a Python peer, or its system does not say.
    pub host: Option<String>,
    /// The process id on that host.
    pub pid: Option<u32>,
    /// The session that owns the znode; `None` for a persistent znode, which only an operator can delete.
    pub session: Option<SessionId>,
    /// When the znode was created, in milliseconds since 1970 by the clock of the server. For display only.
    pub since_ms: i64,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.host, self.pid) {
            (Some(host), Some(pid)) => write!(f, "process {pid} on host `{}`", host.escape_debug())?,
            _ => f.write_str("another process")?,
        }
        write!(f, " since {}", Utc(self.since_ms))?;
        match self.session {
            Some(session) => write!(f, ", session {session}"),
            None => f.write_str(", with a persistent znode: delete it"),
        }
    }
}

/// A time as text: `2026-01-31 23:59:59 UTC`.
struct Utc(i64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.div_euclid(1000);
        let (days, second) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
        // Days since 0000-03-01, in eras of 400 years, so that the day that a leap year adds is the last of a year.
        let days = days + 719_468;
        let (era, day) = (days.div_euclid(146_097), days.rem_euclid(146_097));
        let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
        let day = day - (365 * year + year / 4 - year / 100);
        let month = (5 * day + 2) / 153;
        let day = day - (153 * month + 2) / 5 + 1;
        let (month, later) = if month < 10 { (month + 3, 0) } else { (month - 9, 1) };
        let year = 400 * era + year + later;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(f, "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02} UTC")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_holder_is_named_by_what_its_znode_shows() {
        let ours = Holder {
            host: Some("web-1".into()),
            pid: Some(17),
            session: Some(SessionId(0x1a)),
            since_ms: 1_790_000_000_123,
        };
        assert_eq!(
            ours.to_string(),
            "process 17 on host `web-1` since 2026-09-21 14:13:20 UTC, session 0x1a"
        );
        let python = Holder { host: None, pid: None, ..ours.clone() };
        assert_eq!(python.to_string(), "another process since 2026-09-21 14:13:20 UTC, session 0x1a");
        let persistent = Holder { session: None, ..ours };
        assert!(persistent.to_string().ends_with("with a persistent znode: delete it"), "{persistent}");
    }

    #[test]
    fn a_time_is_shown_in_utc_whatever_the_year() {
        let cases = [
            (0, "1970-01-01 00:00:00 UTC"),
            (951_782_400_000, "2000-02-29 00:00:00 UTC"),
            (951_868_800_000, "2000-03-01 00:00:00 UTC"),
            (1_709_251_199_999, "2024-02-29 23:59:59 UTC"),
            (1_735_689_599_000, "2024-12-31 23:59:59 UTC"),
            (4_107_542_400_000, "2100-03-01 00:00:00 UTC"),
            (-1000, "1969-12-31 23:59:59 UTC"),
        ];
        for (ms, text) in cases {
            assert_eq!(Utc(ms).to_string(), text);
        }
    }
}
