//! Checks that the sources are as ARCHITECTURE.md says, and that the documents name files that exist.

mod documents;
mod layering;
