//! Runners: the loops of a service, so that it needs none of its own.
//!
//! [`Group::run_each`](crate::Group::run_each) has one task for each key that this member owns.

mod each;
mod each_driver;
mod failure;
mod key_task;
mod keys;
mod phase;
mod rate;
mod states;
mod table;

pub use self::{
    each::RunEach,
    failure::{Failure, Outcome},
    key_task::KeyTask,
    keys::{KeyList, Keys},
    states::{EachCounts, KeyState},
};
