//! [`Failure`]: why a command could not do its work, and the exit code for it.

use std::{fmt, io};

use apportion::{
    Error,
    backend::{self, Loss, path::ZnodePath},
    board::BoardError,
    config::ConfigError,
    queue::QueueError,
};

/// Why a command could not do its work. The message says what to do.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The arguments do not fit.
    Usage(String),
    /// No server answered, or the credentials were refused.
    Unreachable(String),
    /// Not found, not permitted, refused, or the caller has to say `--yes`.
    NotDone(String),
    /// The reader of the output has ended, as in `| head`.
    PipeClosed,
}

impl Failure {
    pub(crate) fn code(&self) -> u8 {
        match self {
            Failure::PipeClosed => 0,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
            Failure::NotDone(_) => 4,
        }
    }

    /// For what would do harm: says what it would do.
    pub(crate) fn needs_yes(what: &str) -> Failure {
        Failure::NotDone(format!("{what}; nothing was done. If that is meant, say --yes"))
    }

    /// The error of a request about `path`.
    pub(crate) fn at(path: &ZnodePath) -> impl FnOnce(backend::Error) -> Failure + '_ {
        move |error| match error {
            backend::Error::Unreachable(reason) => unreachable(&reason),
            backend::Error::Lost(Loss::AuthFailed) => Error::AuthFailed.into(),
            backend::Error::NotPermitted => Error::NotPermitted { path: path.to_string() }.into(),
            backend::Error::NoNode => Failure::NotDone(format!("there is no znode `{path}`")),
            error @ (backend::Error::Unknown(_) | backend::Error::Lost(_)) => Failure::Unreachable(format!(
                "at `{path}`: {error}. Read it again before you repeat the command"
            )),
            error => Failure::NotDone(format!("at `{path}`: {error}")),
        }
    }
}

fn unreachable(reason: &str) -> Failure {
    Failure::Unreachable(format!(
        "no server answers: {reason}. Check the hosts in --url, and whether the servers run"
    ))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(why) | Failure::Unreachable(why) | Failure::NotDone(why) => f.write_str(why),
            Failure::PipeClosed => Ok(()),
        }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::PipeClosed,
            _ => Failure::NotDone(error.to_string()),
        }
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Failure::Usage(error.to_string())
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Config(error) => error.into(),
            Error::Unreachable { reason } => unreachable(&reason),
            Error::AuthFailed => Failure::Unreachable(format!("{error}: check user and password in --url")),
            error => Failure::NotDone(error.to_string()),
        }
    }
}

impl From<BoardError> for Failure {
    fn from(error: BoardError) -> Self {
        match error {
            BoardError::Service(error) => error.into(),
            error => Failure::NotDone(error.to_string()),
        }
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Service(error) => error.into(),
            error => Failure::NotDone(error.to_string()),
        }
    }
}
