//! Runs the tasks of a `run_each`: starts and stops them as the [`Table`](super::table::Table) says, and tells it what
//! happens.

use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    sync::{Arc, Weak},
    task::Poll,
    time::Duration,
};

use futures_util::FutureExt as _;
use tokio::{sync::mpsc, time::sleep};
use tracing::{debug, info, warn};

use super::{
    failure::{Failure, Outcome},
    guarded::Guarded,
    key_task::{KeyTask, text},
    keys::Shared,
    phase::{Phase, Stopping},
    states::{EachCounts, Ended},
    table::{Id, Signal},
};
use crate::{
    clock::Moment,
    error::Error,
    future::BoxFuture,
    group::{Group, rebalance::Rebalance, rebalances::Rebalances},
    metrics,
    ring::{Ranges, RingKey},
    share::Grant,
    task::{Tasks, caught},
    watch,
};

/// How long the driver waits at its end for tasks whose futures are to be dropped.
const FORCED: Duration = Duration::from_secs(1);

/// How often the guards of the tasks that run are checked.
const CHECK: Duration = Duration::from_secs(5);

/// See the module documentation.
pub(super) struct Driver<K, F> {
    group: Group,
    shared: Arc<Shared<K>>,
    task: Arc<F>,
    tasks: Tasks,
    /// Ordered, so that tasks are asked to stop, and dropped, in the order of their keys.
    running: BTreeMap<Id, Running<K>>,
    /// When the guards are checked next.
    check: Moment,
    /// What the share of this member rests on.
    grant: Option<Grant>,
    turn: usize,
    ends: mpsc::UnboundedSender<(Id, Ended)>,
    ended: mpsc::UnboundedReceiver<(Id, Ended)>,
}

struct Running<K> {
    /// What the task is told.
    phases: watch::Sender<Phase>,
    guarded: Weak<Guarded<K>>,
}

impl<K, F, T> Driver<K, F>
where
    K: RingKey + Send + Sync + 'static,
    F: Fn(KeyTask<K>) -> T + Send + Sync + 'static,
    T: Future<Output: Outcome> + Send + 'static,
{
    pub(super) fn new(group: Group, shared: Arc<Shared<K>>, task: F) -> Self {
        let (ends, ended) = mpsc::unbounded_channel();
        Driver {
            group,
            check: shared.now() + CHECK,
            shared,
            task: Arc::new(task),
            tasks: Tasks::new(),
            running: BTreeMap::new(),
            grant: None,
            turn: 0,
            ends,
            ended,
        }
    }

    pub(super) async fn run(mut self, mut until: BoxFuture<'static, ()>) -> Result<EachCounts, Error> {
        let mut rebalances = self.group.rebalances();
        let shared = self.shared.clone();
        let is_asked = loop {
            let due = self.act();
            let due = if self.running.is_empty() { due } else { due.into_iter().chain([self.check]).min() };
            tokio::select! {
                biased;
                () = &mut until => break true,
                change = rebalances.next() => match change {
                    Some(change) => self.follow(change),
                    None => break false,
                },
                Some((id, ended)) = self.ended.recv() => self.note(id, ended),
                () = shared.changed.notified() => {}
                () = sleep_until(self.shared.now(), due) => {}
            }
        };
        let counts = self.drain(rebalances).await;
        let group = self.group.name();
        info!(%group, ?counts, "the tasks of the group have ended");
        if is_asked { Ok(counts) } else { Err(Error::Closed { group }) }
    }

    /// Waits until all tasks have ended.
    async fn drain(&mut self, mut rebalances: Rebalances) -> EachCounts {
        let (shared, group) = (self.shared.clone(), self.group.name());
        shared.table().stop_all(shared.now());
        let mut is_over = false;
        // After the drain all are forced, and only those are left that block their threads.
        let mut give_up = None;
        while shared.table().running() > 0 {
            let due = self.act();
            let now = shared.now();
            if due.is_none() {
                give_up.get_or_insert(now + FORCED);
            }
            if give_up.is_some_and(|at| at <= now) {
                break;
            }
            tokio::select! {
                biased;
                change = rebalances.next(), if !is_over => match change {
                    Some(change) => self.follow(change),
                    None => is_over = true,
                },
                Some((id, ended)) = self.ended.recv() => self.note(id, ended),
                // A session that ends while the tasks stop wakes none of them.
                () = sleep_until(now, due.or(give_up).into_iter().chain([self.check]).min()) => {}
            }
        }
        let stuck = shared.table().running() as u64;
        if stuck > 0 {
            (0..stuck).for_each(|_| metrics::RUNNER_TASKS_ENDED.add(&[&group, "stuck"]));
            warn!(%group, stuck, "tasks block their threads, or other work has their keys, and have not ended");
        }
        EachCounts { stuck, ..shared.table().counts() }
    }

    /// Does what is to be done now; returns when there is more to do.
    fn act(&mut self) -> Option<Moment> {
        let now = self.shared.now();
        if now >= self.check {
            self.check_guards(now);
        }
        let signals = {
            let mut table = self.shared.table();
            table.tick(now);
            table.take_signals()
        };
        for signal in signals {
            let (id, phase) = match signal {
                Signal::Stop(id) => (id, Phase::Stop),
                Signal::Force(id) => (id, Phase::End),
            };
            if let Some(running) = self.running.get(&id) {
                running.phases.send_replace(phase);
            }
        }
        loop {
            let next = self.shared.table().next_start(now);
            let Some((id, key)) = next else { break };
            self.start(id, key, now);
        }
        let table = self.shared.table();
        metrics::RUNNER_TASKS.set(&[&self.group.name()], table.running() as f64);
        table.due()
    }

    /// Stops the tasks whose guards end although their keys are owned: the keys may have been lost for a moment that the
    /// last change of the share does not show.
    fn check_guards(&mut self, now: Moment) {
        self.check = now + CHECK;
        let mut table = self.shared.table();
        for (id, running) in &self.running {
            let Some(guarded) = running.guarded.upgrade() else { continue };
            if guarded.held.is_marked() || !guarded.held.is_valid() {
                table.ask_to_stop(*id, now);
                // Wakes the task, also if it was asked before.
                running.phases.send_modify(|_| {});
            }
        }
    }

    fn start(&mut self, id: Id, key: Arc<K>, now: Moment) {
        self.turn = self.turn.wrapping_add(1);
        let grant = self.grant.as_ref();
        let Some(held) = grant.and_then(|grant| grant.start(key, id.position(), self.turn)) else {
            self.shared.table().not_held(id, now);
            return;
        };
        let phases = watch::Sender::new(Phase::Run);
        let stopping = Stopping::new(&phases);
        let guarded = Guarded::new(held, id, self.ends.clone());
        self.running.insert(id, Running { phases, guarded: Arc::downgrade(&guarded) });
        self.tasks.spawn("key", run_task(guarded, self.task.clone(), stopping));
    }

    /// The share of this member has changed.
    fn follow(&mut self, change: Rebalance) {
        let nothing = Ranges::none();
        let owned = change.after.as_ref().map_or(&nothing, |part| &*part.ranges);
        self.shared.table().own(owned, self.shared.now());
        self.grant = Some(change.grant);
    }

    /// A task has ended, and perhaps more.
    fn note(&mut self, id: Id, ended: Ended) {
        let mut next = Some((id, ended));
        while let Some((id, ended)) = next {
            self.running.remove(&id);
            self.note_one(id, ended);
            next = self.ended.recv().now_or_never().flatten();
        }
    }

    fn note_one(&self, id: Id, ended: Ended) {
        let (shared, random) = (&self.shared, self.group.random());
        let mut table = shared.table();
        let key = table.key(id).cloned();
        let key = key.as_deref().map(text).unwrap_or_default();
        let group = self.group.name();
        metrics::RUNNER_TASKS_ENDED.add(&[&group, ended.word()]);
        match &ended {
            Ended::Failed(failure) if !failure.is_interrupted() => {}
            Ended::Forced => warn!(%group, key, "a task did not stop in time, and was ended"),
            ended => debug!(%group, key, ?ended, "a task has ended"),
        }
        let error = if let Ended::Failed(failure) = &ended { failure.to_string() } else { String::new() };
        let is_failure = matches!(&ended, Ended::Failed(failure) if !failure.is_interrupted());
        match table.ended(id, ended, shared.now(), random) {
            Some((errors, pause)) if is_failure => {
                warn!(%group, key, error, errors, ?pause, "a task has failed; it is started again after a pause");
            }
            None if is_failure => warn!(%group, key, error, "a task has failed"),
            _ => {}
        }
    }
}

impl<K, F> Drop for Driver<K, F> {
    fn drop(&mut self) {
        metrics::RUNNER_TASKS.set(&[&self.group.name()], 0.0);
    }
}

/// The guard comes first, so that it is dropped last if the drop of the future panics.
async fn run_task<K, F, T>(guarded: Arc<Guarded<K>>, task: Arc<F>, stopping: Stopping)
where
    F: Fn(KeyTask<K>) -> T,
    T: Future<Output: Outcome>,
{
    // Boxed, because each future around it would need room for it once more.
    let mut work = Box::pin(caught(async {
        let key = KeyTask::new(guarded.clone(), stopping.clone());
        task(key).await.into_result()
    }));
    let mut forced = pin!(stopping.clone().forced());
    // Without a timer for each key: a change of the share asks the task to stop, and so does a check of the driver, and that
    // wakes it.
    let ended = poll_fn(|context| {
        if forced.as_mut().poll(context).is_ready() {
            return Poll::Ready(Ended::Forced);
        }
        if !guarded.held.is_valid() {
            return Poll::Ready(Ended::Lost);
        }
        work.as_mut().poll(context).map(|ended| match ended {
            Ok(Ok(())) => Ended::Finished,
            Ok(Err(failure)) => Ended::Failed(failure),
            Err(panic) => Ended::Failed(Failure::panicked(&panic)),
        })
    })
    .await;
    guarded.has_ended(ended);
    drop(work);
}

async fn sleep_until(now: Moment, due: Option<Moment>) {
    match due {
        Some(due) => sleep(due.saturating_since(now)).await,
        None => std::future::pending().await,
    }
}
