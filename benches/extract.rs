//! The subset of one member out of many keys.
//!
//! `cargo bench --bench extract --features rayon`, with a part of a title to choose.

mod support;

use apportion::{HashRing, ring::Kernel};
use criterion::Criterion;

use support::{Comparison, is_chosen, members, ring, straightforward, uuids};

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for (title, count) in [
        ("subset of 1 000 uuids, 10 members", 1_000),
        ("subset of 100 000 uuids, 10 members", 100_000),
        ("subset of 1 000 000 uuids, 10 members", 1_000_000),
        ("subset of 10 000 000 uuids, 10 members", 10_000_000),
    ] {
        subset(&mut criterion, title, || uuids(count), 10);
    }
    subset(&mut criterion, "subset of 1 000 000 uuids, 100 members", || uuids(1_000_000), 100);
    subset(&mut criterion, "subset of 1 000 000 uuids, 1 000 members", || uuids(1_000_000), 1_000);
    subset(
        &mut criterion,
        "subset of 1 000 000 uuids spread over the heap, 10 members",
        || shuffled(1_000_000),
        10,
    );
    let names = || (0..1_000_000).map(|number| format!("alarm-{number}")).collect();
    subset(&mut criterion, "subset of 1 000 000 names like alarm-17, 10 members", names, 10);
    numbers(&mut criterion);
    #[cfg(feature = "rayon")]
    for (title, count) in [
        ("all threads, 30 000 uuids", 30_000),
        ("all threads, 100 000 uuids", 100_000),
        ("all threads, 1 000 000 uuids", 1_000_000),
    ] {
        let (keys, ring) = (uuids(count), ring(&members(100), Kernel::best()));
        Comparison::new(title, count)
            .wall_time()
            .way("one thread", || ring.extract("agent-3", &keys).len() as u64)
            .way("all threads of the pool", || ring.par_extract("agent-3", &keys).len() as u64)
            .measure(&mut criterion);
    }
    criterion.final_summary();
}

fn subset(criterion: &mut Criterion, title: &str, keys: impl Fn() -> Vec<String>, count: usize) {
    if !is_chosen(title) {
        return;
    }
    let (keys, ids) = (keys(), members(count));
    let rings: Vec<_> = Kernel::all().into_iter().map(|kernel| (kernel, ring(&ids, kernel))).collect();
    let baseline = straightforward::Ring::new(&ids);
    let mut comparison =
        Comparison::new(title, keys.len()).rounds(if keys.len() > 1_000_000 { 5 } else { 11 });
    for (kernel, ring) in &rings {
        let mine = || ring.extract("agent-3", &keys).len() as u64;
        comparison = comparison.way(format!("ours, {kernel:?}"), mine);
    }
    let ours = ring(&ids, Kernel::best());
    let tooz = HashRing::builder().tooz(32).members(&ids).build().expect("the settings are valid");
    comparison
        .other("ours, the ring of tooz", || tooz.extract("agent-3", &keys).len() as u64)
        .way("ours, the ring built before", || {
            ring(&ids, Kernel::best()).extract("agent-3", &keys).len() as u64
        })
        .way("ours, one key at a time", || {
            keys.iter().filter(|key| ours.is_owner("agent-3", *key)).collect::<Vec<_>>().len() as u64
        })
        .baseline("straightforward", || {
            keys.iter().filter(|key| baseline.owner(key) == 3).collect::<Vec<_>>().len() as u64
        })
        .other("only reading the keys", || keys.iter().map(|key| read(key.as_bytes())).sum())
        .measure(criterion);
}

/// Keys whose text has to be formatted first.
fn numbers(criterion: &mut Criterion) {
    let (keys, ids) = ((0..1_000_000).collect::<Vec<u64>>(), members(10));
    let rings: Vec<_> = Kernel::all().into_iter().map(|kernel| (kernel, ring(&ids, kernel))).collect();
    let baseline = straightforward::Ring::new(&ids);
    let mut comparison = Comparison::new("subset of 1 000 000 numbers, 10 members", keys.len());
    for (kernel, ring) in &rings {
        comparison =
            comparison.way(format!("ours, {kernel:?}"), || ring.extract("agent-3", &keys).len() as u64);
    }
    comparison
        .baseline("straightforward", || {
            keys.iter().filter(|key| baseline.owner(&key.to_string()) == 3).collect::<Vec<_>>().len() as u64
        })
        .measure(criterion);
}

/// Reads every byte.
fn read(key: &[u8]) -> u64 {
    let (words, rest) = key.as_chunks();
    let sum = words.iter().fold(0u64, |sum, word| sum.wrapping_add(u64::from_le_bytes(*word)));
    rest.iter().fold(sum, |sum, byte| sum.wrapping_add(u64::from(*byte))) & 0xffff
}

/// Keys in another order than that of their places in memory.
fn shuffled(count: usize) -> Vec<String> {
    let mut keys = uuids(count);
    keys.sort_unstable();
    keys
}
