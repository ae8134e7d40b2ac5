//! The work queue, in memory and on a real server: entries are put, taken, ended and collected, and the znodes are
//! checked after each step.

mod between_reads;
mod by_id;
mod entries;
mod every_fault;
mod failures;
mod foreign_entries;
mod golden;
mod lost_replies;
mod no_room;
mod permissions;
mod put;
mod races;
mod recovery;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use apportion::{
    Config, PartitionCoordinator,
    backend::{Memory, Session, path::ZnodePath},
    queue::{Delivery, QueueError, State, WorkQueue},
};
use serde_json::{Value, json};

use crate::{
    setup::AtOnce as _,
    support::{
        SECOND, eventually,
        fate::Fates,
        fleet::{Agent, Store},
    },
};

/// The queue of the scenario, as `agent` sees it.
async fn open(store: &Store, agent: &Agent) -> WorkQueue {
    agent.coordinator.queue(root(store)).at_once().await.unwrap()
}

fn root(store: &Store) -> String {
    format!("/{}/queue", store.namespace)
}

fn path(store: &Store, below: &str) -> ZnodePath {
    store.path("queue").join(below).unwrap()
}

/// An agent and its queue.
async fn worker(store: &Store, id: &str) -> (Agent, WorkQueue) {
    let agent = store.agent(id).await;
    let queue = open(store, &agent).await;
    (agent, queue)
}

/// A coordinator and its queue, and what decides the fate of its requests.
async fn fated(store: &Store) -> (PartitionCoordinator, WorkQueue, Arc<Fates>) {
    let (connector, fates) = Fates::on(store.ensemble());
    let coordinator = store.connect(connector, "a").await;
    let queue = coordinator.queue(root(store)).at_once().await.unwrap();
    (coordinator, queue, fates)
}

/// The names in one folder of the queue, sorted.
async fn names(store: &Store, folder: &str) -> Vec<String> {
    names_in(&*store.session().await, &path(store, folder)).await
}

async fn names_in(session: &dyn Session, folder: &ZnodePath) -> Vec<String> {
    session.sync(folder).await.unwrap();
    let (mut names, _) = session.children(folder).await.unwrap();
    names.sort_unstable();
    names
}

/// The names and values in one folder of the queue, without the ids.
async fn values(store: &Store, folder: &str) -> BTreeMap<String, Value> {
    let (session, folder) = (store.session().await, path(store, folder));
    let mut found = BTreeMap::new();
    for name in names_in(&*session, &folder).await {
        let (data, _) = session.get(&folder.join(&name).unwrap()).await.unwrap().unwrap();
        let mut value: Value = serde_json::from_slice(&data).unwrap();
        if let Some(fields) = value.as_object_mut() {
            // It is random.
            fields.remove("id");
        }
        found.insert(name, value);
    }
    found
}

/// The number of znodes in `unowned`, `owned`, `done`, `dead` and `claims`.
async fn counts(store: &Store) -> [usize; 5] {
    let session = store.session().await;
    let mut counts = [0; 5];
    for (count, folder) in counts.iter_mut().zip(["unowned", "owned", "done", "dead", "claims"]) {
        *count = names_in(&*session, &path(store, folder)).await.len();
    }
    counts
}

async fn counts_become(store: &Store, expected: [usize; 5]) {
    let same = || async { (counts(store).await == expected).then_some(()) };
    let within = tokio::time::timeout(30 * SECOND, eventually("these counts", 60 * SECOND, same)).await;
    assert!(within.is_ok(), "expected {expected:?}, found {:?}", counts(store).await);
}

fn payload(delivery: &Delivery) -> Value {
    delivery.payload().unwrap().clone()
}
