//! [`Share`]: the items that are this member's, for as long as they are.

use std::{fmt, ops::Deref, slice, sync::Arc, time::Duration, vec};

use tracing::warn;

use crate::{clock::Moment, session::validity::Validity, token::FencingToken};

/// What `extract_my_subset` returns: items that belong to this member, and until when it may act on them.
///
/// It dereferences to the items as handed out; that slice never changes. Iterating looks at the deadline before
/// each item and ends early, with one warning, when the share may have passed to somebody else. The iterator
/// that owns the share carries its guard along, so that the body of a `for` loop is covered too:
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
/// A share says when to stop *starting* work. An action that may take longer than the time that
/// [`remains`](Share::remaining) has to be fenced by its [`Share::token`] at the resource it acts on.
#[must_use = "the share says which items to act on"]
pub struct Share<T> {
    items: Vec<T>,
    guard: Guard,
}

/// What a share rests on.
#[derive(Clone)]
pub(crate) struct Guard {
    pub(crate) group: Arc<str>,
    pub(crate) epoch: i64,
    /// `None`: there was nothing to hand out.
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

    /// The items as handed out, without the guard: from here on nothing stops an action that comes too late.
    pub fn into_vec(self) -> Vec<T> {
        self.items
    }

    /// Whether this member may act on the items at this moment. False for good once the session or the
    /// membership that the share came from is over.
    pub fn is_valid(&self) -> bool {
        self.guard.is_valid()
    }

    /// Until when the share is valid if no further heartbeat is confirmed; each one that is moves it. In the
    /// time of the backend's clock ([`Connector::clock`](crate::backend::Connector::clock)).
    pub fn deadline(&self) -> Moment {
        self.guard.validity.as_ref().map_or(Moment::default(), Validity::deadline)
    }

    /// How much time is left until the deadline as it stands: zero once the share is invalid,
    /// [`Duration::MAX`] where there is nobody to share with.
    pub fn remaining(&self) -> Duration {
        self.guard.validity.as_ref().map_or(Duration::ZERO, Validity::remaining)
    }

    /// The generation of the membership that the share was computed from:
    /// [`View::epoch`](crate::group::View::epoch).
    pub fn epoch(&self) -> i64 {
        self.guard.epoch
    }

    /// A token for stores that must refuse stale writers: from one owner of a key to the next it never decreases. At
    /// present the same number as [`Share::epoch`].
    pub fn token(&self) -> FencingToken {
        FencingToken::new(self.guard.epoch)
    }

    /// Whether no other member can hold any of these items at the same time. Always false at present: a change
    /// of the membership reaches members one after another, so two of them may own a key for a moment.
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

/// The iterator of [`Share::iter`].
pub struct Iter<'a, T>(WhileValid<slice::Iter<'a, T>>);

/// The iterator that owns a share.
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
            warn!(group = %self.guard.group, left, "the share is no longer valid; leaving the rest to its new owner");
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
