//! The two backends: what each promises, what they do when connections break, and that they agree. And the servers
//! and proxies of these tests themselves.

#[cfg(feature = "zookeeper")]
mod agreement;
#[cfg(feature = "zookeeper")]
mod harness;
mod intercept;
mod memory;
#[cfg(feature = "zookeeper")]
mod zookeeper;

#[cfg(feature = "zookeeper")]
#[path = "../support/mod.rs"]
mod support;
