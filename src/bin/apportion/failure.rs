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
    /// The reply to a write was lost: it may have been done.
    OutcomeUnknown(String),
    /// The reader of the output has ended, as in `| head`.
    PipeClosed,
}

impl Failure {
    /// The exit code.
    pub(crate) fn exit(&self) -> u8 {
        match self {
            Failure::PipeClosed => 0,
            Failure::Usage(_) => 2,
            Failure::Unreachable(_) => 3,
            Failure::NotDone(_) => 4,
            Failure::OutcomeUnknown(_) => 5,
        }
    }

    /// The word for programs.
    pub(crate) fn code(&self) -> &'static str {
        match self {
            Failure::PipeClosed => "pipe_closed",
            Failure::Usage(_) => "usage",
            Failure::Unreachable(_) => "unreachable",
            Failure::NotDone(_) => "not_done",
            Failure::OutcomeUnknown(_) => "outcome_unknown",
        }
    }

    /// For what would do harm: says what it would do.
    pub(crate) fn needs_yes(what: &str) -> Failure {
        Failure::NotDone(format!("{what}; nothing was done. If that is meant, say --yes"))
    }

    /// The error of a read of `path`.
    pub(crate) fn at(path: &ZnodePath) -> impl FnOnce(backend::Error) -> Failure + '_ {
        move |error| match error {
            backend::Error::Unreachable(reason) => unreachable(&reason),
            backend::Error::Lost(Loss::AuthFailed) => Error::AuthFailed.into(),
            backend::Error::NotPermitted => Error::NotPermitted { path: path.to_string() }.into(),
            backend::Error::NoNode => Failure::NotDone(format!("there is no znode `{path}`")),
            error if error.is_unknown() => Failure::Unreachable(format!("at `{path}`: {error}")),
            error => Failure::NotDone(format!("at `{path}`: {error}")),
        }
    }

    /// The error of a write of `path`.
    pub(crate) fn writing(path: &ZnodePath) -> impl FnOnce(backend::Error) -> Failure + '_ {
        move |error| match error {
            backend::Error::Lost(Loss::AuthFailed) => Error::AuthFailed.into(),
            error if error.is_unknown() => may_be_done(&format_args!("at `{path}`: {error}")),
            error => Failure::at(path)(error),
        }
    }
}

fn unreachable(reason: &str) -> Failure {
    Failure::Unreachable(format!(
        "no server answers: {reason}. Check the hosts in --url, and whether the servers run"
    ))
}

fn may_be_done(error: &impl fmt::Display) -> Failure {
    Failure::OutcomeUnknown(format!("{error}. It may be done: read it again before you repeat the command"))
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(why)
            | Failure::Unreachable(why)
            | Failure::NotDone(why)
            | Failure::OutcomeUnknown(why) => f.write_str(why),
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
            Error::Backend { error: ref of_backend, .. } if of_backend.is_unknown() => may_be_done(&error),
            error => Failure::NotDone(error.to_string()),
        }
    }
}

impl From<BoardError> for Failure {
    fn from(error: BoardError) -> Self {
        match error {
            BoardError::Service(error) => error.into(),
            BoardError::OutcomeUnknown { .. } => may_be_done(&error),
            error => Failure::NotDone(error.to_string()),
        }
    }
}

impl From<QueueError> for Failure {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Service(error) => error.into(),
            QueueError::OutcomeUnknown { .. } => may_be_done(&error),
            error => Failure::NotDone(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_whose_reply_was_lost_may_be_done_and_has_an_exit_code_of_its_own() {
        let path = ZnodePath::parse("/jobs/job1").unwrap();
        let lost = || backend::Error::Unknown("the connection broke".into());
        let failures: [Failure; 5] = [
            BoardError::OutcomeUnknown { job: "/jobs/job1".into(), uuid: None }.into(),
            QueueError::OutcomeUnknown { path: "/queue/unowned".into() }.into(),
            BoardError::Service(Error::Backend { path: path.to_string(), error: lost() }).into(),
            Failure::writing(&path)(lost()),
            Failure::writing(&path)(backend::Error::Lost(Loss::Expired)),
        ];
        for failure in failures {
            assert_eq!((failure.exit(), failure.code()), (5, "outcome_unknown"), "{failure}");
            assert!(failure.to_string().contains("It may be done: read it again"), "{failure}");
        }
        assert_eq!(Failure::at(&path)(lost()).exit(), 3, "a read has done nothing");
        assert_eq!(Failure::writing(&path)(backend::Error::NotPermitted).exit(), 4);
    }
}
