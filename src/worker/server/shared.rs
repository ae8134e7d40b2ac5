//! [`Shared`]: the state that the tasks of one worker share.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::duplicates::Duplicates;
use crate::{
    task::Tasks,
    worker::{handler::Handler, link::Link, message::NotifyReply},
};

/// How many executors get a report when a worker ends.
const EXECUTORS: usize = 64;

pub(super) struct Shared {
    pub(super) link: Link,
    pub(super) topic: Arc<str>,
    pub(super) handlers: BTreeMap<String, Arc<dyn Handler>>,
    pub(super) concurrency: u32,
    /// The largest number of unacknowledged messages at a time.
    pub(super) prefetch: u16,
    pub(super) heartbeat: Duration,
    pub(super) slots: Arc<Semaphore>,
    pub(super) duplicates: Duplicates,
    pub(super) executors: Executors,
    /// When it is cancelled, no new requests are taken. When `tasks` is cancelled, the running ones are dropped, too.
    pub(super) draining: CancellationToken,
    pub(super) tasks: Tasks,
}

impl Shared {
    pub(super) fn reply_listing(&self, tasks: Vec<String>) -> NotifyReply {
        NotifyReply::new(&*self.topic, tasks)
    }
}

/// The topics for answers of the executors that have asked last.
#[derive(Debug, Default)]
pub(super) struct Executors(Mutex<VecDeque<String>>);

impl Executors {
    pub(super) fn add(&self, executor: &str) {
        let mut executors = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        executors.retain(|known| known != executor);
        if executors.len() == EXECUTORS {
            executors.pop_front();
        }
        executors.push_back(executor.to_owned());
    }

    pub(super) fn take(&self) -> VecDeque<String> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
