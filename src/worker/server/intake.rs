//! Takes messages from the topic of a worker: answers who asks, sorts out what cannot be run, and starts the rest
//! as soon as there is room. No message ends it.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
};

use super::{Inner, run::Job};
use crate::worker::{
    failure::Failure,
    handler::Address,
    link::{acknowledge, reject},
    message::{Action, Notify, NotifyReply, Request, Response},
    transport::{Consumer, Incoming, Message},
};

/// How many executors hear that a worker is about to go.
const EXECUTORS: usize = 64;
/// How many requests that are done with are remembered, lest a copy of one is run.
const DONE: usize = 1024;

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("this worker has no task {0:?}")]
    UnknownTask(String),
}

/// Whom a worker has met, and which requests it knows.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Where the answers to those executors go that asked last, the latest at the end.
    executors: VecDeque<String>,
    /// The requests that are here, and the last ones that are done with.
    known: HashSet<Arc<Mark>>,
    done: VecDeque<Arc<Mark>>,
}

/// What tells a request from others.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Mark {
    reply_to: String,
    correlation_id: String,
    action: Action,
}

impl Memory {
    fn meet(&mut self, executor: &str) {
        self.executors.retain(|known| known != executor);
        if self.executors.len() == EXECUTORS {
            self.executors.pop_front();
        }
        self.executors.push_back(executor.to_owned());
    }

    fn finish(&mut self, mark: &Arc<Mark>) {
        if self.done.len() == DONE {
            self.done.pop_front().map(|oldest| self.known.remove(&oldest));
        }
        self.done.push_back(mark.clone());
    }
}

/// A request that is here. While this lives, a copy of it is not taken.
pub(super) struct Presence {
    inner: Arc<Inner>,
    mark: Arc<Mark>,
    /// Whether its id will not be used again.
    is_unique: bool,
    pub(super) has_run: bool,
}

impl Presence {
    fn of(inner: &Arc<Inner>, address: &Address, action: Action, is_unique: bool) -> Option<Self> {
        let (reply_to, correlation_id) = (address.reply_to.clone(), address.correlation_id.clone());
        let mark = Arc::new(Mark { reply_to, correlation_id, action });
        inner.memory().known.insert(mark.clone()).then(|| Presence {
            inner: inner.clone(),
            mark,
            is_unique,
            has_run: false,
        })
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut memory = self.inner.memory();
        if self.has_run && self.is_unique {
            memory.finish(&self.mark);
        } else {
            memory.known.remove(&self.mark);
        }
    }
}

pub(super) async fn take_in(inner: Arc<Inner>, mut consumer: Consumer) {
    // However this ends, `Worker::closed` hears of it.
    let _end = inner.draining.clone().drop_guard();
    let mut waiting: VecDeque<Job> = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            () = inner.draining.cancelled() => break,
            Ok(slot) = inner.slots.clone().acquire_owned(), if !waiting.is_empty() => {
                if let Some(job) = waiting.pop_front() {
                    inner.tasks.spawn("request", job.run(inner.clone(), slot));
                }
            }
            incoming = consumer.next() => match incoming {
                Some(incoming) => waiting.extend(sort(&inner, incoming).await),
                None => {
                    // The broker has taken back what was not acknowledged.
                    waiting.clear();
                    tracing::warn!(topic = &*inner.topic, "the connection is gone");
                    let again = inner.link.consume_again(&inner.topic, inner.prefetch, &inner.draining).await;
                    match again {
                        Some(again) => consumer = again,
                        None => break,
                    }
                }
            },
        }
    }
    drop(waiting);
    drop(consumer);
    say_goodbye(&inner).await;
}

/// Executors that hear that this worker lists nothing choose others.
async fn say_goodbye(inner: &Inner) {
    let executors = std::mem::take(&mut inner.memory().executors);
    let reply = inner.reply_listing(Vec::new()).to_json();
    for executor in executors {
        let message = Message::new(NotifyReply::KIND, reply.clone());
        if let Err(error) = inner.link.send_once(&executor, message).await {
            tracing::debug!(topic = &*inner.topic, %error, "leaving without a word");
            return;
        }
    }
}

/// Deals with one message; one that asks for something to be run is returned.
async fn sort(inner: &Arc<Inner>, incoming: Incoming) -> Option<Job> {
    match incoming.message().kind.as_deref() {
        Some(Notify::KIND) => {
            answer(inner, incoming).await;
            None
        }
        Some(Request::KIND) => prepare(inner, incoming).await,
        _ => {
            reject(incoming, "a message of no kind that a worker knows").await;
            None
        }
    }
}

async fn answer(inner: &Arc<Inner>, incoming: Incoming) {
    if let Err(error) = Notify::from_json(&incoming.message().body) {
        return reject(incoming, &error.to_string()).await;
    }
    let Some(executor) = incoming.message().reply_to.clone() else {
        return reject(incoming, "nobody to answer to").await;
    };
    if acknowledge(incoming).await.is_none() {
        return;
    }
    inner.memory().meet(&executor);
    let inner_too = inner.clone();
    inner.tasks.spawn("notify", async move {
        let inner = inner_too;
        if inner.draining.is_cancelled() {
            return;
        }
        let reply = inner.reply_listing(inner.handlers.keys().cloned().collect());
        let message = Message::new(NotifyReply::KIND, reply.to_json());
        // The executor will ask again.
        if let Err(error) = inner.link.send_once(&executor, message).await {
            tracing::warn!(executor, %error, "could not answer");
        }
    });
}

async fn prepare(inner: &Arc<Inner>, incoming: Incoming) -> Option<Job> {
    let message = incoming.message();
    let (Some(reply_to), Some(correlation_id)) = (message.reply_to.clone(), message.correlation_id.clone())
    else {
        reject(incoming, "nobody to answer to").await;
        return None;
    };
    let address = Address { link: inner.link.clone(), reply_to, correlation_id };
    let request = match Request::from_json(&message.body) {
        Ok(request) => request,
        Err(error) => {
            refuse(inner, incoming, address, Failure::of(&error));
            return None;
        }
    };
    let Some(handler) = inner.handlers.get(request.task_cls()).cloned() else {
        let refusal = Refusal::UnknownTask(request.task_cls().to_owned());
        refuse(inner, incoming, address, Failure::of(&refusal));
        return None;
    };
    let Some(presence) = Presence::of(inner, &address, request.action(), message.sender.is_some()) else {
        tracing::debug!(id = address.correlation_id, "a copy of a request is dropped");
        acknowledge(incoming).await;
        return None;
    };
    Some(Job { incoming, address, request, handler, presence })
}

/// Answers with a FAILURE, and acknowledges what cannot be run.
fn refuse(inner: &Arc<Inner>, incoming: Incoming, address: Address, failure: Failure) {
    tracing::warn!(id = address.correlation_id, %failure, "refused");
    inner.tasks.spawn("refuse", async move {
        if let Err(error) = address.tell(&Response::Failure(failure)).await {
            tracing::error!(id = address.correlation_id, %error, "the refusal could not be sent");
        }
        acknowledge(incoming).await;
    });
}
