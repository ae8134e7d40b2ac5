//! A trial of another scheme, by a fixed sample of keys: how many keys each member owns, and how many move.

use std::time::Duration;

use fastrand::Rng;

use crate::{
    MEMORY,
    schemes::{FEW, Member, Placement, Scheme},
    support::time,
    trial::{Change, Trial},
};

/// The sample of keys: the same in every run.
pub fn keys(count: usize) -> Vec<u64> {
    let mut rng = Rng::with_seed(17);
    (0..count).map(|_| rng.u64(..)).collect()
}

/// A membership to which one joins and from which the one at the place `leaver` leaves. Other numbers, other
/// members.
pub fn trial(scheme: &Scheme, number: u32, members: u32, leaver: u32, keys: &[u64]) -> Trial {
    let first = number * 10_000;
    let all: Vec<Member> = (first..first + members).collect();
    let in_use = MEMORY.current_usage();
    let mut placement = (scheme.place)(&all);
    // Not below zero if another thread frees something, as tests do.
    let bytes = MEMORY.current_usage().saturating_sub(in_use);
    let before = placement.owners(keys);
    let lookup = lookup(&*placement, keys);

    let joiner = first + members;
    let join = change(scheme, &mut *placement, keys, &before, joiner, |placement| placement.join(joiner));

    let mut placement = (scheme.place)(&all);
    let leaver = first + leaver;
    let leave = change(scheme, &mut *placement, keys, &before, leaver, |placement| placement.leave(leaver));
    Trial { shares: shares(&before, first, members), join, leave, bytes, lookup }
}

/// A trial of a perfect random choice: how even shares can be in a sample of so many keys. Nothing moves.
pub fn floor(number: u32, members: u32, keys: usize) -> Trial {
    let mut rng = Rng::with_seed(u64::from(number));
    let owners: Vec<Member> = (0..keys).map(|_| rng.u32(..members)).collect();
    let ideal = |moved| Change { moved, between: 0.0, took: Duration::ZERO, ranges: None };
    Trial {
        shares: shares(&owners, 0, members),
        join: ideal(1.0 / (f64::from(members) + 1.0)),
        leave: ideal(1.0 / f64::from(members)),
        bytes: 0,
        lookup: Duration::ZERO,
    }
}

fn change(
    scheme: &Scheme,
    placement: &mut dyn Placement,
    keys: &[u64],
    before: &[Member],
    changed: Member,
    make: impl FnOnce(&mut dyn Placement),
) -> Change {
    let start = time::now();
    make(placement);
    let mut took = start.elapsed();
    let after = placement.owners(keys);
    if scheme.needs_all_keys {
        took = start.elapsed();
    }
    let moved = before.iter().zip(&after).filter(|(from, to)| from != to);
    let between = moved.clone().filter(|(from, to)| **from != changed && **to != changed).count();
    let part = |count: usize| count as f64 / keys.len() as f64;
    Change { moved: part(moved.count()), between: part(between), took, ranges: None }
}

fn shares(owners: &[Member], first: Member, members: u32) -> Vec<f64> {
    let mut counts = vec![0u32; members as usize];
    owners.iter().for_each(|owner| counts[(owner - first) as usize] += 1);
    counts.into_iter().map(|count| f64::from(count) / owners.len() as f64).collect()
}

/// The time for one of as many keys as one thread places alone.
fn lookup(placement: &dyn Placement, keys: &[u64]) -> Duration {
    let some = &keys[..keys.len().min(FEW / 4)];
    let timed = |_| {
        let start = time::now();
        std::hint::black_box(placement.owners(some));
        start.elapsed()
    };
    // Other work on the machine only makes a run slower.
    (0..3).map(timed).min().unwrap_or_default() / some.len() as u32
}
