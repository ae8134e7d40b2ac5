//! [`Trashed`]: the jobs in the trash; and the records of attempts, which outlive their jobs.

use std::sync::Arc;

use super::{
    attempts::Record,
    error::BoardError,
    job::wall_clock,
    posting::{Posting, PostingError},
    shared::Shared,
};
use crate::{
    backend::{self, path::ZnodePath},
    session::{read::read_each, requests::delete_each},
};

/// A job in the trash. From [`JobBoard::trashed`](super::JobBoard::trashed).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Trashed {
    /// The path of its znode in the trash.
    pub path: ZnodePath,
    /// Its posting, or why it cannot be read.
    pub posting: Result<Posting, PostingError>,
    /// When it was moved to the trash, by the wall clock of the server. For display only.
    pub trashed_on: std::time::SystemTime,
    /// How many attempts there were, if this crate has counted them.
    pub attempts: Option<u32>,
    /// Why it was given up, if its worker said so.
    pub reason: Option<String>,
}

/// The paths of the records of a board.
pub(super) async fn records(shared: &Arc<Shared>) -> Result<Vec<ZnodePath>, BoardError> {
    let folder = &shared.layout.attempts;
    let names = children(shared, folder).await?;
    let ours = names.iter().filter(|name| shared.layout.recorded(name).is_some());
    Ok(ours.filter_map(|name| folder.join(name).ok()).collect())
}

/// Removes those of `records` whose jobs are neither on the board nor in the trash: a conductor of TaskFlow has done them,
/// or the process that did them has ended before it could remove the record.
pub(super) async fn clean(shared: &Arc<Shared>, records: &[ZnodePath]) {
    if records.is_empty() {
        return;
    }
    let Ok(trash) = children(shared, &shared.layout.trash).await else { return };
    let is_needed = |record: &&ZnodePath| {
        let Some((job, czxid)) = shared.layout.recorded(record.name()) else { return true };
        let cache = shared.cache();
        let is_listed = cache.slot(job).is_some_and(|slot| slot.known.stat.czxid == czxid);
        is_listed || cache.aside(job).is_some() || trash.iter().any(|name| name == job)
    };
    let old: Vec<_> = records.iter().filter(|record| !is_needed(record)).cloned().collect();
    if let Some(live) = shared.leases.access().present() {
        // The next process that opens the board tries again.
        let _ = delete_each(&*live.session, old).await;
    }
}

/// Reads the jobs in the trash, those that were moved there first, first.
pub(super) async fn trashed(shared: &Arc<Shared>) -> Result<Vec<Trashed>, BoardError> {
    let folder = &shared.layout.trash;
    let names = children(shared, folder).await?;
    let records = records(shared).await?;
    let jobs: Vec<ZnodePath> = names.iter().filter_map(|name| folder.join(name).ok()).collect();
    let mut trashed = Vec::new();
    for (path, found) in jobs.iter().zip(read(shared, folder, jobs.clone()).await?) {
        let (posting, stat) = match found {
            Ok(Some((data, stat))) => (Posting::decode(&data), stat),
            Ok(None) => continue,
            Err(_) => (Err(PostingError::NotPermitted), backend::Stat::default()),
        };
        let prefix = shared.layout.records_of(path.name());
        let alike: Vec<_> = records.iter().filter(|it| it.name().starts_with(&prefix)).cloned().collect();
        let found = if alike.is_empty() { Vec::new() } else { read(shared, folder, alike).await? };
        let mut found: Vec<_> = found
            .into_iter()
            .filter_map(|found| found.ok()?)
            .filter_map(|(data, stat)| Some((stat.mzxid, Record::read(&data)?)))
            .collect();
        // Written in the same transaction; without a reason, the last one.
        found.sort_by_key(|(mzxid, record)| (*mzxid == stat.czxid, record.is_trashed, *mzxid));
        let record = found.pop().map(|(_, record)| record);
        let attempts = record.as_ref().map(Record::attempts);
        let reason = record.and_then(|record| record.error);
        let trashed_on = wall_clock(stat.created_ms);
        trashed.push((stat.czxid, Trashed { path: path.clone(), posting, trashed_on, attempts, reason }));
    }
    trashed.sort_by_key(|(czxid, _)| *czxid);
    Ok(trashed.into_iter().map(|(_, trashed)| trashed).collect())
}

async fn read(
    shared: &Arc<Shared>,
    folder: &ZnodePath,
    paths: Vec<ZnodePath>,
) -> Result<crate::session::read::Found, BoardError> {
    let place = shared.clone();
    let read = shared.read(folder, move |live| {
        let (shared, paths) = (place.clone(), paths.clone());
        Box::pin(async move { read_each(&*live.session, &paths, &shared.sizes).await })
    });
    read.await
}

/// The names of the children of a folder; none if it does not exist.
async fn children(shared: &Arc<Shared>, folder: &ZnodePath) -> Result<Vec<String>, BoardError> {
    let place = folder.clone();
    let listed = shared.read(folder, move |live| {
        let folder = place.clone();
        Box::pin(async move {
            match live.session.children(&folder).await {
                Ok((names, _)) => Ok(names),
                Err(backend::Error::NoNode) => Ok(Vec::new()),
                Err(error) => Err(error),
            }
        })
    });
    listed.await
}
