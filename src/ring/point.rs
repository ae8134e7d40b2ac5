// Pure: no runtime, no clock, no socket, no random numbers.

//! One point of a ring, and its position: 32 bits on the rings of this crate and of aodh, 128 bits on those of tooz.

/// A position on a ring.
pub(super) trait Position: Copy + Ord {
    /// The first position of a ring.
    const FIRST: Self;
    /// The last position of a ring.
    const LAST: Self;

    /// The position after this one; `None` after the last.
    fn next(self) -> Option<Self>;

    /// The position before this one, which is not the first.
    fn before(self) -> Self;

    /// The first 32 bits: the position of the same key on a ring of 32 bits.
    fn prefix(self) -> u32;
}

impl Position for u32 {
    const FIRST: u32 = 0;
    const LAST: u32 = u32::MAX;

    #[inline]
    fn next(self) -> Option<u32> {
        self.checked_add(1)
    }

    #[inline]
    fn before(self) -> u32 {
        self - 1
    }

    #[inline]
    fn prefix(self) -> u32 {
        self
    }
}

impl Position for u128 {
    const FIRST: u128 = 0;
    const LAST: u128 = u128::MAX;

    fn next(self) -> Option<u128> {
        self.checked_add(1)
    }

    fn before(self) -> u128 {
        self - 1
    }

    #[inline]
    fn prefix(self) -> u32 {
        (self >> 96) as u32
    }
}

/// The first of the positions of 128 bits that begin with `prefix`.
pub(super) fn first_with(prefix: u32) -> u128 {
    u128::from(prefix) << 96
}

/// The last of the positions of 128 bits that begin with `prefix`.
pub(super) fn last_with(prefix: u32) -> u128 {
    first_with(prefix) | (u128::MAX >> 32)
}

/// A position and the member that has a point there. Points are in the order of their positions, and then of their
/// members, which are numbered in the order in which they take their points.
pub(super) trait Point: Copy + Ord {
    type Position: Position;

    fn new(position: Self::Position, member: u32) -> Self;

    fn position(self) -> Self::Position;

    fn member(self) -> u32;

    /// The point with the number of its member one higher, if `is_moved`.
    fn up(self, is_moved: bool) -> Self;

    /// The point with the number of its member one lower, if `is_moved`.
    fn down(self, is_moved: bool) -> Self;
}

/// A point with a position of 32 bits, in one number, so that sorting and lookups read memory once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Narrow(u64);

impl Point for Narrow {
    type Position = u32;

    #[inline]
    fn new(position: u32, member: u32) -> Narrow {
        Narrow(u64::from(position) << 32 | u64::from(member))
    }

    #[inline]
    fn position(self) -> u32 {
        (self.0 >> 32) as u32
    }

    #[inline]
    fn member(self) -> u32 {
        self.0 as u32
    }

    #[inline]
    fn up(self, is_moved: bool) -> Narrow {
        Narrow(self.0 + u64::from(is_moved))
    }

    #[inline]
    fn down(self, is_moved: bool) -> Narrow {
        Narrow(self.0 - u64::from(is_moved))
    }
}

/// A point with a position of 128 bits: four words of the position, the highest first, and the member. A number of 128
/// bits would need twelve bytes more for its alignment.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Wide([u32; 5]);

impl Point for Wide {
    type Position = u128;

    fn new(position: u128, member: u32) -> Wide {
        let word = |number: u32| (position >> (32 * number)) as u32;
        Wide([word(3), word(2), word(1), word(0), member])
    }

    fn position(self) -> u128 {
        self.0[..4].iter().fold(0, |position, word| position << 32 | u128::from(*word))
    }

    fn member(self) -> u32 {
        self.0[4]
    }

    fn up(mut self, is_moved: bool) -> Wide {
        self.0[4] += u32::from(is_moved);
        self
    }

    fn down(mut self, is_moved: bool) -> Wide {
        self.0[4] -= u32::from(is_moved);
        self
    }
}
