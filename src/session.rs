//! Keeps one live session.

#[allow(dead_code, reason = "used by the session's driver")]
pub(crate) mod timing;
