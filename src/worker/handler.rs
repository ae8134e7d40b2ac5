//! The code that a worker runs for a request: a [`Handler`] or closures, with [`Context`], [`Arguments`] and [`Undo`].

use std::{
    any::type_name, collections::BTreeMap, error::Error, fmt, future::Future, marker::PhantomData, sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{
    arguments::Arguments,
    link::Link,
    message::{
        Response,
        event::{Event, EventError},
        failure::Failure,
        request::TaskResult,
    },
    transport::{Message, TransportError},
};
use crate::future::BoxFuture;

/// One task of a worker, which can be executed and reverted.
///
/// For most tasks a closure is enough, also for those with state: see
/// [`WorkerBuilder::task`](super::WorkerBuilder::task) and
/// [`WorkerBuilder::revertible_task`](super::WorkerBuilder::revertible_task). Implement this trait for a task that is a
/// type of its own:
///
/// ```
/// use apportion::{
///     BoxFuture,
///     worker::{Arguments, Context, Failure, Handler, Undo},
/// };
/// use serde_json::Value;
///
/// /// Books rooms. `Worker::builder(broker).handler("hotel.Book", Book::default())` runs it.
/// #[derive(Default)]
/// struct Book(std::sync::Mutex<std::collections::BTreeSet<u32>>);
///
/// impl Handler for Book {
///     fn execute(&self, _: Context, arguments: Arguments) -> BoxFuture<'_, Result<Value, Failure>> {
///         Box::pin(async move {
///             let room = arguments.get("room")?;
///             let is_free = self.0.lock().unwrap().insert(room);
///             if is_free { Ok(room.into()) } else { Err(Failure::new("hotel.Taken", format!("room {room}"))) }
///         })
///     }
///
///     fn revert(&self, _: Context, arguments: Arguments, _: Undo) -> BoxFuture<'_, Result<Value, Failure>> {
///         Box::pin(async move {
///             let room: u32 = arguments.get("room")?;
///             Ok(self.0.lock().unwrap().remove(&room).into())
///         })
///     }
/// }
/// ```
///
/// A request is acknowledged before its task is run: if the worker dies while the task runs, no other worker runs it
/// again. A task that panics has failed. A task must not block its thread for long, or the worker cannot send
/// heartbeats; use `tokio::task::spawn_blocking` for code that blocks.
pub trait Handler: Send + Sync + 'static {
    /// Executes the task. If it is not done at the end of the timeout of [`Worker::shutdown`](super::Worker::shutdown),
    /// the future is dropped.
    ///
    /// # Errors
    ///
    /// The [`Failure`] that the executor gets.
    fn execute(&self, context: Context, arguments: Arguments) -> BoxFuture<'_, Result<Value, Failure>>;

    /// Reverts the task. The default does nothing.
    ///
    /// # Errors
    ///
    /// The [`Failure`] that the executor gets.
    fn revert(
        &self,
        context: Context,
        arguments: Arguments,
        undo: Undo,
    ) -> BoxFuture<'_, Result<Value, Failure>> {
        let _ = (context, arguments, undo);
        Box::pin(async { Ok(Value::Null) })
    }
}

/// The result of the task that is to be reverted, and the reasons. A handler or closure that reverts a task gets it.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Undo {
    /// The result of the task; `None` if the request does not contain it.
    pub result: Option<TaskResult>,
    /// The failures that are the reason to revert, by the names of the tasks that failed.
    pub failures: BTreeMap<String, Failure>,
}

impl Undo {
    /// The value that the task returned, as a `T`; `None` if the task failed, or the request does not contain it.
    ///
    /// # Errors
    ///
    /// The error of serde if the value is not a `T`.
    pub fn result_as<T: DeserializeOwned>(&self) -> Result<Option<T>, serde_json::Error> {
        match &self.result {
            Some(TaskResult::Success(value)) => T::deserialize(value).map(Some),
            Some(TaskResult::Failure(_)) | None => Ok(None),
        }
    }
}

/// The address for the responses to a request.
#[derive(Debug, Clone)]
pub(super) struct ReplyAddress {
    pub(super) link: Link,
    pub(super) reply_to: String,
    pub(super) correlation_id: String,
}

impl ReplyAddress {
    fn message(&self, response: &Response) -> Message {
        Message::new(Response::KIND, response.to_json()).correlation_id(&*self.correlation_id).mandatory()
    }

    pub(super) async fn send(&self, response: &Response) -> Result<(), TransportError> {
        self.link.send(&self.reply_to, self.message(response)).await
    }

    pub(super) async fn send_once(&self, response: &Response) -> Result<(), TransportError> {
        self.link.send_once(&self.reply_to, self.message(response)).await
    }
}

/// The request that a task runs for. A [`Handler`] or a closure gets it, and reports to the executor with it.
#[derive(Debug, Clone)]
pub struct Context {
    pub(super) address: ReplyAddress,
    pub(super) topic: Arc<str>,
    pub(super) task_cls: String,
    pub(super) task_name: String,
}

impl Context {
    /// The topic of the worker that runs the task.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The task, by the name under which the worker lists it.
    pub fn task_cls(&self) -> &str {
        &self.task_cls
    }

    /// The name of this use of the task.
    pub fn task_name(&self) -> &str {
        &self.task_name
    }

    /// The id of the request. In requests from TaskFlow it is the uuid of the task.
    pub fn request_id(&self) -> &str {
        &self.address.correlation_id
    }

    /// Reports to the executor how much is done, from 0 to 1. An error of the transport is logged, and the task goes
    /// on.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, the report may be sent or not.
    pub async fn update_progress(&self, done: f64) {
        let done = if done.is_nan() { 0.0 } else { done.clamp(0.0, 1.0) };
        self.send(Event::progress(done)).await;
    }

    /// Reports an event to the executor. `details` are a map or a struct. An error of the transport is logged, and the
    /// task goes on.
    ///
    /// # Errors
    ///
    /// [`EventError`] if `details` cannot be written as a JSON object. Nothing was sent.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, the event may be sent or not.
    pub async fn notify(
        &self,
        event_type: impl Into<String>,
        details: impl Serialize,
    ) -> Result<(), EventError> {
        let event = Event::new(event_type, details)?;
        self.send(event).await;
        Ok(())
    }

    async fn send(&self, event: Event) {
        if let Err(error) = self.address.send_once(&Response::Event(event)).await {
            tracing::warn!(id = self.request_id(), %error, "an event could not be sent");
        }
    }
}

/// Closures as a handler. `F` executes, `G` reverts.
pub(super) struct Closures<F, G, P>(F, G, PhantomData<fn() -> P>);

impl<F, Fut, T, E> Closures<F, (), (Fut, T, E)>
where
    F: Fn(Context, Arguments) -> Fut,
{
    pub(super) fn execute_only(execute: F) -> Self {
        Closures(execute, (), PhantomData)
    }
}

impl<F, G, P> Closures<F, G, P> {
    pub(super) fn new(execute: F, revert: G) -> Self {
        Closures(execute, revert, PhantomData)
    }
}

impl<F, Fut, T, E> Handler for Closures<F, (), (Fut, T, E)>
where
    F: Fn(Context, Arguments) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Serialize + 'static,
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
{
    fn execute(&self, context: Context, arguments: Arguments) -> BoxFuture<'_, Result<Value, Failure>> {
        Box::pin(async move { result_of((self.0)(context, arguments).await) })
    }
}

impl<F, Fut, T, E, G, GFut, U, D> Handler for Closures<F, G, (Fut, T, E, GFut, U, D)>
where
    F: Fn(Context, Arguments) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<T, E>> + Send + 'static,
    T: Serialize + 'static,
    E: Into<Box<dyn Error + Send + Sync>> + 'static,
    G: Fn(Context, Arguments, Undo) -> GFut + Send + Sync + 'static,
    GFut: Future<Output = Result<U, D>> + Send + 'static,
    U: Serialize + 'static,
    D: Into<Box<dyn Error + Send + Sync>> + 'static,
{
    fn execute(&self, context: Context, arguments: Arguments) -> BoxFuture<'_, Result<Value, Failure>> {
        Box::pin(async move { result_of((self.0)(context, arguments).await) })
    }

    fn revert(
        &self,
        context: Context,
        arguments: Arguments,
        undo: Undo,
    ) -> BoxFuture<'_, Result<Value, Failure>> {
        Box::pin(async move { result_of((self.1)(context, arguments, undo).await) })
    }
}

impl<F, G, P> fmt::Debug for Closures<F, G, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closures")
    }
}

/// Converts the result of a closure into that of a handler.
fn result_of<T, E>(result: Result<T, E>) -> Result<Value, Failure>
where
    T: Serialize,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let value = result.map_err(failure_of)?;
    serde_json::to_value(value).map_err(|error| Failure::of(&error))
}

/// Converts `error` into a failure. The failure has the name of the type of `error`, unless that is a box or a text.
fn failure_of<E: Into<Box<dyn Error + Send + Sync>>>(error: E) -> Failure {
    let name = type_name::<E>();
    match error.into().downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(error) => {
            let plain = Failure::of(&*error);
            // A box or a text stands for an error of an unknown type.
            let is_named = !["alloc::", "&", "anyhow::"].iter().any(|start| name.starts_with(start));
            let failure = Failure::new(if is_named { name } else { "" }, plain.exception_str());
            plain.causes().iter().cloned().fold(failure, Failure::caused_by)
        }
    }
}
