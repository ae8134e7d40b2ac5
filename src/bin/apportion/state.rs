//! [`State`]: the states of jobs and entries, the same for all commands.

/// The state of a job or an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Waits,
    /// It waits, and is not to be taken before a time.
    Delayed,
    /// A worker has the job.
    Claimed,
    /// The job has a lock that names no owner, so no worker can claim it.
    Locked,
    /// A worker has the entry.
    Taken,
    Done,
    /// A dead letter.
    Dead,
    /// It cannot be read, so it is not taken.
    SetAside,
}

impl State {
    /// The word for programs.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            State::Waits => "waits",
            State::Delayed => "delayed",
            State::Claimed => "claimed",
            State::Locked => "locked",
            State::Taken => "taken",
            State::Done => "done",
            State::Dead => "dead",
            State::SetAside => "set_aside",
        }
    }

    /// The word for operators.
    pub(crate) fn text(self) -> &'static str {
        if self == State::SetAside { "set aside" } else { self.as_str() }
    }
}
