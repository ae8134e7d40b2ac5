//! The two backends: what each promises, what they do when connections break, and that they agree. Also the servers and
//! proxies of these tests.

#[cfg(feature = "zookeeper")]
mod agreement;
#[cfg(feature = "zookeeper")]
mod harness;
mod intercept;
mod memory;
#[cfg(feature = "zookeeper")]
mod zookeeper;

#[path = "../support/mod.rs"]
mod support;
