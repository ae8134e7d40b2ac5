// Pure: no runtime, no clock, no socket, no random numbers.

//! The messages between executor and worker, from and to JSON.
//!
//! An executor sends [`Notify`] and a worker answers [`NotifyReply`]. An executor sends a
//! [`Request`](super::Request), and a worker answers with several [`Response`]s. Applications need none of this:
//! [`Executor`](super::Executor) and [`Worker`](super::Worker) do it. It is for tools that read or write messages.
//!
//! Reading accepts what TaskFlow accepts and refuses what it refuses (see [`validate`](super::validate)). Writing gives what its workers
//! and executors accept.

mod action;
pub(super) mod event;
pub(super) mod failure;
mod json;
mod notify;
pub(super) mod request;
mod response;

pub use self::{
    action::{Action, UnknownAction},
    notify::{Notify, NotifyReply},
    request::TaskVersion,
    response::{InvalidResponse, Response, WireResponse},
};
