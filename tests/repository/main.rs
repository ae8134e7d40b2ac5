//! Checks that the sources are as ARCHITECTURE.md says.

mod layering;
