//! Runners: the loops of a service, so that it needs none of its own.
//!
//! | | |
//! |---|---|
//! | [`Group::run_each`](crate::Group::run_each) | one task for each key that this member owns |
//! | [`JobBoard::run`](crate::JobBoard::run) | a handler for each job of a board, by its name |
//! | [`WorkQueue::run`](crate::WorkQueue::run) | a handler for each entry of a queue |
//!
//! All three are builders that are awaited. They run until the future of `until` ends, ask what runs to stop, wait for it
//! until the end of the `drain`, and return what was done. Several of them can run in one process at the same time:
//!
//! ```
//! # use std::time::Duration;
//! # use apportion::{Config, PartitionCoordinator, backend, run::{EntryTask, Failure, JobTask, KeyTask}};
//! # async fn poll(_: KeyTask<String>) -> Result<(), std::io::Error> { std::future::pending().await }
//! # async fn resize(_: JobTask) -> Result<(), Failure> { Ok(()) }
//! # async fn render(_: EntryTask) -> Result<u32, Failure> { Ok(7) }
//! # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
//! # let shutdown = || tokio::time::sleep(Duration::from_secs(1));
//! let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
//! let group = coordinator.join("pollers").await?;
//! let board = coordinator.job_board("/jobs").await?;
//! let queue = coordinator.queue("/reports").await?;
//! let shards = vec!["shard-1".to_string(), "shard-2".to_string()];
//! let (polled, resized, rendered) = tokio::join!(
//!     group.run_each(&shards, poll).until(shutdown()),
//!     board.run().on("resize-volume", resize).until(shutdown()),
//!     queue.run(render).until(shutdown()),
//! );
//! # polled?; resized?; rendered?;
//! coordinator.shutdown().await?;
//! # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
//! ```
//!
//! # What runs
//!
//! Each task or handler is a task of the runtime, and gets what it works on: a [`KeyTask`], a [`JobTask`] or an
//! [`EntryTask`]. Its future is polled only while this process may act. That of a job or entry is dropped at the moment
//! at which its lease is lost, as by [`Lease::while_held`](crate::Lease::while_held). That of a key is dropped when it would
//! be polled next, at the latest within some seconds. A panic is a failure like any other error. A poll that blocks its
//! thread cannot be interrupted: use `tokio::task::spawn_blocking`.
//!
//! A [`Failure`] says what follows: another attempt after a growing pause, which is what any error becomes, another pause,
//! or no further attempt.

mod board;
mod conductor;
mod counts;
mod each;
mod each_driver;
mod failure;
mod guarded;
mod key_task;
mod keys;
mod phase;
mod plan;
mod pool;
mod queue;
mod rate;
#[cfg(feature = "tower")]
mod service;
mod states;
mod table;

#[cfg(feature = "tower")]
pub use self::service::service;
pub use self::{
    board::{JobTask, RunBoard},
    counts::Counts,
    each::RunEach,
    failure::{Failure, Outcome},
    key_task::KeyTask,
    keys::{KeyList, Keys},
    queue::{EntryTask, RunQueue},
    states::{EachCounts, KeyState},
};
