use super::*;
use crate::group::member::{Ours, Payload};

const RINGS: Rings = Rings { label: Label::Plain, replicas: 100 };

fn member(id: &str, weight: u32, czxid: i64) -> Member {
    let ours = Ours { version: 1, label: Some(Label::Plain), replicas: Some(100), ..Ours::default() };
    Member::read(id, &Payload::new(weight, ours).encode(), czxid).unwrap()
}

fn empty() -> Arc<HashRing> {
    Arc::new(HashRing::builder().build().unwrap())
}

fn built(members: &[(&str, u32)]) -> HashRing {
    let add = |builder: HashRingBuilder, (id, weight): &(&str, u32)| builder.weighted_member(*id, *weight);
    members.iter().fold(HashRing::builder(), add).build().unwrap()
}

#[test]
fn a_ring_that_was_changed_is_the_one_that_a_new_build_gives() {
    let all: Vec<Member> =
        (0..20).map(|number| member(&format!("m{number:02}"), 1 + number % 3, 1)).collect();
    let before = RINGS.plan(&all, &empty()).ring().unwrap();
    let cases: Vec<Vec<Member>> = vec![
        all.clone(),
        all[1..].to_vec(),
        [&all[..7], &all[8..]].concat(),
        [&all[..], &[member("x", 2, 2)]].concat(),
        [&all[..5], &[member("m05", 9, 2)], &all[6..]].concat(),
        all[10..].to_vec(),
        vec![],
    ];
    for members in cases {
        let plan = RINGS.plan(&members, &before);
        let expected =
            members.iter().map(|member| (member.id().as_str(), member.weight())).collect::<Vec<_>>();
        assert_eq!(*plan.ring().unwrap(), built(&expected), "{plan:?}");
    }
}

#[test]
fn one_change_costs_one_change_and_none_costs_nothing() {
    let all: Vec<Member> = (0..20).map(|number| member(&format!("m{number:02}"), 1, 1)).collect();
    let before = RINGS.plan(&all, &empty()).ring().unwrap();
    let same = RINGS.plan(&all, &before);
    assert!(same.work() == 0 && Arc::ptr_eq(&same.ring().unwrap(), &before));
    let left = RINGS.plan(&all[1..], &before);
    assert_eq!(left.changes, [Change::Without("m00".into())]);
    let joined = RINGS.plan(&all, &left.ring().unwrap());
    assert_eq!(joined.changes, [Change::With(all[0].id().clone(), 1)]);
}

#[test]
fn a_plain_member_makes_every_member_count_as_one() {
    let plain = Member::read("python", b"\xc0", 3).unwrap();
    let members = [member("a", 5, 1), member("b", 1, 2), plain];
    let ring = RINGS.plan(&members, &empty()).ring().unwrap();
    assert_eq!(*ring, built(&[("a", 1), ("b", 1), ("python", 1)]));
}

#[test]
fn a_member_for_whose_points_there_is_no_room_is_left_out_alone_until_there_is() {
    // By id, not by age.
    let members =
        [member("first", 1, 1), member("late", 100_000, 8), member("large", 100_000, 5), member("z", 2, 9)];
    let mut sorted = members.clone();
    sorted.sort_by(|one, other| one.id().cmp(other.id()));
    let plan = RINGS.plan(&sorted, &empty());
    let left_out: Vec<_> = plan.left_out.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!(left_out, ["late"], "the one that joined later");
    let ids: Vec<_> = plan.members.iter().map(|(id, weight)| (id.as_str(), *weight)).collect();
    assert_eq!(ids, [("first", 1), ("large", 100_000), ("z", 2)]);
    let without: Vec<_> = sorted.iter().filter(|member| *member.id() != "large").cloned().collect();
    assert!(RINGS.plan(&without, &empty()).left_out.is_empty());
}

#[test]
fn the_work_of_a_plan_is_known_before_it_is_done() {
    let members = [member("a", 100_000, 1), member("b", 60_000, 2)];
    let ring = Arc::new(built(&[("a", 1), ("b", 2)]));
    let plan = RINGS.plan(&members, &ring);
    assert_eq!((plan.left_out.len(), plan.changes.len(), plan.work()), (0, 2, 16_000_000));
}

/// Each has 2.9 MB with a thousand members, and takes milliseconds to make.
#[test]
fn members_of_one_process_share_a_large_ring() {
    let of = |count: i64, weight| -> Vec<Member> {
        (0..count).map(|number| member(&format!("shared-{number:03}"), weight, number)).collect()
    };
    let members = of(150, 1);
    let ring = RINGS.plan(&members, &empty()).ring().unwrap();
    let is_shared =
        |rings: Rings, members: &[Member]| Arc::ptr_eq(&ring, &rings.plan(members, &empty()).ring().unwrap());
    assert!(is_shared(RINGS, &members));
    assert!(!is_shared(RINGS, &members[1..]) && !is_shared(RINGS, &of(150, 2)));
    assert!(!is_shared(Rings { replicas: 101, ..RINGS }, &members));
    assert!(!is_shared(Rings { label: Label::PythonBytes, ..RINGS }, &members));
    // Also one that was changed step by step.
    let before = RINGS.plan(&members[1..], &empty()).ring().unwrap();
    assert!(Arc::ptr_eq(&ring, &RINGS.plan(&members, &before).ring().unwrap()));
}
