//! Heads, snapshots and payloads that no member of this version wrote.

use std::{sync::Arc, time::Duration};

use proptest::prelude::*;
use rmpv::Value;

use super::super::{
    codec,
    settings::{Problem, Settings},
    state::Handover,
    types::{
        Action, Change, Common, Entry, Epoch, Event, FormatError, Head, HeadRead, Incarnation, MAX_BYTES,
        Outcome, Part, Presence, Purpose, ReadError, Snapshot,
    },
};
use crate::{
    clock::Moment,
    error::unclear::Unclear,
    member::MemberId,
    ring::{HashRing, Label, Ranges},
    session::timing::Timing,
};

fn id(name: &str) -> MemberId {
    MemberId::new(name).unwrap()
}

fn entry(czxid: i64) -> Entry {
    Entry { czxid, weight: 3, is_plain: false, zone: Some("z".into()), unclear: None }
}

fn head() -> Head {
    Head {
        common: Common { label: Label::Plain, replicas: 4, lease: Duration::from_secs(5) },
        is_paused: false,
        floor: 7,
        carried: vec![Incarnation { id: id("b"), czxid: 3 }],
        snapshot: u64::MAX,
        base: 7,
        log: vec![Change {
            add: vec![(id("a"), entry(9))],
            del: vec![Incarnation { id: id("b"), czxid: 3 }],
            released: vec![Incarnation { id: id("b"), czxid: 3 }],
        }],
        digest: HashRing::builder().replicas(4).weighted_member("a", 3).build().unwrap().digest(),
        pzxid: 12,
    }
}

/// The snapshot of that head.
fn snapshot() -> Snapshot {
    Snapshot { epoch: 7, members: [(id("b"), Entry { czxid: 3, ..entry(3) })].into() }
}

fn array(bytes: &[u8]) -> Vec<Value> {
    match rmpv::decode::read_value(&mut &bytes[..]).unwrap() {
        Value::Array(values) => values,
        other => panic!("{other}"),
    }
}

fn bytes(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).unwrap();
    bytes
}

const TIMING: Timing = Timing {
    timeout: Duration::from_secs(10),
    heartbeat: Duration::from_secs(1),
    heartbeat_validity: Duration::from_secs(5),
    margin: Duration::from_millis(500),
    server_tick: Duration::from_secs(2),
};

/// A member that has joined and asked for the head.
fn member() -> Handover {
    let mut member = Handover::new(Settings::new(id("a"), Label::Plain, 4));
    let now = Moment::from_origin(Duration::from_secs(100));
    member.step(now, 1, Event::SessionBegan { asked: now, timing: TIMING });
    member.step(now, 2, Event::Head(Ok(Some(read(5, 8)))));
    assert!(member.step(now, 3, Event::Joined { czxid: 9, version: 0 }).contains(&Action::ReadHead));
    member
}

fn read(czxid: i64, version: i32) -> HeadRead {
    HeadRead { czxid, version, mzxid: 20, head: Arc::new(head()) }
}

/// The next moment at which it wants to be told the time, and what it then does, for a minute.
fn steps_in_a_minute(member: &mut Handover, answer: &Event) -> usize {
    let (mut steps, end) = (0, member.wakeup() + Duration::from_secs(60));
    loop {
        let now = member.wakeup();
        if now >= end {
            return steps;
        }
        steps += 1;
        if member.step(now, steps as u64, Event::Tick).contains(&Action::ReadHead) {
            let asked = member.step(now, steps as u64, answer.clone());
            if asked.iter().any(|it| matches!(it, Action::ReadSnapshot { .. })) {
                member.step(now, steps as u64, Event::Snapshot(Ok(Some(snapshot()))));
            }
        }
        assert!(steps < 10_000, "a hot loop");
    }
}

#[test]
fn head_snapshot_and_part_are_read_back() {
    let head = head();
    assert_eq!(codec::decode_head(&codec::encode_head(&head).unwrap()), Ok(head));
    let snapshot = Snapshot { epoch: 7, members: [(id("a"), entry(1)), (id("b"), entry(3))].into() };
    assert_eq!(codec::decode_snapshot(&codec::encode_snapshot(&snapshot).unwrap()), Ok(snapshot));
    for unclear in [None, Some(Unclear::NoMap), Some(Unclear::Weight), Some(Unclear::Changed)] {
        for weight in [0, 1, u32::MAX] {
            let plain = Entry { is_plain: true, weight, unclear: unclear.clone(), ..entry(2) };
            let snapshot = Snapshot { epoch: 7, members: [(id("python"), plain)].into() };
            let bytes = codec::encode_snapshot(&snapshot).unwrap();
            assert_eq!(codec::decode_snapshot(&bytes), Ok(snapshot));
        }
    }
    for presence in [Presence::Warming, Presence::Ready, Presence::Draining] {
        let keep = Ranges::from_parts([(0, 0), (5, 9), (u32::MAX, u32::MAX)]);
        let (ack, zone) = (Some(Epoch { head: 4, version: 2 }), Some("z".into()));
        for lease in [None, Some(Duration::from_millis(1500))] {
            let (keep, zone) = (keep.clone(), zone.clone());
            let part = Part { presence, ack, keep, zone, lease };
            assert_eq!(codec::part_from(&codec::part_value(&part)), Some(part));
        }
    }
}

#[test]
fn a_newer_format_is_told_from_garbage() {
    let mut values = array(&codec::encode_head(&head()).unwrap());
    values.push("what a later version appends".into());
    assert_eq!(codec::decode_head(&bytes(&Value::Array(values.clone()))), Ok(head()));
    values[0] = 2.into();
    assert_eq!(codec::decode_head(&bytes(&Value::Array(values.clone()))), Err(FormatError::Newer(2)));
    for place in 1..12 {
        let mut values = array(&codec::encode_head(&head()).unwrap());
        values[place] = Value::Nil;
        let error = codec::decode_head(&bytes(&Value::Array(values))).unwrap_err();
        assert!(matches!(error, FormatError::Garbage(_)), "{place}: {error}");
    }
    assert!(matches!(codec::decode_head(&vec![0; 2 * MAX_BYTES + 1]), Err(FormatError::TooLarge(_))));
    let members =
        (0..20_000).map(|number| (id(&format!("a-member-with-a-long-name-{number}")), entry(number)));
    let large = Snapshot { epoch: 1, members: members.collect() };
    assert!(matches!(codec::encode_snapshot(&large), Err(FormatError::TooLarge(_))));
}

/// All others would wait for it.
#[test]
fn a_lease_that_no_session_can_have_is_not_believed() {
    let of = |lease: Value| {
        let mut values = array(&codec::encode_head(&head()).unwrap());
        values[3] = lease.clone();
        let part = Value::Map(vec![("state".into(), "ready".into()), ("lease".into(), lease)]);
        let part = codec::part_from(&part).expect("the rest of it counts");
        (codec::decode_head(&bytes(&Value::Array(values))).map(|head| head.common.lease), part.lease)
    };
    for lease in [Value::from(0), u64::MAX.into(), (1_u64 << 31).into(), (-1).into(), "5000".into()] {
        let (in_head, in_part) = of(lease.clone());
        assert!(matches!(in_head, Err(FormatError::Garbage(_))), "{lease}: {in_head:?}");
        assert_eq!(in_part, None, "{lease}");
    }
    for lease in [1, 5000, u64::try_from(i32::MAX).unwrap()] {
        let read = Duration::from_millis(lease);
        assert_eq!(of(lease.into()), (Ok(read), Some(read)));
    }
    let short = Head { common: Common { lease: Duration::ZERO, ..head().common }, ..head() };
    assert!(codec::decode_head(&codec::encode_head(&short).unwrap()).is_ok());
}

#[test]
fn a_member_whose_heartbeats_are_too_slow_for_the_head_acts_only_while_its_lease_lasts_and_says_so() {
    let mut member = member();
    let now = Moment::from_origin(Duration::from_secs(100));
    let short = Duration::from_secs(2);
    let log = vec![Change { add: vec![(id("a"), entry(9))], ..head().log[0].clone() }];
    let short_head =
        Head { common: Common { lease: short, ..head().common }, carried: vec![], log, ..head() };
    let head = HeadRead { head: Arc::new(short_head), ..read(5, 8) };
    member.step(now, 4, Event::Head(Ok(Some(head))));
    let actions = member.step(now, 5, Event::Snapshot(Ok(Some(snapshot()))));
    let problem = Problem::LeaseTooShort { group: short, heartbeat: Duration::from_secs(1) };
    assert_eq!(member.status().problem.as_ref(), Some(&problem));
    let is_heartbeat =
        |it: &Action| matches!(it, Action::Commit { purpose: Purpose::Heartbeat | Purpose::Own, .. });
    assert!(actions.iter().any(is_heartbeat), "{actions:?}");
    let later = now + Duration::from_millis(100);
    let confirmed = Event::Committed { purpose: Purpose::Heartbeat, outcome: Outcome::Applied };
    assert!(member.step(later, 6, confirmed).contains(&Action::Lease(now + short)));
    assert!(
        member.may_start(now + short - Duration::from_millis(1), 17) && !member.may_start(now + short, 17)
    );
    assert_eq!(member.status().problem, Some(problem), "it is still so");
}

#[test]
fn an_ack_with_an_unreadable_keep_is_none() {
    let map = |keep: Value| {
        Value::Map(vec![
            ("state".into(), "ready".into()),
            ("ack".into(), Value::Array(vec![4.into(), 2.into()])),
            ("keep".into(), keep),
        ])
    };
    let odd = Value::Array(vec![1.into(), 2.into(), 3.into()]);
    let backwards = Value::Array(vec![9.into(), 5.into()]);
    let large = Value::Array(vec![1.into(), (1_u64 << 32).into()]);
    for keep in [odd, backwards, large, "all".into(), Value::Nil] {
        let part = codec::part_from(&map(keep.clone())).unwrap();
        assert_eq!((part.ack, part.keep), (None, Ranges::all()), "{keep}");
    }
    assert_eq!(codec::part_from(&Value::Nil), None);
    assert_eq!(codec::part_from(&Value::Map(vec![])), None);
}

#[test]
fn at_most_64_ranges_are_kept_and_they_cover_what_is_marked() {
    let marked = Ranges::from_parts((0..1000).map(|place| (place * place * 4000, place * place * 4000)));
    let kept = marked.clone().covered_by_at_most(64);
    assert_eq!(kept.len(), 64);
    assert!(marked.difference(&kept).is_empty());
}

#[test]
fn a_head_that_cannot_be_followed_is_a_problem_and_no_hot_loop() {
    let inconsistent = HeadRead { version: 9, ..read(5, 9) };
    let other = Head { common: Common { replicas: 5, ..head().common }, ..head() };
    let newer_floor = Head { floor: 7, base: 8, ..head() };
    type Expected = fn(&Problem) -> bool;
    let cases: [(Event, Expected); 6] = [
        (Event::Head(Err(ReadError::Format(FormatError::Newer(2)))), |it| matches!(it, Problem::Format(_))),
        (Event::Head(Err(ReadError::NotPermitted)), |it| *it == Problem::NotPermitted),
        (Event::Head(Ok(Some(inconsistent))), |it| matches!(it, Problem::Inconsistent(_))),
        (Event::Head(Ok(Some(HeadRead { head: Arc::new(other), ..read(5, 8) }))), |it| {
            matches!(it, Problem::OtherRing { replicas: 5, .. })
        }),
        (Event::Head(Ok(Some(HeadRead { head: Arc::new(newer_floor), ..read(5, 9) }))), |it| {
            matches!(it, Problem::Inconsistent(_))
        }),
        (Event::Head(Err(ReadError::Failed)), |_| false),
    ];
    for (event, is_expected) in cases {
        let mut member = member();
        let now = Moment::from_origin(Duration::from_secs(100));
        let mut asked = member.step(now, 4, event.clone());
        if asked.iter().any(|it| matches!(it, Action::ReadSnapshot { .. })) {
            asked = member.step(now, 5, Event::Snapshot(Ok(Some(snapshot()))));
        }
        let problem = member.status().problem;
        let is_transient = event == Event::Head(Err(ReadError::Failed));
        assert!(
            problem.as_ref().is_some_and(is_expected) || is_transient,
            "{event:?} gives {problem:?} and {asked:?}"
        );
        assert!(!member.may_start(now, 17));
        let steps = steps_in_a_minute(&mut member, &event);
        assert!((5..1500).contains(&steps), "{event:?}: {steps} steps in a minute");
    }
}

#[test]
fn a_head_that_went_back_is_not_followed() {
    let mut member = member();
    let now = Moment::from_origin(Duration::from_secs(100));
    member.step(now, 4, Event::Head(Ok(Some(read(5, 8)))));
    member.step(now, 5, Event::Snapshot(Ok(Some(snapshot()))));
    assert_eq!(member.startable().epoch, Some(Epoch { head: 5, version: 8 }));
    member.step(now, 6, Event::HeadChanged);
    let older = Head { log: vec![], ..head() };
    member.step(now, 7, Event::Head(Ok(Some(HeadRead { head: Arc::new(older), ..read(5, 7) }))));
    assert_eq!(member.startable().epoch, Some(Epoch { head: 5, version: 8 }));
    assert_eq!(member.status().problem, Some(Problem::WentBack { found: 7, known: 8 }));
}

/// Data from a backup. They stay as they are until an operator deletes the head.
#[test]
fn a_head_that_stays_at_an_older_version_is_read_now_and_then() {
    let mut member = member();
    let now = Moment::from_origin(Duration::from_secs(100));
    member.step(now, 4, Event::Head(Ok(Some(read(5, 8)))));
    member.step(now, 5, Event::Snapshot(Ok(Some(snapshot()))));
    let older = Head { log: vec![], ..head() };
    let older = Event::Head(Ok(Some(HeadRead { head: Arc::new(older), ..read(5, 7) })));
    assert!(member.step(now, 6, Event::HeadChanged).contains(&Action::ReadHead));
    member.step(now, 7, older.clone());
    let steps = steps_in_a_minute(&mut member, &older);
    assert!((10..120).contains(&steps), "{steps} steps in a minute");
    assert_eq!(member.status().problem, Some(Problem::WentBack { found: 7, known: 8 }));
}

/// All data of the servers were deleted, or replaced by an older copy: transactions are numbered anew.
#[test]
fn a_member_whose_znode_is_older_than_what_it_has_read_forgets_that() {
    let mut member = member();
    let now = Moment::from_origin(Duration::from_secs(100));
    member.step(now, 4, Event::Head(Ok(Some(read(5, 8)))));
    member.step(now, 5, Event::Snapshot(Ok(Some(snapshot()))));
    assert!(member.startable().epoch.is_some());
    for (czxid, is_forgotten) in [(21, false), (19, true)] {
        member.step(now, 6, Event::SessionEnded);
        member.step(now, 7, Event::SessionBegan { asked: now, timing: TIMING });
        member.step(now, 8, Event::Head(Ok(Some(read(3, 8)))));
        let actions = member.step(now, 9, Event::Joined { czxid, version: 0 });
        assert_eq!(actions.contains(&Action::StoreWentBack), is_forgotten, "{actions:?}");
        member.step(now, 10, Event::Head(Ok(Some(read(3, 8)))));
        member.step(now, 11, Event::Snapshot(Ok(Some(snapshot()))));
        let followed = member.startable().epoch.map(|epoch| epoch.head);
        assert_eq!(followed, is_forgotten.then_some(3), "{:?}", member.status().problem);
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_readers_panic(data in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = codec::decode_head(&data);
        let _ = codec::decode_snapshot(&data);
        if let Ok(value) = rmpv::decode::read_value(&mut &data[..]) {
            let _ = codec::part_from(&value);
        }
    }

    #[test]
    fn ranges_are_sets(a in parts(), b in parts(), limit in 1_usize..6) {
        let (x, y) = (Ranges::from_parts(a.clone()), Ranges::from_parts(b.clone()));
        let cover = x.clone().covered_by_at_most(limit);
        prop_assert!(cover.len() <= limit);
        prop_assert_eq!(x.intersects(&y), !x.intersection(&y).is_empty());
        for position in 0..40 {
            let of = |parts: &[(u32, u32)]| parts.iter().any(|(first, last)| (*first..=*last).contains(&position));
            let (in_a, in_b) = (of(&a), of(&b));
            prop_assert_eq!(x.contains_position(position), in_a);
            prop_assert_eq!(x.union(&y).contains_position(position), in_a || in_b);
            prop_assert_eq!(x.intersection(&y).contains_position(position), in_a && in_b);
            prop_assert_eq!(x.difference(&y).contains_position(position), in_a && !in_b);
            prop_assert!(cover.contains_position(position) || !in_a);
        }
    }
}

fn parts() -> impl Strategy<Value = Vec<(u32, u32)>> {
    proptest::collection::vec((0_u32..40, 0_u32..40), 0..8)
}
