//! The side that runs tasks: [`Worker`].
//!
//! Source: `taskflow.engines.worker_based.server`, `.dispatcher`, `.worker`.

mod duplicates;
mod intake;
mod run;
mod shared;

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use serde::Serialize;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::{
    duplicates::Duplicates,
    shared::{Executors, Shared},
};
use super::{
    arguments::Arguments,
    handler::{Closures, Context, Handler, Undo},
    lifecycle,
    link::Link,
    transport::{Transport, TransportError},
};
use crate::task::Tasks;

/// How many messages a worker takes beyond those that it runs, unless told otherwise.
const PREFETCH: u16 = 1000;

/// How long a worker that ends has to tell the executors about the requests that it did not finish.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs tasks for executors, until it is shut down or dropped.
///
/// Each worker has a topic, where it answers executors that ask what it can run, and takes their requests. Several
/// workers may share a topic if they list the same tasks; then they compete for its requests. When one of them is shut
/// down, new requests wait until the executor has asked the others, 5 s at most.
///
/// - At most [`concurrency`](WorkerBuilder::concurrency) requests run at a time. The others wait at the broker or in
///   memory, unacknowledged: if the worker dies, the broker gives them to another one.
/// - A request is acknowledged **before** it is run: if the worker dies while it runs, no other worker runs it again.
/// - A copy of a request that comes while the first is at the worker is dropped. A later copy is dropped, too, if the
///   executor is one of this crate, which uses an id only once. TaskFlow uses it again when it tries a task again.
/// - The executor gets RUNNING, then events, then SUCCESS or FAILURE. A task that panics has failed. RUNNING is repeated
///   every 5 s, so that the executor can tell a long task from a lost one.
/// - An invalid request is answered with a FAILURE, if it has a topic for the answer.
///
/// Dropping it ends all that runs, with a FAILURE for each; [`Worker::shutdown`] gives the tasks time to finish.
#[must_use = "dropping it ends the tasks that it runs"]
pub struct Worker {
    shared: Arc<Shared>,
}

impl Worker {
    /// A worker on `transport`. Set options, then await it.
    pub fn builder(transport: impl Transport) -> WorkerBuilder {
        WorkerBuilder {
            transport: Arc::new(transport),
            topic: String::new(),
            handlers: BTreeMap::new(),
            concurrency: 1,
            prefetch: PREFETCH,
            heartbeat: lifecycle::NOTIFY_PERIOD,
            seed: None,
        }
    }

    /// Where it takes requests.
    pub fn topic(&self) -> &str {
        &self.shared.topic
    }

    /// The tasks that it can run.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &str> {
        self.shared.handlers.keys().map(String::as_str)
    }

    /// How many requests it runs at this moment.
    pub fn running(&self) -> usize {
        (self.shared.concurrency as usize).saturating_sub(self.shared.slots.available_permits())
    }

    /// Waits until the worker takes no more requests, because its transport was closed. A connection that breaks is no
    /// reason: the worker opens a new one.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn closed(&self) {
        self.shared.draining.cancelled().await;
    }

    /// Ends the worker. Returns whether every task that ran was finished.
    ///
    /// - The executors that have asked last are told that this worker can run nothing any more.
    /// - Requests that did not start are given back, to other workers at the topic. Without any, they expire at their
    ///   executors.
    /// - Tasks that run have at most `timeout` to finish. The others are dropped then, and their executors get a FAILURE.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, so is the worker, and the tasks that still run are dropped at once.
    pub async fn shutdown(self, timeout: Duration) -> bool {
        self.shared.draining.cancel();
        let all = self.shared.slots.acquire_many(self.shared.concurrency);
        let is_drained = tokio::time::timeout(timeout, all).await.is_ok();
        self.shared.tasks.shutdown(SEND_TIMEOUT).await && is_drained
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.shared.draining.cancel();
        self.shared.tasks.cancel();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("topic", &self.shared.topic)
            .field("tasks", &self.tasks().collect::<Vec<_>>())
            .field("running", &self.running())
            .finish_non_exhaustive()
    }
}

/// A worker that is to be started: set options, then await it. From [`Worker::builder`].
///
/// Awaited, it starts the worker. When that returns, no request for its topic is dropped any more. If the connection
/// breaks later, the worker opens a new one.
///
/// # Errors
///
/// [`TransportError`] if it has no topic, or the topic cannot be consumed.
///
/// # Cancel safety
///
/// Safe: nothing was started then.
#[must_use = "no worker is started until it is awaited"]
pub struct WorkerBuilder {
    transport: Arc<dyn Transport>,
    topic: String,
    handlers: BTreeMap<String, Arc<dyn Handler>>,
    concurrency: u32,
    prefetch: u16,
    heartbeat: Duration,
    seed: Option<u64>,
}

impl WorkerBuilder {
    /// Where it takes requests.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = topic.into();
        self
    }

    /// Runs `execute` for requests to execute `name`. A request to revert it does nothing, successfully.
    ///
    /// The result is anything that can be written as JSON. The error is any error, a text or a boxed error; a
    /// [`Failure`](super::Failure) is sent as it is. A closure without state can be an `async` closure. A closure with
    /// state gives a clone of it, mostly of an `Arc`, to each run:
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use std::sync::{Arc, Mutex};
    ///
    /// use apportion::worker::{ArgumentError, Executor, LocalBroker, Request, Worker};
    ///
    /// let broker = LocalBroker::new();
    /// let total = Arc::new(Mutex::new(0));
    /// let worker = Worker::builder(broker.clone())
    ///     .topic("counters")
    ///     .task("add", move |context, arguments| {
    ///         let total = total.clone();
    ///         async move {
    ///             let number: u64 = arguments.get("number")?;
    ///             context.update_progress(0.5).await;
    ///             let mut total = total.lock().unwrap();
    ///             *total += number;
    ///             Ok::<_, ArgumentError>(*total)
    ///         }
    ///     })
    ///     .await?;
    ///
    /// let executor = Executor::builder(broker).topics(["counters"]).await?;
    /// let add = |number| executor.submit(Request::execute("add").argument("number", number));
    /// assert_eq!(add(2).await?.get::<u64>()?, 2);
    /// assert_eq!(add(3).await?.get::<u64>()?, 5);
    /// # drop(worker);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    pub fn task<F, Fut, T, E>(self, name: impl Into<String>, execute: F) -> Self
    where
        F: Fn(Context, Arguments) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
        T: Serialize + 'static,
        E: Into<Box<dyn Error + Send + Sync>> + 'static,
    {
        self.handler(name, Closures::execute_only(execute))
    }

    /// As [`WorkerBuilder::task`]. Runs `revert` for requests to revert `name`.
    pub fn revertible_task<F, Fut, T, E, G, GFut, U, D>(
        self,
        name: impl Into<String>,
        execute: F,
        revert: G,
    ) -> Self
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
        self.handler(name, Closures::<F, G, (Fut, T, E, GFut, U, D)>::new(execute, revert))
    }

    /// Runs `handler` for requests for `name`. It replaces an earlier one for the same name.
    pub fn handler(mut self, name: impl Into<String>, handler: impl Handler) -> Self {
        self.handlers.insert(name.into(), Arc::new(handler));
        self
    }

    /// How many requests run at a time, at least one. Default: one.
    pub fn concurrency(mut self, requests: u32) -> Self {
        self.concurrency = requests.max(1);
        self
    }

    /// How many messages it takes from the broker beyond those that it runs. Default: 1000. With a small number, workers
    /// that share a topic share its requests more evenly. But while this many requests wait at a worker, it does not
    /// receive the questions of executors what it can run.
    pub fn prefetch(mut self, messages: u16) -> Self {
        self.prefetch = messages;
        self
    }

    /// How often executors are told that a request is still running. Default: every 5 s.
    ///
    /// An executor that receives nothing for its [worker expiry](super::ExecutorBuilder::worker_expiry) gives up the
    /// request, although it runs. So the heartbeat has to be several times shorter than the shortest expiry of all
    /// executors. With the defaults it is 5 s, and the expiry 60 s.
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = every;
        self
    }

    /// Determines every random number and id of the worker, for tests that repeat a run. Default: others each time.
    /// Never give two executors or workers of a fleet the same: their names would be equal.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    async fn start(self) -> Result<Worker, TransportError> {
        let WorkerBuilder { transport, topic, handlers, concurrency, prefetch, heartbeat, seed } = self;
        if topic.is_empty() {
            return Err(TransportError::Refused {
                reason: "a worker needs a topic, where it takes requests".into(),
            });
        }
        let concurrency = concurrency.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        let prefetch = u16::try_from(concurrency).unwrap_or(u16::MAX).saturating_add(prefetch);
        let consumer = transport.consume(&topic, prefetch).await?;
        let shared = Arc::new(Shared {
            link: Link::new(transport, seed),
            topic: topic.into(),
            handlers,
            concurrency,
            prefetch,
            heartbeat,
            slots: Arc::new(Semaphore::new(concurrency as usize)),
            duplicates: Duplicates::default(),
            executors: Executors::default(),
            draining: CancellationToken::new(),
            tasks: Tasks::new(),
        });
        shared.tasks.spawn("worker", intake::take_in(shared.clone(), consumer));
        Ok(Worker { shared })
    }
}

impl IntoFuture for WorkerBuilder {
    type Output = Result<Worker, TransportError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}

impl fmt::Debug for WorkerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerBuilder")
            .field("topic", &self.topic)
            .field("tasks", &self.handlers.keys().collect::<Vec<_>>())
            .field("concurrency", &self.concurrency)
            .finish_non_exhaustive()
    }
}
