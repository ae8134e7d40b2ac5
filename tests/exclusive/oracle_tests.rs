//! The oracle finds what it is there for.

use crate::{
    journal::{Action, State},
    oracle::{Act, Acts, Gap, Ownership, actors, all_since},
};

fn act(process: usize, key: u32, start: u64, end: u64) -> Act {
    let action = Action { key, start, end, token: start, state: State::Done, is_exclusive: true };
    Act { process, action }
}

#[test]
fn two_processes_that_act_on_one_key_at_once_are_found_in_any_order() {
    let (first, second) = (act(1, 7, 10, 20), act(2, 7, 15, 30));
    for acts in [[first, second], [second, first]] {
        let overlaps = Acts::new(acts).overlaps();
        assert_eq!(overlaps.len(), 1);
        assert_eq!((overlaps[0].earlier, overlaps[0].later, overlaps[0].length()), (first, second, 5));
    }
}

#[test]
fn a_long_action_that_shorter_ones_hide_is_found() {
    let acts = Acts::new([act(1, 7, 0, 100), act(1, 7, 1, 2), act(2, 7, 50, 60), act(3, 7, 55, 56)]);
    let found: Vec<_> = acts.overlaps().iter().map(|it| (it.earlier.process, it.later.process)).collect();
    assert_eq!(found, [(1, 2), (1, 3)]);
}

#[test]
fn what_only_touches_or_is_another_key_or_the_same_process_is_no_overlap() {
    let acts = [act(1, 7, 10, 20), act(2, 7, 20, 30), act(2, 8, 10, 20), act(2, 7, 25, 40)];
    assert_eq!(Acts::new(acts).overlaps(), []);
}

#[test]
fn a_lower_token_of_a_later_owner_is_found() {
    let with_token = |act: Act, token| Act { action: Action { token, ..act.action }, ..act };
    let before = with_token(act(1, 7, 10, 20), 5);
    let after = with_token(act(2, 7, 30, 40), 4);
    let decreases = Acts::new([after, before]).decreases();
    assert_eq!(decreases.len(), 1);
    assert_eq!((decreases[0].before, decreases[0].after), (before, after));
    for good in [with_token(after, 5), with_token(after, 6), with_token(act(1, 7, 30, 40), 4)] {
        assert_eq!(Acts::new([before, good]).decreases(), []);
    }
}

#[test]
fn the_longest_gap_is_that_of_the_key_that_waited_longest() {
    let acts = Acts::new([
        act(1, 7, 0, 10),
        act(2, 7, 15, 20),
        act(1, 8, 0, 5),
        act(2, 8, 13, 50),
        act(1, 8, 60, 61),
        act(1, 9, 0, 100),
    ]);
    assert_eq!(acts.longest_gap(4, 20), Some(Gap { key: 8, from: 5, to: 13 }));
    assert_eq!(acts.longest_gap(4, 51), Some(Gap { key: 8, from: 50, to: 60 }));
    assert_eq!(acts.longest_gap(70, 90), None);
}

#[test]
fn an_ownership_goes_on_over_short_pauses() {
    let acts = Acts::new([act(1, 7, 0, 10), act(1, 7, 14, 20), act(2, 7, 21, 30), act(1, 7, 31, 32)]);
    let owned = |process, from, to| Ownership { process, from, to };
    assert_eq!(acts.ownerships(7, 5), [owned(1, 0, 20), owned(2, 21, 30), owned(1, 31, 32)]);
    assert_eq!(acts.ownerships(7, 3).len(), 4);
    assert_eq!(acts.len(), 4);
}

#[test]
fn the_actors_of_a_key_are_those_after_a_moment() {
    let acts = [act(1, 0, 0, 10), act(2, 0, 11, 20), act(2, 0, 21, 22), act(3, 1, 0, 30)];
    let found: Vec<_> = actors(&acts, 3, 5).into_iter().collect();
    assert_eq!(found, [(0, vec![1, 2]), (1, vec![3]), (2, vec![])]);
    assert_eq!(actors(&acts, 3, 10)[&0], [2]);
}

#[test]
fn all_have_acted_when_the_last_key_and_the_last_process_have() {
    let acts = [act(1, 0, 0, 10), act(1, 1, 12, 20), act(1, 1, 30, 40)];
    assert_eq!(all_since(&acts, 5), 12);
    assert_eq!(all_since(&acts, 15), 15);
    let later = act(2, 0, 33, 34);
    assert_eq!(all_since(&[acts[0], acts[1], acts[2], later], 5), 33);
}

#[test]
fn a_key_on_which_two_processes_begin_to_act_in_a_time_has_moved() {
    let acts = Acts::new([act(1, 7, 0, 10), act(2, 7, 20, 30), act(1, 8, 0, 10), act(1, 8, 20, 30)]);
    assert_eq!(acts.moved(0, 21), [7]);
    assert_eq!(acts.moved(0, 20), [0; 0]);
    assert_eq!(acts.moved(5, 25), [0; 0], "the first only ends in this time");
}
