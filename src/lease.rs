//! Exclusive, temporary ownership of one thing.
