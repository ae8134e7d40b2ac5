//! Which rings and which other schemes are compared, and how many trials each gets.

use apportion::ring::Kernel;
use fastrand::Rng;

use crate::{
    arcs,
    progress::Progress,
    sampled,
    schemes::{SCHEMES, Scheme},
    trial::{Case, Cost},
};

/// Between any two of these there is nothing to be seen that the lines of a plot do not show.
const MEMBERS: [u32; 6] = [3, 10, 30, 100, 300, 1000];
const REPLICAS: [u32; 6] = [1, 10, 32, 100, 400, 1000];
/// The ring that stands beside the other schemes: the reference has so many points a member.
pub const REFERENCE: u32 = 100;

/// What is compared.
pub struct Plan {
    pub members: Vec<u32>,
    pub replicas: Vec<u32>,
    /// For the schemes that are sampled.
    pub keys: usize,
    pub is_quick: bool,
}

/// What was found.
pub struct Results {
    pub plan: Plan,
    /// The ring, by members and by replicas.
    pub ring: Vec<Cost>,
    /// The other schemes, by members; the first of each membership are dice.
    pub others: Vec<Cost>,
    /// What hashes the keys of the ring on this machine.
    pub kernel: Kernel,
}

pub const DICE: &str = "(dice)";
pub const RING: &str = "ring";

impl Plan {
    pub fn full() -> Plan {
        Plan { members: MEMBERS.into(), replicas: REPLICAS.into(), keys: 1_000_000, is_quick: false }
    }

    pub fn quick() -> Plan {
        Plan { keys: 100_000, is_quick: true, ..Plan::full() }
    }

    /// How many cases there are.
    pub fn steps(&self) -> usize {
        self.members.len() * (self.replicas.len() + 1 + SCHEMES.len())
    }

    /// As many trials as their noise demands: few members differ by chance more than many do.
    fn ring_trials(&self, members: u32) -> u32 {
        let trials = match members {
            ..=10 => 200,
            ..=30 => 100,
            ..=100 => 30,
            ..=300 => 10,
            _ => 5,
        };
        if self.is_quick { (trials / 10).max(2) } else { trials }
    }

    fn other_trials(&self, members: u32) -> u32 {
        match members {
            _ if self.is_quick => 2,
            ..=10 => 20,
            ..=30 => 10,
            ..=100 => 5,
            ..=300 => 3,
            _ => 2,
        }
    }
}

/// Runs all trials. Their dice begin anew for each case, so that a case does not depend on which ran before.
pub fn run(plan: Plan, mut progress: Progress) -> Results {
    let (mut ring, mut others) = (Vec::new(), Vec::new());
    for &members in &plan.members {
        for &replicas in &plan.replicas {
            progress.step(format_args!("ring of {members} members, {replicas} points each"));
            ring.push(ring_cost(&plan, members, replicas));
        }
    }
    let keys = sampled::keys(plan.keys);
    for &members in &plan.members {
        progress.step(format_args!("dice, {members} members"));
        others.push(dice_cost(&plan, members));
        for scheme in &SCHEMES {
            progress.step(format_args!("{}, {members} members", scheme.name));
            others.push(other_cost(&plan, scheme, members, &keys));
        }
    }
    progress.end();
    Results { plan, ring, others, kernel: Kernel::best() }
}

fn ring_cost(plan: &Plan, members: u32, replicas: u32) -> Cost {
    let mut dice = Rng::with_seed(u64::from(members));
    let trials: Vec<_> = (0..plan.ring_trials(members))
        .map(|number| arcs::trial(number, members, replicas, &mut dice))
        .collect();
    Cost::of(Case { scheme: RING, members, replicas: Some(replicas), keys: None }, &trials)
}

fn other_cost(plan: &Plan, scheme: &Scheme, members: u32, keys: &[u64]) -> Cost {
    let mut dice = Rng::with_seed(u64::from(members));
    let trials: Vec<_> = (0..plan.other_trials(members))
        .map(|number| sampled::trial(scheme, number, members, keys, &mut dice))
        .collect();
    Cost::of(Case { scheme: scheme.name, members, replicas: None, keys: Some(keys.len()) }, &trials)
}

fn dice_cost(plan: &Plan, members: u32) -> Cost {
    let mut dice = Rng::with_seed(u64::from(members));
    let trials: Vec<_> =
        (0..plan.other_trials(members)).map(|_| sampled::floor(members, plan.keys, &mut dice)).collect();
    Cost::of(Case { scheme: DICE, members, replicas: None, keys: Some(plan.keys) }, &trials)
}
