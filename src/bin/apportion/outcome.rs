//! [`Outcome`]: how a command has ended that could do its work.

/// What a command ended with, if it could do its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Fine,
    /// It has found a problem, and has named it.
    Problem,
}

impl Outcome {
    pub(crate) fn of(has_problems: bool) -> Outcome {
        if has_problems { Outcome::Problem } else { Outcome::Fine }
    }
}
