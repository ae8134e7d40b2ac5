//! The server of tasks: [`Worker`].
//!
//! Source: `taskflow.engines.worker_based.server`, `.dispatcher`, `.worker`.

mod duplicates;
mod intake;
mod report;
mod results;
mod run;
mod shared;

use std::{
    collections::BTreeMap,
    error::Error,
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use serde::Serialize;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;

use self::{
    duplicates::Duplicates,
    results::Results,
    shared::{Executors, Fullness, Shared},
};
use super::{
    arguments::Arguments,
    handler::{Closures, Context, Handler, Undo},
    lifecycle,
    link::Link,
    transport::{Transport, TransportError},
};
use crate::{metrics, task::Tasks};

/// How many messages a worker takes beyond those that it runs, by default, and how many bytes they may have.
const PREFETCH: u16 = 1000;
const PREFETCH_BYTES: usize = 64 << 20;

/// How long a worker that ends tries to report the requests that it did not finish to their executors.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Runs tasks for executors, until it is shut down or dropped. From [`Worker::builder`].
///
/// Each worker has a topic, where it answers executors that ask for its tasks, and takes their requests. Several
/// workers may share a topic if they list the same tasks; then they compete for its requests. When one of them is shut
/// down, new requests wait until the executor has asked the others, 5 s at most.
///
/// - At most [`concurrency`](WorkerBuilder::concurrency) requests run at a time. The others wait at the broker or in
///   memory, unacknowledged: if the worker dies, the broker gives them to another one.
/// - A worker whose connection broke tells the executors of this crate what it has: they send again what it has lost. It
///   keeps its last results (1024 of them, 64 MiB) and sends them again to such an executor whose connection broke.
/// - A request is acknowledged **before** it is run: if the worker dies while it runs, no other worker runs it again.
/// - A copy of a request that comes while the first is at the worker is dropped. A later copy is dropped, too, if the
///   executor is one of this crate, which uses each id only once. TaskFlow uses an id again when it tries a task again.
/// - The executor gets RUNNING, then events, then SUCCESS or FAILURE. A task that panics has failed. RUNNING is
///   repeated every 5 s, so that the executor can distinguish a long task from a lost one.
/// - An invalid request is answered with a FAILURE, if it has a topic for the answer.
///
/// Dropping the worker ends its running tasks, with a FAILURE for each. [`Worker::shutdown`] gives the tasks time to
/// finish.
#[must_use = "dropping a worker ends the tasks that it runs"]
pub struct Worker {
    shared: Arc<Shared>,
}

impl Worker {
    /// Builds a worker on `transport`. Set options, then await it.
    pub fn builder(transport: impl Transport) -> WorkerBuilder {
        WorkerBuilder {
            transport: Arc::new(transport),
            topic: String::new(),
            handlers: BTreeMap::new(),
            concurrency: 1,
            prefetch: PREFETCH,
            prefetch_bytes: PREFETCH_BYTES,
            heartbeat: lifecycle::NOTIFY_PERIOD,
            seed: None,
        }
    }

    /// The topic where it takes requests.
    pub fn topic(&self) -> &str {
        &self.shared.topic
    }

    /// The tasks that it can run.
    pub fn tasks(&self) -> impl ExactSizeIterator<Item = &str> {
        self.shared.handlers.keys().map(String::as_str)
    }

    /// How many requests it runs at this moment.
    pub fn running(&self) -> usize {
        self.shared.running()
    }

    /// Waits until the worker takes no more requests, because its transport was closed. If a connection breaks, the
    /// worker opens a new one and goes on.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn closed(&self) {
        self.shared.draining.cancelled().await;
    }

    /// Ends the worker. Returns whether every running task has finished.
    ///
    /// - The executors that have asked last get the message that this worker has no tasks any more.
    /// - Requests that did not start are given back, to other workers at the topic. If there are none, an executor of
    ///   this crate sends them to a worker at another topic, and an executor of TaskFlow lets them expire.
    /// - Running tasks have at most `timeout` to finish. After that they are dropped, and their executors get a
    ///   FAILURE.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, the worker is dropped, and with it the tasks that still run.
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

/// Starts a worker when it is awaited. Set options first. From [`Worker::builder`].
///
/// When it returns, the broker drops no more requests for the topic. If the connection breaks later, the worker opens a
/// new one.
///
/// # Errors
///
/// [`TransportError`] if there is no topic, or the topic cannot be consumed.
///
/// # Cancel safety
///
/// Safe: nothing is started.
#[must_use = "no worker is started until it is awaited"]
pub struct WorkerBuilder {
    transport: Arc<dyn Transport>,
    topic: String,
    handlers: BTreeMap<String, Arc<dyn Handler>>,
    concurrency: u32,
    prefetch: u16,
    prefetch_bytes: usize,
    heartbeat: Duration,
    seed: Option<u64>,
}

impl WorkerBuilder {
    /// The topic where the worker takes requests. It is required.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = topic.into();
        self
    }

    /// Runs `execute` for requests to execute `name`. A request to revert it succeeds and does nothing.
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

    /// Runs `handler` for requests for `name`. It replaces an earlier handler or closure of the same name.
    pub fn handler(mut self, name: impl Into<String>, handler: impl Handler) -> Self {
        self.handlers.insert(name.into(), Arc::new(handler));
        self
    }

    /// How many requests run at a time, at least 1. Default: 1.
    pub fn concurrency(mut self, requests: u32) -> Self {
        self.concurrency = requests.max(1);
        self
    }

    /// How many messages the worker takes from the broker beyond those that it runs. Default: 1000. With a small
    /// number, workers that share a topic share its requests more evenly. But while this many requests wait at a worker,
    /// it does not receive further messages, so executors of TaskFlow that ask for its tasks get no answer.
    pub fn prefetch(mut self, messages: u16) -> Self {
        self.prefetch = messages;
        self
    }

    /// How many bytes the messages that wait at the worker may have all together. Default: 64 MiB. One message is always
    /// taken, however large it is.
    ///
    /// A broker counts messages, not bytes. So the worker begins with at most 16 messages beyond those that it runs, takes
    /// more while they are small, gives back those that are too many, and begins anew when it is idle. For a moment it may
    /// have those 16 messages, or half of the limit more.
    pub fn prefetch_bytes(mut self, bytes: usize) -> Self {
        self.prefetch_bytes = bytes;
        self
    }

    /// How often the worker reports to an executor that a request is still running, and to an executor of this crate
    /// which of its requests wait. Default: every 5 s.
    ///
    /// An executor that receives no report for its [worker expiry](super::ExecutorBuilder::worker_expiry) ends the
    /// request, although it runs. So the heartbeat has to be several times shorter than the shortest expiry of all
    /// executors, which is 60 s by default.
    pub fn heartbeat(mut self, every: Duration) -> Self {
        self.heartbeat = every;
        self
    }

    /// Determines every random number and id of the worker, for tests that repeat a run. Default: a new seed each time.
    /// Never give two executors or workers of a fleet the same seed: they would have the same name.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    async fn start(self) -> Result<Worker, TransportError> {
        let WorkerBuilder {
            transport,
            topic,
            handlers,
            concurrency,
            prefetch,
            prefetch_bytes,
            heartbeat,
            seed,
        } = self;
        if topic.is_empty() {
            return Err(TransportError::Refused {
                reason: "a worker needs a topic, where it takes requests".into(),
            });
        }
        metrics::describe();
        let concurrency = concurrency.min(u32::try_from(Semaphore::MAX_PERMITS).unwrap_or(u32::MAX));
        let prefetch = u16::try_from(concurrency).unwrap_or(u16::MAX).saturating_add(prefetch);
        let shared = Shared {
            link: Link::new(transport, seed),
            topic: topic.into(),
            handlers,
            concurrency,
            prefetch,
            prefetch_bytes,
            heartbeat: heartbeat.max(Duration::from_millis(1)),
            slots: Arc::new(Semaphore::new(concurrency as usize)),
            running: AtomicUsize::new(0),
            duplicates: Duplicates::default(),
            results: Results::default(),
            executors: Executors::default(),
            fullness: Fullness::default(),
            changed: Notify::new(),
            draining: CancellationToken::new(),
            tasks: Tasks::new(),
        };
        let consumer = shared.link.consume(&shared.topic, shared.first_prefetch()).await?;
        let shared = Arc::new(shared);
        shared.tasks.spawn("report", report::report(shared.clone()));
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
