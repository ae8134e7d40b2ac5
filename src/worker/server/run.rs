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

use super::{Inner, intake::Presence};
use crate::worker::{
    failure::Failure,
    handler::{Address, Context, Handler, Undo},
    link,
    message::{Action, Request, Response},
    transport::{Incoming, TransportError},
};

/// A request that can be run.
pub(super) struct Job {
    pub(super) incoming: Incoming,
    pub(super) address: Address,
    pub(super) request: Request,
    pub(super) handler: Arc<dyn Handler>,
    pub(super) presence: Presence,
}

/// How a task failed without an error of its own.
#[derive(Debug, thiserror::Error)]
enum Abnormal {
    #[error("the task panicked: {0}")]
    Panicked(String),
    #[error("the worker was shut down before the task was done")]
    ShutDown,
    #[error("what became of the task could not be sent: {0}")]
    Unsendable(TransportError),
}

impl Job {
    pub(super) async fn run(self, inner: Arc<Inner>, slot: OwnedSemaphorePermit) {
        let Job { incoming, address, request, handler, mut presence } = self;
        let id = address.correlation_id.clone();
        // First, so that it runs at most once: should this worker die, nobody gets it again.
        if link::acknowledge(incoming).await.is_none() {
            return;
        }
        presence.has_run = true;
        if let Err(error) = address.tell(&Response::Running).await {
            tracing::error!(id, %error, "the executor cannot be told, so the request is not run");
            return;
        }
        let aborted = inner.tasks.cancelled();
        let outcome = tokio::select! {
            biased;
            outcome = caught(perform(&*handler, &inner.topic, &address, &request)) => outcome,
            () = aborted.cancelled() => Err(Failure::of(&Abnormal::ShutDown)),
            never = repeat_running(&inner, &address) => match never {},
        };
        let response = match outcome {
            Ok(value) => Response::Success(value),
            Err(failure) => {
                tracing::info!(id, task = request.task_cls(), %failure, "the task failed");
                Response::Failure(failure)
            }
        };
        // Before the executor hears of the end: TaskFlow's may try again under the same id at once, and that is no copy.
        drop(presence);
        conclude(&inner, &address, response).await;
        drop(slot);
    }
}

async fn perform(
    handler: &dyn Handler,
    topic: &Arc<str>,
    address: &Address,
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

/// The outcome of `work`; if it panics, that is a failure.
async fn caught(work: impl Future<Output = Result<Value, Failure>>) -> Result<Value, Failure> {
    let mut work = pin!(work);
    poll_fn(|cx| {
        // It is not polled again after a panic.
        catch_unwind(AssertUnwindSafe(|| work.as_mut().poll(cx)))
            .unwrap_or_else(|panic| Poll::Ready(Err(Failure::of(&Abnormal::Panicked(said(&*panic))))))
    })
    .await
}

fn said(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "no message".into())
}

/// Goes on telling the executor that the task is running.
async fn repeat_running(inner: &Inner, address: &Address) -> std::convert::Infallible {
    loop {
        sleep(inner.heartbeat).await;
        if let Err(error) = address.tell_once(&Response::Running).await {
            tracing::debug!(id = address.correlation_id, %error, "the executor was not told that it is running");
        }
    }
}

/// Tells the executor how it ended, for as long as this worker lives: it has nobody else to hear it from.
async fn conclude(inner: &Inner, address: &Address, mut response: Response) {
    let (id, aborted) = (&address.correlation_id, inner.tasks.cancelled());
    let (mut backoff, mut dice) = (link::backoff(), fastrand::Rng::new());
    let mut is_replaced = false;
    loop {
        let error = match address.tell(&response).await {
            Ok(()) => return,
            Err(error) => error,
        };
        match error {
            TransportError::Refused { .. } if !is_replaced => {
                tracing::error!(id, %error, "the broker will not carry the outcome");
                response = Response::Failure(Failure::of(&Abnormal::Unsendable(error)));
                is_replaced = true;
                continue;
            }
            TransportError::Unavailable { .. } if !aborted.is_cancelled() => {}
            _ => {
                tracing::error!(id, %error, "the outcome is lost");
                return;
            }
        }
        tracing::warn!(id, %error, "sending the outcome again later");
        tokio::select! {
            () = sleep(backoff.next_delay(dice.f64())) => {}
            () = aborted.cancelled() => {}
        }
    }
}
