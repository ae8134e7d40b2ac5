// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Layout`]: the folders of a queue. `unowned`, `owned` and `done` are those of the original; the others are new.

use crate::backend::path::{PathError, ZnodePath};

use super::entry::Entry;

/// How many znodes the labels are hashed to. The version of such a znode grows when an entry of its labels is added.
const BUCKETS: u32 = 64;

/// The paths of the folders of a queue.
#[derive(Debug, Clone)]
pub(super) struct Layout {
    pub(super) root: ZnodePath,
    /// Entries that wait to be taken.
    pub(super) unowned: ZnodePath,
    /// Entries that were taken.
    pub(super) owned: ZnodePath,
    /// Entries that have ended.
    pub(super) done: ZnodePath,
    /// Entries that were delivered too often.
    pub(super) dead: ZnodePath,
    /// The claims of workers, ephemeral.
    pub(super) claims: ZnodePath,
    /// The receipts of writes, ephemeral.
    pub(super) receipts: ZnodePath,
    labels: ZnodePath,
}

impl Layout {
    pub(super) fn new(root: &str) -> Result<Self, PathError> {
        let root = ZnodePath::parse(root)?;
        Ok(Layout {
            unowned: root.join("unowned")?,
            owned: root.join("owned")?,
            done: root.join("done")?,
            dead: root.join("dead")?,
            claims: root.join("claims")?,
            receipts: root.join("receipts")?,
            labels: root.join("labels")?,
            root,
        })
    }

    /// All znodes that have to exist, parents first.
    pub(super) fn znodes(&self) -> Vec<ZnodePath> {
        let folders =
            [&self.unowned, &self.owned, &self.done, &self.dead, &self.claims, &self.receipts, &self.labels];
        folders.into_iter().cloned().chain((0..BUCKETS).map(|number| self.numbered_bucket(number))).collect()
    }

    /// The path to create, sequentially, for an entry in `folder`.
    pub(super) fn entry(folder: &ZnodePath, priority: u32, label: &str) -> ZnodePath {
        folder.join(&Entry::prefix(priority, label)).expect("a label has no slash")
    }

    /// The znode whose version grows when an entry with this label is added to `unowned`; none without a label.
    pub(super) fn bucket(&self, label: &str) -> Option<ZnodePath> {
        if label.is_empty() {
            return None;
        }
        // FNV-1a, because every process has to get the same bucket.
        let hash = label
            .bytes()
            .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
        Some(self.numbered_bucket(hash % BUCKETS))
    }

    fn numbered_bucket(&self, number: u32) -> ZnodePath {
        self.labels.join(&format!("{number:02}")).expect("digits are a name")
    }
}
