//! Takes messages from the topic of a worker: answers executors, refuses requests that cannot be run, and runs the
//! others as soon as there is room. No message ends it.

use std::{collections::VecDeque, sync::Arc};

use super::{duplicates::RequestKey, run::Job, shared::Shared};
use crate::worker::{
    handler::ReplyAddress,
    link::{acknowledge, reject},
    message::{Notify, NotifyReply, Response, failure::Failure, request::Request},
    transport::{Consumer, Incoming, Message},
};

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("this worker has no task {0:?}")]
    UnknownTask(String),
}

pub(super) async fn take_in(shared: Arc<Shared>, mut consumer: Consumer) {
    // At any end of this task, also by a panic, `Worker::closed` returns.
    let _end = shared.draining.clone().drop_guard();
    let mut waiting: VecDeque<Job> = VecDeque::new();
    loop {
        tokio::select! {
            biased;
            () = shared.draining.cancelled() => break,
            // Before the messages, which may come without a pause. It does not delay them for long: it is ready only
            // while there are free slots.
            Ok(slot) = shared.slots.clone().acquire_owned(), if !waiting.is_empty() => {
                if let Some(job) = waiting.pop_front() {
                    shared.tasks.spawn("request", job.run(shared.clone(), slot));
                }
            }
            incoming = consumer.next() => match incoming {
                Some(incoming) => waiting.extend(dispatch(&shared, incoming).await),
                None => {
                    // The broker has taken back the unacknowledged messages.
                    waiting.clear();
                    tracing::warn!(topic = &*shared.topic, "the connection is gone");
                    let again = shared.link.consume_again(&shared.topic, shared.prefetch, &shared.draining).await;
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
    withdraw(&shared).await;
}

/// Reports to the executors that this worker has no tasks any more, so that they choose others.
async fn withdraw(shared: &Shared) {
    let reply = shared.reply_listing(Vec::new()).to_json();
    for executor in shared.executors.take() {
        let message = Message::new(NotifyReply::KIND, reply.clone());
        if let Err(error) = shared.link.send_once(&executor, message).await {
            tracing::debug!(topic = &*shared.topic, %error, "the end of the worker could not be reported to the executors");
            return;
        }
    }
}

/// Handles one message; a request that can be run is returned.
async fn dispatch(shared: &Arc<Shared>, incoming: Incoming) -> Option<Job> {
    match incoming.message().kind.as_deref() {
        Some(Notify::KIND) => {
            answer(shared, incoming).await;
            None
        }
        Some(Request::KIND) => prepare(shared, incoming).await,
        _ => {
            reject(incoming, "a worker does not accept messages of this kind").await;
            None
        }
    }
}

async fn answer(shared: &Arc<Shared>, incoming: Incoming) {
    if let Err(error) = Notify::from_json(&incoming.message().body) {
        return reject(incoming, &error.to_string()).await;
    }
    let Some(executor) = incoming.message().reply_to.clone() else {
        return reject(incoming, "it has no topic for the answer").await;
    };
    if acknowledge(incoming).await.is_none() {
        return;
    }
    shared.executors.add(&executor);
    let to_answer = shared.clone();
    shared.tasks.spawn("notify", async move {
        let shared = to_answer;
        if shared.draining.is_cancelled() {
            return;
        }
        let reply = shared.reply_listing(shared.handlers.keys().cloned().collect());
        let message = Message::new(NotifyReply::KIND, reply.to_json());
        // The executor will ask again.
        if let Err(error) = shared.link.send_once(&executor, message).await {
            tracing::warn!(executor, %error, "the answer to an executor could not be sent");
        }
    });
}

async fn prepare(shared: &Arc<Shared>, incoming: Incoming) -> Option<Job> {
    let message = incoming.message();
    let (Some(reply_to), Some(correlation_id)) = (message.reply_to.clone(), message.correlation_id.clone())
    else {
        reject(incoming, "it has no topic or no id for the answer").await;
        return None;
    };
    let address = ReplyAddress { link: shared.link.clone(), reply_to, correlation_id };
    let request = match Request::from_json(&message.body) {
        Ok(request) => request,
        Err(error) => {
            refuse(shared, incoming, address, Failure::of(&error));
            return None;
        }
    };
    let Some(handler) = shared.handlers.get(request.task_cls()).cloned() else {
        let refusal = Refusal::UnknownTask(request.task_cls().to_owned());
        refuse(shared, incoming, address, Failure::of(&refusal));
        return None;
    };
    let key = RequestKey {
        reply_to: address.reply_to.clone(),
        correlation_id: address.correlation_id.clone(),
        action: request.action(),
    };
    let Some(present) = shared.duplicates.enter(key, message.sender.is_some()) else {
        tracing::debug!(id = address.correlation_id, "a copy of a request is dropped");
        acknowledge(incoming).await;
        return None;
    };
    Some(Job { incoming, address, request, handler, present })
}

/// Answers a request that cannot be run with a FAILURE, and acknowledges it.
fn refuse(shared: &Arc<Shared>, incoming: Incoming, address: ReplyAddress, failure: Failure) {
    tracing::warn!(id = address.correlation_id, %failure, "a request is refused");
    shared.tasks.spawn("refuse", async move {
        if let Err(error) = address.send(&Response::Failure(failure)).await {
            tracing::error!(id = address.correlation_id, %error, "the refusal could not be sent");
        }
        acknowledge(incoming).await;
    });
}
