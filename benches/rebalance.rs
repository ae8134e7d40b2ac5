//! The cost of a change of the members: the ranges that move, and the keys that one member loses.
//!
//! `cargo bench --bench rebalance`, with a part of a title to select a table. Compared with another crate:
//! `bench/benches/ranges.rs`.

mod support;

use apportion::ring::{Kernel, KeySet};
use criterion::Criterion;

use support::{Comparison, is_chosen, members, ring, uuids};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for count in [10, 100, 1000] {
        ranges(&mut criterion, count);
    }
    for count in [10, 100, 1000] {
        keys(&mut criterion, count);
    }
    criterion.final_summary();
}

fn ranges(criterion: &mut Criterion, count: usize) {
    let ids = members(count);
    let before = ring(&ids, Kernel::best());
    let after = before.with_member("joiner", 1).expect("there is room");
    let heavier = before.with_member("agent-3", 2).expect("there is room");
    let title = format!("ranges that a join moves, {count} members");
    Comparison::new(&title, 1)
        .other("ours, both rings there", || before.moves(&after).len() as u64)
        .other("ours, with the ring after it", || {
            before.moves(&before.with_member("joiner", 1).expect("there is room")).len() as u64
        })
        .other("ours, what one member loses", || {
            before.ranges("agent-3").difference(&after.ranges("agent-3")).len() as u64
        })
        .other("ours, the sweep over all points", || before.moves(&heavier).len() as u64)
        .other("ours, the ring after it", || {
            before.with_member("joiner", 1).expect("there is room").points() as u64
        })
        .other("ours, the ring after a leave", || after.without_member("joiner").points() as u64)
        .other("ours, the ring built anew", || ring(&ids, Kernel::best()).points() as u64)
        .measure(criterion);
}

fn keys(criterion: &mut Criterion, count: usize) {
    let title = format!("lost keys out of 1 000 000, {count} members");
    if !is_chosen(&title) {
        return;
    }
    let (ids, keys) = (members(count), uuids(1_000_000));
    let before = ring(&ids, Kernel::best());
    let after = before.with_member("joiner", 1).expect("there is room");
    let set: KeySet<&String> = keys.iter().collect();
    let me = before.moves(&after)[0].from.expect("there are members");
    let lost = || before.ranges(me).difference(&after.ranges(me));
    println!("\n{} keys are lost", set.select(&lost()).len());
    Comparison::new(&title, 1)
        .way("key set, in the order of insertion", || set.select(&lost()).len() as u64)
        .way("key set, in the order of positions", || set.within(&lost()).collect::<Vec<_>>().len() as u64)
        .way("key set, counted", || set.within(&lost()).count() as u64)
        .way("all keys, with the ranges", || lost().select(&keys).collect::<Vec<_>>().len() as u64)
        .way("full evaluation: both subsets, and what is in one", || {
            let kept: std::collections::HashSet<*const String> =
                after.extract(me, &keys).into_iter().map(std::ptr::from_ref).collect();
            let lost = |key: &&String| !kept.contains(&std::ptr::from_ref(*key));
            before.extract(me, &keys).into_iter().filter(lost).count() as u64
        })
        .other("full evaluation: one subset", || after.extract(me, &keys).len() as u64)
        .other("all that it owns, from the key set", || set.owned_by(&after, me).len() as u64)
        .other("key set, built", || keys.iter().collect::<KeySet<_>>().len() as u64)
        .rounds(9)
        .measure(criterion);
}
