// Pure: no runtime, no clock, no socket, no random numbers.

//! What becomes of a job or an entry when its handler has ended.

use std::time::Duration;

use super::failure::{Failure, Remedy};
use crate::lease::GivenBack;

/// How a handler has ended, if its lease was held until then.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Verdict<T> {
    Done(T),
    Failed(Failure),
    /// It was dropped at the end of the drain.
    Interrupted,
}

/// What becomes of the work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum End<T> {
    Done(T),
    /// Another attempt follows.
    Back(GivenBack),
    /// No attempt follows.
    GivenUp {
        reason: String,
    },
    /// It has had its last attempt before, and its worker has died with it.
    Overdue,
}

/// The pause after an attempt that does not count, unless the runner ends: it would get the work again at once, before all
/// other.
const UNCOUNTED: Duration = Duration::from_secs(1);

/// What becomes of work whose handler has ended in this attempt, of so many. `is_stopping`: the runner takes no more work.
pub(super) fn plan<T>(
    verdict: Verdict<T>,
    attempt: u32,
    max_attempts: Option<u32>,
    is_stopping: bool,
) -> End<T> {
    match verdict {
        Verdict::Done(output) => End::Done(output),
        Verdict::Interrupted => End::Back(GivenBack::uncounted()),
        Verdict::Failed(Failure { reason, remedy }) => match remedy {
            Remedy::Uncounted(after) => {
                let after = after.or_else(|| (!is_stopping).then_some(UNCOUNTED));
                End::Back(GivenBack { after, reason: Some(reason), ..GivenBack::uncounted() })
            }
            Remedy::Never => End::GivenUp { reason },
            Remedy::Again(_) if max_attempts.is_some_and(|max| attempt >= max) => End::GivenUp { reason },
            Remedy::Again(after) => End::Back(GivenBack { after, ..GivenBack::because(&reason) }),
        },
    }
}

/// Whether it has had its last attempt before this one.
pub(super) fn is_overdue(attempt: u32, max_attempts: Option<u32>) -> bool {
    max_attempts.is_some_and(|max| attempt > max)
}

/// The smaller of two limits.
pub(super) fn smaller(one: Option<u32>, other: Option<u32>) -> Option<u32> {
    [one, other].into_iter().flatten().min()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan<T>(verdict: Verdict<T>, attempt: u32, max_attempts: Option<u32>) -> End<T> {
        super::plan(verdict, attempt, max_attempts, false)
    }

    fn failed(failure: Failure) -> Verdict<()> {
        Verdict::Failed(failure)
    }

    #[test]
    fn what_fails_is_tried_again_until_its_last_attempt() {
        let back = |attempt| plan(failed(Failure::new("x")), attempt, Some(3));
        assert_eq!(
            (back(1), back(2)),
            (End::Back(GivenBack::because("x")), End::Back(GivenBack::because("x")))
        );
        assert_eq!(back(3), End::GivenUp { reason: "x".into() });
        assert_eq!(plan(failed(Failure::new("x")), 1000, None), End::Back(GivenBack::because("x")));
        assert_eq!(
            (is_overdue(3, Some(3)), is_overdue(4, Some(3)), is_overdue(4, None)),
            (false, true, false)
        );
        assert_eq!(
            (smaller(Some(2), Some(5)), smaller(None, Some(5)), smaller(None, None)),
            (Some(2), Some(5), None)
        );
    }

    #[test]
    fn the_handler_chooses_what_follows() {
        let after = Duration::from_secs(9);
        let End::Back(back) = plan(failed(Failure::new("x").after(after)), 1, None) else { panic!() };
        assert_eq!((back.after, back.is_uncounted), (Some(after), false));
        assert_eq!(plan(failed(Failure::permanent("x")), 1, None), End::GivenUp { reason: "x".into() });
        assert_eq!(plan::<()>(Verdict::Interrupted, 3, Some(3)), End::Back(GivenBack::uncounted()));
        assert_eq!(plan(Verdict::Done(7), 3, Some(3)), End::Done(7));
    }

    #[test]
    fn what_was_interrupted_waits_unless_the_runner_ends() {
        let after = |failure: Failure, is_stopping| {
            let End::Back(back) = super::plan(failed(failure), 3, Some(3), is_stopping) else { panic!() };
            assert!(back.is_uncounted && back.reason.as_deref() == Some("x"));
            back.after
        };
        let interrupted = || Failure::interrupted("x");
        let long = 9 * UNCOUNTED;
        assert_eq!((after(interrupted(), true), after(interrupted(), false)), (None, Some(UNCOUNTED)));
        assert_eq!(
            (after(interrupted().after(long), true), after(interrupted().after(long), false)),
            (Some(long), Some(long))
        );
    }
}
