//! Which rings and which other schemes are compared, and how many trials each gets.

use std::fmt;

use apportion::ring::Kernel;

use crate::{
    arcs, sampled,
    schemes::SCHEMES,
    trial::{Case, Cost, Trial},
};

/// More values would not show more: the lines of a plot interpolate between these.
const MEMBERS: [u32; 6] = [3, 10, 30, 100, 300, 1000];
const REPLICAS: [u32; 6] = [1, 10, 32, 100, 400, 1000];
/// The ring that stands beside the other schemes: the reference has so many points a member.
pub const REFERENCE: u32 = 100;

/// The rings and schemes to compare.
pub struct Plan {
    pub members: Vec<u32>,
    pub replicas: Vec<u32>,
    /// For the schemes that are sampled.
    pub keys: usize,
    pub is_quick: bool,
}

/// The results.
pub struct Results {
    pub plan: Plan,
    /// The ring, by members and by replicas.
    pub ring: Vec<Cost>,
    /// The other schemes, by members; the first of each membership is a random choice.
    pub others: Vec<Cost>,
    /// The kernel that hashes the keys of the ring on this machine.
    pub kernel: Kernel,
}

pub const RANDOM: &str = "(random)";
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
            11..=30 => 100,
            31..=100 => 30,
            101..=300 => 10,
            _ => 5,
        };
        if self.is_quick { (trials / 10).max(2) } else { trials }
    }

    fn other_trials(&self, members: u32) -> u32 {
        match members {
            _ if self.is_quick => 2,
            ..=10 => 20,
            11..=30 => 10,
            31..=100 => 5,
            101..=300 => 3,
            _ => 2,
        }
    }
}

/// Runs all trials. Calls `begin` before each case.
pub fn run(plan: Plan, mut begin: impl FnMut(fmt::Arguments<'_>)) -> Results {
    let (mut ring, mut others) = (Vec::new(), Vec::new());
    for &members in &plan.members {
        for &replicas in &plan.replicas {
            begin(format_args!("ring, {members} members, points a member: {replicas}"));
            let case = Case { scheme: RING, members, replicas: Some(replicas), keys: None };
            ring.push(cost(case, plan.ring_trials(members), |number, leaver| {
                arcs::trial(number, members, replicas, leaver)
            }));
        }
    }
    let keys = sampled::keys(plan.keys);
    for &members in &plan.members {
        let trials = plan.other_trials(members);
        let case = |scheme| Case { scheme, members, replicas: None, keys: Some(keys.len()) };
        begin(format_args!("random choice, {members} members"));
        others.push(cost(case(RANDOM), trials, |number, _| sampled::floor(number, members, keys.len())));
        for scheme in &SCHEMES {
            begin(format_args!("{}, {members} members", scheme.name));
            others.push(cost(case(scheme.name), trials, |number, leaver| {
                sampled::trial(scheme, number, members, leaver, &keys)
            }));
        }
    }
    Results { plan, ring, others, kernel: Kernel::best() }
}

/// The result of the trials of a case. Their leavers are spread evenly over all places, because the place matters for
/// jump.
fn cost(case: Case, trials: u32, trial: impl Fn(u32, u32) -> Trial) -> Cost {
    let leaver = |number: u32| (2 * number + 1) * case.members / (2 * trials);
    let trials: Vec<Trial> = (0..trials).map(|number| trial(number, leaver(number))).collect();
    Cost::of(case, &trials)
}
