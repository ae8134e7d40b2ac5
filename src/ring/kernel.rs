// Pure: no runtime, no clock, no socket, no random numbers.

//! Hashes 32 keys, or 32 points of a member, at once, with the widest vectors that the machine has.
//!
//! The steps of MD5 wait for each other, so that one key keeps a fraction of a processor busy. Side by side in
//! the lanes of vectors, 32 keys take little longer than two or three.
//!
//! All that depends on the machine is here and below. The functions of an instruction set are safe, but may be
//! called only where the machine has it; that is what a [`Kernel`] knows, and the only unsafe code there is.

#[macro_use]
mod steps;
#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
mod block;
mod lanes;
mod message;
mod scalar;
#[cfg(target_arch = "x86_64")]
mod sse2;

#[cfg(test)]
mod tests;

use std::{array, fmt, sync::LazyLock};

use md5::{Digest, Md5};

pub(super) use self::block::{BLOCK, Numbers};
use self::block::{Block, Points, UUID};

/// Longer keys keep one lane busy and the others waiting: they are hashed one by one.
const LONGEST: usize = 4 * 64 - 9;

/// A way to hash a block of keys. Which one makes no difference but in time; tests and benchmarks compare them.
#[derive(Clone, Copy, PartialEq, Eq)]
#[doc(hidden)]
pub struct Kernel(Set);

/// Sets of instructions. The machine has the one in a [`Kernel`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Set {
    Portable,
    #[cfg(target_arch = "x86_64")]
    Sse2,
    #[cfg(target_arch = "x86_64")]
    Avx2,
    #[cfg(target_arch = "x86_64")]
    Avx512,
}

impl Kernel {
    /// The fastest one.
    pub fn best() -> Kernel {
        static BEST: LazyLock<Kernel> = LazyLock::new(|| Kernel::all()[0]);
        *BEST
    }

    /// All that the machine has, the fastest first.
    pub fn all() -> Vec<Kernel> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            // The first processors with AVX-512 became slower by using it; those with VBMI2 do not.
            if is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vbmi2") {
                all.push(Kernel(Set::Avx512));
            }
            if is_x86_feature_detected!("avx2") {
                all.push(Kernel(Set::Avx2));
            }
            all.push(Kernel(Set::Sse2));
        }
        all.push(Kernel(Set::Portable));
        all
    }

    /// The positions of 32 keys.
    pub fn positions(self, keys: &[&[u8]; BLOCK]) -> [u32; BLOCK] {
        let mut positions = [0; BLOCK];
        if keys.iter().all(|key| key.len() == UUID) {
            let keys = array::from_fn(|lane| keys[lane].first_chunk().expect("the lengths are right"));
            self.hash(Block::Uuids(&keys), &mut positions);
        } else if keys.iter().all(|key| key.len() <= LONGEST) {
            self.hash(Block::Keys(keys), &mut positions);
        } else {
            let short = keys.map(|key| if key.len() <= LONGEST { key } else { &[] });
            self.hash(Block::Keys(&short), &mut positions);
            for (position, key) in positions.iter_mut().zip(keys).filter(|(_, key)| key.len() > LONGEST) {
                *position = by_the_book(key);
            }
        }
        positions
    }

    /// The positions of `stem` followed by each of the first `count` numbers.
    pub(super) fn points<'a>(
        self,
        stem: &'a [u8],
        numbers: &'a Numbers,
        count: usize,
    ) -> impl Iterator<Item = u32> + use<'a> {
        let whole = stem.len() + Numbers::DIGITS < 64 - 8 && count <= numbers.texts.len();
        let mut words = Points::of(stem);
        (0..count).step_by(BLOCK).flat_map(move |from| {
            let len = BLOCK.min(count - from);
            let positions = if whole {
                words.number(stem.len(), &numbers.texts[from..from + len]);
                let mut positions = [0; BLOCK];
                self.hash(Block::Points(&words), &mut positions);
                positions
            } else {
                let texts: [Vec<u8>; BLOCK] =
                    array::from_fn(|lane| [stem, (from + lane).to_string().as_bytes()].concat());
                self.positions(&texts.each_ref().map(Vec::as_slice))
            };
            positions.into_iter().take(len)
        })
    }

    #[allow(unsafe_code, reason = "the compiler cannot know what the machine has")]
    fn hash(self, block: Block<'_>, positions: &mut [u32; BLOCK]) {
        match self.0 {
            Set::Portable => lanes::hash(block, positions),
            // SAFETY: every x86-64 has SSE2.
            #[cfg(target_arch = "x86_64")]
            Set::Sse2 => unsafe { sse2::hash(block, positions) },
            // SAFETY: `Kernel::all`, the only place that makes this value, has found AVX2.
            #[cfg(target_arch = "x86_64")]
            Set::Avx2 => unsafe { avx2::hash(block, positions) },
            // SAFETY: likewise with AVX-512F.
            #[cfg(target_arch = "x86_64")]
            Set::Avx512 => unsafe { avx512::hash(block, positions) },
        }
    }
}

impl fmt::Debug for Kernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The position of one key.
#[inline]
pub(super) fn position(key: &[u8]) -> u32 {
    scalar::position(key).unwrap_or_else(|| by_the_book(key))
}

fn by_the_book(key: &[u8]) -> u32 {
    let [a, b, c, d, ..] = <[u8; 16]>::from(Md5::digest(key));
    u32::from_be_bytes([a, b, c, d])
}
