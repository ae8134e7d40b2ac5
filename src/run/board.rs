//! [`RunBoard`]: does the jobs of a board.

use std::{
    collections::HashMap,
    fmt,
    future::{Future, IntoFuture, pending},
    ops::Deref,
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use super::{
    conductor,
    counts::{Counts, Ended},
    failure::Failure,
    phase::{Stopping, until},
    plan::{End, smaller},
    pool::{self, Settings, Source},
};
use crate::{
    board::{BoardError, Claim, Job, JobBoard},
    future::BoxFuture,
    lease::{FencingToken, Lease},
    random::Random,
};

impl JobBoard {
    /// Does the jobs of the board: claims them, runs a handler for each, and ends the claim as the handler says. Set the
    /// handlers, and await it:
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use apportion::{Config, PartitionCoordinator, backend, run::JobTask};
    /// # use serde_json::json;
    /// # #[derive(serde::Deserialize)] struct Resize { volume: String }
    /// # tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap().block_on(async {
    /// async fn resize(job: JobTask) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    ///     let Resize { volume } = job.details_as()?;
    ///     if volume.is_empty() { Err("no volume".into()) } else { Ok(()) }
    /// }
    /// async fn delete(job: JobTask) -> Result<(), String> {
    ///     Err(format!("{job} was not expected"))
    /// }
    ///
    /// let coordinator = PartitionCoordinator::connect(Config::for_backend(backend::Memory::new())).await?;
    /// let board = coordinator.job_board("/taskflow/jobs").await?;
    /// board.post("resize-volume").details(json!({ "volume": "v-17" })).await?;
    /// # let shutdown = tokio::time::sleep(Duration::from_secs(1));
    /// let counts = board
    ///     .run()
    ///     .on("resize-volume", resize)
    ///     .on("delete-volume", delete)
    ///     .concurrency(8)
    ///     .max_attempts(5)
    ///     .until(shutdown) // for instance `tokio::signal::ctrl_c()`
    ///     .await?;
    /// assert_eq!(counts.finished, 1);
    /// # Ok::<(), apportion::board::BoardError>(()) }).unwrap();
    /// ```
    ///
    /// - A handler runs as long as its lease is held, and is dropped at its next await when that is lost.
    /// - A job whose handler returns without an error is consumed.
    /// - One whose handler returns an error or panics is given back: see [`Failure`] and [`OpenBoard::pauses`]. After
    ///   [`max_attempts`](RunBoard::max_attempts) it goes to the trash with the reason. The other jobs do not wait for it.
    /// - Jobs that were posted with a [delay](crate::board::Post::delay) are claimed when their time has come.
    ///
    /// As TaskFlow's conductors do, the runner registers itself as an entity of the board while it runs: `name@host:pid`.
    ///
    /// Returns what was done, when [`until`](RunBoard::until) has ended and all handlers have, too. Errors of the store that
    /// may pass by themselves do not end it: it goes on after a pause.
    ///
    /// # Errors
    ///
    /// [`BoardError::Closed`] if the board or the coordinator is closed before, [`BoardError::Service`] if the store refuses
    /// a claim or the end of one, for instance because permission is denied by ACL. The handlers are drained before, as at
    /// any end, and what was done is logged. What concerns one job only does not end it, for instance if permission to its
    /// znode is denied.
    ///
    /// # Cancel safety
    ///
    /// Cancelled, it drops the futures of all handlers, and gives back their jobs in the background.
    ///
    /// [`OpenBoard::pauses`]: crate::board::OpenBoard::pauses
    pub fn run(&self) -> RunBoard {
        RunBoard {
            board: self.clone(),
            handlers: Handlers::default(),
            settings: Settings::default(),
            name: None,
            until: Box::pin(pending()),
        }
    }
}

/// Does the jobs of a board when it is awaited. From [`JobBoard::run`].
#[must_use = "nothing runs until it is awaited"]
pub struct RunBoard {
    board: JobBoard,
    handlers: Handlers,
    settings: Settings,
    name: Option<String>,
    until: BoxFuture<'static, ()>,
}

#[derive(Default)]
struct Handlers {
    by_name: HashMap<String, Handler>,
    otherwise: Option<Handler>,
}

type Handler = Arc<dyn Fn(JobTask) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync>;

fn boxed<F, T, R, E>(handler: F) -> Handler
where
    F: Fn(JobTask) -> T + Send + Sync + 'static,
    T: Future<Output = Result<R, E>> + Send + 'static,
    E: Into<Failure>,
{
    Arc::new(move |job| {
        let work = handler(job);
        Box::pin(async move { work.await.map(drop).map_err(Into::into) })
    })
}

impl RunBoard {
    /// Runs `handler` for each job of this name.
    pub fn on<F, T, R, E>(mut self, name: impl Into<String>, handler: F) -> Self
    where
        F: Fn(JobTask) -> T + Send + Sync + 'static,
        T: Future<Output = Result<R, E>> + Send + 'static,
        E: Into<Failure>,
    {
        self.handlers.by_name.insert(name.into(), boxed(handler));
        self
    }

    /// Runs `handler` for all other jobs. Without it, jobs of other names stay on the board for other workers.
    pub fn otherwise<F, T, R, E>(mut self, handler: F) -> Self
    where
        F: Fn(JobTask) -> T + Send + Sync + 'static,
        T: Future<Output = Result<R, E>> + Send + 'static,
        E: Into<Failure>,
    {
        self.handlers.otherwise = Some(boxed(handler));
        self
    }

    /// How many handlers run at the same time. Default: 1.
    pub fn concurrency(mut self, most: usize) -> Self {
        self.settings.concurrency = most.max(1);
        self
    }

    /// After how many attempts a job goes to the trash, with the reason. Default: that of the
    /// [board](crate::board::OpenBoard::max_attempts), which counts as well if it is smaller. Attempts of all workers of
    /// this crate count, also those whose process has died.
    pub fn max_attempts(mut self, most: u32) -> Self {
        self.settings.max_attempts = Some(most.max(1));
        self
    }

    /// How long handlers may take that are asked to stop, before they are dropped and their jobs are given back. Default: 30
    /// seconds.
    pub fn drain(mut self, drain: Duration) -> Self {
        self.settings.drain = drain;
        self
    }

    /// Runs until this future ends; then it claims no more jobs, and [asks](JobTask::stopping) its handlers to stop.
    /// Default: until the board or the coordinator is closed, which is an error then.
    pub fn until<U: Future + Send + 'static>(mut self, shutdown: U) -> Self {
        self.until = until(shutdown);
        self
    }

    /// The name of the entity that shows that this process serves the board; `@host:pid` is added. Default: the id of the
    /// member. Two runners of one board in one process should have different names.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    async fn run(self) -> Result<Counts, BoardError> {
        let RunBoard { board, handlers, mut settings, name, until } = self;
        settings.max_attempts = smaller(settings.max_attempts, board.max_attempts());
        let (showing, conductor) = conductor::show(&board, name);
        let counts = pool::run(Arc::new(Jobs { board, handlers }), settings, until, showing).await;
        conductor.end().await;
        counts
    }
}

impl IntoFuture for RunBoard {
    type Output = Result<Counts, BoardError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.run())
    }
}

impl fmt::Debug for RunBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut names: Vec<_> = self.handlers.by_name.keys().collect();
        names.sort_unstable();
        f.debug_struct("RunBoard")
            .field("board", &self.board)
            .field("names", &names)
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// The job that a handler works on. It dereferences to the [`Job`].
///
/// The claim ends when the future of the handler has ended: work that it begins elsewhere has to end before.
#[derive(Debug)]
pub struct JobTask {
    job: Job,
    lease: Lease,
    attempt: u32,
    last_error: Option<String>,
    stopping: Stopping,
}

impl JobTask {
    /// The job.
    pub fn job(&self) -> &Job {
        &self.job
    }

    /// The lease of the claim. The future of the handler is dropped when it is lost.
    pub fn lease(&self) -> &Lease {
        &self.lease
    }

    /// The fencing token: it is higher for each later claim of the same job.
    pub fn token(&self) -> FencingToken {
        self.lease.token()
    }

    /// How often the job was claimed so far, this claim included.
    pub fn attempt(&self) -> u32 {
        self.attempt
    }

    /// Why the last attempt before this one has failed, if its worker said so.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Waits until the handler is asked to stop, because the runner ends. It may finish its job, or return
    /// [`Failure::interrupted`]. At the end of [`drain`](RunBoard::drain) its future is dropped, and the job is given back;
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

impl Deref for JobTask {
    type Target = Job;

    fn deref(&self) -> &Job {
        &self.job
    }
}

impl fmt::Display for JobTask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.job.fmt(f)
    }
}

/// The jobs of a board for which there is a handler.
struct Jobs {
    board: JobBoard,
    handlers: Handlers,
}

impl Jobs {
    fn handler(&self, name: &str) -> Option<&Handler> {
        self.handlers.by_name.get(name).or(self.handlers.otherwise.as_ref())
    }
}

impl Source for Jobs {
    type Taken = Claim;
    type Output = ();
    type Error = BoardError;

    fn place(&self) -> String {
        self.board.path().to_string()
    }

    fn name(&self, claim: &Claim) -> String {
        claim.job().to_string()
    }

    fn random(&self) -> &Random {
        self.board.random()
    }

    fn take(&self, _most: usize) -> BoxFuture<'_, Result<Vec<Claim>, BoardError>> {
        Box::pin(async {
            let claim = match self.handlers.otherwise {
                Some(_) => self.board.claim_next().await,
                None => self.board.claim_where(|job| self.handler(&job.name()).is_some()).await,
            };
            Ok(vec![claim?])
        })
    }

    fn lease<'a>(&self, claim: &'a Claim) -> &'a Lease {
        claim.lease()
    }

    fn attempt(&self, claim: &Claim) -> u32 {
        claim.attempt()
    }

    fn work(&self, claim: &Claim, stopping: Stopping) -> BoxFuture<'static, Result<(), Failure>> {
        let task = JobTask {
            job: claim.job().clone(),
            lease: claim.lease().clone(),
            attempt: claim.attempt(),
            last_error: claim.last_error().map(str::to_owned),
            stopping,
        };
        match self.handler(&task.name()) {
            Some(handler) => handler(task),
            // Its posting was changed after it was chosen.
            None => Box::pin(async { Err(Failure::interrupted("there is no handler of its name here")) }),
        }
    }

    fn end(&self, claim: Claim, end: End<()>) -> BoxFuture<'static, Result<Ended, BoardError>> {
        Box::pin(async move {
            match end {
                End::Done(()) => claim.consume().await.map(|()| Ended::Finished),
                End::Back(how) => claim.give_back(how).await.map(|()| Ended::GivenBack),
                End::GivenUp { reason } => claim.give_up(&reason).await.map(|()| Ended::GivenUp),
                End::Overdue => claim.give_up_unbegun().await.map(|()| Ended::GivenUp),
            }
        })
    }

    fn is_final(&self, error: &BoardError) -> bool {
        match error {
            BoardError::Service(service) => !service.is_transient() && !self.board.is_of_one_job(error),
            error => error.is_closed(),
        }
    }
}
