//! The ranges that a join moves, compared with another crate.
//!
//! `cargo bench -p apportion-bench --bench ranges`, with a part of a title to choose.

#[path = "../../benches/support/mod.rs"]
mod support;

use apportion::ring::Kernel;
use consistent_hash_ring::{Ring, RingBuilder, migrated_ranges};
use criterion::Criterion;

use support::{Comparison, members, ring};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    // The peer is built in quadratic time.
    for count in [10, 100] {
        ranges(&mut criterion, count);
    }
    criterion.final_summary();
}

fn ranges(criterion: &mut Criterion, count: usize) {
    let ids = members(count);
    let before = ring(&ids, Kernel::best());
    let after = before.with_member("joiner", 1).expect("there is room");
    let theirs: Ring<String> = RingBuilder::default().vnodes(100).nodes(&ids).build();
    Comparison::new(&format!("ranges that a join moves, beside a peer, {count} members"), 1)
        .other("ours, both rings there", || before.moves(&after).len() as u64)
        .other("ours, with the ring after it", || {
            before.moves(&before.with_member("joiner", 1).expect("there is room")).len() as u64
        })
        .other("consistent_hash_ring, clone, insert and migrated_ranges", || {
            let mut after = theirs.clone();
            after.insert("joiner".into());
            migrated_ranges(&theirs, &after).count() as u64
        })
        .measure(criterion);
}
