//! [`PartitionCoordinator`]: joins groups, and opens job boards and queues.

mod join;
mod observe;
#[cfg(feature = "http")]
mod observed;
mod shared;
mod status;
mod work;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use tracing::info;

#[cfg(feature = "http")]
pub(crate) use self::observed::Observed;
use self::shared::{Backing, Options, Shared};
pub use self::{
    join::Join,
    observe::Observe,
    status::{GroupStatus, Part, SessionStatus, Status as CoordinatorStatus},
};

use crate::{
    backend::SessionId,
    config::{Config, ConfigError},
    error::Error,
    group::Group,
    lease::Leases,
    member::MemberId,
    metrics,
    random::Random,
    ring::{KeySet, RingKey},
    session::{self, Keeper},
    share::Share,
    task::Tasks,
};

/// One member of a fleet: it keeps a session to the backend and joins groups in which members share their work.
///
/// Cheap to clone; all clones are one member. Dropping the last clone leaves all groups without waiting for the
/// backend. [`PartitionCoordinator::shutdown`] waits until the other members can see it. The class of the same name in
/// `aodh.coordination` is the model.
#[derive(Clone)]
#[must_use = "dropping it leaves its groups"]
pub struct PartitionCoordinator {
    shared: Arc<Shared>,
}

impl PartitionCoordinator {
    /// Connects to the backend of `config`, a [`Config`] or a URL, and waits for a session.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the URL or the configuration is invalid, [`Error::Unreachable`] if no server answered
    /// within the session timeout, [`Error::AuthFailed`] if the server refused the credentials, [`Error::NotPermitted`]
    /// if an access control list denies the namespace.
    ///
    /// # Cancel safety
    ///
    /// Safe: cancelled, it closes a session that was opened.
    ///
    /// # Panics
    ///
    /// Outside a tokio runtime.
    pub async fn connect<C>(config: C) -> Result<Self, Error>
    where
        C: TryInto<Config>,
        C::Error: Into<ConfigError>,
    {
        let coordinator = Self::begin(config, true)?;
        let Some(backing) = &coordinator.shared.backing else { return Ok(coordinator) };
        let timeout = coordinator.shared.config.session_timeout;
        // The attempt ends after the session timeout, with an error that names what was tried.
        let opened = backing.keeper.access(timeout + timeout / 10).live().await;
        if opened.is_err() {
            backing.keeper.close().await;
        }
        opened.map(|_| coordinator)
    }

    /// Starts to connect to the backend of `config` and returns at once, so that a service can start while the backend
    /// is down. Until there is a session, every share is empty. Joins return at once, too, and are done in the
    /// background.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] if the URL or the configuration is invalid.
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

    /// A coordinator without a backend: the only member of each group, which owns everything. Boards and queues cannot
    /// be opened on it.
    pub fn standalone() -> Self {
        let config = Config::default();
        PartitionCoordinator {
            shared: Arc::new(Shared {
                me: MemberId::from(Random::new(None).uuid()),
                config,
                backing: None,
                groups: Mutex::new(Some(BTreeMap::new())),
                tasks: Arc::new(Tasks::new()),
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
        let random = Random::new(config.seed);
        let me = config.chosen_member_id()?.unwrap_or_else(|| MemberId::from(random.uuid()));
        metrics::describe();
        info!(member = %me, %namespace, "starting");
        let clock = connector.clock();
        let keeper = Keeper::start(connector, config.clone(), namespace.clone(), random.clone());
        let tasks = Arc::new(Tasks::new());
        let backing = Backing {
            clock,
            leases: Leases::start(keeper.access(config.session_timeout), me.clone(), tasks.clone()),
            boards: Arc::default(),
            queues: Arc::default(),
            keeper,
            namespace,
            nonce: random.uuid(),
            random,
            waits,
        };
        let shared = Shared {
            me,
            config,
            backing: Some(backing),
            groups: Mutex::new(Some(BTreeMap::new())),
            tasks,
            end: tokio::sync::Mutex::default(),
        };
        Ok(PartitionCoordinator { shared: Arc::new(shared) })
    }

    /// Joins a group, and creates it if it does not exist. Await it, or set options first:
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
    /// On a coordinator from `connect` it waits until this member is in the group. On one from `start` it returns at
    /// once. A second join of a group returns the same group.
    ///
    /// # Errors
    ///
    /// [`Error::GroupName`] and [`Error::Weight`] if the name or the weight is invalid, [`Error::JoinedDifferently`] if
    /// the group is joined already with other options, [`Error::Closed`] after the shutdown. After `connect` also
    /// [`Error::MemberIdTaken`], [`Error::NotPermitted`], [`Error::RingMismatch`], [`Error::RingUnclear`] and
    /// [`Error::Ring`] if this member cannot be in the group, and [`Error::Unreachable`] if the backend did not answer
    /// for two session timeouts.
    /// After `start`, the next share reports these errors.
    ///
    /// # Cancel safety
    ///
    /// Safe: cancelled, the join is undone, unless another caller waits for it or has the group.
    pub fn join(&self, group: impl Into<String>) -> Join {
        let options = Options::default();
        let waits = self.shared.backing.as_ref().is_some_and(|backing| backing.waits);
        Join { shared: self.shared.clone(), group: group.into(), options, accepts_any: false, waits }
    }

    /// Returns those of `items` that belong to this member now, and joins `group` on first use. aodh has the same call.
    /// If the name of the group is empty, or if there is no backend, this member owns all items.
    ///
    /// # Errors
    ///
    /// As [`Group::extract_my_subset`] and [`PartitionCoordinator::join`].
    ///
    /// # Cancel safety
    ///
    /// Safe: a join goes on in the background.
    pub async fn extract_my_subset<I>(&self, group: &str, items: I) -> Result<Share<I::Item>, Error>
    where
        I: IntoIterator,
        I::Item: RingKey,
    {
        self.group(group).await?.extract_my_subset(items).await
    }

    /// Like [`PartitionCoordinator::extract_my_subset`], with a function that gives the key of each item.
    ///
    /// # Errors
    ///
    /// As [`PartitionCoordinator::extract_my_subset`].
    ///
    /// # Cancel safety
    ///
    /// Safe: a join goes on in the background.
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

    /// Returns those of `keys` that belong to this member now, in the order of insertion, and joins `group` on first
    /// use: see [`Group::share`].
    ///
    /// # Errors
    ///
    /// As [`PartitionCoordinator::extract_my_subset`].
    ///
    /// # Cancel safety
    ///
    /// Safe: a join goes on in the background.
    pub async fn share<'a, T>(&self, group: &str, keys: &'a KeySet<T>) -> Result<Share<&'a T>, Error> {
        self.group(group).await?.share(keys).await
    }

    async fn group(&self, name: &str) -> Result<Group, Error> {
        if name.is_empty() {
            return self.shared.alone(name);
        }
        // This does not wait for the join: the share reports its errors.
        Join { accepts_any: true, waits: false, ..self.join(name) }.await
    }

    /// Whether this coordinator shares work with others: it has a backend, and is not shut down.
    pub fn is_active(&self) -> bool {
        let status = self.shared.backing.as_ref().map(|backing| backing.keeper.status());
        status.is_some_and(|status| !matches!(*status.borrow(), session::Status::Closed))
    }

    /// The id of this member, the same in every group.
    pub fn member_id(&self) -> &MemberId {
        &self.shared.me
    }

    /// The id of the current session, if there is one. That session owns the ephemeral znodes of this member.
    pub fn session_id(&self) -> Option<SessionId> {
        self.shared.backing.as_ref().and_then(|backing| backing.keeper.live()).map(|live| live.id())
    }

    /// Leaves all groups, closes the session and waits for all tasks. The other members see it at once, not a session
    /// timeout later. Calling it again does no harm.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] if the backend did not confirm the end in time. Then the other members see it when the
    /// session expires.
    ///
    /// # Cancel safety
    ///
    /// If it is cancelled, the drop of the coordinator does the rest.
    pub async fn shutdown(&self) -> Result<(), Error> {
        let mut end = self.shared.end.lock().await;
        let is_confirmed = match *end {
            Some(is_confirmed) => is_confirmed,
            None => *end.insert(self.shared.shut_down().await),
        };
        if is_confirmed {
            return Ok(());
        }
        let reason = "the backend did not confirm the end of the session, which will expire".into();
        Err(Error::Unreachable { reason })
    }

    /// Waits until the coordinator is shut down through any clone, so that other parts of a service can end with it.
    ///
    /// The future holds no clone, so it also ends when the last clone is dropped.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub fn closed(&self) -> impl Future<Output = ()> + Send + 'static {
        self.shared.tasks.cancelled().cancelled_owned()
    }
}

impl fmt::Debug for PartitionCoordinator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PartitionCoordinator")
            .field("member", &self.shared.me)
            .field("session", &self.session_id())
            .field("groups", &self.shared.lock().iter().flat_map(BTreeMap::keys).collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}
