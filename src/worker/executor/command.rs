//! The messages between the handles of an executor and its driver: [`Command`] and [`Status`].

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use tokio::sync::oneshot;
use tracing::Span;

use crate::{
    clock::Moment,
    watch,
    worker::{
        engine::{Ended, New},
        message::event::Event,
        state::RequestState,
        transport::TransportError,
    },
};

/// The topics of the workers that have answered lately, each with the tasks that its worker can run. From
/// [`Executor::workers`](super::Executor::workers).
pub type Workers = BTreeMap<String, Vec<String>>;

/// How many events are kept for late readers.
const KEPT: usize = 64;

/// A command of a handle to the driver, or a report of one of its own tasks.
#[derive(Debug)]
pub(super) enum Command {
    Submit {
        id: String,
        new: New,
        ended: oneshot::Sender<Ended>,
        status: watch::Sender<Status>,
        /// The span of the request.
        span: Span,
    },
    Forget {
        id: String,
    },
    NotSent {
        id: String,
        error: TransportError,
    },
    /// The request was not delivered, because the topic has no consumer.
    Returned {
        id: String,
        topic: Arc<str>,
    },
    /// A question at the moment `asked` was not delivered, because the topic has no consumer.
    Absent {
        topic: String,
        asked: Moment,
    },
    /// Whether the topic has a consumer; `None` if the broker did not answer.
    Checked {
        topic: Arc<str>,
        is_consumed: Option<bool>,
    },
}

/// The state of a request, and its events.
#[derive(Debug)]
pub(super) struct Status {
    pub(super) state: RequestState,
    /// The topic of the worker that it was sent to.
    pub(super) topic: Option<Arc<str>>,
    events: VecDeque<Event>,
    /// How many earlier events were dropped.
    dropped: u64,
}

impl Status {
    pub(super) fn new() -> Self {
        Status { state: RequestState::Waiting, topic: None, events: VecDeque::new(), dropped: 0 }
    }

    pub(super) fn add(&mut self, event: Event) {
        if self.events.len() == KEPT {
            self.events.pop_front();
            self.dropped += 1;
        }
        self.events.push_back(event);
    }

    /// The first kept event from number `next` on, and its number.
    pub(super) fn event(&self, next: u64) -> Option<(u64, &Event)> {
        let number = next.max(self.dropped);
        let index = usize::try_from(number - self.dropped).ok()?;
        Some((number, self.events.get(index)?))
    }
}
