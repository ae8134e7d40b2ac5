//! Part of the worker protocol.
