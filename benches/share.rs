//! A share: what a caller pays for the guard of each item that it acts on.
//!
//! `cargo bench --bench share`, with a part of a title to select a table.

mod support;

use std::{hint::black_box, sync::Arc, time::Duration};

use apportion::{
    BoxFuture, Config, Group, KeySet, PartitionCoordinator,
    backend::{self, Connector, Memory, Session},
    clock::{BootClock, Clock},
};
use criterion::Criterion;
use tokio::runtime::Runtime;

use support::{Comparison, is_chosen, members, uuids};

const ITEMS: usize = 1_000_000;

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    share(&mut criterion, "share of 1 000 000 items, 1 member", 1);
    share(&mut criterion, "share of 1 000 000 items, 10 members", 10);
    share(&mut criterion, "share of 1 000 000 items, no backend", 0);
    criterion.final_summary();
}

fn share(criterion: &mut Criterion, title: &str, count: usize) {
    if !is_chosen(title) {
        return;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let (_coordinators, group) = runtime.block_on(fleet(count));
    let (keys, set) = (uuids(ITEMS), KeySet::new(uuids(ITEMS)));
    let share = || runtime.block_on(group.extract_my_subset(&keys)).expect("a share");
    let expected = share().len();
    println!("\n{expected} items are in the share");
    Comparison::new(title, ITEMS)
        .way("each item acted on", || share().into_iter().map(black_box).count() as u64)
        .way("each item acted on, and looked at before", || {
            let mine = share();
            black_box(mine.len());
            mine.iter().map(black_box).count() as u64
        })
        .way("all of them in progress at once", || share().into_iter().collect::<Vec<_>>().len() as u64)
        .way("only looked at", || share().into_vec().into_iter().map(black_box).count() as u64)
        .other("of a key set, each item acted on", || of_set(&runtime, &group, &set))
        .other("of a key set, only looked at", || {
            runtime.block_on(group.share(&set)).expect("a share").into_vec().len() as u64
        })
        .measure(criterion);
}

fn of_set(runtime: &Runtime, group: &Group, set: &KeySet<String>) -> u64 {
    runtime.block_on(group.share(set)).expect("a share").into_iter().map(black_box).count() as u64
}

/// A group of so many members. The heartbeats need not come while the runtime is blocked by a measurement.
async fn fleet(count: usize) -> (Vec<PartitionCoordinator>, Group) {
    if count == 0 {
        let alone = PartitionCoordinator::standalone();
        let group = alone.join("bench").await.expect("it can join");
        return (vec![alone], group);
    }
    let (store, mut coordinators, mut groups) = (Memory::new(), Vec::new(), Vec::new());
    for id in members(count) {
        let config = Config::for_backend(BootTime(store.clone()))
            .member_id(id)
            .session_timeout(Duration::from_secs(3600))
            .heartbeat_validity(Duration::from_secs(1800));
        let coordinator = PartitionCoordinator::connect(config).await.expect("it can connect");
        groups.push(coordinator.join("bench").await.expect("it can join"));
        coordinators.push(coordinator);
    }
    let group = groups.swap_remove(0);
    while group.view().members().len() < count {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    (coordinators, group)
}

/// The store in the process with the clock of production.
#[derive(Debug)]
struct BootTime(Memory);

impl Connector for BootTime {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, backend::Error>> {
        self.0.open(timeout)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(BootClock)
    }
}
