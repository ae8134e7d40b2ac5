//! [`RunEach`]: one task for each key that this member owns.

use std::{
    fmt,
    future::{Future, IntoFuture, pending},
    num::NonZeroU32,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use super::{
    each_driver::Driver,
    failure::Outcome,
    key_task::KeyTask,
    keys::{KeyList, Keys, Shared},
    phase::until,
    states::EachCounts,
    table::{Settings, Table},
};
use crate::{
    backoff::Pauses, clock::TokioClock, error::Error, future::BoxFuture, group::Group, ring::RingKey,
};

impl Group {
    /// Runs one task for each of `keys` that this member owns, for as long as it owns it: starts the task when no other
    /// member acts on the key, asks it to stop when the key is lost, and starts it again if it fails. Await it, or set
    /// options first:
    ///
    /// ```
    /// # use std::{sync::atomic::{AtomicU32, Ordering}, time::Duration};
    /// # use apportion::{Config, PartitionCoordinator, backend};
    /// # static POLLS: AtomicU32 = AtomicU32::new(0);
    /// # async fn poll(_: &str) -> Result<(), std::io::Error> { POLLS.fetch_add(1, Ordering::SeqCst); std::future::pending().await }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
    /// # let shutdown = tokio::time::sleep(Duration::from_secs(1));
    /// let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
    /// let group = coordinator.join("pollers").await?;
    /// let shards = vec!["shard-1".to_string(), "shard-2".to_string()];
    /// group
    ///     .run_each(&shards, |shard| async move { poll(&shard).await })
    ///     .drain(Duration::from_secs(10))
    ///     .until(shutdown) // for instance `tokio::signal::ctrl_c()`
    ///     .await?;
    /// coordinator.shutdown().await?;
    /// # assert_eq!(POLLS.load(Ordering::SeqCst), 2);
    /// # Ok::<(), apportion::Error>(()) }).unwrap();
    /// ```
    ///
    /// The task gets a [`KeyTask`], which dereferences to its key. What becomes of it:
    ///
    /// - The key is lost to another member, or is [removed](Keys::remove), or the service ends: the task is
    ///   [asked to stop](KeyTask::stopping). It has time for that, and other members do not start on the key before it has
    ///   ended. At the end of [`drain`](RunEach::drain) its future is dropped.
    /// - This member may not act on the key any more at that moment, because its session has ended or lapsed, or because the
    ///   group is [immediate](crate::Join::immediate): the future is not polled any more, and dropped within seconds, without
    ///   a drain.
    /// - It returns an error or panics: it is started again after a pause, which grows with each failure in a row.
    /// - It returns without an error: it is started again when this member gets the key another time.
    ///
    /// Each task is a task of the runtime. One that blocks its thread cannot be stopped, and keeps its key until it has
    /// returned or [`max_drain`](crate::Join::max_drain) is over; use `tokio::task::spawn_blocking` and keep the
    /// [`KeyTask`] in there. A task has ended when its future and all that has its [`KeyTask`] are gone: before that, no
    /// other task of this process is started for the key.
    ///
    /// Returns what the tasks have done, when [`until`](RunEach::until) has ended and all tasks have, too. While this member
    /// cannot be in the group, or the store cannot be reached, it waits: [`Group::status`] says why.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] if the group was left or its coordinator has ended before. All tasks have ended then.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it drops the futures of all tasks, without a drain.
    pub fn run_each<K, F, T>(&self, keys: impl Into<KeyList<K>>, task: F) -> RunEach<K, F>
    where
        K: RingKey + Send + Sync + 'static,
        F: Fn(KeyTask<K>) -> T + Send + Sync + 'static,
        T: Future<Output: Outcome> + Send + 'static,
    {
        let settings = Settings {
            drain: DRAIN,
            starts_per_second: NonZeroU32::new(STARTS_PER_SECOND),
            pauses: Pauses { first: Duration::from_secs(1), longest: Duration::from_secs(60) },
        };
        // That of tokio, because it is for timers only.
        let shared = Shared::new(Table::new(settings, keys.into().0), Arc::new(TokioClock::new()));
        RunEach { group: self.clone(), shared, settings, task, until: Box::pin(pending()) }
    }
}

/// How long a task that is asked to stop may take.
pub(super) const DRAIN: Duration = Duration::from_secs(30);
/// How many tasks are started in a second.
const STARTS_PER_SECOND: u32 = 1000;

/// One task for each key that this member owns, when it is awaited. From [`Group::run_each`].
#[must_use = "nothing runs until it is awaited"]
pub struct RunEach<K, F> {
    group: Group,
    shared: Arc<Shared<K>>,
    settings: Settings,
    task: F,
    until: BoxFuture<'static, ()>,
}

impl<K, F> RunEach<K, F> {
    /// A handle to the keys: to look at their states and to change the set, also while it runs.
    pub fn keys(&self) -> Keys<K> {
        Keys { shared: self.shared.clone() }
    }

    /// How long a task that is asked to stop may take before its future is dropped, but not longer than the
    /// [`max_drain`](crate::Join::max_drain) of the group, after which the guard of a lost key ends. Default: 30 seconds.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.settings.drain = drain;
        self
    }

    /// Runs until this future ends; then no task is started any more, and all are asked to stop. Default: until the group
    /// is left or the coordinator is shut down, which is an error then.
    pub fn until<U: Future + Send + 'static>(mut self, shutdown: U) -> Self {
        self.until = until(shutdown);
        self
    }

    /// How many tasks are started in a second at most: what they connect to gets all keys of a member that has crashed, for
    /// instance. A tenth of them may be started at once. Default: 1000; `None` or 0: no limit.
    pub fn starts_per_second(mut self, most: impl Into<Option<u32>>) -> Self {
        self.settings.starts_per_second = most.into().and_then(NonZeroU32::new);
        self
    }

    /// The pauses before a task that has failed is started again: they double from the first to the longest, and are
    /// shortened at random by up to half. Default: 1 second to 1 minute. A task that has run for the longest pause begins
    /// with the first one again.
    pub fn pauses(mut self, first: Duration, longest: Duration) -> Self {
        self.settings.pauses = Pauses { first, longest };
        self
    }
}

impl<K, F, T> RunEach<K, F>
where
    K: RingKey + Send + Sync + 'static,
    F: Fn(KeyTask<K>) -> T + Send + Sync + 'static,
    T: Future<Output: Outcome> + Send + 'static,
{
    async fn run(self) -> Result<EachCounts, Error> {
        let RunEach { group, shared, settings, task, until } = self;
        // A guard that was lost does not last longer.
        let settings = Settings { drain: settings.drain.min(group.max_drain()), ..settings };
        shared.table().configure(settings);
        Driver::new(group, shared, task).run(until).await
    }
}

impl<K, F, T> IntoFuture for RunEach<K, F>
where
    K: RingKey + Send + Sync + 'static,
    F: Fn(KeyTask<K>) -> T + Send + Sync + 'static,
    T: Future<Output: Outcome> + Send + 'static,
{
    type Output = Result<EachCounts, Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl<K, F> fmt::Debug for RunEach<K, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunEach")
            .field("group", &self.group)
            .field("keys", &self.keys())
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}
