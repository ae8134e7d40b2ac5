//! [`PartitionCoordinator`]: from which everything that is shared is joined and opened.

mod join;
mod shared;
mod work;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
};

use tracing::info;

pub use self::join::Join;
use self::shared::{Backing, Options, Shared};

use crate::{
    backend::SessionId,
    config::{Config, ConfigError},
    error::Error,
    group::Group,
    lease::Leases,
    member::MemberId,
    random::Random,
    ring::{KeySet, RingKey},
    session::{Keeper, Status},
    share::Share,
    task::Tasks,
};

/// One member of a fleet: it keeps a session to the backend and joins groups in which members share their work.
///
/// Cheap to clone; all clones are one member. Dropping the last one gives its groups up without waiting;
/// [`PartitionCoordinator::shutdown`] tells the other members and waits until they can know. The original is
/// `PartitionCoordinator` of `aodh.coordination`.
#[derive(Clone)]
#[must_use = "dropping it gives up its groups"]
pub struct PartitionCoordinator {
    shared: Arc<Shared>,
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
        let Some(backing) = &coordinator.shared.backing else { return Ok(coordinator) };
        let timeout = coordinator.shared.config.session_timeout;
        // The attempt gives up after the session timeout, and then says what it tried.
        let opened = backing.keeper.access(timeout + timeout / 10).live().await;
        if opened.is_err() {
            backing.keeper.close().await;
        }
        opened.map(|_| coordinator)
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
        info!(member = %me, %namespace, "starting");
        let clock = connector.clock();
        let keeper = Keeper::start(connector, config.clone(), namespace.clone(), random.clone());
        let tasks = Arc::new(Tasks::new());
        let backing = Backing {
            clock,
            leases: Leases::start(keeper.access(config.session_timeout), me.clone(), tasks.clone()),
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
        let options = Options::default();
        let waits = self.shared.backing.as_ref().is_some_and(|backing| backing.waits);
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

    /// Returns those of `keys` that belong to this member now, in the order of insertion, joining `group` on first
    /// use: see [`Group::share`].
    ///
    /// # Errors
    ///
    /// As [`PartitionCoordinator::extract_my_subset`].
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub async fn share<'a, T>(&self, group: &str, keys: &'a KeySet<T>) -> Result<Share<&'a T>, Error> {
        self.group(group).await?.share(keys).await
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
        let status = self.shared.backing.as_ref().map(|backing| backing.keeper.status());
        status.is_some_and(|status| !matches!(*status.borrow(), Status::Closed))
    }

    /// This member's id, in every group.
    pub fn member_id(&self) -> &MemberId {
        &self.shared.me
    }

    /// The present session, if there is one: the owner of our ephemeral znodes.
    pub fn session_id(&self) -> Option<SessionId> {
        self.shared.backing.as_ref().and_then(|backing| backing.keeper.live()).map(|live| live.id())
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
        let mut end = self.shared.end.lock().await;
        let told = match *end {
            Some(told) => told,
            None => *end.insert(self.shared.shut_down().await),
        };
        if told {
            return Ok(());
        }
        let reason = "the backend could not be told of the end of the session; it will expire".into();
        Err(Error::Unreachable { reason })
    }

    /// Waits until it is shut down, by whichever clone: for what else has to end with it.
    ///
    /// The future keeps no clone, so it also ends when the last one is dropped.
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
