// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Action`]: what a request asks a worker to do with a task.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// What a request asks a worker to do with a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Execute the task.
    Execute,
    /// Revert the task.
    Revert,
}

impl Action {
    /// The name on the wire: `execute` or `revert`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Action::Execute => "execute",
            Action::Revert => "revert",
        }
    }

    /// The name of the outcome in TaskFlow: `executed` or `reverted`.
    pub const fn event(self) -> &'static str {
        match self {
            Action::Execute => "executed",
            Action::Revert => "reverted",
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text is not the name of an [`Action`]. From parsing one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not an action", .0.escape_debug())]
pub struct UnknownAction(pub String);

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(name: &str) -> Result<Self, UnknownAction> {
        [Action::Execute, Action::Revert]
            .into_iter()
            .find(|action| action.as_str() == name)
            .ok_or_else(|| UnknownAction(name.chars().take(64).collect()))
    }
}
