//! The sources themselves: whether they are as ARCHITECTURE.md says.

mod layering;
