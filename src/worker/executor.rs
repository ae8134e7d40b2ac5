//! The side that wants tasks run: [`Executor`].
//!
//! Source: `taskflow.engines.worker_based.executor`, `.types`.

mod driver;
mod submitted;

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};

pub use self::submitted::{Progress, Submitted};
use self::{
    driver::{Command, Driver},
    submitted::Life,
};
use super::{
    engine::{Engine, New},
    lifecycle,
    link::Link,
    message::Request,
    transport::{Transport, TransportError},
};
use crate::task::Tasks;

/// How many responses are taken from the broker ahead.
const PREFETCH: u16 = 256;

/// How long a shutdown waits for messages that are on their way.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Has tasks run by workers, until it is shut down or dropped.
///
/// It asks each topic every 5 s what the worker there can run, and forgets a worker that is silent for 60 s. A request
/// goes to a worker that lists its task: the one with the fewest open requests of this executor, or always the same
/// one for the same [key](Submission::key). A worker that lost a request is passed over until it is heard of again. While
/// there is none, the request waits.
///
/// Requests leave in the order in which they were submitted, as far as they go to the same worker and can be sent at
/// once. One that has to be sent again, a second later, is overtaken by those behind it, which do not wait for it.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// # use std::{error::Error, time::Duration};
/// # use apportion::worker::{Worker, local::LocalBroker};
/// use apportion::worker::{Executor, RequestError, Submission, message::Request};
///
/// # let broker = LocalBroker::new();
/// # let convert = async |_, _| Err::<(), Box<dyn Error + Send + Sync>>("no such format".into());
/// # let _worker = Worker::builder(broker.clone()).topic("images").task("convert", convert).start().await.unwrap();
/// let executor = Executor::builder(broker).topics(["images", "more-images"]).start().await?;
/// let request = Request::execute("convert").argument("file", "a.xcf");
/// let limited = Submission::new(request).key("a.xcf").run_timeout(Duration::from_secs(60));
/// match executor.submit(limited).await {
///     Ok(value) => println!("done: {value}"),
///     Err(RequestError::Failed(failure)) => println!("it cannot be done: {failure}"),
///     Err(error) if error.may_have_run() => println!("nobody knows whether it was done: {error}"),
///     Err(error) => println!("it was not done: {error}"),
/// }
/// # Ok::<(), Box<dyn Error>>(()) }).unwrap();
/// ```
///
/// Every request ends, once: see [`RequestError`](super::RequestError) for the ways it can end without a result.
pub struct Executor {
    commands: mpsc::UnboundedSender<Command>,
    workers: watch::Receiver<Workers>,
    name: Arc<str>,
    request_timeout: Option<Duration>,
    tasks: Tasks,
}

/// The topics of the workers that were heard of lately, each with what it can run.
pub type Workers = BTreeMap<String, Vec<String>>;

impl Executor {
    /// Starts to describe an executor on `transport`.
    pub fn builder(transport: impl Transport) -> ExecutorBuilder {
        ExecutorBuilder {
            transport: Arc::new(transport),
            topics: Vec::new(),
            request_timeout: Some(lifecycle::REQUEST_TIMEOUT),
            notify_period: lifecycle::NOTIFY_PERIOD,
            worker_expiry: lifecycle::WORKER_EXPIRY,
        }
    }

    /// Has a request run. The handle is a future of its outcome; the request is on its way whether or not that is
    /// polled, and forgotten when it is dropped.
    pub fn submit(&self, submission: impl Into<Submission>) -> Submitted {
        let Submission { request, key, timeout, run_timeout } = submission.into();
        let id = uuid::Uuid::new_v4().to_string();
        let (ended, outcome) = oneshot::channel();
        let (life, seen) = watch::channel(Life::new());
        let new = New {
            task: request.task_cls().to_owned(),
            key,
            body: request.to_json(),
            timeout: timeout.unwrap_or(self.request_timeout),
            run_timeout,
        };
        // If nobody takes the command, the channels close, and that is what the handle reports.
        let _ = self.commands.send(Command::Submit { id: id.clone(), new, ended, life });
        Submitted::new(id, outcome, seen, self.commands.clone())
    }

    /// The workers that were heard of lately.
    pub fn workers(&self) -> Workers {
        self.workers.borrow().clone()
    }

    /// Waits until at least `count` workers list `task`. Returns false if the executor ends before.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn wait_for_workers(&self, task: &str, count: usize) -> bool {
        let lists = |tasks: &&Vec<String>| tasks.iter().any(|listed| listed == task);
        let mut workers = self.workers.clone();
        workers.wait_for(|workers| workers.values().filter(lists).count() >= count).await.is_ok()
    }

    /// The topic of the answers, a new one for each executor.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Ends all requests that are left, and those submitted later, with [`Closed`](super::RequestError::Closed).
    /// What the workers do with them is not changed by that. Calling it twice does no harm.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it ends them all the same. Dropping the executor does so, too, without waiting.
    pub async fn shutdown(&self) {
        self.tasks.shutdown(LAST_WORDS).await;
    }

    /// Waits until the executor can have nothing run any more: it was shut down, or its transport was closed.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn closed(&self) {
        self.commands.closed().await;
    }
}

impl fmt::Debug for Executor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workers = self.workers();
        f.debug_struct("Executor")
            .field("name", &self.name)
            .field("workers", &workers)
            .finish_non_exhaustive()
    }
}

/// A request, and how the executor is to treat it. A plain [`Request`] is one, too.
#[derive(Debug, Clone)]
#[must_use = "a request is to be submitted"]
pub struct Submission {
    request: Request,
    key: Option<String>,
    timeout: Option<Option<Duration>>,
    run_timeout: Option<Duration>,
}

impl Submission {
    /// `request`, to be treated as any other.
    pub fn new(request: Request) -> Self {
        Submission { request, key: None, timeout: None, run_timeout: None }
    }

    /// Picks the worker by `key`, on a hash ring of the topics that list the task: related requests meet the same
    /// worker, and few change theirs when a worker comes or goes.
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// How long to wait for a worker to start on it, in the place of the executor's
    /// [request timeout](ExecutorBuilder::request_timeout).
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(Some(timeout));
        self
    }

    /// How long it may run; without this, for as long as its worker is alive. A worker of TaskFlow whose topic has a
    /// consumer is taken to be alive, be it one that was restarted, another one of the same topic, or one that hangs:
    /// for those a limit is wise.
    pub fn run_timeout(mut self, timeout: Duration) -> Self {
        self.run_timeout = Some(timeout);
        self
    }
}

impl From<Request> for Submission {
    fn from(request: Request) -> Self {
        Submission::new(request)
    }
}

/// Describes an executor. From [`Executor::builder`].
#[derive(Debug)]
#[must_use = "an executor does nothing until it is started"]
pub struct ExecutorBuilder {
    transport: Arc<dyn Transport>,
    topics: Vec<String>,
    request_timeout: Option<Duration>,
    notify_period: Duration,
    worker_expiry: Duration,
}

impl ExecutorBuilder {
    /// The topics where workers may be, in addition to those given before.
    pub fn topics(mut self, topics: impl IntoIterator<Item: Into<String>>) -> Self {
        self.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// How long a request waits for a worker to start on it; 60 s unless told otherwise, `None` is for ever. It is
    /// looked at once a second.
    ///
    /// The time counts from [`submit`](Executor::submit) until the worker says that the request is running, so that a
    /// request also expires that waits at a worker which is busy with others. Have no more requests open than the
    /// workers can run, or a timeout that is longer than the queue.
    pub fn request_timeout(mut self, timeout: impl Into<Option<Duration>>) -> Self {
        self.request_timeout = timeout.into();
        self
    }

    /// How often workers are asked what they can run; every 5 s unless told otherwise.
    pub fn notify_period(mut self, period: Duration) -> Self {
        self.notify_period = period;
        self
    }

    /// How long a worker may be silent, or silent about a request that it runs; 60 s unless told otherwise. It has to
    /// be several times as long as the [notify period](Self::notify_period) and as the
    /// [heartbeat](super::WorkerBuilder::heartbeat) of the workers, which do not know of it: whoever shortens this has
    /// to shorten theirs, or requests that run well end as [`WorkerVanished`](super::RequestError::WorkerVanished).
    pub fn worker_expiry(mut self, expiry: Duration) -> Self {
        self.worker_expiry = expiry;
        self
    }

    /// Starts the executor. When this returns, it can receive answers. Later it looks after its connection itself.
    ///
    /// # Errors
    ///
    /// [`TransportError`] if it has no topics, or its own cannot be consumed.
    ///
    /// # Cancel safety
    ///
    /// Safe: nothing was started then.
    pub async fn start(self) -> Result<Executor, TransportError> {
        let ExecutorBuilder { transport, topics, request_timeout, notify_period, worker_expiry } = self;
        if topics.is_empty() {
            let reason = "an executor needs topics, where it looks for workers".into();
            return Err(TransportError::Refused { reason });
        }
        let link = Link::new(transport);
        let name = link.sender.clone();
        let consumer = link.transport.consume(&name, PREFETCH).await?;
        let tasks = Tasks::new();
        let (commands, received) = mpsc::unbounded_channel();
        let (heard, hearing) = mpsc::channel(usize::from(PREFETCH));
        let (published, workers) = watch::channel(Workers::new());
        let driver = Driver {
            link: link.clone(),
            clock: link.transport.clock(),
            engine: Engine::new(worker_expiry),
            handles: Default::default(),
            workers: published,
            commands: received,
            heard: hearing,
            own_commands: commands.downgrade(),
            sending: Tasks::new(),
        };
        let topics: Arc<[String]> = topics.into();
        tasks.spawn("executor", driver.run(tasks.cancelled()));
        let receiving = driver::receive(link.clone(), consumer, topics.clone(), heard, tasks.cancelled());
        tasks.spawn("receive", receiving);
        tasks.spawn("notify", driver::ask(link, topics, notify_period, tasks.cancelled()));
        Ok(Executor { commands, workers, name, request_timeout, tasks })
    }
}
