// Pure: no runtime, no clock, no socket, no random numbers.

//! The owners of many items, in batches.

use std::array;

use super::{
    HashRing, Position, Ranges, RingKey,
    kernel::{self, BLOCK, Kernel},
    key::KeyBuffer,
    range_index::RangeIndex,
    tooz,
};

/// Gets the keys of items.
pub(crate) trait KeyOf<T> {
    /// The positions of up to a block of `items`. The rest of the array is meaningless.
    fn positions(&self, items: &[T], hasher: &mut Hasher) -> [u32; BLOCK];

    /// All 128 bits of the hash of an item, of which a position is the first 32.
    fn hash(&self, item: &T) -> u128;
}

/// Each item is its own key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Itself;

impl<T: RingKey> KeyOf<T> for Itself {
    #[inline]
    fn positions(&self, items: &[T], hasher: &mut Hasher) -> [u32; BLOCK] {
        hasher.positions(items)
    }

    #[cold]
    fn hash(&self, item: &T) -> u128 {
        tooz::hash(item)
    }
}

/// A function picks the key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct By<F>(pub(crate) F);

impl<T, K: RingKey, F: Fn(&T) -> K> KeyOf<T> for By<F> {
    #[inline]
    fn positions(&self, items: &[T], hasher: &mut Hasher) -> [u32; BLOCK] {
        let keys: [Option<K>; BLOCK] = array::from_fn(|lane| items.get(lane).map(&self.0));
        hasher.positions(keys.iter().flatten())
    }

    #[cold]
    fn hash(&self, item: &T) -> u128 {
        tooz::hash(&self.0(item))
    }
}

/// Hashes keys, a block at a time.
pub(crate) struct Hasher {
    kernel: Kernel,
    /// The length of all keys so far.
    bytes: usize,
    buffers: [KeyBuffer; BLOCK],
}

impl Hasher {
    /// Up to this number of keys, it is faster to hash them one by one.
    const FEW: usize = 4;

    fn new(kernel: Kernel) -> Hasher {
        Hasher { kernel, bytes: 0, buffers: array::from_fn(|_| KeyBuffer::new()) }
    }

    /// The positions of up to a block of keys. The rest of the array is meaningless.
    #[inline]
    fn positions<'a, K: RingKey + 'a>(&mut self, keys: impl IntoIterator<Item = &'a K>) -> [u32; BLOCK] {
        let mut texts: [&[u8]; BLOCK] = [&[]; BLOCK];
        let mut len = 0;
        for (key, buffer) in keys.into_iter().zip(&mut self.buffers) {
            texts[len] = key.ring_key_with(buffer);
            self.bytes += texts[len].len();
            len += 1;
        }
        if len <= Self::FEW {
            let mut positions = [0; BLOCK];
            for (position, text) in positions.iter_mut().zip(&texts[..len]) {
                *position = kernel::position(text);
            }
            return positions;
        }
        // The rest is filled with the last key, so that the kernel can still use its fastest code for keys of one
        // length.
        let last = texts[len - 1];
        texts[len..].fill(last);
        self.kernel.positions(&texts)
    }
}

/// How many items are hashed before the first is returned. The processor often mispredicts what the caller does with an
/// item, and after a misprediction it would wait for the next keys to come from memory.
const BATCH: usize = 8 * BLOCK;

/// Items with the positions of their keys. It reads up to a batch of items before it returns the first.
pub(super) struct Positioned<I: Iterator, K> {
    items: I,
    key: K,
    hasher: Hasher,
    /// Items that were read and not returned yet, in reverse order.
    prefetched: Vec<I::Item>,
    /// The positions of the prefetched items, and of some that were returned.
    positions: Vec<u32>,
}

impl<I: Iterator, K: KeyOf<I::Item>> Positioned<I, K> {
    pub(super) fn new(kernel: Kernel, items: I, key: K) -> Self {
        Positioned { items, key, hasher: Hasher::new(kernel), prefetched: Vec::new(), positions: Vec::new() }
    }

    fn prefetch(&mut self) {
        self.prefetched.extend(self.items.by_ref().take(BATCH));
        self.positions.clear();
        for block in self.prefetched.chunks(BLOCK) {
            self.positions.extend_from_slice(&self.key.positions(block, &mut self.hasher)[..block.len()]);
        }
        // Reversed after hashing, because a processor prefetches memory that is read forwards.
        self.prefetched.reverse();
        self.positions.reverse();
    }
}

impl<I: Iterator, K: KeyOf<I::Item>> Iterator for Positioned<I, K> {
    type Item = (I::Item, u32);

    #[inline]
    fn next(&mut self) -> Option<(I::Item, u32)> {
        if self.prefetched.is_empty() {
            self.prefetch();
        }
        let item = self.prefetched.pop()?;
        Some((item, self.positions[self.prefetched.len()]))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.items.size_hint();
        let prefetched = self.prefetched.len();
        (least.saturating_add(prefetched), most.and_then(|most| most.checked_add(prefetched)))
    }
}

/// How much is hashed at a time: it ends with the block in which one of the two is reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Turn {
    pub(crate) keys: usize,
    /// The length of all keys.
    pub(crate) bytes: usize,
}

impl Turn {
    /// Without an end.
    pub(super) const WHOLE: Turn = Turn { keys: usize::MAX, bytes: usize::MAX };
}

/// Selects the items in ranges, some at a time.
pub(crate) struct Subset {
    wanted: RangeIndex,
    kernel: Kernel,
}

impl Subset {
    pub(super) fn new(wanted: Ranges, kernel: Kernel) -> Subset {
        Subset { wanted: wanted.index(), kernel }
    }

    /// Reads more `items`, for one turn, and appends to `found` those in the subset, in the order given. `note` gets the
    /// position of each. Returns whether there may be more items.
    pub(crate) fn take_from<T>(
        &self,
        items: &mut impl Iterator<Item = T>,
        turn: Turn,
        key: &impl KeyOf<T>,
        found: &mut Vec<T>,
        mut note: impl FnMut(Position),
    ) -> bool {
        let mut hasher = Hasher::new(self.kernel);
        let mut left = turn.keys;
        while left > 0 && hasher.bytes < turn.bytes {
            let (asked, first) = (BLOCK.min(left), found.len());
            // Appended first and removed if not wanted, because another block would need one more copy.
            found.extend(items.by_ref().take(asked));
            let len = found.len() - first;
            let positions = key.positions(&found[first..], &mut hasher);
            // The lanes after the last key have positions, too.
            let hash = |lane: usize| found.get(first + lane).map_or(0, |item| key.hash(item));
            let wanted = self.wanted.lanes(&positions, &hash);
            let mut kept = first;
            for lane in wanted.take_while(|lane| *lane < len) {
                found.swap(kept, first + lane);
                note(positions[lane]);
                kept += 1;
            }
            found.truncate(kept);
            if len < asked {
                return false;
            }
            left -= len;
        }
        true
    }
}

impl HashRing {
    /// Those of `items` that `member` owns, in the order given. None if the member is not in the ring.
    ///
    /// Many times faster than [`is_owner`](HashRing::is_owner) for each item.
    ///
    /// ```
    /// # use apportion::HashRing;
    /// let ring = HashRing::builder().members(["a", "b"]).build()?;
    /// let alarms: Vec<String> = (0..100).map(|number| format!("alarm-{number}")).collect();
    /// let mine: Vec<&String> = ring.extract("a", &alarms);
    /// assert!(mine.iter().all(|alarm| ring.is_owner("a", *alarm)));
    /// # Ok::<(), apportion::ring::RingError>(())
    /// ```
    pub fn extract<I>(&self, member: &str, items: I) -> Vec<I::Item>
    where
        I: IntoIterator<Item: RingKey>,
    {
        let mut found = Vec::new();
        self.subset(member).take_from(&mut items.into_iter(), Turn::WHOLE, &Itself, &mut found, drop);
        found
    }

    /// Selects the items that `member` owns.
    pub(super) fn subset(&self, member: &str) -> Subset {
        Subset::new(self.ranges(member), self.kernel)
    }

    /// Each of `items` with its owner, in the order given. Reads up to 256 items before it returns the first.
    ///
    /// Many times faster than [`owner`](HashRing::owner) for each item.
    pub fn each_owner<I>(&self, items: I) -> impl Iterator<Item = (I::Item, Option<&str>)>
    where
        I: IntoIterator<Item: RingKey>,
    {
        Positioned::new(self.kernel, items.into_iter(), Itself).map(|(item, position)| {
            let owner = self.points.owner(position, || tooz::hash(&item));
            (item, owner.map(|member| self.id(member)))
        })
    }
}

impl Ranges {
    /// Selects the items in these ranges, some at a time.
    pub(crate) fn subset(self) -> Subset {
        Subset::new(self, Kernel::best())
    }

    /// Those of `items` whose keys are in these ranges, in the order given. Reads up to 256 items before it returns the
    /// first.
    ///
    /// Many times faster than [`contains`](Ranges::contains) for each item.
    pub fn select<I>(self, items: I) -> impl Iterator<Item = I::Item>
    where
        I: IntoIterator<Item: RingKey>,
    {
        self.select_with_positions(items).map(|(item, _)| item)
    }

    /// The same, each item with its position.
    pub(crate) fn select_with_positions<I>(self, items: I) -> impl Iterator<Item = (I::Item, Position)>
    where
        I: IntoIterator<Item: RingKey>,
    {
        let index = self.index();
        Positioned::new(Kernel::best(), items.into_iter(), Itself)
            .filter(move |(item, position)| index.contains(*position, || tooz::hash(item)))
    }
}
