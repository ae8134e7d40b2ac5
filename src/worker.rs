//! Work that is sent: an executor hands requests to workers that have announced what they can run.

mod executor;
pub mod failure;
mod finder;
mod handler;
mod json;
pub mod lifecycle;
pub mod local;
pub mod message;
mod server;
pub mod transport;
pub mod validate;

#[cfg(feature = "amqp")]
pub mod amqp;
