// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Debounce`]: delays what watches cause, so that many quick changes cause few lists.

use std::time::Duration;

use crate::clock::Moment;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Debounce {
    delay: Duration,
    last: Moment,
}

impl Debounce {
    const FIRST: Duration = Duration::from_millis(50);
    const MOST: Duration = Duration::from_secs(1);

    pub(super) fn delay(&mut self, now: Moment, random: f64) -> Duration {
        // While there are many changes, the watch that each list sets fires at once, about one delay after the last
        // time.
        let is_calm = now.saturating_since(self.last) > (4 * self.delay).min(2 * Debounce::MOST);
        self.delay = if is_calm { Debounce::FIRST } else { (self.delay * 2).min(Debounce::MOST) };
        self.last = now;
        // The watches of all members fire at the same time; the jitter spreads their lists.
        self.delay.mul_f64(0.5 + 0.5 * random)
    }
}

impl Default for Debounce {
    fn default() -> Self {
        Debounce { delay: Debounce::FIRST, last: Moment::default() }
    }
}
