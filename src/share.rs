//! [`Share`]: the items that belong to this member, and for how long.

use std::{fmt, iter, ops::Deref, slice, sync::Arc, time::Duration, vec};

use tracing::warn;

use crate::{
    clock::Moment,
    group::{held::Held, register::Register},
    ring::{Position, Ranges},
    session::validity::Validity,
    token::FencingToken,
};

/// What `extract_my_subset` returns: items that belong to this member, and until when it may act on them.
///
/// Iterate over it to act on its items: each is a guard, [`Held`], and dropping it says that the work on the item has
/// ended. The slice that the share dereferences to, and [`Share::into_vec`], are for looking only.
///
/// The slice has all the items and never changes. Iteration compares the deadline with the clock before each item, and
/// ends early when all items may belong to another member. It skips an item that another member owns by the time its
/// turn has come. Either way there is one warning. A `for` loop that takes the share by value works as well:
///
/// ```
/// # async fn evaluate(_: &str) {}
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let coordinator = apportion::PartitionCoordinator::standalone();
/// let group = coordinator.join("alarm-evaluator").await?;
/// for alarm in group.extract_my_subset(vec!["cpu".to_string(), "disk".to_string()]).await? {
///     evaluate(&alarm).await;
/// }
/// # Ok::<(), apportion::Error>(()) }).unwrap();
/// ```
///
/// A share says when to stop *starting* work, and each guard when to stop the work on its item. If one action may take
/// longer than the [remaining](Held::remaining) time, pass [`Held::token`] to the resource that it writes to, and let
/// that resource refuse lower tokens.
#[must_use = "the share says which items to act on"]
pub struct Share<T> {
    items: Vec<T>,
    /// The position of each item.
    positions: Vec<Position>,
    grant: Grant,
}

/// What a share was computed from, and where its work is registered.
#[derive(Clone)]
pub(crate) struct Grant {
    pub(crate) group: Arc<str>,
    pub(crate) epoch: i64,
    pub(crate) is_exclusive: bool,
    /// What the member owned then: its items are in these ranges.
    pub(crate) ranges: Arc<Ranges>,
    /// `None`: the member had no share.
    pub(crate) register: Option<Arc<Register>>,
}

impl Grant {
    fn validity(&self) -> Option<&Validity> {
        self.register.as_ref().map(|register| register.validity())
    }

    fn is_valid(&self) -> bool {
        self.validity().is_some_and(Validity::is_valid)
    }

    fn token(&self) -> FencingToken {
        FencingToken::new(self.epoch)
    }

    /// The register, if items may start at this moment.
    #[inline]
    fn valid_register(&self) -> Option<&Arc<Register>> {
        self.register.as_ref().filter(|register| register.validity().is_valid())
    }

    /// A guard for an item at this position, if this member may start on it at this moment. `turn`: see
    /// [`Register::start`].
    pub(crate) fn start<T>(&self, item: T, position: Position, turn: usize) -> Option<Held<T>> {
        let in_flight = self.valid_register()?.start(position, &self.ranges, turn)?;
        Some(Held::new(item, in_flight))
    }
}

impl<T> Share<T> {
    pub(crate) fn new(items: Vec<T>, positions: Vec<Position>, grant: Grant) -> Self {
        Share { items, positions, grant }
    }

    /// Iterates over the items for as long as the share is valid: a guard for each when its turn comes.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(Turns::new(iter::zip(&self.items, self.positions.iter().copied()), self.grant.clone()))
    }

    /// All items, for looking only. Nothing stops an action on them that comes too late.
    pub fn into_vec(self) -> Vec<T> {
        self.items
    }

    /// Whether this member may act on the items at this moment. Once the session or the membership of the share has
    /// ended, it stays false. No I/O.
    pub fn is_valid(&self) -> bool {
        self.grant.is_valid()
    }

    /// Until when the share is valid if no further heartbeat is confirmed. Each confirmed heartbeat moves it. The
    /// moment is one of the backend's clock ([`Connector::clock`](crate::backend::Connector::clock)).
    pub fn deadline(&self) -> Moment {
        self.grant.validity().map_or(Moment::default(), Validity::deadline)
    }

    /// The time until the current deadline: zero once the share is invalid, [`Duration::MAX`] without a backend.
    pub fn remaining(&self) -> Duration {
        self.grant.validity().map_or(Duration::ZERO, Validity::remaining)
    }

    /// The generation of the membership that the share was computed from:
    /// [`View::epoch`](crate::group::View::epoch).
    pub fn epoch(&self) -> i64 {
        self.grant.epoch
    }

    /// A token for stores that must refuse stale writers: from one owner of a key to the next it never decreases. It is
    /// the same number as [`Share::epoch`]. That of a guard, [`Held::token`], is of the membership at its turn, which may
    /// be a later one: pass that.
    pub fn token(&self) -> FencingToken {
        self.grant.token()
    }

    /// Whether no other member can act on any of these items while the share is valid:
    /// [`View::is_exclusive`](crate::group::View::is_exclusive). Otherwise a change of the membership reaches members
    /// one after another, so two of them may act on a key until the later one has seen it: a Python member when it asks
    /// again.
    pub fn is_exclusive(&self) -> bool {
        self.grant.is_exclusive
    }
}

impl<T> Deref for Share<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items
    }
}

impl<T: fmt::Debug> fmt::Debug for Share<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share")
            .field("group", &self.grant.group)
            .field("epoch", &self.grant.epoch)
            .field("is_valid", &self.is_valid())
            .field("items", &self.items)
            .finish()
    }
}

impl<T> IntoIterator for Share<T> {
    type Item = Held<T>;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(Turns::new(iter::zip(self.items, self.positions), self.grant))
    }
}

impl<'a, T> IntoIterator for &'a Share<T> {
    type Item = Held<&'a T>;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// The iterator of [`Share::iter`]. It ends early when the share is no longer valid.
pub struct Iter<'a, T>(Turns<iter::Zip<slice::Iter<'a, T>, iter::Copied<slice::Iter<'a, Position>>>>);

/// The iterator of a share that was passed by value. It ends early when the share is no longer valid.
pub struct IntoIter<T>(Turns<iter::Zip<vec::IntoIter<T>, vec::IntoIter<Position>>>);

/// Gives a guard for each item whose turn has come, if this member may act on it.
pub(crate) struct Turns<I> {
    items: I,
    grant: Grant,
    /// Counts the turns.
    turn: usize,
    skipped: usize,
    has_warned: bool,
}

impl<T, I: Iterator<Item = (T, Position)>> Turns<I> {
    pub(crate) fn new(items: I, grant: Grant) -> Self {
        Turns { items, grant, turn: 0, skipped: 0, has_warned: false }
    }

    /// Warns once that the rest is skipped.
    #[cold]
    fn end(&mut self) {
        let left = self.items.size_hint().1;
        if left != Some(0) && !std::mem::replace(&mut self.has_warned, true) {
            let (group, skipped) = (&self.grant.group, self.skipped);
            warn!(%group, left, skipped, "the share is no longer valid; skipping the rest of its items");
        }
    }
}

impl<T, I: Iterator<Item = (T, Position)>> Iterator for Turns<I> {
    type Item = Held<T>;

    #[inline]
    fn next(&mut self) -> Option<Held<T>> {
        let Some(register) = self.grant.valid_register() else {
            self.end();
            return None;
        };
        loop {
            let (item, position) = self.items.next()?;
            self.turn = self.turn.wrapping_add(1);
            if let Some(in_flight) = register.start(position, &self.grant.ranges, self.turn) {
                return Some(Held::new(item, in_flight));
            }
            self.skipped += 1;
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.items.size_hint().1)
    }
}

impl<I> Drop for Turns<I> {
    fn drop(&mut self) {
        if self.skipped > 0 && !self.has_warned {
            let (group, skipped) = (&self.grant.group, self.skipped);
            warn!(%group, skipped, "items of the share now belong to another member; they were skipped");
        }
    }
}

impl<T> Iter<'_, T> {
    /// How many items were skipped so far because another member owned them when their turn came.
    pub fn skipped(&self) -> usize {
        self.0.skipped
    }
}

impl<T> IntoIter<T> {
    /// How many items were skipped so far because another member owned them when their turn came.
    pub fn skipped(&self) -> usize {
        self.0.skipped
    }
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = Held<&'a T>;

    #[inline]
    fn next(&mut self) -> Option<Held<&'a T>> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<T> Iterator for IntoIter<T> {
    type Item = Held<T>;

    #[inline]
    fn next(&mut self) -> Option<Held<T>> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.0.size_hint()
    }
}

impl<T> fmt::Debug for Iter<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Iter({} left)", self.0.items.len())
    }
}

impl<T> fmt::Debug for IntoIter<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "IntoIter({} left)", self.0.items.len())
    }
}
