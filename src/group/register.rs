//! [`Register`]: which items of one membership are in progress, so that a change of the members finds their guards.
//!
//! The guards are spread over shards. A shard has one lock for its guards and for the snapshot of what may start. So
//! whether an item may start and its registration are one step: once [`Register::admit`] has returned, no item starts
//! by an older snapshot, and each one that did is found.

pub(crate) mod loss;
mod marks;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::Notify;

use self::marks::{Mark, NO_NUMBER};
use crate::{
    clock::Moment,
    ring::{Position, RangeIndex, Ranges},
    session::validity::Validity,
    token::FencingToken,
};

/// A power of two, so that few threads want one lock at the same time.
const SHARDS: usize = 16;
/// A shard without guards gives back its memory if it had room for more than so many.
const ROOM: usize = 1024;
/// The end of the list of free slots.
const NONE: u32 = u32::MAX;

/// The work in progress of one incarnation of a member. When the incarnation ends, so do all its guards, for good: the
/// next one has a register of its own.
pub(crate) struct Register {
    group: Arc<str>,
    validity: Validity,
    /// None without a backend: no other member can join, so nothing is ever lost.
    shards: Box<[Shard]>,
    /// The marked guards that were dropped and that the driver does not know of.
    ended: Mutex<VecDeque<(u64, Position)>>,
    /// Whether the driver waits for the end of all guards.
    watches_idle: AtomicBool,
    has_ended: Notify,
    /// Wakes the tasks that wait for the end of their guards: some were frozen or have ended.
    frozen: Notify,
}

/// Where items may start: an immutable snapshot. A lookup nearly always reads one byte of a table.
#[derive(Clone, Debug)]
pub(crate) struct Admission {
    ranges: Option<Arc<RangeIndex>>,
    token: FencingToken,
}

/// An item in progress, until this is dropped.
pub(crate) struct InFlight {
    register: Arc<Register>,
    shard: u32,
    slot: u32,
    token: FencingToken,
}

/// In cache lines of its own, so that threads at different shards do not slow each other down.
#[repr(align(128))]
struct Shard(Mutex<Slots>);

struct Slots {
    admission: Admission,
    slots: Vec<Slot>,
    /// The first free slot, or [`NONE`].
    free: u32,
    len: usize,
    /// By slot.
    marks: BTreeMap<u32, Mark>,
}

#[derive(Clone, Copy)]
enum Slot {
    Free { next: u32 },
    InFlight(Position),
    Marked,
}

impl Admission {
    /// Nothing may start.
    pub(crate) fn none() -> Self {
        Admission { ranges: None, token: FencingToken::default() }
    }

    /// What is in `ranges` may start.
    pub(crate) fn within(ranges: Ranges) -> Self {
        Admission { ranges: Some(Arc::new(ranges.index())), ..Admission::none() }
    }

    /// The same, by the membership that has this token.
    pub(crate) fn under(self, token: FencingToken) -> Self {
        Admission { token, ..self }
    }

    /// Whether an item at `position` that is in `known` may start. On a ring of tooz, only the first 32 bits of a position
    /// are known here. Where they are not enough, the item may start if this snapshot has all that `known` has there.
    #[inline]
    pub(crate) fn may_start(&self, position: Position, known: &Ranges) -> bool {
        self.ranges.as_ref().is_some_and(|ranges| ranges.contains_all_of(position, known))
    }

    /// Whether a guard at `position` that `before` let start may go on.
    fn may_go_on(&self, position: Position, before: &Admission) -> bool {
        before.ranges.as_ref().is_some_and(|before| self.may_start(position, before.ranges()))
    }
}

impl Register {
    /// Nothing may start before [`Register::admit`].
    pub(crate) fn new(group: Arc<str>, validity: Validity) -> Arc<Self> {
        Arc::new(Self::with_shards(group, validity, SHARDS))
    }

    /// For a group that no other member can join: everything may start, and nothing has to be registered.
    pub(crate) fn alone(group: Arc<str>, validity: Validity) -> Arc<Self> {
        Arc::new(Self::with_shards(group, validity, 0))
    }

    fn with_shards(group: Arc<str>, validity: Validity, shards: usize) -> Self {
        let shards = std::iter::repeat_with(Shard::new).take(shards).collect();
        Register {
            group,
            validity,
            shards,
            ended: Mutex::default(),
            watches_idle: AtomicBool::new(false),
            has_ended: Notify::new(),
            frozen: Notify::new(),
        }
    }

    pub(crate) fn group(&self) -> &Arc<str> {
        &self.group
    }

    pub(crate) fn validity(&self) -> &Validity {
        &self.validity
    }

    /// Starts an item of a share that has the ranges `known`, if it may start. `turn` spreads items over the shards: the
    /// caller counts it up.
    #[inline]
    pub(crate) fn start(
        self: &Arc<Self>,
        position: Position,
        known: &Ranges,
        turn: usize,
    ) -> Option<InFlight> {
        let shard = turn % SHARDS;
        let (slot, token) = match self.shards.get(shard) {
            Some(shard) => {
                let mut slots = shard.lock();
                (slots.start(position, known)?, slots.admission.token)
            }
            None => (NONE, FencingToken::default()),
        };
        Some(InFlight { register: Arc::clone(self), shard: shard as u32, slot, token })
    }

    /// Replaces what may start.
    pub(crate) fn admit(&self, admission: &Admission) {
        for shard in &self.shards {
            shard.lock().admission = admission.clone();
        }
    }

    /// Replaces what may start, and ends the guards of all else for good: in an immediate group another member may act
    /// on those items from now on.
    pub(crate) fn admit_only(&self, admission: &Admission) {
        for shard in &self.shards {
            let mut slots = shard.lock();
            let before = mem::replace(&mut slots.admission, admission.clone());
            slots.mark(|position| (!admission.may_go_on(position, &before)).then(|| Mark::ended(position)));
        }
        self.frozen.notify_waiters();
    }

    fn ended(&self) -> MutexGuard<'_, VecDeque<(u64, Position)>> {
        self.ended.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl InFlight {
    /// Whether this process may act on the item at this moment.
    pub(crate) fn is_valid(&self) -> bool {
        let validity = &self.register.validity;
        validity.is_valid() && self.frozen_until().is_none_or(|until| validity.now() < until)
    }

    /// Until when this process may act on it if no further heartbeat is confirmed.
    pub(crate) fn deadline(&self) -> Moment {
        let deadline = self.register.validity.deadline();
        self.frozen_until().map_or(deadline, |until| until.min(deadline))
    }

    /// How long this process may still act on it if no further heartbeat is confirmed.
    pub(crate) fn remaining(&self) -> Duration {
        let validity = &self.register.validity;
        let remaining = validity.remaining();
        self.frozen_until().map_or(remaining, |until| remaining.min(until.saturating_since(validity.now())))
    }

    /// Waits until it is not valid. Cancel safe.
    pub(crate) async fn lost(&self) {
        loop {
            // Before the state is read, so that every later change ends the wait.
            let frozen = self.register.frozen.notified();
            if !self.is_valid() {
                return;
            }
            tokio::select! {
                biased;
                () = frozen => {}
                () = self.register.validity.changed_until(true, self.frozen_until()) => {}
            }
        }
    }

    pub(crate) fn register(&self) -> &Register {
        &self.register
    }

    /// The token of the membership by which it was started. That of its share may be older: between the two, another
    /// member may have acted on the item, with a token of its own.
    pub(crate) fn token(&self) -> FencingToken {
        self.token
    }

    /// Whether its item was lost while it was in progress.
    pub(crate) fn is_marked(&self) -> bool {
        self.register
            .shards
            .get(self.shard as usize)
            .is_some_and(|shard| shard.lock().marks.contains_key(&self.slot))
    }

    /// The deadline that a heartbeat does not move any more, if it has one.
    fn frozen_until(&self) -> Option<Moment> {
        self.register.shards.get(self.shard as usize)?.lock().marks.get(&self.slot)?.until
    }
}

impl Drop for InFlight {
    #[inline]
    fn drop(&mut self) {
        let Some(shard) = self.register.shards.get(self.shard as usize) else { return };
        let (mark, is_last) = shard.lock().end(self.slot);
        let register = &self.register;
        if let Some(mark) = mark.filter(|mark| mark.number != NO_NUMBER) {
            register.ended().push_back((mark.number, mark.position));
            register.has_ended.notify_one();
        } else if is_last && register.watches_idle.load(Ordering::SeqCst) {
            register.has_ended.notify_one();
        }
    }
}

impl Shard {
    fn new() -> Self {
        Shard(Mutex::new(Slots {
            admission: Admission::none(),
            slots: Vec::new(),
            free: NONE,
            len: 0,
            marks: BTreeMap::new(),
        }))
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, Slots> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Slots {
    #[inline]
    fn start(&mut self, position: Position, known: &Ranges) -> Option<u32> {
        if !self.admission.may_start(position, known) {
            return None;
        }
        self.len += 1;
        let place = self.free;
        if let Some(slot @ &mut Slot::Free { next }) = self.slots.get_mut(place as usize) {
            *slot = Slot::InFlight(position);
            self.free = next;
            return Some(place);
        }
        let place = u32::try_from(self.slots.len()).expect("so many guards do not fit into memory");
        self.slots.push(Slot::InFlight(position));
        Some(place)
    }

    /// Returns the mark of the guard, and whether it was the last guard here.
    #[inline]
    fn end(&mut self, place: u32) -> (Option<Mark>, bool) {
        let ended = mem::replace(&mut self.slots[place as usize], Slot::Free { next: self.free });
        self.free = place;
        self.len -= 1;
        if self.len == 0 && self.slots.capacity() > ROOM {
            (self.slots, self.free) = (Vec::new(), NONE);
        }
        let mark = matches!(ended, Slot::Marked).then(|| self.marks.remove(&place)).flatten();
        (mark, self.len == 0)
    }

    /// Marks the guards without a mark for which there is one, and returns their positions.
    fn mark(&mut self, mark: impl Fn(Position) -> Option<Mark>) -> Vec<Position> {
        let mut marked = Vec::new();
        for (place, slot) in (0..).zip(&mut self.slots) {
            let Slot::InFlight(position) = *slot else { continue };
            if let Some(mark) = mark(position) {
                *slot = Slot::Marked;
                self.marks.insert(place, mark);
                marked.push(position);
            }
        }
        marked
    }
}
