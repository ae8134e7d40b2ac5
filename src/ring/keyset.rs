//! Pure: [`KeySet`], a large set whose keys are hashed once.

use std::{collections::BTreeSet, fmt};

use super::{
    HashRing, Ranges, RingKey,
    batch::{Itself, Positioned},
    kernel::Kernel,
    position,
};

/// Things that are to be divided, hashed once and indexed by their positions: after that, asking for a share or
/// for what a change moves costs time for the answer only, not for the whole set.
///
/// Duplicates are kept. Iterates in the order of insertion. Beside the items it needs 9 to 15 bytes for each of
/// them, so ten million keys are fine. Building it takes about as long as looking through the items three times.
///
/// ```
/// use apportion::{HashRing, KeySet};
///
/// let mut targets: KeySet<String> = (0..1000).map(|number| format!("target-{number}")).collect();
/// targets.insert("target-extra".into());
///
/// let before = HashRing::builder().members(["a", "b"]).build()?;
/// let after = before.with_member("c", 1)?;
/// let mine = targets.owned_by(&before, "a");
/// let lost = targets.within(&before.ranges("a").difference(&after.ranges("a"))).count();
/// assert_eq!(targets.owned_by(&after, "a").len(), mine.len() - lost);
/// # Ok::<(), apportion::ring::RingError>(())
/// ```
///
/// # Panics
///
/// Adding an item panics if there are 2^32 of them.
#[derive(Clone)]
pub struct KeySet<T> {
    /// In the order of insertion; those that are gone leave a hole until there are more holes than items.
    slots: Vec<Option<T>>,
    len: usize,
    /// Position and slot of each item.
    index: BTreeSet<Entry>,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(u64);

impl Entry {
    fn new(position: u32, slot: usize) -> Entry {
        let slot = u32::try_from(slot).expect("a key set has less than 2^32 items");
        Entry(u64::from(position) << 32 | u64::from(slot))
    }

    fn slot(self) -> usize {
        self.0 as u32 as usize
    }

    fn with_slot(self, slot: usize) -> Entry {
        Entry::new((self.0 >> 32) as u32, slot)
    }
}

impl<T: RingKey> KeySet<T> {
    /// A set of `items`.
    pub fn new(items: impl IntoIterator<Item = T>) -> KeySet<T> {
        let (mut slots, mut entries) = (Vec::new(), Vec::new());
        for (item, position) in Positioned::new(Kernel::best(), items.into_iter(), Itself) {
            entries.push(Entry::new(position, slots.len()));
            slots.push(Some(item));
        }
        entries.sort_unstable();
        KeySet { len: slots.len(), slots, index: entries.into_iter().collect() }
    }

    /// Adds an item, also if there is one with that key already.
    pub fn insert(&mut self, item: T) {
        self.put(position(&item), item);
    }

    /// Takes the item with that key out, the last one added if there are several.
    pub fn remove<K: RingKey + ?Sized>(&mut self, key: &K) -> Option<T> {
        let entry = self.find(key)?;
        self.index.remove(&entry);
        let item = self.slots[entry.slot()].take();
        self.len -= 1;
        if self.slots.len() > 2 * self.len + 64 {
            self.close_holes();
        }
        item
    }

    /// Whether there is an item with that key.
    pub fn contains<K: RingKey + ?Sized>(&self, key: &K) -> bool {
        self.find(key).is_some()
    }

    fn find<K: RingKey + ?Sized>(&self, key: &K) -> Option<Entry> {
        let (bytes, position) = (key.ring_key(), position(key));
        let mut alike =
            self.index.range(Entry::new(position, 0)..=Entry(Entry::new(position, 0).0 | 0xffff_ffff));
        alike.rfind(|entry| self.item(**entry).ring_key() == bytes).copied()
    }
}

impl<T> KeySet<T> {
    /// The items that `member` owns by `ring`, in the order of insertion.
    pub fn owned_by(&self, ring: &HashRing, member: &str) -> Vec<&T> {
        self.select(&ring.ranges(member))
    }

    /// The items whose positions are in `ranges`, in the order of insertion.
    pub fn select(&self, ranges: &Ranges) -> Vec<&T> {
        let mut slots: Vec<usize> = self.entries(ranges).map(Entry::slot).collect();
        if slots.len() < self.slots.len() / 64 {
            slots.sort_unstable();
            return slots.into_iter().map(|slot| self.at(slot)).collect();
        }
        // Many of them: marking each on a list of all slots is faster than sorting.
        let mut marks = vec![0u64; self.slots.len().div_ceil(64)];
        for &slot in &slots {
            marks[slot / 64] |= 1 << (slot % 64);
        }
        let mut found = Vec::with_capacity(slots.len());
        for (word, mut marks) in marks.into_iter().enumerate() {
            while marks != 0 {
                found.push(self.at(64 * word + marks.trailing_zeros() as usize));
                marks &= marks - 1;
            }
        }
        found
    }

    /// The items whose positions are in `ranges`, in the order of their positions: faster than
    /// [`select`](KeySet::select) if the order does not matter.
    pub fn within(&self, ranges: &Ranges) -> impl Iterator<Item = &T> {
        self.entries(ranges).map(|entry| self.item(entry))
    }

    /// All items, in the order of insertion.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter { slots: self.slots.iter(), left: self.len }
    }

    /// The number of items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no items.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn put(&mut self, position: u32, item: T) {
        self.index.insert(Entry::new(position, self.slots.len()));
        self.slots.push(Some(item));
        self.len += 1;
    }

    fn entries(&self, ranges: &Ranges) -> impl Iterator<Item = Entry> {
        ranges.iter().flat_map(|range| {
            let (first, last) =
                (u64::from(*range.start()) << 32, u64::from(*range.end()) << 32 | 0xffff_ffff);
            self.index.range(Entry(first)..=Entry(last)).copied()
        })
    }

    fn item(&self, entry: Entry) -> &T {
        self.at(entry.slot())
    }

    fn at(&self, slot: usize) -> &T {
        self.slots[slot].as_ref().expect("what is in the index is in its slot")
    }

    fn close_holes(&mut self) {
        let mut filled = 0;
        let moved: Vec<usize> = self
            .slots
            .iter()
            .map(|slot| {
                filled += usize::from(slot.is_some());
                filled.wrapping_sub(1)
            })
            .collect();
        self.slots.retain(Option::is_some);
        // The order of the slots stays, so the entries are sorted still.
        self.index = self.index.iter().map(|entry| entry.with_slot(moved[entry.slot()])).collect();
    }
}

impl<T> Default for KeySet<T> {
    fn default() -> Self {
        KeySet { slots: Vec::new(), len: 0, index: BTreeSet::new() }
    }
}

impl<T: RingKey> FromIterator<T> for KeySet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        KeySet::new(items)
    }
}

impl<T: RingKey> Extend<T> for KeySet<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        for (item, position) in Positioned::new(Kernel::best(), items.into_iter(), Itself) {
            self.put(position, item);
        }
    }
}

impl<T: fmt::Debug> fmt::Debug for KeySet<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self).finish()
    }
}

/// The items of a [`KeySet`] in the order of insertion.
#[derive(Clone, Debug)]
pub struct Iter<'a, T> {
    slots: std::slice::Iter<'a, Option<T>>,
    left: usize,
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        let item = self.slots.find_map(Option::as_ref)?;
        self.left -= 1;
        Some(item)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<T> ExactSizeIterator for Iter<'_, T> {}

impl<'a, T> IntoIterator for &'a KeySet<T> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

#[cfg(feature = "rayon")]
impl<T: RingKey + Send + Sync> KeySet<T> {
    /// A set of `items`, hashed and sorted by all threads of the current `rayon` pool if there are many of them.
    ///
    /// With the feature `rayon`.
    pub fn par_new(items: Vec<T>) -> KeySet<T> {
        let positions = super::parallel::positions(Kernel::best(), &items);
        let mut entries: Vec<Entry> =
            positions.into_iter().enumerate().map(|(slot, position)| Entry::new(position, slot)).collect();
        super::parallel::sort(&mut entries);
        let slots: Vec<Option<T>> = items.into_iter().map(Some).collect();
        KeySet { len: slots.len(), slots, index: entries.into_iter().collect() }
    }
}
