// Pure: no runtime, no clock, no socket, no random numbers.

//! The executor's table of requests. Events go in, [`Action`]s come out.
//!
//! A request ends once, as success, failure or expiry. This holds for any messages in any order:
//!
//! - Only the table decides. A response about a request that has ended, or that was never made, is ignored.
//! - A report that only a running task can send (an event, a result) counts as RUNNING, too, for a request that was
//!   sent: the report of RUNNING was lost, or comes later.
//! - Expiry is for requests that no worker has started on. A running request ends without a result when its worker is
//!   silent for too long. A worker of this crate repeats RUNNING, so its silence *about this request* counts. A worker
//!   of TaskFlow does not repeat it, and does not answer while all its threads are busy. When it is silent altogether,
//!   the broker is asked whether its topic still has a consumer.
//!
//! All collections are ordered, so that the same events give the same actions in the same order.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use super::{
    error::RequestError,
    finder::Finder,
    lifecycle::{Lifecycle, Transition},
    message::{InvalidResponse, NotifyReply, Response, event::Event},
    outcome::Outcome,
    state::RequestState,
    transport::TransportError,
};
use crate::clock::Moment;

/// The end of a request.
pub(super) type Ended = Result<Outcome, RequestError>;

/// A request as it is submitted.
#[derive(Debug)]
pub(super) struct New {
    pub(super) task: String,
    pub(super) key: Option<String>,
    pub(super) body: Vec<u8>,
    pub(super) timeout: Option<Duration>,
    pub(super) run_timeout: Option<Duration>,
}

/// An action of the driver for a request.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Report to its handle that it is PENDING at this worker, and send it there. Report a failure to
    /// [`Engine::on_not_sent`].
    Send { id: String, topic: Arc<str>, body: Vec<u8> },
    /// Report its state to its handle.
    Moved { id: String, state: RequestState },
    /// Report an event to its handle.
    Event { id: String, event: Event },
    /// Ask the broker whether the topic has a consumer, and report the answer to [`Engine::on_checked`].
    Check { topic: Arc<str> },
    /// Report its end to its handle. The last action for this id.
    End { id: String, ended: Ended },
}

/// What the table did with a response, for the log.
#[derive(Debug, PartialEq)]
pub(super) enum Handled {
    /// It belonged to an open request.
    Applied,
    /// There is no request with this id, or it has ended.
    UnknownRequest,
    /// It is invalid, or comes too early, and changes nothing.
    Ignored(String),
}

/// The requests that have not ended, and the workers that may run them.
#[derive(Debug)]
pub(super) struct Engine {
    expiry: Duration,
    finder: Finder,
    requests: BTreeMap<String, Entry>,
    /// The requests in WAITING, in the order in which they were submitted, and some that have ended since.
    waiting: VecDeque<String>,
    /// Topics that are being checked.
    checking: BTreeSet<Arc<str>>,
    actions: Vec<Action>,
}

#[derive(Debug)]
struct Entry {
    life: Lifecycle,
    task: String,
    key: Option<String>,
    /// Empty once it is sent.
    body: Vec<u8>,
    /// The topic of the worker that it was sent to.
    topic: Option<Arc<str>>,
    /// When the last response about it came.
    last_response: Moment,
    /// Whether its worker has promised to repeat RUNNING.
    is_repeated: bool,
    run_timeout: Option<Duration>,
    started: Moment,
}

impl Entry {
    /// Whether no response about it came for too long.
    fn is_silent(&self, expiry: Duration, now: Moment) -> bool {
        now.saturating_since(self.last_response) >= expiry
    }

    /// Whether it runs on a worker of TaskFlow that is silent: the worker is busy, or dead.
    fn is_in_doubt(&self, finder: &Finder, expiry: Duration, now: Moment) -> bool {
        self.life.state() == RequestState::Running
            && !self.is_repeated
            && self.is_silent(expiry, now)
            && self.topic.as_ref().is_some_and(|topic| !finder.knows(topic))
    }
}

impl Engine {
    /// An engine without requests and workers. A worker that is silent for `expiry` is removed.
    pub(super) fn new(expiry: Duration) -> Self {
        Engine {
            expiry,
            finder: Finder::new(expiry),
            requests: BTreeMap::new(),
            waiting: VecDeque::new(),
            checking: BTreeSet::new(),
            actions: Vec::new(),
        }
    }

    /// The actions to carry out, in order. Each is returned once.
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The workers that have answered lately.
    pub(super) fn finder(&self) -> &Finder {
        &self.finder
    }

    /// Adds a request. Its id is new.
    pub(super) fn submit(&mut self, id: String, new: New, now: Moment) {
        let New { task, key, body, timeout, run_timeout } = new;
        let life = Lifecycle::new(now, timeout);
        let (topic, is_repeated) = (None, false);
        let (last_response, started) = (now, now);
        let entry = Entry { life, task, key, body, topic, last_response, is_repeated, run_timeout, started };
        self.requests.insert(id.clone(), entry);
        if let Some(id) = self.send(id) {
            self.waiting.push_back(id);
        }
    }

    /// A worker reports its tasks. Returns whether they are new.
    pub(super) fn on_notify(&mut self, reply: &NotifyReply, now: Moment) -> bool {
        let is_back = self.finder.seen(reply.topic(), now);
        let is_new = self.finder.lists(reply.topic(), reply.tasks().iter().cloned(), now);
        if is_new || is_back {
            self.send_waiting();
        }
        is_new
    }

    /// A response about the request `id`. With `is_repeated` its sender promises to repeat RUNNING while it runs.
    pub(super) fn on_response(
        &mut self,
        id: &str,
        response: Result<Response, InvalidResponse>,
        is_repeated: bool,
        now: Moment,
    ) -> Handled {
        let Some(entry) = self.requests.get_mut(id) else {
            return Handled::UnknownRequest;
        };
        let Some(topic) = &entry.topic else {
            return Handled::Ignored("the request was not sent yet".into());
        };
        let is_back = self.finder.seen(topic, now);
        entry.last_response = now;
        entry.is_repeated |= is_repeated;
        let mut handled = Handled::Applied;
        match response {
            Ok(Response::Running) => {
                self.run(id, now);
            }
            Ok(Response::Event(event)) => {
                self.run(id, now);
                self.actions.push(Action::Event { id: id.to_owned(), event });
            }
            Ok(Response::Success(value)) => {
                self.run(id, now);
                self.end(id, Ok(value.into()));
            }
            Ok(Response::Failure(failure)) => self.end(id, Err(RequestError::Failed(failure))),
            Err(InvalidResponse::Result { reason, .. }) => {
                self.end(id, Err(RequestError::InvalidResponse(reason)));
            }
            Err(invalid @ (InvalidResponse::State(_) | InvalidResponse::Event(_))) => {
                handled = Handled::Ignored(invalid.to_string());
            }
        }
        if is_back {
            self.send_waiting();
        }
        handled
    }

    /// The request `id` could not be sent, or it is unknown whether it was sent. Ignored if a worker has started on it,
    /// because then it was sent.
    pub(super) fn on_not_sent(&mut self, id: &str, error: TransportError) {
        if self.requests.get(id).is_some_and(|entry| entry.life.state() == RequestState::Pending) {
            self.end(
                id,
                Err(match error {
                    TransportError::Unavailable { reason } => RequestError::OutcomeUnknown { reason },
                    TransportError::Refused { reason } => RequestError::Refused { reason },
                    TransportError::Closed => RequestError::Closed,
                }),
            );
        }
    }

    /// The handle of the request `id` was dropped.
    pub(super) fn forget(&mut self, id: &str) {
        self.remove(id);
    }

    /// Ends requests that have waited for too long. To be called periodically. Returns the workers that were removed.
    pub(super) fn tick(&mut self, now: Moment) -> Vec<Arc<str>> {
        let gone = self.finder.remove_silent(now);
        let over: Vec<_> = self
            .requests
            .iter()
            .filter_map(|(id, entry)| Some((id.clone(), self.overdue(entry, now)?)))
            .collect();
        for (id, error) in over {
            self.end(&id, Err(error));
        }
        for entry in self.requests.values() {
            if entry.is_in_doubt(&self.finder, self.expiry, now)
                && let Some(topic) = &entry.topic
                && self.checking.insert(topic.clone())
            {
                self.actions.push(Action::Check { topic: topic.clone() });
            }
        }
        if self.waiting.len() > self.requests.len() {
            self.waiting.retain(|id| self.requests.contains_key(id));
        }
        gone
    }

    /// The broker reports whether the topic has a consumer; `None` if it did not answer.
    pub(super) fn on_checked(&mut self, topic: &Arc<str>, is_consumed: Option<bool>, now: Moment) {
        self.checking.remove(topic);
        let Some(is_consumed) = is_consumed else { return };
        let mut lost = Vec::new();
        for (id, entry) in &mut self.requests {
            if entry.topic.as_ref() == Some(topic) && entry.is_in_doubt(&self.finder, self.expiry, now) {
                if is_consumed {
                    entry.last_response = now;
                } else {
                    lost.push(id.clone());
                }
            }
        }
        for id in lost {
            self.end(&id, Err(RequestError::WorkerVanished { topic: topic.to_string() }));
        }
    }

    /// Ends all requests. Those that were not sent yet are not sent.
    pub(super) fn close(&mut self) {
        self.actions.retain(|action| !matches!(action, Action::Send { .. }));
        let ids: Vec<String> = self.requests.keys().cloned().collect();
        for id in ids {
            self.end(&id, Err(RequestError::Closed));
        }
    }

    /// Why this request ends at `now`, if it does.
    fn overdue(&self, entry: &Entry, now: Moment) -> Option<RequestError> {
        if entry.life.is_expired(now) {
            let was_sent = entry.topic.is_some();
            return Some(RequestError::Expired { timeout: entry.life.timeout()?, was_sent });
        }
        if entry.life.state() != RequestState::Running {
            return None;
        }
        if entry.is_repeated && entry.is_silent(self.expiry, now) {
            return Some(RequestError::WorkerVanished { topic: entry.topic.as_ref()?.to_string() });
        }
        let timeout = entry.run_timeout?;
        (now.saturating_since(entry.started) > timeout).then_some(RequestError::Overdue { timeout })
    }

    /// Sends the waiting requests that can be sent now.
    fn send_waiting(&mut self) {
        for id in std::mem::take(&mut self.waiting) {
            if let Some(id) = self.send(id) {
                self.waiting.push_back(id);
            }
        }
    }

    /// Sends the request `id` to a worker that can run it. Returns the id if there is no such worker.
    fn send(&mut self, id: String) -> Option<String> {
        let entry = self.requests.get_mut(&id)?;
        let Some(topic) = self.finder.pick(&entry.task, entry.key.as_deref()) else {
            return Some(id);
        };
        entry.life.step(RequestState::Pending).expect("only a waiting request is sent");
        entry.topic = Some(topic.clone());
        let body = std::mem::take(&mut entry.body);
        self.actions.push(Action::Send { id, topic, body });
        None
    }

    /// A worker has started on the request `id`.
    fn run(&mut self, id: &str, now: Moment) {
        let Some(entry) = self.requests.get_mut(id) else { return };
        if entry.life.step(RequestState::Running) == Ok(Transition::Moved) {
            entry.started = now;
            self.actions.push(Action::Moved { id: id.to_owned(), state: RequestState::Running });
        }
    }

    fn end(&mut self, id: &str, ended: Ended) {
        if let Err(RequestError::WorkerVanished { topic }) = &ended {
            self.finder.suspect(topic);
        }
        if let Some((id, _)) = self.remove(id) {
            self.actions.push(Action::End { id, ended });
        }
    }

    fn remove(&mut self, id: &str) -> Option<(String, Entry)> {
        let (id, entry) = self.requests.remove_entry(id)?;
        if let Some(topic) = &entry.topic {
            self.finder.release(topic);
        }
        Some((id, entry))
    }
}

#[cfg(test)]
mod tests;
