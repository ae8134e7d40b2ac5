// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Counts`]: what a runner of a board or a queue has done.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a runner of a [board](crate::JobBoard::run) or a [queue](crate::WorkQueue::run) has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Counts {
    /// Jobs or entries that are done.
    pub finished: u64,
    /// Attempts that have failed: with an error or a panic, or with a result that cannot be kept. What was
    /// [interrupted](super::Failure::interrupted) has not failed.
    pub failed: u64,
    /// Jobs or entries that were given back for another attempt, because it has failed or because the runner ended.
    pub given_back: u64,
    /// Jobs that were moved to the trash, or entries that became dead letters.
    pub given_up: u64,
    /// Attempts whose lease was lost, or whose end the store did not confirm: other workers get what was not done.
    pub lost: u64,
    /// Handlers that have not ended yet: they block their thread, or the store has not yet confirmed the end of their work.
    pub stuck: u64,
}

/// What has become of one attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    Finished,
    GivenBack,
    GivenUp,
    Lost,
}

impl Ended {
    /// How an attempt that has not failed has ended, in one word, for the metrics.
    pub(super) fn word(self) -> &'static str {
        match self {
            Ended::Finished => "finished",
            Ended::GivenBack => "interrupted",
            Ended::GivenUp => "overdue",
            Ended::Lost => "lost",
        }
    }
}

impl Counts {
    pub(super) fn note(&mut self, ended: Ended, has_failed: bool) {
        let count = match ended {
            Ended::Finished => &mut self.finished,
            Ended::GivenBack => &mut self.given_back,
            Ended::GivenUp => &mut self.given_up,
            Ended::Lost => &mut self.lost,
        };
        *count += 1;
        self.failed += u64::from(has_failed);
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Counts { finished, failed, given_back, given_up, lost, stuck } = self;
        write!(
            f,
            "{finished} finished, {failed} attempts failed, {given_back} given back, {given_up} given up, "
        )?;
        write!(f, "{lost} lost, {stuck} stuck")
    }
}
