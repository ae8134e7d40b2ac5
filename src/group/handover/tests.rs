//! Tests of the handover: the explorer visits every state of a small fleet, the simulation runs large ones under faults.

mod bad_input;
mod directed;
mod documented;
mod ensemble;
mod explorer;
mod fleet;
mod groups;
mod joining;
mod large;
mod register;
mod simulation;
