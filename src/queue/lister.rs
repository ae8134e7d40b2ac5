//! Looks at what waits whenever somebody wants to know and a watch says that it has changed.

use std::sync::Arc;

use tokio::{sync::watch, time::sleep};
use tokio_util::sync::CancellationToken;
use tracing::debug;

use super::open::{PAUSE, Shared, lay_out};
use crate::{
    backend,
    error::Error,
    session::{Live, Status},
};

/// Runs until it is cancelled or there will never be a session again.
pub(crate) async fn run(shared: Arc<Shared>, cancelled: CancellationToken) {
    cancelled.run_until_cancelled(follow(&shared)).await;
    shared.shelf.close();
    clear(&shared).await;
}

async fn follow(shared: &Shared) {
    let mut status = shared.leases.access().status();
    while let Some(live) = next_live(&mut status, |error| shared.shelf.fail(error)).await {
        shared.shelf.spoil();
        tokio::select! {
            () = list(shared, &live) => {}
            () = over(&mut status, &live) => {}
        }
    }
}

/// The next session; `None` if there will be none. `fail` is told of what waiting cannot mend.
pub(super) async fn next_live(
    status: &mut watch::Receiver<Status>,
    fail: impl Fn(Error),
) -> Option<Arc<Live>> {
    let decided = |status: &Status| match status {
        Status::Opening { error } => {
            error.iter().filter(|error| !error.is_transient()).for_each(|error| fail(error.clone()));
            false
        }
        Status::Live(_) | Status::Closed => true,
    };
    let found = status.wait_for(decided).await;
    match found.as_deref() {
        Ok(Status::Live(live)) => Some(live.clone()),
        _ => None,
    }
}

/// Waits until `live` is no longer the session.
pub(super) async fn over(status: &mut watch::Receiver<Status>, live: &Live) {
    let other = |status: &Status| !matches!(status, Status::Live(now) if now.id() == live.id());
    // An error means that the keeper has ended, which `next_live` finds as well.
    let _ = status.wait_for(other).await;
}

async fn list(shared: &Shared, live: &Live) {
    let Shared { shelf, layout, .. } = shared;
    loop {
        shelf.wanted().await;
        let begin = shelf.begin();
        let error = match live.session.watch_children(&layout.unowned).await {
            Ok((names, _, mut watch)) => {
                shelf.install(&names, begin);
                tokio::select! {
                    _ = watch.fired() => shelf.spoil(),
                    () = shelf.wanted() => {}
                }
                continue;
            }
            Err(backend::Error::NoNode) => match lay_out(&*live.session, layout).await {
                Ok(()) => continue,
                Err(error) => error,
            },
            Err(error) => error,
        };
        debug!(folder = %layout.unowned, %error, "not listed");
        if !error.is_unknown() {
            shelf.fail(Error::from_backend(error, &layout.unowned));
        }
        sleep(PAUSE).await;
    }
}

/// Nobody puts anything any more: the receipts are of no use.
async fn clear(shared: &Shared) {
    let Ok(live) = shared.leases.access().live_within(PAUSE).await else { return };
    let ops = shared.receipts.cleared(live.id());
    if let Err(error) = live.session.commit(ops).await {
        debug!(%error, "the receipts stay until the session ends");
    }
}
