//! An ensemble in the process.

/// An ensemble in the process.
#[derive(Debug, Clone)]
pub struct Memory;
