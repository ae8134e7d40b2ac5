//! Divide one body of work among the processes of a fleet.
//!
//! Alarm evaluators that share thousands of alarms, agents that share polling targets: start as many copies of a
//! service as you like, and each asks *"which part is mine now?"*. The answer is right, fast, and safe while
//! members come and go.
//!
//! ```
//! # use apportion::{Config, PartitionCoordinator, backend};
//! # struct Db; impl Db { async fn alarms(&self) -> Vec<String> { vec!["cpu".into(), "disk".into()] } }
//! # async fn evaluate(_: String) {}
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let db = Db;
//! # let url = Config::for_backend(backend::Memory::new());
//! // For instance "zookeeper://zk1:2181,zk2:2181,zk3:2181".
//! let coordinator = PartitionCoordinator::connect(url).await?;
//! let group = coordinator.join("alarm-evaluator").await?;
//! # for _ in 0..1 {
//! // Each cycle:
//! for alarm in group.extract_my_subset(db.alarms().await).await? {
//!     evaluate(alarm).await;
//! }
//! # }
//! // Peers see us leave now, not a session timeout later.
//! coordinator.shutdown().await?;
//! # Ok::<(), apportion::Error>(()) }).unwrap();
//! ```
//!
//! That is one of three ways to divide work:
//!
//! - **Shares** of a group, as above: everybody knows all the work, and each does a part.
//! - **Claims**: jobs are posted on a [board], or put into a [queue] by priority and label, and workers take them. A
//!   claim is exclusive and comes back by itself when its holder dies.
//! - **Requests**: an [`Executor`] sends them to [`Worker`]s that have told it which tasks they can run.
//!
//! # The pieces
//!
//! - [`PartitionCoordinator`] is one member of a fleet: it keeps a session to ZooKeeper, with heartbeats and
//!   reconnects, and joins groups.
//! - [`Group`] is a membership that looks after itself. [`Group::extract_my_subset`] answers the question;
//!   [`Group::view`] shows who is in the group, without I/O; [`Group::rebalances`] tells long-running work what was
//!   lost and gained.
//! - [`Share`] is the answer: items, and until when this member may act on them. Iterating over it ends early when
//!   the items may have passed to somebody else.
//! - [`KeySet`] is a large, mostly stable set of items, hashed once: [`Group::share`] and each rebalance then take time
//!   for the answer only.
//! - [`HashRing`] is the consistent-hash ring behind it, equal to aodh's to the bit. It needs no coordinator and no
//!   runtime.
//! - [`JobBoard`] is a board of jobs in TaskFlow's layout, [`WorkQueue`] a queue by priority; what is claimed or taken
//!   rests on a [`Lease`], with a [`FencingToken`] for stores that must refuse stale writers.
//! - [`Executor`] has tasks run by [`Worker`]s, within the process or over AMQP. The two need no coordinator; see
//!   [`worker`].
//! - [`Config`] is everything that is chosen beforehand, from a URL or by setters.
//! - [`backend`] is the seam to the store: ZooKeeper, or [`backend::Memory`], an ensemble in the process with the same
//!   semantics, for tests and trials.
//!
//! # What is guaranteed
//!
//! A member stops before it could be replaced: its shares are empty and invalid, by its own clock, before ZooKeeper
//! can expire its session. Once a membership has come to rest every key has exactly one owner, and a change moves
//! only the keys of those who came or went. What is *not* guaranteed yet is that no two members hold a key in the
//! moment of a change. What is claimed is claimed by one, at the store and by the clock. [`guide::guarantees`] has the
//! tables, the bounds and the assumptions; [`guide`] also says what changes for those who come from Python.
//!
//! # Long-running work
//!
//! ```
//! # use apportion::{Config, PartitionCoordinator, backend};
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let coordinator = PartitionCoordinator::standalone();
//! # let group = coordinator.join("shards").await?;
//! # let shards = vec!["shard-1".to_string(), "shard-2".to_string()];
//! # let mut running = std::collections::BTreeSet::new();
//! let mut rebalances = group.rebalances();
//! while let Some(change) = rebalances.next().await {
//!     // Stop what was lost before starting what was gained.
//!     for shard in change.lost(&shards) {
//!         running.remove(shard);
//!     }
//!     for shard in change.gained(&shards) {
//!         running.insert(shard);
//!     }
//! #   break;
//! }
//! # assert_eq!(running.len(), 2);
//! # Ok::<(), apportion::Error>(()) }).unwrap();
//! ```
//!
//! # Work that is claimed
//!
//! ```
//! # use apportion::{Config, PartitionCoordinator, backend, board::Priority};
//! # use serde_json::json;
//! # async fn resize(_: &apportion::board::Job) -> Result<(), String> { Ok(()) }
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! # let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
//! let board = coordinator.job_board("/taskflow/jobs").await?;
//! board.post("resize-volume").details(json!({ "volume": "v-17" })).priority(Priority::High).await?;
//!
//! let claim = board.claim_next().await?;
//! match claim.lease().while_held(resize(claim.job())).await {
//!     Ok(Ok(())) => claim.consume().await?,
//!     Ok(Err(_)) => claim.abandon().await?, // it failed: somebody may try again
//!     Err(_) => {}                          // the lease was lost: another worker may have the job now
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
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
//! Each variant of [`Error`] is there because a caller would do something different:
//!
//! ```
//! # use apportion::{Error, Group};
//! # async fn evaluate_all(_: apportion::Share<String>) {}
//! # async fn page_someone(_: &[apportion::MemberId]) {}
//! # async fn doc(group: Group, alarms: Vec<String>) -> Result<(), Box<dyn std::error::Error>> {
//! match group.extract_my_subset(alarms).await {
//!     Ok(mine) => evaluate_all(mine).await, // empty while the backend is away
//!     Err(Error::NotInGroup { members, .. }) => page_someone(&members).await,
//!     Err(Error::MemberIdTaken { member, .. }) => return Err(format!("two services call themselves {member}").into()),
//!     Err(error) => return Err(error.into()),
//! }
//! # Ok(()) }
//! ```
//!
//! # Cargo features
//!
//! - `zookeeper` (default): the distributed engine. Without it there are the ring and the in-memory backend.
//! - `amqp`: the [`worker`] protocol over an AMQP broker such as RabbitMQ, laid out as kombu does it.
//! - `rayon`: [`HashRing::par_extract`] and [`KeySet::par_new`], which spread very many keys over the threads of a
//!   `rayon` pool. Same results, same order.
//! - `testing`: the conformance suite for backends, and decorators that intercept the calls of a backend.
//!
//! No feature changes behaviour.

#![warn(clippy::unwrap_used)]

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
pub mod lease;
mod member;
pub mod queue;
mod random;
pub mod ring;
mod session;
pub mod share;
mod task;
#[cfg(feature = "testing")]
pub mod testing;
mod token;
mod watch;
pub mod worker;

pub use board::JobBoard;
pub use config::{Config, ConfigError};
pub use coordinator::{Join, PartitionCoordinator};
pub use error::Error;
pub use future::BoxFuture;
pub use group::Group;
pub use lease::{FencingToken, Lease, LeaseLost};
pub use member::MemberId;
pub use queue::WorkQueue;
pub use ring::{HashRing, KeySet, Label, RingKey};
pub use share::Share;
pub use worker::{Executor, Worker};

/// The crate of the values in postings, queue entries and messages, in the version that this one takes.
pub use serde_json;
/// The crate of the ids of jobs and of their books, in the version that this one takes.
pub use uuid;
