//! What a group does beside the handover itself: who takes part in it, and when that is published.

use std::{collections::BTreeSet, time::Duration};

use super::{
    super::{
        settings::Settings,
        shown::Why,
        types::{Cause, Event, Presence, Purpose},
    },
    fleet::{Fleet, MS, WAIT, id, key_of, settings},
    large::names,
};

const SECOND: Duration = Duration::from_secs(1);

fn fleet_of(names: &[&'static str]) -> Fleet {
    fleet_with(names, |settings| settings)
}

fn fleet_with(names: &[&'static str], with: impl Fn(Settings) -> Settings) -> Fleet {
    let mut fleet = Fleet::new();
    for name in names {
        fleet.start_with(name, with(settings(name)));
    }
    fleet.run(2 * WAIT);
    assert_eq!(fleet.ring(names[0]), names, "all take part");
    fleet
}

// --- Members that join again and again ------------------------------------------------------------------------

/// How often `c` gets keys while its session ends 60 times, every 300 ms.
fn times_that_a_flapping_member_gets_in(hold_down: bool) -> usize {
    let mut fleet = fleet_with(&["a", "b", "c"], |it| Settings { hold_down, ..it });
    let mut incarnations = BTreeSet::new();
    for _ in 0..60 {
        fleet.renew("c");
        for _ in 0..10 {
            fleet.run(30 * MS);
            let members = fleet.startable("a").members.unwrap();
            incarnations.extend(members.get(&id("c")).map(|entry| entry.czxid));
        }
    }
    fleet.run(70 * SECOND);
    assert_eq!(fleet.ring("a"), ["a", "b", "c"], "it is let in again once it stays");
    incarnations.len()
}

#[test]
fn a_member_that_joins_again_and_again_is_held_back() {
    // Also then, its changes are collected for up to a second.
    let free = times_that_a_flapping_member_gets_in(false);
    assert!((15..40).contains(&free), "{free}");
    let held = times_that_a_flapping_member_gets_in(true);
    assert!((5..12).contains(&held), "{held}");
}

/// A process that has just started does not know how often it has joined. It does not let itself in then.
#[test]
fn a_process_that_restarts_again_and_again_is_held_back() {
    let mut fleet = fleet_of(&["a", "b", "c"]);
    let mut times = 0;
    for _ in 0..20 {
        fleet.stop("c");
        fleet.run(100 * MS);
        fleet.start("c");
        fleet.run(2900 * MS);
        times += usize::from(fleet.ring("a").contains(&"c".to_owned()));
    }
    assert!((5..15).contains(&times), "{times}");
    fleet.run(70 * SECOND);
    assert_eq!(fleet.ring("a"), ["a", "b", "c"], "it is let in again once it stays");
}

/// The members that would let it in are gone.
#[test]
fn a_member_that_is_held_back_lets_itself_in_after_a_minute() {
    let mut fleet = fleet_of(&["a", "b", "c"]);
    for _ in 0..12 {
        fleet.renew("c");
        fleet.run(300 * MS);
    }
    assert_eq!(fleet.ring("a"), ["a", "b"]);
    fleet.is_deaf("a", true);
    fleet.is_deaf("b", true);
    fleet.run(70 * SECOND);
    assert_eq!(fleet.ring("c"), ["a", "b", "c"]);
}

#[test]
fn a_member_that_joins_a_few_times_is_not_held_back() {
    let mut fleet = fleet_of(&["a", "b", "c"]);
    for _ in 0..4 {
        fleet.renew("c");
        fleet.run(SECOND);
        assert_eq!(fleet.ring("a"), ["a", "b", "c"]);
    }
}

// --- A loss of most members -----------------------------------------------------------------------------------

#[test]
fn a_loss_of_most_members_is_published_only_if_it_lasts() {
    let names = ["a", "b", "c", "d", "e"];
    let mut fleet = fleet_with(&names, |it| Settings { mass_loss: Some(10 * SECOND), ..it });
    for name in ["c", "d", "e"] {
        fleet.stop(name);
    }
    fleet.run(9 * SECOND);
    assert_eq!(fleet.ring("a"), names, "they may come back");
    let lists = fleet.lists;
    fleet.run(2 * SECOND);
    assert_eq!(fleet.ring("a"), ["a", "b"]);
    assert!(fleet.lists - lists < 20);
}

#[test]
fn a_loss_of_few_members_is_published_at_once() {
    let names = ["a", "b", "c", "d", "e"];
    let mut fleet = fleet_with(&names, |it| Settings { mass_loss: Some(10 * SECOND), ..it });
    fleet.stop("d");
    fleet.stop("e");
    fleet.run(SECOND);
    assert_eq!(fleet.ring("a"), ["a", "b", "c"]);
}

#[test]
fn members_that_come_back_within_the_time_keep_their_place() {
    let names = ["a", "b", "c", "d", "e"];
    let mut fleet = fleet_with(&names, |it| Settings { mass_loss: Some(10 * SECOND), ..it });
    for name in ["c", "d", "e"] {
        fleet.stop(name);
    }
    fleet.run(5 * SECOND);
    for name in ["c", "d", "e"] {
        fleet.start_with(name, Settings { mass_loss: Some(10 * SECOND), ..settings(name) });
    }
    fleet.run(20 * SECOND);
    assert_eq!(fleet.ring("a"), names);
    // The next loss has its own time.
    for name in ["c", "d", "e"] {
        fleet.stop(name);
    }
    fleet.run(9 * SECOND);
    assert_eq!(fleet.ring("a"), names);
    fleet.run(2 * SECOND);
    assert_eq!(fleet.ring("a"), ["a", "b"]);
}

// --- Pause ----------------------------------------------------------------------------------------------------

#[test]
fn a_paused_group_publishes_nothing_until_it_goes_on() {
    let mut fleet = fleet_of(&["a", "b", "c"]);
    fleet.tell("b", Event::Pause(true));
    fleet.run(SECOND);
    let version = fleet.head().version;
    assert!(fleet.head().head.is_paused && fleet.core("a").status().is_paused);
    fleet.stop("c");
    fleet.start("d");
    fleet.run(30 * SECOND);
    assert_eq!((fleet.head().version, fleet.ring("a")), (version, ["a", "b", "c"].map(String::from).into()));
    // Work goes on on what the members have.
    assert!(fleet.startable("a").ranges == fleet.core("a").owned());
    fleet.tell("a", Event::Pause(false));
    fleet.run(SECOND);
    assert_eq!(fleet.ring("d"), ["a", "b", "d"]);
    assert!(!fleet.core("b").status().is_paused);
}

#[test]
fn a_paused_group_is_not_listed_all_the_time() {
    let mut fleet = fleet_of(&["a", "b", "c"]);
    fleet.tell("b", Event::Pause(true));
    fleet.stop("c");
    fleet.run(SECOND);
    let lists = fleet.lists;
    fleet.run(60 * SECOND);
    assert_eq!(fleet.lists - lists, 0);
}

#[test]
fn a_change_in_a_large_group_that_is_paused_is_listed_by_few() {
    let names = names(60);
    let mut fleet = fleet_of(&names);
    fleet.tell("m030", Event::Pause(true));
    fleet.run(SECOND);
    fleet.stop("m040");
    fleet.start("m040");
    let lists = fleet.lists;
    fleet.run(30 * SECOND);
    assert!((1..12).contains(&(fleet.lists - lists)), "{}", fleet.lists - lists);
    let lists = fleet.lists;
    // If the members that watch are gone, one of the others lists it, and they share the time.
    fleet.run(30 * SECOND);
    assert!(fleet.lists - lists < 30, "{}", fleet.lists - lists);
    fleet.tell("m030", Event::Pause(false));
    fleet.run(SECOND);
    assert_eq!(fleet.ring("m000"), names);
}

/// It does not know the pause, and works on its keys.
#[test]
fn a_plain_member_that_joins_during_a_pause_gets_its_keys() {
    let (given, kept) = (key_of(&[&["a", "b", "p"]]), key_of(&[&["b", "p", "a"]]));
    let mut fleet = fleet_of(&["a", "b"]);
    fleet.tell("b", Event::Pause(true));
    fleet.run(SECOND);
    assert!(fleet.may_start("a", given) || fleet.may_start("b", given));
    fleet.start_plain("p");
    fleet.start("c");
    fleet.run(SECOND);
    assert_eq!(fleet.ring("a"), ["a", "b", "p"]);
    assert!(fleet.head().head.is_paused && !fleet.may_start("a", given) && !fleet.may_start("b", given));
    assert!(fleet.may_start("a", kept), "nothing else has changed");
    let lists = fleet.lists;
    fleet.run(60 * SECOND);
    assert!(fleet.lists - lists <= 1, "by the joiner, which waits for the members");
    fleet.tell("a", Event::Pause(false));
    fleet.run(SECOND);
    assert_eq!(fleet.ring("c"), ["a", "b", "c", "p"]);
}

/// The pause cannot be written yet: it is tried again, and not all the time.
#[test]
fn a_pause_that_cannot_be_written_is_tried_again_after_a_while() {
    let names = ["a", "b", "c", "d", "e"];
    let mut fleet = fleet_with(&names, |it| Settings { mass_loss: Some(10 * SECOND), ..it });
    fleet.tell("a", Event::Pause(true));
    for name in ["c", "d", "e"] {
        fleet.stop(name);
    }
    fleet.run(SECOND);
    let lists = fleet.lists;
    fleet.tell("a", Event::Pause(false));
    fleet.run(9 * SECOND);
    assert!(fleet.head().head.is_paused, "most members are missing");
    assert!(fleet.lists - lists < 50, "{} lists", fleet.lists - lists);
    fleet.run(2 * SECOND);
    assert!(!fleet.head().head.is_paused);
    assert_eq!(fleet.ring("a"), ["a", "b"]);

    fleet.fail("a", Purpose::Publish);
    let lists = fleet.lists;
    fleet.tell("a", Event::Pause(true));
    fleet.run(10 * SECOND);
    let tried = fleet.lists - lists;
    assert!((5..500).contains(&tried), "{tried} lists");
}

// --- Warming --------------------------------------------------------------------------------------------------

#[test]
fn a_member_that_is_warming_takes_part_once_it_is_ready() {
    let mut fleet = fleet_of(&["a", "b"]);
    fleet.start_with("c", Settings { presence: Presence::Warming, ..settings("c") });
    fleet.run(60 * SECOND);
    assert_eq!(fleet.ring("a"), ["a", "b"]);
    assert_eq!(fleet.part("c").presence, Presence::Warming);
    assert!(fleet.core("c").owned().is_empty() && fleet.startable("c").epoch.is_some());
    fleet.tell("c", Event::Ready);
    fleet.run(SECOND);
    assert_eq!(fleet.part("c").presence, Presence::Ready);
    assert_eq!(fleet.ring("a"), ["a", "b", "c"]);
    assert!(!fleet.startable("c").ranges.is_empty());
}

#[test]
fn a_member_that_leaves_gives_its_keys_away_and_ends_its_work() {
    let key = key_of(&[&["b", "a"]]);
    let mut fleet = fleet_of(&["a", "b"]);
    fleet.take("a", key);
    fleet.tell("a", Event::Leave { is_idle: false, drain: 10 * SECOND });
    fleet.run(SECOND);
    assert_eq!(fleet.ring("b"), ["b"]);
    assert!(fleet.acts("a") && !fleet.may_start("a", key) && !fleet.may_start("b", key));
    fleet.end("a");
    fleet.run(SECOND);
    assert!(fleet.may_start("b", key));
}

#[test]
fn a_leave_does_not_wait_for_work_whose_guards_have_ended_with_the_znode() {
    let key = key_of(&[&["b", "a"]]);
    let mut fleet = fleet_of(&["a", "b"]);
    fleet.take("a", key);
    fleet.tell("a", Event::Leave { is_idle: false, drain: 60 * SECOND });
    fleet.run(SECOND);
    assert!(fleet.acts("a") && !fleet.core("a").has_left());
    fleet.delete("a");
    fleet.run(SECOND);
    assert!(!fleet.acts("a") && fleet.core("a").has_left());
}

// --- How long a handover takes ------------------------------------------------------------------------------------

#[test]
fn a_member_reports_how_long_it_waited_for_the_keys_that_it_gained() {
    let mut fleet = fleet_of(&["a", "b"]);
    fleet.ended.clear();
    let key = key_of(&[&["a"], &["a", "c"]]);
    let key = if fleet.may_start("a", key) { key } else { key_of(&[&["a", "b"], &["a", "b", "c"]]) };
    let owner = if fleet.may_start("a", key) { "a" } else { "b" };
    fleet.take(owner, key);
    fleet.start("c");
    fleet.run(2 * SECOND);
    assert_eq!(
        fleet.ended,
        [],
        "it waits for the work of another member, and no other member has gained keys"
    );
    fleet.end(owner);
    fleet.run(SECOND);
    let (name, ended) = fleet.ended.pop().expect("it has ended");
    assert_eq!((name, ended.cause), ("c", Cause::Join));
    assert!(ended.waited >= 2 * SECOND && ended.waited < 3 * SECOND, "{ended:?}");
    assert_eq!(fleet.core("c").status().ended, Some(ended));

    let ended = |fleet: &mut Fleet| {
        let mut ended = std::mem::take(&mut fleet.ended);
        ended.retain(|(name, _)| *name != "c");
        ended.into_iter().map(|(_, ended)| ended.cause).collect::<Vec<_>>()
    };
    fleet.renew("c");
    fleet.run(SECOND);
    let causes = ended(&mut fleet);
    assert!(causes.iter().all(|it| matches!(it, Cause::Leave | Cause::Restart)), "{causes:?}");
    fleet.stop("c");
    fleet.run(SECOND);
    assert!(ended(&mut fleet).contains(&Cause::Leave));
    fleet.delete_head();
    fleet.run(2 * WAIT);
    assert_eq!(ended(&mut fleet), [Cause::Head; 2]);
}

// --- Plain members --------------------------------------------------------------------------------------------

#[test]
fn a_plain_member_is_waited_for_and_nothing_is_exclusive_while_it_is_there() {
    let key = key_of(&[&["a"], &["p", "a"], &["p", "a", "b"]]);
    let mut fleet = fleet_of(&["a"]);
    assert!(fleet.startable("a").is_exclusive);
    fleet.start_plain("p");
    fleet.run(SECOND);
    assert_eq!(fleet.ring("a"), ["a", "p"]);
    assert!(!fleet.startable("a").is_exclusive);
    let of_p = key_of(&[&["a", "p"], &["a", "p", "b"]]);
    fleet.start("b");
    fleet.run(10 * SECOND);
    assert_eq!(fleet.ring("b"), ["a", "b", "p"]);
    // What `a` gave is released at once, what the plain member gave after a minute.
    assert!(fleet.may_start("b", key));
    assert!(!fleet.may_start("b", of_p));
    let waiting = fleet.core("b").status().waiting;
    assert!(waiting.iter().all(|it| it.member.id == id("p") && it.why == Why::Plain), "{waiting:?}");
    fleet.run(60 * SECOND);
    assert!(fleet.may_start("b", of_p));
    assert!(!fleet.startable("b").is_exclusive);
}

#[test]
fn a_member_that_takes_over_from_a_plain_one_waits_for_it() {
    let key = key_of(&[&["a", "p"]]);
    let mut fleet = Fleet::new();
    fleet.start_plain("p");
    fleet.start("a");
    fleet.run(3 * WAIT);
    assert_eq!(fleet.ring("a"), ["a", "p"]);
    fleet.stop_plain("p");
    fleet.run(30 * SECOND);
    assert_eq!(fleet.ring("a"), ["a"]);
    assert!(!fleet.may_start("a", key) && !fleet.startable("a").is_exclusive);
    fleet.run(40 * SECOND);
    assert!(fleet.may_start("a", key));
}

/// It asks for its part whenever it likes, so it may have had the keys of `b` while that was away.
#[test]
fn a_member_that_comes_back_before_the_next_epoch_waits_for_plain_members_that_may_have_had_its_keys() {
    let had = key_of(&[&["a", "p", "b"], &["a", "p"]]);
    let not_had = key_of(&[&["a", "p", "b"], &["p", "a"]]);
    let mut fleet = fleet_of(&["a"]);
    fleet.start("b");
    fleet.start_plain("p");
    fleet.run(61 * SECOND);
    assert!(fleet.may_start("b", had) && fleet.may_start("b", not_had));
    fleet.renew("b");
    fleet.run(2 * SECOND);
    assert!(fleet.may_start("b", not_had));
    assert!(!fleet.may_start("b", had), "the plain member may have had it");
    fleet.run(60 * SECOND);
    assert!(fleet.may_start("b", had));
}

/// One leaves and another one comes, and there is one epoch for both.
#[test]
fn keys_that_a_plain_member_may_have_had_between_two_epochs_wait_for_it() {
    let key = key_of(&[&["a", "p", "b"], &["a", "p"], &["a", "p", "c"]]);
    let mut fleet = fleet_of(&["a"]);
    fleet.start("b");
    fleet.start_plain("p");
    fleet.run(2 * WAIT);
    fleet.stop("b");
    fleet.start("c");
    fleet.run(2 * SECOND);
    assert_eq!(fleet.ring("c"), ["a", "c", "p"]);
    assert!(!fleet.may_start("c", key), "the plain member may have had it");
    fleet.run(60 * SECOND);
    assert!(fleet.may_start("c", key));
}

#[test]
fn the_first_member_waits_for_the_plain_ones_that_had_its_keys() {
    let key = key_of(&[&["p"], &["p", "a"]]);
    let mut fleet = Fleet::new();
    fleet.start_plain("p");
    fleet.start("a");
    fleet.run(3 * WAIT);
    assert_eq!(fleet.ring("a"), ["a", "p"]);
    assert!(!fleet.may_start("a", key), "the plain member had it");
    fleet.run(60 * SECOND);
    assert!(fleet.may_start("a", key));
}

/// It cannot read weights, so they count only once it is gone.
#[test]
fn weights_do_not_count_while_a_plain_member_is_there() {
    let mut fleet = Fleet::new();
    fleet.start_weighted("a", 5);
    fleet.start("b");
    fleet.run(2 * WAIT);
    let weight = |fleet: &Fleet| fleet.startable("b").ring.unwrap().weight("a");
    assert_eq!(weight(&fleet), Some(5));
    fleet.start_plain("p");
    fleet.run(SECOND);
    assert_eq!(weight(&fleet), Some(1));
    assert_eq!(fleet.startable("a").ring.unwrap().digest(), fleet.startable("b").ring.unwrap().digest());
    fleet.stop_plain("p");
    fleet.run(SECOND);
    assert_eq!(weight(&fleet), Some(5));
}

#[test]
fn a_group_of_one_works_on_everything() {
    let fleet = fleet_of(&["a"]);
    let startable = fleet.startable("a");
    assert_eq!(startable.ranges, fleet.core("a").owned());
    assert!((startable.ranges.fraction() - 1.0).abs() < 1e-9);
}

/// All of them know the moment from which on the first epoch of the new head may be published.
#[test]
fn a_large_group_whose_head_was_deleted_is_not_listed_by_all_when_the_old_leases_have_ended() {
    let names = names(60);
    let mut fleet = fleet_of(&names);
    fleet.delete_head();
    fleet.run(WAIT - 100 * MS);
    let lists = fleet.lists;
    fleet.run(5 * SECOND);
    assert_eq!(fleet.ring("m000"), names);
    assert!(fleet.lists - lists < 20, "{}", fleet.lists - lists);
}

#[test]
fn a_member_leaves_a_strict_group_within_its_drain_although_no_epoch_can_follow() {
    let strict = |it| Settings { is_strict: true, ..it };
    let idle = |drain| Event::Leave { is_idle: true, drain };
    let mut fleet = fleet_with(&["a", "b"], strict);
    fleet.tell("b", Event::Pause(true));
    fleet.run(SECOND);
    fleet.tell("a", idle(60 * SECOND));
    fleet.run(100 * MS);
    assert!(!fleet.exists("a"), "during a pause");

    let mut fleet = fleet_with(&["a", "b"], strict);
    fleet.fail("a", Purpose::Publish);
    fleet.fail("b", Purpose::Publish);
    fleet.tell("a", idle(2 * SECOND));
    fleet.run(1900 * MS);
    assert!(fleet.exists("a"), "an epoch may follow");
    fleet.run(200 * MS);
    assert!(!fleet.exists("a"), "the head cannot be written");
}
