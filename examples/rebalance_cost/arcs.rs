//! A trial of the ring, exact: by the lengths of all arcs, not by keys that happen to hit them.

use std::{hint::black_box, time::Duration};

use apportion::{HashRing, ring::Ranges};

use crate::{
    MEMORY,
    support::time,
    trial::{Change, Trial},
};

/// A ring of `members`, to which one joins and from which the one at the place `leaver` leaves. Other
/// numbers, other members.
pub fn trial(number: u32, members: u32, replicas: u32, leaver: u32) -> Trial {
    let name = |member: u32| format!("agent-{number}-{member}");
    let in_use = MEMORY.current_usage();
    let ring = HashRing::builder()
        .members((0..members).map(name))
        .replicas(replicas)
        .build()
        .expect("there are not too many points");
    // Not below zero if another thread frees something, as tests do.
    let bytes = MEMORY.current_usage().saturating_sub(in_use);

    let before = Arcs::of(&ring);
    let (joiner, leaver) = (name(members), name(leaver));
    let join = change(&ring, &before, &joiner, || {
        ring.with_member(&joiner, 1).expect("there are not too many points")
    });
    let leave = change(&ring, &before, &leaver, || ring.without_member(&leaver));
    Trial {
        shares: before.0.iter().map(|(_, ranges)| ranges.fraction()).collect(),
        join,
        leave,
        bytes,
        lookup: lookup(&ring),
    }
}

/// What each member has, sorted by the members.
struct Arcs(Vec<(String, Ranges)>);

impl Arcs {
    fn of(ring: &HashRing) -> Arcs {
        Arcs(ring.members().map(|member| (member.into(), ring.ranges(member))).collect())
    }

    fn get(&self, member: &str) -> Option<&Ranges> {
        let at = self.0.binary_search_by(|(other, _)| other.as_str().cmp(member)).ok()?;
        Some(&self.0[at].1)
    }
}

fn change(ring: &HashRing, before: &Arcs, changed: &str, make: impl Fn() -> HashRing) -> Change {
    let (took, changed_ring) = fastest(&make);
    let (ranges, _) = fastest(|| ring.moves(&changed_ring));
    let after = Arcs::of(&changed_ring);
    // Not by `moves`, which assumes the property that is to be shown here: all arcs of all members are
    // compared. In a join no member that stays may gain anything, in a leave none may lose anything.
    let lost: f64 = before.0.iter().map(|(member, arcs)| lost(arcs, after.get(member))).sum();
    let stays = before.0.iter().filter(|(member, _)| member != changed);
    let is_join = before.get(changed).is_none();
    let between = stays
        .map(|(member, arcs)| {
            let now = after.get(member);
            if is_join {
                now.map_or(0.0, |now| now.difference(arcs).fraction())
            } else {
                self::lost(arcs, now)
            }
        })
        .sum();
    Change { moved: lost, between, took, ranges: Some(ranges) }
}

/// The part of all positions that is in `before` and not in `after`.
fn lost(before: &Ranges, after: Option<&Ranges>) -> f64 {
    after.map_or(before.fraction(), |after| before.difference(after).fraction())
}

/// The fastest of some runs, because other work on the machine only makes a run slower.
fn fastest<T>(run: impl Fn() -> T) -> (Duration, T) {
    let timed = || {
        let start = time::now();
        let result = black_box(run());
        (start.elapsed(), result)
    };
    let mut best = timed();
    for _ in 0..2 {
        let again = timed();
        if again.0 < best.0 {
            best = again;
        }
    }
    best
}

/// The time for one of many keys.
fn lookup(ring: &HashRing) -> Duration {
    const KEYS: u32 = 4000;
    let keys: Vec<String> = (0..KEYS).map(|number| format!("{number:036}")).collect();
    fastest(|| ring.each_owner(&keys).filter(|(_, owner)| owner.is_some()).count()).0 / KEYS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_moves_between_members_that_stay() {
        for number in 0..20 {
            let trial = trial(number, 10, 100, number % 10);
            assert_eq!(trial.shares.iter().sum::<f64>(), 1.0);
            assert!((trial.join.between, trial.leave.between) == (0.0, 0.0));
            assert!((0.04..0.15).contains(&trial.join.moved), "{}", trial.join.moved);
            assert!(trial.shares.contains(&trial.leave.moved), "what moves is the share of the leaver");
        }
    }

    #[test]
    fn what_moves_between_members_that_stay_would_be_seen() {
        let ring = |members: [&str; 2]| HashRing::builder().members(members).build().unwrap();
        let (here, there) = (ring(["a", "b"]), ring(["a", "c"]));
        // b is followed by c in one step, which is neither a join nor a leave of a.
        let moved = change(&here, &Arcs::of(&here), "a", || there.clone());
        assert!(moved.between > 0.3, "{}", moved.between);
    }
}
