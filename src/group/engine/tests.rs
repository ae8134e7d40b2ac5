use super::*;
use crate::{
    group::member::{Ours, Payload, Process},
    ring::Label,
};

const SECOND: Duration = Duration::from_secs(1);
const LIFETIME: Duration = Duration::from_secs(14);
const US: SessionId = SessionId(7);

fn at(seconds: f64) -> Moment {
    Moment::from_origin(Duration::from_secs_f64(seconds))
}

fn ours(nonce: u128) -> Ours {
    Ours {
        version: 1,
        label: Some(Label::Plain),
        replicas: Some(100),
        handover: None,
        nonce: Some(uuid::Uuid::from_u128(nonce)),
        process: Some(Process {
            host: "h".into(),
            boot_id: "b".into(),
            pid_namespace: "n".into(),
            pid: 1,
            start: 1,
        }),
    }
}

fn engine() -> Engine {
    engine_with(Duration::ZERO)
}

fn engine_with(settle: Duration) -> Engine {
    Engine::new(Settings {
        lists: true,
        group: "g".into(),
        me: "a".parse().unwrap(),
        ours: ours(1),
        retry: SECOND,
        max_retry: 30 * SECOND,
        check: 10 * SECOND,
        settle,
    })
}

fn member(name: &str, czxid: i64) -> Member {
    Member::read(name, &Payload::new(1, ours(9)).encode(), czxid).unwrap()
}

fn listed(epoch: i64, members: &[(&str, i64)]) -> Event {
    Event::Listed { epoch, members: members.iter().map(|(name, czxid)| member(name, *czxid)).collect() }
}

fn occupant(owner: i64, payload: Payload) -> Event {
    Event::Occupant(Some(Occupant {
        owner: Some(SessionId(owner)),
        czxid: 5,
        version: 1,
        created_ms: 1_790_000_000_000,
        payload,
        dead: false,
    }))
}

/// The connection broke before the reply came.
fn cut() -> Event {
    Event::Failed(backend::Error::Unknown("cut".into()), Error::Unreachable { reason: "cut".into() })
}

fn plain() -> Payload {
    Payload::decode(&[0xc0])
}

fn denied() -> Event {
    Event::Failed(backend::Error::NotPermitted, Error::NotPermitted { path: "/g".into() })
}

/// Feeds an event with full delays and returns the next action.
fn feed(engine: &mut Engine, seconds: f64, event: Event) -> Option<Action> {
    engine.handle(at(seconds), 1.0, event);
    engine.poll_action(at(seconds))
}

fn up(engine: &mut Engine, seconds: f64) -> Option<Action> {
    feed(engine, seconds, Event::SessionUp { session: US, lifetime: LIFETIME })
}

/// A member of the group `a` (ours, created by transaction 10) and `b`.
fn inside(settle: Duration) -> Engine {
    let mut engine = engine_with(settle);
    assert_eq!(up(&mut engine, 100.0), Some(Action::Join));
    assert_eq!(feed(&mut engine, 100.0, Event::Joined { czxid: 10, version: 1 }), Some(Action::List));
    assert_eq!(feed(&mut engine, 100.0, listed(10, &[("b", 3), ("a", 10)])), None);
    engine
}

#[test]
fn a_member_joins_lists_and_then_lists_again_now_and_then() {
    let engine = inside(Duration::ZERO);
    let picture = engine.picture();
    assert_eq!(picture.own, Some(Own { czxid: 10, version: 1 }));
    assert_eq!((picture.epoch, picture.members.len()), (10, 2));
    assert_eq!(picture.members[0].id(), &"a", "sorted by id");
    assert_eq!(engine.poll_timeout(), Some(at(112.0)), "ten seconds, spread by a fifth");
}

#[test]
fn without_a_session_there_is_no_action_and_with_one_only_one_at_a_time() {
    let mut engine = engine();
    assert_eq!(engine.poll_action(at(1.0)), None);
    assert_eq!(engine.poll_timeout(), None);
    assert_eq!(up(&mut engine, 1.0), Some(Action::Join));
    assert_eq!(engine.poll_action(at(2.0)), None, "the join is still under way");
}

#[test]
fn a_missing_group_is_created() {
    let mut engine = engine();
    up(&mut engine, 0.0);
    assert_eq!(feed(&mut engine, 0.0, Event::GroupMissing), Some(Action::CreateGroup));
    assert_eq!(feed(&mut engine, 0.0, Event::GroupReady), Some(Action::Join));
}

#[test]
fn a_group_that_is_deleted_again_and_again_is_not_created_without_a_pause() {
    let mut engine = engine();
    up(&mut engine, 0.0);
    let mut actions = 0;
    for _ in 0..20 {
        let event = if actions % 2 == 0 { Event::GroupMissing } else { Event::GroupReady };
        if feed(&mut engine, 0.0, event).is_none() {
            break;
        }
        actions += 1;
    }
    assert!(actions <= 7, "{actions} steps at one moment");
    assert_eq!(engine.poll_timeout(), Some(at(1.0)));
}

#[test]
fn our_own_znode_after_a_lost_reply_is_adopted() {
    let mut engine = engine();
    up(&mut engine, 0.0);
    assert_eq!(feed(&mut engine, 0.0, cut()), Some(Action::Join));
    assert_eq!(feed(&mut engine, 0.0, Event::Occupied), Some(Action::Inspect));
    assert_eq!(feed(&mut engine, 0.0, occupant(US.0, Payload::new(1, ours(1)))), Some(Action::List));
    assert_eq!(engine.own(), Some(Own { czxid: 5, version: 1 }));
}

#[test]
fn our_znode_from_an_earlier_session_is_taken_over() {
    let mut engine = engine();
    up(&mut engine, 0.0);
    feed(&mut engine, 0.0, Event::Occupied);
    let from_old_session = occupant(6, Payload::new(1, ours(1)));
    assert_eq!(feed(&mut engine, 0.0, from_old_session), Some(Action::TakeOver { version: 1 }));
    assert_eq!(feed(&mut engine, 0.0, Event::Joined { czxid: 11, version: 1 }), Some(Action::List));
}

#[test]
fn a_dead_process_of_this_host_is_taken_over() {
    let mut engine = engine();
    up(&mut engine, 0.0);
    feed(&mut engine, 0.0, Event::Occupied);
    let payload = Payload::new(1, ours(2));
    let dead =
        Occupant { owner: Some(SessionId(6)), czxid: 5, version: 4, created_ms: 0, payload, dead: true };
    assert_eq!(feed(&mut engine, 0.0, Event::Occupant(Some(dead))), Some(Action::TakeOver { version: 4 }));
    assert_eq!(
        feed(&mut engine, 0.0, Event::Occupied),
        Some(Action::Inspect),
        "it changed meanwhile: inspect it again"
    );
}

#[test]
fn the_znode_of_a_dead_process_is_waited_for_if_it_was_written_too_often_to_be_replaced() {
    for (version, expected) in [(4000, Some(Action::TakeOver { version: 4000 })), (4001, None)] {
        let mut engine = engine();
        up(&mut engine, 0.0);
        feed(&mut engine, 0.0, Event::Occupied);
        let payload = Payload::new(1, ours(2));
        let dead =
            Occupant { owner: Some(SessionId(6)), czxid: 5, version, created_ms: 0, payload, dead: true };
        assert_eq!(feed(&mut engine, 0.0, Event::Occupant(Some(dead))), expected);
        assert_eq!(engine.picture().blocked.is_some(), expected.is_none());
    }
}

#[test]
fn another_process_with_our_id_is_waited_for_then_refused_and_tried_again() {
    let mut engine = engine();
    up(&mut engine, 0.0);
    let (mut now, mut joins) = (0.0, 0);
    while engine.picture().refusal.is_none() {
        assert_eq!(feed(&mut engine, now, Event::Occupied), Some(Action::Inspect));
        assert_eq!(feed(&mut engine, now, occupant(6, plain())), None, "never taken over");
        assert!(now < 16.0, "no refusal after {now} seconds");
        now = engine.poll_timeout().unwrap().since_origin().as_secs_f64();
        assert_eq!(engine.poll_action(at(now)), Some(Action::Join));
        joins += 1;
    }
    assert!(now >= 14.0, "refused before a dead member's znode would have been gone");
    assert!(joins <= 17, "{joins} joins in {now} seconds");
    assert!(matches!(engine.picture().refusal, Some(Error::MemberIdTaken { .. })));

    feed(&mut engine, now, Event::Joined { czxid: 20, version: 1 });
    feed(&mut engine, now, listed(20, &[("a", 20)]));
    assert!(engine.picture().refusal.is_none(), "the other process has left");
}

#[test]
fn a_persistent_znode_with_our_name_is_waited_for() {
    let mut engine = engine();
    up(&mut engine, 0.0);
    feed(&mut engine, 0.0, Event::Occupied);
    let node = Occupant { owner: None, czxid: 5, version: 0, created_ms: 0, payload: plain(), dead: false };
    assert_eq!(feed(&mut engine, 0.0, Event::Occupant(Some(node))), None);
    assert_eq!(engine.poll_timeout(), Some(at(1.0)));
}

#[test]
fn a_znode_of_another_process_with_our_name_ends_our_membership_at_the_next_list() {
    let mut engine = inside(Duration::ZERO);
    feed(&mut engine, 101.0, Event::WatchFired);
    assert_eq!(engine.poll_action(at(101.05)), Some(Action::List));
    assert_eq!(feed(&mut engine, 101.05, listed(12, &[("a", 12), ("b", 3)])), Some(Action::Join));
    assert_eq!((engine.own(), engine.picture().own), (None, None));
}

#[test]
fn a_znode_that_is_gone_is_created_again_at_once() {
    for event in [Event::Gone, Event::SessionLost] {
        let mut engine = inside(Duration::ZERO);
        let action = feed(&mut engine, 101.0, event.clone());
        assert_eq!(engine.picture().own, None, "{event:?}");
        assert!(engine.picture().members.len() == 2, "the members last seen stay known");
        let action = action.or_else(|| up(&mut engine, 101.0));
        assert_eq!(action, Some(Action::Join), "{event:?}");
    }
}

#[test]
fn outcomes_from_an_earlier_session_are_ignored() {
    let mut engine = engine();
    up(&mut engine, 0.0);
    assert_eq!(feed(&mut engine, 0.0, Event::SessionLost), None);
    assert_eq!(feed(&mut engine, 0.0, Event::Joined { czxid: 10, version: 1 }), None);
    assert_eq!(engine.own(), None);
}

#[test]
fn failed_joins_back_off_up_to_the_cap_and_the_backoff_is_reset_once_inside() {
    let mut engine = engine();
    let mut now = 0.0;
    up(&mut engine, now);
    let mut delays = Vec::new();
    for _ in 0..7 {
        let failed = Event::Failed(backend::Error::Other("no".into()), Error::AuthFailed);
        assert_eq!(feed(&mut engine, now, failed), None);
        let due = engine.poll_timeout().unwrap().since_origin().as_secs_f64();
        delays.push((due - now).round());
        now = due + 0.001;
        assert_eq!(engine.poll_action(at(now)), Some(Action::Join));
    }
    assert_eq!(delays, [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0]);
    feed(&mut engine, now, Event::Joined { czxid: 10, version: 1 });
    feed(&mut engine, now, listed(10, &[("a", 10)]));
    feed(&mut engine, now, Event::Gone);
    feed(&mut engine, now, Event::Failed(backend::Error::Other("no".into()), Error::AuthFailed));
    assert_eq!(engine.poll_timeout(), Some(at(now) + SECOND));
}

#[test]
fn a_denied_join_is_a_refusal_that_is_tried_again_at_most_once_a_second() {
    let mut engine = engine();
    up(&mut engine, 0.0);
    engine.handle(at(0.0), 0.0, denied());
    assert!(matches!(engine.picture().refusal, Some(Error::NotPermitted { .. })));
    assert!(engine.poll_timeout().unwrap() >= at(1.0));
}

#[test]
fn a_denied_list_is_a_refusal_and_the_next_list_ends_it() {
    let mut engine = inside(Duration::ZERO);
    feed(&mut engine, 101.0, Event::WatchFired);
    engine.poll_action(at(101.05));
    feed(&mut engine, 101.05, denied());
    assert!(engine.picture().refusal.is_some());
    assert_eq!(engine.poll_action(at(102.1)), Some(Action::List));
    feed(&mut engine, 102.1, listed(10, &[("b", 3), ("a", 10)]));
    assert!(engine.picture().refusal.is_none());
}

#[test]
fn many_quick_changes_cause_few_lists() {
    let mut engine = inside(Duration::ZERO);
    let mut lists = 0;
    // A join each millisecond for five seconds; each list sets the watch again.
    for tick in 0..5000 {
        let now = 101.0 + f64::from(tick) / 1000.0;
        if engine.poll_timeout().is_some_and(|due| due > at(now) + SECOND) {
            engine.handle(at(now), 1.0, Event::WatchFired);
        }
        if engine.poll_action(at(now)) == Some(Action::List) {
            lists += 1;
            feed(&mut engine, now, listed(10 + i64::from(tick), &[("a", 10)]));
        }
    }
    assert!((2..=10).contains(&lists), "{lists} lists");
}

#[test]
fn an_older_list_does_not_take_a_newer_one_back() {
    let mut engine = inside(Duration::ZERO);
    for (epoch, members) in [(12, &[("a", 10)][..]), (11, &[("a", 10), ("b", 3)][..])] {
        feed(&mut engine, 101.0, Event::WatchFired);
        assert_eq!(engine.poll_action(at(102.0)), Some(Action::List));
        feed(&mut engine, 102.0, listed(epoch, members));
    }
    assert_eq!((engine.picture().epoch, engine.picture().members.len()), (12, 1));
}

#[test]
fn members_with_another_ring_leave_us_without_a_share_until_they_are_gone() {
    let mut engine = inside(Duration::ZERO);
    let ring = Ours { replicas: Some(200), ..ours(3) };
    let other = Member::read("c", &Payload::new(1, ring).encode(), 20).unwrap();
    feed(&mut engine, 101.0, Event::WatchFired);
    engine.poll_action(at(102.0));
    let members = vec![member("a", 10), other];
    feed(&mut engine, 102.0, Event::Listed { epoch: 20, members });
    let refusal = engine.picture().refusal.as_ref().map(ToString::to_string).unwrap_or_default();
    assert!(refusal.contains("`c`") && refusal.contains("200 replicas"), "{refusal}");

    feed(&mut engine, 103.0, Event::WatchFired);
    engine.poll_action(at(104.0));
    feed(&mut engine, 104.0, listed(21, &[("a", 10)]));
    assert!(engine.picture().refusal.is_none());
}

#[test]
fn a_change_is_adopted_when_the_membership_has_settled() {
    let settle = 2 * SECOND;
    let mut engine = inside(settle);
    assert_eq!(engine.picture().own, None, "the first view settles, too");
    assert_eq!(engine.poll_timeout(), Some(at(102.0)));
    engine.poll_action(at(102.0));
    assert_eq!(engine.picture().members.len(), 2);

    for (second, members) in [(103.0, &[("a", 10)][..]), (104.0, &[("a", 10), ("b", 20)][..])] {
        feed(&mut engine, second - 0.1, Event::WatchFired);
        assert_eq!(engine.poll_action(at(second)), Some(Action::List));
        feed(&mut engine, second, listed(30, members));
        assert_eq!(engine.picture().epoch, 10, "not yet");
    }
    engine.poll_action(at(105.9));
    assert_eq!(engine.picture().epoch, 10);
    engine.poll_action(at(106.0));
    assert_eq!(engine.picture().epoch, 30);
}

#[test]
fn a_membership_that_never_settles_is_adopted_all_the_same() {
    let mut engine = inside(2 * SECOND);
    engine.poll_action(at(102.0));
    let mut adopted = None;
    for step in 0..30 {
        let now = 103.0 + f64::from(step);
        feed(&mut engine, now - 0.9, Event::WatchFired);
        engine.poll_action(at(now + 0.05));
        feed(
            &mut engine,
            now + 0.05,
            listed(30 + i64::from(step), &[("a", 10), ("b", 20 + i64::from(step))]),
        );
        if engine.picture().epoch > 10 {
            adopted = Some(now);
            break;
        }
    }
    assert!(adopted.is_some_and(|now| now <= 114.0), "{adopted:?}");
}

#[test]
fn leaving_stops_first_and_then_deletes() {
    let mut engine = inside(Duration::ZERO);
    assert_eq!(feed(&mut engine, 101.0, Event::Leave), Some(Action::Leave));
    assert!(engine.own().is_none() && engine.picture().has_left, "no share while the znode is deleted");
    assert_eq!(feed(&mut engine, 101.0, Event::HasLeft), None);
    assert_eq!(engine.poll_timeout(), None);
    assert_eq!(up(&mut engine, 102.0), None, "it does not come back with the next session");
}

#[test]
fn leaving_is_tried_again_until_the_znode_or_the_session_is_gone() {
    let mut engine = inside(Duration::ZERO);
    feed(&mut engine, 101.0, Event::Leave);
    assert_eq!(feed(&mut engine, 101.0, cut()), Some(Action::Leave));
    feed(&mut engine, 101.0, Event::Failed(backend::Error::Other("no".into()), Error::AuthFailed));
    assert_eq!(engine.poll_action(at(102.1)), Some(Action::Leave));
    assert_eq!(feed(&mut engine, 102.1, Event::SessionLost), None);
    assert_eq!(up(&mut engine, 103.0), None);
}

#[test]
fn leaving_in_the_middle_of_a_join_deletes_what_the_join_may_have_left() {
    let mut engine = engine();
    assert_eq!(up(&mut engine, 0.0), Some(Action::Join));
    assert_eq!(feed(&mut engine, 0.0, Event::Leave), Some(Action::Leave));
}

#[test]
fn the_wait_for_another_process_with_our_id_starts_again_in_each_session() {
    let mut engine = engine();
    up(&mut engine, 100.0);
    feed(&mut engine, 100.0, Event::Occupied);
    feed(&mut engine, 100.0, occupant(8, plain()));
    // While the ensemble is down it expires no session, and a new leader gives every session its full timeout again.
    feed(&mut engine, 101.0, Event::SessionLost);
    assert_eq!(up(&mut engine, 200.0), Some(Action::Join));
    feed(&mut engine, 200.0, Event::Occupied);
    feed(&mut engine, 200.0, occupant(8, plain()));
    assert!(engine.picture().refusal.is_none(), "its owner may be dead");
}

#[test]
fn changes_a_second_apart_are_listed_without_a_growing_delay() {
    let mut engine = inside(Duration::ZERO);
    for second in 101..110 {
        let now = f64::from(second);
        feed(&mut engine, now, Event::WatchFired);
        assert_eq!(engine.poll_action(at(now + 0.06)), Some(Action::List), "second {second}");
        feed(&mut engine, now + 0.06, listed(i64::from(second), &[("a", 10), ("b", i64::from(second))]));
    }
}

#[test]
fn a_refusal_ends_with_the_join_even_if_the_membership_has_not_settled_yet() {
    let mut engine = engine_with(10 * SECOND);
    up(&mut engine, 100.0);
    feed(&mut engine, 100.0, denied());
    assert!(engine.picture().refusal.is_some());
    assert_eq!(engine.poll_action(at(110.0)), Some(Action::Join));
    feed(&mut engine, 110.0, Event::Joined { czxid: 10, version: 1 });
    feed(&mut engine, 110.0, listed(10, &[("a", 10)]));
    assert!(engine.picture().refusal.is_none() && engine.picture().own.is_none());
}

#[test]
fn a_request_whose_connection_breaks_is_sent_again_at_once_and_paused_only_if_that_repeats() {
    for is_inside in [false, true] {
        let mut engine = if is_inside { inside(Duration::ZERO) } else { engine() };
        let action = if is_inside { Action::List } else { Action::Join };
        if is_inside {
            feed(&mut engine, 101.0, Event::WatchFired);
            assert_eq!(engine.poll_action(at(101.1)), Some(Action::List));
        } else {
            up(&mut engine, 101.1);
        }
        for attempt in 1..=8 {
            assert_eq!(feed(&mut engine, 101.1, cut()), Some(action.clone()), "attempt {attempt}");
        }
        assert_eq!(feed(&mut engine, 101.1, cut()), None, "perhaps the request itself breaks it");
        // The pause ends soon after the connection is back, however long it has grown.
        assert!(engine.poll_timeout().unwrap() >= at(102.1));
        feed(&mut engine, 101.2, Event::Connected);
        assert!(engine.poll_timeout().unwrap() <= at(102.2));
        assert_eq!(engine.poll_action(at(102.3)), Some(action.clone()));
        for _ in 0..20 {
            assert_eq!(feed(&mut engine, 102.3, cut()), None);
            feed(&mut engine, 102.3, Event::Connected);
            assert_eq!(engine.poll_action(at(103.4)), Some(action.clone()), "it never grows beyond a second");
        }
    }
}

#[test]
fn a_pause_after_a_refusal_is_not_cut_short_by_a_new_connection() {
    let mut engine = engine();
    up(&mut engine, 0.0);
    feed(&mut engine, 0.0, denied());
    let due = engine.poll_timeout();
    feed(&mut engine, 0.1, Event::Connected);
    assert_eq!(engine.poll_timeout(), due);
}

#[test]
fn another_process_with_our_id_is_known_at_once_and_replaced_as_soon_as_it_is_gone() {
    let mut engine = engine();
    up(&mut engine, 0.0);
    let mut now = 0.0;
    let mut first = None;
    while engine.picture().refusal.is_none() {
        feed(&mut engine, now, Event::Occupied);
        feed(&mut engine, now, occupant(6, Payload::new(1, ours(2))));
        first.get_or_insert_with(|| engine.picture().blocked.clone());
        now = engine.poll_timeout().unwrap().since_origin().as_secs_f64();
        engine.poll_action(at(now));
    }
    let text = first.flatten().expect("known at once").to_string();
    assert_eq!(
        text,
        "member id `a` is already in use in group `g` by process 1 on host `h` since 2026-09-21 14:13:20 UTC, \
         session 0x6; it is tried again"
    );
    assert!(engine.picture().blocked.is_none(), "the refusal says it");
    // Refused for long, so the pauses are long. The watch on its znode fires.
    for _ in 0..5 {
        feed(&mut engine, now, Event::Occupied);
        feed(&mut engine, now, occupant(6, plain()));
        now = engine.poll_timeout().unwrap().since_origin().as_secs_f64();
        engine.poll_action(at(now));
    }
    feed(&mut engine, now, Event::Occupied);
    feed(&mut engine, now, occupant(6, plain()));
    assert!(engine.poll_timeout().unwrap() >= at(now + 20.0));
    feed(&mut engine, now + 5.0, Event::WatchFired);
    assert_eq!(engine.poll_action(at(now + 5.1)), Some(Action::Join));
}

#[test]
fn a_check_that_finds_no_change_is_followed_by_the_next_one() {
    let mut engine = inside(Duration::ZERO);
    let before = engine.picture().revision;
    assert_eq!(engine.poll_action(at(113.0)), Some(Action::Check));
    assert_eq!(feed(&mut engine, 113.0, Event::Unchanged), None);
    assert_eq!((engine.poll_timeout(), engine.picture().revision), (Some(at(125.0)), before));
    feed(&mut engine, 114.0, Event::WatchFired);
    assert_eq!(engine.poll_action(at(114.1)), Some(Action::List), "only a list sets the watch again");
}

#[test]
fn lists_that_take_long_are_spaced_out_until_the_group_is_quiet() {
    let mut engine = inside(Duration::ZERO);
    let (mut now, mut lists) = (101.0, 0);
    // The watch that each list sets fires while it is under way, and a list takes two seconds.
    feed(&mut engine, now, Event::WatchFired);
    while now < 161.0 {
        now = engine.poll_timeout().unwrap().since_origin().as_secs_f64();
        assert_eq!(engine.poll_action(at(now)), Some(Action::List));
        now += 2.0;
        feed(&mut engine, now, listed(10 + lists, &[("a", 10), ("b", 20 + lists)]));
        feed(&mut engine, now, Event::WatchFired);
        lists += 1;
    }
    assert!((9..=12).contains(&lists), "a third of the time: {lists}");
    now = engine.poll_timeout().unwrap().since_origin().as_secs_f64();
    engine.poll_action(at(now));
    feed(&mut engine, now, listed(1000, &[("a", 10)]));
    feed(&mut engine, now + 9.0, Event::WatchFired);
    assert!(
        engine.poll_timeout().unwrap() <= at(now + 30.1),
        "a change after a quiet time is listed at once"
    );
}
