//! Delays between attempts: exponential, capped, jittered.
//!
//! The `backon` crate gives the growth only. The jitter is ours: a factor in `[0.5, 1]`, which never lifts a delay
//! above the cap. The dice are passed in.

use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};

/// A growing delay. See the module documentation.
#[derive(Debug)]
pub(crate) struct Backoff {
    settings: ExponentialBuilder,
    growth: ExponentialBackoff,
    cap: Duration,
}

impl Backoff {
    /// Starts at `initial` and doubles up to `cap`.
    pub(crate) fn new(initial: Duration, cap: Duration) -> Self {
        let settings = ExponentialBuilder::new()
            .with_min_delay(initial.min(cap))
            .with_max_delay(cap)
            .with_factor(2.0)
            .without_max_times();
        Backoff { settings, growth: settings.build(), cap }
    }

    /// The delay before the next attempt. `dice` is a uniform number in `[0, 1]`.
    pub(crate) fn next_delay(&mut self, dice: f64) -> Duration {
        let full = self.growth.next().unwrap_or(self.cap);
        full.mul_f64(0.5 + 0.5 * dice.clamp(0.0, 1.0))
    }

    /// Starts again at the initial delay: call it after a success.
    pub(crate) fn reset(&mut self) {
        self.growth = self.settings.build();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Rounded, because floating point may be a nanosecond off in either direction.
    fn millis(delay: Duration) -> u64 {
        (delay.as_secs_f64() * 1000.0).round() as u64
    }

    #[test]
    fn delays_double_up_to_the_cap_and_start_again_after_a_success() {
        let mut backoff = Backoff::new(SECOND, 30 * SECOND);
        let delays: Vec<_> = (0..7).map(|_| millis(backoff.next_delay(1.0))).collect();
        assert_eq!(delays, [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000]);
        backoff.reset();
        assert_eq!(millis(backoff.next_delay(1.0)), 1000);
    }

    #[test]
    fn jitter_takes_up_to_half_and_never_exceeds_the_cap() {
        for dice in [0.0, 0.3, 1.0, 7.0] {
            let mut backoff = Backoff::new(SECOND, 5 * SECOND);
            for _ in 0..2000 {
                let delay = backoff.next_delay(dice);
                assert!(delay >= SECOND / 2 && delay <= 5 * SECOND, "{delay:?} with dice {dice}");
            }
        }
    }
}
