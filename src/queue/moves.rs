// Pure: no runtime, no clock, no socket, no random numbers.

//! Every move of an entry, as the operations of one transaction.
//!
//! An entry is always one znode in exactly one folder: each move deletes it in one folder and creates it in another, in
//! one transaction.
//!
//! ```text
//!          put            take             end
//!        -------> unowned ------> owned --------> done -------> (confirmed, trimmed)
//!                  ^   ^            |
//!                  |   +------------+ given back
//!                  |                |
//!                  | revive         v given back too often
//!                  +-------------- dead ------> (discarded)
//! ```
//!
//! | move | deleted | created | value | besides |
//! |---|---|---|---|---|
//! | [`put`](Moves::put) | | `unowned` | pending | the bucket of its label is set |
//! | [`take`](Moves::take) | `unowned` | `owned` | running, one attempt more, worker and claim | its claim is created |
//! | [`update`](Moves::update) | | | another payload | `owned` is set in place; its claim is checked |
//! | [`end`](Moves::end) | `owned` | `done` | successful or failed, result or error | its claim is deleted |
//! | [`give_back`](Moves::give_back) | `owned` | `unowned`, or `dead` after the last attempt | pending, without worker and claim; with the reason, and until when it waits | its claim is deleted, or was gone; the bucket of its label is set |
//! | [`give_up`](Moves::give_up) | `owned` | `dead` | the same as after the last attempt | its claim is deleted |
//! | [`revive`](Moves::revive) | `dead` | `unowned` | pending, no attempts | the bucket of its label is set |
//! | [`remove`](Moves::remove) | `done`, `dead` or `unowned` | | | |
//!
//! Each move states the version of the entry, so the store refuses it if another process has moved or changed the entry
//! before. Every create is sequential, so an entry gets a new number with each move.

use super::{
    entry::Entry,
    fitting::ways,
    layout::Layout,
    names::path_of,
    value::{Back, Value},
};
use crate::{
    backend::{CreateMode, Op, path::ZnodePath},
    lease::kept,
};

/// The indexes of the operations of a move that deletes and creates.
pub(super) const DELETED: usize = 0;
pub(super) const CREATED: usize = 1;
/// The indexes of the operations of a put. Without a label there is no bucket.
pub(super) const PUT_CREATED: usize = 0;
pub(super) const PUT_BUCKET: usize = 1;

/// The moves in one queue.
#[derive(Debug)]
pub(super) struct Moves {
    pub(super) layout: Layout,
    /// After how many deliveries an entry goes to the dead letters; `None`: never.
    pub(super) max_attempts: Option<u32>,
}

/// An owned entry, as its worker last wrote it, or as a process that gives it back has read it.
#[derive(Debug, Clone)]
pub(super) struct Owned {
    pub(super) entry: Entry,
    pub(super) path: ZnodePath,
    pub(super) version: i32,
    pub(super) value: Value,
}

impl Moves {
    /// Puts `data`. With `seen`, the version of the label's bucket at a time when there was no entry of this label, the
    /// store refuses the put if one was added since.
    pub(super) fn put(&self, priority: u32, label: &str, data: Vec<u8>, seen: Option<i32>) -> Vec<Op> {
        let create = create(&self.layout.unowned, priority, label, data);
        [create].into_iter().chain(self.set_bucket(label, seen)).collect()
    }

    /// Takes an entry whose znode has this version; `value` is the taken one.
    pub(super) fn take(&self, entry: &Entry, version: i32, value: &Value) -> Vec<Op> {
        let delete = Op::delete(&path_of(&self.layout.unowned, entry), Some(version));
        vec![delete, create(&self.layout.owned, entry.priority(), entry.label(), value.data())]
    }

    /// Sets the value of an owned entry.
    pub(super) fn update(&self, owned: &Owned, data: Vec<u8>) -> Op {
        Op::set(&owned.path, data, Some(owned.version))
    }

    /// Ends an owned entry; `data` is that of the ended value.
    pub(super) fn end(&self, owned: &Owned, data: Vec<u8>) -> Vec<Op> {
        let (priority, label) = (owned.entry.priority(), owned.entry.label());
        vec![owned.delete(), create(&self.layout.done, priority, label, data)]
    }

    /// Gives back an owned entry.
    pub(super) fn give_back(&self, owned: &Owned, back: &Back) -> Vec<Op> {
        if self.is_dead_after(back.attempt) {
            return self.give_up(owned, back);
        }
        let (priority, label) = (owned.entry.priority(), owned.entry.label());
        let data = owned.value.given_back(back).data();
        let moved = [owned.delete(), create(&self.layout.unowned, priority, label, data)];
        moved.into_iter().chain(self.set_bucket(label, None)).collect()
    }

    /// Gives back an owned entry, for a request with room for so many bytes: see [`ways`].
    pub(super) fn ways_back(&self, owned: &Owned, back: &Back, room: usize) -> Vec<Vec<Op>> {
        ways(back.reason.as_deref().map(kept), room, |reason| {
            self.give_back(owned, &back.with_reason(reason))
        })
    }

    /// Makes an owned entry a dead letter, as [`Moves::ways_back`].
    pub(super) fn ways_up(&self, owned: &Owned, back: &Back, room: usize) -> Vec<Vec<Op>> {
        ways(back.reason.as_deref().map(kept), room, |reason| self.give_up(owned, &back.with_reason(reason)))
    }

    /// Ends an owned entry with an error, as [`Moves::ways_back`].
    pub(super) fn ways_to_fail(&self, owned: &Owned, error: &str, room: usize) -> Vec<Vec<Op>> {
        let ended = |error: Option<&str>| owned.value.ended(Err(error.unwrap_or_default().into()));
        ways(Some(error), room, |error| self.end(owned, ended(error).data()))
    }

    /// Makes an owned entry a dead letter.
    pub(super) fn give_up(&self, owned: &Owned, back: &Back) -> Vec<Op> {
        let (priority, label) = (owned.entry.priority(), owned.entry.label());
        let data = owned.value.dead(back).data();
        vec![owned.delete(), create(&self.layout.dead, priority, label, data)]
    }

    /// Whether an entry goes to the dead letters after so many deliveries.
    pub(super) fn is_dead_after(&self, attempt: u32) -> bool {
        self.max_attempts.is_some_and(|max| attempt >= max)
    }

    /// Puts a dead letter back, as if it had never been delivered.
    pub(super) fn revive(&self, letter: &Entry, version: i32, value: &Value) -> Vec<Op> {
        let (priority, label) = (letter.priority(), letter.label());
        let delete = self.remove(&self.layout.dead, letter, version);
        let moved = [delete, create(&self.layout.unowned, priority, label, value.revived().data())];
        moved.into_iter().chain(self.set_bucket(label, None)).collect()
    }

    /// Removes an entry from `done`, `dead` or `unowned` for good.
    pub(super) fn remove(&self, folder: &ZnodePath, entry: &Entry, version: i32) -> Op {
        Op::delete(&path_of(folder, entry), Some(version))
    }

    /// Sets the bucket of the label: a process that puts an entry of this label unless one is queued notices that one
    /// was added.
    fn set_bucket(&self, label: &str, seen: Option<i32>) -> Option<Op> {
        self.layout.bucket(label).map(|bucket| Op::set(&bucket, [], seen))
    }
}

impl Owned {
    fn delete(&self) -> Op {
        Op::delete(&self.path, Some(self.version))
    }
}

fn create(folder: &ZnodePath, priority: u32, label: &str, data: Vec<u8>) -> Op {
    Op::create(&Layout::entry(folder, priority, label), data, CreateMode::PersistentSequential)
}

#[cfg(test)]
mod tests;
