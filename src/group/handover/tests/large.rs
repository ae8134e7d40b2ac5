//! Large groups: how few members list them.

use std::time::Duration;

use super::fleet::{Fleet, Held, LEASE, TIMING, WAIT};

const SECOND: Duration = Duration::from_secs(1);

/// The names of so many members, in the order of their ranks.
pub(super) fn names(count: usize) -> Vec<&'static str> {
    (0..count).map(|number| &*format!("m{number:03}").leak()).collect()
}

/// How many follow an epoch with all of `wanted`.
fn following(fleet: &Fleet, wanted: &[&'static str]) -> usize {
    let is_current = |name: &&&str| {
        fleet.startable(name).ring.is_some_and(|ring| ring.members().eq(wanted.iter().copied()))
    };
    wanted.iter().filter(is_current).count()
}

#[test]
fn many_members_that_start_at_once_are_listed_by_a_few_of_them() {
    let names = names(100);
    let mut fleet = Fleet::new();
    names.iter().for_each(|name| fleet.start(name));
    fleet.run(2 * SECOND);
    assert_eq!(following(&fleet, &names), 100);
    assert_eq!(fleet.head().version, 1, "all are in the first epoch");
    assert!(fleet.lists < 10, "{} lists", fleet.lists);
    let lists = fleet.lists;
    fleet.run(60 * SECOND);
    assert_eq!(fleet.lists, lists, "nothing has changed since");
}

/// Those that started as the first do not know that they are many: each of them tries as one of few.
const FEW: u32 = 60;

#[test]
fn many_members_that_start_at_once_list_nothing_before_they_know_how_many_they_are() {
    let names = names(120);
    let mut fleet = Fleet::new();
    fleet.holds = [Held::Stat, Held::List].into();
    names.iter().for_each(|name| fleet.start(name));
    fleet.run(SECOND);
    assert_eq!(fleet.lists, 0);
    for name in &names {
        fleet.release(name);
    }
    fleet.run(2 * SECOND);
    assert_eq!(following(&fleet, &names), 120);
    assert!(fleet.lists < FEW, "{} lists", fleet.lists);
}

#[test]
fn those_that_knew_of_few_when_they_started_wait_for_their_turn_among_many() {
    let names = names(200);
    let mut fleet = Fleet::new();
    fleet.holds = [Held::List].into();
    names.iter().for_each(|name| fleet.start(name));
    fleet.run(SECOND / 2);
    assert!(fleet.lists < FEW, "{} lists while none was answered", fleet.lists);
}

#[test]
fn a_member_whose_epoch_was_refused_lists_again_only_after_it_has_read_the_head() {
    let mut fleet = Fleet::new();
    fleet.start("a");
    fleet.start("b");
    fleet.run(2 * WAIT);
    fleet.hold("a", Held::List);
    fleet.hold("b", Held::List);
    fleet.hold("b", Held::Head);
    fleet.start("c");
    fleet.run(SECOND / 2);
    fleet.release("a");
    let lists = fleet.lists;
    fleet.release_first("b");
    fleet.run(SECOND);
    assert_eq!(fleet.lists, lists);
    fleet.release("b");
    fleet.run(SECOND);
    assert_eq!(fleet.ring("b"), ["a", "b", "c"]);
}

#[test]
fn one_list_is_enough_for_a_change_of_a_large_group() {
    let names = names(48);
    let mut fleet = Fleet::new();
    names.iter().for_each(|name| fleet.start(name));
    fleet.run(10 * SECOND);
    let lists = fleet.lists;
    fleet.stop(names[20]);
    fleet.run(60 * SECOND);
    let rest: Vec<_> = names.into_iter().filter(|name| *name != "m020").collect();
    assert_eq!(following(&fleet, &rest), 47);
    assert_eq!(fleet.lists - lists, 1);
}

#[test]
fn if_the_members_that_watch_a_large_group_are_stuck_others_publish_its_changes() {
    let names = names(48);
    let mut fleet = Fleet::new();
    names.iter().for_each(|name| fleet.start(name));
    fleet.run(10 * SECOND);
    for name in &names[..3] {
        fleet.is_deaf(name, true);
    }
    let lists = fleet.lists;
    fleet.stop(names[20]);
    fleet.start("n");
    fleet.run(5 * SECOND);
    let mut wanted: Vec<_> = names.into_iter().filter(|name| *name != "m020").collect();
    wanted.push("n");
    assert_eq!(following(&fleet, &wanted), 45, "all but those that are stuck");
    assert_eq!(fleet.startable("n").ring.map(|ring| ring.len()), Some(48));
    assert!(fleet.lists - lists < 10, "{} lists", fleet.lists - lists);
}

/// Those that would have been the first to publish are stuck.
#[test]
fn if_most_of_those_that_start_at_once_are_stuck_the_others_publish_the_first_epoch() {
    let names = names(60);
    let mut fleet = Fleet::new();
    names.iter().for_each(|name| fleet.start(name));
    for name in &names[..50] {
        fleet.is_deaf(name, true);
    }
    fleet.run(5 * SECOND);
    assert_eq!(following(&fleet, &names), 10);
}

/// The leader writes each heartbeat into its log.
#[test]
fn the_more_members_a_group_has_the_rarer_are_the_heartbeats_of_each() {
    let interval = |count: usize| {
        let names = names(count);
        let mut fleet = Fleet::new();
        names.iter().for_each(|name| fleet.start(name));
        fleet.run(10 * SECOND);
        assert_eq!(following(&fleet, &names), count);
        let due = fleet.core(names[0]).next_heartbeat();
        fleet.run(due.saturating_since(fleet.now));
        fleet.core(names[0]).next_heartbeat().saturating_since(due)
    };
    assert_eq!(interval(2), TIMING.heartbeat);
    assert_eq!(interval(120), Duration::from_millis(1200));
    let most = interval(300);
    assert!(most > interval(120) && most <= LEASE / 3, "{most:?}");
}
