//! Building a ring and lookups of owners, for one key and for many, compared with other crates.
//!
//! `cargo bench -p apportion-bench --bench ring`, with a part of a title to select a table.

#[path = "../../benches/support/mod.rs"]
mod support;

use std::collections::HashMap;

use apportion::ring::Kernel;
use consistent_hash_ring::RingBuilder;
use criterion::Criterion;

use support::{Comparison, members, ring, straightforward, uuids};

/// A point of a member, for the crate that has none of its own.
#[derive(Clone, Hash)]
struct VirtualNode(u32, u32);

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    for count in [10, 100, 1000] {
        build(&mut criterion, count);
    }
    for count in [10, 100, 1000] {
        lookup(&mut criterion, count);
    }
    for count in [10, 100, 1000] {
        batch(&mut criterion, count);
    }
    criterion.final_summary();
}

fn build(criterion: &mut Criterion, count: usize) {
    let ids = members(count);
    let title = format!("build of a ring, {count} members, a point");
    let mut comparison = Comparison::new(&title, 100 * count);
    for kernel in Kernel::all() {
        let ids = &ids;
        comparison = comparison.way(format!("ours, {kernel:?}"), move || ring(ids, kernel).points() as u64);
    }
    comparison = comparison
        .baseline("straightforward", || straightforward::Ring::new(&ids).points() as u64)
        .other("hashring", || hashring(count).len() as u64);
    if count <= 100 {
        comparison = comparison.other("consistent_hash_ring", || consistent_hash_ring(&ids).len() as u64);
    }
    comparison.measure(criterion);
}

fn lookup(criterion: &mut Criterion, count: usize) {
    let (ids, keys) = (members(count), uuids(20_000));
    let ours = ring(&ids, Kernel::best());
    let theirs = straightforward::Ring::new(&ids);
    let numbers: HashMap<&str, u64> = ids.iter().map(String::as_str).zip(0..).collect();
    let title = format!("lookup of one key, {count} members");
    // The owners are checked once, outside of the measured time.
    for key in &keys {
        assert_eq!(numbers[ours.owner(key).expect("there are members")], u64::from(theirs.owner(key)));
    }
    let peers = Peers::new(&ids);
    let sum = |owner: &dyn Fn(&String) -> usize| keys.iter().map(|key| owner(key) as u64).sum::<u64>();
    let comparison = Comparison::new(&title, keys.len())
        .other("ours", || sum(&|key| ours.owner(key).map_or(0, str::len)))
        .other("straightforward", || sum(&|key| theirs.owner(key) as usize));
    peers.add(comparison, &keys).measure(criterion);
}

fn batch(criterion: &mut Criterion, count: usize) {
    let (ids, keys) = (members(count), uuids(1_000_000));
    let rings: Vec<_> = Kernel::all().into_iter().map(|kernel| (kernel, ring(&ids, kernel))).collect();
    let theirs = straightforward::Ring::new(&ids);
    let lens: Vec<u64> = ids.iter().map(|id| id.len() as u64).collect();
    let title = format!("lookup of many keys, {count} members");
    let mut comparison = Comparison::new(&title, keys.len()).rounds(9);
    for (kernel, ring) in &rings {
        let owners = || ring.each_owner(&keys).map(|(_, owner)| owner.map_or(0, str::len) as u64).sum();
        comparison = comparison.way(format!("ours, {kernel:?}"), owners);
    }
    comparison = comparison
        .baseline("straightforward", || keys.iter().map(|key| lens[theirs.owner(key) as usize]).sum());
    Peers::new(&ids).add(comparison, &keys).measure(criterion);
}

/// Rings of other crates, with the hashes that they have by default.
struct Peers {
    hashring: hashring::HashRing<VirtualNode>,
    consistent: Option<consistent_hash_ring::Ring<String>>,
    multi_probe: mpchash::HashRing<u32>,
    anchor: anchorhash::AnchorHash<String, u32, std::hash::BuildHasherDefault<std::hash::DefaultHasher>>,
}

impl Peers {
    fn new(ids: &[String]) -> Peers {
        let numbers = || 0..ids.len() as u32;
        let multi_probe = mpchash::HashRing::new();
        numbers().for_each(|number| multi_probe.add(number));
        Peers {
            hashring: hashring(ids.len()),
            // Its build is quadratic.
            consistent: (ids.len() <= 100).then(|| consistent_hash_ring(ids)),
            multi_probe,
            anchor: anchorhash::Builder::with_hasher(Default::default())
                .with_resources(numbers())
                .build(2 * ids.len() as u16),
        }
    }

    fn add<'a>(self, comparison: Comparison<'a>, keys: &'a [String]) -> Comparison<'a> {
        let few = &keys[..keys.len().min(50_000)];
        let all = keys.len() as u64 / few.len() as u64;
        let Peers { hashring, consistent, multi_probe, anchor } = self;
        let mut comparison = comparison
            .other("hashring", move || {
                keys.iter().map(|key| u64::from(hashring.get(key).map_or(0, |node| node.0))).sum()
            })
            .other("anchorhash", move || {
                keys.iter().map(|key| u64::from(anchor.get_resource(key.clone()).copied().unwrap_or(0))).sum()
            });
        if let Some(ring) = consistent {
            comparison = comparison.other("consistent_hash_ring", move || {
                keys.iter().map(|key| ring.get(key).len() as u64).sum()
            });
        }
        comparison.other("mpchash, the same 50 000 keys again and again", move || {
            (0..all)
                .map(|_| {
                    few.iter()
                        .map(|key| u64::from(multi_probe.node(key).map_or(0, |token| *token.node())))
                        .sum::<u64>()
                })
                .sum()
        })
    }
}

fn hashring(count: usize) -> hashring::HashRing<VirtualNode> {
    let mut ring = hashring::HashRing::new();
    let nodes = |member| (0..100).map(move |replica| VirtualNode(member, replica));
    ring.batch_add((0..count as u32).flat_map(nodes).collect());
    ring
}

fn consistent_hash_ring(ids: &[String]) -> consistent_hash_ring::Ring<String> {
    RingBuilder::default().vnodes(100).nodes(ids).build()
}
