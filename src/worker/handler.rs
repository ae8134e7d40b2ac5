//! What a worker does for a request: [`Handler`], or closures, with [`Context`], [`Arguments`] and [`Undo`].

use std::{
    any::type_name, collections::BTreeMap, error::Error, fmt, future::Future, marker::PhantomData, sync::Arc,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use super::{
    failure::Failure,
    link::Link,
    message::{Response, TaskResult},
    transport::{Message, TransportError},
};
use crate::future::BoxFuture;

/// One task of a worker, which can be executed and reverted.
///
/// For most tasks a closure is enough: see [`WorkerBuilder::task`](super::WorkerBuilder::task) and
/// [`WorkerBuilder::revertible_task`](super::WorkerBuilder::revertible_task), also with some state. This is for tasks
/// that are types of their own:
///
/// ```
/// use apportion::{
///     BoxFuture,
///     worker::{Arguments, Context, Handler, Undo, failure::Failure},
/// };
/// use serde_json::Value;
///
/// /// Keeps rooms. `Worker::builder(broker).handler("hotel.Book", Book::default())` runs it.
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
/// A request is acknowledged before its task is run: when the worker dies in between, nobody else takes over. A task that panics has failed. It must not block its thread for long, since
/// then the worker cannot tell that it is alive; `tokio::task::spawn_blocking` is for that.
pub trait Handler: Send + Sync + 'static {
    /// Does the work. When the worker shuts down and its patience ends, the future is dropped.
    fn execute(&self, context: Context, arguments: Arguments) -> BoxFuture<'_, Result<Value, Failure>>;

    /// Undoes the work. By default there is nothing to undo.
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

/// What is known of the work that is to be undone.
#[derive(Debug, Clone, PartialEq, Default)]
#[non_exhaustive]
pub struct Undo {
    /// What became of it, if the executor says so.
    pub result: Option<TaskResult>,
    /// Which failures are the reason, by the names of the tasks that failed.
    pub failures: BTreeMap<String, Failure>,
}

/// The arguments of a task, by name.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Arguments(Map<String, Value>);

/// An argument is missing or is not what the task needs.
#[derive(Debug, thiserror::Error)]
#[error("argument {name:?}: {reason}")]
pub struct ArgumentError {
    name: String,
    reason: serde_json::Error,
}

impl Arguments {
    /// The argument `name`; one that is missing is read as `null`, so that an `Option` is one to leave out.
    ///
    /// # Errors
    ///
    /// [`ArgumentError`] if it is not a `T`.
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Result<T, ArgumentError> {
        let value = self.0.get(name);
        T::deserialize(value.unwrap_or(&Value::Null)).map_err(|reason| {
            let reason = if value.is_some() { reason } else { serde::de::Error::custom("it is missing") };
            ArgumentError { name: name.to_owned(), reason }
        })
    }

    /// All arguments as one value with a field for each.
    ///
    /// # Errors
    ///
    /// What is wrong with them.
    pub fn parse<T: DeserializeOwned>(self) -> serde_json::Result<T> {
        T::deserialize(Value::Object(self.0))
    }

    /// All arguments.
    pub fn as_map(&self) -> &Map<String, Value> {
        &self.0
    }
}

impl From<Map<String, Value>> for Arguments {
    fn from(arguments: Map<String, Value>) -> Self {
        Arguments(arguments)
    }
}

impl From<ArgumentError> for Failure {
    fn from(error: ArgumentError) -> Self {
        Failure::of(&error)
    }
}

/// Who wants to know of a request.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) link: Link,
    pub(super) reply_to: String,
    pub(super) correlation_id: String,
}

impl Address {
    fn message(&self, response: &Response) -> Message {
        Message::new(Response::KIND, response.to_json()).correlation_id(&*self.correlation_id)
    }

    pub(super) async fn tell(&self, response: &Response) -> Result<(), TransportError> {
        self.link.send(&self.reply_to, self.message(response)).await
    }

    pub(super) async fn tell_once(&self, response: &Response) -> Result<(), TransportError> {
        self.link.send_once(&self.reply_to, self.message(response)).await
    }
}

/// What a task knows of the request that it runs for, and its line to the executor.
#[derive(Debug, Clone)]
pub struct Context {
    pub(super) address: Address,
    pub(super) topic: Arc<str>,
    pub(super) task_cls: String,
    pub(super) task_name: String,
}

impl Context {
    /// The topic of the worker that runs it.
    pub fn topic(&self) -> &str {
        &self.topic
    }

    /// The task, as the worker lists it.
    pub fn task_cls(&self) -> &str {
        &self.task_cls
    }

    /// The name of this use of the task.
    pub fn task_name(&self) -> &str {
        &self.task_name
    }

    /// The id of the request, which TaskFlow takes from the task.
    pub fn request_id(&self) -> &str {
        &self.address.correlation_id
    }

    /// Tells the executor how much is done, from 0 to 1. That it cannot be told is logged and no reason to stop.
    pub async fn update_progress(&self, done: f64) {
        let done = if done.is_nan() { 0.0 } else { done.clamp(0.0, 1.0) };
        self.send(Response::progress(done)).await;
    }

    /// Tells the executor that something happened. That it cannot be told is logged and no reason to stop.
    pub async fn notify(&self, event_type: impl Into<String>, details: Map<String, Value>) {
        self.send(Response::Event { event_type: event_type.into(), details }).await;
    }

    async fn send(&self, event: Response) {
        if let Err(error) = self.address.tell_once(&event).await {
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
        Box::pin(async move { outcome((self.0)(context, arguments).await) })
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
        Box::pin(async move { outcome((self.0)(context, arguments).await) })
    }

    fn revert(
        &self,
        context: Context,
        arguments: Arguments,
        undo: Undo,
    ) -> BoxFuture<'_, Result<Value, Failure>> {
        Box::pin(async move { outcome((self.1)(context, arguments, undo).await) })
    }
}

impl<F, G, P> fmt::Debug for Closures<F, G, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Closures")
    }
}

fn outcome<T, E>(result: Result<T, E>) -> Result<Value, Failure>
where
    T: Serialize,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    let value = result.map_err(failure_of)?;
    serde_json::to_value(value).map_err(|error| Failure::of(&error))
}

/// The failure that an error of any type is. Its own type is named, where it is one.
fn failure_of<E: Into<Box<dyn Error + Send + Sync>>>(error: E) -> Failure {
    let name = type_name::<E>();
    match error.into().downcast::<Failure>() {
        Ok(failure) => *failure,
        Err(error) => {
            let plain = Failure::of(&*error);
            // A box or a text stands for an error of a type that nobody knows.
            let is_named = !["alloc::", "&", "anyhow::"].iter().any(|start| name.starts_with(start));
            let failure = Failure::new(if is_named { name } else { "" }, plain.exception_str());
            plain.causes().iter().cloned().fold(failure, Failure::caused_by)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_that_is_missing_or_of_another_type_is_named() {
        let arguments = Arguments::from(Map::from_iter([("width".to_owned(), "wide".into())]));
        let said = |name| arguments.get::<u32>(name).unwrap_err().to_string();
        assert_eq!(said("height"), r#"argument "height": it is missing"#);
        assert_eq!(said("width"), r#"argument "width": invalid type: string "wide", expected u32"#);
        assert_eq!(arguments.get::<Option<u32>>("height").unwrap(), None);
    }
}
