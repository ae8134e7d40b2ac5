// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Failure`]: why a piece of work was not done, and what is to become of it.

use std::{error::Error, fmt, time::Duration};

/// Why a piece of work was not done, and what is to become of it. A handler returns it as its error.
///
/// Any error, and any text, becomes one by `?` or `into()`: then the work is tried again after a pause, which grows with
/// each attempt.
///
/// ```
/// use apportion::run::Failure;
///
/// async fn resize(volume: &str) -> Result<(), Failure> {
///     let Some(number) = volume.strip_prefix("v-") else {
///         return Err(Failure::permanent(format!("`{volume}` is not a volume"))); // not tried again
///     };
///     let _number: u32 = number.parse()?; // tried again, as after any error
///     Ok(())
/// }
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub(super) reason: String,
    pub(super) remedy: Remedy,
}

/// What is to become of work that was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remedy {
    /// Another attempt, after this pause or the usual one.
    Again(Option<Duration>),
    /// No further attempt.
    Never,
    /// Another attempt, after this pause or a short one. This one does not count.
    Uncounted(Option<Duration>),
}

/// The shortest pause that a handler can choose.
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);

impl Failure {
    /// The work is tried again after the usual pause.
    pub fn new(reason: impl fmt::Display) -> Self {
        Failure { reason: reason.to_string(), remedy: Remedy::Again(None) }
    }

    /// The work is not tried again: a job goes to the trash and an entry to the dead letters, with the reason. A key that
    /// [`run_each`](crate::Group::run_each) has a task for gets no new one while this member keeps it.
    pub fn permanent(reason: impl fmt::Display) -> Self {
        Failure { reason: reason.to_string(), remedy: Remedy::Never }
    }

    /// The work was stopped before it was tried to the end, for instance because the process ends: it is tried again, and
    /// the attempt does not count. A job or an entry of a runner that ends is free for others at once, and that of another
    /// one after a second. A key that [`run_each`](crate::Group::run_each) has a task for gets the next one after the
    /// [first pause](crate::run::RunEach::pauses).
    pub fn interrupted(reason: impl fmt::Display) -> Self {
        Failure { reason: reason.to_string(), remedy: Remedy::Uncounted(None) }
    }

    /// With this pause instead of the usual one, if the work is tried again: at least 10 ms, so that what fails at once is
    /// not tried without an end.
    pub fn after(mut self, pause: Duration) -> Self {
        if let Remedy::Again(after) | Remedy::Uncounted(after) = &mut self.remedy {
            *after = Some(pause.max(SHORTEST_PAUSE));
        }
        self
    }

    /// What has gone wrong.
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Whether the work has not failed, but was stopped.
    pub(super) fn is_interrupted(&self) -> bool {
        matches!(self.remedy, Remedy::Uncounted(_))
    }

    /// What a panic of a handler is.
    pub(super) fn panicked(message: &str) -> Self {
        Failure::new(format!("it panicked: {message}"))
    }
}

/// The text of an error, with those of its sources.
impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for Failure {
    fn from(error: E) -> Self {
        let error = error.into();
        let mut reason = error.to_string();
        let mut source = error.source();
        while let Some(error) = source {
            let text = error.to_string();
            // Many errors repeat their source.
            if !reason.contains(&text) {
                reason = format!("{reason}: {text}");
            }
            source = error.source();
        }
        Failure::new(reason)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

/// What a task of [`run_each`](crate::Group::run_each) returns: nothing, or a result whose error is a [`Failure`] or
/// becomes one.
pub trait Outcome {
    /// The failure, if it is one.
    ///
    /// # Errors
    ///
    /// The failure.
    fn into_result(self) -> Result<(), Failure>;
}

impl Outcome for () {
    fn into_result(self) -> Result<(), Failure> {
        Ok(())
    }
}

impl<E: Into<Failure>> Outcome for Result<(), E> {
    fn into_result(self) -> Result<(), Failure> {
        self.map_err(Into::into)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot resize")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn any_error_is_a_failure_with_the_texts_of_its_sources() {
        let inner = "x".parse::<u8>().unwrap_err();
        let failure = Failure::from(Outer(inner));
        assert_eq!(failure.to_string(), "cannot resize: invalid digit found in string");
        assert_eq!(failure.remedy, Remedy::Again(None));
        assert_eq!(Err::<(), _>("text").into_result(), Err(Failure::new("text")));
        assert_eq!(().into_result(), Ok(()));
    }

    #[test]
    fn a_pause_is_for_what_is_tried_again() {
        let pause = Duration::from_secs(9);
        assert_eq!(Failure::new("x").after(pause).remedy, Remedy::Again(Some(pause)));
        assert_eq!(Failure::permanent("x").after(pause).remedy, Remedy::Never);
        assert_eq!(Failure::interrupted("x").after(pause).remedy, Remedy::Uncounted(Some(pause)));
        for failure in [Failure::interrupted("x"), Failure::new("x")] {
            let (Remedy::Again(after) | Remedy::Uncounted(after)) = failure.after(Duration::ZERO).remedy
            else {
                panic!()
            };
            assert_eq!(after, Some(SHORTEST_PAUSE), "never at once without an end");
        }
    }
}
