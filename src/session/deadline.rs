// Pure: no runtime, no clock, no socket, no random numbers.

//! Until when a session certainly lives.
//!
//! The leader ends a session no earlier than its timeout `T` after the last report about its client. A heartbeat that
//! was sent at `s` and confirmed shows that the session lived at `s`. It does not show that the leader started to
//! measure `T` again: a follower reports its clients to the leader only once per server tick. The newest confirmed
//! heartbeat `b` that is at least one tick older than `s` was certainly reported by then. Hence
//!
//! ```text
//! deadline = min(s + heartbeat_validity, b + T - margin)
//! ```

use std::collections::VecDeque;

use super::timing::Timing;
use crate::clock::Moment;

/// Computes the deadline of one session from its confirmed heartbeats.
#[derive(Clone, Debug)]
pub(crate) struct Deadline {
    timing: Timing,
    /// `b` of the formula. At first it is when the session was asked for: the leader cannot have measured `T` before.
    anchor: Moment,
    /// `s` of the formula.
    newest: Moment,
    /// Confirmed heartbeats that are newer than the anchor and not one tick old yet, oldest first.
    young: VecDeque<Moment>,
}

impl Deadline {
    /// For a session that was asked for at `sent`.
    pub(crate) fn new(timing: Timing, sent: Moment) -> Self {
        Deadline { timing, anchor: sent, newest: sent, young: VecDeque::new() }
    }

    /// Notes that a heartbeat was sent at `sent` and confirmed, and returns the new deadline.
    pub(crate) fn confirm(&mut self, sent: Moment) -> Moment {
        if sent > self.newest {
            self.newest = sent;
            self.young.push_back(sent);
            while self.young.front().is_some_and(|&b| sent.saturating_since(b) >= self.timing.server_tick) {
                self.anchor = self.young.pop_front().unwrap_or(self.anchor);
            }
        }
        self.moment()
    }

    /// The current deadline.
    pub(crate) fn moment(&self) -> Moment {
        let by_heartbeat = self.newest + self.timing.heartbeat_validity;
        let by_server = self.anchor + self.timing.timeout.saturating_sub(self.timing.margin);
        by_heartbeat.min(by_server)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(seconds: f64) -> Moment {
        Moment::from_origin(Duration::from_secs_f64(seconds))
    }

    fn defaults() -> Timing {
        let seconds = Duration::from_secs_f64;
        Timing {
            timeout: seconds(10.0),
            heartbeat: seconds(1.0),
            heartbeat_validity: seconds(5.0),
            margin: seconds(0.5),
            server_tick: seconds(2.0),
        }
    }

    #[test]
    fn a_new_session_is_valid_for_one_heartbeat_validity_from_the_moment_it_was_asked_for() {
        assert_eq!(Deadline::new(defaults(), at(100.0)).moment(), at(105.0));
    }

    #[test]
    fn each_confirmed_heartbeat_extends_it_from_its_sending() {
        let mut deadline = Deadline::new(defaults(), at(100.0));
        assert_eq!(deadline.confirm(at(101.0)), at(106.0));
        assert_eq!(deadline.confirm(at(102.0)), at(107.0));
        assert_eq!(deadline.confirm(at(101.5)), at(107.0), "an older confirmation does not move it back");
    }

    #[test]
    fn the_anchor_is_the_newest_heartbeat_at_least_one_tick_older() {
        let long_validity = Timing { heartbeat_validity: Duration::from_secs(60), ..defaults() };
        let mut deadline = Deadline::new(long_validity, at(100.0));
        assert_eq!(deadline.moment(), at(109.5), "anchored at the request for the session");
        assert_eq!(
            deadline.confirm(at(101.0)),
            at(109.5),
            "the first heartbeat may not have reached the leader"
        );
        assert_eq!(deadline.confirm(at(102.9)), at(109.5), "101 is not yet a tick older than 102.9");
        assert_eq!(deadline.confirm(at(103.0)), at(110.5), "anchored at 101");
        assert_eq!(deadline.confirm(at(120.0)), at(112.5), "anchored at 103, the one before");
    }

    #[test]
    fn the_deadline_comes_before_the_server_can_end_the_session() {
        let mut deadline = Deadline::new(defaults(), at(0.0));
        for number in 1..100 {
            let sent = at(f64::from(number) * 1.3);
            let moment = deadline.confirm(sent);
            // In the worst case the leader started to measure the timeout one tick before the heartbeat was sent.
            assert!(moment <= (sent - Duration::from_secs(2)) + Duration::from_secs(10));
        }
    }
}
