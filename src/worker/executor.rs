//! The client of workers: [`Executor`].
//!
//! Source: `taskflow.engines.worker_based.executor`, `.types`.

mod command;
mod driver;
mod submission;
mod submitted;

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::sync::{Notify, mpsc, oneshot};
use tracing::info_span;

pub use self::{
    command::Workers,
    submission::Submission,
    submitted::{Progress, Submitted},
};
use self::{
    command::{Command, Status},
    driver::{Driver, PREFETCH},
};
use super::{
    engine::{Engine, New},
    error::RequestError,
    lifecycle,
    link::Link,
    transport::{Transport, TransportError},
};
use crate::{metrics, random::Random, task::Tasks, watch};

/// How long a shutdown waits for messages that are being sent.
const SEND_TIMEOUT: Duration = Duration::from_secs(5);

/// Sends requests to workers, which run the tasks. Cheap to clone; all clones are one executor, which ends when it is
/// [shut down](Executor::shutdown) or its last clone is dropped. From [`Executor::builder`].
///
/// It asks each topic every 5 s for the tasks of its worker, and removes a worker that is silent for 60 s. A request
/// goes to a worker that lists its task: the one with the fewest open requests of this executor, or always the same
/// one for the same [key](Submission::key). A worker that has lost a request gets no others until it answers again.
/// While there is no worker, the request waits.
///
/// Requests to one worker are sent in the order in which they were submitted. A request that could not be sent is sent
/// again a second later; later requests do not wait for it.
///
/// A request that a worker of this crate has lost before it started on it, for instance with its connection, is sent
/// again. If the worker is gone, it is sent to another one that lists the task. That takes three reports of the worker
/// (15 s) or three quarters of the [worker expiry](ExecutorBuilder::worker_expiry) (45 s).
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use std::{error::Error, time::Duration};
/// # use apportion::worker::{LocalBroker, Worker};
/// use apportion::worker::{Executor, Request, RequestError, Submission};
///
/// # let broker = LocalBroker::new();
/// # let convert = async |_, _| Err::<(), Box<dyn Error + Send + Sync>>("no such format".into());
/// # let _worker = Worker::builder(broker.clone()).topic("images").task("convert", convert).await.unwrap();
/// let executor = Executor::builder(broker).topics(["images", "more-images"]).await?;
/// let request = Request::execute("convert").argument("file", "a.xcf");
/// let limited = Submission::new(request).key("a.xcf").run_timeout(Duration::from_secs(60));
/// match executor.submit(limited).await {
///     Ok(outcome) => println!("done: {}", outcome.get::<String>()?),
///     Err(RequestError::Failed(failure)) => println!("the task failed: {failure}"),
///     Err(error) if error.may_have_run() => println!("it may have been done: {error}"),
///     Err(error) => println!("it was not done: {error}"),
/// }
/// # Ok::<(), Box<dyn Error>>(()) }).unwrap();
/// ```
///
/// Every request ends, once: see [`RequestError`] for the ways it can end without a result.
#[derive(Clone)]
#[must_use = "the requests of an executor end when its last clone is dropped"]
pub struct Executor {
    shared: Arc<Shared>,
}

/// The state that the clones of one executor share.
struct Shared {
    commands: mpsc::UnboundedSender<Command>,
    workers: watch::Receiver<Workers>,
    name: Arc<str>,
    request_timeout: Option<Duration>,
    random: Random,
    tasks: Tasks,
}

impl Executor {
    /// Builds an executor on `transport`. Set options, then await it.
    pub fn builder(transport: impl Transport) -> ExecutorBuilder {
        ExecutorBuilder {
            transport: Arc::new(transport),
            topics: Vec::new(),
            request_timeout: Some(lifecycle::REQUEST_TIMEOUT),
            notify_period: lifecycle::NOTIFY_PERIOD,
            worker_expiry: lifecycle::WORKER_EXPIRY,
            seed: None,
        }
    }

    /// Submits a request. The handle is a future of its outcome. The request is sent whether or not the handle is
    /// polled. Dropping the handle drops the request: if it was not sent yet, it is never sent.
    pub fn submit(&self, submission: impl Into<Submission>) -> Submitted {
        let Submission { request, key, timeout, run_timeout } = submission.into();
        let Shared { commands, request_timeout, random, .. } = &*self.shared;
        let id = random.uuid().to_string();
        let (ended, outcome) = oneshot::channel();
        let (status, seen) = watch::channel(Status::new());
        let span = info_span!("request", id, task = request.task_cls());
        match request.to_json() {
            Ok(body) => {
                let task = request.task_cls().to_owned();
                let new = New { task, key, body, timeout: timeout.or(*request_timeout), run_timeout };
                // If the driver has ended, the channels close, and the handle reports that.
                let _ =
                    commands.send(Command::Submit { id: id.clone(), new, ended, status, span: span.clone() });
            }
            Err(error) => drop(ended.send(Err(RequestError::Argument(error)))),
        }
        Submitted::new(id, outcome, seen, commands.clone(), span)
    }

    /// The workers that have answered within the [worker expiry](ExecutorBuilder::worker_expiry).
    pub fn workers(&self) -> Workers {
        self.shared.workers.borrow().clone()
    }

    /// Waits until at least `count` workers list `task`. Returns false if the executor ends before.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait_for_workers(&self, task: &str, count: usize) -> bool {
        let lists = |tasks: &&Vec<String>| tasks.iter().any(|listed| listed == task);
        let mut workers = self.shared.workers.clone();
        workers.wait_for(|workers| workers.values().filter(lists).count() >= count).await.is_ok()
    }

    /// The name of the executor: the topic of its answers, a new one for each executor.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Ends the executor with all its clones. Open requests, and those submitted later, end with
    /// [`RequestError::Closed`]; workers that run some of them are not stopped. It can be called twice.
    ///
    /// # Cancel safety
    ///
    /// When cancelled, the executor still ends. Dropping the last clone also ends it, without waiting.
    pub async fn shutdown(&self) {
        self.shared.tasks.shutdown(SEND_TIMEOUT).await;
    }

    /// Waits until the executor has ended: it was shut down, or its transport was closed.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn closed(&self) {
        self.shared.commands.closed().await;
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workers = self.workers();
        f.debug_struct("Executor")
            .field("name", &self.shared.name)
            .field("workers", &workers)
            .finish_non_exhaustive()
    }
}

/// Starts an executor when it is awaited. Set options first. From [`Executor::builder`].
///
/// When it returns, the executor can receive answers of workers. If the connection breaks later, the executor opens a
/// new one.
///
/// # Errors
///
/// [`TransportError`] if there are no topics, or the topic of the executor cannot be consumed.
///
/// # Cancel safety
///
/// Safe: nothing is started.
#[derive(Debug)]
#[must_use = "no executor is started until it is awaited"]
pub struct ExecutorBuilder {
    transport: Arc<dyn Transport>,
    topics: Vec<String>,
    request_timeout: Option<Duration>,
    notify_period: Duration,
    worker_expiry: Duration,
    seed: Option<u64>,
}

impl ExecutorBuilder {
    /// The topics of workers, in addition to those given before. At least one is needed.
    pub fn topics(mut self, topics: impl IntoIterator<Item: Into<String>>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// How long a request waits for a worker to start on it. Default: 60 s; `None` means for ever. It is checked once a
    /// second.
    ///
    /// The time counts from [`submit`](Executor::submit) until the worker reports that the request is running. It does
    /// not run out while a worker of this crate reports that the request waits there for its turn, or that it has as
    /// many requests as it takes. A worker of TaskFlow does not report that: submit no more requests at a time than such
    /// workers can run, or set a timeout that is long enough for all waiting requests.
    pub fn request_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.request_timeout = timeout.into();
        self
    }

    /// How often workers are asked for their tasks. Default: every 5 s.
    pub fn notify_period(mut self, period: Duration) -> Self {
        self.notify_period = period;
        self
    }

    /// How long a worker may be silent before it is removed, and how long it may be silent about a request that it runs
    /// before that request ends. Default: 60 s.
    ///
    /// It has to be several times as long as the [notify period](Self::notify_period) and as the
    /// [heartbeat](super::WorkerBuilder::heartbeat) of the workers. Workers do not get this setting from the executor:
    /// with a shorter expiry, also set a shorter heartbeat. Otherwise requests that run well end as
    /// [`WorkerVanished`](RequestError::WorkerVanished).
    pub fn worker_expiry(mut self, expiry: Duration) -> Self {
        self.worker_expiry = expiry;
        self
    }

    /// Determines every random number and id of the executor, for tests that repeat a run. Default: a new seed each
    /// time. Never give two executors or workers of a fleet the same seed: they would have the same name.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    async fn start(self) -> Result<Executor, TransportError> {
        let ExecutorBuilder { transport, topics, request_timeout, notify_period, worker_expiry, seed } = self;
        if topics.is_empty() {
            let reason = "an executor needs the topics of its workers".into();
            return Err(TransportError::Refused { reason });
        }
        metrics::describe();
        let link = Link::new(transport, seed);
        let (name, random) = (link.name.clone(), link.random.clone());
        let consumer = link.consume(&name, PREFETCH).await?;
        let tasks = Tasks::new();
        let (commands, commanded) = mpsc::unbounded_channel();
        let (receiver, received) = mpsc::channel(usize::from(PREFETCH));
        let (published, workers) = watch::channel(Workers::new());
        let driver = Driver {
            link: link.clone(),
            clock: link.transport.clock(),
            engine: Engine::new(worker_expiry),
            handles: Default::default(),
            workers: published,
            commands: commanded,
            received,
            own_commands: commands.downgrade(),
            sending: Tasks::new(),
        };
        let topics: Arc<[String]> = topics.into();
        tasks.spawn("executor", driver.run(tasks.cancelled()));
        let at_once = Arc::new(Notify::new());
        let receiving = driver::receive(
            link.clone(),
            consumer,
            topics.clone(),
            receiver,
            at_once.clone(),
            tasks.cancelled(),
        );
        tasks.spawn("receive", receiving);
        let asking =
            driver::ask(link, topics, notify_period, at_once, commands.downgrade(), tasks.cancelled());
        tasks.spawn("notify", asking);
        let shared = Shared { commands, workers, name, request_timeout, random, tasks };
        Ok(Executor { shared: Arc::new(shared) })
    }
}

impl IntoFuture for ExecutorBuilder {
    type Output = Result<Executor, TransportError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.start())
    }
}
