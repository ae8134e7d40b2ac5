//! The seeds that the tests run, and the rules without which one of them fails.

use std::ops::Range;

use super::{
    super::super::rules::{Rule, Rules},
    parts::{MS, SETTLES},
    run::Simulation,
};
use crate::ring::Label;

/// How many seeds the tests try.
const SEEDS: u64 = 1000;

/// How many seeds with faults of more kinds they try, and up to how many they search without a rule.
const WIDE_SEEDS: Range<u64> = 0..120;
const MOST_WIDE_SEEDS: u64 = 1000;

/// The first of `runs` with a violation, and what it is.
fn first_violation(runs: impl Iterator<Item = (u64, Simulation)>) -> Option<(u64, String)> {
    runs.into_iter().find_map(|(seed, mut run)| {
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

/// `WIDE_SEEDS` is the same for these.
#[test]
fn no_seed_with_faults_of_more_kinds_does_either() {
    let Range { start, end } = WIDE_SEEDS;
    let wanted = std::env::var("WIDE_SEEDS").unwrap_or_else(|_| format!("{start}..{end}"));
    run_each(&wanted, |seed| Simulation::wide(seed, &Rules::default()));
}

#[track_caller]
fn run_all(wanted: &str) {
    run_each(wanted, |seed| Simulation::new(seed, &Rules::default()));
}

#[track_caller]
fn run_each(wanted: &str, simulation: impl Fn(u64) -> Simulation) {
    let (mut actions, mut steps, mut runs, mut digest, mut rested) = (0, 0, 0, 0_u64, 0);
    let mut bad = Vec::new();
    for part in wanted.split_whitespace() {
        let (from, to) = part.split_once("..").unwrap_or((part, ""));
        let from: u64 = from.parse().expect("a seed");
        let to = if to.is_empty() { from + 1 } else { to.parse().expect("a seed") };
        for seed in from..to {
            let mut run = simulation(seed);
            run.run();
            runs += 1;
            actions += run.actions;
            steps += run.steps;
            digest = digest.rotate_left(1) ^ run.digest;
            rested = rested.max(run.rested.unwrap_or(0));
            if let Some(what) = &run.violation {
                bad.push(format!("seed {seed}, {what}\n{}", run.story()));
            }
        }
    }
    println!(
        "{runs} runs, {actions} actions, {steps} steps, {} violations, at rest after at most {} ms of {}, digest {digest:016x}",
        bad.len(),
        rested / MS,
        SETTLES / MS,
    );
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

#[test]
fn a_seed_gives_one_run() {
    for seed in 0..40 {
        let digest = || {
            let mut run = if seed % 4 == 3 {
                Simulation::wide(seed, &Rules::default())
            } else {
                Simulation::new(seed, &Rules::default())
            };
            run.is_exact = true;
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
    let rules = Rules::without(rule);
    let found = first_violation((0..SEEDS).map(|seed| (seed, Simulation::new(seed, &rules))));
    let (seed, what) = found.unwrap_or_else(|| panic!("no seed needs {rule:?}"));
    println!("{rule:?}: seed {seed}, {what}");
}

/// The same with faults of more kinds.
#[track_caller]
fn a_wide_seed_finds(rule: Rule) {
    let rules = Rules::without(rule);
    let found = first_violation((0..MOST_WIDE_SEEDS).map(|seed| (seed, Simulation::wide(seed, &rules))));
    let (seed, what) = found.unwrap_or_else(|| panic!("no seed needs {rule:?}"));
    println!("{rule:?}: wide seed {seed}, {what}");
}

/// How many of the first `seeds` find a rule: `RULE_SEEDS=200` prints it for each.
#[test]
fn how_many_seeds_find_each_rule() {
    let Some(seeds) = std::env::var("RULE_SEEDS").ok().and_then(|it| it.parse::<u64>().ok()) else { return };
    for rule in Rule::ALL {
        let rules = Rules::without(*rule);
        let count = |simulation: &dyn Fn(u64) -> Simulation| {
            (0..seeds)
                .filter(|seed| first_violation([(*seed, simulation(*seed))].into_iter()).is_some())
                .count()
        };
        let usual = count(&|seed| Simulation::new(seed, &rules));
        let wide = count(&|seed| Simulation::wide(seed, &rules));
        println!("{rule:?}: {usual} of {seeds} seeds, {wide} of the wide ones");
    }
}

macro_rules! caught {
    ($with:ident: $($name:ident: $rule:ident;)*) => { $(
        #[test]
        fn $name() {
            $with(Rule::$rule);
        }
    )* };
}

caught! {
    a_wide_seed_finds:
    a_wide_seed_finds_that_a_heartbeat_has_to_check_the_head: HeartbeatChecksHead;
}

caught! {
    a_seed_finds:
    a_seed_finds_that_a_gainer_has_to_wait: GainerWaits;
    a_seed_finds_that_an_ack_has_to_list_what_is_kept: AckListsKept;
    a_seed_finds_that_a_mark_has_to_stay: MarkStays;
    a_seed_finds_that_a_lapse_has_to_be_checked: LapseIsChecked;
    a_seed_finds_that_a_lapse_has_to_be_waited_for: LapseWaits;
    a_seed_finds_that_ended_guards_have_to_stay_ended: EndedStaysEnded;
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
