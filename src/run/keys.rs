//! [`Keys`]: the keys of a `run_each`, which can change while it runs; [`KeyList`]: what it begins with.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tokio::sync::Notify;

use super::{
    states::{EachCounts, KeyState},
    table::Table,
};
use crate::{
    clock::{Clock, Moment},
    ring::{KeySet, RingKey},
};

/// The keys that a [`run_each`](crate::Group::run_each) begins with: made from an array, a vector, a slice or a
/// [`KeySet`], or a reference to one.
#[derive(Debug, Clone)]
pub struct KeyList<K>(pub(super) Vec<Arc<K>>);

impl<K> FromIterator<K> for KeyList<K> {
    fn from_iter<I: IntoIterator<Item = K>>(keys: I) -> Self {
        KeyList(keys.into_iter().map(Arc::new).collect())
    }
}

impl<K> From<Vec<K>> for KeyList<K> {
    fn from(keys: Vec<K>) -> Self {
        keys.into_iter().collect()
    }
}

impl<K: Clone> From<&Vec<K>> for KeyList<K> {
    fn from(keys: &Vec<K>) -> Self {
        keys.iter().cloned().collect()
    }
}

impl<K: Clone> From<&[K]> for KeyList<K> {
    fn from(keys: &[K]) -> Self {
        keys.iter().cloned().collect()
    }
}

impl<K, const N: usize> From<[K; N]> for KeyList<K> {
    fn from(keys: [K; N]) -> Self {
        keys.into_iter().collect()
    }
}

impl<K: Clone, const N: usize> From<&[K; N]> for KeyList<K> {
    fn from(keys: &[K; N]) -> Self {
        keys.iter().cloned().collect()
    }
}

impl<K: Clone> From<&KeySet<K>> for KeyList<K> {
    fn from(keys: &KeySet<K>) -> Self {
        keys.iter().cloned().collect()
    }
}

/// The keys of a [`run_each`](crate::Group::run_each), and the state of each. Cheap to clone. From
/// [`RunEach::keys`](super::RunEach::keys).
///
/// The set can change while the tasks run. All processes should get the same keys: a key has a task in this process only if
/// it is in this set and this member owns it.
pub struct Keys<K> {
    pub(super) shared: Arc<Shared<K>>,
}

/// What the handles and the driver share.
pub(super) struct Shared<K> {
    table: Mutex<Table<K>>,
    /// A handle has changed the table.
    pub(super) changed: Notify,
    /// For pauses and drains only. Who may act is decided by the guards.
    pub(super) clock: Arc<dyn Clock>,
}

impl<K> Shared<K> {
    pub(super) fn new(table: Table<K>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Shared { table: Mutex::new(table), changed: Notify::new(), clock })
    }

    pub(super) fn table(&self) -> MutexGuard<'_, Table<K>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Moment {
        self.clock.now()
    }

    fn change<T>(&self, change: impl FnOnce(&mut Table<K>, Moment) -> T) -> T {
        let changed = change(&mut self.table(), self.now());
        self.changed.notify_one();
        changed
    }
}

impl<K: RingKey> Keys<K> {
    /// Adds a key. Returns whether it is new.
    pub fn insert(&self, key: K) -> bool {
        self.shared.change(|table, _| table.insert(Arc::new(key)))
    }

    /// Removes a key: its task is asked to stop. Returns whether it was there.
    pub fn remove<Q: RingKey + ?Sized>(&self, key: &Q) -> bool {
        self.shared.change(|table, now| table.remove(key, now))
    }

    /// Replaces the set: the tasks of keys that are not in the new one are asked to stop, those of the others go on.
    pub fn replace(&self, keys: impl Into<KeyList<K>>) {
        let KeyList(keys) = keys.into();
        self.shared.change(|table, now| table.replace(keys, now));
    }

    /// The state of a key at this moment; `None` if it is not in the set.
    pub fn state<Q: RingKey + ?Sized>(&self, key: &Q) -> Option<KeyState> {
        self.shared.table().state(key, self.shared.now())
    }
}

impl<K> Keys<K> {
    /// All keys, in an order that does not change, and the state of each at this moment.
    pub fn states(&self) -> Vec<(Arc<K>, KeyState)> {
        self.shared.table().states(self.shared.now())
    }

    /// The number of keys.
    pub fn len(&self) -> usize {
        self.shared.table().len()
    }

    /// Whether there are no keys.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many tasks have not ended, those that are stopping included.
    pub fn running(&self) -> usize {
        self.shared.table().running()
    }

    /// What the tasks have done so far.
    pub fn counts(&self) -> EachCounts {
        self.shared.table().counts()
    }
}

impl<K> Clone for Keys<K> {
    fn clone(&self) -> Self {
        Keys { shared: self.shared.clone() }
    }
}

impl<K> fmt::Debug for Keys<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = self.shared.table();
        f.debug_struct("Keys")
            .field("len", &table.len())
            .field("running", &table.running())
            .field("counts", &table.counts())
            .finish()
    }
}
