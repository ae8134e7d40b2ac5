// Pure: no runtime, no clock, no socket, no random numbers.

//! Many items at once, a batch of them at a time.

use std::array;

use super::{
    HashRing, Ranges, RingKey,
    kernel::{self, BLOCK, Kernel},
    key::KeyBuffer,
    ranges::RangeIndex,
};

/// Where the keys of items come from.
pub(crate) trait KeyOf<T> {
    /// The positions of up to a block of `items`, with no meaning after them.
    fn positions(&self, items: &[T], hasher: &mut Hasher) -> [u32; BLOCK];
}

/// Each item is its own key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Itself;

impl<T: RingKey> KeyOf<T> for Itself {
    #[inline]
    fn positions(&self, items: &[T], hasher: &mut Hasher) -> [u32; BLOCK] {
        hasher.positions(items)
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
}

/// Hashes keys, a block at a time.
pub(crate) struct Hasher {
    kernel: Kernel,
    buffers: [KeyBuffer; BLOCK],
}

impl Hasher {
    /// Up to so many keys take less time one by one.
    const FEW: usize = 4;

    fn new(kernel: Kernel) -> Hasher {
        Hasher { kernel, buffers: array::from_fn(|_| KeyBuffer::new()) }
    }

    /// The positions of up to a block of keys, with no meaning after them.
    #[inline]
    fn positions<'a, K: RingKey + 'a>(&mut self, keys: impl IntoIterator<Item = &'a K>) -> [u32; BLOCK] {
        let mut texts: [&[u8]; BLOCK] = [&[]; BLOCK];
        let mut len = 0;
        for (key, buffer) in keys.into_iter().zip(&mut self.buffers) {
            texts[len] = key.ring_key_with(buffer);
            len += 1;
        }
        if len <= Self::FEW {
            let mut positions = [0; BLOCK];
            for (position, text) in positions.iter_mut().zip(&texts[..len]) {
                *position = kernel::position(text);
            }
            return positions;
        }
        // The last one again and again, so that the kernel may still take its shortest way.
        let last = texts[len - 1];
        texts[len..].fill(last);
        self.kernel.positions(&texts)
    }
}

/// How many items are hashed before the first is handed out: what the caller does with each is hard to guess for a
/// processor, and after each wrong guess it would wait for the next keys to come from memory.
const BATCH: usize = 8 * BLOCK;

/// Items with the positions of their keys. Reads up to a batch of items ahead.
pub(super) struct Positioned<I: Iterator, K> {
    items: I,
    key: K,
    hasher: Hasher,
    /// In reverse order.
    ahead: Vec<I::Item>,
    /// Those of the items ahead, and of some that are gone.
    positions: Vec<u32>,
}

impl<I: Iterator, K: KeyOf<I::Item>> Positioned<I, K> {
    pub(super) fn new(kernel: Kernel, items: I, key: K) -> Self {
        Positioned { items, key, hasher: Hasher::new(kernel), ahead: Vec::new(), positions: Vec::new() }
    }

    fn read_ahead(&mut self) {
        self.ahead.extend(self.items.by_ref().take(BATCH));
        self.positions.clear();
        for block in self.ahead.chunks(BLOCK) {
            self.positions.extend_from_slice(&self.key.positions(block, &mut self.hasher)[..block.len()]);
        }
        // Not before: a processor expects memory to be read forwards.
        self.ahead.reverse();
        self.positions.reverse();
    }
}

impl<I: Iterator, K: KeyOf<I::Item>> Iterator for Positioned<I, K> {
    type Item = (I::Item, u32);

    #[inline]
    fn next(&mut self) -> Option<(I::Item, u32)> {
        if self.ahead.is_empty() {
            self.read_ahead();
        }
        let item = self.ahead.pop()?;
        Some((item, self.positions[self.ahead.len()]))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let (least, most) = self.items.size_hint();
        let ahead = self.ahead.len();
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
        let mut left = at_most;
        while left > 0 {
            let (asked, first) = (BLOCK.min(left), found.len());
            // At once to where they will be if they are wanted: a block of their own would be one more copy.
            found.extend(items.by_ref().take(asked));
            let len = found.len() - first;
            let positions = key.positions(&found[first..], &mut hasher);
            let mut kept = first;
            for lane in self.wanted.lanes(&positions).take_while(|lane| *lane < len) {
                found.swap(kept, first + lane);
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

impl Ranges {
    /// Those of `items` whose keys are in them, in the order given. Reads some items ahead.
    ///
    /// Many times faster than asking [`contains`](Ranges::contains) for each of them.
    pub fn select<I>(self, items: I) -> impl Iterator<Item = I::Item>
    where
        I: IntoIterator<Item: RingKey>,
    {
        let index = self.index();
        Positioned::new(Kernel::best(), items.into_iter(), Itself)
            .filter(move |(_, position)| index.contains(*position))
            .map(|(item, _)| item)
    }
}
