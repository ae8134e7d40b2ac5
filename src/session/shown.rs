//! [`SessionState`]: the state of the session of a coordinator, in one word.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::metrics;

/// The state of the session of a coordinator.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionState {
    /// There is no backend.
    Standalone,
    /// There is no session, and one is being opened.
    Opening,
    /// There is a session, and its connection is up.
    Connected,
    /// There is a session, and its connection is down.
    Suspended,
    /// The coordinator is closed.
    Closed,
}

impl SessionState {
    /// All of them.
    pub const ALL: &'static [SessionState] = &[
        SessionState::Standalone,
        SessionState::Opening,
        SessionState::Connected,
        SessionState::Suspended,
        SessionState::Closed,
    ];

    /// In one word, as in the serialized form.
    pub const fn as_str(self) -> &'static str {
        match self {
            SessionState::Standalone => "standalone",
            SessionState::Opening => "opening",
            SessionState::Connected => "connected",
            SessionState::Suspended => "suspended",
            SessionState::Closed => "closed",
        }
    }

    /// Sets the gauge. Without a backend there is no session to measure.
    pub(crate) fn measure(self) {
        let states = SessionState::ALL.iter().filter(|it| **it != SessionState::Standalone);
        metrics::SESSION_STATE.set_state(None, states.map(|it| it.as_str()), self.as_str());
    }
}

impl fmt::Display for SessionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
