//! The ring: whose key is it, whoever asks, on whatever machine.

mod golden;
mod kernels;
mod key_set;
mod properties;
