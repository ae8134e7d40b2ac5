//! [`Shared`]: the state that the tasks of one worker share.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{duplicates::Duplicates, results::Results};
use crate::{
    metrics,
    task::Tasks,
    worker::{
        handler::Handler,
        link::Link,
        message::{Inventory, NotifyReply},
        sender::Sender,
    },
};

/// How many messages a worker takes beyond those that it runs, before it knows how large they are.
const FIRST_PREFETCH: u16 = 16;

/// How many executors are remembered.
const EXECUTORS: usize = 64;

pub(super) struct Shared {
    pub(super) link: Link,
    pub(super) topic: Arc<str>,
    pub(super) handlers: BTreeMap<String, Arc<dyn Handler>>,
    pub(super) concurrency: u32,
    /// The largest number of unacknowledged messages at a time, and of their bytes.
    pub(super) prefetch: u16,
    pub(super) prefetch_bytes: usize,
    pub(super) heartbeat: Duration,
    pub(super) slots: Arc<Semaphore>,
    /// How many slots are in use.
    pub(super) running: AtomicUsize,
    pub(super) duplicates: Duplicates,
    pub(super) results: Results,
    pub(super) executors: Executors,
    pub(super) fullness: Fullness,
    /// Asks for an inventory at once.
    pub(super) changed: Notify,
    /// When it is cancelled, no new requests are taken. When `tasks` is cancelled, the running ones are dropped, too.
    pub(super) draining: CancellationToken,
    pub(super) tasks: Tasks,
}

impl Shared {
    pub(super) fn reply_listing(&self, tasks: Vec<String>) -> NotifyReply {
        NotifyReply::new(&*self.topic, tasks)
    }

    /// How many requests run. The free slots do not tell: at the end of the worker they are acquired as well.
    pub(super) fn running(&self) -> usize {
        self.running.load(SeqCst)
    }

    /// Sets the gauge of the requests that run.
    fn measure_running(&self) {
        metrics::WORKER_OPEN.set(&[&*self.topic, "running"], self.running() as f64);
    }

    /// The prefetch before the size of the messages is known.
    pub(super) fn first_prefetch(&self) -> u16 {
        let running = u16::try_from(self.concurrency).unwrap_or(u16::MAX);
        self.prefetch.min(running.saturating_add(FIRST_PREFETCH))
    }

    /// What this worker has of the requests of the executor at `reply_to`.
    pub(super) fn inventory(&self, reply_to: &str, has_room: bool) -> Inventory {
        let (waiting, running) = self.duplicates.of(reply_to);
        Inventory::new(&*self.topic, has_room, self.heartbeat).with_waiting(waiting).with_running(running)
    }
}

/// The right to run a request. Dropped, it is free for another one.
pub(super) struct Slot {
    shared: Arc<Shared>,
    _permit: OwnedSemaphorePermit,
}

impl Slot {
    pub(super) fn new(shared: Arc<Shared>, permit: OwnedSemaphorePermit) -> Self {
        shared.running.fetch_add(1, SeqCst);
        shared.measure_running();
        Slot { shared, _permit: permit }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.shared.running.fetch_sub(1, SeqCst);
        self.shared.measure_running();
    }
}

/// Whether as many requests wait as the worker takes, and whether that was so at any time since the last report.
#[derive(Debug, Default)]
pub(super) struct Fullness {
    is: AtomicBool,
    was: AtomicBool,
}

impl Fullness {
    pub(super) fn set(&self, is_full: bool) {
        // Also if it ends now, and first: what reads both finds one of them until then.
        if is_full || self.is.load(SeqCst) {
            self.was.store(true, SeqCst);
        }
        self.is.store(is_full, SeqCst);
    }

    /// Whether the worker is full, or was since the last report.
    pub(super) fn is_or_was(&self) -> bool {
        self.is.load(SeqCst) || self.was.load(SeqCst)
    }

    /// The same at the time of a report.
    pub(super) fn report(&self) -> bool {
        self.is.load(SeqCst) | self.was.swap(false, SeqCst)
    }
}

/// The executors that have asked last, by their topics for answers. An executor of TaskFlow has no sender.
#[derive(Debug, Default)]
pub(super) struct Executors(Mutex<VecDeque<(String, Option<Sender>)>>);

/// What a question of an executor says about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Acquaintance {
    /// It is one of TaskFlow, or known.
    Known,
    /// It is one of this crate, and new.
    New,
    /// It is one of this crate, and its connection broke. What was sent to it may be lost.
    Back,
}

impl Executors {
    pub(super) fn add(&self, executor: &str, sender: Option<Sender>) -> Acquaintance {
        let mut executors = self.lock();
        let known = executors.iter().position(|(known, _)| known == executor);
        let before = known.and_then(|index| executors.remove(index)).map(|(_, sender)| sender);
        if executors.len() == EXECUTORS {
            executors.pop_front();
        }
        executors.push_back((executor.to_owned(), sender.clone()));
        match (before, sender) {
            (_, None) => Acquaintance::Known,
            (Some(before), sender) if before == sender => Acquaintance::Known,
            (Some(Some(_)), Some(_)) => Acquaintance::Back,
            // What was sent to it before it was known may be lost as well.
            (_, Some(sender)) if sender.connections > 0 => Acquaintance::Back,
            _ => Acquaintance::New,
        }
    }

    /// The topics of the executors of this crate.
    pub(super) fn of_this_crate(&self) -> Vec<String> {
        self.lock().iter().filter(|(_, sender)| sender.is_some()).map(|(topic, _)| topic.clone()).collect()
    }

    /// Forgets an executor that is gone. When it asks again, it is new.
    pub(super) fn forget(&self, executor: &str) {
        self.lock().retain(|(known, _)| known != executor);
    }

    pub(super) fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.lock()).into_iter().map(|(topic, _)| topic).collect()
    }

    /// No code panics under the lock, so a poisoned lock has a valid table.
    fn lock(&self) -> MutexGuard<'_, VecDeque<(String, Option<Sender>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
