//! Divide one body of work among the processes of a fleet.

pub mod backend;
mod backoff;
pub mod clock;
pub mod ring;
mod task;
#[cfg(feature = "testing")]
pub mod testing;

pub use ring::{HashRing, Label, RingKey};
