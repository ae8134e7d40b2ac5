//! Finds an entry by its id: waits for its result, or removes it while it waits.

use std::{collections::HashSet, sync::Arc};

use super::{
    collect::Finished,
    entry::Entry,
    error::QueueError,
    id::EntryId,
    moves::DELETED,
    names::{path_of, readable},
    shared::{Shared, unapplied},
    value::Value,
};
use crate::{
    backend::{self, Watch, Znode, path::ZnodePath},
    error::Error,
    session::{
        Live,
        commit::Unapplied,
        read::{Sizes, find_first},
        requests::ensure,
    },
};

/// Waits until the entry with this id has ended, or is a dead letter.
pub(super) async fn wait_result(shared: &Arc<Shared>, id: &EntryId) -> Result<Finished, QueueError> {
    let layout = shared.layout();
    // The names that were read and are another entry's.
    let (mut done, mut dead) = (HashSet::new(), HashSet::new());
    loop {
        let search = async {
            // The watches come first, so that an entry that arrives after that makes them fire.
            let found = search(shared, &layout.done, id, &mut done).await?;
            let letter = search(shared, &layout.dead, id, &mut dead).await?;
            Ok::<_, Error>((found.0.or(letter.0), found.1, letter.1))
        };
        let (found, mut done_watch, mut dead_watch) = match search.await {
            // A caller that waits for a result also waits for the store.
            Err(Error::Unreachable { .. }) => continue,
            found => found.map_err(|error| shared.service(error))?,
        };
        if let Some(found) = found {
            return Ok(found);
        }
        tokio::select! {
            biased;
            _ = done_watch.fired() => {}
            _ = dead_watch.fired() => {}
        }
    }
}

/// Searches a folder of ended entries for this one, and watches it.
async fn search(
    shared: &Arc<Shared>,
    folder: &ZnodePath,
    id: &EntryId,
    seen: &mut HashSet<Entry>,
) -> Result<(Option<Finished>, Watch), Error> {
    let is_dead = *folder == shared.layout().dead;
    let before = Arc::new(std::mem::take(seen));
    let (found, read, watch) = shared
        .leases
        .access()
        .repeat(folder, {
            let (shared, folder, id, seen) = (shared.clone(), folder.clone(), id.clone(), before.clone());
            move |live| {
                let (shared, folder, id, seen) = (shared.clone(), folder.clone(), id.clone(), seen.clone());
                Box::pin(async move {
                    let (names, _, watch) = match live.session.watch_children(&folder).await {
                        Err(backend::Error::NoNode) => {
                            ensure(&*live.session, &folder).await.map_err(|failure| failure.error)?;
                            live.session.watch_children(&folder).await?
                        }
                        found => found?,
                    };
                    let alike = names.iter().filter_map(|name| readable(&folder, name));
                    let alike: Vec<_> = alike.filter(|entry| id.may_be(entry)).collect();
                    let new: Vec<_> = alike.iter().filter(|entry| !seen.contains(entry)).cloned().collect();
                    let sizes = if is_dead { &shared.sizes.dead } else { &shared.sizes.done };
                    let found = find_id(live, &folder, &new, &id, sizes).await?;
                    let found = found.map(|(entry, znode)| Finished::read(&entry, &znode, is_dead));
                    Ok((found, alike, watch))
                })
            }
        })
        .await?;
    *seen = read.into_iter().collect();
    Ok((found, watch))
}

/// Reads entries of a folder, the newest first, until one has this id.
async fn find_id(
    live: &Live,
    folder: &ZnodePath,
    entries: &[Entry],
    id: &EntryId,
    sizes: &Sizes,
) -> Result<Option<(Entry, Znode)>, backend::Error> {
    let mut entries = entries.to_vec();
    entries.sort_unstable_by(|a, b| b.by_age(a));
    let field = id.field();
    let paths: Vec<_> = entries.iter().map(|entry| path_of(folder, entry)).collect();
    let is_it = |(data, _): &Znode| Value::read(data).id().as_ref() == Some(&field);
    let found = find_first(&*live.session, &paths, sizes, is_it).await?;
    Ok(found.map(|(at, znode)| (entries[at].clone(), znode)))
}

/// Removes the entry with this id if it waits. Returns whether it did.
pub(super) async fn remove(shared: Arc<Shared>, id: EntryId) -> Result<bool, QueueError> {
    let unowned = &shared.layout().unowned;
    let live = shared.live().await?;
    loop {
        let find = async {
            live.session.sync(unowned).await?;
            let (names, _) = live.session.children(unowned).await?;
            let alike = names.iter().filter_map(|name| readable(unowned, name));
            let alike: Vec<_> = alike.filter(|entry| id.may_be(entry)).collect();
            find_id(&live, unowned, &alike, &id, &shared.sizes.unowned).await
        };
        let Some((entry, (_, stat))) = find.await.map_err(QueueError::at(unowned))? else { return Ok(false) };
        let delete = shared.moves.remove(unowned, &entry, stat.version);
        match shared.receipts.commit(&live, vec![delete]).await {
            Ok(_) => {
                shared.listing.invalidate();
                return Ok(true);
            }
            // A worker has taken it. It may have given it back since, under another name.
            Err(Unapplied::Refused {
                index: DELETED,
                error: backend::Error::NoNode | backend::Error::BadVersion,
                ..
            }) => {}
            Err(error) => return Err(unapplied(&path_of(unowned, &entry), error)),
        }
    }
}
