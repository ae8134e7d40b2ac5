// Pure: no runtime, no clock, no socket, no random numbers.

//! [`EntryId`]: which entry it is, in whatever folder.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::entry::Entry;

/// The id of an entry that was put. An [`Entry`] gets another name with each move; its id stays. From
/// [`WorkQueue::put`](super::WorkQueue::put).
///
/// The text has the priority and the label of the entry, which make it quick to find: `100-taxi:42-<uuid>`. In JSON it
/// is that text.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EntryId {
    priority: u32,
    label: Box<str>,
    uuid: Uuid,
}

/// The text is not the id of an entry. From parsing an [`EntryId`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{}` is not the id of an entry", .0.escape_debug())]
pub struct InvalidEntryId(pub String);

impl EntryId {
    pub(super) fn new(priority: u16, label: &str, uuid: Uuid) -> Self {
        EntryId { priority: priority.into(), label: label.into(), uuid }
    }

    /// The label of the entry.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// What the value of the entry has as its id.
    pub(super) fn field(&self) -> String {
        self.uuid.simple().to_string()
    }

    /// Whether an entry of this name can be the one.
    pub(super) fn may_be(&self, entry: &Entry) -> bool {
        (entry.priority(), entry.label()) == (self.priority, &*self.label)
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.priority, self.label, self.uuid.simple())
    }
}

impl FromStr for EntryId {
    type Err = InvalidEntryId;

    fn from_str(text: &str) -> Result<Self, InvalidEntryId> {
        let parse = || {
            let (priority, rest) = text.split_once('-')?;
            let (label, uuid) = rest.rsplit_once('-')?;
            Some(EntryId { priority: priority.parse().ok()?, label: label.into(), uuid: uuid.parse().ok()? })
        };
        parse().ok_or_else(|| InvalidEntryId(text.into()))
    }
}

impl TryFrom<String> for EntryId {
    type Error = InvalidEntryId;

    fn try_from(text: String) -> Result<Self, InvalidEntryId> {
        text.parse()
    }
}

impl From<EntryId> for String {
    fn from(id: EntryId) -> String {
        id.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_read_back_from_its_text() {
        for label in ["", "taxi:42", "a-b", "-a"] {
            let id = EntryId::new(900, label, Uuid::from_u128(7));
            assert_eq!(id.to_string().parse(), Ok(id.clone()), "{label}");
            let entry: Entry = format!("{}0000000003", Entry::prefix(900, label)).parse().unwrap();
            assert!(id.may_be(&entry));
            assert!(!id.may_be(&"entry-100-x-0000000003".parse().unwrap()));
        }
        for text in ["", "100", "100-a", "x-a-00000000000000000000000000000007"] {
            assert_eq!(text.parse::<EntryId>(), Err(InvalidEntryId(text.into())));
        }
    }
}
