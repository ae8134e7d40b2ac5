//! The memory of rings and key sets: the bytes that they get from the allocator.
//!
//! Separate from the other benchmarks, because counting takes time.

mod support;

use apportion::{KeySet, ring::Kernel};
use peak_alloc::PeakAlloc;

use support::{members, ring, uuids};

#[global_allocator]
static COUNTING: PeakAlloc = PeakAlloc;

fn main() {
    for count in [10, 100, 1000] {
        let ids = members(count);
        report(&format!("ring of {count} members, a point"), 100 * count, 0, || ring(&ids, Kernel::best()));
    }
    for count in [1_000_000, 10_000_000] {
        let keys = uuids(count);
        // References, so that the items themselves do not count; their 8 bytes are subtracted.
        let set = || keys.iter().collect::<KeySet<&String>>();
        report(&format!("key set of {count}, a key beside its item"), count, 8, set);
        let grown = || {
            let mut set = KeySet::default();
            keys.iter().for_each(|key| set.insert(key));
            set
        };
        report("the same, grown key by key", count, 8, grown);
    }
}

fn report<T>(what: &str, units: usize, other: usize, make: impl Fn() -> T) {
    let before = COUNTING.current_usage();
    let made = make();
    let bytes = COUNTING.current_usage() - before;
    drop(made);
    println!("{what:44} {:6.1} bytes", (bytes - units * other) as f64 / units as f64);
}
