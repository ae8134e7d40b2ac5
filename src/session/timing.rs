// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Timing`]: how often heartbeats are sent, and for how long a confirmed one lets members act.
//!
//! A member stops acting before the server can expire its session, by its own clock alone. A heartbeat that was sent at
//! `s` and confirmed allows it to act until `min(s + heartbeat_validity, b + timeout - margin)`. Here `b` is when the
//! newest confirmed heartbeat was sent that is at least one server tick older than `s`; [`deadline`](super::deadline)
//! has the reason.

use std::time::Duration;

/// The durations of a session. They fit each other.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct Timing {
    /// The session timeout that the server granted.
    pub(crate) timeout: Duration,
    /// The time from one heartbeat to the next.
    pub(crate) heartbeat: Duration,
    /// For how long a confirmed heartbeat lets members act, counted from when it was sent.
    pub(crate) heartbeat_validity: Duration,
    /// How long before a possible expiry members stop.
    pub(crate) margin: Duration,
    /// The `tickTime` of the servers.
    pub(crate) server_tick: Duration,
}

/// The durations of the configuration. `None` means that the value is derived from the session timeout.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Wanted {
    /// From one heartbeat to the next. Derived: a tenth of the timeout, at most a second.
    pub(crate) heartbeat: Option<Duration>,
    /// Derived: half the timeout, or as much of it as fits.
    pub(crate) heartbeat_validity: Option<Duration>,
    /// Derived: a tenth of the timeout, or as much of it as fits, at least a twentieth.
    pub(crate) margin: Option<Duration>,
    /// The `tickTime` of the servers, which a client cannot read.
    pub(crate) server_tick: Duration,
}

/// Why heartbeat, heartbeat validity and margin do not fit the session timeout that the server granted.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TimingError {
    /// The session timeout is too short for the heartbeats.
    #[error(
        "a session timeout of {timeout:?} has no room for five heartbeats of {heartbeat:?} and a server tick of \
         {server_tick:?}: raise session_timeout to {needed:?}, or set server_tick to the tickTime of the \
         servers if that is shorter"
    )]
    Timeout {
        /// The session timeout that was granted.
        timeout: Duration,
        /// The time from one heartbeat to the next.
        heartbeat: Duration,
        /// The `tickTime` of the servers, as configured.
        server_tick: Duration,
        /// The shortest session timeout that fits.
        needed: Duration,
    },
    /// The heartbeat validity is too short or too long.
    #[error(
        "a heartbeat_validity of {heartbeat_validity:?} (URL option `lease`) does not fit a session timeout of \
         {timeout:?}: set it between {least:?} (three heartbeats) and {most:?} (two heartbeats and a server tick before \
         the session can expire)"
    )]
    HeartbeatValidity {
        /// The heartbeat validity that was configured.
        heartbeat_validity: Duration,
        /// The session timeout that was granted.
        timeout: Duration,
        /// The shortest heartbeat validity that fits.
        least: Duration,
        /// The longest heartbeat validity that fits.
        most: Duration,
    },
    /// The margin leaves too little time to act, or is less than two clocks may differ by.
    #[error(
        "a margin of {margin:?} does not fit a session timeout of {timeout:?}: set it between {least:?} and {most:?}"
    )]
    Margin {
        /// The margin, configured or derived.
        margin: Duration,
        /// The session timeout that was granted.
        timeout: Duration,
        /// The shortest margin that fits: 0.2 % of the timeout.
        least: Duration,
        /// The longest margin that fits.
        most: Duration,
    },
}

impl Timing {
    /// The shortest margin is this part of the timeout: each of two clocks may run wrong by a thousandth.
    const MARGIN_PART: u32 = 500;
    /// The longest heartbeat that is derived.
    const HEARTBEAT_AT_MOST: Duration = Duration::from_secs(1);

    /// Fits `wanted` to the session `timeout` that the server granted.
    ///
    /// # Errors
    ///
    /// [`TimingError`] unless `3 * heartbeat <= heartbeat_validity <= timeout - 2 * heartbeat - server_tick`, and the
    /// margin leaves as much.
    pub(crate) fn fit(wanted: &Wanted, timeout: Duration) -> Result<Timing, TimingError> {
        let server_tick = wanted.server_tick;
        let heartbeat = wanted.heartbeat.unwrap_or((timeout / 10).min(Timing::HEARTBEAT_AT_MOST));

        let least = heartbeat.saturating_mul(3);
        let most = timeout.saturating_sub(heartbeat.saturating_mul(2)).saturating_sub(server_tick);
        if least > most {
            let needed = match wanted.heartbeat {
                // The derived heartbeat grows with the timeout, up to its cap: five of them are half the timeout.
                None => server_tick
                    .saturating_mul(2)
                    .min(server_tick.saturating_add(Timing::HEARTBEAT_AT_MOST * 5)),
                Some(heartbeat) => server_tick.saturating_add(heartbeat.saturating_mul(5)),
            };
            return Err(TimingError::Timeout { timeout, heartbeat, server_tick, needed });
        }
        let heartbeat_validity = wanted.heartbeat_validity.unwrap_or((timeout / 2).clamp(least, most));
        if heartbeat_validity < least || heartbeat_validity > most {
            return Err(TimingError::HeartbeatValidity { heartbeat_validity, timeout, least, most });
        }

        // Heartbeat `b` can be one interval older than a tick, and three more have to fit after it.
        let most = timeout.saturating_sub(heartbeat.saturating_mul(4)).saturating_sub(server_tick);
        let margin = wanted.margin.unwrap_or((timeout / 10).min(most).max(timeout / 20));
        let least = timeout / Timing::MARGIN_PART;
        if margin < least || margin > most {
            return Err(TimingError::Margin { margin, timeout, least, most });
        }
        Ok(Timing { timeout, heartbeat, heartbeat_validity, margin, server_tick })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const DERIVED: Wanted = Wanted {
        heartbeat: None,
        heartbeat_validity: None,
        margin: None,
        server_tick: Duration::from_secs(2),
    };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_defaults_are_those_of_the_protocol() {
        let timing = Timing::fit(&DERIVED, ms(10_000)).unwrap();
        assert_eq!(
            (timing.heartbeat, timing.heartbeat_validity, timing.margin),
            (ms(1000), ms(5000), ms(1000))
        );
        let long = Timing::fit(&DERIVED, ms(60_000)).unwrap();
        assert_eq!((long.heartbeat, long.heartbeat_validity, long.margin), (ms(1000), ms(30_000), ms(6000)));
    }

    #[test]
    fn the_shortest_timeout_that_a_default_server_grants_still_fits() {
        let timing = Timing::fit(&DERIVED, ms(4000)).unwrap();
        assert_eq!(
            (timing.heartbeat, timing.heartbeat_validity, timing.margin),
            (ms(400), ms(1200), ms(400))
        );
        let fast = Wanted { server_tick: ms(100), ..DERIVED };
        let timing = Timing::fit(&fast, ms(1000)).unwrap();
        assert_eq!((timing.heartbeat, timing.heartbeat_validity), (ms(100), ms(500)));
    }

    #[test]
    fn a_timeout_without_room_names_the_tick_and_what_would_fit() {
        let error = Timing::fit(&DERIVED, ms(3000)).unwrap_err();
        assert!(matches!(error, TimingError::Timeout { needed, .. } if needed == ms(4000)), "{error}");
        assert!(error.to_string().contains("server_tick"), "{error}");

        let slow = Wanted { heartbeat: Some(ms(3000)), ..DERIVED };
        let error = Timing::fit(&slow, ms(10_000)).unwrap_err();
        assert!(matches!(error, TimingError::Timeout { needed, .. } if needed == ms(17_000)), "{error}");
        assert!(Timing::fit(&slow, ms(17_000)).is_ok());
    }

    #[test]
    fn a_heartbeat_validity_holds_three_heartbeats_and_ends_two_heartbeats_and_a_tick_before_expiry() {
        for (heartbeat_validity, fits) in [(2999, false), (3000, true), (6000, true), (6001, false)] {
            let wanted = Wanted { heartbeat_validity: Some(ms(heartbeat_validity)), ..DERIVED };
            let result = Timing::fit(&wanted, ms(10_000));
            assert_eq!(result.is_ok(), fits, "heartbeat_validity {heartbeat_validity} ms: {result:?}");
        }
    }

    #[test]
    fn a_heartbeat_validity_that_was_right_for_the_requested_timeout_is_refused_for_a_shorter_granted_one() {
        let wanted = Wanted { heartbeat_validity: Some(ms(12_000)), heartbeat: Some(ms(3000)), ..DERIVED };
        assert!(Timing::fit(&wanted, ms(30_000)).is_ok());
        let error = Timing::fit(&wanted, ms(18_000)).unwrap_err();
        assert!(
            matches!(error, TimingError::HeartbeatValidity { most, .. } if most == ms(10_000)),
            "{error}"
        );
    }

    #[test]
    fn a_margin_must_leave_time_to_act_and_is_more_than_two_clocks_may_differ_by() {
        for (margin, fits) in [(1, false), (19, false), (20, true), (4000, true), (4001, false)] {
            let wanted = Wanted { margin: Some(ms(margin)), ..DERIVED };
            let result = Timing::fit(&wanted, ms(10_000));
            assert_eq!(result.is_ok(), fits, "margin {margin} ms: {result:?}");
        }
    }

    fn durations() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (0_u64..20_000).prop_map(ms),
            any::<u64>().prop_map(Duration::from_nanos),
            Just(Duration::MAX)
        ]
    }

    proptest! {
        #[test]
        fn whatever_fits_keeps_the_rule_and_nothing_panics(
            timeout in durations(),
            server_tick in durations(),
            heartbeat in proptest::option::of(durations()),
            heartbeat_validity in proptest::option::of(durations()),
            margin in proptest::option::of(durations()),
        ) {
            let wanted = Wanted { heartbeat, heartbeat_validity, margin, server_tick };
            match Timing::fit(&wanted, timeout) {
                Ok(t) => {
                    prop_assert!(t.heartbeat * 3 <= t.heartbeat_validity);
                    prop_assert!(t.heartbeat_validity + t.heartbeat * 2 + server_tick <= timeout);
                    prop_assert!(server_tick + t.heartbeat * 4 + t.margin <= timeout);
                    prop_assert!(t.margin >= timeout / 500);
                }
                Err(TimingError::Timeout { needed, .. }) => {
                    let roomy = Wanted { heartbeat_validity: None, margin: None, ..wanted };
                    let fitted = Timing::fit(&roomy, needed.saturating_add(Duration::from_nanos(10)));
                    let fits = !matches!(fitted, Err(TimingError::Timeout { .. }));
                    prop_assert!(fits || needed > Duration::from_secs(1 << 62), "{fitted:?}");
                }
                Err(error) => prop_assert!(!error.to_string().is_empty()),
            }
        }
    }
}
