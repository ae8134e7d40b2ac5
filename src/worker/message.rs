// Pure: no runtime, no clock, no socket, no random numbers.

//! The messages between executor and worker, from and to JSON.
//!
//! An executor sends [`Notify`] and a worker answers [`NotifyReply`]. An executor sends a
//! [`Request`](super::Request), and a worker answers with several [`Response`]s. Processes of this crate also send each
//! other an [`Inventory`]. [`Executor`](super::Executor) and [`Worker`](super::Worker) send and read them. This module
//! is for tools that read or write messages themselves.
//!
//! Reading accepts and refuses the same messages as TaskFlow (see [`validate`](super::validate)). TaskFlow accepts all
//! messages that are written here.

mod action;
pub(super) mod event;
pub(super) mod failure;
mod inventory;
mod json;
mod notify;
pub(super) mod request;
mod response;

pub use self::{
    action::{Action, UnknownAction},
    inventory::Inventory,
    notify::{Notify, NotifyReply},
    request::TaskVersion,
    response::{InvalidResponse, Response, WireResponse},
};
