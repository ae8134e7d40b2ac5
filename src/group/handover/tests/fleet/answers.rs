//! The store of a fleet: its answers and its watches.

use super::{
    super::{
        super::{
            places::Places,
            types::{Action, Event, GroupStat, Listing, Outcome, Refusal, Write},
        },
        ensemble::State,
    },
    Fleet, Held, Watched, create, id,
};
use crate::{
    backend::{CreateMode, Znode, path::ZnodePath},
    member::MemberId,
};

impl Fleet {
    /// Fires watches, and passes events, until there are none.
    pub(super) fn notice(&mut self) {
        for _ in 0..10_000 {
            let state = self.ensemble.newest().clone();
            for (name, member) in self.members.iter_mut().filter(|(_, it)| !it.is_deaf) {
                let fired = |watched: &Watched, seen: i64| match watched {
                    Watched::Head => mzxid(&state, &member.places.head) != seen,
                    Watched::Children => state.pzxid(&member.places.group) != seen,
                    Watched::Member(id) => {
                        mzxid(&state, &member.places.group.join(id.as_str()).unwrap()) != seen
                    }
                };
                let changed = member.watches.iter().filter(|(watched, seen)| fired(watched, **seen));
                for watched in changed.map(|(watched, _)| watched.clone()).collect::<Vec<_>>() {
                    member.watches.remove(&watched);
                    let event = match watched {
                        Watched::Head => Event::HeadChanged,
                        Watched::Children => Event::ChildrenChanged,
                        Watched::Member(id) => Event::MemberChanged(id),
                    };
                    self.events.push_back((*name, event));
                }
            }
            let deaf = |name: &str, fleet: &Fleet| fleet.members.get(name).is_some_and(|it| it.is_deaf);
            let Some(at) = self.events.iter().position(|(name, _)| !deaf(name, self)) else { return };
            let (name, event) = self.events.remove(at).unwrap();
            self.feed(name, event);
        }
        panic!("a hot loop");
    }

    fn feed(&mut self, name: &'static str, event: Event) {
        self.number += 1;
        let (now, random) = (self.now, self.number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let Some(member) = self.members.get_mut(name) else { return };
        for action in member.core.step(now, random, event) {
            if let Some(marked) = self.member(name).register.apply(&action) {
                self.events.push_front((name, marked));
            }
            let Some((what, answer)) = self.perform(name, action) else { continue };
            let member = self.member(name);
            if what.is_some_and(|what| member.holds.contains(&what)) {
                member.held.push(answer);
            } else {
                self.events.push_back((name, answer));
            }
        }
    }

    fn perform(&mut self, name: &'static str, action: Action) -> Option<(Option<Held>, Event)> {
        let state = self.ensemble.newest().clone();
        let member = self.members.get_mut(name).unwrap();
        let places = &member.places;
        let (me, denied) = (id(name), &self.denied);
        let is_denied = |id: &MemberId| *id != me && denied.contains(id);
        let read = |id: &MemberId| {
            let path = places.group.join(id.as_str()).unwrap();
            state.get(&path).and_then(|node: &Znode| places.read_member(node))
        };
        let event = match action {
            Action::ReadHead => {
                self.head_reads += 1;
                member.watches.insert(Watched::Head, mzxid(&state, &places.head));
                let read = state.get(&places.head).map(|node| Places::read_head(node).unwrap());
                return Some((Some(Held::Head), Event::Head(Ok(read))));
            }
            Action::ReadSnapshot { name } => {
                let node = state.get(&places.snapshot(name));
                Event::Snapshot(Ok(node.map(|node| Places::read_snapshot(node).unwrap())))
            }
            Action::ReadMembers { ids } => {
                for id in &ids {
                    let path = places.group.join(id.as_str()).unwrap();
                    member.watches.insert(Watched::Member(id.clone()), mzxid(&state, &path));
                }
                self.reads += 1;
                let ids = ids.into_iter().filter(|id| !is_denied(id));
                Event::Members(Ok(ids.map(|id| (id.clone(), read(&id))).collect()))
            }
            Action::StatGroup { watch } | Action::ListMembers { watch } => {
                let pzxid = state.pzxid(&places.group);
                if watch {
                    member.watches.insert(Watched::Children, pzxid);
                }
                if matches!(action, Action::StatGroup { .. }) {
                    let children = state.children(&places.group).count();
                    return Some((Some(Held::Stat), Event::GroupStat(Ok(GroupStat { pzxid, children }))));
                } else {
                    self.lists += 1;
                    let ids = state.children(&places.group).map(|(name, _)| id(name));
                    let found = |id: &MemberId| if is_denied(id) { Some(places.denied()) } else { read(id) };
                    let members = ids.filter_map(|id| Some((id.clone(), found(&id)?))).collect();
                    return Some((Some(Held::List), Event::Listed(Ok(Listing { pzxid, members }))));
                }
            }
            Action::ReadOwn => Event::Own(Ok(read(&id(name)))),
            Action::Commit { purpose, writes } => {
                let ops = places.ops(&writes).unwrap();
                let mut checks = writes.iter();
                let denied =
                    checks.position(|it| matches!(it, Write::CheckMember { id, .. } if is_denied(id)));
                let outcome = if member.fails.contains(&purpose) {
                    Outcome::Failed
                } else if let Some(index) = denied {
                    Outcome::Refused { index, why: Refusal::NotPermitted }
                } else {
                    match self.ensemble.commit(member.session, &ops) {
                        Ok(()) => Outcome::Applied,
                        Err((index, why)) => Outcome::Refused { index, why },
                    }
                };
                return Some((Some(Held::Commit(purpose)), Event::Committed { purpose, outcome }));
            }
            Action::Ended(ended) => {
                self.ended.push((name, ended));
                return None;
            }
            Action::Rejoin => {
                let (path, data) = (places.own.clone(), places.own_data(&member.core.part()));
                let session = member.session;
                self.ensemble.commit(session, &[create(path.clone(), data, CreateMode::Ephemeral)]).unwrap();
                let (_, stat) = self.ensemble.newest().get(&path).unwrap();
                Event::Joined { czxid: stat.czxid, version: stat.version }
            }
            _ => return None,
        };
        Some((None, event))
    }
}

fn mzxid(state: &State, path: &ZnodePath) -> i64 {
    state.get(path).map_or(-1, |node| node.1.mzxid)
}
