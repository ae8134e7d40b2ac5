//! Takes entries: chooses them from the cache, then moves each in one transaction.

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::time::{sleep, timeout};
use tracing::{Span, debug, info_span};

use super::{
    delivery::Delivery,
    entry::Entry,
    error::QueueError,
    moves::{CREATED, DELETED, Owned},
    names::path_of,
    owned::OwnedEntry,
    shared::{ASIDE, Handle, Shared, unapplied},
    value::Value,
};
use crate::{
    backend::{self, Znode},
    clock::Moment,
    error::Error,
    lease::{Around, Request},
    metrics,
    session::{
        Live,
        commit::Unapplied,
        due::until_due,
        read::{Denied, Found, read_each},
    },
};

/// The pause before another choice if the store did not answer.
const PAUSE: Duration = Duration::from_millis(50);

/// How many entries are taken at the same time, each in a transaction of its own.
const TAKEN_AT_ONCE: usize = 16;

/// Which entries the caller wants.
pub(super) enum Wanted<F> {
    /// The first ones.
    Any,
    /// The first ones that match.
    Matching(F),
    /// The first one that matches, else the first one.
    Preferring(F),
}

/// Waits until an entry was taken.
///
/// Cancel safe: an entry that is taken and not returned is given back.
pub(super) async fn take<F>(
    handle: &Arc<Handle>,
    count: usize,
    mut wanted: Wanted<F>,
) -> Result<Vec<Delivery>, QueueError>
where
    F: FnMut(&Entry) -> bool + Send,
{
    loop {
        if let Some(taken) = take_now(handle, count, &mut wanted, true).await? {
            return Ok(taken);
        }
    }
}

/// Takes the entries that there are. An error if the store does not answer in time.
pub(super) async fn try_take<F>(
    handle: &Arc<Handle>,
    count: usize,
    mut wanted: Wanted<F>,
) -> Result<Vec<Delivery>, QueueError>
where
    F: FnMut(&Entry) -> bool + Send,
{
    let shared = &handle.shared;
    let taken = async {
        if let Some(taken) = take_now(handle, count, &mut wanted, false).await? {
            return Ok(taken);
        }
        if *shared.has_recovered.borrow() {
            return Ok(Vec::new());
        }
        // What a worker has left that was gone before the queue was opened.
        shared.wait_for_recovery().await?;
        Ok(take_now(handle, count, &mut wanted, false).await?.unwrap_or_default())
    };
    match timeout(shared.leases.access().timeout(), taken).await {
        Ok(taken) => taken,
        Err(_) => Err(shared.unreachable()),
    }
}

async fn take_now<F>(
    handle: &Arc<Handle>,
    count: usize,
    wanted: &mut Wanted<F>,
    waits: bool,
) -> Result<Option<Vec<Delivery>>, QueueError>
where
    F: FnMut(&Entry) -> bool + Send,
{
    let shared = &handle.shared;
    loop {
        let Some(chosen) = choose(shared, count, wanted, waits).await? else { return Ok(None) };
        let attempt = attempt(shared.clone(), chosen, Span::current());
        let (queue, began) = (shared.layout().root.as_str(), shared.clock.now());
        let taken = shared.run("take", attempt).await.flatten();
        metrics::QUEUE_TAKE_DURATION.record(&[queue], shared.clock.now().saturating_since(began));
        let taken = taken?;
        if !taken.is_empty() {
            return Ok(Some(taken.into_iter().map(|owned| Delivery::new(owned, handle.clone())).collect()));
        }
    }
}

/// Chooses entries. If there are none, waits, or returns `None` if the caller does not wait.
async fn choose<F>(
    shared: &Arc<Shared>,
    count: usize,
    wanted: &mut Wanted<F>,
    waits: bool,
) -> Result<Option<Vec<Chosen>>, QueueError>
where
    F: FnMut(&Entry) -> bool + Send,
{
    let listing = &shared.listing;
    let asking = listing.ask();
    let probe = || {
        shared.cache().wake(shared.clock.now());
        if listing.is_worth_waiting_for() {
            return None;
        }
        let is_answer = listing.answers(&asking);
        let chosen = match wanted {
            Wanted::Any => reserve(shared, count, None),
            Wanted::Matching(filter) => reserve(shared, count, Some(filter)),
            Wanted::Preferring(filter) => {
                let preferred = reserve(shared, count, Some(filter));
                if preferred.is_empty() && is_answer { reserve(shared, count, None) } else { preferred }
            }
        };
        let is_decided = !chosen.is_empty() || (is_answer && !waits);
        is_decided.then(|| Some(chosen).filter(|chosen| !chosen.is_empty()))
    };
    let found = until_due(listing, &*shared.clock, || shared.cache().next_due(), probe);
    found.await.map_err(|stopped| shared.stopped(stopped))
}

/// Chooses up to `count` entries that `wanted` accepts, in their order; `None` accepts all.
fn reserve(
    shared: &Arc<Shared>,
    count: usize,
    mut wanted: Option<&mut dyn FnMut(&Entry) -> bool>,
) -> Vec<Chosen> {
    loop {
        let (candidates, most) = shared.cache().candidates(count, wanted.is_none());
        // Not under the lock: this calls code of the caller.
        let accepted =
            candidates.into_iter().filter(|entry| wanted.as_mut().is_none_or(|wanted| wanted(entry)));
        let accepted: Vec<_> = accepted.take(most).collect();
        let is_empty = accepted.is_empty();
        let reserved = shared.cache().reserve(accepted, count, shared.leases.random());
        // Another caller in this process may have chosen the same meanwhile.
        if is_empty || !reserved.is_empty() {
            let chosen = |entry| Chosen { shared: shared.clone(), entry, is_released: false };
            return reserved.into_iter().map(chosen).collect();
        }
    }
}

/// An entry that no other caller in this process chooses. Dropped, it can be chosen again.
struct Chosen {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    is_released: bool,
}

impl Chosen {
    /// The entry is no longer there: this or another process has taken it.
    fn forget(mut self) {
        self.is_released = true;
        self.shared.cache().forget(&self.entry);
        self.shared.measure();
    }

    /// The entry is not to be taken before this moment.
    fn pass_over(mut self, until: Moment) {
        self.is_released = true;
        self.shared.cache().pass_over(&self.entry, until);
        self.shared.count_take("delayed");
        self.shared.measure();
        // Callers that wait may have to wake earlier.
        self.shared.listing.announce();
    }

    /// The entry cannot be taken.
    fn set_aside(mut self, why: &str) {
        self.is_released = true;
        let until = self.shared.clock.now() + ASIDE;
        self.shared.cache().set_aside(&self.entry, why, until);
        self.shared.count_take("set_aside");
        self.shared.measure();
        self.shared.listing.announce();
    }
}

impl Drop for Chosen {
    fn drop(&mut self) {
        if !self.is_released {
            self.shared.cache().release(&self.entry);
            self.shared.listing.announce();
        }
    }
}

/// Waits until there is an entry to take.
pub(super) async fn wait(shared: &Shared) -> Result<(), QueueError> {
    let listing = &shared.listing;
    let _asking = listing.ask();
    let any = || {
        shared.cache().wake(shared.clock.now());
        (!listing.is_worth_waiting_for() && !shared.cache().is_empty()).then_some(())
    };
    let found = until_due(listing, &*shared.clock, || shared.cache().next_due(), any);
    found.await.map_err(|stopped| shared.stopped(stopped))
}

/// Takes the chosen entries in the store. Returns none if others have to be chosen.
async fn attempt(
    shared: Arc<Shared>,
    chosen: Vec<Chosen>,
    caller: Span,
) -> Result<Vec<OwnedEntry>, QueueError> {
    let live = match shared.live().await {
        // A caller that waits chooses again; one that does not wait has reached its timeout by now.
        Err(QueueError::Service(Error::Unreachable { .. })) => return Ok(Vec::new()),
        live => live?,
    };
    let found = match read(&shared, &live, &chosen).await {
        Ok(found) => found,
        Err(error) if error.is_unknown() => {
            sleep(PAUSE).await;
            return Ok(Vec::new());
        }
        Err(error) => return Err(QueueError::at(&shared.layout().unowned)(error)),
    };
    let (mut requests, mut is_early) = (Vec::new(), false);
    for (chosen, found) in chosen.into_iter().zip(found) {
        match found {
            Ok(Some((data, stat))) => {
                let value = Value::read(&data);
                match value.not_before().and_then(|unix_ms| shared.clock.moment_of(unix_ms)) {
                    Some(until) => {
                        is_early = true;
                        chosen.pass_over(until);
                    }
                    None => requests.push(take_one(&shared, &live, chosen, value, stat.version, &caller)),
                }
            }
            Ok(None) => {
                shared.count_take("lost");
                shared.cache().note(false);
                chosen.forget();
            }
            Err(Denied) => chosen.set_aside("permission denied by ACL"),
        }
    }
    let (mut taken, mut failure) = (Vec::new(), None);
    // In their order.
    let mut outcomes = stream::iter(requests).buffered(TAKEN_AT_ONCE);
    while let Some(outcome) = outcomes.next().await {
        match outcome {
            Ok(Some(owned)) => taken.push(owned),
            Ok(None) => {}
            Err(error) => failure = Some(error),
        }
    }
    if is_early && taken.is_empty() {
        pass_over_more(&shared, &live).await;
    }
    match failure {
        Some(error) if taken.is_empty() => Err(error),
        _ => Ok(taken),
    }
}

/// How many values are read at once to find out which are delayed.
const READ_AT_ONCE: usize = 256;

/// Passes over the next entries that are delayed. For after one was: during an outage of another service, there are many.
async fn pass_over_more(shared: &Shared, live: &Live) {
    let unowned = &shared.layout().unowned;
    let next = shared.cache().next(READ_AT_ONCE);
    let paths: Vec<_> = next.iter().map(|entry| path_of(unowned, entry)).collect();
    // If it fails, each of them is read when it is chosen.
    let Ok(found) = read_each(&*live.session, &paths, &shared.sizes.unowned).await else { return };
    for (entry, found) in next.iter().zip(found) {
        let Ok(Some((data, _))) = found else { continue };
        let not_before = Value::read(&data).not_before();
        if let Some(until) = not_before.and_then(|unix_ms| shared.clock.moment_of(unix_ms)) {
            shared.cache().delay(entry, until);
        }
    }
    shared.listing.announce();
}

/// Reads the values of the chosen entries. For a single entry, it may prefetch the values of the next ones.
async fn read(shared: &Shared, live: &Live, chosen: &[Chosen]) -> Result<Found, backend::Error> {
    let unowned = &shared.layout().unowned;
    let [one] = chosen else {
        let paths: Vec<_> = chosen.iter().map(|chosen| path_of(unowned, &chosen.entry)).collect();
        return read_each(&*live.session, &paths, &shared.sizes.unowned).await;
    };
    let (prefetch, now) = (&shared.prefetch, shared.clock.now());
    if let Some(found) = prefetch.find(&one.entry, live.id(), now) {
        return Ok(vec![Ok(Some(found))]);
    }
    let next = shared.cache().next(prefetch.count(now));
    let paths: Vec<_> = [&one.entry].into_iter().chain(&next).map(|entry| path_of(unowned, entry)).collect();
    let mut found = read_each(&*live.session, &paths, &shared.sizes.unowned).await?.into_iter();
    let first: Vec<_> = found.by_ref().take(1).collect();
    if let [Ok(Some((data, _)))] = &first[..] {
        let read = |(entry, found): (&Arc<Entry>, Result<Option<Znode>, Denied>)| {
            Some((Entry::clone(entry), found.ok()??))
        };
        prefetch.keep(live.id(), now, data.len(), next.iter().zip(found).filter_map(read));
    }
    Ok(first)
}

/// Takes one entry; `None` if another process has taken it, or another attempt is needed.
async fn take_one(
    shared: &Arc<Shared>,
    live: &Arc<Live>,
    chosen: Chosen,
    value: Value,
    version: i32,
    caller: &Span,
) -> Result<Option<OwnedEntry>, QueueError> {
    let (layout, entry) = (shared.layout(), Entry::clone(&chosen.entry));
    // A new name for each request, so that after a lost reply the claim shows whether the request was applied.
    let claim = live.random.uuid().simple().to_string();
    let me = shared.leases.me().as_str();
    let value = value.taken(me, &claim);
    let request = Request {
        lock: layout.claims.join(&claim).expect("a uuid is a name"),
        data: me.into(),
        with: Around { before: shared.moves.take(&entry, version, &value), after: Vec::new() },
        // The lock alone is enough, because no process will create another one of this name.
        subject: None,
    };
    match shared.leases.acquire(live, request).await {
        Ok((guard, applied)) => {
            let path = match applied.created(CREATED) {
                Some(path) => Some(path),
                None => shared.find(live, &layout.owned, &shared.sizes.owned, &entry, &claim).await,
            };
            // Without the path, the guard is dropped, its claim is deleted, and the owned entry is given back.
            let Some(path) = path else { return Ok(None) };
            shared.count_take("taken");
            if value.attempt() > 1 {
                metrics::QUEUE_REPEATED.add(&[layout.root.as_str()]);
            }
            shared.cache().note(true);
            chosen.forget();
            let (attempt, token) = (value.attempt(), guard.lease().token());
            guard.lease().set_span(info_span!(
                parent: caller,
                "delivery",
                queue = %layout.root,
                %entry,
                id = value.id(),
                attempt,
                %token
            ));
            debug!(%entry, owned = %path, attempt = value.attempt(), "taken");
            let owned = Owned { entry, path, version: 0, value };
            Ok(Some(OwnedEntry::new(shared.clone(), guard, owned)))
        }
        Err(Unapplied::Refused { index: DELETED, error: backend::Error::NoNode, .. }) => {
            shared.count_take("lost");
            shared.cache().note(false);
            chosen.forget();
            Ok(None)
        }
        Err(
            Unapplied::Refused { index: DELETED, error: backend::Error::BadVersion, .. }
            | Unapplied::Failed(backend::Error::Unreachable(_))
            | Unapplied::Unknown(_)
            | Unapplied::Overtaken,
        ) => Ok(None),
        Err(Unapplied::Refused { index: DELETED, error: error @ backend::Error::NotEmpty, .. }) => {
            chosen.set_aside(&error.to_string());
            Ok(None)
        }
        Err(error) if error.is_too_large() => {
            chosen.set_aside(&error.to_string());
            Ok(None)
        }
        Err(error) => Err(unapplied(&layout.root, error)),
    }
}
