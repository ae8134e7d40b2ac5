//! [`Watches`]: the watches of one session that have not fired.

use std::{
    collections::BTreeMap,
    future::{Future as _, poll_fn},
    pin::pin,
    task::Poll,
};

use crate::backend::{Fired, Watch};

/// At most one watch for each key, which says what is watched.
#[derive(Debug)]
pub(super) struct Watches<K>(BTreeMap<K, Watch>);

impl<K: Ord> Default for Watches<K> {
    fn default() -> Self {
        Watches(BTreeMap::new())
    }
}

impl<K: Ord + Clone> Watches<K> {
    pub(super) fn extend(&mut self, watches: impl IntoIterator<Item = (K, Watch)>) {
        self.0.extend(watches);
    }

    /// What is watched.
    pub(super) fn keys(&self) -> Vec<K> {
        self.0.keys().cloned().collect()
    }

    pub(super) fn has(&self, key: &K) -> bool {
        self.0.contains_key(key)
    }

    /// Ends the watches of other keys.
    pub(super) fn retain(&mut self, is_wanted: impl Fn(&K) -> bool) {
        self.0.retain(|key, _| is_wanted(key));
    }

    /// Waits until one fires. If the session ends, it waits without end: the keeper announces that. Cancel safe.
    pub(super) async fn fired(&mut self) -> K {
        let fired = poll_fn(|context| {
            let fired = self.0.iter_mut().find_map(|(key, watch)| match pin!(watch.fired()).poll(context) {
                Poll::Ready(fired) => Some((key.clone(), fired)),
                Poll::Pending => None,
            });
            fired.map_or(Poll::Pending, Poll::Ready)
        });
        let (key, fired) = fired.await;
        self.0.remove(&key);
        if let Fired::Lost(_) = fired {
            self.0.clear();
            std::future::pending::<()>().await;
        }
        key
    }
}
