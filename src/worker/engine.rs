// Pure: no runtime, no clock, no socket, no random numbers.

//! The executor's table of requests. What happens goes in, [`Action`]s come out.
//!
//! A request ends once, as success, failure or expiry, whatever arrives and in whatever order:
//!
//! - Only the table decides. What is said of a request that has ended, or that was never made, is ignored.
//! - What only a running task can say (an event, a result) is believed of a request that was sent and not yet
//!   reported as running: the report was lost or comes later.
//! - Expiry is for requests that nobody has started on. One that runs ends without its result when its worker is
//!   silent for too long: *about this request*, if the worker is one of ours, which goes on saying that it runs. A
//!   worker of TaskFlow does not, and answers nobody while all its threads are busy: when it is silent altogether,
//!   the broker is asked whether anybody still consumes its topic.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;

use super::{
    failure::Failure,
    finder::Finder,
    lifecycle::{Lifecycle, State, Transition},
    message::{NotifyReply, OddResponse, Response},
    transport::TransportError,
    validate::FormatError,
};
use crate::clock::Moment;

/// Why a request ended without a result. `source` gives nothing, because `Display` says all of it.
///
/// To try again, submit the request again: see [`is_transient`](Self::is_transient) for whether that may help, and
/// [`may_have_run`](Self::may_have_run) for whether it may run the task a second time.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// The task failed, or the worker refused it. It may have run, in part or in full.
    #[error("the task failed: {0}")]
    Failed(Failure),
    /// No worker has started on it in time. If the request was sent, one may still start, or has started and its
    /// word was lost; if not, the task has not run and will not.
    #[error("{} within {timeout:?}", if *.was_sent {
        "the worker has not started on the request"
    } else {
        "no worker was found for the request"
    })]
    Expired {
        /// For how long it was waited.
        timeout: Duration,
        /// Whether a worker was found and the request sent to it, as far as that went.
        was_sent: bool,
    },
    /// A worker had started on it and was not heard of for too long. The task may have run, in part or in full.
    #[error("the worker at {topic:?} has vanished while it ran the request")]
    WorkerVanished {
        /// The topic of the worker.
        topic: String,
    },
    /// A worker had started on it and has not finished in the time it was given. The task has run in part, and may
    /// still finish.
    #[error("the request was not finished within {timeout:?} from its start")]
    Overdue {
        /// What it was given.
        timeout: Duration,
    },
    /// The request could not be sent, or whether it was could not be told. If the transport
    /// [refused](TransportError::Refused) it, the task has not run and will not; else it may have run.
    #[error("the request could not be sent: {0}")]
    NotSent(TransportError),
    /// The worker says that it is over, and its answer makes no sense. The task may have run.
    #[error("the answer of the worker makes no sense: {0}")]
    BadAnswer(FormatError),
    /// The executor was shut down, or its transport closed. The task may have run, or may still run.
    #[error("the executor was shut down or its transport closed")]
    Closed,
}

impl RequestError {
    /// Whether the task may have run, in part or in full, or may still run: then a second attempt can be one too many.
    /// If not, it is certain that it has not and will not.
    pub fn may_have_run(&self) -> bool {
        match self {
            RequestError::Expired { was_sent, .. } => *was_sent,
            RequestError::NotSent(error) => !matches!(error, TransportError::Refused { .. }),
            RequestError::Failed(_)
            | RequestError::WorkerVanished { .. }
            | RequestError::Overdue { .. }
            | RequestError::BadAnswer(_)
            | RequestError::Closed => true,
        }
    }

    /// Whether the same request, submitted again, may end better: workers or the broker were away, lost or too slow.
    /// If not, the worker has given its answer, the request cannot be sent as it is, or the executor is at its end.
    pub fn is_transient(&self) -> bool {
        match self {
            RequestError::Expired { .. }
            | RequestError::WorkerVanished { .. }
            | RequestError::Overdue { .. }
            | RequestError::NotSent(TransportError::Unavailable { .. }) => true,
            RequestError::Failed(_)
            | RequestError::NotSent(_)
            | RequestError::BadAnswer(_)
            | RequestError::Closed => false,
        }
    }
}

/// What became of a request: the value of its task, or why there is none.
pub type Outcome = Result<Value, RequestError>;

/// A request as it is submitted.
#[derive(Debug)]
pub(super) struct New {
    pub(super) task: String,
    pub(super) key: Option<String>,
    pub(super) body: Vec<u8>,
    pub(super) timeout: Option<Duration>,
    pub(super) run_timeout: Option<Duration>,
}

/// What the driver has to do for a request.
#[derive(Debug, PartialEq)]
pub(super) enum Action {
    /// Tell its handle that it is PENDING at this worker, send it there, and say so if that fails.
    Send { id: String, topic: Arc<str>, body: Vec<u8> },
    /// Tell its handle where it stands.
    Moved { id: String, state: State },
    /// Tell its handle what happened on the way.
    Event { id: String, event: Response },
    /// Find out whether anybody consumes the topic, and say so, or that nobody can tell now.
    Look { topic: Arc<str> },
    /// Tell its handle what became of it. The last action for this id.
    End { id: String, outcome: Outcome },
}

/// What became of a response, for the log.
#[derive(Debug, PartialEq)]
pub(super) enum Heard {
    /// It belonged to a request, which was told.
    Taken,
    /// Nothing is or was asked for under this id, or no more.
    NotAsked,
    /// It makes no sense at this point and changes nothing.
    Odd(String),
}

/// The requests that have not ended, and the workers that may run them.
#[derive(Debug)]
pub(super) struct Engine {
    expiry: Duration,
    finder: Finder,
    requests: HashMap<String, Entry>,
    /// Those in WAITING, in the order they came, and some that have ended since.
    waiting: VecDeque<String>,
    /// Topics that are being looked at.
    looking: HashSet<Arc<str>>,
    actions: Vec<Action>,
}

#[derive(Debug)]
struct Entry {
    life: Lifecycle,
    task: String,
    key: Option<String>,
    /// Empty once it is sent.
    body: Vec<u8>,
    /// Who it was sent to.
    topic: Option<Arc<str>>,
    /// The last word about it, which says whether more words are promised while it runs.
    heard: Moment,
    is_repeated: bool,
    run_timeout: Option<Duration>,
    started: Moment,
}

impl Entry {
    /// Whether nothing was heard about it for too long.
    fn is_silent(&self, expiry: Duration, now: Moment) -> bool {
        now.saturating_since(self.heard) >= expiry
    }

    /// Whether it runs on a worker of TaskFlow that says nothing, as it does when it is busy, and when it is dead.
    fn is_in_doubt(&self, finder: &Finder, expiry: Duration, now: Moment) -> bool {
        self.life.state() == State::Running
            && !self.is_repeated
            && self.is_silent(expiry, now)
            && self.topic.as_ref().is_some_and(|topic| !finder.knows(topic))
    }
}

impl Engine {
    /// Without requests and workers. A worker that is silent for `expiry` is gone.
    pub(super) fn new(expiry: Duration) -> Self {
        Engine {
            expiry,
            finder: Finder::new(expiry),
            requests: HashMap::new(),
            waiting: VecDeque::new(),
            looking: HashSet::new(),
            actions: Vec::new(),
        }
    }

    /// What is to be done since the last call, in order.
    pub(super) fn take_actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The workers that were heard of lately.
    pub(super) fn finder(&self) -> &Finder {
        &self.finder
    }

    /// A request is made. Its id is new.
    pub(super) fn submit(&mut self, id: String, new: New, now: Moment) {
        let New { task, key, body, timeout, run_timeout } = new;
        let life = Lifecycle::new(now, timeout);
        let (topic, heard, started, is_repeated) = (None, now, now, false);
        let entry = Entry { life, task, key, body, topic, heard, is_repeated, run_timeout, started };
        self.requests.insert(id.clone(), entry);
        if let Some(id) = self.send(id) {
            self.waiting.push_back(id);
        }
    }

    /// A worker says what it can run. Returns whether that is news.
    pub(super) fn on_notify(&mut self, reply: &NotifyReply, now: Moment) -> bool {
        let is_back = self.finder.heard(reply.topic(), now);
        let is_news = self.finder.lists(reply.topic(), reply.tasks().iter().cloned(), now);
        if is_news || is_back {
            self.send_waiting();
        }
        is_news
    }

    /// Somebody says something about the request `id`; if it runs, and `is_repeated`, he will go on to do so.
    pub(super) fn on_response(
        &mut self,
        id: &str,
        said: Result<Response, OddResponse>,
        is_repeated: bool,
        now: Moment,
    ) -> Heard {
        let Some(entry) = self.requests.get_mut(id) else {
            return Heard::NotAsked;
        };
        let Some(topic) = &entry.topic else {
            return Heard::Odd("nobody was asked yet".into());
        };
        let is_back = self.finder.heard(topic, now);
        entry.heard = now;
        entry.is_repeated |= is_repeated;
        let mut heard = Heard::Taken;
        match said {
            Ok(Response::Running) => {
                self.run(id, now);
            }
            Ok(event @ Response::Event { .. }) => {
                self.run(id, now);
                self.actions.push(Action::Event { id: id.to_owned(), event });
            }
            Ok(Response::Success(value)) => {
                self.run(id, now);
                self.end(id, Ok(value));
            }
            Ok(Response::Failure(failure)) => self.end(id, Err(RequestError::Failed(failure))),
            Err(OddResponse::Outcome { reason, .. }) => self.end(id, Err(RequestError::BadAnswer(reason))),
            Err(odd @ (OddResponse::State(_) | OddResponse::Event(_))) => heard = Heard::Odd(odd.to_string()),
        }
        if is_back {
            self.send_waiting();
        }
        heard
    }

    /// The request `id` could not be sent. If somebody works on it, it was sent all the same.
    pub(super) fn on_not_sent(&mut self, id: &str, error: TransportError) {
        if self.requests.get(id).is_some_and(|entry| entry.life.state() == State::Pending) {
            self.end(id, Err(RequestError::NotSent(error)));
        }
    }

    /// Nobody waits for the request `id` any more.
    pub(super) fn forget(&mut self, id: &str) {
        self.remove(id);
    }

    /// Ends what has waited for too long. To be called every now and then. Returns the workers that are gone.
    pub(super) fn tick(&mut self, now: Moment) -> Vec<Arc<str>> {
        let dropped = self.finder.drop_silent(now);
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
                && self.looking.insert(topic.clone())
            {
                self.actions.push(Action::Look { topic: topic.clone() });
            }
        }
        if self.waiting.len() > self.requests.len() {
            self.waiting.retain(|id| self.requests.contains_key(id));
        }
        dropped
    }

    /// What a look at the topic has shown.
    pub(super) fn on_looked(&mut self, topic: &Arc<str>, is_consumed: Option<bool>, now: Moment) {
        self.looking.remove(topic);
        let Some(is_consumed) = is_consumed else { return };
        let mut lost = Vec::new();
        for (id, entry) in &mut self.requests {
            if entry.topic.as_ref() == Some(topic) && entry.is_in_doubt(&self.finder, self.expiry, now) {
                if is_consumed {
                    entry.heard = now;
                } else {
                    lost.push(id.clone());
                }
            }
        }
        for id in lost {
            self.end(&id, Err(RequestError::WorkerVanished { topic: topic.to_string() }));
        }
    }

    /// Ends all requests. What was not sent yet is not.
    pub(super) fn close(&mut self) {
        self.actions.retain(|action| !matches!(action, Action::Send { .. }));
        let ids: Vec<String> = self.requests.keys().cloned().collect();
        for id in ids {
            self.end(&id, Err(RequestError::Closed));
        }
    }

    /// Why this request is over at `now`, if it is.
    fn overdue(&self, entry: &Entry, now: Moment) -> Option<RequestError> {
        if entry.life.is_expired(now) {
            let was_sent = entry.topic.is_some();
            return Some(RequestError::Expired { timeout: entry.life.timeout()?, was_sent });
        }
        if entry.life.state() != State::Running {
            return None;
        }
        if entry.is_repeated && entry.is_silent(self.expiry, now) {
            return Some(RequestError::WorkerVanished { topic: entry.topic.as_ref()?.to_string() });
        }
        let timeout = entry.run_timeout?;
        (now.saturating_since(entry.started) > timeout).then_some(RequestError::Overdue { timeout })
    }

    /// Sends what waits and can be sent now.
    fn send_waiting(&mut self) {
        for id in std::mem::take(&mut self.waiting) {
            if let Some(id) = self.send(id) {
                self.waiting.push_back(id);
            }
        }
    }

    /// Sends the request `id` to a worker that can run it; gives the id back if there is none.
    fn send(&mut self, id: String) -> Option<String> {
        let entry = self.requests.get_mut(&id)?;
        let Some(topic) = self.finder.pick(&entry.task, entry.key.as_deref()) else {
            return Some(id);
        };
        entry.life.step(State::Pending).expect("only what waits is sent");
        entry.topic = Some(topic.clone());
        let body = std::mem::take(&mut entry.body);
        self.actions.push(Action::Send { id, topic, body });
        None
    }

    /// Somebody works on the request `id`.
    fn run(&mut self, id: &str, now: Moment) {
        let Some(entry) = self.requests.get_mut(id) else { return };
        if entry.life.step(State::Running) == Ok(Transition::Moved) {
            entry.started = now;
            self.actions.push(Action::Moved { id: id.to_owned(), state: State::Running });
        }
    }

    fn end(&mut self, id: &str, outcome: Outcome) {
        if let Err(RequestError::WorkerVanished { topic }) = &outcome {
            self.finder.doubt(topic);
        }
        if let Some((id, _)) = self.remove(id) {
            self.actions.push(Action::End { id, outcome });
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
