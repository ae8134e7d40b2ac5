//! The worker protocol: its messages, executor and worker over the broker in the process in paused time, and over a
//! real broker beside TaskFlow.

#[cfg(feature = "amqp")]
mod amqp;
mod defects;
mod determinism;
mod executor;
mod faults;
#[cfg(feature = "amqp")]
mod interop;
mod local;
mod messages;
mod peer;
mod server;
mod values;

#[cfg(feature = "amqp")]
#[path = "../support/mod.rs"]
mod support;
