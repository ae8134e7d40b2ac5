// Pure: no runtime, no clock, no socket, no random numbers.

//! Until when a session certainly lives.
//!
//! The leader ends a session no earlier than its timeout `T` after the last report about its client. A heartbeat that
//! was sent at `s` and confirmed shows that the session lived at `s`. It does not show that the leader started to
//! measure `T` again: a follower reports its clients to the leader only once per server tick. The newest heartbeat `b`
//! that was confirmed at least one tick before `s` was certainly reported by then. (It may have been sent long before it
//! was confirmed, and have reached the follower only then.) Hence
//!
//! ```text
//! deadline = min(s + heartbeat_validity, b + T - margin)
//! ```
//!
//! After an outage, `b` is old: with the first heartbeat after it, the deadline may lie a moment ahead, and would pass
//! again before a newer heartbeat can take the place of `b`. So a deadline that has passed moves only if it will not
//! pass again for that reason.

use std::{collections::VecDeque, time::Duration};

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
    /// Heartbeats that are newer than the anchor and were not confirmed one tick ago, oldest first: when each was sent and
    /// confirmed.
    young: VecDeque<(Moment, Moment)>,
    /// The deadline that holds.
    moment: Moment,
}

impl Deadline {
    /// For a session that was asked for at `sent` and opened at `now`.
    pub(crate) fn new(timing: Timing, sent: Moment, now: Moment) -> Self {
        let mut deadline =
            Deadline { timing, anchor: sent, newest: sent, young: VecDeque::new(), moment: sent };
        // The first heartbeat is sent now, and is confirmed one interval later at the latest.
        if deadline.outlasts_the_anchor(now, timing.heartbeat)
            && deadline.computed() >= now + timing.heartbeat
        {
            deadline.moment = deadline.computed();
        }
        deadline
    }

    /// Notes that a heartbeat was sent at `sent` and is confirmed `now`, and returns the deadline.
    pub(crate) fn confirm(&mut self, sent: Moment, now: Moment) -> Moment {
        let computed = self.note(sent, now);
        if now < self.moment || self.lasts(self.timing.heartbeat) {
            self.moment = computed;
        }
        self.moment
    }

    /// Notes that a heartbeat was sent at `sent` and is confirmed `now`, and returns until when the session certainly
    /// lives: the formula alone, also if that passes again soon.
    pub(crate) fn note(&mut self, sent: Moment, now: Moment) -> Moment {
        if sent > self.newest {
            self.newest = sent;
            self.young.push_back((sent, now));
            while let Some((b, confirmed)) = self.young.front().copied()
                && sent.saturating_since(confirmed) >= self.timing.server_tick
            {
                self.anchor = self.anchor.max(b);
                self.young.pop_front();
            }
        }
        self.computed()
    }

    /// Notes that the leader certainly knows that the session lived at `moment`.
    pub(crate) fn report(&mut self, moment: Moment) {
        self.anchor = self.anchor.max(moment);
    }

    /// Whether a deadline that has passed would not pass again for the reason that the anchor is old. `interval`: from
    /// one heartbeat to the next.
    pub(crate) fn lasts(&self, interval: Duration) -> bool {
        let next = self.young.front().map_or(self.newest, |(_, confirmed)| *confirmed);
        self.outlasts_the_anchor(next, interval)
    }

    /// A moment of which the leader certainly knows that the session lived.
    pub(crate) fn reported(&self) -> Moment {
        self.anchor
    }

    /// The current deadline.
    pub(crate) fn moment(&self) -> Moment {
        self.moment
    }

    fn computed(&self) -> Moment {
        (self.newest + self.timing.heartbeat_validity).min(self.by_server())
    }

    /// How long the server keeps the session at least, less the margin.
    fn by_server(&self) -> Moment {
        self.anchor + self.timing.timeout.saturating_sub(self.timing.margin)
    }

    /// Whether the anchor lasts until the heartbeat that is sent at `next` takes its place: that is when another one is
    /// confirmed that is sent a tick later. One interval passes at most until that is sent, and another one until it is
    /// confirmed.
    fn outlasts_the_anchor(&self, next: Moment, interval: Duration) -> bool {
        self.by_server() >= next + self.timing.server_tick + interval + interval
    }
}

#[cfg(test)]
mod tests {
    use super::{super::timing::Wanted, *};

    fn at(seconds: f64) -> Moment {
        Moment::from_origin(Duration::from_secs_f64(seconds))
    }

    const SECOND: Duration = Duration::from_secs(1);

    fn defaults() -> Timing {
        of(10)
    }

    /// The default timing of a session with a timeout of so many seconds.
    fn of(timeout: u32) -> Timing {
        let wanted =
            Wanted { heartbeat: None, heartbeat_validity: None, margin: None, server_tick: 2 * SECOND };
        Timing::fit(&wanted, timeout * SECOND).unwrap()
    }

    /// Each heartbeat is confirmed at once.
    fn confirm(deadline: &mut Deadline, sent: f64) -> Moment {
        deadline.confirm(at(sent), at(sent))
    }

    #[test]
    fn a_new_session_is_valid_for_one_heartbeat_validity_from_the_moment_it_was_asked_for() {
        assert_eq!(Deadline::new(defaults(), at(100.0), at(100.1)).moment(), at(105.0));
    }

    #[test]
    fn each_confirmed_heartbeat_extends_it_from_its_sending() {
        let mut deadline = Deadline::new(defaults(), at(100.0), at(100.0));
        assert_eq!(confirm(&mut deadline, 101.0), at(106.0));
        assert_eq!(confirm(&mut deadline, 102.0), at(107.0));
        assert_eq!(
            deadline.confirm(at(101.5), at(102.1)),
            at(107.0),
            "an older confirmation does not move it back"
        );
    }

    #[test]
    fn the_anchor_is_the_newest_heartbeat_at_least_one_tick_older() {
        let long_validity = Timing { heartbeat_validity: Duration::from_secs(60), ..defaults() };
        let mut deadline = Deadline::new(long_validity, at(100.0), at(100.0));
        assert_eq!(deadline.moment(), at(109.0), "anchored at the request for the session");
        assert_eq!(
            confirm(&mut deadline, 101.0),
            at(109.0),
            "the first heartbeat may not have reached the leader"
        );
        assert_eq!(confirm(&mut deadline, 102.9), at(109.0), "101 is not yet a tick older than 102.9");
        assert_eq!(confirm(&mut deadline, 103.0), at(110.0), "anchored at 101");
        assert_eq!(confirm(&mut deadline, 109.0), at(112.0), "anchored at 103, the one before");
    }

    #[test]
    fn the_deadline_comes_before_the_server_can_end_the_session() {
        let mut deadline = Deadline::new(defaults(), at(0.0), at(0.0));
        for number in 1..100 {
            let sent = at(f64::from(number) * 1.3);
            let moment = deadline.confirm(sent, sent);
            // In the worst case the leader started to measure the timeout one tick before the heartbeat was sent.
            assert!(moment <= (sent - Duration::from_secs(2)) + Duration::from_secs(10));
        }
    }

    #[test]
    fn once_passed_it_moves_only_if_it_will_not_pass_again_before_the_next_heartbeat_counts() {
        for outage in (10..95).map(|tenths| f64::from(tenths) / 10.0) {
            let mut deadline = Deadline::new(defaults(), at(0.0), at(0.0));
            for second in 1..=100 {
                confirm(&mut deadline, f64::from(second));
            }
            let end = 100.0 + outage;
            let mut was_valid = end < 105.0;
            let mut revived = None;
            for beat in 0..8 {
                let sent = at(end + f64::from(beat));
                assert!(!was_valid || sent < deadline.moment(), "{outage}: it has passed again");
                let moment = deadline.confirm(sent, sent);
                was_valid |= sent < moment;
                revived = revived.or(was_valid.then_some(beat));
            }
            assert!(revived.is_some_and(|beat| beat <= 2), "{outage}: {revived:?}");
        }
    }

    /// A server that dies right after the last heartbeat, and has reported its clients once a tick until then. The leader
    /// ends the session at this moment at the earliest, over all moments at which those reports may have been sent.
    fn earliest_expiry(timing: Timing, heartbeats: &[Moment]) -> Moment {
        let last = heartbeats[heartbeats.len() - 1];
        let tick = timing.server_tick;
        let steps = tick.as_millis() as u32 / 50;
        let of_phase = |phase: u32| {
            let reports = (0..20).map(|number| last - phase * Duration::from_millis(50) - number * tick);
            let shows = |report: &Moment| {
                heartbeats.iter().any(|sent| sent <= report && report.saturating_since(*sent) < tick)
            };
            // The leader itself has opened the session.
            reports.into_iter().find(shows).unwrap_or(heartbeats[0]) + timing.timeout
        };
        (0..steps).map(of_phase).min().expect("there are phases")
    }

    #[test]
    fn with_the_default_settings_a_share_is_empty_a_second_before_the_session_can_end_after_every_outage() {
        let timing = defaults();
        let mut shortest = Duration::MAX;
        for outage in (0..9950).step_by(50).map(Duration::from_millis) {
            let mut deadline = Deadline::new(timing, at(80.0), at(80.0));
            let mut heartbeats = vec![at(80.0)];
            let confirm = |sent: Moment, deadline: &mut Deadline, heartbeats: &mut Vec<Moment>| {
                heartbeats.push(sent);
                let until = deadline.confirm(sent, sent);
                let expiry = earliest_expiry(timing, heartbeats);
                (until > sent).then(|| expiry.saturating_since(until))
            };
            for second in 81..=100 {
                confirm(at(f64::from(second)), &mut deadline, &mut heartbeats);
            }
            // The next outage may begin after each of these.
            for number in 0..6 {
                let sent = at(100.0) + outage + number * SECOND;
                let distance = confirm(sent, &mut deadline, &mut heartbeats);
                shortest = shortest.min(distance.unwrap_or(shortest));
            }
        }
        assert!(shortest >= SECOND, "{shortest:?}");
        assert!(
            shortest < SECOND + Duration::from_millis(100),
            "the distance that is documented: {shortest:?}"
        );
    }

    /// As that of a large group.
    #[test]
    fn a_deadline_that_has_passed_lasts_for_long_intervals_as_well_once_it_moves() {
        let (timing, interval) = (of(30), 5 * SECOND);
        for outage in (5..285).map(|tenths| tenths * Duration::from_millis(100)) {
            let mut deadline = Deadline::new(timing, at(0.0), at(0.0));
            let mut sent = at(0.0);
            for _ in 0..20 {
                sent = sent + interval;
                deadline.note(sent, sent);
            }
            let mut until = deadline.note(sent, sent);
            sent = sent + outage;
            let (mut was_valid, mut revived) = (sent < until, None);
            for beat in 0..8 {
                assert!(!was_valid || sent < until, "{outage:?}: it has passed again");
                let next = deadline.note(sent, sent);
                if was_valid || deadline.lasts(interval) {
                    (until, was_valid) = (next, true);
                    revived = revived.or(Some(beat));
                }
                sent = sent + interval;
            }
            assert!(revived.is_some_and(|beat| beat <= 2), "{outage:?}: {revived:?}");
        }
    }

    #[test]
    fn a_session_whose_opening_took_too_long_waits_for_a_heartbeat_that_counts() {
        for (took, is_valid) in [(0.1, true), (3.9, true), (4.1, false), (9.0, false)] {
            let opened = at(100.0 + took);
            let deadline = Deadline::new(defaults(), at(100.0), opened);
            assert_eq!(opened < deadline.moment(), is_valid, "{took} s");
        }
        let mut deadline = Deadline::new(defaults(), at(100.0), at(109.0));
        assert!(confirm(&mut deadline, 109.0) < at(109.0), "the anchor would be over half a second later");
        assert!(confirm(&mut deadline, 110.0) < at(110.0));
        assert_eq!(confirm(&mut deadline, 111.0), at(116.0));
    }
}
