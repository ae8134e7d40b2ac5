//! The scopes that the tests explore, with all rules and without one.

use super::{
    super::super::rules::{Rule, Rules},
    scope::Scope,
    search::explore,
    world::World,
};

/// Every state within `scope` is visited, and nowhere two members act on one key.
#[track_caller]
fn is_safe(scope: Scope, limit: usize) {
    let found = explore(scope, &Rules::default(), limit);
    println!("{} states, {} transitions, {} deep", found.states, found.transitions, found.depth);
    assert!(found.violation.is_none(), "{found:#?}");
    assert!(found.is_complete, "more than {limit} states");
}

#[test]
fn two_members_that_start_never_act_on_one_key() {
    is_safe(STARTS, 100_000);
}

#[test]
fn three_members_that_start_never_act_on_one_key() {
    is_safe(Scope { slots: 3, faults: 3, ticks: 1, publishers: 1, window: 2, ..STAY }, 100_000);
}

/// `EXPLORER="slots=3 faults=4 full=1"` visits more than the tests have time for, as `scripts/explore` does. Without the
/// variable it is a small scope.
#[test]
fn a_wider_scope() {
    let wanted = std::env::var("EXPLORER").unwrap_or_else(|_| "faults=2 ticks=1".into());
    let (scope, limit) = changed(Scope::TWO, &wanted);
    is_safe(scope, limit);
}

/// The scope with these settings, and the most states to visit.
fn changed(mut scope: Scope, settings: &str) -> (Scope, usize) {
    let mut limit = 1_000_000;
    for setting in settings.split_whitespace() {
        let (name, value) = setting.split_once('=').expect("name=number");
        let value: usize = value.parse().expect("a number");
        match name {
            "slots" => scope.slots = value,
            "guards" => scope.guards = value,
            "window" => scope.window = value as i32,
            "lease" => scope.lease = value as u32,
            "faults" => scope.faults = value as u8,
            "ticks" => scope.ticks = value as u8,
            "recreations" => scope.recreations = value as u8,
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
    (scope, limit)
}

/// With `rule` switched off, two members act on one key within `scope`.
#[track_caller]
fn finds(rule: Rule, scope: Scope) {
    let found = explore(scope, &Rules::without(rule), 3_000_000);
    println!("{rule:?}: {} steps, {} states", found.violation.as_ref().map_or(0, Vec::len), found.states);
    let Some(steps) = found.violation else { panic!("{rule:?} is not needed in {scope:?}: {found:?}") };
    let mut world = World::new(scope, Rules::without(rule));
    steps.iter().for_each(|step| world.take(*step));
    assert!(world.acting().len() > 1, "the steps can be repeated: {steps:?}");
}

/// Both processes start once.
const STARTS: Scope = Scope { faults: 2, ..Scope::TWO };
/// They start, and stay.
const STAY: Scope = Scope { may_crash: false, may_expire: false, ..STARTS };
/// They start, crash and start again.
const RESTARTS: Scope = Scope { faults: 4, may_expire: false, ..Scope::TWO };
/// The second expires, and one of them publishes.
const EXPIRY: Scope =
    Scope { faults: 4, ticks: 1, publishers: 1, faulty_from: 1, window: 2, may_crash: false, ..Scope::TWO };
/// They are held out of the ring while they live.
const HOLDS: Scope = Scope { faults: 3, may_hold: true, may_crash: false, may_expire: false, ..Scope::TWO };
/// Only the second is, and only the first publishes.
const HOLD: Scope = Scope { publishers: 1, faulty_from: 1, ..HOLDS };
/// Operators delete their znodes, in strict mode.
const DELETIONS: Scope =
    Scope { faults: 5, is_strict: true, may_delete: true, may_crash: false, may_expire: false, ..Scope::TWO };
/// An operator deletes the head.
const RECREATED: Scope = Scope { recreations: 1, faults: 3, may_expire: false, ..Scope::TWO };
/// The same, and both only start.
const RECREATED_ONCE: Scope = Scope { faults: 2, window: 2, may_crash: false, ..RECREATED };

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
    if_a_regained_key_loses_its_mark_two_act: MarkStays in Scope { ticks: 0, ..HOLD };
    if_only_the_difference_of_two_views_is_lost_two_act: LostIsUnion in Scope { faults: 4, ticks: 1, ..HOLD };
    if_a_lapse_is_not_checked_two_act: LapseIsChecked in STAY;
    if_a_lapse_is_not_waited_for_two_act: LapseWaits in STARTS;
    if_ended_guards_go_on_two_act: EndedStaysEnded in Scope { is_full: true, ..STAY };
    if_a_heartbeat_does_not_check_the_head_two_act: HeartbeatChecksHead in Scope { lease: 2, ..STAY };
    if_the_floor_does_not_wait_two_act: FloorWaits in Scope { ticks: 0, ..HOLDS };
    if_no_member_is_carried_two_act: Carried in Scope { ticks: 1, faulty_from: 1, publishers: 1, ..RESTARTS };
    if_carried_members_are_forgotten_two_act: CarriedStays in Scope { faults: 6, ticks: 1, faulty_from: 1, publishers: 1, ..RESTARTS };
    if_a_member_is_its_id_only_two_act: IdentityHasCreation in Scope { ticks: 0, faulty_from: 1, ..RESTARTS };
    if_strict_mode_does_not_wait_for_the_gone_two_act: StrictGoneWaits in Scope { faults: 3, ..DELETIONS };
    if_a_new_head_does_not_wait_two_act: NewHeadWaits in Scope { faults: 2, ..RECREATED };
    if_an_ack_does_not_name_the_head_two_act: AckNamesHead in Scope { faults: 4, ticks: 0, publishers: 1, faulty_from: 1, window: 2, ..RECREATED };
    if_a_new_head_does_not_freeze_for_good_two_act: NewHeadFreezesForGood in Scope { ticks: 1, publishers: 1, ..RECREATED_ONCE };
    if_guards_outlive_their_znode_two_act: GuardsEndWithTheirZnode in EXPIRY;
    if_a_member_that_is_not_in_an_epoch_does_not_follow_two_act: AbsentFollows in Scope { ticks: 0, window: 2, ..HOLD };
    if_a_publisher_does_not_check_the_snapshot_two_act: PublishChecksSnapshot in Scope { ticks: 0, ..RECREATED_ONCE };
    if_the_snapshot_is_newer_than_the_floor_two_act: SnapshotUpToFloor in RESTARTS;
}
