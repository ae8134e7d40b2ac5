//! Mixed fleets: members, workers and dispatchers of this crate beside those of the Python systems, on one server.
//!
//! Each member of a group is a process of its own. It is driven by lines on its stdin, and says on its stdout what it may
//! act on and when. An oracle compares what all of them said. `fencing.rs` needs nothing of that: only a database, which Python has.

mod board_worker;
mod boards;
mod evaluator;
mod evaluators;
mod fencing;
mod fleet;
mod holdings;
mod identity;
mod member;
mod migration;
mod oracle;
mod queues;
mod stalls;
mod tooz;
mod versions;

#[path = "../support/mod.rs"]
mod support;
