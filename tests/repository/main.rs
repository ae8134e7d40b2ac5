//! The repository itself: whether the sources are as ARCHITECTURE.md says, and whether the documents name what exists.

mod documents;
mod layering;
