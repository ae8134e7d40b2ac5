//! Group membership.

#[allow(dead_code, reason = "used by the membership engine and its driver")]
pub(crate) mod member;
#[allow(dead_code, reason = "used by the membership engine and its driver")]
pub(crate) mod process;

pub use self::member::{MemberId, MemberIdError};
