//! The scopes that the tests explore, with all rules and without one.

use super::{
    super::super::rules::{Rule, Rules},
    scope::{Budget, Scope},
    search::{Found, Order, Search, explore},
    world::World,
};
use crate::clock::{BootClock, Clock as _};

/// Every state within `scope` is visited, and nowhere two members act on one key.
#[track_caller]
fn is_safe(scope: Scope, limit: usize) {
    let begin = BootClock.now();
    let found = explore(scope, &Rules::default(), Search { order: Order::Budget, limit, depth: 0 });
    let Found { states, visits, transitions, .. } = found;
    println!(
        "{states} states, {visits} visits, {transitions} transitions, {:.0?}",
        BootClock.now().saturating_since(begin)
    );
    assert!(found.violation.is_none(), "{found:#?}");
    assert!(found.is_complete, "more than {limit} visits");
}

macro_rules! complete {
    ($($name:ident: $scope:expr;)*) => { $(
        #[test]
        fn $name() {
            is_safe($scope, 200_000);
        }
    )* };
}

complete! {
    two_members_that_start_never_act_on_one_key: STARTS;
    two_members_that_crash_and_start_again_never_act_on_one_key:
        Scope { budget: events_in(1, 4), publishers: 1, ..RESTARTS };
    two_members_with_two_guards_each_never_act_on_one_key:
        Scope { guards: 2, budget: events_in(1, 2), ..STARTS };
    two_members_whose_writes_take_effect_late_never_act_on_one_key:
        Scope { is_full: true, budget: events_in(1, 2), ..STARTS };
    two_members_of_which_one_is_held_out_never_act_on_one_key: Scope { budget: events_in(1, 3), ..HOLD };
    two_strict_members_whose_znodes_are_deleted_never_act_on_one_key:
        Scope { budget: events_in(1, 3), ..DELETIONS };
    two_members_whose_head_is_deleted_never_act_on_one_key:
        Scope { budget: Budget { recreations: 1, ..events_in(0, 2) }, may_crash: true, ..RECREATED_ONCE };
    three_members_of_which_one_crashes_and_starts_again_never_act_on_one_key:
        Scope { slots: 3, budget: events_in(0, 5), faulty_from: 2, publishers: 1, window: 2, ..RESTARTS };
}

/// `EXPLORER="slots=3 faults=4 full=1"` visits more than the tests have time for, as `scripts/explore` does. Without the
/// variable it is a small scope. With `without=GainerWaits` it looks for what goes wrong without that rule.
#[test]
fn a_wider_scope() {
    let wanted = std::env::var("EXPLORER").unwrap_or_else(|_| "faults=2 ticks=1".into());
    let (scope, limit, without) = changed(Scope::TWO, &wanted);
    match without {
        Some(rule) => finds(rule, scope),
        None => is_safe(scope, limit),
    }
}

/// The scope with these settings, the most states to visit, and the rule to do without.
fn changed(mut scope: Scope, settings: &str) -> (Scope, usize, Option<Rule>) {
    let (mut limit, mut without) = (1_000_000, None);
    for setting in settings.split_whitespace() {
        let (name, value) = setting.split_once('=').expect("name=number");
        if name == "without" {
            let rule = Rule::ALL.iter().find(|rule| format!("{rule:?}") == value);
            without = Some(*rule.unwrap_or_else(|| panic!("there is no rule {value}")));
            continue;
        }
        let value: usize = value.parse().expect("a number");
        match name {
            "slots" => scope.slots = value,
            "guards" => scope.guards = value,
            "window" => scope.window = value as i32,
            "lease" => scope.lease = value as u32,
            "faults" => scope.budget.faults = value as u8,
            "ticks" => scope.budget.ticks = value as u8,
            "recreations" => scope.budget.recreations = value as u8,
            "publishers" => scope.publishers = value,
            "faulty_from" => scope.faulty_from = value,
            "strict" => scope.is_strict = value > 0,
            "full" => scope.is_full = value > 0,
            "stay" => scope.znodes_stay = value > 0,
            "expire" => scope.may_expire = value > 0,
            "delete" => scope.may_delete = value > 0,
            "crash" => scope.may_crash = value > 0,
            "hold" => scope.may_hold = value > 0,
            "limit" => limit = value,
            _ => panic!("there is no setting {name}"),
        }
    }
    (scope, limit, without)
}

/// With `rule` switched off, two members act on one key within `scope`; with all rules, no way of so many steps leads there.
#[track_caller]
fn finds(rule: Rule, scope: Scope) {
    let (order, limit) = (Order::Steps, 1_000_000);
    let found = explore(scope, &Rules::without(rule), Search { order, limit, depth: usize::MAX });
    let Some(steps) = found.violation else { panic!("{rule:?} is not needed in {scope:?}: {found:?}") };
    println!("{rule:?}: {} steps, {} states", steps.len(), found.states);
    let mut world = World::new(scope, Rules::without(rule));
    steps.iter().for_each(|step| world.take(*step));
    assert!(world.acting().len() > 1, "the steps can be repeated: {steps:?}");

    let found = explore(scope, &Rules::default(), Search { order, limit, depth: steps.len() });
    println!("with all rules: {} states", found.states);
    assert!(found.violation.is_none(), "{scope:?} is not safe: {found:#?}");
    assert!(found.is_complete, "more than {limit} visits: {found:?}");
}

/// The limit that `docs/handover.md` states: without strict mode an operator must not delete the znode of a living member.
#[test]
fn without_strict_mode_an_operator_who_deletes_a_znode_makes_two_act() {
    let scope = Scope { is_strict: false, budget: events_in(1, 3), ..DELETIONS };
    let search = Search { order: Order::Steps, limit: 1_000_000, depth: usize::MAX };
    let found = explore(scope, &Rules::default(), search);
    assert!(found.violation.is_some(), "{found:?}");
}

/// So much may happen, and the time pass as often as it likes.
const fn events(faults: u8) -> Budget {
    Budget { faults, ticks: u8::MAX, recreations: 0 }
}

/// So much may happen, in a few ticks.
const fn events_in(ticks: u8, faults: u8) -> Budget {
    Budget { faults, ticks, recreations: 0 }
}

/// Both processes start once.
const STARTS: Scope = Scope { budget: events(2), ..Scope::TWO };
/// They start, and stay.
const STAY: Scope = Scope { may_crash: false, may_expire: false, ..STARTS };
/// They start, crash and start again.
const RESTARTS: Scope = Scope { budget: events(4), may_expire: false, ..Scope::TWO };
/// The second expires, and one of them publishes.
const EXPIRY: Scope = Scope {
    budget: events_in(1, 4),
    publishers: 1,
    faulty_from: 1,
    window: 2,
    may_crash: false,
    ..Scope::TWO
};
/// They are held out of the ring while they live.
const HOLDS: Scope =
    Scope { budget: events(3), may_hold: true, may_crash: false, may_expire: false, ..Scope::TWO };
/// Only the second is, and only the first publishes.
const HOLD: Scope = Scope { publishers: 1, faulty_from: 1, ..HOLDS };
/// Operators delete their znodes, in strict mode.
const DELETIONS: Scope = Scope {
    budget: events(5),
    is_strict: true,
    may_delete: true,
    may_crash: false,
    may_expire: false,
    ..Scope::TWO
};
/// An operator deletes the head.
const RECREATED: Scope =
    Scope { budget: Budget { recreations: 1, ..events(3) }, may_expire: false, ..Scope::TWO };
/// The same, and both only start.
const RECREATED_ONCE: Scope =
    Scope { budget: Budget { recreations: 1, ..events(2) }, window: 2, may_crash: false, ..RECREATED };

macro_rules! without {
    ($($name:ident: $rule:ident in $scope:expr;)*) => { $(
        #[test]
        fn $name() {
            finds(Rule::$rule, $scope);
        }
    )* };
}

without! {
    if_a_gainer_does_not_wait_two_act: GainerWaits in STARTS;
    if_an_ack_does_not_list_what_is_kept_two_act: AckListsKept in STARTS;
    if_a_regained_key_loses_its_mark_two_act: MarkStays in Scope { budget: events_in(0, 3), ..HOLD };
    if_only_the_difference_of_two_views_is_lost_two_act: LostIsUnion in Scope { budget: events_in(1, 4), ..HOLD };
    if_a_lapse_is_not_checked_two_act: LapseIsChecked in Scope { budget: events_in(1, 2), ..STAY };
    if_a_lapse_is_not_waited_for_two_act: LapseWaits in STARTS;
    if_ended_guards_go_on_two_act: EndedStaysEnded in Scope { is_full: true, budget: events_in(1, 2), publishers: 1, window: 2, ..STAY };
    if_a_heartbeat_does_not_check_the_head_two_act: HeartbeatChecksHead in Scope { lease: 2, budget: events_in(2, 2), ..STAY };
    if_the_floor_does_not_wait_two_act: FloorWaits in Scope { budget: events_in(0, 3), ..HOLDS };
    if_no_member_is_carried_two_act: Carried in Scope { budget: events_in(1, 4), faulty_from: 1, publishers: 1, ..RESTARTS };
    if_carried_members_are_forgotten_two_act: CarriedStays in Scope { budget: events_in(1, 6), faulty_from: 1, publishers: 1, ..RESTARTS };
    if_a_member_is_its_id_only_two_act: IdentityHasCreation in Scope { budget: events_in(0, 4), faulty_from: 1, ..RESTARTS };
    if_strict_mode_does_not_wait_for_the_gone_two_act: StrictGoneWaits in Scope { budget: events_in(1, 3), ..DELETIONS };
    if_a_new_head_does_not_wait_two_act: NewHeadWaits in Scope { budget: Budget { recreations: 1, ..events_in(1, 2) }, publishers: 1, ..RECREATED_ONCE };
    if_an_ack_does_not_name_the_head_two_act: AckNamesHead in Scope { budget: Budget { recreations: 1, ..events_in(0, 4) }, publishers: 1, faulty_from: 1, window: 2, ..RECREATED };
    if_a_new_head_does_not_freeze_for_good_two_act: NewHeadFreezesForGood in Scope { budget: Budget { recreations: 1, ..events_in(1, 2) }, publishers: 1, ..RECREATED_ONCE };
    if_guards_outlive_their_znode_two_act: GuardsEndWithTheirZnode in EXPIRY;
    if_a_member_that_is_not_in_an_epoch_does_not_follow_two_act: AbsentFollows in Scope { budget: events_in(0, 3), window: 2, ..HOLD };
    if_a_publisher_does_not_check_the_snapshot_two_act: PublishChecksSnapshot in Scope { budget: Budget { recreations: 1, ..events_in(0, 2) }, ..RECREATED_ONCE };
    if_the_snapshot_is_newer_than_the_floor_two_act: SnapshotUpToFloor in Scope { publishers: 1, ..STAY };
}
