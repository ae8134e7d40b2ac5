//! Pure: part of the worker protocol.
