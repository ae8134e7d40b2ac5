//! [`Submission`]: a request with options for the executor.

use std::time::Duration;

use crate::worker::message::request::Request;

/// A request with options for the executor. A plain [`Request`] converts into one without options.
#[derive(Debug, Clone)]
#[must_use = "a request does nothing until it is submitted"]
pub struct Submission {
    pub(super) request: Request,
    pub(super) key: Option<String>,
    pub(super) timeout: Option<Duration>,
    pub(super) run_timeout: Option<Duration>,
}

impl Submission {
    /// `request` without options.
    pub fn new(request: Request) -> Self {
        Submission { request, key: None, timeout: None, run_timeout: None }
    }

    /// Chooses the worker by `key`, on a hash ring of the topics that list the task. Requests with the same key go to
    /// the same worker. When a worker comes or goes, few keys change their worker.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// How long the request waits for a worker to start on it, instead of the executor's
    /// [request timeout](super::ExecutorBuilder::request_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// How long the request may run. Without this, it may run as long as its worker is alive. A worker of TaskFlow
    /// counts as alive while its topic has a consumer. That consumer may also be a worker that was restarted, another
    /// worker of the same topic, or a worker that hangs: set this for requests to such workers.
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
