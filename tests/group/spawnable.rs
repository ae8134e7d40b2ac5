//! What a service spawns has to be `Send`, whatever the items are. It is enough that this compiles.

use std::{
    fmt,
    future::{Future, IntoFuture},
    sync::LazyLock,
    time::Duration,
};

use apportion::{
    Config, Error, Group, Held, KeySet, PartitionCoordinator, Share,
    group::{ItemLost, Observer, Rebalance},
};
use tokio::time::sleep;

use crate::support::SECOND;

static KEYS: LazyLock<KeySet<String>> = LazyLock::new(KeySet::default);

const _: fn(&PartitionCoordinator, &Group, &[(String, u64)]) = futures_can_be_spawned;

fn futures_can_be_spawned(coordinator: &PartitionCoordinator, group: &Group, rows: &[(String, u64)]) {
    fn spawnable<T: Send>(future: impl Future<Output = T> + Send) {
        drop(future);
    }
    spawnable(PartitionCoordinator::connect("zookeeper://localhost"));
    spawnable(PartitionCoordinator::connect(Config::aodh()));
    spawnable(coordinator.join("g").weight(3).settle(SECOND).into_future());
    spawnable(coordinator.extract_my_subset("g", vec![String::new()]));
    spawnable(coordinator.extract_my_subset_by("g", rows.to_vec(), |row| row.1));
    spawnable(coordinator.shutdown());
    spawnable(group.extract_my_subset(vec![String::new()]));
    spawnable(group.extract_my_subset(&["x"]));
    spawnable(group.extract_my_subset((0..10).map(|n| n.to_string())));
    spawnable(group.extract_my_subset_by(rows, |row| row.0.clone()));
    spawnable(group.extract_my_subset_by(rows.iter(), |(_, number)| *number));
    spawnable(group.extract_my_subset_by(rows, |row| &row.0));
    spawnable(group.clone().leave());
    let (mut rebalances, shards) = (group.rebalances(), vec![String::new()]);
    spawnable(async move {
        while let Some(change) = rebalances.next().await {
            for shard in change.lost(&shards) {
                sleep(Duration::from_millis(shard.len() as u64)).await;
            }
        }
    });
    let mine = group.share(&*KEYS);
    spawnable(async move {
        for shard in mine.await? {
            shard.while_held(sleep(SECOND)).await.ok();
        }
        Ok::<(), Error>(())
    });
    fn movable<T: Send + 'static>(_: Option<T>) {}
    movable::<Held<Vec<String>>>(None);
    fn shareable<T: Send + Sync + fmt::Debug>() {}
    shareable::<PartitionCoordinator>();
    shareable::<Group>();
    shareable::<Share<String>>();
    shareable::<Rebalance>();
    shareable::<Held<String>>();
    shareable::<ItemLost>();
    spawnable(coordinator.observe("g").into_future());
    shareable::<Observer>();
}
