//! The watches of one session that have not fired.

use std::{
    collections::BTreeMap,
    future::{Future as _, poll_fn},
    pin::pin,
    task::Poll,
};

use crate::{
    backend::{Fired, Watch},
    group::handover::Event,
    member::MemberId,
};

/// What is watched.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Watched {
    Head,
    Member(MemberId),
    Children,
}

/// At most one watch for each.
#[derive(Default, Debug)]
pub(super) struct Watches(BTreeMap<Watched, Watch>);

impl Watches {
    pub(super) fn extend(&mut self, watches: Vec<(Watched, Watch)>) {
        self.0.extend(watches);
    }

    /// What is watched.
    pub(super) fn keys(&self) -> Vec<Watched> {
        self.0.keys().cloned().collect()
    }

    /// Waits until one fires. Cancel safe.
    pub(super) async fn fired(&mut self) -> Event {
        let fired = poll_fn(|context| {
            let fired =
                self.0.iter_mut().find_map(|(watched, watch)| match pin!(watch.fired()).poll(context) {
                    Poll::Ready(fired) => Some((watched.clone(), fired)),
                    Poll::Pending => None,
                });
            fired.map_or(Poll::Pending, Poll::Ready)
        });
        let (watched, fired) = fired.await;
        self.0.remove(&watched);
        if let Fired::Lost(_) = fired {
            // The keeper announces the end of the session.
            self.0.clear();
            std::future::pending::<()>().await;
        }
        match watched {
            Watched::Head => Event::HeadChanged,
            Watched::Member(id) => Event::MemberChanged(id),
            Watched::Children => Event::ChildrenChanged,
        }
    }
}
