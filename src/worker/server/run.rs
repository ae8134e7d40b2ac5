//! Runs one request, from its acknowledgement to its result.

use std::{
    any::Any,
    future::{Future, poll_fn},
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use serde_json::Value;
use tokio::{sync::OwnedSemaphorePermit, time::sleep};

use super::{duplicates::Present, shared::Shared};
use crate::worker::{
    handler::{Context, Handler, ReplyAddress, Undo},
    link,
    message::{Action, Response, failure::Failure, request::Request},
    transport::{Incoming, TransportError},
};

/// A request that can be run.
pub(super) struct Job {
    pub(super) incoming: Incoming,
    pub(super) address: ReplyAddress,
    pub(super) request: Request,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) present: Present,
}

/// The error of a task that has not returned one itself.
#[derive(Debug, thiserror::Error)]
enum Abnormal {
    #[error("the task panicked: {0}")]
    Panicked(String),
    #[error("the worker was shut down before the task was done")]
    ShutDown,
    #[error("the result of the task could not be sent: {0}")]
    Unsendable(TransportError),
}

impl Job {
    pub(super) async fn run(self, shared: Arc<Shared>, slot: OwnedSemaphorePermit) {
        let Job { incoming, address, request, handler, mut present } = self;
        let id = address.correlation_id.clone();
        // Acknowledged first, so that it runs at most once: if this worker dies, no other worker gets it.
        if link::acknowledge(incoming).await.is_none() {
            return;
        }
        present.has_run = true;
        if let Err(error) = address.send(&Response::Running).await {
            tracing::error!(id, %error, "the start of a request could not be reported, so it is not run");
            return;
        }
        let aborted = shared.tasks.cancelled();
        let result = tokio::select! {
            biased;
            // The task comes before the end of the worker, so that the result of a task that is done at that moment is
            // sent. No other branch is taken more than once.
            result = caught(perform(&*handler, &shared.topic, &address, &request)) => result,
            () = aborted.cancelled() => Err(Failure::of(&Abnormal::ShutDown)),
            never = repeat_running(&shared, &address) => match never {},
        };
        let response = match result {
            Ok(value) => Response::Success(value),
            Err(failure) => {
                tracing::info!(id, task = request.task_cls(), %failure, "the task failed");
                Response::Failure(failure)
            }
        };
        // Before the result is sent: an executor of TaskFlow may try again with the same id at once, and that is not a
        // copy.
        drop(present);
        conclude(&shared, &address, response).await;
        drop(slot);
    }
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

/// The result of `work`; if it panics, that is a failure.
async fn caught(work: impl Future<Output = Result<Value, Failure>>) -> Result<Value, Failure> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        // It is not polled again after a panic.
        catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)))
            .unwrap_or_else(|panic| Poll::Ready(Err(Failure::of(&Abnormal::Panicked(message(&*panic))))))
    })
    .await
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
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
/// process has the result.
async fn conclude(shared: &Shared, address: &ReplyAddress, mut response: Response) {
    let (id, aborted) = (&address.correlation_id, shared.tasks.cancelled());
    let mut backoff = link::backoff();
    let mut is_replaced = false;
    loop {
        let error = match address.send(&response).await {
            Ok(()) => return,
            Err(error) => error,
        };
        match error {
            TransportError::Refused { .. } if !is_replaced => {
                tracing::error!(id, %error, "the broker refuses the result");
                response = Response::Failure(Failure::of(&Abnormal::Unsendable(error)));
                is_replaced = true;
                continue;
            }
            TransportError::Unavailable { .. } if !aborted.is_cancelled() => {}
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
