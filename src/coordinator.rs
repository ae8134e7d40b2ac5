//! [`PartitionCoordinator`]: the door to everything that is shared.

use std::{
    collections::HashMap,
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tracing::info;

use crate::{
    backend::{
        SessionId,
        path::{PathError, ZnodePath},
    },
    clock::Clock,
    config::{Config, ConfigError},
    error::Error,
    group::{
        Behind, Group, View,
        driver::{Driver, Places},
        engine::{Engine, Settings},
        member::{MAX_WEIGHT, MemberId, Ours, Payload, Process},
    },
    ring::{HashRing, RingKey},
    session::{Keeper, Status},
    share::Share,
    task::Tasks,
};

/// One member of a fleet: it keeps a session to the backend and joins groups in which members share their work.
///
/// Dropping it gives its groups up without waiting; [`PartitionCoordinator::shutdown`] tells the peers and
/// waits until they can know. The original is `PartitionCoordinator` of `aodh.coordination`.
pub struct PartitionCoordinator {
    shared: Arc<Shared>,
}

struct Shared {
    me: MemberId,
    config: Config,
    /// `None` where there is nobody to share with.
    link: Option<Backing>,
    groups: Mutex<HashMap<String, Entry>>,
    tasks: Tasks,
    /// Whether the backend was told of the end, once all has ended. Held by the call that sees to it.
    end: tokio::sync::Mutex<Option<bool>>,
}

struct Backing {
    keeper: Keeper,
    namespace: ZnodePath,
    clock: Arc<dyn Clock>,
    /// Written into our znodes: they are ours in whatever session.
    nonce: uuid::Uuid,
    /// Whether a join waits until it is done.
    waits: bool,
}

struct Entry {
    group: Group,
    options: Options,
    /// Joins that wait for it, and whether a handle was ever given out: a join that nobody waits for any more
    /// is taken back.
    waiting: usize,
    is_wanted: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Options {
    weight: u32,
    settle: Duration,
}

impl PartitionCoordinator {
    /// Connects to the backend of `config`, a [`Config`] or a URL.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the URL or the configuration makes no sense, [`Error::Unreachable`] if no server
    /// answered within the session timeout, [`Error::AuthFailed`] and [`Error::NotPermitted`] if the server
    /// refused us.
    ///
    /// # Cancel safety
    ///
    /// Safe: a session that was opened is closed.
    pub async fn connect<C>(config: C) -> Result<Self, Error>
    where
        C: TryInto<Config>,
        C::Error: Into<ConfigError>,
    {
        let coordinator = Self::begin(config, true)?;
        if let Some(link) = &coordinator.shared.link {
            let patience = coordinator.shared.config.session_timeout;
            let mut status = link.keeper.status();
            let first = async {
                loop {
                    match &*status.borrow_and_update() {
                        Status::Live(_) => return Ok(()),
                        Status::Opening { error: Some(error) } if !error.is_transient() => {
                            return Err(error.clone());
                        }
                        Status::Closed => return Err(Error::Closed { group: String::new() }),
                        Status::Opening { .. } => {}
                    }
                    if status.changed().await.is_err() {
                        return Err(Error::Closed { group: String::new() });
                    }
                }
            };
            let outcome = timeout(patience, first).await;
            let failed = match outcome {
                Ok(Ok(())) => return Ok(coordinator),
                Ok(Err(error)) => error,
                Err(_) => Error::unreachable_after(patience, link.keeper.last_error().as_ref()),
            };
            link.keeper.close().await;
            return Err(failed);
        }
        Ok(coordinator)
    }

    /// Starts to connect to the backend of `config` and returns at once, so that a service comes up while the
    /// backend is down. Until there is a session every share is empty; joins return at once, too, and are
    /// carried out in the background.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the URL or the configuration makes no sense.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub fn start<C>(config: C) -> Result<Self, Error>
    where
        C: TryInto<Config>,
        C::Error: Into<ConfigError>,
    {
        Self::begin(config, false)
    }

    /// A coordinator without a backend: one member that owns everything.
    pub fn standalone() -> Self {
        let config = Config::default();
        PartitionCoordinator {
            shared: Arc::new(Shared {
                me: MemberId::from(uuid::Uuid::new_v4()),
                config,
                link: None,
                groups: Mutex::default(),
                tasks: Tasks::new(),
                end: tokio::sync::Mutex::default(),
            }),
        }
    }

    fn begin<C>(config: C, waits: bool) -> Result<Self, Error>
    where
        C: TryInto<Config>,
        C::Error: Into<ConfigError>,
    {
        let config: Config = config.try_into().map_err(Into::into)?;
        config.validate()?;
        let connector = config.connector()?;
        let namespace = config.namespace_path()?;
        let me = config.chosen_member_id()?.unwrap_or_else(|| MemberId::from(uuid::Uuid::new_v4()));
        info!(member = %me, %namespace, "starting");
        let link = Backing {
            clock: connector.clock(),
            keeper: Keeper::start(connector, config.clone(), namespace.clone()),
            namespace,
            nonce: uuid::Uuid::new_v4(),
            waits,
        };
        let shared = Shared {
            me,
            config,
            link: Some(link),
            groups: Mutex::default(),
            tasks: Tasks::new(),
            end: tokio::sync::Mutex::default(),
        };
        Ok(PartitionCoordinator { shared: Arc::new(shared) })
    }

    /// Joins a group, which is created if need be. Await it, or set options first:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use apportion::{Config, PartitionCoordinator, backend};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
    /// let group = coordinator.join("pollsters").weight(3).settle(Duration::from_millis(10)).await?;
    /// assert_eq!(group.view().ring().fraction(coordinator.member_id().as_str()), 1.0);
    /// # Ok::<(), apportion::Error>(()) }).unwrap();
    /// ```
    ///
    /// After `connect` it waits until this member is in the group; after `start` it returns at once. A second
    /// join of a group returns the same group.
    ///
    /// # Errors
    ///
    /// [`Error::GroupName`] and [`Error::Weight`] for what can never be, [`Error::JoinedDifferently`] if the
    /// group is joined with other options. After `connect` also [`Error::MemberIdTaken`],
    /// [`Error::NotPermitted`] and [`Error::RingMismatch`] if the group refuses us, and
    /// [`Error::Unreachable`] if the backend was out of reach for two session timeouts. After `start`, these
    /// come with the next share.
    ///
    /// # Cancel safety
    ///
    /// Safe: a join that nobody waits for any more is taken back.
    pub fn join(&self, group: impl Into<String>) -> Join {
        let options = Options { weight: 1, settle: Duration::ZERO };
        let waits = self.shared.link.as_ref().is_some_and(|link| link.waits);
        Join { shared: self.shared.clone(), group: group.into(), options, accepts_any: false, waits }
    }

    /// Returns those of `items` that belong to this member now, joining `group` on first use: the call that
    /// aodh's users know. An empty group, or no backend, means that everything is mine.
    ///
    /// # Errors
    ///
    /// As [`Group::extract_my_subset`] and [`PartitionCoordinator::join`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn extract_my_subset<I>(&self, group: &str, items: I) -> Result<Share<I::Item>, Error>
    where
        I: IntoIterator,
        I::Item: RingKey,
    {
        self.group(group).await?.extract_my_subset(items).await
    }

    /// Like [`PartitionCoordinator::extract_my_subset`], for keys of any shape.
    ///
    /// # Errors
    ///
    /// As [`PartitionCoordinator::extract_my_subset`].
    pub async fn extract_my_subset_by<I, K>(
        &self,
        group: &str,
        items: I,
        key: impl Fn(&I::Item) -> K,
    ) -> Result<Share<I::Item>, Error>
    where
        I: IntoIterator,
        K: RingKey,
    {
        self.group(group).await?.extract_my_subset_by(items, key).await
    }

    async fn group(&self, name: &str) -> Result<Group, Error> {
        if name.is_empty() {
            return self.shared.alone(name);
        }
        // Not waited for: a share says better what is the matter.
        Join { accepts_any: true, waits: false, ..self.join(name) }.await
    }

    /// Whether the work is shared: there is a backend, and the coordinator is not shut down.
    pub fn is_active(&self) -> bool {
        let status = self.shared.link.as_ref().map(|link| link.keeper.status());
        status.is_some_and(|status| !matches!(*status.borrow(), Status::Closed))
    }

    /// This member's id, in every group.
    pub fn member_id(&self) -> &MemberId {
        &self.shared.me
    }

    /// The present session, if there is one: the owner of our ephemeral znodes.
    pub fn session_id(&self) -> Option<SessionId> {
        self.shared.link.as_ref().and_then(|link| link.keeper.live()).map(|live| live.id())
    }

    /// Leaves all groups, closes the session and waits for all tasks. The peers see it now, not a session
    /// timeout later. Calling it again does no harm.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] if the backend could not be told: then the peers see it when the session expires.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it leaves the rest to the drop of the coordinator.
    pub async fn shutdown(&self) -> Result<(), Error> {
        let Some(link) = &self.shared.link else { return Ok(()) };
        let mut end = self.shared.end.lock().await;
        let told = match *end {
            Some(told) => told,
            None => *end.insert(self.shared.shut_down(link).await),
        };
        if told {
            return Ok(());
        }
        let reason = "the backend could not be told of the end of the session; it will expire".into();
        Err(Error::Unreachable { reason })
    }
}

impl Drop for PartitionCoordinator {
    fn drop(&mut self) {
        self.shared.tasks.cancel();
        if let Some(link) = &self.shared.link {
            link.keeper.cancel();
        }
    }
}

impl fmt::Debug for PartitionCoordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionCoordinator")
            .field("member", &self.shared.me)
            .field("session", &self.session_id())
            .field("groups", &self.shared.lock().keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.groups.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends everything; returns whether the backend was told.
    async fn shut_down(&self, link: &Backing) -> bool {
        let groups: Vec<Group> = self.lock().drain().map(|(_, entry)| entry.group).collect();
        let patience = link.keeper.patience();
        let telling = async {
            // Without a session there is nobody to tell.
            let Some(live) = link.keeper.live() else { return true };
            if live.is_connected() {
                groups.iter().for_each(Group::start_leaving);
                for group in groups {
                    group.has_left().await;
                }
            }
            live.has_heard().await
        };
        let told = timeout(patience, telling).await.unwrap_or(false);
        let closed = link.keeper.close().await;
        let ended = self.tasks.shutdown(patience).await;
        info!(member = %self.me, told, "shut down");
        told && closed && ended
    }

    /// The group in which this member is alone.
    fn alone(&self, name: &str) -> Result<Group, Error> {
        let ring = HashRing::builder()
            .replicas(self.config.replicas)
            .label(self.config.label)
            .member(self.me.as_str())
            .build()
            .map_err(|reason| Error::Ring { group: name.into(), reason })?;
        Ok(Group::of_one(name, &self.me, ring))
    }

    /// Finds the group, or starts it, and counts one more who waits for it.
    fn enter(
        &self,
        link: &Backing,
        name: &str,
        options: Options,
        accepts_any: bool,
    ) -> Result<Entered, Error> {
        let mut groups = self.lock();
        if self.tasks.is_cancelled() {
            return Err(Error::Closed { group: name.into() });
        }
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
        let group = self.launch(link, name, options)?;
        groups.insert(name.into(), Entry { group: group.clone(), options, waiting: 1, is_wanted: false });
        Ok(Entered::In(group))
    }

    /// Starts the task of a group.
    fn launch(&self, link: &Backing, name: &str, options: Options) -> Result<Group, Error> {
        let bad_name = |reason| Error::GroupName { group: name.into(), reason };
        let group = link.namespace.join(name).map_err(bad_name)?;
        let own = group.join(self.me.as_str()).map_err(bad_name)?;
        let config = &self.config;
        let ours = Ours {
            version: Ours::VERSION,
            label: Some(config.label),
            replicas: Some(config.replicas),
            nonce: Some(link.nonce),
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
        let status = link.keeper.status();
        let driver = Driver {
            engine: Engine::new(settings),
            clock: link.clock.clone(),
            status: status.clone(),
            commands: inbox,
            places: Places {
                me: self.me.clone(),
                group,
                own,
                payload,
                label: config.label,
                replicas: config.replicas,
            },
            views,
            dice: fastrand::Rng::new(),
        };
        self.tasks.spawn("group", driver.run(self.tasks.cancelled()));
        Ok(Group { views: view, behind: Behind::Driver { commands, status, is_leaving: Arc::default() } })
    }
}

enum Entered {
    In(Group),
    StillLeaving(Group),
}

/// A join on its way; await it. From [`PartitionCoordinator::join`].
#[must_use = "a join does nothing until it is awaited"]
pub struct Join {
    shared: Arc<Shared>,
    group: String,
    options: Options,
    /// Takes the group as it is joined already, whatever its options.
    accepts_any: bool,
    waits: bool,
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
        let Some(link) = &shared.link else { return shared.alone(&name) };
        let group = loop {
            let leaving = match shared.enter(link, &name, options, accepts_any)? {
                Entered::In(group) => break group,
                Entered::StillLeaving(group) => group,
            };
            leaving.has_left().await;
        };
        let mut claim = JoinClaim { shared: &shared, name: &name, is_kept: false };
        if waits {
            let timing = link.keeper.live().map(|live| live.timing);
            let lifetime = timing.map_or(shared.config.session_timeout, |it| it.timeout + 2 * it.server_tick);
            // Longer than a stranger's znode is waited for.
            let patience = 2 * lifetime + options.settle * 5;
            match timeout(patience, group.joined()).await {
                Ok(joined) => joined?,
                Err(_) => return Err(Error::unreachable_after(patience, link.keeper.last_error().as_ref())),
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
    is_kept: bool,
}

impl Drop for JoinClaim<'_> {
    fn drop(&mut self) {
        let mut groups = self.shared.lock();
        let Some(entry) = groups.get_mut(self.name) else { return };
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
