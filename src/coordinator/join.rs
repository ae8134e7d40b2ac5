//! [`Join`]: joins a group once, for all callers that ask for it, and leaves it if no caller waits for it any more.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::{sync::mpsc, time::timeout};

use super::shared::{Backing, Entry, Options, Shared};
use crate::{
    backend::{BoxFuture, path::PathError},
    error::Error,
    group::{
        Group, View,
        behind::Behind,
        driver::{Driver, Places},
        engine::{Engine, Settings},
        exclusive::Exclusive,
        handover::{self, Handover},
        member::{Ours, Payload, Process},
        placement::Rings,
    },
    member::MAX_WEIGHT,
    ring::HashRing,
    session::{follow::Sessions, read::Sizes, requests::warn_if_open},
    watch,
};

/// A join with its options, from [`PartitionCoordinator::join`](super::PartitionCoordinator::join). Await it.
#[must_use = "a join does nothing until it is awaited"]
pub struct Join {
    pub(super) shared: Arc<Shared>,
    pub(super) group: String,
    pub(super) options: Options,
    /// Accepts a group that is joined already, with any options.
    pub(super) accepts_any: bool,
    pub(super) waits: bool,
}

impl Join {
    /// Sets the share of this member relative to others, from 1 to 100,000. Default: 1. A member of weight 3 gets about
    /// three times as many keys as one of weight 1. Python peers cannot read weights: while one is in the group, all
    /// weights count as 1. On the ring of tooz ([`Config::tooz`](crate::Config::tooz)) they can, so weights always
    /// count.
    pub fn weight(mut self, weight: u32) -> Self {
        self.options.weight = weight;
        self
    }

    /// Adopts a change of the membership only when no further change has come for `settle`, and at the latest after
    /// five times that. So a rolling restart moves keys once and not at each step. Until then, the keys of a member
    /// that is gone have no owner. Default: zero; where keys are handed over, changes within 50 ms are taken together. All members of a group should use the same value.
    pub fn settle(mut self, settle: Duration) -> Self {
        self.options.settle = settle;
        self
    }

    /// Joins without the handover of keys: a change of the membership takes effect at each member as soon as it has read
    /// it, so two members may act on one key for a moment. The default is exclusive: no two members act on one key, and
    /// a key waits for those who had it.
    ///
    /// While an immediate member is in a group, the shares of the other members are not exclusive, either.
    pub fn immediate(mut self) -> Self {
        self.options.is_immediate = true;
        self
    }

    /// For how long work may go on after its key was lost. Default: 5 minutes. Until the work on it ends, no other
    /// member starts on that key. Then the guard of the work ends. Nothing in an immediate group.
    pub fn max_drain(mut self, max_drain: Duration) -> Self {
        self.options.max_drain = max_drain;
        self
    }

    /// For how long keys of a member that does not hand keys over, as a Python peer, have no owner when they become this
    /// member's. Default: a minute. Such a peer says nothing of the work that it still does, so set it to the longest
    /// time for which one works on what it was given. All members of a group should use the same value. Nothing in an
    /// immediate group.
    pub fn plain_grace(mut self, grace: Duration) -> Self {
        self.options.plain_grace = grace;
        self
    }

    /// Waits for the lease of a member whose znode is gone. Default: not, because only the end of a session or the
    /// member itself deletes the znode. Use it where operators delete znodes of members that may still run: then keys of
    /// a member that is gone wait about a heartbeat validity longer. Those of a member that leaves do not: it first writes
    /// that its work has ended, and waits until the others know. No two live processes may have one id. Nothing in an
    /// immediate group.
    ///
    /// *All* members of a group have to use it. Nothing checks that: a member without it says in the epochs that it
    /// publishes that a member which is gone has released its keys, and strict members rely on that.
    pub fn strict(mut self) -> Self {
        self.options.is_strict = true;
        self
    }

    /// Joins without a share, until [`Group::ready`](crate::Group::ready): for a member that has to get ready first, and
    /// that others should see meanwhile. Nothing in an immediate group.
    pub fn warming(mut self) -> Self {
        self.options.is_warming = true;
        self
    }

    /// If more than half of the members are gone at once, their keys wait this long for them to come back. Default: no
    /// time. Only in groups of at least four members. Nothing in an immediate group.
    pub fn mass_loss_wait(mut self, wait: Duration) -> Self {
        self.options.mass_loss = Some(wait);
        self
    }

    async fn run(self) -> Result<Group, Error> {
        let Join { shared, group: name, options, accepts_any, waits } = self;
        if name.is_empty() {
            return Err(Error::GroupName { group: name, reason: PathError::Empty });
        }
        if !(1..=MAX_WEIGHT).contains(&options.weight) {
            return Err(Error::Weight { group: name, weight: options.weight });
        }
        let group = loop {
            let leaving = match shared.enter(&name, options, accepts_any)? {
                Entered::In(group) => break group,
                Entered::StillLeaving(group) => group,
            };
            leaving.has_left().await;
        };
        let mut claim = JoinClaim { shared: &shared, name: &name, group: &group, is_kept: false };
        if let Some(backing) = shared.backing.as_ref().filter(|_| waits) {
            let granted = backing.keeper.live().map(|live| live.timing.timeout);
            let limit = 2 * granted.unwrap_or(shared.config.session_timeout);
            let limit = limit.saturating_add(options.settle.saturating_mul(5));
            match timeout(limit, group.joined()).await {
                Ok(joined) => joined?,
                // A session timeout has room for two ticks, so another process with this id is normally refused before.
                Err(_) => match &group.view().blocked {
                    Some(error) => return Err(error.clone()),
                    None if group.status().is_paused => return Err(Error::Paused { group: name.clone() }),
                    None => return Err(backing.keeper.access(limit).unreachable(None)),
                },
            }
        }
        claim.is_kept = true;
        drop(claim);
        Ok(group)
    }
}

/// Undoes a join for which no caller waits any more.
struct JoinClaim<'a> {
    shared: &'a Shared,
    name: &'a str,
    group: &'a Group,
    is_kept: bool,
}

impl Drop for JoinClaim<'_> {
    fn drop(&mut self) {
        let mut groups = self.shared.lock();
        // The group may have been left meanwhile, and joined again by another caller.
        let entry = groups.as_mut().and_then(|groups| groups.get_mut(self.name));
        let Some(entry) = entry.filter(|entry| entry.group.is_same(self.group)) else { return };
        entry.waiting -= 1;
        entry.is_wanted |= self.is_kept;
        if entry.waiting == 0 && !entry.is_wanted {
            entry.group.start_leaving(Duration::ZERO);
        }
    }
}

impl IntoFuture for Join {
    type Output = Result<Group, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Result<Group, Error>> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Join {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Join")
            .field("group", &self.group)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

enum Entered {
    In(Group),
    StillLeaving(Group),
}

impl Shared {
    /// A group with this member alone.
    pub(super) fn alone(&self, name: &str) -> Result<Group, Error> {
        let ring = HashRing::builder()
            .replicas(self.config.replicas)
            .label(self.config.label)
            .member(self.me.as_str())
            .build()
            .map_err(|reason| Error::Ring { group: name.into(), reason })?;
        Ok(Group::of_one(name, &self.me, ring))
    }

    /// Finds the group, or starts it, and counts one more caller that waits for it.
    fn enter(self: &Arc<Self>, name: &str, options: Options, accepts_any: bool) -> Result<Entered, Error> {
        let mut groups = self.lock();
        let Some(groups) = groups.as_mut() else { return Err(Error::Closed { group: name.into() }) };
        // A group without a backend has no task that would forget it.
        groups.retain(|other, entry| other == name || !entry.group.is_over());
        if let Some(entry) = groups.get_mut(name) {
            if !entry.group.is_leaving() {
                if entry.options != options && !accepts_any {
                    return Err(Error::JoinedDifferently { group: name.into() });
                }
                entry.waiting += 1;
                return Ok(Entered::In(entry.group.clone()));
            }
            if !entry.group.is_over() {
                // The old membership could delete the znode of the new one.
                return Ok(Entered::StillLeaving(entry.group.clone()));
            }
        }
        let group = match &self.backing {
            Some(backing) => self.launch(backing, name, options)?,
            None => self.alone(name)?,
        };
        groups.insert(name.into(), Entry { group: group.clone(), options, waiting: 1, is_wanted: false });
        Ok(Entered::In(group))
    }

    /// Forgets a group that was left, with its last view, unless it was joined again meanwhile.
    fn forget(&self, name: &str, views: &watch::Receiver<Arc<View>>) {
        let mut groups = self.lock();
        let Some(groups) = groups.as_mut() else { return };
        if groups.get(name).is_some_and(|entry| entry.group.views.same_channel(views)) {
            groups.remove(name);
        }
    }

    /// Starts the task of a group.
    fn launch(self: &Arc<Self>, backing: &Backing, name: &str, options: Options) -> Result<Group, Error> {
        let bad_name = |reason| Error::GroupName { group: name.into(), reason };
        let group = backing.namespace.join(name).map_err(bad_name)?;
        let own = group.join(self.me.as_str()).map_err(bad_name)?;
        let mut folders = vec![group.clone()];
        let config = &self.config;
        let ours = Ours {
            handover: None,
            version: Ours::VERSION,
            label: Some(config.label),
            replicas: Some(config.replicas),
            nonce: Some(backing.nonce),
            process: Process::current(),
        };
        let settings = Settings {
            group: name.into(),
            me: self.me.clone(),
            ours: ours.clone(),
            lists: options.is_immediate,
            retry: config.retry_backoff,
            max_retry: config.max_retry_interval,
            check: config.membership_check,
            settle: options.settle,
        };
        let (me, engine) = (self.me.clone(), Engine::new(settings));
        let payload = Payload::new(options.weight, ours);
        let (views, view) = watch::channel(Arc::new(View::before_joining(name, &self.me)));
        let (commands, inbox) = mpsc::unbounded_channel();
        let access = backing.keeper.access(config.session_timeout);
        let (clock, random) = (backing.clock.clone(), backing.random.clone());
        let sessions = Sessions::new(&access);
        let (shared, over) = (Arc::downgrade(self), view.clone());
        let (joining, cancelled) = (name.to_owned(), self.tasks.cancelled());
        let running: BoxFuture<'static, ()> = if options.is_immediate {
            let rings = Rings { label: config.label, replicas: config.replicas };
            let (payload, sizes) = (payload.encode(), Sizes::default());
            let places = Places { me, group, own, payload, rings, sizes };
            let driver = Driver { engine, clock, sessions, commands: inbox, places, views, random };
            Box::pin(driver.run(cancelled))
        } else {
            let places = handover::Places::new(&backing.namespace, name, &me, payload).map_err(bad_name)?;
            // A client that can change the head decides who acts.
            folders.extend(places.head.parent().into_iter().chain([places.head.clone()]));
            let core = Handover::new(options.handover(config, &me));
            let places = Arc::new(places);
            let exclusive =
                Exclusive { me, engine, core, places, clock, sessions, commands: inbox, views, random };
            Box::pin(exclusive.run(cancelled))
        };
        self.tasks.spawn("group", async move {
            running.await;
            if let Some(shared) = shared.upgrade() {
                shared.forget(&joining, &over);
            }
        });
        let (access, max_drain) = (access.clone(), options.max_drain);
        let behind =
            Behind::Driver { commands, access: access.clone(), is_leaving: Arc::default(), max_drain };
        let group = Group { views: view, behind };
        self.tasks.spawn("group permissions", {
            let (cancelled, group) = (self.tasks.cancelled(), group.clone());
            async move {
                let joined = cancelled.run_until_cancelled(group.joined()).await;
                if let (Some(Ok(())), Some(live)) = (joined, access.present()) {
                    for folder in &folders {
                        cancelled.run_until_cancelled(warn_if_open(&*live.session, folder)).await;
                    }
                }
            }
        });
        Ok(group)
    }
}
