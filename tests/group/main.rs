//! Groups: coordinators, members and their shares, in memory and on real servers.

mod bad_input;
#[cfg(all(feature = "zookeeper", feature = "cli"))]
mod command;
mod config;
mod coordinator;
mod exclusive;
mod handles;
mod held;
#[cfg(feature = "http")]
mod http;
mod key_set;
mod membership;
#[cfg(feature = "metrics")]
mod metrics;
mod observing;
#[cfg(feature = "zookeeper")]
mod outages;
#[cfg(feature = "zookeeper")]
mod processes;
mod run_each;
mod runtimes;
#[cfg(all(feature = "http", feature = "metrics", feature = "zookeeper"))]
mod service;
mod shutdown;
mod spans;
mod spawnable;
mod status;
mod tooz;
mod turns;
mod validity;
mod values;
#[cfg(feature = "zookeeper")]
mod wire;

#[path = "../support/mod.rs"]
mod support;
