//! Groups: coordinators, members and their shares, in memory and on real servers.

mod bad_input;
#[cfg(all(feature = "zookeeper", feature = "cli"))]
mod command;
mod config;
mod coordinator;
mod exclusive;
mod handles;
mod held;
mod key_set;
mod membership;
mod observing;
#[cfg(feature = "zookeeper")]
mod outages;
#[cfg(feature = "zookeeper")]
mod processes;
mod runtimes;
mod shutdown;
mod spawnable;
mod turns;
mod validity;
mod values;
#[cfg(feature = "zookeeper")]
mod wire;

#[path = "../support/mod.rs"]
mod support;
