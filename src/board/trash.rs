//! [`Trashed`]: the jobs in the trash; and the records of attempts, which outlive their jobs.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use super::{
    attempts::Record,
    error::BoardError,
    job::wall_clock,
    posting::{Posting, PostingError},
    shared::Shared,
};
use crate::{
    backend::{self, Stat, path::ZnodePath},
    session::requests::delete_each,
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
    let trash: HashSet<_> = trash.into_iter().collect();
    let is_in_trash = |job: &str, czxid: i64| {
        [false, true]
            .iter()
            .any(|is_taken| trash.contains(shared.layout.trash_of(job, czxid, *is_taken).name()))
    };
    let is_needed = |record: &&ZnodePath| {
        let Some((job, czxid)) = shared.layout.recorded(record.name()) else { return true };
        let cache = shared.cache();
        let is_listed = cache.slot(job).is_some_and(|slot| slot.known.stat.czxid == czxid);
        is_listed || cache.aside(job).is_some() || is_in_trash(job, czxid)
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
    let mut records = records_by_place(shared).await?;
    let jobs: Vec<ZnodePath> = names.iter().filter_map(|name| folder.join(name).ok()).collect();
    let mut trashed = Vec::new();
    for (path, found) in
        jobs.iter().zip(shared.read_each(folder, jobs.clone(), |shared| &shared.sizes).await?)
    {
        let (posting, stat) = match found {
            Ok(Some((data, stat))) => (Posting::decode(&data), stat),
            Ok(None) => continue,
            Err(_) => (Err(PostingError::NotPermitted), Stat::default()),
        };
        let mut found = records.remove(path).unwrap_or_default();
        // A reason is written in the transaction that moves the job. Another one is that of another job of this name.
        let is_its_own = |(record, written): &(Record, Stat)| {
            !record.is_trashed || written.mzxid == stat.czxid || posting == Err(PostingError::NotPermitted)
        };
        found.retain(is_its_own);
        found.sort_by_key(|(record, written)| (record.is_trashed, written.mzxid));
        let record = found.pop().map(|(record, _)| record);
        let attempts = record.as_ref().map(Record::attempts);
        let reason = record.and_then(|record| record.error);
        let trashed_on = wall_clock(stat.created_ms);
        trashed.push((stat.czxid, Trashed { path: path.clone(), posting, trashed_on, attempts, reason }));
    }
    trashed.sort_by_key(|(czxid, _)| *czxid);
    Ok(trashed.into_iter().map(|(_, trashed)| trashed).collect())
}

/// The records of a board, by the places in the trash that their jobs may have: more than one for a name that several jobs
/// have had.
async fn records_by_place(
    shared: &Arc<Shared>,
) -> Result<HashMap<ZnodePath, Vec<(Record, Stat)>>, BoardError> {
    let records = records(shared).await?;
    let found = shared.read_records(records.clone()).await?;
    let mut by_place: HashMap<_, Vec<_>> = HashMap::new();
    for (path, record) in records.iter().zip(found) {
        let (Some((job, czxid)), Some(record)) = (shared.layout.recorded(path.name()), record) else {
            continue;
        };
        for is_taken in [false, true] {
            let place = shared.layout.trash_of(job, czxid, is_taken);
            by_place.entry(place).or_default().push(record.clone());
        }
    }
    Ok(by_place)
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
