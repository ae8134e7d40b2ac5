//! The side that runs tasks: [`Worker`].
//!
//! Source: `taskflow.engines.worker_based.server`, `.dispatcher`, `.worker`.

mod intake;
mod run;

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use serde::Serialize;
use tokio::{sync::Semaphore, time::timeout};
use tokio_util::sync::CancellationToken;

use self::intake::Memory;
use super::{
    handler::{Arguments, Closures, Context, Handler, Undo},
    lifecycle,
    link::Link,
    message::NotifyReply,
    transport::{Transport, TransportError},
};
use crate::task::Tasks;

/// How many messages a worker takes ahead of those that it runs, unless told otherwise.
const AHEAD: u16 = 1000;

/// After its patience has ended, a worker has this long to tell the executors.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Runs tasks for executors, until it is shut down or dropped.
///
/// Each worker has a topic of its own, where it tells executors what it can run and takes their requests. Several
/// workers may share a topic if they list the same tasks; then they compete. When one of them is shut down, new
/// requests wait until the executor has asked the others, 5 s at most.
///
/// - At most [`concurrency`](WorkerBuilder::concurrency) requests run at a time, and the others wait at the broker or
///   in memory, unacknowledged: should the worker die, the broker gives them to somebody else.
/// - A request is acknowledged **before** it is run, so nobody runs it again should the worker die. A copy of it that comes while the
///   first is here is dropped, and so is a later copy if the executor is one of this crate, which uses an id only
///   once; TaskFlow uses it again when it tries a task again.
/// - The executor hears RUNNING, then events, then SUCCESS or FAILURE. A task that panics has failed. RUNNING is
///   repeated every 5 s, so that the executor can tell a long task from a lost one.
/// - What is wrong with a request is answered with a FAILURE, if there is somebody to answer.
///
/// Dropping it ends all that runs, with a FAILURE for each; [`Worker::shutdown`] gives the tasks time to finish.
pub struct Worker {
    inner: Arc<Inner>,
}

/// What the tasks of one worker share.
struct Inner {
    link: Link,
    topic: Arc<str>,
    handlers: BTreeMap<String, Arc<dyn Handler>>,
    concurrency: u32,
    prefetch: u16,
    heartbeat: Duration,
    slots: Arc<Semaphore>,
    memory: Mutex<Memory>,
    /// Cancelled: nothing new is taken. When `tasks` is cancelled, what runs is dropped, too.
    draining: CancellationToken,
    tasks: Tasks,
}

impl Inner {
    /// No user code runs under the lock, so a poisoned one is as good as any.
    fn memory(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reply_listing(&self, tasks: Vec<String>) -> NotifyReply {
        NotifyReply::new(&*self.topic, tasks)
    }
}

impl Worker {
    /// Starts to describe a worker on `transport`.
    pub fn builder(transport: impl Transport) -> WorkerBuilder {
        WorkerBuilder {
            transport: Arc::new(transport),
            topic: String::new(),
            handlers: BTreeMap::new(),
            concurrency: 1,
            ahead: AHEAD,
            heartbeat: lifecycle::NOTIFY_PERIOD,
        }
    }

    /// Where it takes requests.
    pub fn topic(&self) -> &str {
        &self.inner.topic
    }

    /// The tasks it lists.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &str> {
        self.inner.handlers.keys().map(String::as_str)
    }

    /// How many requests it runs at this moment.
    pub fn running(&self) -> usize {
        (self.inner.concurrency as usize).saturating_sub(self.inner.slots.available_permits())
    }

    /// Waits until the worker takes no more requests although nobody told it to stop: its transport was closed. A
    /// connection that breaks is no reason; it opens a new one.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn closed(&self) {
        self.inner.draining.cancelled().await;
    }

    /// Takes no more requests, gives back those that did not start (to others at its topic; without them, they expire
    /// at their executor), and waits for those that run, for at most
    /// `patience`; what is left then is dropped, and its executors hear of a FAILURE. Returns whether nothing was
    /// left.
    ///
    /// The executors that have asked lately are told that this worker can run nothing any more.
    ///
    /// # Cancel safety
    ///
    /// If the future is dropped, so is the worker, and what still runs is dropped at once.
    pub async fn shutdown(self, patience: Duration) -> bool {
        self.inner.draining.cancel();
        let all = self.inner.slots.acquire_many(self.inner.concurrency);
        let is_drained = timeout(patience, all).await.is_ok();
        self.inner.tasks.shutdown(LAST_WORDS).await && is_drained
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.inner.draining.cancel();
        self.inner.tasks.cancel();
    }
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("topic", &self.inner.topic)
            .field("tasks", &self.tasks().collect::<Vec<_>>())
            .field("running", &self.running())
            .finish_non_exhaustive()
    }
}

/// Describes a worker. From [`Worker::builder`].
#[must_use = "a worker does nothing until it is started"]
pub struct WorkerBuilder {
    transport: Arc<dyn Transport>,
    topic: String,
    handlers: BTreeMap<String, Arc<dyn Handler>>,
    concurrency: u32,
    ahead: u16,
    heartbeat: Duration,
}

impl WorkerBuilder {
    /// Where it takes requests.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = topic.into();
        self
    }

    /// Runs `execute` for requests to execute `name`. There is nothing to revert.
    ///
    /// The result is anything that can be JSON; the error is any error, text or box, and a
    /// [`Failure`](super::failure::Failure) is sent as it is. A closure without state may be an `async` one; one with
    /// state gives a copy of it, mostly an `Arc`, to each run:
    ///
    /// ```
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// use std::sync::{Arc, Mutex};
    ///
    /// use apportion::worker::{ArgumentError, Executor, Worker, local::LocalBroker, message::Request};
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
    ///     .start()
    ///     .await?;
    ///
    /// let executor = Executor::builder(broker).topics(["counters"]).start().await?;
    /// let add = |number| executor.submit(Request::execute("add").argument("number", number));
    /// assert_eq!(add(2).await?, 2);
    /// assert_eq!(add(3).await?, 5);
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

    /// Like [`WorkerBuilder::task`], with `revert` for requests to revert it.
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

    /// Runs `handler` for requests for `name`. A second one for the same name takes the place of the first.
    pub fn handler(mut self, name: impl Into<String>, handler: impl Handler) -> Self {
        self.handlers.insert(name.into(), Arc::new(handler));
        self
    }

    /// How many requests run at a time; one unless told otherwise, and at least one.
    pub fn concurrency(mut self, requests: u32) -> Self {
        self.concurrency = requests.max(1);
        self
    }

    /// How many messages it takes from the broker ahead of those that it runs; 1000 unless told otherwise. With
    /// few, workers that share a topic share its requests more evenly; but a worker with so many requests ahead
    /// does not hear executors ask what it can run.
    pub fn ahead(mut self, messages: u16) -> Self {
        self.ahead = messages;
        self
    }

    /// How often executors are told of a request that it is still running; every 5 s unless told otherwise. An
    /// executor that hears nothing for its [worker expiry](super::ExecutorBuilder::worker_expiry) gives the request
    /// up, although it runs. So the heartbeat has to be several times as short as the shortest expiry of all
    /// executors, each of which has its own; with the defaults it is 5 s against 60 s.
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = every;
        self
    }

    /// Starts the worker. When this returns, no request for its topic is lost any more. Later it looks after its
    /// connection itself.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if it has no topic, or that cannot be consumed.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing was started then.
    pub async fn start(self) -> Result<Worker, TransportError> {
        let WorkerBuilder { transport, topic, handlers, concurrency, ahead, heartbeat } = self;
        if topic.is_empty() {
            return Err(TransportError::Refused {
                reason: "a worker needs a topic, where it takes requests".into(),
            });
        }
        let concurrency = concurrency.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        let prefetch = u16::try_from(concurrency).unwrap_or(u16::MAX).saturating_add(ahead);
        let consumer = transport.consume(&topic, prefetch).await?;
        let inner = Arc::new(Inner {
            link: Link::new(transport),
            topic: topic.into(),
            handlers,
            concurrency,
            prefetch,
            heartbeat,
            slots: Arc::new(Semaphore::new(concurrency as usize)),
            memory: Mutex::default(),
            draining: CancellationToken::new(),
            tasks: Tasks::new(),
        });
        inner.tasks.spawn("worker", intake::take_in(inner.clone(), consumer));
        Ok(Worker { inner })
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
