//! The choice of the job to claim: the first that the caller wants, or one of the next while other processes claim the
//! same jobs.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use tracing::debug;

use super::{
    cache::Mark,
    claim::Claim,
    error::BoardError,
    job::Job,
    known::Known,
    shared::{Handle, Shared},
    take::{NotClaimed, attempt},
};

/// The pause after an error that may pass, while a caller waits for a job.
const RETRY: Duration = Duration::from_secs(1);

/// Which jobs the caller accepts; `None`: any.
pub(super) type Wanted<'a> = Option<&'a mut (dyn FnMut(&Job) -> bool + Send)>;

/// Claims the first job that the caller wants, and waits for one if there is none.
pub(super) async fn claim_next(handle: &Arc<Handle>, mut wanted: Wanted<'_>) -> Result<Claim, BoardError> {
    let shared = &handle.shared;
    loop {
        shared.until(|shared| choose(handle, shared, &mut wanted).map(drop)).await?;
        match claim_known(handle, &mut wanted).await {
            Ok(Some(claim)) => return Ok(claim),
            Ok(None) => {}
            // What the store refuses, for instance because of a quota, is for the caller.
            Err(error) if error.is_unanswered() => {
                debug!(board = %shared.layout.board, %error, "no claim; trying again");
                sleep(RETRY).await;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Claims the first job that the caller wants; `None` if there is none in a listing that began after this call.
pub(super) async fn try_claim_next(
    handle: &Arc<Handle>,
    mut wanted: Wanted<'_>,
) -> Result<Option<Claim>, BoardError> {
    handle.shared.wake();
    if let Some(claim) = claim_known(handle, &mut wanted).await? {
        return Ok(Some(claim));
    }
    handle.shared.refresh().await?;
    claim_known(handle, &mut wanted).await
}

/// Claims one of the jobs that the cache has as unclaimed.
async fn claim_known(handle: &Arc<Handle>, wanted: &mut Wanted<'_>) -> Result<Option<Claim>, BoardError> {
    let shared = &handle.shared;
    let _asking = shared.listing.ask();
    while let Some(known) = choose(handle, shared, wanted) {
        match attempt(handle, known, false).await? {
            Ok(claim) => {
                shared.note(true);
                return Ok(Some(claim));
            }
            Err(NotClaimed::Later) => pass_over_more(shared).await?,
            Err(_) => shared.note(false),
        }
    }
    Ok(None)
}

/// How many records are read at once.
const READ_AT_ONCE: usize = 256;

/// Passes over the next jobs that are in a pause. For after one was: during an outage of another service, there are many.
async fn pass_over_more(shared: &Arc<Shared>) -> Result<(), BoardError> {
    let next: Vec<_> = {
        let cache = shared.cache();
        cache.unclaimed().take(READ_AT_ONCE).filter(|known| known.stat.version > 0).cloned().collect()
    };
    if next.is_empty() {
        return Ok(());
    }
    let records = next.iter().map(|known| shared.record_of(known)).collect();
    let records = shared.read_records(records).await?;
    for (known, record) in next.into_iter().zip(records) {
        let not_before = record.and_then(|(record, _)| record.not_before);
        if let Some(until) = not_before.and_then(|unix_ms| shared.clock.moment_of(unix_ms)) {
            shared.cache().mark(Mark::PassedOver(known, until));
        }
    }
    shared.listing.announce();
    Ok(())
}

/// Waits until a job may be claimed.
pub(super) async fn wait(handle: &Arc<Handle>) -> Result<(), BoardError> {
    handle.shared.until(|shared| choose(handle, shared, &mut None).map(drop)).await
}

/// Chooses one of the first wanted jobs of the highest priority: the very first, unless there are rivals.
fn choose(handle: &Arc<Handle>, shared: &Shared, wanted: &mut Wanted<'_>) -> Option<Arc<Known>> {
    loop {
        let known = choose_any(handle, shared, wanted)?;
        match known.not_before.and_then(|unix_ms| shared.clock.moment_of(unix_ms)) {
            Some(until) => shared.pass_over(known, until),
            None => return Some(known),
        }
    }
}

/// The same, also of those that their poster has delayed.
fn choose_any(handle: &Arc<Handle>, shared: &Shared, wanted: &mut Wanted<'_>) -> Option<Arc<Known>> {
    let width = shared.width();
    let candidates: Vec<_> = {
        let cache = shared.cache();
        let most = if wanted.is_some() { usize::MAX } else { width };
        cache.unclaimed().take(most).cloned().collect()
    };
    // Not under the lock: this calls code of the caller.
    let is_wanted = |known: &Arc<Known>| match wanted {
        None => true,
        Some(wanted) => wanted(&Job::new(known.clone(), false, handle.clone())),
    };
    let found: Vec<_> = candidates.into_iter().filter(is_wanted).take(width).collect();
    let priority = found.first()?.priority;
    let alike = found.iter().take_while(|known| known.priority == priority).count();
    found.into_iter().nth(shared.leases.random().below(alike))
}
