//! Work that is sent: an executor hands requests to workers that have announced what they can run.

mod executor;
pub mod failure;
mod finder;
mod handler;
pub mod lifecycle;
pub mod local;
pub mod message;
mod server;
pub mod transport;

#[cfg(feature = "amqp")]
pub mod amqp;
