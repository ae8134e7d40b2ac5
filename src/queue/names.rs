// Pure: no runtime, no clock, no socket, no random numbers.

//! Which names in a folder of a queue are entries, and which are set aside.

use std::collections::HashSet;

use super::entry::Entry;
use crate::backend::path::ZnodePath;

/// The entry of this name, if it is that of one.
pub(super) fn readable(folder: &ZnodePath, name: &str) -> Option<Entry> {
    // A name that cannot be part of a path cannot be taken either.
    name.parse().ok().filter(|_| folder.join(name).is_ok())
}

/// The znode of an entry that was found in a folder.
pub(super) fn path_of(folder: &ZnodePath, entry: &Entry) -> ZnodePath {
    folder.join(entry.name()).expect("names that cannot be part of a path are set aside")
}

/// The names in a folder that are set aside, because they are not those of entries.
#[derive(Debug, Default)]
pub(super) struct SetAside(HashSet<String>);

impl SetAside {
    /// The entries among `names`. `report` is called once for each name that is not one.
    pub(super) fn sort_out(
        &mut self,
        folder: &ZnodePath,
        names: &[String],
        mut report: impl FnMut(&str),
    ) -> Vec<Entry> {
        let mut entries = Vec::with_capacity(names.len());
        let mut aside = HashSet::new();
        for name in names {
            if self.0.contains(name) {
                aside.insert(name.clone());
                continue;
            }
            match readable(folder, name) {
                Some(entry) => entries.push(entry),
                None => {
                    report(name);
                    aside.insert(name.clone());
                }
            }
        }
        // Names that are gone are forgotten.
        self.0 = aside;
        entries
    }
}
