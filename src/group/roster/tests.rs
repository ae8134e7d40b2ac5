use proptest::prelude::*;

use super::*;
use crate::{backend::SessionId, group::member::Payload};

/// A group as a store keeps it: who is in it since which transaction.
#[derive(Debug, Clone, Default)]
struct Group {
    czxid: i64,
    zxid: i64,
    changes: i32,
    pzxid: i64,
    members: Vec<(String, i64, u32)>,
    denied: Vec<String>,
}

impl Group {
    fn new(names: &[&str]) -> Group {
        let mut group = Group { czxid: 1, zxid: 1, ..Group::default() };
        names.iter().for_each(|name| group.join(name, 1));
        group
    }

    fn change(&mut self) {
        self.zxid += 1;
        self.changes += 1;
        self.pzxid = self.zxid;
    }

    fn join(&mut self, name: &str, weight: u32) {
        self.change();
        self.members.push((name.into(), self.zxid, weight));
        self.members.sort();
    }

    fn leave(&mut self, name: &str) {
        self.change();
        self.members.retain(|(other, ..)| other != name);
    }

    fn has(&self, name: &str) -> bool {
        self.members.iter().any(|(other, ..)| other == name)
    }

    fn replace(&mut self, name: &str, weight: u32) {
        self.leave(name);
        // One transaction deletes and creates.
        self.zxid -= 1;
        self.join(name, weight);
    }

    fn stat(&self) -> Stat {
        Stat { czxid: self.czxid, pzxid: self.pzxid, cversion: self.changes, ..Stat::default() }
    }

    fn list(&self) -> (Vec<String>, Stat) {
        (self.members.iter().rev().map(|(name, ..)| name.clone()).collect(), self.stat())
    }

    fn read(&self, id: &MemberId) -> Result<Option<Znode>, Denied> {
        let found = self.members.iter().find(|(name, ..)| id == name.as_str());
        let Some((name, czxid, weight)) = found else { return Ok(None) };
        if self.denied.contains(name) {
            return Err(Denied);
        }
        let stat = Stat { czxid: *czxid, ephemeral_owner: Some(SessionId(1)), ..Stat::default() };
        Ok(Some((Payload { weight: *weight, ours: None }.encode(), stat)))
    }

    fn all(&self) -> Vec<(String, i64, u32)> {
        self.members.clone()
    }
}

fn seen(roster: &Roster) -> Vec<(String, i64, u32)> {
    let of = |member: &Member| (member.id().to_string(), member.incarnation(), member.weight());
    roster.members().iter().map(of).collect()
}

/// Lists and reads until all is known; returns how many znodes were read.
fn follow(roster: &mut Roster, group: &Group) -> usize {
    let (names, stat) = group.list();
    roster.list(names, &stat);
    let mut read = 0;
    loop {
        let due = roster.due();
        if due.is_empty() {
            assert!(roster.is_complete() && roster.is_current(&stat));
            return read;
        }
        read += due.len();
        let found: Vec<_> = due.into_iter().map(|id| (id.clone(), group.read(&id))).collect();
        roster.note(found);
    }
}

fn thousand() -> Group {
    let names: Vec<_> = (0..1000).map(|number| format!("m{number:04}")).collect();
    Group::new(&names.iter().map(String::as_str).collect::<Vec<_>>())
}

#[test]
fn a_join_reads_one_znode_and_a_leave_reads_none() {
    let (mut group, mut roster) = (thousand(), Roster::default());
    assert_eq!(follow(&mut roster, &group), 1000);
    group.leave("m0500");
    assert_eq!(follow(&mut roster, &group), 0);
    group.join("m0500", 3);
    assert_eq!(follow(&mut roster, &group), 1);
    assert_eq!(seen(&roster), group.all());
    group.leave("m0007");
    group.join("x", 1);
    group.join("y", 1);
    assert_eq!(follow(&mut roster, &group), 2);
    assert_eq!(seen(&roster), group.all());
}

#[test]
fn a_replaced_znode_of_the_same_name_is_found() {
    let (mut group, mut roster) = (thousand(), Roster::default());
    follow(&mut roster, &group);
    group.replace("m0500", 3);
    assert!(!roster.is_current(&group.stat()));
    follow(&mut roster, &group);
    assert_eq!(seen(&roster), group.all());
}

#[test]
fn a_rolling_restart_in_the_order_of_names_is_found_in_the_first_part_of_the_search() {
    let (mut group, mut roster) = (thousand(), Roster::default());
    follow(&mut roster, &group);
    let mut read = 0;
    for number in 0..1000 {
        group.replace(&format!("m{number:04}"), 2);
        read += follow(&mut roster, &group);
    }
    assert_eq!(seen(&roster), group.all());
    assert!(read <= 1000 * SEARCHED_AT_ONCE, "{read} znodes for a thousand restarts");
}

#[test]
fn names_that_came_and_went_unseen_have_all_others_read_again_once() {
    let (mut group, mut roster) = (thousand(), Roster::default());
    follow(&mut roster, &group);
    group.join("guest", 1);
    group.leave("guest");
    assert_eq!(follow(&mut roster, &group), 1000);
    assert_eq!(follow(&mut roster, &group), 0);
}

#[test]
fn a_group_that_was_created_again_is_read_anew() {
    let (mut group, mut roster) = (Group::new(&["a", "b"]), Roster::default());
    follow(&mut roster, &group);
    let again = Group::new(&["a", "b"]);
    group = Group { czxid: 9, pzxid: 12, ..again };
    assert!(!roster.is_current(&group.stat()));
    assert_eq!(follow(&mut roster, &group), 2);
}

#[test]
fn a_znode_that_changes_after_the_list_is_read_after_the_next_one() {
    let (mut group, mut roster) = (Group::new(&["a", "b", "c"]), Roster::default());
    let (names, stat) = group.list();
    roster.list(names, &stat);
    group.leave("a");
    group.replace("b", 5);
    let found: Vec<_> = roster.due().into_iter().map(|id| (id.clone(), group.read(&id))).collect();
    roster.note(found);
    assert!(roster.due().is_empty() && !roster.is_complete(), "only another list helps");
    assert_eq!(follow(&mut roster, &group), 1);
    assert_eq!(seen(&roster), group.all());
}

#[test]
fn children_that_are_no_members_are_read_once() {
    let mut roster = Roster::default();
    let group = Group::new(&["a"]);
    let (mut names, stat) = group.list();
    names.extend(["election".into(), "\u{1}".into()]);
    roster.list(names, &stat);
    let due: Vec<_> = roster.due().iter().map(ToString::to_string).collect();
    assert_eq!(due, ["a", "election"], "no member can have the third name");
    let persistent = (Vec::new(), Stat { czxid: 1, ..Stat::default() });
    let found = [("a".parse().unwrap(), group.read(&"a".parse().unwrap()))];
    roster.note(found.into_iter().chain([("election".parse().unwrap(), Ok(Some(persistent)))]));
    assert!(roster.is_complete());
    assert_eq!(seen(&roster), group.all());
}

#[test]
fn a_member_that_is_denied_is_read_once_and_hides_no_change_of_another_one() {
    let (mut group, mut roster) = (thousand(), Roster::default());
    group.denied = vec!["m0500".into()];
    assert_eq!(follow(&mut roster, &group), 1000);
    let denied = |roster: &Roster| roster.members()[500].clone();
    let before = denied(&roster);
    assert!(before.is_plain() && before.incarnation() == 0, "{before:?}");
    group.join("n", 1);
    assert_eq!(follow(&mut roster, &group), 1, "only the new one");
    // Nothing shows that the denied one was replaced, so the search reads all.
    group.replace("m0500", 1);
    assert_eq!(follow(&mut roster, &group), 1001);
    assert_eq!(denied(&roster), before);
    group.replace("m0500", 1);
    group.replace("m0900", 3);
    follow(&mut roster, &group);
    assert_eq!((denied(&roster), roster.members()[900].weight()), (before, 3));
    assert_eq!(follow(&mut roster, &group), 0);
}

#[derive(Debug, Clone)]
enum Step {
    Toggle(u8, u32),
    Replace(u8, u32),
    List,
    /// Lists, and what is read is of a later moment.
    ListThen(Vec<Step>),
    /// Lists, and reads only a part.
    Fail,
}

fn change() -> impl Strategy<Value = Step> {
    prop_oneof![
        (0_u8..6, 1_u32..4).prop_map(|(name, weight)| Step::Toggle(name, weight)),
        (0_u8..6, 1_u32..4).prop_map(|(name, weight)| Step::Replace(name, weight)),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => change(),
        2 => Just(Step::List),
        1 => proptest::collection::vec(change(), 1..4).prop_map(Step::ListThen),
        1 => Just(Step::Fail),
    ]
}

fn apply(group: &mut Group, step: &Step) {
    match step {
        Step::Toggle(name, weight) => {
            let name = format!("n{name}");
            if group.has(&name) { group.leave(&name) } else { group.join(&name, *weight) }
        }
        Step::Replace(name, weight) => {
            let name = format!("n{name}");
            if group.has(&name) {
                group.replace(&name, *weight);
            }
        }
        Step::List | Step::ListThen(_) | Step::Fail => {}
    }
}

proptest! {
    #[test]
    fn whatever_happens_a_complete_roster_has_exactly_the_members_of_its_list(
        steps in proptest::collection::vec(step(), 1..60),
    ) {
        let (mut group, mut roster) = (Group::new(&[]), Roster::default());
        for step in &steps {
            match step {
                Step::List => {
                    follow(&mut roster, &group);
                    prop_assert_eq!(seen(&roster), group.all());
                }
                Step::ListThen(later) => {
                    let listed = group.clone();
                    let (names, stat) = group.list();
                    roster.list(names, &stat);
                    later.iter().for_each(|step| apply(&mut group, step));
                    while let Some(id) = roster.due().pop() {
                        let found = group.read(&id);
                        roster.note([(id, found)]);
                    }
                    if roster.is_complete() {
                        prop_assert_eq!(seen(&roster), listed.all());
                    }
                }
                Step::Fail => {
                    let (names, stat) = group.list();
                    roster.list(names, &stat);
                    if let Some(id) = roster.due().pop() {
                        let found = group.read(&id);
                        roster.note([(id, found)]);
                    }
                }
                change => apply(&mut group, change),
            }
        }
        follow(&mut roster, &group);
        prop_assert_eq!(seen(&roster), group.all());
    }
}
