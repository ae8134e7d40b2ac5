//! Runs one request, from its acknowledgement to its result.

use std::{sync::Arc, time::Duration};

use serde_json::Value;
use tokio::time::sleep;
use tracing::{Span, info_span};

use super::{
    duplicates::Present,
    results::Kept,
    shared::{Shared, Slot},
};
use crate::{
    clock::Moment,
    metrics,
    task::caught,
    worker::{
        handler::{Context, Handler, ReplyAddress, Undo},
        lifecycle::START_HEARTBEATS,
        link,
        message::{Action, Response, failure::Failure, request::Request},
        transport::{Incoming, TransportError},
    },
};

/// How often the start of a request is tried to be reported to an executor that is away. With growing pauses, two
/// seconds all together.
const START_TRIES: u32 = 5;
/// The longest pause between attempts to send a result.
const LONGEST_DELAY: Duration = Duration::from_secs(10);
/// How long a result is sent again while its executor is away.
const AWAY: Duration = Duration::from_secs(600);

/// A request that can be run.
pub(super) struct Job {
    pub(super) incoming: Incoming,
    pub(super) address: ReplyAddress,
    pub(super) request: Request,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) present: Present,
    /// When it came.
    pub(super) since: Moment,
    /// How large its message is.
    pub(super) bytes: usize,
}

/// The error of a task that has not returned one itself.
#[derive(Debug, thiserror::Error)]
enum Abnormal {
    #[error("the task panicked: {0}")]
    Panicked(String),
    #[error("the worker was shut down before the task was done")]
    ShutDown,
    #[error("the start of the request could not be reported in time, so it was not run")]
    NotStarted,
    #[error("the result of the task could not be sent: {0}")]
    Unsendable(TransportError),
}

impl Job {
    /// The span of the request at this worker. That of its executor has the same id.
    pub(super) fn span(&self, topic: &str) -> Span {
        let (task, executor) = (self.request.task_cls(), &*self.address.reply_to);
        info_span!(parent: None, "request", id = &*self.address.correlation_id, task, topic, executor)
    }

    pub(super) async fn run(self, shared: Arc<Shared>, slot: Slot) {
        let Job { incoming, address, request, handler, mut present, since, .. } = self;
        let id = address.correlation_id.clone();
        let clock = shared.link.transport.clock();
        let before = clock.now();
        // Acknowledged first, so that it runs at most once: if this worker dies, no other worker gets it.
        if link::acknowledge(incoming).await.is_none() {
            return;
        }
        let reported = report_start(&address, present.is_unique).await;
        let is_in_time =
            clock.now().saturating_since(before) <= START_HEARTBEATS * shared.heartbeat || !present.is_unique;
        match reported {
            Ok(()) if is_in_time => {}
            Err(error) if !(present.is_unique && matches!(error, TransportError::Unavailable { .. })) => {
                tracing::error!(id, %error, "the start of a request could not be reported, so it is not run");
                return;
            }
            // The executor may have been told that it runs.
            reported => {
                tracing::error!(
                    id,
                    ?reported,
                    "the start of a request was reported too late, so it is not run"
                );
                present.begin();
                let response = Response::Failure(Failure::of(&Abnormal::NotStarted));
                return conclude(&shared, &address, response, slot, Some(present)).await;
            }
        }
        present.begin();
        let (task, began) = (request.task_cls(), clock.now());
        let labels = [&*shared.topic, task];
        metrics::WORKER_QUEUE_DURATION.record(&labels, began.saturating_since(since));
        let aborted = shared.tasks.cancelled();
        let result = tokio::select! {
            biased;
            // The task comes before the end of the worker, so that the result of a task that is done at that moment is
            // sent. No other branch is taken more than once.
            result = caught(perform(&*handler, &shared.topic, &address, &request)) => {
                result.unwrap_or_else(|panic| Err(Failure::of(&Abnormal::Panicked(panic))))
            }
            () = aborted.cancelled() => Err(Failure::of(&Abnormal::ShutDown)),
            never = repeat_running(&shared, &address) => match never {},
        };
        metrics::WORKER_RUN_DURATION.record(&labels, clock.now().saturating_since(began));
        let outcome = if result.is_ok() { "success" } else { "failure" };
        metrics::WORKER_ENDED.add(&[&*shared.topic, task, outcome]);
        let response = match result {
            Ok(value) => Response::Success(value),
            Err(failure) => {
                tracing::info!(id, task = request.task_cls(), %failure, "the task failed");
                Response::Failure(failure)
            }
        };
        // For an executor of TaskFlow, the request ends before the result is sent: it may try again with the same id at
        // once, and that is not a copy.
        let present = present.is_unique.then_some(present);
        conclude(&shared, &address, response, slot, present).await;
    }

    /// Gives it back to the broker. It comes again.
    pub(super) async fn give_back(self) {
        let Job { incoming, present, .. } = self;
        drop(present);
        if let Err(error) = incoming.requeue().await {
            tracing::debug!(%error, "a request could not be given back");
        }
    }
}

/// Reports RUNNING. An executor of TaskFlow that is away gets no report, as from TaskFlow's worker.
async fn report_start(address: &ReplyAddress, is_ours: bool) -> Result<(), TransportError> {
    let mut backoff = link::backoff(Duration::from_secs(1));
    for _ in 1..START_TRIES {
        match address.send(&Response::Running).await {
            Err(TransportError::NoConsumer { .. }) if !is_ours => return Ok(()),
            Err(TransportError::NoConsumer { .. }) => {
                sleep(backoff.next_delay(address.link.random.unit())).await;
            }
            end => return end,
        }
    }
    address.send(&Response::Running).await
}

async fn perform(
    handler: &dyn Handler,
    topic: &Arc<str>,
    address: &ReplyAddress,
    request: &Request,
) -> Result<Value, Failure> {
    let context = Context {
        address: address.clone(),
        topic: topic.clone(),
        task_cls: request.task_cls().to_owned(),
        task_name: request.task_name().to_owned(),
    };
    let arguments = request.arguments().clone().into();
    match request.action() {
        Action::Execute => handler.execute(context, arguments).await,
        Action::Revert => {
            let undo = Undo { result: request.result().cloned(), failures: request.failures().clone() };
            handler.revert(context, arguments, undo).await
        }
    }
}

/// Repeats RUNNING to the executor.
async fn repeat_running(shared: &Shared, address: &ReplyAddress) -> std::convert::Infallible {
    loop {
        sleep(shared.heartbeat).await;
        if let Err(error) = address.send_once(&Response::Running).await {
            tracing::debug!(id = address.correlation_id, %error, "a report of a running request could not be sent");
        }
    }
}

/// Reports the end of the request to the executor. It tries again as long as this worker lives, because no other
/// process has the result. Other requests need not wait for that, so the slot is free after the first attempt.
async fn conclude(
    shared: &Shared,
    address: &ReplyAddress,
    mut response: Response,
    slot: Slot,
    present: Option<Present>,
) {
    let (id, aborted) = (&address.correlation_id, shared.tasks.cancelled());
    let clock = shared.link.transport.clock();
    let began = clock.now();
    // Until the end, for an executor of this crate: the request counts as one that runs.
    let _present = present;
    let keep = |response: &Response| {
        let (reply_to, correlation_id) = (address.reply_to.clone(), id.clone());
        shared.results.keep(Kept { reply_to, correlation_id, body: response.to_json() })
    };
    let (mut kept, mut slot) = (keep(&response), Some(slot));
    let mut backoff = link::backoff(LONGEST_DELAY);
    let mut is_replaced = false;
    loop {
        let sent = address.send(&response).await;
        drop(slot.take());
        let Err(error) = sent else { return };
        let is_forgotten = !shared.results.has(kept);
        let is_too_late = clock.now().saturating_since(began) > AWAY || is_forgotten;
        match error {
            TransportError::Refused { .. } if !is_replaced => {
                tracing::error!(id, %error, "the broker refuses the result");
                response = Response::Failure(Failure::of(&Abnormal::Unsendable(error)));
                // It would be refused again, and keep the results after it from an executor that is back.
                shared.results.forget(kept);
                kept = keep(&response);
                is_replaced = true;
                continue;
            }
            TransportError::Unavailable { .. } if !aborted.is_cancelled() => {}
            TransportError::NoConsumer { .. } if !aborted.is_cancelled() && !is_too_late => {}
            _ => {
                tracing::error!(id, %error, "the result is lost");
                return;
            }
        }
        tracing::warn!(id, %error, "the result is sent again later");
        // At the end of the worker there is one more attempt.
        let delay = backoff.next_delay(shared.link.random.unit());
        aborted.run_until_cancelled(sleep(delay)).await;
    }
}
