//! Keeps the cache of a board: looks again whenever its children may have changed.

use std::{
    collections::{HashMap, HashSet},
    future::pending,
    sync::Arc,
    time::Duration,
};

use tokio::{
    select,
    time::{sleep, timeout},
};
use tracing::{debug, warn};

use super::{
    Shared,
    cache::{Known, Listing, Unreadable},
    layout::{Child, lock_of},
    posting::{Posting, PostingError},
};
use crate::{
    backend::{self, Fired, SessionState, Watch, Znode, path::ZnodePath},
    error::Error,
    session::{
        Live, Status,
        requests::{Denied, get_each},
    },
};

/// Least time between two listings that nobody waits for: a storm of claims changes the children without end.
const PAUSE: Duration = Duration::from_millis(10);
/// What each child adds to that, so that a huge board is not listed all the time.
const PAUSE_A_CHILD: Duration = Duration::from_micros(10);
/// How long a change may go unseen while nobody wants to know: otherwise every board of a fleet would list at every
/// post and claim of every other.
const UNSEEN: Duration = Duration::from_millis(100);
/// Before something is tried again that was refused.
const RETRY: Duration = Duration::from_secs(1);

/// Why the board is looked at again.
enum Cause {
    Changed,
    /// Somebody waits for it.
    Wanted,
    /// The connection is a new one, or there was an error.
    Anew,
    Over,
}

/// Follows the board through all sessions. Ends with `shared.over`.
pub(super) async fn run(shared: Arc<Shared>) {
    // Whatever ends this task, a panic included, closes the board.
    let _guard = shared.over.clone().drop_guard();
    let over = shared.over.clone();
    over.run_until_cancelled(async {
        let mut status = shared.leases.access().status();
        loop {
            let live = match &*status.borrow_and_update() {
                Status::Live(live) => Some(live.clone()),
                Status::Opening { error } => {
                    // Whoever waits for a job learns of what waiting cannot mend.
                    error
                        .iter()
                        .filter(|error| !error.is_transient())
                        .for_each(|error| shared.has_failed(error.clone()));
                    None
                }
                Status::Closed => return,
            };
            let changed = match live {
                None => status.changed().await,
                Some(live) => select! {
                    changed = status.changed() => changed,
                    () = follow(&shared, &live) => status.changed().await,
                },
            };
            if changed.is_err() {
                return;
            }
        }
    })
    .await;
    // Its last handle was dropped.
    shared.unregister(shared.take_entities()).await;
}

/// Follows the board until the session is over.
async fn follow(shared: &Shared, live: &Live) {
    let mut state = live.session.state();
    // All postings are read again: a name may stand for another job by now.
    let mut cause = Cause::Anew;
    loop {
        let wanted = shared.wanted();
        let is_wanted = wanted > shared.serial();
        let from_scratch = matches!(cause, Cause::Anew);
        if from_scratch || shared.has_unregistered() {
            shared.register_again(live).await;
        }
        shared.cache().expect_listing();
        let listed = async {
            if is_wanted {
                live.session.sync(&shared.layout.board).await?;
            }
            list(shared, live, from_scratch, is_wanted).await
        };
        let (watch, pause) = match listed.await {
            Ok((listing, children, watch)) => {
                let is_mixed = shared.cache().merge(listing);
                shared.has_listed(wanted);
                let pause = PAUSE + PAUSE_A_CHILD * u32::try_from(children).unwrap_or(u32::MAX);
                (if is_mixed { None } else { Some(watch) }, pause)
            }
            Err(error) => {
                shared.cache().drop_marks();
                match error {
                    backend::Error::Lost(_) => return,
                    backend::Error::NoNode => {
                        warn!(board = %shared.layout.board, "the board is gone; making it again");
                        let _ = shared.ensure(live).await;
                    }
                    error => {
                        debug!(board = %shared.layout.board, %error, "the board could not be listed");
                        shared.has_failed(Error::from_backend(error, &shared.layout.board));
                    }
                }
                if is_wanted {
                    sleep(RETRY / 10).await;
                } else {
                    let _ = timeout(RETRY, shared.is_wanted()).await;
                }
                cause = Cause::Anew;
                continue;
            }
        };
        let paused = timeout(pause, shared.is_wanted()).await;
        cause = match (paused, watch) {
            (Ok(()), _) => Cause::Wanted,
            (Err(_), None) => {
                looked_for(shared).await;
                Cause::Changed
            }
            (Err(_), Some(watch)) => next_cause(shared, &mut state, watch).await,
        };
        if matches!(cause, Cause::Over) {
            return;
        }
    }
}

/// Waits for a reason to look again.
async fn next_cause(
    shared: &Shared,
    state: &mut tokio::sync::watch::Receiver<SessionState>,
    mut watch: Watch,
) -> Cause {
    select! {
        fired = watch.fired() => match fired {
            Fired::Changed => {
                looked_for(shared).await;
                Cause::Changed
            }
            Fired::Lost(_) => Cause::Over,
        },
        () = shared.is_wanted() => Cause::Wanted,
        () = shared.is_suspected() => Cause::Changed,
        () = reconnected(state) => Cause::Anew,
        () = async { if shared.has_unregistered() { sleep(RETRY).await } else { pending().await } } => Cause::Changed,
    }
}

/// Waits until somebody wants to know of a change, or it has been unseen for long enough.
async fn looked_for(shared: &Shared) {
    select! {
        () = shared.is_of_interest() => {}
        () = shared.is_wanted() => {}
        () = sleep(UNSEEN) => {}
    }
}

/// Waits until the session has a connection that it had not when this was asked last.
async fn reconnected(state: &mut tokio::sync::watch::Receiver<SessionState>) {
    while state.changed().await.is_ok() {
        if matches!(*state.borrow(), SessionState::Connected { .. }) {
            return;
        }
    }
    pending::<()>().await;
}

/// Lists the board and reads what is not known yet. Says also how many children there are.
async fn list(
    shared: &Shared,
    live: &Live,
    from_scratch: bool,
    is_wanted: bool,
) -> Result<(Listing, usize, Watch), backend::Error> {
    let board = &shared.layout.board;
    let (children, _, watch) = live.session.watch_children(board).await?;
    let mut listing = Listing::default();
    let mut locked = HashSet::new();
    for name in &children {
        match Child::of(name) {
            Child::Job => {
                listing.names.insert(name.as_str().into(), false);
            }
            Child::Lock(job) => {
                locked.insert(job);
            }
            Child::Odd => {
                if let Ok(path) = board.join(name) {
                    listing.unreadable.push(Unreadable { path, reason: PostingError::Name });
                }
            }
            Child::Foreign => {}
        }
    }
    for (name, is_claimed) in &mut listing.names {
        *is_claimed = locked.contains(&**name);
    }
    let mut unknown = Vec::new();
    {
        let cache = shared.cache();
        let aside: HashMap<_, _> = cache.unreadable().map(|it| (it.path.name(), it)).collect();
        for (name, is_claimed) in &listing.names {
            let is_known = match (cache.slot(name), aside.get(&**name)) {
                // A claim has changed it that is over by now.
                (Some(slot), _) => !slot.is_claimed || *is_claimed,
                (None, Some(found)) if !is_wanted && !from_scratch => {
                    listing.unreadable.push((*found).clone());
                    true
                }
                (None, _) => false,
            };
            if !is_known || from_scratch {
                unknown.extend(board.join(name).ok());
            }
        }
    }
    // In the order of their numbers, which is nearly that in which the server has them at hand.
    unknown.sort_unstable();
    for (path, found) in unknown.iter().zip(get_each(&*live.session, &unknown).await?) {
        match understand(path, found) {
            Some(Ok(known)) => {
                listing.read.insert(path.name().into(), Arc::new(known));
            }
            Some(Err(reason)) => listing.unreadable.push(Unreadable { path: path.clone(), reason }),
            None => {}
        }
    }
    Ok((listing, children.len(), watch))
}

/// Makes a job of what was read; `None` if nothing is there.
pub(super) fn understand(
    path: &ZnodePath,
    found: Result<Option<Znode>, Denied>,
) -> Option<Result<Known, PostingError>> {
    let read = |data: Vec<u8>, stat| {
        let posting = Posting::decode(&data)?;
        // Its name is longer than that of the job, but of the same letters.
        let lock = lock_of(path).map_err(|_| PostingError::Name)?;
        Ok(Known { path: path.clone(), lock, posting: Arc::new(posting), data: Arc::new(data), stat })
    };
    match found {
        Ok(None) => None,
        Ok(Some((data, stat))) => Some(read(data, stat)),
        Err(Denied) => Some(Err(PostingError::NotPermitted)),
    }
}
