//! Pure: many keys at once, a block of them at a time.

use std::array;

use super::{
    HashRing, Ranges, RingKey,
    kernel::{self, BLOCK, Kernel},
    key::KeyBuffer,
    ranges::RangeIndex,
};

/// Where the key of an item comes from.
pub(crate) trait KeyOf<T> {
    fn key<'a>(&self, item: &'a T, buffer: &'a mut KeyBuffer) -> &'a [u8];
}

/// Each item is its own key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Itself;

impl<T: RingKey> KeyOf<T> for Itself {
    #[inline]
    fn key<'a>(&self, item: &'a T, buffer: &'a mut KeyBuffer) -> &'a [u8] {
        item.ring_key_with(buffer)
    }
}

/// A function picks the key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct By<F>(pub(crate) F);

impl<T, K: RingKey, F: Fn(&T) -> K> KeyOf<T> for By<F> {
    #[inline]
    fn key<'a>(&self, item: &'a T, buffer: &'a mut KeyBuffer) -> &'a [u8] {
        buffer.copy(&(self.0)(item))
    }
}

/// Hashes the keys of items, and keeps the buffers for that.
struct Hasher {
    kernel: Kernel,
    buffers: [KeyBuffer; BLOCK],
}

impl Hasher {
    /// Up to so many keys take less time one by one.
    const FEW: usize = 4;

    fn new(kernel: Kernel) -> Hasher {
        Hasher { kernel, buffers: array::from_fn(|_| KeyBuffer::new()) }
    }

    /// The positions of at most a block of items.
    #[inline]
    fn positions<T>(&mut self, items: &[T], key: &impl KeyOf<T>) -> [u32; BLOCK] {
        let mut buffers = self.buffers.iter_mut();
        if let Some(items) = items.first_chunk::<BLOCK>() {
            let keys = items.each_ref().map(|item| key.key(item, buffers.next().expect("a buffer for each")));
            return self.kernel.positions(&keys);
        }
        if items.len() <= Self::FEW {
            let mut positions = [0; BLOCK];
            for ((position, item), buffer) in positions.iter_mut().zip(items).zip(buffers) {
                *position = kernel::position(key.key(item, buffer));
            }
            return positions;
        }
        let mut keys: [&[u8]; BLOCK] = [&[]; BLOCK];
        let mut last = keys[0];
        for (place, buffer) in buffers.enumerate() {
            // The last one again and again, so that the kernel may still take its shortest way.
            if let Some(item) = items.get(place) {
                last = key.key(item, buffer);
            }
            keys[place] = last;
        }
        self.kernel.positions(&keys)
    }
}

/// Items with the positions of their keys. Reads up to a block of items ahead.
pub(super) struct Positioned<I: Iterator, K> {
    items: I,
    key: K,
    hasher: Hasher,
    /// The items of the block in reverse order, with their positions.
    block: Vec<I::Item>,
    positions: [u32; BLOCK],
}

impl<I: Iterator, K: KeyOf<I::Item>> Positioned<I, K> {
    pub(super) fn new(kernel: Kernel, items: I, key: K) -> Self {
        let block = Vec::with_capacity(BLOCK);
        Positioned { items, key, hasher: Hasher::new(kernel), block, positions: [0; BLOCK] }
    }

    #[inline]
    fn refill(&mut self) {
        self.block.extend(self.items.by_ref().take(BLOCK));
        self.block.reverse();
        self.positions = self.hasher.positions(&self.block, &self.key);
    }
}

impl<I: Iterator, K: KeyOf<I::Item>> Iterator for Positioned<I, K> {
    type Item = (I::Item, u32);

    #[inline]
    fn next(&mut self) -> Option<(I::Item, u32)> {
        if self.block.is_empty() {
            self.refill();
        }
        let item = self.block.pop()?;
        Some((item, self.positions[self.block.len()]))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.items.size_hint();
        let ahead = self.block.len();
        (least.saturating_add(ahead), most.and_then(|most| most.checked_add(ahead)))
    }
}

/// Picks out what is in ranges, as much at a time as the caller likes.
pub(crate) struct Subset {
    wanted: RangeIndex,
    kernel: Kernel,
}

impl Subset {
    pub(super) fn new(wanted: Ranges, kernel: Kernel) -> Subset {
        Subset { wanted: wanted.index(), kernel }
    }

    /// Looks at `at_most` more `items` and appends to `found` those that belong to it, in the order given.
    /// Returns whether there may be more.
    pub(crate) fn take_from<T>(
        &self,
        items: &mut impl Iterator<Item = T>,
        at_most: usize,
        key: &impl KeyOf<T>,
        found: &mut Vec<T>,
    ) -> bool {
        let mut hasher = Hasher::new(self.kernel);
        let mut block = Vec::with_capacity(BLOCK);
        let mut left = at_most;
        while left > 0 {
            block.extend(items.by_ref().take(BLOCK.min(left)));
            let len = block.len();
            let positions = hasher.positions(&block, key);
            found.extend(block.drain(..).zip(positions).filter(|(_, p)| self.wanted.contains(*p)).map(|(item, _)| item));
            left -= len;
            if len < BLOCK {
                return left == 0;
            }
        }
        true
    }
}

impl HashRing {
    /// Those of `items` that `member` owns, in the order given; none for strangers.
    ///
    /// Many times faster than asking [`is_owner`](HashRing::is_owner) for each of them.
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
        self.subset(member).take_from(&mut items.into_iter(), usize::MAX, &Itself, &mut found);
        found
    }

    /// Picks out what `member` owns.
    pub(crate) fn subset(&self, member: &str) -> Subset {
        Subset::new(self.ranges(member), self.kernel)
    }

    /// Each of `items` with its owner, in the order given. Reads up to 32 items ahead.
    ///
    /// Many times faster than asking [`owner`](HashRing::owner) for each of them.
    pub fn each_owner<I>(&self, items: I) -> impl Iterator<Item = (I::Item, Option<&str>)>
    where
        I: IntoIterator<Item: RingKey>,
    {
        Positioned::new(self.kernel, items.into_iter(), Itself)
            .map(|(item, position)| (item, self.points.owner(position).map(|member| self.id(member))))
    }
}
