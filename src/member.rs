// Pure: no runtime, no clock, no socket, no random numbers.

//! [`MemberId`], the name of a member, and the largest weight of a member.

use std::{fmt, str::FromStr, sync::Arc};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::backend::path::{PathError, ZnodePath};

/// The largest weight. A member with it has ten million ring points.
pub(crate) const MAX_WEIGHT: u32 = 100_000;

/// The name of a member, unique in its group.
///
/// Any text that can be the name of a znode: not empty, without `/`, not `.` or `..`, and only with characters that
/// ZooKeeper accepts. Python peers can read ASCII names only. In JSON it is the text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct MemberId(Arc<str>);

/// Why a text cannot be a [`MemberId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` cannot be a member id: {problem}", .id.escape_debug())]
#[non_exhaustive]
pub struct MemberIdError {
    /// The text.
    pub id: String,
    /// What is wrong with it. The message has it, so it is not the source as well.
    pub problem: PathError,
}

impl MemberId {
    /// Validates `id`.
    ///
    /// # Errors
    ///
    /// [`MemberIdError`] if no znode can have this name.
    pub fn new(id: impl AsRef<str>) -> Result<MemberId, MemberIdError> {
        let id = id.as_ref();
        match ZnodePath::root().join(id) {
            Ok(_) => Ok(MemberId(id.into())),
            Err(problem) => Err(MemberIdError { id: id.into(), problem }),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<Uuid> for MemberId {
    fn from(uuid: Uuid) -> MemberId {
        MemberId(uuid.hyphenated().to_string().into())
    }
}

impl FromStr for MemberId {
    type Err = MemberIdError;

    fn from_str(id: &str) -> Result<MemberId, MemberIdError> {
        MemberId::new(id)
    }
}

impl TryFrom<&str> for MemberId {
    type Error = MemberIdError;

    fn try_from(id: &str) -> Result<MemberId, MemberIdError> {
        MemberId::new(id)
    }
}

impl TryFrom<String> for MemberId {
    type Error = MemberIdError;

    fn try_from(id: String) -> Result<MemberId, MemberIdError> {
        MemberId::new(id)
    }
}

impl From<MemberId> for String {
    fn from(id: MemberId) -> String {
        id.as_str().into()
    }
}

impl AsRef<str> for MemberId {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl PartialEq<str> for MemberId {
    fn eq(&self, other: &str) -> bool {
        &*self.0 == other
    }
}

impl PartialEq<&str> for MemberId {
    fn eq(&self, other: &&str) -> bool {
        &*self.0 == *other
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
