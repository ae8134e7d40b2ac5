//! [`Submission`]: a request, and how the executor is to treat it.

use std::time::Duration;

use crate::worker::message::request::Request;

/// A request, and how the executor is to treat it. A plain [`Request`] becomes one that is treated as any other.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is submitted"]
pub struct Submission {
    pub(super) request: Request,
    pub(super) key: Option<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) run_timeout: Option<Duration>,
}

impl Submission {
    /// `request`, to be treated as any other.
    pub fn new(request: Request) -> Self {
        Submission { request, key: None, timeout: None, run_timeout: None }
    }

    /// Chooses the worker by `key`, on a hash ring of the topics that list the task. Requests of one key go to the same
    /// worker, and few change theirs when a worker comes or goes.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// How long to wait for a worker to start on it, instead of the executor's
    /// [request timeout](super::ExecutorBuilder::request_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long it may run. Without this, it may run for as long as its worker is alive. A worker of TaskFlow counts as
    /// alive while its topic has a consumer, also if that is a worker that was restarted, another worker of the same
    /// topic, or one that hangs: set this for requests to such workers.
    pub fn run_timeout(mut self, timeout: Duration) -> Self {
        self.run_timeout = Some(timeout);
        self
    }
}

impl From<Request> for Submission {
    fn from(request: Request) -> Self {
        Submission::new(request)
    }
}
