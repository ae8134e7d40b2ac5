//! Boards and queues under lost replies, lost sessions, rivals, foreign znodes and callers that stop waiting: nothing
//! that was acknowledged is lost, nothing is done twice, and nothing stays behind.

mod board;
#[cfg(all(feature = "zookeeper", feature = "cli"))]
mod command;
mod dropped_calls;
mod ledger;
#[cfg(feature = "zookeeper")]
mod limits;
mod panics;
#[cfg(feature = "zookeeper")]
mod processes;
mod queue;
mod repeatable;
mod requests;
#[cfg(feature = "zookeeper")]
mod restarts;
mod runners;
mod session_faults;
mod setup;
mod soak;

#[path = "../support/mod.rs"]
mod support;
