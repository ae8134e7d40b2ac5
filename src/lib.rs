//! Divide one body of work among the processes of a fleet.

pub mod backend;
mod backoff;
pub mod clock;
pub mod config;
mod coordinator;
mod error;
pub mod group;
pub mod ring;
mod session;
mod share;
mod task;
#[cfg(feature = "testing")]
pub mod testing;

pub use config::{Config, ConfigError};
pub use coordinator::{Join, PartitionCoordinator};
pub use error::Error;
pub use group::{Group, MemberId};
pub use ring::{HashRing, Label, RingKey};
pub use share::Share;
