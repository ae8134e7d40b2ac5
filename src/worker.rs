//! The worker protocol: an [`Executor`] sends requests to [`Worker`]s, which report the tasks that they can run.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use apportion::worker::{Executor, LocalBroker, Request, Worker};
//!
//! let broker = LocalBroker::new();
//! let worker = Worker::builder(broker.clone())
//!     .topic("images")
//!     .task("resize", async |context, arguments| {
//!         let width: u32 = arguments.get("width")?;
//!         context.update_progress(0.5).await;
//!         Ok::<_, Box<dyn std::error::Error + Send + Sync>>(format!("thumbnail-{width}.png"))
//!     })
//!     .concurrency(4)
//!     .await?;
//!
//! let executor = Executor::builder(broker).topics(["images"]).await?;
//! let request = executor.submit(Request::execute("resize").argument("width", 120));
//! let mut progress = request.progress();
//! assert_eq!(request.await?.get::<String>()?, "thumbnail-120.png");
//! assert_eq!(progress.next().await.and_then(|event| event.as_progress()), Some(0.5));
//!
//! executor.shutdown().await;
//! worker.shutdown(std::time::Duration::from_secs(30)).await;
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! Both use a [`transport`]: [`LocalBroker`] within the process, or, with the feature `amqp`, a broker such as
//! RabbitMQ.
//!
//! # The life of a request
//!
//! A request waits (WAITING) until the executor knows a worker that lists its task. It is sent to that worker
//! (PENDING), runs there (RUNNING), and ends as SUCCESS or FAILURE. If the worker has lost it before it started on it, it
//! is sent again, to the same worker or, after it was WAITING once more, to another. Its handle, [`Submitted`], is a future of its
//! [`Outcome`]:
//!
//! | what happens | how the request ends |
//! |---|---|
//! | the task gives a value | that value |
//! | the task fails or panics; the worker has no such task; the worker cannot read the request | [`Failed`](RequestError::Failed), with the chain of causes |
//! | no worker has started on it for 60 s, and none of this crate reports that it waits there | [`Expired`](RequestError::Expired) |
//! | no worker has listed its task for 60 s, although workers are known | [`UnknownTask`](RequestError::UnknownTask) |
//! | it runs, and its worker is silent for 60 s | [`WorkerVanished`](RequestError::WorkerVanished) |
//! | it runs for longer than [`Submission::run_timeout`], if that is set | [`Overdue`](RequestError::Overdue) |
//! | an argument cannot be written as JSON | [`Argument`](RequestError::Argument) |
//! | the broker refuses it | [`Refused`](RequestError::Refused) |
//! | the broker does not confirm it to a worker of TaskFlow, three times in a row | [`OutcomeUnknown`](RequestError::OutcomeUnknown) |
//! | its worker lives, and does not report it any more | [`OutcomeUnknown`](RequestError::OutcomeUnknown) |
//! | the worker reports the end of the request, and the result cannot be read | [`InvalidResponse`](RequestError::InvalidResponse) |
//! | the executor is shut down, or the transport closed | [`Closed`](RequestError::Closed) |
//!
//! Every request ends exactly once. Messages that are lost, come twice or come in the wrong order can only change which
//! line of the table applies.
//!
//! # At most once
//!
//! A request is acknowledged before it is run, so no other worker runs it again when its worker dies. The caller
//! decides whether to try again: [`RequestError::may_have_run`] says whether the task may run a second time then.
//!
//! A worker drops a second copy of a request. But workers that *share* a topic can both run a request: if a connection
//! to an AMQP broker breaks just while the request is sent or acknowledged, each of them may get a copy. For a task
//! that must not run twice, give each worker a topic of its own.
//!
//! # Beside TaskFlow
//!
//! The messages are those of TaskFlow's worker-based engine. So an executor can use workers in Python, and an engine in
//! Python can use workers of this crate, over an AMQP broker that both can reach. Peers of this crate recognize each
//! other by [`sender`](transport::Message::sender), and do more:
//!
//! - A worker reports periodically, and after its connection broke, which requests wait there and which run
//!   ([`Inventory`](message::Inventory)). So an executor sends again what was lost, and knows that a request waits for its
//!   turn. An executor whose connection broke gets the last results of each worker again.
//! - A worker repeats that a request is running. So an executor notices that a worker died, even if the worker was
//!   restarted or shares its topic. A worker of TaskFlow does not answer while all its threads are busy. A request that
//!   runs there counts as lost when the worker is silent *and* its topic has no consumer at the broker.
//! - A worker does not run a late copy of a request that it has run before.

mod arguments;
mod engine;
mod error;
mod executor;
mod finder;
mod handler;
mod instances;
pub mod lifecycle;
mod link;
mod local;
pub mod message;
mod outcome;
mod sender;
mod server;
mod state;
pub mod transport;
pub mod validate;

#[cfg(feature = "amqp")]
pub mod amqp;

pub use self::{
    arguments::{ArgumentError, Arguments},
    error::RequestError,
    executor::{Executor, ExecutorBuilder, Progress, Submission, Submitted, Workers},
    handler::{Context, Handler, Undo},
    local::LocalBroker,
    message::{
        event::{Event, EventError},
        failure::Failure,
        request::{Request, TaskResult},
    },
    outcome::Outcome,
    server::{Worker, WorkerBuilder},
    state::RequestState,
};
