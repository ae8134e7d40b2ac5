//! Divide one body of work among the processes of a fleet.

pub mod backend;
mod backoff;
pub mod clock;
#[allow(dead_code, reason = "used by the coordinator")]
pub mod config;
pub mod group;
pub mod ring;
mod session;
mod task;
#[cfg(feature = "testing")]
pub mod testing;

pub use ring::{HashRing, Label, RingKey};
