// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Rate`]: how many tasks may start in a second.

use std::{num::NonZeroU32, time::Duration};

use crate::clock::Moment;

/// Spaces starts evenly, where as many may come at once as have a tenth of a second together.
#[derive(Debug)]
pub(super) struct Rate {
    interval: Duration,
    /// When the next start would come if all were spaced evenly.
    next: Moment,
}

/// How early a start may come.
const AT_ONCE: Duration = Duration::from_millis(100);

impl Rate {
    /// At most so many starts in a second; `None`: as many as there are.
    pub(super) fn new(per_second: Option<NonZeroU32>) -> Self {
        let interval = per_second.map_or(Duration::ZERO, |most| Duration::from_secs(1) / most.get());
        Rate { interval, next: Moment::default() }
    }

    /// When the next start may come; in the past if it may come now.
    pub(super) fn ready(&self) -> Moment {
        self.next - AT_ONCE
    }

    /// Takes the turn of a start, if one may come now.
    pub(super) fn take(&mut self, now: Moment) -> bool {
        let is_ready = self.ready() <= now;
        if is_ready {
            self.next = self.next.max(now) + self.interval;
        }
        is_ready
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Moment::from_origin(Duration::from_millis(3_600_000 + ms))
    }

    fn starts(rate: &mut Rate, now: Moment) -> usize {
        (0..10_000).take_while(|_| rate.take(now)).count()
    }

    #[test]
    fn a_tenth_of_a_second_of_starts_comes_at_once_and_the_rest_evenly() {
        let mut rate = Rate::new(NonZeroU32::new(1000));
        assert_eq!(starts(&mut rate, at(0)), 101);
        assert_eq!(rate.ready(), at(1));
        assert_eq!((starts(&mut rate, at(1)), starts(&mut rate, at(11))), (1, 10));
        assert_eq!(starts(&mut rate, at(60_000)), 101, "time without starts is not saved up");
        let mut slow = Rate::new(NonZeroU32::new(1));
        assert_eq!(
            (starts(&mut slow, at(0)), starts(&mut slow, at(899)), starts(&mut slow, at(900))),
            (1, 0, 1)
        );
    }

    #[test]
    fn without_a_rate_all_come_at_once() {
        let mut rate = Rate::new(None);
        assert_eq!(starts(&mut rate, at(0)), 10_000);
    }
}
