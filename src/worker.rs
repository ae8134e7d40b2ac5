//! Work that is sent: an [`Executor`] hands requests to [`Worker`]s that have announced what they can run.
//!
//! ```
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! use apportion::worker::{Executor, Worker, local::LocalBroker, message::Request};
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
//!     .start()
//!     .await?;
//!
//! let executor = Executor::builder(broker).topics(["images"]).start().await?;
//! let request = executor.submit(Request::execute("resize").argument("width", 120));
//! let mut progress = request.progress();
//! assert_eq!(request.await?, "thumbnail-120.png");
//! assert_eq!(progress.next().await.and_then(|event| event.as_progress()), Some(0.5));
//!
//! executor.shutdown().await;
//! worker.shutdown(std::time::Duration::from_secs(30)).await;
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # The life of a request
//!
//! It waits (WAITING) until a worker is known that lists its task, is sent to that worker (PENDING), runs there
//! (RUNNING), and ends as SUCCESS or FAILURE. Its handle, [`Submitted`], is a future of its [`Outcome`]:
//!
//! | what happens | how the request ends |
//! |---|---|
//! | the task gives a value | that value |
//! | the task fails or panics; no such task; a request that makes no sense | [`Failed`](RequestError::Failed), with the chain of causes |
//! | no worker has started on it for 60 s, be it that there is none or that all are busy | [`Expired`](RequestError::Expired) |
//! | nothing was heard of a request that runs for 60 s | [`WorkerVanished`](RequestError::WorkerVanished) |
//! | it runs for longer than [`Submission::run_timeout`], if there is one | [`Overdue`](RequestError::Overdue) |
//! | it could not be sent, three times in a row | [`NotSent`](RequestError::NotSent) |
//! | the answer says that it is over, and cannot be read | [`BadAnswer`](RequestError::BadAnswer) |
//! | the executor was shut down, or the transport closed | [`Closed`](RequestError::Closed) |
//!
//! A request ends once, and always: messages that are lost, come twice or in the wrong order change which line of the
//! table it is at most. A request is acknowledged before it is run, so nobody runs it a second time when its worker
//! dies; to try again is up to who submitted it, and [`RequestError::may_have_run`] is there to tell. A second copy of a request is dropped by the worker that has the
//! first. Only workers that *share* a topic can both run one: when a connection to an AMQP broker breaks just as the
//! request is sent or acknowledged, another of them may get the copy. A task that must not run twice wants a topic
//! for each worker.
//!
//! # Beside TaskFlow
//!
//! The messages are those of TaskFlow's worker-based engine, so an executor can use workers in Python and the reverse,
//! over an AMQP broker that both reach. Two things work between peers of this crate only, which recognise each other by
//! [`sender`](transport::Message::sender). A worker goes on saying that a request is running, so that one whose worker
//! died is noticed even if the worker is back already or shares its topic. A worker of TaskFlow answers nobody while
//! all its threads are busy, so a request that runs there is lost when the worker is silent *and* the broker knows of
//! no consumer at its topic. And a worker does not run a late copy of a request that it has
//! run before.

mod engine;
mod executor;
pub mod failure;
mod finder;
mod handler;
mod json;
pub mod lifecycle;
mod link;
pub mod local;
pub mod message;
mod server;
pub mod transport;
pub mod validate;

#[cfg(feature = "amqp")]
pub mod amqp;

pub use engine::{Outcome, RequestError};
pub use executor::{Executor, ExecutorBuilder, Progress, Submission, Submitted, Workers};
pub use handler::{ArgumentError, Arguments, Context, Handler, Undo};
pub use server::{Worker, WorkerBuilder};
