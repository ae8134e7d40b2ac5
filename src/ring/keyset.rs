// Pure: no runtime, no clock, no socket, no random numbers.

//! [`KeySet`]: a large set of items whose keys are hashed once.

use std::fmt;

use super::{
    HashRing, Position, Ranges, RingKey,
    batch::{Itself, Positioned},
    index::{Entry, Index},
    kernel::Kernel,
    point::Position as _,
    position, tooz,
};

/// Items that are to be divided among members, hashed once and indexed by their positions. After that, a query for a
/// share, or for the items that a change moves, takes time for its answer only, not for the whole set.
///
/// Duplicates are kept. Iterates in the order of insertion. Beside the items, a set that is made at once needs 8.3
/// bytes for each item, and a set that has grown item by item up to 15. An item is stored as an `Option`, which may
/// need more memory than the item. Making a set takes about as long as two or three subsets of the items.
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
/// Adding an item panics if the set has 2^32 of them.
#[derive(Clone)]
pub struct KeySet<T> {
    /// The items in the order of insertion. A removed item leaves a hole until there are more holes than items.
    slots: Vec<Option<T>>,
    len: usize,
    /// Position and slot of each item.
    index: Index,
    /// Computes all 128 bits of the hash of an item, for the few whose 32 bits are also those of a point of a ring of
    /// tooz. `None` while no item was ever added.
    hash: Option<fn(&T) -> u128>,
}

impl<T: RingKey> KeySet<T> {
    /// A set of `items`.
    pub fn new(items: impl IntoIterator<Item = T>) -> KeySet<T> {
        let items = items.into_iter();
        let count = items.size_hint().0;
        let (mut slots, mut entries) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (item, position) in Positioned::new(Kernel::best(), items, Itself) {
            entries.push(Entry::new(position, slots.len()));
            slots.push(Some(item));
        }
        KeySet { len: slots.len(), slots, index: Index::new(&entries), hash: Some(tooz::hash::<T>) }
    }

    /// Adds an item, also if there is one with that key already.
    pub fn insert(&mut self, item: T) {
        self.hash = Some(tooz::hash::<T>);
        self.put(position(&item), item);
    }

    /// Removes and returns the item with that key; the last one added if there are several. `None` if there is none.
    pub fn remove<K: RingKey + ?Sized>(&mut self, key: &K) -> Option<T> {
        let entry = self.find(key)?;
        self.index.remove(entry);
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
        self.index.at(position).rfind(|entry| self.at(entry.slot()).ring_key() == bytes).copied()
    }
}

impl<T> KeySet<T> {
    /// If fewer than one in so many items are selected, sorting them is faster than marking them.
    const FEW: usize = 512;

    /// The items that `member` owns by `ring`, in the order of insertion.
    pub fn owned_by(&self, ring: &HashRing, member: &str) -> Vec<&T> {
        self.select(&ring.ranges(member))
    }

    /// The items whose positions are in `ranges`, in the order of insertion.
    pub fn select(&self, ranges: &Ranges) -> Vec<&T> {
        let runs: Vec<&[Entry]> = self.runs(ranges).collect();
        if self.are_few(&runs) {
            return self.sorted(&runs).into_iter().map(|entry| self.at(entry.slot())).collect();
        }
        self.at_marks(&self.marks(&runs))
    }

    /// The same, and the position of each.
    pub(crate) fn select_with_positions(&self, ranges: &Ranges) -> (Vec<&T>, Vec<Position>) {
        let runs: Vec<&[Entry]> = self.runs(ranges).collect();
        if self.are_few(&runs) {
            let sorted = self.sorted(&runs).into_iter();
            return sorted.map(|entry| (self.at(entry.slot()), entry.position())).unzip();
        }
        let marks = self.marks(&runs);
        let found = self.at_marks(&marks);
        // The place of an item in the answer is the number of marks before its own.
        let mut before = Vec::with_capacity(marks.len());
        let mut sum = 0;
        for word in &marks {
            before.push(sum);
            sum += word.count_ones() as usize;
        }
        let mut positions = vec![Position::default(); found.len()];
        for entry in runs.iter().copied().flatten() {
            let (word, bit) = (entry.slot() / 64, entry.slot() % 64);
            let earlier = (marks[word] & ((1 << bit) - 1)).count_ones() as usize;
            positions[before[word] + earlier] = entry.position();
        }
        (found, positions)
    }

    fn are_few(&self, runs: &[&[Entry]]) -> bool {
        runs.iter().map(|run| run.len()).sum::<usize>() < self.slots.len() / Self::FEW
    }

    /// In the order of insertion.
    fn sorted(&self, runs: &[&[Entry]]) -> Vec<Entry> {
        let mut entries = runs.concat();
        entries.sort_unstable_by_key(|entry| entry.slot());
        entries
    }

    /// A bit set of all slots: for many items it is faster than sorting.
    fn marks(&self, runs: &[&[Entry]]) -> Vec<u64> {
        let mut marks = vec![0u64; self.slots.len().div_ceil(64)];
        let slots = runs.iter().copied().flatten().map(|entry| entry.slot());
        slots.for_each(|slot| marks[slot / 64] |= 1 << (slot % 64));
        marks
    }

    fn at_marks(&self, marks: &[u64]) -> Vec<&T> {
        let mut found = Vec::with_capacity(marks.iter().map(|word| word.count_ones() as usize).sum());
        for (word, &marks) in marks.iter().enumerate() {
            let mut marks = marks;
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
        self.runs(ranges).flatten().map(|entry| self.at(entry.slot()))
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

    fn runs(&self, ranges: &Ranges) -> impl Iterator<Item = &[Entry]> {
        // With pieces, all runs are sorted, so that they are in the order of their positions.
        let (parts, sorted) = if ranges.pieces.is_empty() {
            (&ranges.parts[..], Vec::new())
        } else {
            (&[][..], self.all_runs(ranges))
        };
        let runs = parts.iter().flat_map(|part| self.index.within(part.first..=part.last));
        runs.chain(sorted)
    }

    /// The runs of ranges that also have pieces of positions of 32 bits.
    fn all_runs(&self, ranges: &Ranges) -> Vec<&[Entry]> {
        let mut runs: Vec<&[Entry]> = ranges.iter().flat_map(|range| self.index.within(range)).collect();
        for piece in &ranges.pieces {
            let is_inside = |entry: &Entry| {
                let hash = self.hash.map(|hash| hash(self.at(entry.slot())));
                hash.is_some_and(|hash| (piece.first..=piece.last).contains(&hash))
            };
            let near = self.index.at(piece.first.prefix()).as_slice();
            runs.extend(near.chunks(1).filter(|one| is_inside(&one[0])));
        }
        runs.retain(|run| !run.is_empty());
        runs.sort_unstable_by_key(|run| run[0]);
        runs
    }

    fn at(&self, slot: usize) -> &T {
        self.slots[slot].as_ref().expect("an item in the index is in its slot")
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
        let moved = |entry: Entry| Entry::new(entry.position(), moved[entry.slot()]);
        self.index = Index::new(&self.index.iter().map(moved).collect::<Vec<_>>());
    }
}

impl<T> Default for KeySet<T> {
    fn default() -> Self {
        KeySet { slots: Vec::new(), len: 0, index: Index::default(), hash: None }
    }
}

impl<T: RingKey> FromIterator<T> for KeySet<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        KeySet::new(items)
    }
}

impl<T: RingKey> Extend<T> for KeySet<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, items: I) {
        self.hash = Some(tooz::hash::<T>);
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
        let entries: Vec<Entry> =
            positions.into_iter().enumerate().map(|(slot, position)| Entry::new(position, slot)).collect();
        let slots: Vec<Option<T>> = items.into_iter().map(Some).collect();
        KeySet { len: slots.len(), slots, index: Index::par_new(&entries), hash: Some(tooz::hash::<T>) }
    }
}
