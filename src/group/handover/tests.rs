//! Tests of the handover: the explorer visits every state of a small fleet, the simulation runs large ones under faults.

mod bad_input;
mod explorer;
mod register;
mod simulation;
