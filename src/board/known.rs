//! [`Known`]: a job as it was read.

use std::{cmp::Reverse, fmt, sync::Arc};

use serde_json::Value;

use super::{
    layout::{Place, lock_of},
    posting::{Posting, PostingError, Priority, max_posting_bytes},
};
use crate::{
    backend::{Stat, Znode, path::ZnodePath},
    session::read::Denied,
};

/// A job as it was read. Its details are kept as bytes: decoded values would take several times the memory.
#[derive(Clone)]
pub(super) struct Known {
    pub(super) path: ZnodePath,
    pub(super) lock: ZnodePath,
    pub(super) uuid: Value,
    pub(super) name: Value,
    pub(super) priority: Priority,
    /// Before when it is not to be claimed, by its poster, in milliseconds since 1970.
    pub(super) not_before: Option<u64>,
    /// The posting, as it was read. Claims and the trash write it unchanged.
    pub(super) data: Arc<Vec<u8>>,
    pub(super) stat: Stat,
}

impl Known {
    /// Makes a job of what was read; `None` if the znode does not exist.
    pub(super) fn read(
        path: &ZnodePath,
        found: Result<Option<Znode>, Denied>,
        max_request_bytes: usize,
    ) -> Option<Result<Known, PostingError>> {
        let limit = max_posting_bytes(max_request_bytes);
        match found {
            Ok(None) => None,
            Ok(Some((data, _))) if data.len() > limit => {
                Some(Err(PostingError::TooLarge { bytes: data.len(), limit }))
            }
            Ok(Some((_, stat))) if stat.num_children > 0 => Some(Err(PostingError::HasChild)),
            Ok(Some((data, stat))) => {
                Some(Posting::decode(&data).and_then(|posting| Known::new(path, posting, data, stat)))
            }
            Err(Denied) => Some(Err(PostingError::NotPermitted)),
        }
    }

    /// The job at `path`, whose posting is `data`.
    pub(super) fn new(
        path: &ZnodePath,
        posting: Posting,
        data: Vec<u8>,
        stat: Stat,
    ) -> Result<Known, PostingError> {
        // The name of the lock is longer than that of the job, so its path can be invalid although that of the job is
        // not.
        let lock = lock_of(path).map_err(|_| PostingError::Name)?;
        let Posting { uuid, name, priority, not_before, .. } = posting;
        let (path, data) = (path.clone(), Arc::new(data));
        Ok(Known { path, lock, uuid, name, priority, not_before, data, stat })
    }

    pub(super) fn place(&self) -> Place {
        Place { priority: Reverse(self.priority), czxid: self.stat.czxid, name: self.path.name().into() }
    }

    /// Whether both were read from the same znode, not from two znodes that had the same name one after the other.
    pub(super) fn is_same(&self, other: &Known) -> bool {
        self.stat.czxid == other.stat.czxid && self.path == other.path
    }
}

impl fmt::Debug for Known {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Known")
            .field("path", &self.path)
            .field("name", &self.name)
            .field("priority", &self.priority)
            .field("version", &self.stat.version)
            .finish_non_exhaustive()
    }
}
