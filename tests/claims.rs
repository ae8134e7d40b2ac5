//! Whoever works on what is claimed meets lost replies, lost sessions, rivals, strangers and impatient callers: nothing
//! that was acknowledged is lost, nothing is done twice, and nothing stays behind.

#![cfg(feature = "zookeeper")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "claims/bench.rs"]
mod bench;
#[path = "claims/board_losses.rs"]
mod board_losses;
#[path = "claims/board_races.rs"]
mod board_races;
#[path = "claims/cancel.rs"]
mod cancel;
#[path = "queue/gate.rs"]
mod gate;
#[path = "claims/ledger.rs"]
mod ledger;
#[path = "claims/queue_losses.rs"]
mod queue_losses;
#[path = "claims/queue_races.rs"]
mod queue_races;
#[path = "claims/regressions.rs"]
mod regressions;
#[path = "claims/restarts.rs"]
mod restarts;
#[path = "claims/soak.rs"]
mod soak;
#[path = "claims/trap.rs"]
mod trap;

mod support;
