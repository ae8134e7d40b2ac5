//! A key set in a group: it gives the same shares, and the same changes of them, as its items one by one.

use std::collections::BTreeSet;

use apportion::{Error, Held, KeySet, PartitionCoordinator};

use crate::support::{
    MS,
    fleet::{Store, sees, settles_within},
};

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("target-{number}")).collect()
}

#[tokio::test(start_paused = true)]
async fn the_share_of_a_set_is_that_of_its_items_in_the_order_of_insertion() {
    let store = Store::memory();
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    // Duplicates are work, too.
    let items = [names(300), names(100)].concat();
    let mut set = KeySet::new(items.clone());
    let mut shared = 0;
    for group in [&in_a, &in_b] {
        let share = group.share(&set).await.unwrap();
        assert!(share.is_valid() && share.epoch() == group.view().epoch());
        assert_eq!(share.to_vec(), group.extract_my_subset(&items).await.unwrap().to_vec());
        shared += share.len();
    }
    assert_eq!(shared, items.len());

    let mine = in_a.share(&set).await.unwrap().first().copied().cloned().expect("some are ours");
    let before = in_a.share(&set).await.unwrap().len();
    assert_eq!(set.remove(&mine), Some(mine.clone()));
    assert_eq!(in_a.share(&set).await.unwrap().len(), before - 1);
    set.insert(mine.clone());
    assert_eq!(in_a.share(&set).await.unwrap().last(), Some(&&mine), "inserted last");
}

#[tokio::test(start_paused = true)]
async fn what_a_change_moves_of_a_set_is_what_it_moves_of_its_items() {
    let store = Store::memory();
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    let set: KeySet<String> = names(500).into_iter().collect();
    let mut rebalances = in_a.rebalances();
    let first = rebalances.next().await.unwrap();
    assert_eq!((first.gained_of(&set).len(), first.lost_of(&set).len()), (500, 0));

    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    let change = rebalances.next().await.unwrap();
    let lost = change.lost_of(&set);
    assert!((100..400).contains(&lost.len()), "{} of 500", lost.len());
    // A set is a collection like any other as well.
    assert!(change.lost(&set).eq(lost.iter().copied()));
    assert_eq!(change.gained(&set).count(), 0);
    sees(&in_b, store.round(), &["a", "b"]).await;
    assert_eq!(in_b.share(&set).await.unwrap().into_vec(), lost);

    in_b.leave().await.unwrap();
    let back = rebalances.next().await.unwrap().gained_of(&set);
    assert!(back.is_valid() && back.epoch() == in_a.view().epoch());
    assert_eq!(back.to_vec(), lost);
    assert!(back.into_iter().map(Held::into_inner).eq(lost), "each may start");
}

#[tokio::test(start_paused = true)]
async fn after_the_deadline_the_share_of_a_set_is_empty_and_stays_invalid() {
    let store = Store::memory();
    let a = store.agent("a").await;
    let group = a.join("g").await;
    let set = KeySet::new(names(50));
    let valid = group.share(&set).await.unwrap();
    assert_eq!(valid.iter().count(), 50);
    a.suspend();
    tokio::time::sleep(store.session_timeout).await;
    assert_eq!((valid.is_valid(), valid.iter().count()), (false, 0));
    let late = group.share(&set).await.unwrap();
    assert!(late.is_empty() && !late.is_valid());
    group.clone().leave().await.unwrap();
    assert!(matches!(group.share(&set).await, Err(Error::Closed { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_shares_a_set_as_it_shares_items() {
    let store = Store::memory();
    let a = store.agent("a").await;
    let set = KeySet::new(0..200u32);
    assert_eq!(a.coordinator.share("", &set).await.unwrap().len(), 200, "no group: everything is mine");
    let joined = a.join("g").await;
    assert_eq!(a.coordinator.share("g", &set).await.unwrap().len(), 200);
    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    sees(&joined, store.round() + MS, &["a", "b"]).await;
    let by_a: BTreeSet<u32> =
        a.coordinator.share("g", &set).await.unwrap().iter().map(|key| **key.into_inner()).collect();
    let by_b: BTreeSet<u32> =
        b.coordinator.share("g", &set).await.unwrap().iter().map(|key| **key.into_inner()).collect();
    assert!(by_a.is_disjoint(&by_b) && by_a.len() + by_b.len() == 200);
    drop(in_b);

    let alone = PartitionCoordinator::standalone();
    assert_eq!(alone.share("g", &set).await.unwrap().len(), 200);
    assert!(alone.share("g", &KeySet::<String>::default()).await.unwrap().is_empty());
}
