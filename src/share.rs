//! [`Share`]: the items that belong to this member, and for how long.

use std::{fmt, ops::Deref, slice, sync::Arc, time::Duration, vec};

use tracing::warn;

use crate::{clock::Moment, session::validity::Validity, token::FencingToken};

/// What `extract_my_subset` returns: items that belong to this member, and until when it may act on them.
///
/// It dereferences to a slice of all its items, which never changes. Iteration compares the deadline with the clock
/// before each item. It ends early, with one warning, when the items may belong to another member. This also works for
/// a `for` loop that takes the share by value:
///
/// ```
/// # async fn evaluate(_: String) {}
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let coordinator = apportion::PartitionCoordinator::standalone();
/// let group = coordinator.join("alarm-evaluator").await?;
/// for alarm in group.extract_my_subset(vec!["cpu".to_string(), "disk".to_string()]).await? {
///     evaluate(alarm).await;
/// }
/// # Ok::<(), apportion::Error>(()) }).unwrap();
/// ```
///
/// A share says when to stop *starting* work. If an action may take longer than the [remaining](Share::remaining) time,
/// pass [`Share::token`] to the resource that it writes to, and let that resource refuse lower tokens.
#[must_use = "the share says which items to act on"]
pub struct Share<T> {
    items: Vec<T>,
    guard: Guard,
}

/// What a share was computed from, and its validity.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) group: Arc<str>,
    pub(crate) epoch: i64,
    /// `None`: the member had no share.
    pub(crate) validity: Option<Validity>,
}

impl Guard {
    fn is_valid(&self) -> bool {
        self.validity.as_ref().is_some_and(Validity::is_valid)
    }
}

impl<T> Share<T> {
    pub(crate) fn new(items: Vec<T>, guard: Guard) -> Self {
        Share { items, guard }
    }

    /// Iterates over the items for as long as the share is valid.
    pub fn iter(&self) -> Iter<'_, T> {
        Iter(WhileValid { items: self.items.iter(), guard: self.guard.clone(), has_warned: false })
    }

    /// All items, without the deadline: from now on nothing stops an action that comes too late.
    pub fn into_vec(self) -> Vec<T> {
        self.items
    }

    /// Whether this member may act on the items at this moment. Once the session or the membership of the share has
    /// ended, it stays false. No I/O.
    pub fn is_valid(&self) -> bool {
        self.guard.is_valid()
    }

    /// Until when the share is valid if no further heartbeat is confirmed. Each confirmed heartbeat moves it. The
    /// moment is one of the backend's clock ([`Connector::clock`](crate::backend::Connector::clock)).
    pub fn deadline(&self) -> Moment {
        self.guard.validity.as_ref().map_or(Moment::default(), Validity::deadline)
    }

    /// The time until the current deadline: zero once the share is invalid, [`Duration::MAX`] without a backend.
    pub fn remaining(&self) -> Duration {
        self.guard.validity.as_ref().map_or(Duration::ZERO, Validity::remaining)
    }

    /// The generation of the membership that the share was computed from:
    /// [`View::epoch`](crate::group::View::epoch).
    pub fn epoch(&self) -> i64 {
        self.guard.epoch
    }

    /// A token for stores that must refuse stale writers: from one owner of a key to the next it never decreases. It is
    /// currently the same number as [`Share::epoch`].
    pub fn token(&self) -> FencingToken {
        FencingToken::new(self.guard.epoch)
    }

    /// Whether no other member can own any of these items at the same time. Currently always false: a change of the
    /// membership reaches members one after another, so two of them may own a key for a moment.
    pub fn is_exclusive(&self) -> bool {
        false
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
            .field("group", &self.guard.group)
            .field("epoch", &self.guard.epoch)
            .field("is_valid", &self.is_valid())
            .field("items", &self.items)
            .finish()
    }
}

impl<T> IntoIterator for Share<T> {
    type Item = T;
    type IntoIter = IntoIter<T>;

    fn into_iter(self) -> IntoIter<T> {
        IntoIter(WhileValid { items: self.items.into_iter(), guard: self.guard, has_warned: false })
    }
}

impl<'a, T> IntoIterator for &'a Share<T> {
    type Item = &'a T;
    type IntoIter = Iter<'a, T>;

    fn into_iter(self) -> Iter<'a, T> {
        self.iter()
    }
}

/// The iterator of [`Share::iter`]. It ends early when the share is no longer valid.
pub struct Iter<'a, T>(WhileValid<slice::Iter<'a, T>>);

/// The iterator of a share that was passed by value. It ends early when the share is no longer valid.
pub struct IntoIter<T>(WhileValid<vec::IntoIter<T>>);

struct WhileValid<I> {
    items: I,
    guard: Guard,
    has_warned: bool,
}

impl<I: ExactSizeIterator> Iterator for WhileValid<I> {
    type Item = I::Item;

    fn next(&mut self) -> Option<I::Item> {
        if self.guard.is_valid() {
            return self.items.next();
        }
        let left = self.items.len();
        if left > 0 && !std::mem::replace(&mut self.has_warned, true) {
            warn!(group = %self.guard.group, left, "the share is no longer valid; skipping the rest of its items");
        }
        None
    }
}

impl<'a, T> Iterator for Iter<'a, T> {
    type Item = &'a T;

    fn next(&mut self) -> Option<&'a T> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.0.items.len()))
    }
}

impl<T> Iterator for IntoIter<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.next()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, Some(self.0.items.len()))
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
