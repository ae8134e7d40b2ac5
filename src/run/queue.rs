//! [`RunQueue`]: does the entries of a queue.

use std::{
    fmt,
    future::{Future, IntoFuture, pending},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value as Json;
use tracing::warn;

use super::{
    counts::{Counts, Ended},
    failure::Failure,
    phase::{Stopping, until},
    plan::{End, Verdict, plan, smaller},
    pool::{self, Settings, Source},
};
use crate::{
    future::BoxFuture,
    lease::{FencingToken, Lease},
    queue::{Delivery, Entry, QueueError, WorkQueue},
    random::Random,
    task::caught_now,
};

impl WorkQueue {
    /// Does the entries of the queue: takes them, runs `handler` for each, and ends the entry as the handler says. Await it,
    /// or set options first:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use apportion::{Config, PartitionCoordinator, backend, run::EntryTask};
    /// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
    /// async fn render(entry: EntryTask) -> Result<usize, std::num::ParseIntError> {
    ///     let page = entry.payload_as::<String>().unwrap_or_default();
    ///     page.parse::<usize>()
    /// }
    ///
    /// let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
    /// let queue = coordinator.queue("/reports").await?;
    /// let id = queue.put("17").await?;
    /// # let shutdown = tokio::time::sleep(Duration::from_secs(1));
    /// let counts = queue.run(render).concurrency(4).until(shutdown).await?;
    /// assert_eq!(counts.finished, 1);
    /// assert_eq!(queue.wait_result(&id).await?.result_as::<usize>()?, 17);
    /// # Ok::<(), Box<dyn std::error::Error>>(()) }).unwrap();
    /// ```
    ///
    /// - The handler runs as long as its lease is held, and is dropped at its next await when that is lost.
    /// - What it returns is the result of the entry: any value that can be written as JSON.
    /// - An entry whose handler returns an error or panics is given back: see [`Failure`] and [`OpenQueue::pauses`]. After
    ///   [`max_attempts`](RunQueue::max_attempts) it is a dead letter with the reason. The other entries do not wait for it.
    /// - Entries that were put with a [delay](crate::queue::Put::delay) or are in a pause are taken when their time has come:
    ///   it is in their value, as `not_before`. Python workers do not know it and take them at once.
    ///
    /// Returns what was done, when [`until`](RunQueue::until) has ended and all handlers have, too. Errors of the store that
    /// may pass by themselves do not end it: it goes on after a pause.
    ///
    /// # Errors
    ///
    /// [`QueueError::Closed`] if the coordinator is closed before, [`QueueError::Service`] if the store refuses a take or the
    /// end of one, for instance because permission is denied by ACL. The handlers are drained before, as at
    /// any end, and what was done is logged. What concerns one entry only does not end it: a result that is too large for
    /// the server, for instance, is a failure of that attempt.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it drops the futures of all handlers, and gives back their entries in the background.
    ///
    /// [`OpenQueue::pauses`]: crate::queue::OpenQueue::pauses
    pub fn run<F, T, R, E>(&self, handler: F) -> RunQueue
    where
        F: Fn(EntryTask) -> T + Send + Sync + 'static,
        T: Future<Output = Result<R, E>> + Send + 'static,
        R: Serialize,
        E: Into<Failure>,
    {
        let handler: Handler = Arc::new(move |entry| {
            let work = handler(entry);
            Box::pin(async move {
                let result = work.await.map_err(Into::into)?;
                serde_json::to_value(result)
                    .map_err(|error| Failure::new(format!("the result cannot be written as JSON: {error}")))
            })
        });
        RunQueue {
            queue: self.clone(),
            handler,
            preferred: None,
            settings: Settings::default(),
            until: Box::pin(pending()),
        }
    }
}

type Handler = Arc<dyn Fn(EntryTask) -> BoxFuture<'static, Result<Json, Failure>> + Send + Sync>;
type Choose = Box<dyn FnMut(&Entry) -> bool + Send>;

/// What the caller prefers.
struct Preferred {
    choose: Mutex<Choose>,
    has_warned: AtomicBool,
}

impl Preferred {
    /// A panic is no reason to end the runner.
    fn accepts(&self, entry: &Entry) -> bool {
        let mut choose = self.choose.lock().unwrap_or_else(PoisonError::into_inner);
        caught_now(|| choose(entry)).unwrap_or_else(|panic| {
            if !self.has_warned.swap(true, Ordering::Relaxed) {
                warn!(%entry, panic, "the choice of an entry has panicked: the entry is not preferred");
            }
            false
        })
    }
}

/// Does the entries of a queue when it is awaited. From [`WorkQueue::run`].
#[must_use = "nothing runs until it is awaited"]
pub struct RunQueue {
    queue: WorkQueue,
    handler: Handler,
    preferred: Option<Preferred>,
    settings: Settings,
    until: BoxFuture<'static, ()>,
}

impl RunQueue {
    /// Takes the first entry that `preferred` accepts; if it accepts none, the first entry: as
    /// [`WorkQueue::take_preferring`]. An entry at which it panics is not preferred.
    pub fn preferring(mut self, preferred: impl FnMut(&Entry) -> bool + Send + 'static) -> Self {
        let choose = Mutex::new(Box::new(preferred) as Choose);
        self.preferred = Some(Preferred { choose, has_warned: AtomicBool::new(false) });
        self
    }

    /// How many entries are worked on at the same time. Default: 1.
    pub fn concurrency(mut self, most: usize) -> Self {
        self.settings.concurrency = most.max(1);
        self
    }

    /// After how many attempts an entry is a dead letter, with the reason. Default: that of the
    /// [queue](crate::queue::OpenQueue::max_attempts), which counts as well if it is smaller.
    pub fn max_attempts(mut self, most: u32) -> Self {
        self.settings.max_attempts = Some(most.max(1));
        self
    }

    /// How long handlers may take that are asked to stop, before they are dropped and their entries are given back. Default:
    /// 30 seconds.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.settings.drain = drain;
        self
    }

    /// Runs until this future ends; then it takes no more entries, and [asks](EntryTask::stopping) its handlers to stop.
    /// Default: until the coordinator is closed, which is an error then.
    pub fn until<U: Future + Send + 'static>(mut self, shutdown: U) -> Self {
        self.until = until(shutdown);
        self
    }

    async fn run(self) -> Result<Counts, QueueError> {
        let RunQueue { queue, handler, preferred, mut settings, until } = self;
        settings.max_attempts = smaller(settings.max_attempts, queue.max_attempts());
        let entries = Entries { queue, handler, preferred, max_attempts: settings.max_attempts };
        pool::run(Arc::new(entries), settings, until, Box::pin(pending())).await
    }
}

impl IntoFuture for RunQueue {
    type Output = Result<Counts, QueueError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for RunQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunQueue")
            .field("queue", &self.queue)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The entry that a handler works on.
///
/// The delivery ends when the future of the handler has ended: work that it begins elsewhere has to end before.
#[derive(Debug)]
pub struct EntryTask {
    delivery: Arc<Delivery>,
    stopping: Stopping,
}

impl EntryTask {
    /// The entry, with its priority, label and sequence number.
    pub fn entry(&self) -> &Entry {
        self.delivery.entry()
    }

    /// The payload that was put: [`Delivery::payload`].
    pub fn payload(&self) -> Option<&Json> {
        self.delivery.payload()
    }

    /// The payload as a value of type `T`.
    ///
    /// # Errors
    ///
    /// The error of serde if the payload is not a `T`.
    pub fn payload_as<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        self.delivery.payload_as()
    }

    /// The value as it was in the store, as bytes: [`Delivery::raw`].
    pub fn raw(&self) -> &[u8] {
        self.delivery.raw()
    }

    /// The lease of the delivery. The future of the handler is dropped when it is lost.
    pub fn lease(&self) -> &Lease {
        self.delivery.lease()
    }

    /// The fencing token: a later delivery of the same entry has a higher one.
    pub fn token(&self) -> FencingToken {
        self.delivery.token()
    }

    /// How often the entry was delivered so far, this delivery included.
    pub fn attempt(&self) -> u32 {
        self.delivery.attempt()
    }

    /// Why the last delivery before this one has failed, if its worker said so.
    pub fn last_error(&self) -> Option<&str> {
        self.delivery.last_error()
    }

    /// Waits until the handler is asked to stop, because the runner ends. It may finish its entry, or return
    /// [`Failure::interrupted`]. At the end of [`drain`](RunQueue::drain) its future is dropped, and the entry is given back;
    /// the attempt does not count then.
    ///
    /// # Cancel safety
    ///
    /// Safe.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + 'static + use<> {
        self.stopping.clone().asked()
    }

    /// Whether the handler is asked to stop.
    pub fn is_stopping(&self) -> bool {
        self.stopping.has_come()
    }
}

impl fmt::Display for EntryTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.delivery.fmt(f)
    }
}

struct Entries {
    queue: WorkQueue,
    handler: Handler,
    preferred: Option<Preferred>,
    max_attempts: Option<u32>,
}

impl Source for Entries {
    /// Shared with the handler, which may keep it for longer than it is held.
    type Taken = Arc<Delivery>;
    type Output = Json;
    type Error = QueueError;

    fn place(&self) -> String {
        self.queue.path().to_string()
    }

    fn name(&self, delivery: &Arc<Delivery>) -> String {
        delivery.entry().to_string()
    }

    fn random(&self) -> &Random {
        self.queue.random()
    }

    fn take(&self, most: usize) -> BoxFuture<'_, Result<Vec<Arc<Delivery>>, QueueError>> {
        Box::pin(async move {
            let taken = match &self.preferred {
                None => self.queue.take_many(most).await?,
                Some(preferred) => {
                    let wanted = |entry: &Entry| preferred.accepts(entry);
                    vec![self.queue.take_preferring(wanted).await?]
                }
            };
            Ok(taken.into_iter().map(Arc::new).collect())
        })
    }

    fn lease<'a>(&self, delivery: &'a Arc<Delivery>) -> &'a Lease {
        delivery.lease()
    }

    fn attempt(&self, delivery: &Arc<Delivery>) -> u32 {
        delivery.attempt()
    }

    fn work(
        &self,
        delivery: &Arc<Delivery>,
        stopping: Stopping,
    ) -> BoxFuture<'static, Result<Json, Failure>> {
        (self.handler)(EntryTask { delivery: delivery.clone(), stopping })
    }

    fn end(&self, delivery: Arc<Delivery>, end: End<Json>) -> BoxFuture<'static, Result<Ended, QueueError>> {
        let (max_attempts, dead_after) = (self.max_attempts, self.queue.max_attempts());
        Box::pin(async move {
            let end = match end {
                End::Done(result) => match delivery.done(result).await {
                    Ok(()) => return Ok(Ended::Finished),
                    // Nothing was done: a result of that kind does not fit into the store.
                    Err(error @ (QueueError::TooLarge { .. } | QueueError::Payload { .. })) => {
                        let attempt = delivery.attempt();
                        warn!(name = %delivery, attempt, %error, "the result of an attempt cannot be kept: it has failed");
                        plan(Verdict::Failed(Failure::new(error)), attempt, max_attempts, false)
                    }
                    // The same for a server whose limit is not known: the library gives the entry back.
                    Err(QueueError::Service(error)) if error.is_of_one_request() => {
                        let attempt = delivery.attempt();
                        warn!(name = %delivery, attempt, %error, "the store does not take the result of an attempt: it has failed");
                        let is_dead = dead_after.is_some_and(|max| attempt >= max);
                        return Ok(if is_dead { Ended::GivenUp } else { Ended::GivenBack });
                    }
                    Err(error) => return Err(error),
                },
                end => end,
            };
            match end {
                End::Done(_) => Ok(Ended::Finished),
                End::Back(how) => delivery.give_back(how).await.map(|()| Ended::GivenBack),
                End::GivenUp { reason } => delivery.give_up(Some(reason)).await.map(|()| Ended::GivenUp),
                End::Overdue => delivery.give_up(None).await.map(|()| Ended::GivenUp),
            }
        })
    }

    fn is_final(&self, error: &QueueError) -> bool {
        match error {
            QueueError::Service(error) => !error.is_transient() && !error.is_of_one_request(),
            error => error.is_closed(),
        }
    }
}
