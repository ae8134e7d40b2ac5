//! The ring: each process finds the same owner of a key, on each processor.

mod golden;
mod kernels;
mod key_set;
mod properties;
mod tooz;

#[path = "../support/mod.rs"]
mod support;
