//! Takes messages from the topic of a worker: answers executors, refuses requests that cannot be run, and runs the
//! others as soon as there is room. No message ends it.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};
use tracing::Instrument as _;

use super::{
    duplicates::RequestKey,
    report::{send_inventory, send_results_again},
    run::Job,
    shared::{Acquaintance, Shared, Slot},
};
use crate::{
    metrics,
    worker::{
        handler::ReplyAddress,
        link::{acknowledge, reject},
        message::{Notify, NotifyReply, Response, failure::Failure, request::Request},
        sender::Sender,
        transport::{Consumer, Incoming, Message},
    },
};

/// How long a request waits here at most before it is given back to the broker. It comes again. RabbitMQ closes the
/// channel of a consumer that has had a message for half an hour.
const LONGEST_WAIT: Duration = Duration::from_secs(600);
/// How often that is checked.
const WAIT_CHECK: Duration = Duration::from_secs(60);

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("this worker has no task {task:?}; it has {}", .offered.join(", "))]
    UnknownTask { task: String, offered: Vec<String> },
}

/// The consumer of a worker, and the requests that wait for a free slot.
struct Intake {
    shared: Arc<Shared>,
    consumer: Consumer,
    /// That of the consumer. It begins small and grows while the messages are small.
    prefetch: u16,
    waiting: VecDeque<Job>,
    /// Of all waiting requests.
    bytes: usize,
}

pub(super) async fn take_in(shared: Arc<Shared>, consumer: Consumer) {
    // At any end of this task, also by a panic, `Worker::closed` returns.
    let _end = shared.draining.clone().drop_guard();
    let prefetch = shared.first_prefetch();
    let mut intake =
        Intake { shared: shared.clone(), consumer, prefetch, waiting: VecDeque::new(), bytes: 0 };
    intake.run().await;
    drop(intake);
    withdraw(&shared).await;
}

impl Drop for Intake {
    fn drop(&mut self) {
        metrics::WORKER_OPEN.set(&[&*self.shared.topic, "waiting"], 0.0);
    }
}

impl Intake {
    async fn run(&mut self) {
        let shared = self.shared.clone();
        let mut checks = interval(WAIT_CHECK);
        checks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = shared.draining.cancelled() => return,
                // Before the messages, which may come without a pause. It does not delay them for long: it is ready only
                // while there are free slots.
                Ok(permit) = shared.slots.clone().acquire_owned(), if !self.waiting.is_empty() => {
                    if let Some(job) = self.waiting.pop_front() {
                        self.bytes -= job.bytes;
                        let slot = Slot::new(shared.clone(), permit);
                        let span = job.span(&shared.topic);
                        shared.tasks.spawn("request", job.run(shared.clone(), slot).instrument(span));
                    }
                }
                _ = checks.tick() => self.give_back_old().await,
                incoming = self.consumer.next() => match incoming {
                    Some(incoming) => {
                        if let Some(job) = dispatch(&shared, incoming).await {
                            self.bytes += job.bytes;
                            self.waiting.push_back(job);
                        }
                    }
                    None => if !self.consume_again().await {
                        return;
                    }
                },
            }
            self.fit().await;
            metrics::WORKER_OPEN.set(&[&*shared.topic, "waiting"], self.waiting.len() as f64);
            shared.fullness.set(self.waiting.len() >= usize::from(self.prefetch));
        }
    }

    /// Returns false at the end of the worker.
    async fn consume_again(&mut self) -> bool {
        // The broker has taken back the unacknowledged messages.
        self.waiting.clear();
        self.bytes = 0;
        let shared = &self.shared;
        tracing::warn!(topic = &*shared.topic, "the connection is gone");
        let prefetch = shared.first_prefetch();
        let again = shared.link.consume_again(&shared.topic, prefetch, &shared.draining).await;
        let Some(again) = again else { return false };
        self.consumer = again;
        self.prefetch = prefetch;
        shared.changed.notify_one();
        true
    }

    /// Gives back the requests that have waited for too long.
    async fn give_back_old(&mut self) {
        let now = self.shared.link.transport.clock().now();
        let is_old = |job: &Job| now.saturating_since(job.since) >= LONGEST_WAIT;
        let count = self.waiting.iter().take_while(|job| is_old(job)).count();
        // The first one last, so that it is at the front again.
        let old: Vec<Job> = self.waiting.drain(..count).collect();
        for job in old.into_iter().rev() {
            self.bytes -= job.bytes;
            job.give_back().await;
        }
    }

    /// The prefetch that keeps the bytes of the waiting requests near the limit: smaller if they are too many, larger if it
    /// is used up by small messages. A worker that is idle begins anew.
    fn wanted_prefetch(&self) -> u16 {
        let (shared, limit) = (&self.shared, self.shared.prefetch_bytes);
        let average = self.bytes / self.waiting.len().max(1);
        // The requests that wait come on top of it until they are acknowledged.
        let fitting = u16::try_from(limit / 2 / average.max(1)).unwrap_or(u16::MAX).clamp(1, shared.prefetch);
        let is_idle = shared.running() == 0;
        if self.is_too_much() {
            fitting.min(self.prefetch)
        } else if self.waiting.len() >= usize::from(self.prefetch) && self.bytes < limit / 2 {
            fitting.min(self.prefetch.saturating_mul(4)).max(self.prefetch)
        } else if self.waiting.is_empty() && is_idle {
            shared.first_prefetch()
        } else {
            self.prefetch
        }
    }

    fn is_too_much(&self) -> bool {
        self.bytes > self.shared.prefetch_bytes && self.waiting.len() > 1
    }

    /// Consumes with another prefetch, if the requests that wait are too large or much smaller than the limit.
    async fn fit(&mut self) {
        let wanted = self.wanted_prefetch();
        if wanted == self.prefetch {
            return;
        }
        // The new one before the old one goes: a queue ends with its last consumer.
        match self.shared.link.consume(&self.shared.topic, wanted).await {
            Ok(consumer) => {
                self.consumer = consumer;
                self.prefetch = wanted;
            }
            Err(error) => {
                tracing::debug!(%error, "the prefetch could not be changed");
                return;
            }
        }
        // Only together with a smaller prefetch: otherwise they come again at once.
        while self.is_too_much() {
            if let Some(job) = self.waiting.pop_back() {
                self.bytes -= job.bytes;
                job.give_back().await;
            }
        }
    }
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
    let Some(message) = acknowledge(incoming).await else { return };
    let acquaintance = shared.executors.add(&executor, message.sender.as_deref().map(Sender::parse));
    let to_answer = shared.clone();
    shared.tasks.spawn("notify", async move {
        let shared = to_answer;
        if shared.draining.is_cancelled() {
            return;
        }
        // Before the answer, upon which the executor sends requests.
        if acquaintance == Acquaintance::Back {
            send_results_again(&shared, &executor).await;
        }
        if acquaintance != Acquaintance::Known {
            send_inventory(&shared, &executor, !shared.fullness.is_or_was()).await;
        }
        let reply = shared.reply_listing(shared.handlers.keys().cloned().collect());
        let message = Message::new(NotifyReply::KIND, reply.to_json());
        // The executor will ask again.
        if let Err(error) = shared.link.send_once(&executor, message).await {
            tracing::warn!(executor, %error, "the answer to an executor could not be sent");
        }
    });
}

async fn prepare(shared: &Arc<Shared>, mut incoming: Incoming) -> Option<Job> {
    let message = incoming.message();
    let (Some(reply_to), Some(correlation_id)) = (message.reply_to.clone(), message.correlation_id.clone())
    else {
        reject(incoming, "it has no topic or no id for the answer").await;
        return None;
    };
    let address = ReplyAddress { link: shared.link.clone(), reply_to, correlation_id };
    if message.only_for.as_deref().is_some_and(|name| name != &*shared.link.name) {
        tracing::debug!(id = address.correlation_id, "a copy of a request for another worker is dropped");
        acknowledge(incoming).await;
        return None;
    }
    let request = match Request::from_json(&message.body) {
        Ok(request) => request,
        Err(error) => {
            refuse(shared, incoming, address, Failure::of(&error));
            return None;
        }
    };
    let Some(handler) = shared.handlers.get(request.task_cls()).cloned() else {
        let offered = shared.handlers.keys().cloned().collect();
        let refusal = Refusal::UnknownTask { task: request.task_cls().to_owned(), offered };
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
    let since = shared.link.transport.clock().now();
    let bytes = incoming.take_body().len();
    Some(Job { incoming, address, request, handler, present, since, bytes })
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
