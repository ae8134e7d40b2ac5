//! [`Rebalances`]: the changes of the share of one member, one after another.

use std::{
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_util::{
    StreamExt as _,
    stream::{self, BoxStream},
};

use super::{
    behind::Behind,
    rebalance::{Part, Rebalance},
    view::{Standing, View},
};
use crate::{session::validity::Validity, watch};

/// The changes of the share of one member, one after another, also as a [`Stream`]. From
/// [`Group::rebalances`](super::Group::rebalances).
///
/// A slow reader misses nothing: each change is computed when it is read, relative to the last one that this reader
/// got.
#[must_use = "changes are computed when they are read"]
pub struct Rebalances {
    views: watch::Receiver<Arc<View>>,
    changes: BoxStream<'static, Rebalance>,
}

impl Rebalances {
    pub(super) fn new(views: watch::Receiver<Arc<View>>, behind: Behind) -> Self {
        let reader = Reader { views: views.clone(), _behind: behind, seen: None, is_over: false };
        let changes = stream::unfold(reader, |mut reader| async move {
            let change = reader.next().await?;
            Some((change, reader))
        });
        Rebalances { views, changes: changes.fuse().boxed() }
    }

    /// Waits for the next change; `None` once the group was left and everything has been reported as lost.
    ///
    /// If the deadline passes without a confirmed heartbeat, everything is reported as lost at that moment. If a later
    /// heartbeat is confirmed, everything is reported as gained again. The same happens if the znode of this member is
    /// lost and it re-joins, even if its share is the same again: another member may have had it in between.
    ///
    /// # Cancel safety
    ///
    /// Safe: a change that was not returned is part of the next.
    pub async fn next(&mut self) -> Option<Rebalance> {
        self.changes.next().await
    }
}

impl Stream for Rebalances {
    type Item = Rebalance;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Rebalance>> {
        self.changes.poll_next_unpin(context)
    }
}

impl fmt::Debug for Rebalances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rebalances").field("view", &*self.views.borrow()).finish_non_exhaustive()
    }
}

/// Compares the current share with the one that was reported last.
struct Reader {
    views: watch::Receiver<Arc<View>>,
    /// Keeps the membership of a group of one.
    _behind: Behind,
    /// The share that was reported last; `None` if the member had none.
    seen: Option<Seen>,
    is_over: bool,
}

struct Seen {
    part: Part,
    validity: Option<Validity>,
}

impl Reader {
    async fn next(&mut self) -> Option<Rebalance> {
        while !self.is_over {
            let view = self.views.borrow_and_update().clone();
            let is_member = view.standing() == Standing::Member;
            let seen_validity = self.seen.as_ref().and_then(|seen| seen.validity.as_ref());
            let has_share = is_member && !seen_validity.is_some_and(Validity::has_ended);
            let part = has_share.then(|| view.part());
            if part.as_ref() != self.seen.as_ref().map(|seen| &seen.part) {
                let (after, grant) = (part.clone(), view.grant(part.is_some()));
                let seen = part.map(|part| Seen { part, validity: view.validity.clone() });
                let before = std::mem::replace(&mut self.seen, seen).map(|seen| seen.part);
                return Some(Rebalance { before, after, grant });
            }
            if view.has_left {
                break;
            }
            let validity = view.acting();
            tokio::select! {
                biased;
                changed = self.views.changed() => if changed.is_err() {
                    // No view can follow, but the caller still has to stop its work.
                    self.is_over = true;
                    let before = Some(self.seen.take()?.part);
                    let grant = view.grant(false);
                    return Some(Rebalance { before, after: None, grant });
                },
                () = async { validity.expect("guarded").changed(is_member).await }, if validity.is_some_and(|it| !it.has_ended()) => {}
            }
        }
        None
    }
}
