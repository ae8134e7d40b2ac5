//! Groups: which members share the work, and which part belongs to this one.
//!
//! A [`Group`] is a handle to a membership. A background task joins the group, watches the other members, re-joins when
//! the znode of this member or its session is lost, and publishes each membership as an immutable [`View`]. A handle
//! answers from the last view and the deadline, without I/O.

pub(crate) mod behind;
pub(crate) mod driver;
pub(crate) mod engine;
pub(crate) mod exclusive;
pub(crate) mod handover;
pub(crate) mod held;
pub(crate) mod joining;
mod large;
pub(crate) mod member;
pub(crate) mod observe;
pub(crate) mod placement;
pub(crate) mod process;
pub(crate) mod python;
pub(crate) mod rebalance;
pub(crate) mod rebalances;
pub(crate) mod register;
pub(crate) mod roster;
pub(crate) mod status;
pub(crate) mod view;
mod watches;
pub(crate) mod weight;

use std::{
    fmt,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tracing::debug;

use self::{behind::Behind, driver::Command};
pub use self::{
    held::{Held, ItemLost},
    member::Member,
    observe::{MemberState, Observation, ObservedMember, Observer, PendingHandover},
    rebalance::Rebalance,
    rebalances::Rebalances,
    status::{HandoverEnded, HandoverKind, Status, Waiting, Why},
    view::{Standing, View},
};
use crate::{
    error::Error,
    ring::{By, HashRing, Itself, KeyOf, KeySet, Ranges, RingKey, Turn},
    session::{self, validity::Validity},
    share::Share,
    watch,
};
pub use crate::{
    error::{holder::Holder, unclear::Unclear},
    member::{MemberId, MemberIdError},
};

/// A membership in one group. Cheap to clone; all clones are the same membership.
///
/// Dropping the handles does not end the membership: [`Group::leave`] does, or the end of the coordinator.
#[derive(Clone)]
#[must_use = "the membership goes on until `leave`; ask the handle for a share"]
pub struct Group {
    pub(crate) views: watch::Receiver<Arc<View>>,
    pub(crate) behind: Behind,
}

/// How often a call reads the view again while this member is missing from its group.
const TRIES: u32 = 5;
/// The longest pause between two tries. Each pause is a random part of it.
const PAUSE: Duration = Duration::from_secs(2);
/// How long a leave waits for work in progress.
const DRAIN: Duration = Duration::from_secs(30);
/// How many keys are placed before the task yields to the runtime, and how many bytes of keys: a heartbeat must not wait
/// for a large set of items.
const A_TURN: Turn = Turn { keys: 1024, bytes: 256 * 1024 };

impl Group {
    /// A group with this member alone.
    pub(crate) fn of_one(name: &str, me: &MemberId, ring: HashRing) -> Group {
        let (keep, views) = watch::channel(Arc::new(View::of_one(name, me, ring)));
        Group { views, behind: Behind::Alone(Arc::new(keep)) }
    }

    /// The name of the group.
    pub fn name(&self) -> String {
        self.views.borrow().group().to_owned()
    }

    /// The last known membership, an immutable snapshot. No I/O.
    pub fn view(&self) -> Arc<View> {
        self.views.borrow().clone()
    }

    /// Returns those of `items` that belong to this member now, in the order given.
    ///
    /// Each item is its own key; [`Group::extract_my_subset_by`] takes a function that gives the key. The answer comes
    /// from the last view, normally without waiting:
    ///
    /// - While the backend cannot be reached, that view is used until the deadline of the last confirmed heartbeat.
    ///   After the deadline the share is empty and [invalid](Share::is_valid), at once.
    /// - While the first membership after a join [settles](crate::Join::settle), the share is empty.
    /// - A key that this member owns and another one may still act on is not in the share: [`Group::status`] says whom it
    ///   waits for. A later call has it.
    /// - If the backend can be reached and this member is missing from its group, the call waits for the re-join in the
    ///   background: it makes up to five tries, up to two seconds apart.
    ///
    /// It yields to the runtime after about every thousand keys, or 256 kB of keys.
    ///
    /// The model is `PartitionCoordinator.extract_my_subset` of `aodh.coordination`;
    /// [`guide::coming_from_aodh`](crate::guide::coming_from_aodh) compares the two, failure by failure.
    ///
    /// # Errors
    ///
    /// - [`Error::NotInGroup`] if five tries did not bring the znode of this member back.
    /// - [`Error::MemberIdTaken`], [`Error::NotPermitted`], [`Error::Head`], [`Error::RingMismatch`],
    ///   [`Error::RingUnclear`] or [`Error::Ring`] while this member cannot be in the group, or cannot have a share, for
    ///   that reason.
    /// - [`Error::NotPermitted`], [`Error::AuthFailed`] or [`Error::Config`] while no session can be opened for that
    ///   reason.
    /// - [`Error::Closed`] after the group was left or its coordinator has ended.
    ///
    /// # Cancel safety
    ///
    /// Safe: re-joining goes on in the background.
    pub async fn extract_my_subset<I>(&self, items: I) -> Result<Share<I::Item>, Error>
    where
        I: IntoIterator,
        I::Item: RingKey,
    {
        self.extract(items, Itself).await
    }

    /// Returns those of `items` whose key belongs to this member now, in the order given.
    ///
    /// The key may be a number, a clone, or borrowed from items that are passed by reference, as in
    /// `extract_my_subset_by(&alarms, |alarm| &alarm.id)`. It cannot be borrowed from items that are passed by value.
    ///
    /// # Errors
    ///
    /// As [`Group::extract_my_subset`].
    ///
    /// # Cancel safety
    ///
    /// Safe: re-joining goes on in the background.
    pub async fn extract_my_subset_by<I, K>(
        &self,
        items: I,
        key: impl Fn(&I::Item) -> K,
    ) -> Result<Share<I::Item>, Error>
    where
        I: IntoIterator,
        K: RingKey,
    {
        self.extract(items, By(key)).await
    }

    async fn extract<I: IntoIterator>(
        &self,
        items: I,
        key: impl KeyOf<I::Item>,
    ) -> Result<Share<I::Item>, Error> {
        let (view, has_share) = self.settled_view().await?;
        let (mut mine, mut positions) = (Vec::new(), Vec::new());
        if has_share {
            let subset = Ranges::clone(&view.mine).subset();
            let mut items = items.into_iter();
            let mut note = |position| positions.push(position);
            while subset.take_from(&mut items, A_TURN, &key, &mut mine, &mut note) {
                tokio::task::yield_now().await;
            }
        }
        Ok(Share::new(mine, positions, view.grant(has_share)))
    }

    /// Returns those of `keys` that belong to this member now, in the order of insertion.
    ///
    /// Like [`Group::extract_my_subset`], but for a set whose items were hashed once: it takes time in proportion to
    /// the answer, not to the set. The share borrows the set, so drop the share before you change the set.
    ///
    /// ```
    /// # use apportion::{Config, KeySet, PartitionCoordinator, backend};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
    /// let group = coordinator.join("pollsters").await?;
    /// let mut targets = KeySet::new(["10.0.0.1", "10.0.0.2"]);
    /// targets.insert("10.0.0.3");
    /// let mine = group.share(&targets).await?;
    /// assert_eq!(mine.into_vec(), [&"10.0.0.1", &"10.0.0.2", &"10.0.0.3"], "there is no other member");
    ///
    /// let mut rebalances = group.rebalances();
    /// let change = rebalances.next().await.expect("the group goes on");
    /// assert!(change.lost_of(&targets).is_empty());
    /// assert_eq!(change.gained_of(&targets).len(), 3, "all of it, to begin with");
    /// # Ok::<(), apportion::Error>(()) }).unwrap();
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Group::extract_my_subset`].
    ///
    /// # Cancel safety
    ///
    /// Safe: re-joining goes on in the background.
    pub async fn share<'a, T>(&self, keys: &'a KeySet<T>) -> Result<Share<&'a T>, Error> {
        let (view, has_share) = self.settled_view().await?;
        let nothing = Ranges::none();
        let ranges = if has_share { &*view.mine } else { &nothing };
        let (mine, positions) = keys.select_with_positions(ranges);
        Ok(Share::new(mine, positions, view.grant(has_share)))
    }

    /// The view for an answer, and whether this member has a share by it.
    async fn settled_view(&self) -> Result<(Arc<View>, bool), Error> {
        let mut views = self.views.clone();
        for attempt in 1..=TRIES {
            let view = views.borrow_and_update().clone();
            // Without its task no view will follow: the runtime of the coordinator has ended.
            if views.is_closed() {
                return Err(self.closed(&view));
            }
            match view.standing() {
                Standing::Member => return Ok((view, true)),
                Standing::Lapsed => return Ok((view, false)),
                Standing::Left => return Err(Error::Closed { group: view.group.to_string() }),
                Standing::Refused => return Err(view.refusal.clone().unwrap_or(self.closed(&view))),
                Standing::Joining if view.is_settling || view.is_warming || !self.is_connected()? => {
                    return Ok((view, false));
                }
                Standing::Joining if attempt == TRIES => break,
                Standing::Joining => {}
            }
            let pause = PAUSE.mul_f64(self.random());
            debug!(group = %view.group, attempt, ?pause, "missing from the group; trying again");
            tokio::select! {
                biased;
                changed = Self::no_longer_joining(&mut views) => if changed.is_err() { return Err(self.closed(&view)) },
                () = tokio::time::sleep(pause) => {}
            }
        }
        let view = self.view();
        let members = || view.members.iter().map(|member| member.id().clone()).collect();
        let members = view.is_read.then(members);
        Err(Error::NotInGroup { group: view.group.to_string(), member: view.me.clone(), members })
    }

    /// A random number from zero to one.
    pub(crate) fn random(&self) -> f64 {
        match &self.behind {
            Behind::Driver { access, .. } => access.random().unit(),
            // It is never missing from its group, so it never waits.
            Behind::Alone(_) => 1.0,
        }
    }

    /// Waits for a view in which this member is not [`Standing::Joining`].
    async fn no_longer_joining(views: &mut watch::Receiver<Arc<View>>) -> Result<(), watch::Closed> {
        views.wait_for(|view| view.standing() != Standing::Joining).await.map(drop)
    }

    fn closed(&self, view: &View) -> Error {
        Error::Closed { group: view.group.to_string() }
    }

    /// Whether there is a session whose connection is up; an error if there will be none until an operator acts.
    fn is_connected(&self) -> Result<bool, Error> {
        let Behind::Driver { access, .. } = &self.behind else { return Ok(true) };
        match &*access.status().borrow() {
            session::Status::Live(live) => Ok(live.is_connected()),
            session::Status::Opening { error: Some(error) } if !error.is_transient() => Err(error.clone()),
            session::Status::Opening { .. } => Ok(false),
            session::Status::Closed => Err(self.closed(&self.view())),
        }
    }

    /// The changes of the share of this member from now on. The first change reports all that it owns as gained.
    ///
    /// A slow reader misses nothing: each change is computed when it is read, relative to the last one that this reader
    /// got.
    pub fn rebalances(&self) -> Rebalances {
        Rebalances::new(self.views.clone(), self.behind.clone())
    }

    /// How this membership is, for an operator: what it owns, and which members it waits for. No I/O.
    pub fn status(&self) -> Status {
        Status::of(&self.views.borrow())
    }

    /// Says that this member, which joined with [`warming`](crate::Join::warming), is ready for a share. Nothing
    /// otherwise.
    pub fn ready(&self) {
        self.command(Command::Ready);
    }

    /// Pauses the group: until [`Group::resume`], no change of its members takes effect. Members that come get no share,
    /// and the keys of those that go have no owner. For an operator who restarts many members, for instance. All members
    /// see it in [`Status::is_paused`], and any of them can end it. Python members do not know it: one that comes gets its
    /// keys, and while one is there, the members that come and go change what it works on.
    ///
    /// Returns when it is written. Waits while that is not possible. Nothing in an immediate group, and without a
    /// backend.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the group was left before.
    ///
    /// # Cancel safety
    ///
    /// Once polled, it goes on in the background.
    pub async fn pause(&self) -> Result<(), Error> {
        self.set_paused(true).await
    }

    /// Ends what [`Group::pause`] has begun.
    ///
    /// # Errors
    ///
    /// As [`Group::pause`].
    ///
    /// # Cancel safety
    ///
    /// Once polled, it goes on in the background.
    pub async fn resume(&self) -> Result<(), Error> {
        self.set_paused(false).await
    }

    async fn set_paused(&self, pause: bool) -> Result<(), Error> {
        let mut views = self.views.clone();
        let closed = self.closed(&self.view());
        if self.is_leaving() {
            return Err(closed);
        }
        self.command(Command::Pause(pause));
        let is_done = |view: &Arc<View>| {
            view.has_left || view.shown.as_ref().is_none_or(|shown| shown.status.is_paused == pause)
        };
        match views.wait_for(is_done).await {
            Ok(view) if !view.has_left => Ok(()),
            _ => Err(closed),
        }
    }

    fn command(&self, command: Command) {
        if let Behind::Driver { commands, .. } = &self.behind {
            // Without its task there is nothing to do.
            let _ = commands.send(command);
        }
    }

    /// Leaves the group: starts nothing more, waits until the work in progress has ended, at most 30 seconds, and
    /// deletes the znode of this member. Its shares are empty from now on. The other members start on a key of this
    /// member as soon as no work on it is in progress here. In an [immediate](crate::Join::immediate) group all guards
    /// end at once.
    ///
    /// Do not await it while the same task has a guard of the group: it would wait for itself.
    ///
    /// Returns when the znode of this member is gone, or when it is clear that only the end of the session will remove
    /// it.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the group was left before.
    ///
    /// # Cancel safety
    ///
    /// Once polled, it goes on in the background.
    pub async fn leave(self) -> Result<(), Error> {
        if self.is_leaving() {
            return Err(self.closed(&self.view()));
        }
        self.start_leaving(DRAIN);
        self.has_left().await;
        Ok(())
    }

    /// How long a guard lasts after its item was lost.
    pub(crate) fn max_drain(&self) -> Duration {
        match &self.behind {
            Behind::Alone(_) => Duration::MAX,
            Behind::Driver { max_drain, .. } => *max_drain,
        }
    }

    /// Whether both are handles to one membership.
    pub(crate) fn is_same(&self, other: &Group) -> bool {
        self.views.same_channel(&other.views)
    }

    /// Whether the group was left, or is being left.
    pub(crate) fn is_leaving(&self) -> bool {
        match &self.behind {
            Behind::Alone(keep) => keep.borrow().has_left,
            Behind::Driver { is_leaving, commands, .. } => {
                is_leaving.load(Ordering::SeqCst) || commands.is_closed()
            }
        }
    }

    /// Whether the membership has ended, and its task with it.
    pub(crate) fn is_over(&self) -> bool {
        match &self.behind {
            Behind::Alone(keep) => keep.borrow().has_left,
            Behind::Driver { commands, .. } => commands.is_closed(),
        }
    }

    /// `drain`: how long work in progress may take.
    pub(crate) fn start_leaving(&self, drain: Duration) {
        match &self.behind {
            Behind::Alone(keep) => keep.send_modify(|view| {
                view.validity.iter().for_each(Validity::end);
                *view = Arc::new(View { has_left: true, ..View::clone(view) });
            }),
            Behind::Driver { commands, is_leaving, .. } => {
                if !is_leaving.swap(true, Ordering::SeqCst) {
                    // Without its task there is nothing to leave.
                    let _ = commands.send(Command::Leave { drain });
                }
            }
        }
    }

    /// Waits until the znode of this member is gone, or the task of the group has ended without that.
    pub(crate) async fn has_left(&self) {
        if let Behind::Driver { commands, .. } = &self.behind {
            commands.closed().await;
        }
    }

    /// Waits until this member is in the group.
    pub(crate) async fn joined(&self) -> Result<(), Error> {
        let mut views = self.views.clone();
        let closed = self.closed(&self.view());
        let is_in = |view: &Arc<View>| view.standing() != Standing::Joining || view.is_warming;
        let Ok(view) = views.wait_for(is_in).await else {
            return Err(closed);
        };
        match view.standing() {
            Standing::Refused => Err(view.refusal.clone().unwrap_or(closed)),
            Standing::Left => Err(closed),
            Standing::Joining | Standing::Member | Standing::Lapsed => Ok(()),
        }
    }
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Group").field(&self.view()).finish()
    }
}
