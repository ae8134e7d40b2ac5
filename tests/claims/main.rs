//! Boards and queues. Whoever works on what is claimed meets lost replies, lost sessions, rivals, strangers and
//! impatient callers: nothing that was acknowledged is lost, nothing is done twice, and nothing stays behind.

mod bench;
mod board;
mod cancel;
mod ledger;
#[cfg(feature = "zookeeper")]
mod limits;
mod panics;
#[cfg(feature = "zookeeper")]
mod processes;
mod queue;
mod regressions;
mod repeatable;
mod requests;
#[cfg(feature = "zookeeper")]
mod restarts;
mod session_faults;
mod soak;

#[path = "../support/mod.rs"]
mod support;
