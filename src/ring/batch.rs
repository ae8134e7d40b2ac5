// Pure: no runtime, no clock, no socket, no random numbers.

//! Many items at once, a batch of them at a time.

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

/// How many items are hashed before any is looked at: which of them are wanted is hard to guess for a processor,
/// and after each wrong guess it would wait for the next keys to come from memory.
const BATCH: usize = 8 * BLOCK;

/// A batch of items with the positions of their keys.
struct Batch<T> {
    kernel: Kernel,
    buffers: [KeyBuffer; BLOCK],
    items: Vec<T>,
    positions: Vec<u32>,
}

impl<T> Batch<T> {
    /// Up to so many keys take less time one by one.
    const FEW: usize = 4;

    fn new(kernel: Kernel) -> Batch<T> {
        let buffers = array::from_fn(|_| KeyBuffer::new());
        Batch { kernel, buffers, items: Vec::new(), positions: Vec::new() }
    }

    /// Replaces the positions by those of the items.
    fn hash(&mut self, key: &impl KeyOf<T>) {
        self.positions.clear();
        for items in self.items.chunks(BLOCK) {
            if items.len() <= Self::FEW {
                let buffer = &mut self.buffers[0];
                self.positions.extend(items.iter().map(|item| kernel::position(key.key(item, buffer))));
                return;
            }
            let mut keys: [&[u8]; BLOCK] = [&[]; BLOCK];
            for ((place, item), buffer) in keys.iter_mut().zip(items).zip(&mut self.buffers) {
                *place = key.key(item, buffer);
            }
            // The last one again and again, so that the kernel may still take its shortest way.
            let last = keys[items.len() - 1];
            keys[items.len()..].fill(last);
            self.positions.extend_from_slice(&self.kernel.positions(&keys)[..items.len()]);
        }
    }
}

/// Items with the positions of their keys. Reads up to a batch of items ahead.
pub(super) struct Positioned<I: Iterator, K> {
    items: I,
    key: K,
    /// In reverse order.
    batch: Batch<I::Item>,
}

impl<I: Iterator, K: KeyOf<I::Item>> Positioned<I, K> {
    pub(super) fn new(kernel: Kernel, items: I, key: K) -> Self {
        Positioned { items, key, batch: Batch::new(kernel) }
    }
}

impl<I: Iterator, K: KeyOf<I::Item>> Iterator for Positioned<I, K> {
    type Item = (I::Item, u32);

    #[inline]
    fn next(&mut self) -> Option<(I::Item, u32)> {
        if self.batch.items.is_empty() {
            self.batch.items.extend(self.items.by_ref().take(BATCH));
            self.batch.items.reverse();
            self.batch.hash(&self.key);
        }
        let item = self.batch.items.pop()?;
        Some((item, self.batch.positions[self.batch.items.len()]))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.items.size_hint();
        let ahead = self.batch.items.len();
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
        let mut batch = Batch::new(self.kernel);
        let mut left = at_most;
        while left > 0 {
            let asked = BATCH.min(left);
            batch.items.extend(items.by_ref().take(asked));
            batch.hash(key);
            let len = batch.items.len();
            for (item, position) in batch.items.drain(..).zip(&batch.positions) {
                if self.wanted.contains(*position) {
                    found.push(item);
                }
            }
            if len < asked {
                return false;
            }
            left -= len;
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

    /// Each of `items` with its owner, in the order given. Reads some items ahead.
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
