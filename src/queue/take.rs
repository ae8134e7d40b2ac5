//! How something is taken: chosen from what was seen, then asked of the store, in one transaction.

use std::{
    future::{Future, poll_fn},
    pin::Pin,
    sync::Arc,
    task::Poll,
};

use tokio::time::{sleep, timeout};
use tracing::debug;

use super::{
    closed,
    delivery::{Custody, Delivery},
    entry::Entry,
    error::QueueError,
    layout::Layout,
    open::{Handle, PAUSE, Shared},
    recovery::path_of,
    shelf::{Chosen, Found, readable},
    value::Value,
};
use crate::{
    backend::{self, CreateMode, Done, Op, path::ZnodePath},
    error::Error,
    lease::{Around, Refused, Request},
    session::{
        Live,
        requests::{Denied, get_each},
    },
};

/// Which entries somebody is after.
pub(crate) enum Wanted<F> {
    /// The first ones.
    Any,
    /// The first ones that match.
    Matching(F),
    /// The first one that matches, else the first one.
    Preferring(F),
}

/// Waits until something was taken.
///
/// Cancel safe: what is taken and not returned is given back.
pub(crate) async fn take<F>(
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

/// Takes what there is, in an answer of the store's within its patience.
pub(crate) async fn try_take<F>(
    handle: &Arc<Handle>,
    count: usize,
    mut wanted: Wanted<F>,
) -> Result<Vec<Delivery>, QueueError>
where
    F: FnMut(&Entry) -> bool + Send,
{
    let shared = &handle.shared;
    let patience = shared.leases.access().patience();
    match timeout(patience, take_now(handle, count, &mut wanted, false)).await {
        Ok(taken) => Ok(taken?.unwrap_or_default()),
        Err(_) => Err(out_of_reach(shared)),
    }
}

/// Why nothing came within the patience.
pub(crate) fn out_of_reach(shared: &Shared) -> QueueError {
    let access = shared.leases.access();
    let last = shared.shelf.last_error().or_else(|| access.last_error());
    Error::unreachable_after(access.patience(), last.as_ref()).into()
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
        let attempt = attempt(shared.clone(), chosen);
        let taken = shared.leases.run("take", attempt).await??;
        if !taken.is_empty() {
            return Ok(Some(taken.into_iter().map(|custody| custody.deliver(handle.clone())).collect()));
        }
    }
}

/// Chooses, and waits until there is something to choose from.
async fn choose<F>(
    shared: &Shared,
    count: usize,
    wanted: &mut Wanted<F>,
    waits: bool,
) -> Result<Option<Vec<Chosen>>, QueueError>
where
    F: FnMut(&Entry) -> bool + Send,
{
    let shelf = &shared.shelf;
    let mut changes = shelf.changes();
    let looking = shelf.look();
    loop {
        changes.borrow_and_update();
        let found = match wanted {
            Wanted::Any => shelf.choose(&looking, count, None),
            Wanted::Matching(filter) => shelf.choose(&looking, count, Some(filter)),
            Wanted::Preferring(filter) => match shelf.choose(&looking, count, Some(filter)) {
                Found::Nothing => shelf.choose(&looking, count, None),
                found => found,
            },
        };
        match found {
            Found::Some(chosen) => return Ok(Some(chosen)),
            Found::Nothing if !waits => return Ok(None),
            Found::Closed => return Err(closed()),
            Found::Refused(error) => return Err(error.into()),
            Found::Nothing | Found::Wait => {}
        }
        changes.changed().await.map_err(|_| closed())?;
    }
}

/// Waits until there is something to take.
pub(crate) async fn wait(shared: &Shared) -> Result<(), QueueError> {
    let mut changes = shared.shelf.changes();
    let _looking = shared.shelf.look();
    loop {
        changes.borrow_and_update();
        match shared.shelf.has_any() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(Found::Refused(error)) => return Err(error.into()),
            Err(_) => return Err(closed()),
        }
        changes.changed().await.map_err(|_| closed())?;
    }
}

/// What was taken; `None` if somebody else was faster, or it has to be tried again.
type Outcome = Result<Option<Custody>, QueueError>;

/// Asks the store for what was chosen. Empty: choose again.
async fn attempt(shared: Arc<Shared>, chosen: Vec<Chosen>) -> Result<Vec<Custody>, QueueError> {
    let live = match shared.leases.access().live().await {
        // Whoever waits goes on to; whoever does not has lost patience by now.
        Err(Error::Unreachable { .. }) => return Ok(Vec::new()),
        live => live?,
    };
    let unowned = &shared.layout.unowned;
    let paths: Vec<_> = chosen.iter().map(|chosen| path_of(unowned, chosen.entry())).collect();
    let found = match get_each(&*live.session, &paths).await {
        Ok(found) => found,
        Err(error) if error.is_unknown() => {
            sleep(PAUSE).await;
            return Ok(Vec::new());
        }
        Err(error) => return Err(QueueError::at(unowned)(error)),
    };
    let mut asked: Vec<Pin<Box<dyn Future<Output = Outcome> + Send>>> = Vec::new();
    for (chosen, found) in chosen.into_iter().zip(found) {
        match found {
            Ok(Some((data, stat))) => {
                asked.push(Box::pin(ask(&shared, &live, chosen, Value::read(&data), stat.version)));
            }
            Ok(None) => {
                shared.shelf.adapt(false);
                chosen.forget();
            }
            Err(Denied) => chosen.leave_alone("it is not permitted to us"),
        }
    }
    let (mut taken, mut failure) = (Vec::new(), None);
    for outcome in join_all(asked).await {
        match outcome {
            Ok(Some(custody)) => taken.push(custody),
            Ok(None) => {}
            Err(error) => failure = Some(error),
        }
    }
    match failure {
        Some(error) if taken.is_empty() => Err(error),
        _ => Ok(taken),
    }
}

async fn ask(shared: &Arc<Shared>, live: &Arc<Live>, chosen: Chosen, value: Value, version: i32) -> Outcome {
    let (layout, entry) = (&shared.layout, chosen.entry().clone());
    // A name that never was before: after a lost reply it tells what has become of the request.
    let claim = uuid::Uuid::new_v4().simple().to_string();
    let me = shared.leases.me().as_str();
    let value = value.taken(me, &claim);
    let owned = Layout::entry(&layout.owned, entry.priority(), entry.label());
    let request = Request {
        lock: layout.claims.join(&claim).expect("a uuid is a name"),
        data: me.into(),
        with: Around {
            before: vec![
                Op::delete(&path_of(&layout.unowned, &entry), Some(version)),
                Op::create(&owned, value.data(), CreateMode::PersistentSequential),
            ],
            after: Vec::new(),
        },
        // The lock alone says it: nobody will create one of this name again.
        subject: None,
    };
    let refused = match shared.leases.acquire(live, request).await {
        Ok((hold, done)) => {
            let owned = match done.and_then(|done| done.into_iter().nth(1)) {
                Some(Done::Created(path)) => Some(path),
                _ => find(live, &layout.owned, &entry, &claim).await,
            };
            // Without it, the hold is given back, and what is owned under it then is as well.
            let Some(owned) = owned else { return Ok(None) };
            shared.shelf.adapt(true);
            chosen.forget();
            debug!(%entry, %owned, attempt = value.attempt(), "taken");
            return Ok(Some(Custody::new(shared.clone(), hold, entry, owned, value)));
        }
        Err(refused) => refused,
    };
    match refused {
        Refused::Op { index: 0, error: backend::Error::NoNode } => {
            shared.shelf.adapt(false);
            chosen.forget();
            Ok(None)
        }
        Refused::Op { index: 0, error: backend::Error::BadVersion } | Refused::Lost(_) | Refused::Taken => {
            Ok(None)
        }
        Refused::Op { index: 0, error: error @ backend::Error::NotEmpty }
        | Refused::Backend(error @ backend::Error::TooLarge { .. }) => {
            chosen.leave_alone(&error.to_string());
            Ok(None)
        }
        Refused::Op { error, .. } | Refused::Backend(error) => Err(QueueError::at(&layout.root)(error)),
    }
}

/// The name that the store gave in `folder` to what was taken under `claim`, if its reply was lost.
pub(crate) async fn find(live: &Live, folder: &ZnodePath, entry: &Entry, claim: &str) -> Option<ZnodePath> {
    loop {
        let read = async {
            let (names, _) = live.session.children(folder).await?;
            let alike = names.iter().filter(|name| {
                readable(folder, name).is_some_and(|found| {
                    (found.priority(), found.label()) == (entry.priority(), entry.label())
                })
            });
            let paths: Vec<_> = alike.filter_map(|name| folder.join(name).ok()).collect();
            let found = get_each(&*live.session, &paths).await?;
            let is_ours = |data: &[u8]| Value::read(data).claim() == Some(claim);
            let ours = paths
                .into_iter()
                .zip(found)
                .find(|(_, found)| matches!(found, Ok(Some((data, _))) if is_ours(data)));
            Ok::<_, backend::Error>(ours.map(|(path, _)| path))
        };
        match read.await {
            Ok(found) => return found,
            Err(backend::Error::Lost(_)) => return None,
            Err(error) => debug!(%folder, %error, "what was taken is still to be found"),
        }
        sleep(PAUSE).await;
    }
}

/// Waits for all of them at once.
async fn join_all<T>(mut futures: Vec<Pin<Box<dyn Future<Output = T> + Send + '_>>>) -> Vec<T> {
    let mut outcomes: Vec<Option<T>> = futures.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut is_ready = true;
        for (future, outcome) in futures.iter_mut().zip(&mut outcomes) {
            if outcome.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(ready) => *outcome = Some(ready),
                    Poll::Pending => is_ready = false,
                }
            }
        }
        if is_ready { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    outcomes.into_iter().flatten().collect()
}
