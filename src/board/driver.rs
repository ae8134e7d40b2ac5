//! Adopts the listings of a board: reads the postings that the cache does not have, and merges all into the cache.

use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};

use super::{
    cache::{Seen, SetAside},
    known::Known,
    layout::Child,
    posting::PostingError,
    shared::{ASIDE, Shared},
};
use crate::{
    backend::{self, Stat},
    session::{
        Live,
        listing::{Contents, Occasion},
        read::read_each,
        requests::Failure,
    },
};

/// The jobs of a board.
pub(super) struct Driver {
    pub(super) shared: Arc<Shared>,
    /// The creation of the folder that was listed last. In a folder that was created anew, a name belongs to another
    /// job.
    folder: Option<i64>,
}

impl Driver {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Driver { shared, folder: None }
    }
}

impl Drop for Driver {
    /// The board is closed, or the last handle to it is gone.
    fn drop(&mut self) {
        self.shared.measure();
    }
}

impl Contents for Driver {
    fn begin(&mut self) {
        self.shared.cache().expect_listing();
    }

    async fn adopt(
        &mut self,
        live: &Live,
        names: &[String],
        folder: &Stat,
        occasion: Occasion,
    ) -> Result<(), backend::Error> {
        let shared = &self.shared;
        let is_same = self.folder.replace(folder.czxid) == Some(folder.czxid);
        // A name may belong to another job by now.
        let from_scratch = occasion.is_first || !is_same;
        let mut seen = sort_out(shared, names);
        let unknown = {
            let mut cache = shared.cache();
            let reads_aside = cache.take_reads_aside() || occasion.is_wanted;
            let cache = &*cache;
            let board = &shared.layout.board;
            let mut unknown = Vec::new();
            for (name, is_claimed) in &seen.names {
                let is_known = match (cache.slot(name), cache.aside(name)) {
                    // A claim that is over by now has changed the posting.
                    (Some(slot), _) => !slot.is_claimed || *is_claimed,
                    (None, Some(found)) if !reads_aside && !from_scratch => {
                        seen.aside.push(found.clone());
                        true
                    }
                    (None, _) => false,
                };
                if !is_known || from_scratch {
                    unknown.extend(board.join(name).ok());
                }
            }
            unknown
        };
        let found = read_each(&*live.session, &unknown, &shared.sizes).await?;
        for (path, found) in unknown.iter().zip(found) {
            match Known::read(path, found, live.session.max_request_bytes()) {
                Some(Ok(known)) => {
                    seen.read.insert(path.name().into(), Arc::new(known));
                }
                Some(Err(reason)) => seen.aside.push(SetAside { path: path.clone(), reason }),
                None => {}
            }
        }
        let mut cache = shared.cache();
        cache.merge(seen);
        cache.plan_aside(shared.clock.now() + ASIDE);
        drop(cache);
        shared.measure();
        Ok(())
    }

    fn give_up(&mut self) {
        self.shared.cache().drop_marks();
    }

    async fn make(&mut self, live: &Live) -> Result<(), Failure> {
        self.shared.ensure(live).await
    }
}

/// Sorts the names in the folder of a board: jobs, locks, and names that are set aside.
fn sort_out(shared: &Shared, names: &[String]) -> Seen {
    let mut seen = Seen { names: BTreeMap::new(), ..Seen::default() };
    let mut locked = HashSet::new();
    for name in names {
        match Child::of(name) {
            Child::Job => drop(seen.names.insert(name.as_str().into(), false)),
            Child::Lock(job) => drop(locked.insert(job)),
            Child::InvalidName => {
                let path = shared.layout.board.join(name).ok();
                seen.aside.extend(path.map(|path| SetAside { path, reason: PostingError::Name }));
            }
            Child::Foreign => {}
        }
    }
    for (name, is_claimed) in &mut seen.names {
        *is_claimed = locked.contains(&**name);
    }
    seen
}
