// Pure: no runtime, no clock, no socket, no random numbers.

//! Hashes 32 keys, or 32 points of a member, at once, with the widest vectors of the processor.
//!
//! Each step of MD5 needs the result of the one before, so one key uses a fraction of a processor only. In the lanes of
//! vectors, 32 keys take little more time than two or three.
//!
//! All code that depends on the processor is in this module. The functions for an instruction set may be called only if
//! the processor has it. A [`Kernel`] guarantees that; its calls are the only unsafe code of the crate.

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

/// Longer keys are hashed one by one: they would keep one lane busy while the others wait.
const LONGEST: usize = 4 * 64 - 9;

/// A way to hash a block of keys. All kernels give the same result and differ in time; tests and benchmarks compare
/// them.
#[derive(Clone, Copy, PartialEq, Eq)]
#[doc(hidden)]
pub struct Kernel(Set);

/// Instruction sets. The processor has the one in a [`Kernel`].
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
    /// The fastest kernel.
    pub fn best() -> Kernel {
        static BEST: LazyLock<Kernel> = LazyLock::new(|| Kernel::all()[0]);
        *BEST
    }

    /// All kernels that the processor can run, the fastest first.
    pub fn all() -> Vec<Kernel> {
        let mut all = Vec::new();
        #[cfg(target_arch = "x86_64")]
        {
            // The first processors with AVX-512 are slower when they use it. Those with VBMI2 are not.
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
                *position = reference(key);
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

    #[allow(unsafe_code, reason = "the compiler does not know the instruction sets of the processor")]
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
    scalar::position(key).unwrap_or_else(|| reference(key))
}

fn reference(key: &[u8]) -> u32 {
    let [a, b, c, d, ..] = <[u8; 16]>::from(Md5::digest(key));
    u32::from_be_bytes([a, b, c, d])
}
