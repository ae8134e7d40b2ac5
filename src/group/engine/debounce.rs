// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Debounce`]: delays what watches cause, so that many quick changes cause few lists.

use std::time::Duration;

use crate::clock::Moment;

/// See the module documentation.
#[derive(Debug)]
pub(super) struct Debounce {
    delay: Duration,
    last: Moment,
    /// How long the last list took, with what was read after it.
    took: Duration,
}

impl Debounce {
    const FIRST: Duration = Duration::from_millis(50);
    const MOST: Duration = Duration::from_secs(1);
    /// If lists take long, the pause between two of them is so many times as long: the servers and the connection have to
    /// serve heartbeats, too.
    const PAUSE_FACTOR: u32 = 2;
    const LONGEST_PAUSE: Duration = Duration::from_secs(5);

    /// Takes note of a list.
    pub(super) fn listed(&mut self, took: Duration) {
        self.took = took;
    }

    pub(super) fn delay(&mut self, now: Moment, random: f64) -> Duration {
        // While there are many changes, the watch that each list sets fires at once, about one delay after the last
        // time.
        let quiet = (4 * self.delay).min(2 * Debounce::MOST).max(2 * self.busy());
        let is_calm = now.saturating_since(self.last) > quiet;
        self.delay = if is_calm { Debounce::FIRST } else { (self.delay * 2).min(Debounce::MOST) };
        self.last = now;
        let delay = if is_calm { self.delay } else { self.delay.max(self.busy()) };
        // The watches of all members fire at the same time; the jitter spreads their lists.
        delay.mul_f64(0.5 + 0.5 * random)
    }

    /// The pause that the last list is worth.
    fn busy(&self) -> Duration {
        self.took.saturating_mul(Debounce::PAUSE_FACTOR).min(Debounce::LONGEST_PAUSE)
    }
}

impl Default for Debounce {
    fn default() -> Self {
        Debounce { delay: Debounce::FIRST, last: Moment::default(), took: Duration::ZERO }
    }
}
