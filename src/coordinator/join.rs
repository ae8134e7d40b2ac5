//! [`Join`]: how a group is entered, once by whoever asks first, and given back if nobody waits for it.

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
    backend::path::PathError,
    error::Error,
    group::{
        Group, View,
        behind::Behind,
        driver::{Driver, Places},
        engine::{Engine, Settings},
        member::{Ours, Payload, Process},
    },
    member::MAX_WEIGHT,
    ring::HashRing,
    session::{follow::Sessions, read::Sizes},
    watch,
};

/// A join on its way; await it. From [`PartitionCoordinator::join`](super::PartitionCoordinator::join).
#[must_use = "a join does nothing until it is awaited"]
pub struct Join {
    pub(super) shared: Arc<Shared>,
    pub(super) group: String,
    pub(super) options: Options,
    /// Takes the group as it is joined already, whatever its options.
    pub(super) accepts_any: bool,
    pub(super) waits: bool,
}

impl Join {
    /// This member's share relative to others: a member of weight 3 gets three times what one of weight 1 gets.
    /// It counts as long as every member can read it: while a plain Python peer is in the group, all weights
    /// are one.
    pub fn weight(mut self, weight: u32) -> Self {
        self.options.weight = weight;
        self
    }

    /// Adopts a change of the membership only when it has been quiet for `settle` (at the latest after five
    /// times that), so that a rolling restart moves keys once and not at each step. Meanwhile the keys of a
    /// member that is gone have no owner. All members of a group should use the same.
    pub fn settle(mut self, settle: Duration) -> Self {
        self.options.settle = settle;
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
            let timing = backing.keeper.live().map(|live| live.timing);
            let lifetime = timing.map_or(shared.config.session_timeout, |it| it.timeout + 2 * it.server_tick);
            // Longer than a stranger's znode is waited for.
            let limit = (2 * lifetime).saturating_add(options.settle.saturating_mul(5));
            match timeout(limit, group.joined()).await {
                Ok(joined) => joined?,
                Err(_) => return Err(backing.keeper.access(limit).unreachable(None)),
            }
        }
        claim.is_kept = true;
        drop(claim);
        Ok(group)
    }
}

/// Takes a join back that nobody waits for any more.
struct JoinClaim<'a> {
    shared: &'a Shared,
    name: &'a str,
    group: &'a Group,
    is_kept: bool,
}

impl Drop for JoinClaim<'_> {
    fn drop(&mut self) {
        let mut groups = self.shared.lock();
        // The group may have been left meanwhile, and joined again by somebody else.
        let entry = groups.as_mut().and_then(|groups| groups.get_mut(self.name));
        let Some(entry) = entry.filter(|entry| entry.group.is_same(self.group)) else { return };
        entry.waiting -= 1;
        entry.is_wanted |= self.is_kept;
        if entry.waiting == 0 && !entry.is_wanted {
            entry.group.start_leaving();
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
    /// The group in which this member is alone.
    pub(super) fn alone(&self, name: &str) -> Result<Group, Error> {
        let ring = HashRing::builder()
            .replicas(self.config.replicas)
            .label(self.config.label)
            .member(self.me.as_str())
            .build()
            .map_err(|reason| Error::Ring { group: name.into(), reason })?;
        Ok(Group::of_one(name, &self.me, ring))
    }

    /// Finds the group, or starts it, and counts one more who waits for it.
    fn enter(&self, name: &str, options: Options, accepts_any: bool) -> Result<Entered, Error> {
        let mut groups = self.lock();
        let Some(groups) = groups.as_mut() else { return Err(Error::Closed { group: name.into() }) };
        if let Some(entry) = groups.get_mut(name) {
            if !entry.group.is_leaving() {
                if entry.options != options && !accepts_any {
                    return Err(Error::JoinedDifferently { group: name.into() });
                }
                entry.waiting += 1;
                return Ok(Entered::In(entry.group.clone()));
            }
            if !entry.group.is_over() {
                // It would take its znode for ours.
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

    /// Starts the task of a group.
    fn launch(&self, backing: &Backing, name: &str, options: Options) -> Result<Group, Error> {
        let bad_name = |reason| Error::GroupName { group: name.into(), reason };
        let group = backing.namespace.join(name).map_err(bad_name)?;
        let own = group.join(self.me.as_str()).map_err(bad_name)?;
        let config = &self.config;
        let ours = Ours {
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
            retry: config.retry_backoff,
            max_retry: config.max_retry_interval,
            check: config.membership_check,
            settle: options.settle,
        };
        let payload = Payload::new(options.weight, ours).encode();
        let (views, view) = watch::channel(Arc::new(View::before_joining(name, &self.me)));
        let (commands, inbox) = mpsc::channel(4);
        let access = backing.keeper.access(config.session_timeout);
        let driver = Driver {
            engine: Engine::new(settings),
            clock: backing.clock.clone(),
            sessions: Sessions::new(&access),
            commands: inbox,
            places: Places {
                me: self.me.clone(),
                group,
                own,
                payload,
                label: config.label,
                replicas: config.replicas,
                sizes: Sizes::default(),
            },
            views,
            random: backing.random.clone(),
        };
        self.tasks.spawn("group", driver.run(self.tasks.cancelled()));
        Ok(Group { views: view, behind: Behind::Driver { commands, access, is_leaving: Arc::default() } })
    }
}
