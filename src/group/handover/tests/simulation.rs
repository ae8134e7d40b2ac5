//! The simulation: a fleet and an ensemble on simulated time, with faults, in one thread. A seed decides everything.
//!
//! In the first phase, faults come at random and an oracle checks that no two members act on one key. In the second
//! phase everything heals, and the fleet has to come to one epoch in which every key can be worked on.

mod faults;
mod member;
mod network;
mod oracle;
mod parts;
mod run;
mod seeds;
mod servers;
