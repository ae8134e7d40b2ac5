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
//! - A request that no worker has started on is sent again when it is lost: the broker returned it, or its worker does
//!   not list it ([`Instances`]), or its topic has had no consumer for long enough. To a worker of TaskFlow it is never
//!   sent again, because that does not drop copies.
//!
//! All collections are ordered, so that the same events give the same actions in the same order.

mod entry;
mod losses;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use self::entry::Entry;
pub(super) use self::entry::New;
use super::{
    error::RequestError,
    finder::Finder,
    instances::Instances,
    message::{InvalidResponse, NotifyReply, Response, event::Event},
    outcome::Outcome,
    state::RequestState,
    transport::TransportError,
};
use crate::clock::Moment;

/// The end of a request.
pub(super) type Ended = Result<Outcome, RequestError>;

/// An action of the driver for a request.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Report to its handle that it is PENDING at this worker, and send it there. Report a failure to
    /// [`Engine::on_not_sent`], and that the topic has no consumer to [`Engine::on_returned`]. If the worker `is_ours`,
    /// try it once: another worker may get a second copy. A copy may be `only_for` the worker that may have the first.
    Send { id: String, topic: Arc<str>, body: Vec<u8>, is_ours: bool, only_for: Option<String> },
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
    instances: Instances,
    /// Whether the executor can receive answers. Without them no worker counts as silent.
    is_connected: bool,
    /// When it could receive answers again last.
    connected: Moment,
    /// When the last message of a worker came.
    last_message: Moment,
    requests: BTreeMap<String, Entry>,
    /// How many requests were submitted.
    submitted: u64,
    /// The requests in WAITING, by their numbers: in the order in which they were submitted.
    waiting: BTreeMap<u64, String>,
    /// Topics that are being checked.
    checking: BTreeSet<Arc<str>>,
    actions: Vec<Action>,
}

impl Engine {
    /// An engine without requests and workers. A worker that is silent for `expiry` is removed.
    pub(super) fn new(expiry: Duration) -> Self {
        Engine {
            expiry,
            finder: Finder::new(expiry),
            instances: Instances::default(),
            is_connected: true,
            connected: Moment::default(),
            last_message: Moment::default(),
            requests: BTreeMap::new(),
            submitted: 0,
            waiting: BTreeMap::new(),
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
        self.submitted += 1;
        self.requests.insert(id.clone(), Entry::new(new, self.submitted, now));
        self.send(id, now);
    }

    /// Whether any known worker lists `task`.
    pub(super) fn is_offered(&self, task: &str) -> bool {
        self.finder.workers().any(|(_, tasks)| tasks.contains(task))
    }

    /// A worker reports its tasks; with `is_ours` it is one of this crate. Returns whether they are new.
    pub(super) fn on_notify(&mut self, reply: &NotifyReply, is_ours: bool, now: Moment) -> bool {
        self.last_message = now;
        if is_ours {
            self.instances.meet(reply.topic());
        }
        let is_back = self.finder.seen(reply.topic(), now);
        let is_new = self.finder.lists(reply.topic(), reply.tasks().iter().cloned(), now);
        if is_new || is_back {
            self.send_waiting(now);
        }
        is_new
    }

    /// A response about the request `id`. A worker of this crate has a name, and promises to repeat RUNNING while the
    /// request runs.
    pub(super) fn on_response(
        &mut self,
        id: &str,
        response: Result<Response, InvalidResponse>,
        name: Option<&str>,
        now: Moment,
    ) -> Handled {
        self.last_message = now;
        let Some(entry) = self.requests.get_mut(id) else {
            return Handled::UnknownRequest;
        };
        let Some(topic) = &entry.topic else {
            return Handled::Ignored("the request was not sent yet".into());
        };
        if name.is_some_and(|name| self.instances.is_elsewhere(topic, name)) {
            return Handled::Ignored("the request was sent to another worker since".into());
        }
        let is_back = self.finder.seen(topic, now);
        match name {
            Some(name) => entry.reported(name, now),
            None => entry.last_response = now,
        }
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
            self.send_waiting(now);
        }
        handled
    }

    /// The request `id` could not be sent, or it is unknown whether it was sent. Ignored if a worker has started on it,
    /// because then it was sent. If it is unknown, and the worker is one of this crate, it is sent again to a worker that
    /// drops a copy, or its inventories will tell.
    pub(super) fn on_not_sent(&mut self, id: &str, error: TransportError) {
        let Some(entry) = self.requests.get_mut(id).filter(|entry| entry.is_pending()) else { return };
        let is_ours = entry.topic.as_deref().is_some_and(|topic| self.instances.is_ours(topic));
        if error.is_transient() && is_ours {
            entry.may_be_sent();
        } else {
            self.end(
                id,
                Err(match error {
                    TransportError::Unavailable { reason } => RequestError::OutcomeUnknown { reason },
                    TransportError::NoConsumer { topic } => RequestError::WorkerVanished { topic },
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
        self.instances.remove_silent(self.expiry, now);
        self.mend(now);
        let over: Vec<_> = self
            .requests
            .iter()
            .filter_map(|(id, entry)| Some((self.overdue(entry, now)?, id.clone())))
            .collect();
        for (error, id) in over {
            self.end(&id, Err(error));
        }
        for entry in self.requests.values() {
            if entry.needs_check(&self.finder, self.expiry, now)
                && let Some(topic) = &entry.topic
                && self.checking.insert(topic.clone())
            {
                self.actions.push(Action::Check { topic: topic.clone() });
            }
        }
        gone
    }

    /// The broker reports whether the topic has a consumer; `None` if it did not answer.
    pub(super) fn on_checked(&mut self, topic: &Arc<str>, is_consumed: Option<bool>, now: Moment) {
        self.checking.remove(topic);
        let Some(is_consumed) = is_consumed else { return };
        let mut lost = Vec::new();
        for (id, entry) in &mut self.requests {
            if entry.topic.as_ref() == Some(topic) && entry.needs_check(&self.finder, self.expiry, now) {
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
            let timeout = entry.life.timeout()?;
            if entry.topic.is_none()
                && !self.is_offered(&entry.task)
                && self.finder.workers().next().is_some()
            {
                let offered: BTreeSet<_> = self.finder.workers().flat_map(|(_, tasks)| tasks).collect();
                let offered = offered.into_iter().cloned().collect();
                return Some(RequestError::UnknownTask { task: entry.task.clone(), offered, timeout });
            }
            return Some(RequestError::Expired { timeout, was_sent: entry.topic.is_some() });
        }
        if entry.life.state() != RequestState::Running {
            return None;
        }
        if let (Some(topic), Some(holder)) = (&entry.topic, &entry.holder)
            && entry.is_silent(self.expiry, now)
            && self.is_connected
        {
            if self.instances.is_alive(topic, holder) {
                let reason = format!("the worker at {topic:?} does not report it any more");
                return Some(RequestError::OutcomeUnknown { reason });
            }
            return Some(RequestError::WorkerVanished { topic: topic.to_string() });
        }
        let timeout = entry.run_timeout?;
        (now.saturating_since(entry.started) > timeout).then_some(RequestError::Overdue { timeout })
    }

    /// Sends the waiting requests that can be sent now.
    fn send_waiting(&mut self, now: Moment) {
        for id in std::mem::take(&mut self.waiting).into_values() {
            self.send(id, now);
        }
    }

    /// Sends the request `id` to a worker that can run it. It waits if there is no such worker.
    fn send(&mut self, id: String, now: Moment) {
        let Some(entry) = self.requests.get_mut(&id) else { return };
        let Some(topic) = self.finder.pick(&entry.task, entry.key.as_deref()) else {
            self.waiting.insert(entry.number, id);
            return;
        };
        let body = entry.send(topic.clone(), now);
        let is_ours = self.instances.is_ours(&topic);
        self.actions.push(Action::Send { id, topic, body, is_ours, only_for: None });
    }

    /// A worker has started on the request `id`.
    fn run(&mut self, id: &str, now: Moment) {
        let Some(entry) = self.requests.get_mut(id) else { return };
        if entry.run(now) {
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
        self.waiting.remove(&entry.number);
        if let Some(topic) = &entry.topic {
            self.finder.release(topic);
        }
        Some((id, entry))
    }
}

#[cfg(test)]
mod tests;
