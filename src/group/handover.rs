// Pure: no runtime, no clock, no socket, no random numbers.

//! The handover of keys: the pure state machine of one member of one group. It takes events and gives actions.
//!
//! No two members act on one key, and a key waits only for those who had it. `docs/handover.md` describes the protocol
//! and why it holds. In short:
//!
//! - A znode beside the group, the *head*, names the members of each *epoch*. A write that names the version before
//!   makes the next epoch.
//! - Every heartbeat checks our znode and the head. So a member whose *lease* goes on follows the newest epoch.
//! - At each epoch a member marks its work in flight on keys that it lost, and writes into its own znode which epoch it
//!   has reached (`ack`) and on which positions it still works (`keep`).
//! - A new owner of a key starts when every member that lost the key since the *floor* has released it.
//!
//! # For a driver
//!
//! One [`Handover`] is one membership; it lives as long as the group handle, over all sessions.
//!
//! 1. Pass what happens to [`Handover::step`], and do the actions that it returns in their order. `Update`, `Lease`,
//!    `Freeze`, `Thaw`, `FreezeAgain` and `EndAll` change the register of work in flight and cannot fail. The others
//!    are requests; each has one event as its answer. Never pass an answer that belongs to an earlier session.
//! 2. At [`Handover::wakeup`], pass [`Event::Tick`].
//! 3. A guard for a position may be made while it is in the ranges of [`Handover::startable`]. Its validity is that of the lease
//!    until it is marked; after that, what the actions say about its mark. Making a guard must be atomic with `Freeze`:
//!    a guard that is made after `Freeze` must have seen the `Update` before it.
//! 4. The moment of a `step` that returns a `Commit` counts as the time at which it was sent. So send it afterwards.
//!
//! All requests of one session have to be answered in their order, as ZooKeeper does. Only a heartbeat may be answered
//! before requests that were sent earlier.

mod attempts;
pub(crate) mod codec;
mod ended;
mod floor;
mod following;
mod history;
mod lease;
mod marks;
mod own;
mod parts;
mod places;
mod publishing;
mod release;
mod rules;
mod settings;
mod shown;
mod state;
mod status;
#[cfg(test)]
mod tests;
mod types;

pub(crate) use self::{
    history::{History, HistoryError},
    places::Places,
    settings::{Problem, Settings},
    shown::{Status, Why},
    state::Handover,
    types::{
        Action, Cause, Ended, Event, GroupStat, HeadRead, Incarnation, Listing, Members, Outcome, Part,
        Presence, Purpose, ReadError, Refusal, Write,
    },
};
