//! Work that is sent: an executor hands requests to workers that have announced what they can run.

mod engine;
mod executor;
pub mod failure;
mod finder;
mod handler;
mod json;
pub mod lifecycle;
mod link;
pub mod local;
pub mod message;
mod server;
pub mod transport;
pub mod validate;

#[cfg(feature = "amqp")]
pub mod amqp;

pub use engine::{Outcome, RequestError};
pub use executor::{Executor, ExecutorBuilder, Progress, Submission, Submitted, Workers};
pub use handler::{ArgumentError, Arguments, Context, Handler, Undo};
pub use server::{Worker, WorkerBuilder};
