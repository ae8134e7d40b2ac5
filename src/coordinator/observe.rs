//! [`Observe`]: observes a group without joining it.

use std::{
    fmt,
    future::{Future, IntoFuture},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use tokio::time::timeout;

use super::{
    PartitionCoordinator,
    shared::{Options, Shared},
};
use crate::{
    error::Error,
    group::{
        handover,
        member::{Ours, Payload},
        observe::{self, Observer, Spectator, Target},
        placement::Rings,
    },
    session::follow::{Sessions, follow},
};

impl PartitionCoordinator {
    /// Observes a group without joining it: its members, who owns which key, and which keys wait for whom. For routers,
    /// dashboards and operators. Await it.
    ///
    /// ```
    /// # use apportion::{Config, PartitionCoordinator, backend};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
    /// # let ensemble = backend::Memory::new();
    /// # let member = PartitionCoordinator::connect(Config::for_backend(ensemble.clone()).member_id("a")).await?;
    /// # let _group = member.join("pollsters").await?;
    /// let coordinator = PartitionCoordinator::connect(Config::for_backend(ensemble)).await?;
    /// let mut observer = coordinator.observe("pollsters").await?;
    /// while let Some(seen) = observer.next().await {
    ///     if let Some(owner) = seen.owner("10.0.0.1") {
    ///         println!("{} polls 10.0.0.1", owner.member.id());
    /// #       break;
    ///     }
    /// }
    /// # Ok::<(), apportion::Error>(()) }).unwrap();
    /// ```
    ///
    /// It costs the members nothing: an observer reads and watches. It creates no znode and writes nothing, so it needs
    /// only the permission to read. The group need not exist yet. It goes on over lost sessions, until the last clone
    /// of the observer is dropped or the coordinator is shut down.
    ///
    /// On a coordinator from `connect` it waits until the group was read once. On one from `start` it returns at once.
    ///
    /// # Errors
    ///
    /// [`Error::GroupName`] if no group can have this name, [`Error::Closed`] after the shutdown. After `connect` also
    /// [`Error::NotPermitted`] if the group may not be read, and [`Error::Unreachable`] if the backend did not answer for
    /// two session timeouts. Later, [`Observation::problem`](crate::group::Observation::problem) has such errors.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub fn observe(&self, group: impl Into<String>) -> Observe {
        let plain_grace = Options::default().plain_grace;
        Observe { shared: self.shared.clone(), group: group.into(), plain_grace }
    }
}

/// An observation with its options, from [`PartitionCoordinator::observe`]. Await it.
#[must_use = "nothing is observed until it is awaited"]
pub struct Observe {
    shared: Arc<Shared>,
    group: String,
    plain_grace: Duration,
}

impl Observe {
    /// For how long keys of a member that hands none over are shown as pending: what the members of the group have
    /// [set](crate::Join::plain_grace), which the store does not show. Default: a minute, as theirs.
    pub fn plain_grace(mut self, grace: Duration) -> Self {
        self.plain_grace = grace;
        self
    }

    async fn run(self) -> Result<Observer, Error> {
        let Observe { shared, group, plain_grace } = self;
        let end = shared.tasks.cancelled().child_token();
        if end.is_cancelled() {
            return Err(Error::Closed { group });
        }
        let config = &shared.config;
        let rings = Rings { label: config.label, replicas: config.replicas };
        let Some(backing) = &shared.backing else {
            let ring = shared.alone(&group)?.view().ring().clone();
            let (keep, seen) = observe::of_one(&group, &shared.me, ring);
            let ended = end.clone();
            shared.tasks.spawn("observer", async move {
                ended.cancelled().await;
                drop(keep);
            });
            return Ok(Observer::new(seen, end.drop_guard()));
        };
        let bad_name = |reason| Error::GroupName { group: group.clone(), reason };
        let payload = Payload::new(1, Ours::default());
        let places =
            handover::Places::new(&backing.namespace, &group, &shared.me, payload).map_err(bad_name)?;
        let target = Target {
            places,
            rings,
            plain_grace,
            recheck: config.membership_check,
            clock: backing.clock.clone(),
        };
        let (spectator, seen) = Spectator::new(&group, target);
        let access = backing.keeper.access(config.session_timeout);
        shared.tasks.spawn("observer", follow(Sessions::new(&access), spectator, end.clone()));
        let observer = Observer::new(seen, end.drop_guard());
        if backing.waits {
            let limit = 2 * access.present().map_or(config.session_timeout, |live| live.timing.timeout);
            match timeout(limit, observer.first()).await {
                Ok(first) => first?,
                Err(_) => return Err(backing.keeper.access(limit).unreachable(None)),
            }
        }
        Ok(observer)
    }
}

impl IntoFuture for Observe {
    type Output = Result<Observer, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for Observe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Observe").field("group", &self.group).finish_non_exhaustive()
    }
}
