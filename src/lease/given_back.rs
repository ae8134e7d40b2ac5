// Pure: no runtime, no clock, no socket, no random numbers.

//! [`GivenBack`]: how the holder of a lease gives the thing back for another attempt.

use std::time::Duration;

use crate::backoff::Pauses;

/// How much of a reason is kept, in characters.
const MOST_OF_A_REASON: usize = 1000;

/// What is kept of a reason.
pub(crate) fn kept(reason: &str) -> &str {
    &reason[..reason.char_indices().nth(MOST_OF_A_REASON).map_or(reason.len(), |(at, _)| at)]
}

/// See the module documentation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct GivenBack {
    /// The pause; `None`: the usual one, which grows with each attempt.
    pub(crate) after: Option<Duration>,
    /// Why the attempt has failed.
    pub(crate) reason: Option<String>,
    /// Whether it does not count as an attempt.
    pub(crate) is_uncounted: bool,
}

impl GivenBack {
    /// At once, and without counting.
    pub(crate) fn uncounted() -> Self {
        GivenBack { is_uncounted: true, ..GivenBack::default() }
    }

    /// After the usual pause, with this reason.
    pub(crate) fn because(reason: &str) -> Self {
        GivenBack { reason: Some(reason.into()), ..GivenBack::default() }
    }

    /// How many attempts count then, of so many with this one, and the pause. `random` is a uniform number in `[0, 1]`.
    pub(crate) fn attempts_and_pause(&self, attempt: u32, pauses: Pauses, random: f64) -> (u32, Duration) {
        let attempts = if self.is_uncounted { attempt.saturating_sub(1) } else { attempt };
        let usual = if self.is_uncounted { Duration::ZERO } else { pauses.after(attempts, random) };
        (attempts, self.after.unwrap_or(usual))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_does_not_count_has_no_pause_unless_the_caller_sets_one() {
        let pauses = Pauses { first: SECOND, longest: 300 * SECOND };
        let back = |how: GivenBack| how.attempts_and_pause(3, pauses, 1.0);
        assert_eq!(back(GivenBack::default()), (3, 4 * SECOND));
        assert_eq!(back(GivenBack::uncounted()), (2, Duration::ZERO));
        assert_eq!(back(GivenBack::because("x")), (3, 4 * SECOND));
        let after = Some(9 * SECOND);
        assert_eq!(back(GivenBack { after, ..GivenBack::default() }), (3, 9 * SECOND));
        assert_eq!(back(GivenBack { after, ..GivenBack::uncounted() }), (2, 9 * SECOND));
    }
}
