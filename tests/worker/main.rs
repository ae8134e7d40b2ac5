//! The worker protocol: its messages, executor and worker over the broker in the process in paused time, and over a
//! real broker beside TaskFlow.

#[cfg(feature = "amqp")]
mod amqp;
mod determinism;
mod executor;
mod faults;
mod faulty;
#[cfg(feature = "amqp")]
mod interop;
mod local;
mod messages;
mod outages;
mod peer;
mod server;
mod severable;
mod values;

#[path = "../support/mod.rs"]
mod support;
