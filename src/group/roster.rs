// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Roster`]: the children of a group as they were read last, and which of them have to be read after a list.
//!
//! A list gives the names of the children, and the `cversion` of the group: how many children were ever created and
//! deleted. If the names that came and went since the last list explain its growth, all other znodes are those that
//! were read before, so only the new names are read. If they do not, some names came and went unseen, or some znodes
//! were replaced by others of the same name, two changes each. Then known names are read again, in parts, until as many
//! replaced znodes were found as the growth allows. A znode was replaced if its `czxid` is later than the last list.
//!
//! Of a znode to which permission is denied nothing is known but the name, so a replacement of it is not noticed: its
//! member is the same before and after. The search for what is unexplained then reads all others.

use super::member::Member;
use crate::{
    backend::{Stat, Znode},
    member::MemberId,
    session::read::Denied,
};

/// See the module documentation.
#[derive(Debug, Default)]
pub(crate) struct Roster {
    list: Option<List>,
    /// The `pzxid` of the list before the last one: a znode that is younger is new or was replaced.
    before: i64,
    /// Sorted by name.
    children: Vec<Child>,
    unexplained: Unexplained,
    /// Where the next search for replaced znodes begins: after the last one that was found, because a rolling restart
    /// often follows the order of names.
    cursor: String,
}

/// The stat of the group at a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct List {
    czxid: i64,
    pzxid: i64,
    cversion: i32,
}

#[derive(Debug)]
struct Child {
    name: String,
    state: State,
    /// It was a child at the list before, too.
    is_old: bool,
}

#[derive(Debug)]
enum State {
    Unread,
    /// The znode that was read is not the one that the list has: it has changed after the list.
    Outdated,
    /// What was read before; it may have been replaced since.
    Suspect(Option<Member>),
    /// `None` if it is not a member.
    Known(Option<Member>),
}

/// The changes that the names of the last list do not explain.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Unexplained {
    #[default]
    None,
    /// At most so many replaced znodes.
    Replaced(u32),
    /// Everything may have changed.
    Anything,
}

/// How many new names are read at a time.
const READ_AT_ONCE: usize = 1024;
/// How many known names are read at a time in the search for replaced znodes.
const SEARCHED_AT_ONCE: usize = 64;

impl Roster {
    /// Whether the last list is still the newest one. `group` is the stat of the group.
    pub(crate) fn is_current(&self, group: &Stat) -> bool {
        self.list == Some(List::of(group)) && self.is_complete()
    }

    /// Has the plain members read again: a Python peer may have changed its capabilities, which no list shows. Returns
    /// whether there are any.
    pub(crate) fn forget_plain(&mut self) -> bool {
        let mut is_any = false;
        for child in &mut self.children {
            if matches!(&child.state, State::Known(Some(member)) if member.is_plain()) {
                child.state = State::Unread;
                is_any = true;
            }
        }
        is_any
    }

    /// Takes a list: the names of the children, in any order, and the stat of the group, both of one moment.
    pub(crate) fn list(&mut self, mut names: Vec<String>, group: &Stat) {
        let list = List::of(group);
        names.sort_unstable();
        let mut old = std::mem::take(&mut self.children).into_iter().peekable();
        let (mut gone, mut new) = (0_u32, 0_u32);
        self.children.reserve(names.len());
        for name in names {
            while old.next_if(|child| child.name < name).is_some() {
                gone += 1;
            }
            let child = match old.next_if(|child| child.name == name) {
                Some(Child { name, state: State::Outdated, .. }) => {
                    Child { name, state: State::Unread, is_old: true }
                }
                Some(child) => Child { is_old: true, ..child },
                None => {
                    new += 1;
                    Child::new(name)
                }
            };
            self.children.push(child);
        }
        gone += u32::try_from(old.count()).unwrap_or(u32::MAX);
        self.unexplained = match self.list {
            None => Unexplained::None,
            Some(before) if self.unexplained == Unexplained::None => before.unexplained(&list, gone + new),
            // The search of the last time did not end.
            Some(_) => Unexplained::Anything,
        };
        if self.unexplained != Unexplained::None {
            for child in &mut self.children {
                if let (Some(_), State::Known(member)) = (child.id(), &mut child.state) {
                    child.state = State::Suspect(member.take());
                }
            }
        }
        self.before = self.list.map_or(0, |before| before.pzxid);
        self.list = Some(list);
    }

    /// The members to read next: each has to be passed to [`Roster::note`]. None once all were read.
    pub(crate) fn due(&self) -> Vec<MemberId> {
        let unread = self.children.iter().filter(|child| matches!(child.state, State::Unread));
        let ids: Vec<_> = unread.filter_map(Child::id).take(READ_AT_ONCE).collect();
        // The young ones come first, because they may explain the rest.
        if !ids.is_empty() || self.unexplained == Unexplained::None {
            return ids;
        }
        let start = self.children.partition_point(|child| child.name <= self.cursor);
        let (first, last) = self.children.split_at(start);
        let suspects = last.iter().chain(first).filter(|child| matches!(child.state, State::Suspect(_)));
        suspects.filter_map(Child::id).take(SEARCHED_AT_ONCE).collect()
    }

    /// Takes what was read at names that were due: each with its znode, that there is none any more, or that permission
    /// is denied.
    pub(crate) fn note(&mut self, read: impl IntoIterator<Item = (MemberId, Result<Option<Znode>, Denied>)>) {
        let Some(list) = self.list else { return };
        for (id, found) in read {
            let found = found.map(|found| found.filter(|(_, stat)| stat.czxid <= list.pzxid));
            self.note_one(id.as_str(), found);
        }
        if self.unexplained == Unexplained::None {
            return;
        }
        let is_suspect = |child: &Child| matches!(child.state, State::Suspect(_));
        if self.unexplained == Unexplained::Replaced(0) || !self.children.iter().any(is_suspect) {
            self.unexplained = Unexplained::None;
            for child in &mut self.children {
                if let State::Suspect(member) = &mut child.state {
                    child.state = State::Known(member.take());
                }
            }
        }
    }

    fn note_one(&mut self, name: &str, found: Result<Option<Znode>, Denied>) {
        let Ok(at) = self.children.binary_search_by(|child| child.name.as_str().cmp(name)) else { return };
        let child = &mut self.children[at];
        let (data, stat) = match found {
            Ok(Some(found)) => found,
            Ok(None) => {
                child.state = State::Outdated;
                return;
            }
            // It must not keep all others from their shares. Python peers count each name as a member, so it is a plain
            // member here. Servers from 3.8.4 on do not give its stat, either: whether it is ephemeral is not known.
            Err(Denied) => {
                child.state = State::Known(Member::denied(name));
                return;
            }
        };
        // Only ephemeral children are members: an election under the group leaves a persistent child.
        let is_member = stat.ephemeral_owner.is_some();
        let read = || Some(Member::read(name, &data, stat.czxid)?.with_version(stat.version));
        child.state = State::Known(is_member.then(read).flatten());
        if child.is_old && stat.czxid > self.before {
            name.clone_into(&mut self.cursor);
            if let Unexplained::Replaced(left) = &mut self.unexplained {
                *left = left.saturating_sub(1);
            }
        }
    }

    /// Whether all is known, so that [`Roster::members`] are those at the time of the last list.
    pub(crate) fn is_complete(&self) -> bool {
        let is_known = |child: &Child| matches!(child.state, State::Known(_));
        self.children.iter().all(is_known)
    }

    /// The members that are known, sorted by id.
    pub(crate) fn members(&self) -> Vec<Member> {
        let known = self.children.iter().filter_map(|child| match &child.state {
            State::Known(member) | State::Suspect(member) => member.clone(),
            State::Unread | State::Outdated => None,
        });
        known.collect()
    }
}

impl Child {
    fn new(name: String) -> Child {
        // No member can have created a name that no path can have.
        let state = if MemberId::new(&name).is_ok() { State::Unread } else { State::Known(None) };
        Child { name, state, is_old: false }
    }

    fn id(&self) -> Option<MemberId> {
        MemberId::new(&self.name).ok()
    }
}

impl List {
    fn of(group: &Stat) -> List {
        List { czxid: group.czxid, pzxid: group.pzxid, cversion: group.cversion }
    }

    /// What so many changes of the names leave unexplained at a later list.
    fn unexplained(&self, later: &List, explained: u32) -> Unexplained {
        let grown = u32::try_from(later.cversion.wrapping_sub(self.cversion)).ok();
        let rest = grown.and_then(|grown| grown.checked_sub(explained));
        match rest {
            _ if later.czxid != self.czxid => Unexplained::Anything,
            Some(0) => Unexplained::None,
            Some(rest) if rest % 2 == 0 => Unexplained::Replaced(rest / 2),
            // Not a store that counts each change once.
            _ => Unexplained::Anything,
        }
    }
}

#[cfg(test)]
mod tests;
