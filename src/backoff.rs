//! Delays between attempts: exponential, capped, jittered.
//!
//! The crate `backoff` computes the growth only. It applies its own randomization after its cap, and its maximum
//! elapsed time reads the real clock, so both are switched off. The jitter is a factor in `[0.5, 1]`, so a delay never
//! exceeds the cap. The caller passes the random numbers in.

use std::time::Duration;

use backoff::{ExponentialBackoff, ExponentialBackoffBuilder, backoff::Backoff as _};

/// A growing delay. See the module documentation.
#[derive(Debug)]
pub(crate) struct Backoff {
    growth: ExponentialBackoff,
    cap: Duration,
}

impl Backoff {
    /// Starts at `initial` and doubles up to `cap`.
    pub(crate) fn new(initial: Duration, cap: Duration) -> Self {
        let growth = ExponentialBackoffBuilder::new()
            .with_initial_interval(initial.min(cap))
            .with_max_interval(cap)
            .with_multiplier(2.0)
            .with_randomization_factor(0.0)
            .with_max_elapsed_time(None)
            .build();
        Backoff { growth, cap }
    }

    /// The delay before the next attempt. `random` is a uniform number in `[0, 1]`.
    pub(crate) fn next_delay(&mut self, random: f64) -> Duration {
        // Even without randomization the crate adds up to a nanosecond, also to the longest interval.
        let full = self.growth.next_backoff().unwrap_or(self.cap).min(self.cap);
        full.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }

    /// Starts again at the initial delay. For after a success.
    pub(crate) fn reset(&mut self) {
        self.growth.reset();
    }
}

/// The pauses after failed attempts at one thing, whichever process makes them: they double from the first to the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pauses {
    pub(crate) first: Duration,
    pub(crate) longest: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Pauses { first: Duration::from_secs(1), longest: Duration::from_secs(300) }
    }
}

impl Pauses {
    /// The pause after this many attempts. `random` is a uniform number in `[0, 1]`.
    pub(crate) fn after(self, attempts: u32, random: f64) -> Duration {
        let doubled = 2_u32.checked_pow(attempts.saturating_sub(1)).unwrap_or(u32::MAX);
        let full = self.first.saturating_mul(doubled).min(self.longest);
        full.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
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
        for random in [0.0, 0.3, 1.0, 7.0] {
            let mut backoff = Backoff::new(SECOND, 5 * SECOND);
            for _ in 0..2000 {
                let delay = backoff.next_delay(random);
                assert!(delay >= SECOND / 2 && delay <= 5 * SECOND, "{delay:?} with random {random}");
            }
        }
    }

    #[test]
    fn the_pauses_after_attempts_double_up_to_the_longest() {
        let pauses = Pauses { first: SECOND, longest: 300 * SECOND };
        let after: Vec<_> =
            [0, 1, 2, 3, 9, 10, 40].map(|attempts| pauses.after(attempts, 1.0).as_secs()).into();
        assert_eq!(after, [1, 1, 2, 4, 256, 300, 300]);
        assert_eq!(pauses.after(2, 0.0), SECOND);
        let none = Pauses { first: Duration::ZERO, longest: Duration::ZERO };
        assert_eq!(none.after(7, 1.0), Duration::ZERO);
    }
}
