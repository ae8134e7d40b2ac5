//! The seeds that the tests run, and the rules without which one of them fails.

use super::{
    super::super::rules::{Rule, Rules},
    run::Simulation,
};
use crate::ring::Label;

/// How many seeds the tests try.
const SEEDS: u64 = 1000;

/// The first of `seeds` with a violation, and what it is.
fn first_violation(seeds: impl Iterator<Item = u64>, rules: &Rules) -> Option<(u64, String)> {
    seeds.into_iter().find_map(|seed| {
        let mut run = Simulation::new(seed, rules);
        run.run();
        // That some do not come to rest is not what the rules are for.
        run.violation.filter(|what| what.contains(" act on ")).map(|what| (seed, what))
    })
}

/// `SIM_SEEDS="17 90..120" SIM_TRACE=1` runs others, as `scripts/sim` does.
#[test]
fn no_seed_lets_two_members_act_on_one_key_and_all_come_to_rest() {
    run_all(&std::env::var("SIM_SEEDS").unwrap_or_else(|_| format!("0..{}", SEEDS / 2)));
}

/// The other half, so that both run at the same time.
#[test]
fn no_seed_of_the_second_half_does_either() {
    run_all(&format!("{}..{SEEDS}", SEEDS / 2));
}

#[track_caller]
fn run_all(wanted: &str) {
    let (mut actions, mut steps, mut runs, mut digest) = (0, 0, 0, 0_u64);
    let mut bad = Vec::new();
    for part in wanted.split_whitespace() {
        let (from, to) = part.split_once("..").unwrap_or((part, ""));
        let from: u64 = from.parse().expect("a seed");
        let to = if to.is_empty() { from + 1 } else { to.parse().expect("a seed") };
        for seed in from..to {
            let mut run = Simulation::new(seed, &Rules::default());
            run.run();
            runs += 1;
            actions += run.actions;
            steps += run.steps;
            digest = digest.rotate_left(1) ^ run.digest;
            if let Some(what) = &run.violation {
                bad.push(format!("seed {seed}, {what}\n{}", run.story()));
            }
        }
    }
    println!("{runs} runs, {actions} actions, {steps} steps, {} violations, digest {digest:016x}", bad.len());
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn a_seed_gives_one_run() {
    for seed in 0..40 {
        let digest = || {
            let mut run = Simulation::new(seed, &Rules::default());
            run.run();
            (run.digest, run.actions, run.steps, run.now)
        };
        assert_eq!(digest(), digest(), "seed {seed}");
    }
}

#[test]
fn no_seed_lets_two_members_act_on_one_key_of_a_ring_of_tooz() {
    for seed in 0..60 {
        let mut run = Simulation::on(Label::Tooz, seed, &Rules::default());
        run.run();
        assert!(run.actions > 0);
        assert_eq!(run.violation, None, "seed {seed}");
    }
}

/// With `rule` switched off, a seed finds two members that act on one key.
#[track_caller]
fn a_seed_finds(rule: Rule) {
    // Strict mode is in every fourth seed.
    let found = first_violation(0..SEEDS, &Rules::without(rule));
    let (seed, what) = found.unwrap_or_else(|| panic!("no seed needs {rule:?}"));
    println!("{rule:?}: seed {seed}, {what}");
}

macro_rules! caught {
    ($($name:ident: $rule:ident;)*) => { $(
        #[test]
        fn $name() {
            a_seed_finds(Rule::$rule);
        }
    )* };
}

caught! {
    a_seed_finds_that_a_gainer_has_to_wait: GainerWaits;
    a_seed_finds_that_an_ack_has_to_list_what_is_kept: AckListsKept;
    a_seed_finds_that_a_mark_has_to_stay: MarkStays;
    a_seed_finds_that_a_lapse_has_to_be_checked: LapseIsChecked;
    a_seed_finds_that_a_lapse_has_to_be_waited_for: LapseWaits;
    a_seed_finds_that_ended_guards_have_to_stay_ended: EndedStaysEnded;
    a_seed_finds_that_a_heartbeat_has_to_check_the_head: HeartbeatChecksHead;
    a_seed_finds_that_all_losers_have_to_be_asked: AllLosersAsked;
    a_seed_finds_that_the_floor_has_to_wait: FloorWaits;
    a_seed_finds_that_members_have_to_be_carried: Carried;
    a_seed_finds_that_carried_members_have_to_stay_so: CarriedStays;
    a_seed_finds_that_the_creation_belongs_to_the_identity: IdentityHasCreation;
    a_seed_finds_that_strict_mode_has_to_wait_for_the_gone: StrictGoneWaits;
    a_seed_finds_that_a_new_head_has_to_wait: NewHeadWaits;
    a_seed_finds_that_a_new_head_has_to_freeze_for_good: NewHeadFreezesForGood;
    a_seed_finds_that_guards_have_to_end_with_their_znode: GuardsEndWithTheirZnode;
    a_seed_finds_that_an_absent_member_has_to_follow: AbsentFollows;
    a_seed_finds_that_the_snapshot_has_to_be_up_to_the_floor: SnapshotUpToFloor;
}
