//! Rules that need a certain order of what happens. Each of these runs once with all rules, and once without one: then
//! two members act on one key.

use std::time::Duration;

use super::{
    super::{
        rules::Rule,
        settings::Settings,
        types::{Event, Part, Presence, Purpose},
    },
    fleet::{Fleet, Held, LEASE, MS, TIMING, WAIT, id, key_of, settings},
};
use crate::{ring::Ranges, session::timing::Timing};

const SECOND: Duration = Duration::from_secs(1);

/// What `a` works on is lost to `b`, and `a` goes on with it.
fn a_keeps_what_b_gained(fleet: &mut Fleet, is_strict: bool) -> u32 {
    let key = key_of(&[&["a"], &["a", "b"]]);
    fleet.start_with("a", Settings { is_strict, ..settings("a") });
    fleet.run(2 * WAIT);
    fleet.take("a", key);
    fleet.start_with("b", Settings { is_strict, ..settings("b") });
    fleet.run(SECOND);
    assert_eq!(fleet.ring("b"), ["a", "b"]);
    assert!(fleet.part("a").keep.contains_position(key));
    assert!(fleet.acts("a") && !fleet.may_start("b", key));
    key
}

/// The head is deleted while a member keeps work, and it acknowledges the new one. Another member does not know yet.
#[test]
fn an_acknowledgement_of_a_newer_head_is_no_sign_of_a_lapse() {
    let both = |mut fleet: Fleet| {
        let key = a_keeps_what_b_gained(&mut fleet, false);
        fleet.run(WAIT + SECOND);
        fleet.lose_watches("b");
        fleet.delete_head();
        let head = |fleet: &Fleet| fleet.part("a").ack.map(|ack| ack.head);
        assert!(head(&fleet) == Some(fleet.head().czxid) && head(&fleet) > fleet.epoch("b"));
        fleet.tell("b", Event::MemberChanged(id("a")));
        assert!(fleet.acts("a") && fleet.epoch("b") < head(&fleet));
        let early = fleet.may_start("b", key);
        fleet.run(2 * WAIT);
        assert!(!fleet.acts("a") && fleet.may_start("b", key));
        early
    };
    assert!(!both(Fleet::new()));
    assert!(both(Fleet::without(Rule::NewerHeadIsNoLapse)));
}

/// The reply to a write comes after the next epoch. It says nothing about what was lost only there.
#[test]
fn a_late_reply_thaws_only_what_was_marked_when_it_was_sent() {
    let both = |mut fleet: Fleet| {
        let key = key_of(&[&["a"], &["a", "b"][..1], &["b", "a"], &["a", "b", "c"]]);
        fleet.start("a");
        fleet.run(WAIT);
        fleet.take("a", key);
        fleet.hold("a", Held::Commit(Purpose::Own));
        fleet.start("b");
        fleet.run(SECOND);
        assert!(fleet.part("a").ack.is_some(), "the write has taken effect");
        fleet.start("c");
        fleet.run(SECOND);
        assert_eq!(fleet.ring("c"), ["a", "b", "c"]);
        // Its next write, which lists what it keeps, does not succeed; its heartbeats do.
        fleet.fail("a", Purpose::Own);
        fleet.release("a");
        fleet.run(WAIT + SECOND);
        assert!(fleet.may_start("c", key), "a lapsed member was checked");
        fleet.acts("a")
    };
    assert!(!both(Fleet::new()));
    assert!(both(Fleet::without(Rule::ThawOnlyWhatWasSent)));
}

/// A head is read after a lapse, and the answer is late. Meanwhile the head is deleted, and the next one comes to the same
/// version.
#[test]
fn what_extends_a_lapsed_lease_checks_that_the_head_is_the_one_that_was_read() {
    let both = |mut fleet: Fleet| {
        let key = key_of(&[&["b", "a"], &["a", "b", "c"]]);
        for name in ["a", "b"] {
            fleet.start(name);
            fleet.run(2 * WAIT);
        }
        let version = fleet.head().version;
        assert!(fleet.may_start("a", key));
        fleet.hold("a", Held::Head);
        fleet.is_deaf("a", true);
        fleet.run(WAIT);
        fleet.is_deaf("a", false);
        fleet.run(10 * MS);
        assert!(!fleet.may_start("a", key), "its lease has lapsed");
        fleet.delete_head();
        fleet.run(3 * WAIT);
        fleet.start("c");
        fleet.run(3 * WAIT);
        assert_eq!(
            (fleet.head().version, fleet.ring("c")),
            (version, ["a", "b", "c"].map(String::from).into())
        );
        assert!(fleet.may_start("c", key), "{:?}", fleet.core("c").status());
        fleet.release_first("a");
        // After so long a silence, one heartbeat is not enough.
        fleet.run(3 * SECOND);
        let early = fleet.may_start("a", key);
        fleet.release("a");
        fleet.run(2 * WAIT);
        assert!(fleet.epoch("a") == fleet.epoch("c") && !fleet.may_start("a", key));
        early
    };
    assert!(!both(Fleet::new()));
    assert!(both(Fleet::without(Rule::RevivalChecksSnapshot)));
}

/// A list of the members is answered late. Meanwhile a member has acknowledged its loss, and keeps work.
#[test]
fn a_floor_passes_a_loss_that_is_not_acknowledged_only_with_a_check() {
    let both = |mut fleet: Fleet| {
        let key = key_of(&[&["a"], &["a", "b"]]);
        fleet.start("a");
        fleet.run(WAIT);
        fleet.take("a", key);
        fleet.run(SECOND);
        fleet.is_deaf("a", true);
        fleet.start("b");
        // A joiner waits for the members at first.
        while fleet.ring("b").len() < 2 {
            fleet.run(100 * MS);
        }
        fleet.hold("b", Held::List);
        fleet.tell("b", Event::Pause(true));
        fleet.is_deaf("a", false);
        assert!(fleet.part("a").keep.contains_position(key));
        fleet.run(WAIT + SECOND);
        fleet.release("b");
        assert!(fleet.acts("a"));
        fleet.may_start("b", key)
    };
    assert!(!both(Fleet::new()));
    assert!(both(Fleet::without(Rule::FloorChecksUnacked)));
}

/// A member is carried at an epoch. What was read of it before that epoch is from before its work was kept.
#[test]
fn what_a_carried_member_keeps_is_read_after_the_head() {
    let both = |mut fleet: Fleet| {
        let key = key_of(&[&["a"], &["a", "b"]]);
        fleet.start("a");
        fleet.run(WAIT);
        fleet.take("a", key);
        fleet.is_deaf("a", true);
        fleet.start_with("b", Settings { recheck: 3600 * SECOND, ..settings("b") });
        while fleet.ring("b").len() < 2 {
            fleet.run(100 * MS);
        }
        // It has read the other one, and its watches are lost.
        fleet.is_deaf("b", true);
        fleet.lose_watches("b");
        fleet.is_deaf("a", false);
        fleet.run(WAIT + SECOND);
        fleet.tell("a", Event::Pause(true));
        assert_eq!(fleet.head().head.carried.len(), 1);
        fleet.is_deaf("b", false);
        fleet.tell("b", Event::HeadChanged);
        fleet.run(SECOND);
        assert_eq!(fleet.startable("b").epoch.map(|epoch| epoch.version), Some(fleet.head().version));
        assert!(fleet.acts("a"));
        fleet.may_start("b", key)
    };
    assert!(!both(Fleet::new()));
    assert!(both(Fleet::without(Rule::CarriedReadAfresh)));
}

/// An operator deletes the znode of a member that keeps work, and another one publishes at once.
#[test]
fn in_strict_mode_the_floor_waits_for_a_member_that_is_gone() {
    let both = |mut fleet: Fleet| {
        let key = a_keeps_what_b_gained(&mut fleet, true);
        fleet.run(WAIT + SECOND);
        fleet.is_deaf("a", true);
        fleet.delete("a");
        fleet.tell("b", Event::Pause(true));
        fleet.run(SECOND);
        assert!(fleet.acts("a"));
        let early = fleet.may_start("b", key);
        fleet.run(WAIT + SECOND);
        assert!(!fleet.acts("a") && fleet.may_start("b", key));
        early
    };
    assert!(!both(Fleet::new()));
    assert!(both(Fleet::without(Rule::StrictFloorWaits)));
}

/// As above, and the floor had passed its loss before.
#[test]
fn in_strict_mode_a_carried_member_that_is_gone_stays_carried() {
    let both = |mut fleet: Fleet| {
        let key = a_keeps_what_b_gained(&mut fleet, true);
        fleet.run(WAIT + SECOND);
        fleet.tell("b", Event::Pause(true));
        assert_eq!(fleet.head().head.carried.len(), 1);
        fleet.run(SECOND);
        fleet.is_deaf("a", true);
        fleet.delete("a");
        fleet.tell("b", Event::Pause(false));
        fleet.run(SECOND);
        assert!(fleet.acts("a"));
        let early = fleet.may_start("b", key);
        fleet.run(LEASE + WAIT);
        assert!(!fleet.acts("a") && fleet.may_start("b", key));
        early
    };
    assert!(!both(Fleet::new()));
    assert!(both(Fleet::without(Rule::StrictCarriedWaits)));
}

/// Strict mode: the last thing that a member which leaves writes is that its work has ended. Until then others wait.
#[test]
fn a_member_that_leaves_a_strict_group_releases_its_keys_when_its_work_has_ended() {
    let both = |mut fleet: Fleet| {
        let strict = |name| Settings { is_strict: true, ..settings(name) };
        let key = key_of(&[&["b", "a"]]);
        fleet.start_with("a", strict("a"));
        fleet.start_with("b", strict("b"));
        fleet.run(3 * WAIT);
        fleet.take("a", key);
        fleet.tell("a", Event::Leave { is_idle: false, drain: 60 * SECOND });
        fleet.run(SECOND);
        assert_eq!(fleet.ring("b"), ["b"]);
        let early = fleet.acts("a") && fleet.may_start("b", key);
        fleet.end("a");
        fleet.run(SECOND);
        assert!(fleet.may_start("b", key), "{:?}", fleet.core("b").status());
        // Nor does it wait for those who join before the floor has passed the loss.
        fleet.start_with("c", strict("c"));
        fleet.run(2 * SECOND);
        assert_eq!(fleet.ring("c"), ["b", "c"]);
        assert_eq!(fleet.core("c").startable().ranges, fleet.core("c").owned());
        early
    };
    assert!(!both(Fleet::new()));
    assert!(both(Fleet::without(Rule::ReleasedIsDrained)));
}

/// The two contradict each other.
#[test]
fn a_member_that_has_drained_and_still_lists_work_is_waited_for() {
    let key = key_of(&[&["a", "p"]]);
    let mut fleet = Fleet::new();
    fleet.start("a");
    fleet.run(2 * WAIT);
    fleet.say("p", Part { presence: Presence::Ready, ..Part::default() });
    fleet.run(SECOND);
    assert_eq!(fleet.ring("a"), ["a", "p"]);
    fleet.say("p", Part { presence: Presence::Drained, keep: Ranges::all(), ..Part::default() });
    fleet.start("b");
    fleet.run(SECOND);
    assert_eq!(fleet.ring("a"), ["a", "b"]);
    assert!(!["a", "b"].iter().any(|name| fleet.may_start(name, key)));
}

/// The lease of the group was five seconds. That of the process which makes the next head is little more than one.
#[test]
fn after_a_new_head_the_longest_lease_of_those_before_it_has_to_end() {
    let quick = Timing { timeout: 4 * SECOND, heartbeat: 400 * MS, heartbeat_validity: 1200 * MS, ..TIMING };
    for others in [&["a"][..], &["b", "a"]] {
        let key = key_of(&[others, &["a", "b", "c"]]);
        let mut fleet = Fleet::new();
        fleet.start("a");
        fleet.run(2 * WAIT);
        if others.len() == 2 {
            // It has followed the head before.
            fleet.start_timed("b", quick);
            fleet.run(2 * WAIT);
        }
        fleet.take("a", key);
        fleet.run(SECOND);
        fleet.is_deaf("a", true);
        fleet.delete_head();
        fleet.run(100 * MS);
        if others.len() == 1 {
            // It never knew that head.
            fleet.start_timed("b", quick);
        }
        fleet.start_timed("c", quick);
        while fleet.acts("a") {
            assert!(!fleet.may_start("c", key), "two act on one key");
            fleet.run(50 * MS);
        }
        assert_eq!(fleet.head().head.common.lease, quick.heartbeat_validity);
        fleet.run(2 * SECOND);
        assert_eq!(fleet.ring("c"), ["a", "b", "c"]);
        fleet.run(2 * SECOND);
        assert!(fleet.may_start("c", key), "{:?}", fleet.core("c").status());
    }
}

/// Another member was cut off before, and acts by what it had read there.
#[test]
fn when_the_data_of_the_servers_were_deleted_the_members_begin_anew_after_the_leases_from_before() {
    let key = key_of(&[&["b", "a"], &["b"]]);
    let mut fleet = Fleet::new();
    for name in ["a", "b"] {
        fleet.start(name);
        fleet.run(2 * WAIT);
    }
    fleet.take("a", key);
    fleet.run(SECOND);
    fleet.is_deaf("a", true);
    fleet.delete_all();
    fleet.renew("b");
    while fleet.acts("a") {
        assert!(!fleet.may_start("b", key), "two act on one key");
        fleet.run(50 * MS);
    }
    fleet.run(2 * SECOND);
    assert!(fleet.may_start("b", key), "{:?}", fleet.core("b").status());
    fleet.is_deaf("a", false);
    fleet.renew("a");
    fleet.run(2 * WAIT);
    assert_eq!((fleet.ring("a"), fleet.core("a").status().problem), (vec!["a".into(), "b".into()], None));
    assert_eq!(fleet.startable("a").ranges, fleet.core("a").owned());
}

#[test]
fn a_head_without_its_snapshot_is_a_problem_and_neither_read_nor_listed_all_the_time() {
    let mut fleet = Fleet::new();
    for name in ["a", "b"] {
        fleet.start(name);
        fleet.run(2 * WAIT);
    }
    fleet.delete_snapshot();
    fleet.start("c");
    let is_missing = |fleet: &Fleet, name| {
        let problem = fleet.core(name).status().problem;
        problem
            .is_some_and(|problem| problem.to_string().contains("its snapshot is missing; delete the head"))
    };
    // One cannot follow it, one cannot go on after its lease has lapsed, and one cannot publish.
    fleet.is_deaf("a", true);
    fleet.run(2 * WAIT);
    fleet.is_deaf("a", false);
    fleet.run(10 * SECOND);
    for name in ["a", "b", "c"] {
        assert!(is_missing(&fleet, name), "{name}: {:?}", fleet.core(name).status().problem);
    }
    assert!(fleet.startable("a").epoch.is_some() && !fleet.may_start("a", key_of(&[&["b", "a"]])));
    let (heads, lists) = (fleet.head_reads, fleet.lists);
    fleet.run(60 * SECOND);
    assert!(fleet.head_reads - heads < 90, "{} reads of the head", fleet.head_reads - heads);
    assert!(fleet.lists - lists < 60, "{} lists", fleet.lists - lists);
    fleet.delete_head();
    fleet.run(3 * WAIT);
    for name in ["a", "b", "c"] {
        assert_eq!((fleet.ring(name).len(), fleet.core(name).status().problem), (3, None), "{name}");
        assert_eq!(fleet.startable(name).ranges, fleet.core(name).owned());
    }
}

/// An operator changes an access control list, or the members have different credentials.
#[test]
fn a_member_that_may_not_be_read_is_not_taken_for_one_that_is_gone() {
    for is_carried in [false, true] {
        let mut fleet = Fleet::new();
        let key = a_keeps_what_b_gained(&mut fleet, false);
        fleet.run(WAIT + SECOND);
        if is_carried {
            fleet.tell("b", Event::Pause(true));
            assert_eq!(fleet.head().head.carried.len(), 1);
        }
        fleet.deny("a", true);
        // It makes a list, and an epoch.
        fleet.tell("b", Event::Pause(!is_carried));
        fleet.run(WAIT + SECOND);
        fleet.tell("b", Event::Pause(is_carried));
        fleet.run(60 * SECOND);
        assert!(fleet.acts("a") && !fleet.may_start("b", key), "carried: {is_carried}");
        fleet.deny("a", false);
        fleet.tell("b", Event::Pause(false));
        fleet.end("a");
        fleet.run(6 * SECOND);
        assert!(fleet.may_start("b", key), "{:?}", fleet.core("b").status());
    }
}

/// Another process overwrites the data of a member, which cannot write them again at once.
#[test]
fn a_member_whose_data_was_overwritten_may_still_act_on_what_it_has_lost() {
    for is_carried in [false, true] {
        let mut fleet = Fleet::new();
        let key = a_keeps_what_b_gained(&mut fleet, false);
        fleet.run(WAIT + SECOND);
        if is_carried {
            fleet.tell("b", Event::Pause(true));
            assert_eq!(fleet.head().head.carried.len(), 1);
        }
        fleet.is_deaf("a", true);
        fleet.overwrite("a", b"garbage");
        for pause in [!is_carried, is_carried, false] {
            fleet.tell("b", Event::Pause(pause));
            fleet.run(SECOND);
            assert!(fleet.acts("a") && !fleet.may_start("b", key), "carried: {is_carried}");
        }
        assert!(fleet.startable("b").is_exclusive, "it is not taken for a plain member");
        fleet.is_deaf("a", false);
        fleet.run(2 * SECOND);
        assert!(fleet.part("a").keep.contains_position(key), "it has written its data again");
        assert!(fleet.acts("a") && !fleet.may_start("b", key));
        fleet.end("a");
        fleet.run(6 * SECOND);
        assert!(fleet.may_start("b", key), "{:?}", fleet.core("b").status());
    }
}

/// A plain member, as a Python peer, of which nothing is known but the name.
#[test]
fn a_plain_member_that_may_not_be_read_keeps_no_epoch_from_being_published() {
    let mut fleet = Fleet::new();
    fleet.start_plain("p");
    fleet.deny("p", true);
    fleet.start("a");
    fleet.run(2 * WAIT);
    assert_eq!(fleet.ring("a"), ["a", "p"]);
    fleet.start("b");
    fleet.run(70 * SECOND);
    let floor = fleet.head().head.floor;
    fleet.start("c");
    fleet.run(5 * SECOND);
    assert_eq!(fleet.ring("c"), ["a", "b", "c", "p"]);
    assert!(fleet.head().head.floor > floor, "what it lost is released when it was waited for");
}

#[test]
fn a_donor_that_may_not_be_read_is_read_again_and_again_with_growing_pauses() {
    let key = key_of(&[&["a"], &["a", "b"]]);
    let mut fleet = Fleet::new();
    fleet.start("a");
    fleet.run(2 * WAIT);
    fleet.take("a", key);
    fleet.start("b");
    while fleet.ring("b").len() < 2 {
        fleet.run(100 * MS);
    }
    fleet.deny("a", true);
    fleet.tell("b", Event::MemberChanged(id("a")));
    let reads = fleet.reads;
    fleet.run(60 * SECOND);
    assert!(fleet.acts("a") && !fleet.may_start("b", key));
    assert!((10..25).contains(&(fleet.reads - reads)), "{} reads", fleet.reads - reads);
    fleet.deny("a", false);
    fleet.end("a");
    fleet.run(6 * SECOND);
    assert!(fleet.may_start("b", key), "{:?}", fleet.core("b").status());
}

#[test]
fn an_idle_member_leaves_a_strict_group_at_once() {
    let mut fleet = Fleet::new();
    for name in ["a", "b", "c"] {
        fleet.start_with(name, Settings { is_strict: true, ..settings(name) });
    }
    fleet.run(3 * WAIT);
    fleet.tell("a", Event::Leave { is_idle: true, drain: SECOND });
    fleet.run(SECOND);
    for name in ["b", "c"] {
        assert_eq!(fleet.ring(name), ["b", "c"]);
        assert_eq!(fleet.core(name).startable().ranges, fleet.core(name).owned(), "{name} waits");
    }
    assert!(!fleet.exists("a"), "its znode is gone");
}
