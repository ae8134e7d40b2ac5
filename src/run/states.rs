// Pure: no runtime, no clock, no socket, no random numbers.

//! [`KeyState`] and [`EachCounts`]: what a caller sees of the tasks of [`run_each`](crate::Group::run_each).

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::failure::Failure;

/// The state of a key of [`run_each`](crate::Group::run_each) at one moment. From [`Keys`](super::Keys).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
#[non_exhaustive]
pub enum KeyState {
    /// Another member has it, or may still act on it, or its member has no share at this moment.
    Waiting,
    /// This member has it. Its task starts when its turn comes: see
    /// [`starts_per_second`](super::RunEach::starts_per_second).
    Queued,
    /// Its task runs.
    Running {
        /// For how long.
        since: Duration,
    },
    /// Its task is asked to stop and has not ended.
    Stopping {
        /// For how long.
        since: Duration,
        /// Whether the time for it is over, and its future is dropped as soon as it does not block its thread.
        is_forced: bool,
    },
    /// Its task has failed and starts again after a pause.
    Restarting {
        /// How often in a row it has failed.
        errors: u32,
        /// The rest of the pause.
        pause: Duration,
        /// The last error.
        error: String,
    },
    /// Its task has ended by itself, without an error. It starts again when this member gets the key another time.
    Finished,
    /// Its task has failed for good: see [`Failure::permanent`](super::Failure::permanent). It starts again when this
    /// member gets the key another time.
    GivenUp {
        /// The error.
        error: String,
    },
}

impl fmt::Display for KeyState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KeyState::Waiting => f.write_str("waiting"),
            KeyState::Queued => f.write_str("waiting to start"),
            KeyState::Running { since } => write!(f, "running for {since:.1?}"),
            KeyState::Stopping { since, is_forced: false } => write!(f, "stopping for {since:.1?}"),
            KeyState::Stopping { since, is_forced: true } => write!(f, "stopping by force for {since:.1?}"),
            KeyState::Restarting { errors, pause, error } => {
                write!(f, "starting again in {pause:.1?} after error {errors}: {error}")
            }
            KeyState::Finished => f.write_str("finished"),
            KeyState::GivenUp { error } => write!(f, "given up: {error}"),
        }
    }
}

/// What the tasks of a [`run_each`](crate::Group::run_each) have done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EachCounts {
    /// Tasks that were started, restarts included.
    pub started: u64,
    /// Tasks that have ended by themselves, or when they were asked to, without an error.
    pub finished: u64,
    /// Tasks that have ended with an error or a panic.
    pub failed: u64,
    /// Tasks that have ended with [`Failure::interrupted`](super::Failure::interrupted).
    pub interrupted: u64,
    /// Tasks whose futures were dropped without a drain, because this member could not act on their keys any more.
    pub lost: u64,
    /// Tasks that were dropped at the end of the drain.
    pub forced: u64,
    /// Tasks that have not ended yet, because they block their thread, or other work still has their
    /// [`KeyTask`](super::KeyTask). Their keys stay with this member until then, or until
    /// [`max_drain`](crate::Join::max_drain).
    pub stuck: u64,
}

/// How a task has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ended {
    Finished,
    Failed(Failure),
    /// Its key was lost at that moment, and its future was dropped.
    Lost,
    /// Its future was dropped at the end of the drain.
    Forced,
}

impl Ended {
    /// In one word, for the metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Ended::Finished => "finished",
            Ended::Failed(failure) if failure.is_interrupted() => "interrupted",
            Ended::Failed(_) => "failed",
            Ended::Lost => "lost",
            Ended::Forced => "forced",
        }
    }
}

impl EachCounts {
    pub(super) fn note(&mut self, ended: &Ended) {
        let count = match ended {
            Ended::Finished => &mut self.finished,
            Ended::Failed(failure) if failure.is_interrupted() => &mut self.interrupted,
            Ended::Failed(_) => &mut self.failed,
            Ended::Lost => &mut self.lost,
            Ended::Forced => &mut self.forced,
        };
        *count += 1;
    }
}
