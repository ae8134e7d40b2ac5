// Pure: no runtime, no clock, no socket, no random numbers.

//! Entries in the order of their positions, divided into small pieces that are found without a search.
//!
//! Positions are hashes and so spread evenly: equal parts of the ring have about equal numbers of entries. One
//! vector for each part is as fast to read as a single sorted one, and changes as fast as a tree.

use std::{ops::RangeInclusive, slice};

/// A position and the slot of the item that has it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Entry(u64);

impl Entry {
    pub(super) fn new(position: u32, slot: usize) -> Entry {
        let slot = u32::try_from(slot).expect("a key set has less than 2^32 items");
        Entry(u64::from(position) << 32 | u64::from(slot))
    }

    pub(super) fn position(self) -> u32 {
        (self.0 >> 32) as u32
    }

    pub(super) fn slot(self) -> usize {
        self.0 as u32 as usize
    }
}

#[derive(Clone, Debug)]
pub(super) struct Index {
    /// Their number is a power of two. Each is sorted.
    pieces: Vec<Vec<Entry>>,
    len: usize,
}

impl Index {
    /// The number of entries in a piece is usually between this and twice as many.
    const PIECE: usize = 64;

    pub(super) fn new(entries: &[Entry]) -> Index {
        let mut index = Index::unsorted(entries);
        index.pieces.iter_mut().for_each(|piece| piece.sort_unstable());
        index
    }

    #[cfg(feature = "rayon")]
    pub(super) fn par_new(entries: &[Entry]) -> Index {
        let mut index = Index::unsorted(entries);
        super::parallel::each(&mut index.pieces, |piece| piece.sort_unstable());
        index
    }

    /// Puts each entry into its piece, in the order given.
    fn unsorted(entries: &[Entry]) -> Index {
        let count = (entries.len() / Self::PIECE).max(1);
        let mut index = Index { pieces: vec![Vec::new(); 1 << count.ilog2()], len: entries.len() };
        let mut counts = vec![0; index.pieces.len()];
        entries.iter().for_each(|entry| counts[index.piece(entry.position())] += 1);
        index.pieces.iter_mut().zip(counts).for_each(|(piece, count)| piece.reserve_exact(count));
        for &entry in entries {
            let piece = index.piece(entry.position());
            index.pieces[piece].push(entry);
        }
        index
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        if self.len >= 2 * Self::PIECE * self.pieces.len() {
            *self = Index::new(&self.iter().collect::<Vec<_>>());
        }
        let piece = self.piece(entry.position());
        let piece = &mut self.pieces[piece];
        if piece.len() == piece.capacity() {
            // A vector would reserve more by itself, and most of the memory of a large set is here.
            piece.reserve_exact(4 + piece.len() / 4);
        }
        piece.insert(piece.partition_point(|other| *other < entry), entry);
        self.len += 1;
    }

    pub(super) fn remove(&mut self, entry: Entry) {
        let piece = self.piece(entry.position());
        let place = self.pieces[piece].binary_search(&entry).expect("only existing entries are removed");
        self.pieces[piece].remove(place);
        self.len -= 1;
    }

    /// The entries with positions in `range`, in order, in runs.
    pub(super) fn within(&self, range: RangeInclusive<u32>) -> impl Iterator<Item = &[Entry]> {
        let (start, end) = (*range.start(), *range.end());
        let (first, last) = (self.piece(start), self.piece(end));
        (first..=last).map(move |number| {
            let piece = &self.pieces[number][..];
            let to =
                if number < last { piece.len() } else { piece.partition_point(|it| it.position() <= end) };
            let from = if number > first { 0 } else { piece.partition_point(|it| it.position() < start) };
            &piece[from..to]
        })
    }

    /// All entries at `position`.
    pub(super) fn at(&self, position: u32) -> slice::Iter<'_, Entry> {
        self.within(position..=position).next().unwrap_or_default().iter()
    }

    /// All entries, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = Entry> {
        self.pieces.iter().flatten().copied()
    }

    fn piece(&self, position: u32) -> usize {
        ((u64::from(position) * self.pieces.len() as u64) >> 32) as usize
    }
}

impl Default for Index {
    fn default() -> Self {
        Index { pieces: vec![Vec::new()], len: 0 }
    }
}
