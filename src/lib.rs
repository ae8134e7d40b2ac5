//! Divide one body of work among the processes of a fleet.
//!
//! It is for services such as alarm evaluators that share thousands of alarms, or agents that share polling targets.
//! Start as many copies of a service as you like. Each asks *"which part is mine now?"*. The answer is right, fast,
//! and safe while members come and go.
//!
//! ```
//! # use apportion::{Config, PartitionCoordinator, backend};
//! # struct Db; impl Db { async fn alarms(&self) -> Vec<String> { vec!["cpu".into(), "disk".into()] } }
//! # async fn evaluate(_: &str) {}
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let db = Db;
//! # let url = Config::for_backend(backend::Memory::new());
//! // For instance "zookeeper://zk1:2181,zk2:2181,zk3:2181".
//! let coordinator = PartitionCoordinator::connect(url).await?;
//! let group = coordinator.join("alarm-evaluator").await?;
//! # for _ in 0..1 {
//! // Each cycle:
//! for alarm in group.extract_my_subset(db.alarms().await).await? {
//!     evaluate(&alarm).await;
//! }
//! # }
//! // The other members see at once that this one has left, not a session timeout later.
//! coordinator.shutdown().await?;
//! # Ok::<(), apportion::Error>(()) }).unwrap();
//! ```
//!
//! That is one of three ways to divide work:
//!
//! - **Shares** of a group, as above: every member knows all the work, and each does a part.
//! - **Claims**: jobs are posted on a [board], or put into a [queue] by priority and label, and workers take them. A
//!   claim is exclusive. If its owner dies, another worker can claim the job.
//! - **Requests**: an [`Executor`] sends requests to [`Worker`]s. Each worker announces which tasks it can run.
//!
//! # The pieces
//!
//! - [`PartitionCoordinator`] is one member of a fleet: it keeps a session to ZooKeeper, with heartbeats and
//!   reconnects, and joins groups.
//! - [`Group`] is a membership in a group. A background task keeps it up. [`Group::extract_my_subset`] answers the
//!   question; [`Group::view`] shows who is in the group, without I/O; [`Group::rebalances`] reports to long-running
//!   work what was lost and gained.
//! - [`PartitionCoordinator::observe`] follows a group without joining it: for routers, dashboards and operators.
//! - [`Share`] is the answer: items, and until when this member may act on them. Iteration gives a guard for each item,
//!   [`Held`], skips what was lost, and ends early when all items may belong to another member.
//! - [`KeySet`] is a large set of items that seldom changes. Each item is hashed once. [`Group::share`] and each
//!   rebalance then take time in proportion to their answer, not to the set.
//! - [`HashRing`] is the consistent-hash ring that decides who owns what, equal to aodh's or tooz's to the bit. It
//!   needs no coordinator and no runtime.
//! - [`JobBoard`] is a board of jobs in TaskFlow's layout. [`WorkQueue`] is a queue by priority. Each claim and each
//!   delivery has a [`Lease`], with a [`FencingToken`] for stores that must refuse stale writers.
//! - [`run`] has the loops of a service: [`Group::run_each`], [`JobBoard::run`] and [`WorkQueue::run`].
//! - [`Executor`] sends tasks to [`Worker`]s, within the process or over AMQP. The two need no coordinator; see
//!   [`worker`].
//! - [`Config`] holds the settings, from a URL or by setters.
//! - [`backend`] is the interface to the store: ZooKeeper, or [`backend::Memory`], an ensemble in the process with the
//!   same semantics, for tests and trials.
//!
//! # What is guaranteed
//!
//! A member stops before another one can take over: its shares are empty and invalid, by its own clock, before
//! ZooKeeper can expire its session. No two members act on one key, also during a change: a member starts on a key when
//! each member that had it has ended its work on it, or has certainly stopped. Beside Python members, and with
//! [`Join::immediate`], two can: [`Share::is_exclusive`] says which of the two holds. While a membership does not change
//! and no work is in progress on keys that moved, every key has exactly one owner. A change moves only the keys of the
//! members that joined or left. A claim has one owner at a time, at the store and by the owner's clock.
//! [`guide::guarantees`] has the tables, the bounds and the assumptions. [`guide`] also says what changes for users
//! who come from Python.
//!
//! # Long-running work
//!
//! ```
//! # use std::time::Duration;
//! # use apportion::{Config, PartitionCoordinator, backend};
//! # async fn poll(_: &str) -> Result<(), std::io::Error> { std::future::pending().await }
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! # let coordinator = PartitionCoordinator::standalone();
//! # let shutdown = tokio::time::sleep(Duration::from_secs(1));
//! let group = coordinator.join("shards").await?;
//! let shards = vec!["shard-1".to_string(), "shard-2".to_string()];
//! // One task for each shard that this member owns. It is stopped before another member starts one.
//! let counts = group.run_each(&shards, |shard| async move { poll(&shard).await }).until(shutdown).await?;
//! # assert_eq!(counts.started, 2);
//! # Ok::<(), apportion::Error>(()) }).unwrap();
//! ```
//!
//! [`Group::rebalances`] is for a loop of your own.
//!
//! # Work that is claimed
//!
//! ```
//! # use std::time::Duration;
//! # use apportion::{Config, PartitionCoordinator, backend, board::Priority, run::JobTask};
//! # use serde_json::json;
//! # async fn resize(_: JobTask) -> Result<(), String> { Ok(()) }
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! # let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
//! # let shutdown = tokio::time::sleep(Duration::from_secs(1));
//! let board = coordinator.job_board("/taskflow/jobs").await?;
//! board.post("resize-volume").details(json!({ "volume": "v-17" })).priority(Priority::High).await?;
//!
//! // A job that fails is tried again after a pause, which grows, and goes to the trash after five attempts.
//! let counts = board.run().on("resize-volume", resize).concurrency(8).max_attempts(5).until(shutdown).await?;
//! # assert_eq!(counts.finished, 1);
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! Claims and deliveries can also be taken and ended one by one: see [`board`] and [`queue`].
//!
//! # Without a server
//!
//! ```
//! # use apportion::{Config, PartitionCoordinator, backend};
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! // One member that owns everything:
//! let alone = PartitionCoordinator::standalone();
//!
//! // Several members in one process:
//! let ensemble = backend::Memory::new();
//! let a = PartitionCoordinator::connect(Config::for_backend(ensemble.clone()).member_id("a")).await?;
//! let b = PartitionCoordinator::connect(Config::for_backend(ensemble).member_id("b")).await?;
//! # let _ = (alone, a, b);
//! # Ok::<(), apportion::Error>(()) }).unwrap();
//! ```
//!
//! # Errors
//!
//! A caller does something different for each variant of [`Error`]:
//!
//! ```
//! # use apportion::{Error, Group};
//! # async fn evaluate_all(_: apportion::Share<String>) {}
//! # async fn alert_operator(_: Option<&[apportion::MemberId]>) {}
//! # async fn doc(group: Group, alarms: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
//! match group.extract_my_subset(alarms).await {
//!     Ok(mine) => evaluate_all(mine).await, // empty while the backend is away
//!     Err(Error::NotInGroup { members, .. }) => alert_operator(members.as_deref()).await,
//!     Err(Error::MemberIdTaken { member, holder, .. }) => return Err(format!("{member} is also {holder}").into()),
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok(()) }
//! ```
//!
//! # Cargo features
//!
//! - `zookeeper` (default): the ZooKeeper backend. Without it there are the ring and the in-memory backend.
//! - `amqp`: the [`worker`] protocol over an AMQP broker such as RabbitMQ, with exchanges and queues as kombu declares
//!   them.
//! - `tls`: encrypted connections to ZooKeeper servers and AMQP brokers. It needs a C compiler.
//! - `sasl`: SASL with DIGEST-MD5 to ZooKeeper servers.
//! - `cli`: the operator's command, `apportion`: see [`guide::command`].
//! - `http`: `/healthz`, `/status` and `/metrics` as a tower service: [`http`].
//! - `metrics`: what this library counts and measures, for the exporter of the service: [`metrics`].
//! - `rayon`: [`HashRing::par_extract`] and [`KeySet::par_new`], which divide very many keys among the threads of a
//!   `rayon` pool. Results and order are the same.
//! - `tower`: [`run::service`], with which a `tower::Service` is a handler of a runner.
//! - `testing`: the conformance suite for backends, and decorators that intercept the calls of a backend.
//!
//! No feature changes behaviour.

#![warn(clippy::unwrap_used)]

mod ages;
pub mod backend;
mod backoff;
pub mod board;
pub mod clock;
pub mod config;
mod coordinator;
mod error;
mod future;
pub mod group;
pub mod guide;
mod host;
#[cfg(feature = "http")]
pub mod http;
mod json;
pub mod lease;
mod member;
pub mod metrics;
mod opened;
pub mod queue;
mod random;
pub mod ring;
pub mod run;
mod session;
pub mod share;
mod task;
// The unit tests use it, too, also where the feature is not on: in the published package.
#[cfg(any(feature = "testing", test))]
pub mod testing;
#[cfg(feature = "tls")]
pub mod tls;
mod token;
mod watch;
pub mod worker;

/// How a coordinator is, with all that it has open: from [`PartitionCoordinator::status`].
pub mod status {
    pub use crate::{
        board::BoardStatus,
        coordinator::{CoordinatorStatus as Status, GroupStatus, Part, SessionStatus},
        group::{Standing, Status as MembershipStatus, Waiting, Why},
        queue::QueueStatus,
        session::shown::SessionState,
    };
}

pub use board::JobBoard;
pub use config::{Config, ConfigError};
pub use coordinator::{Join, Observe, PartitionCoordinator};
pub use error::Error;
pub use future::BoxFuture;
pub use group::{Group, Held};
pub use lease::{FencingToken, Lease, LeaseLost};
pub use member::MemberId;
pub use queue::WorkQueue;
pub use ring::{HashRing, KeySet, Label, RingKey};
pub use share::Share;
pub use worker::{Executor, Worker};

/// The crate `serde_json`, in the version that this crate uses, for the values in postings, queue entries and messages.
pub use serde_json;
/// The crate `uuid`, in the version that this crate uses, for the ids of jobs and of their logbooks.
pub use uuid;
