// Pure: no runtime, no clock, no socket, no random numbers.

//! Many items divided among the threads of a `rayon` pool.

use rayon::prelude::*;

use super::{
    HashRing, RingKey,
    batch::{Itself, Positioned, Subset, Turn},
    kernel::Kernel,
};

/// How many items one thread handles at a time, so that the cost of handing them over is small.
const CHUNK: usize = 8 * 1024;
/// With fewer items, other threads would start too late to help.
const MANY: usize = 32 * 1024;

impl HashRing {
    /// Those of `items` that `member` owns, in the order given: the same as [`extract`](HashRing::extract), but with
    /// all threads of the current `rayon` pool if there are many items.
    ///
    /// With the feature `rayon`.
    pub fn par_extract<'a, T: RingKey + Sync>(&self, member: &str, items: &'a [T]) -> Vec<&'a T> {
        let subset = self.subset(member);
        divide(items, |items| extract(&subset, items)).concat()
    }
}

fn extract<'a, T: RingKey>(subset: &Subset, items: &'a [T]) -> Vec<&'a T> {
    let mut found = Vec::new();
    subset.take_from(&mut items.iter(), Turn::WHOLE, &Itself, &mut found, drop);
    found
}

/// The positions of `items`.
pub(super) fn positions<T: RingKey + Sync>(kernel: Kernel, items: &[T]) -> Vec<u32> {
    let positions = |items: &[T]| -> Vec<u32> {
        Positioned::new(kernel, items.iter(), Itself).map(|(_, position)| position).collect()
    };
    divide(items, positions).concat()
}

/// Runs `work` for each element.
pub(super) fn each<T: Send>(all: &mut [T], work: impl Fn(&mut T) + Send + Sync) {
    all.par_iter_mut().with_min_len(CHUNK / 64).for_each(work);
}

/// The results for the chunks of `items`, in order.
fn divide<'a, T: Sync, R: Send>(items: &'a [T], work: impl Fn(&'a [T]) -> R + Send + Sync) -> Vec<R> {
    if items.len() < MANY { vec![work(items)] } else { items.par_chunks(CHUNK).map(work).collect() }
}
