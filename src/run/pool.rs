//! Takes work from a board or a queue, runs its handlers, and ends each piece as they say: the core of both runners.

#[cfg(test)]
mod tests;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tracing::{debug, info, warn};

use super::{
    counts::{Counts, Ended},
    failure::Failure,
    phase::{Phase, Stopping},
    plan::{End, Verdict, is_overdue, plan},
};
use crate::{
    backoff::Backoff,
    future::BoxFuture,
    lease::Lease,
    metrics,
    random::Random,
    task::{Tasks, caught},
    watch,
};

/// Where the work comes from.
pub(super) trait Source: Send + Sync + 'static {
    /// A claimed job, or a delivered entry. Dropped, it is given back.
    type Taken: Send + Sync + 'static;
    type Output: Send + 'static;
    type Error: fmt::Display + Send + 'static;

    /// For logs.
    fn place(&self) -> String;
    fn name(&self, taken: &Self::Taken) -> String;
    fn random(&self) -> &Random;

    /// Waits for work, of which it takes at most so much. Cancel safe.
    fn take(&self, most: usize) -> BoxFuture<'_, Result<Vec<Self::Taken>, Self::Error>>;
    fn lease<'a>(&self, taken: &'a Self::Taken) -> &'a Lease;
    fn attempt(&self, taken: &Self::Taken) -> u32;
    fn work(
        &self,
        taken: &Self::Taken,
        stopping: Stopping,
    ) -> BoxFuture<'static, Result<Self::Output, Failure>>;
    fn end(
        &self,
        taken: Self::Taken,
        end: End<Self::Output>,
    ) -> BoxFuture<'static, Result<Ended, Self::Error>>;
    /// Whether an error ends the runner: it does not pass by itself, and concerns more than one piece of work.
    fn is_final(&self, error: &Self::Error) -> bool;
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    pub(super) concurrency: usize,
    pub(super) drain: Duration,
    pub(super) max_attempts: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings { concurrency: 1, drain: super::each::DRAIN, max_attempts: None }
    }
}

/// The first and the longest pause after an error of the store.
const PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// How long it waits at its end for what was ended by force to be given back. With the time in which the runner of a board
/// unregisters itself it is the 5 seconds that `docs/service.md` counts beside the drain.
const FORCED: Duration = Duration::from_secs(4);

/// Runs until `until` ends, and drains then. `beside` runs meanwhile.
///
/// Cancelled, it drops the futures of all handlers, and gives back what they had.
pub(super) async fn run<S: Source>(
    source: Arc<S>,
    settings: Settings,
    mut until: BoxFuture<'static, ()>,
    mut beside: BoxFuture<'static, ()>,
) -> Result<Counts, S::Error> {
    let mut pool = Pool::new(source.clone(), settings);
    let mut taking: Option<Taking<S>> = None;
    let (mut backoff, mut pause) = (Backoff::new(PAUSE, LONGEST_PAUSE), None);
    let mut is_beside = true;
    while pool.error.is_none() {
        let free = settings.concurrency.max(1).saturating_sub(pool.running);
        if taking.is_none() && free > 0 {
            taking = Some(Box::pin(take(source.clone(), free, pause.take())));
        }
        tokio::select! {
            biased;
            () = &mut until => break,
            Some(report) = pool.reports.recv() => pool.note(report),
            taken = async { taking.as_mut().expect("guarded").await }, if taking.is_some() => {
                taking = None;
                match taken {
                    Ok(taken) => {
                        backoff.reset();
                        taken.into_iter().for_each(|taken| pool.begin(taken));
                    }
                    Err(error) if source.is_final(&error) => pool.error = Some(error),
                    Err(error) => {
                        let after = backoff.next_delay(source.random().unit());
                        warn!(place = pool.place, %error, ?after, "no work; trying again after a pause");
                        pause = Some(after);
                    }
                }
            }
            () = &mut beside, if is_beside => is_beside = false,
        }
    }
    // What it takes at this moment is given back.
    drop(taking);
    pool.drain().await
}

type Taking<S> = BoxFuture<'static, Result<Vec<<S as Source>::Taken>, <S as Source>::Error>>;

async fn take<S: Source>(
    source: Arc<S>,
    most: usize,
    pause: Option<Duration>,
) -> Result<Vec<S::Taken>, S::Error> {
    if let Some(pause) = pause {
        sleep(pause).await;
    }
    source.take(most).await
}

struct Pool<S: Source> {
    source: Arc<S>,
    place: String,
    settings: Settings,
    tasks: Tasks,
    /// What all handlers are told. Dropped, it ends them.
    phases: watch::Sender<Phase>,
    ends: mpsc::UnboundedSender<Report<S::Error>>,
    reports: mpsc::UnboundedReceiver<Report<S::Error>>,
    running: usize,
    counts: Counts,
    error: Option<S::Error>,
}

/// What has become of one attempt.
struct Report<E> {
    ended: Result<Ended, E>,
    has_failed: bool,
}

impl<S: Source> Pool<S> {
    fn new(source: Arc<S>, settings: Settings) -> Self {
        let (ends, reports) = mpsc::unbounded_channel();
        Pool {
            place: source.place(),
            source,
            settings,
            tasks: Tasks::new(),
            phases: watch::Sender::new(Phase::Run),
            ends,
            reports,
            running: 0,
            counts: Counts::default(),
            error: None,
        }
    }

    fn begin(&mut self, taken: S::Taken) {
        self.running += 1;
        self.measure();
        let end = Reporter { ends: self.ends.clone(), report: None };
        let stopping = Stopping::new(&self.phases);
        let max_attempts = self.settings.max_attempts;
        self.tasks.spawn("handler", attempt(end, self.source.clone(), taken, stopping, max_attempts));
    }

    fn note(&mut self, Report { ended, has_failed }: Report<S::Error>) {
        self.running -= 1;
        self.measure();
        let ended = match ended {
            Ok(ended) => ended,
            Err(error) => {
                warn!(place = self.place, %error, "the end of an attempt is not confirmed");
                if self.source.is_final(&error) {
                    self.error.get_or_insert(error);
                }
                Ended::Lost
            }
        };
        self.counts.note(ended, has_failed);
        let outcome = if has_failed { "failed" } else { ended.word() };
        metrics::RUNNER_ATTEMPTS.add(&[&self.place, outcome]);
    }

    fn measure(&self) {
        metrics::RUNNER_HANDLERS.set(&[&self.place], self.running as f64);
    }

    /// Waits until all handlers have ended.
    async fn drain(mut self) -> Result<Counts, S::Error> {
        self.phases.send_replace(Phase::Stop);
        if timeout(self.settings.drain, self.all_ended()).await.is_err() {
            warn!(place = self.place, running = self.running, "handlers did not stop in time");
            self.phases.send_replace(Phase::End);
            let _ = timeout(FORCED, self.all_ended()).await;
        }
        self.counts.stuck = self.running as u64;
        (0..self.running).for_each(|_| metrics::RUNNER_ATTEMPTS.add(&[&self.place, "stuck"]));
        let (place, counts) = (&self.place, &self.counts);
        match self.error.take() {
            None => info!(place, %counts, "the runner has ended"),
            Some(error) => {
                warn!(place, %counts, %error, "the runner has ended with an error");
                return Err(error);
            }
        }
        Ok(self.counts)
    }

    /// Cancel safe.
    async fn all_ended(&mut self) {
        while self.running > 0 {
            let Some(report) = self.reports.recv().await else { return };
            self.note(report);
        }
    }
}

impl<S: Source> Drop for Pool<S> {
    fn drop(&mut self) {
        metrics::RUNNER_HANDLERS.set(&[&self.place], 0.0);
    }
}

/// Reports the end of an attempt, however it comes.
struct Reporter<E> {
    ends: mpsc::UnboundedSender<Report<E>>,
    report: Option<Report<E>>,
}

impl<E> Drop for Reporter<E> {
    fn drop(&mut self) {
        // Without one, the drop of its future has panicked.
        let report = self.report.take().unwrap_or(Report { ended: Ok(Ended::Lost), has_failed: true });
        // Without a runner, no one asks.
        let _ = self.ends.send(report);
    }
}

/// One attempt. The reporter comes first, so that it is dropped last.
async fn attempt<S: Source>(
    mut reporter: Reporter<S::Error>,
    source: Arc<S>,
    taken: S::Taken,
    stopping: Stopping,
    max_attempts: Option<u32>,
) {
    let (name, number) = (source.name(&taken), source.attempt(&taken));
    if is_overdue(number, max_attempts) {
        let ended = source.end(taken, End::Overdue).await;
        reporter.report = Some(Report { ended, has_failed: false });
        return;
    }
    let lease = source.lease(&taken).clone();
    let work = async { source.work(&taken, stopping.clone()).await };
    let verdict = tokio::select! {
        biased;
        () = stopping.clone().forced() => Some(Verdict::Interrupted),
        worked = lease.while_held(caught(work)) => match worked {
            Ok(Ok(Ok(output))) => Some(Verdict::Done(output)),
            Ok(Ok(Err(failure))) => Some(Verdict::Failed(failure)),
            Ok(Err(panic)) => Some(Verdict::Failed(Failure::panicked(&panic))),
            Err(_) => None,
        },
    };
    let Some(verdict) = verdict else {
        warn!(name, "the lease was lost: another worker may have it now");
        reporter.report = Some(Report { ended: Ok(Ended::Lost), has_failed: false });
        return;
    };
    let has_failed = matches!(&verdict, Verdict::Failed(failure) if !failure.is_interrupted());
    let was_done = matches!(verdict, Verdict::Done(_));
    let end = plan(verdict, number, max_attempts, stopping.has_come());
    match &end {
        End::Back(back) => {
            let error = back.reason.as_deref().unwrap_or_default();
            if has_failed {
                warn!(name, attempt = number, error, "an attempt has failed; it is given back");
            } else {
                debug!(name, attempt = number, error, "an attempt was interrupted; it is given back");
            }
        }
        End::GivenUp { reason } => warn!(name, attempt = number, error = reason, "given up after a failure"),
        End::Done(_) | End::Overdue => {}
    }
    let ended = source.end(taken, end).await;
    // The result did not fit into the store.
    let has_failed = has_failed || was_done && matches!(ended, Ok(Ended::GivenBack | Ended::GivenUp));
    reporter.report = Some(Report { ended, has_failed });
}
