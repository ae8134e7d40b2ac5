//! What was lost and what was gained, as a reader of the changes sees it.

use apportion::Held;

use crate::support::{
    MS, SECOND,
    fleet::{Store, is_over, next_change, settles_within, universe},
};

#[tokio::test(start_paused = true)]
async fn what_one_loses_another_gains_and_the_union_is_complete() {
    let store = Store::memory();
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let in_a = a.join("g").await;
    let mut of_a = in_a.rebalances();
    let first = next_change(&mut of_a).await;
    assert_eq!((first.gained(universe()).count(), first.lost(universe()).count()), (100, 0));

    let in_b = b.join("g").await;
    let mut of_b = in_b.rebalances();
    let gained: Vec<_> = next_change(&mut of_b).await.gained(universe()).map(Held::into_inner).collect();
    let change = next_change(&mut of_a).await;
    let lost: Vec<_> = change.lost(universe()).collect();
    assert_eq!(lost, gained);
    assert_eq!(change.gained(universe()).count(), 0);
    assert_eq!(change.members(), (1, 2));
    assert_eq!(change.epoch(), in_a.view().epoch());

    in_b.leave().await.unwrap();
    let last = next_change(&mut of_b).await;
    assert!(last.is_total_loss());
    assert_eq!(last.lost(universe()).collect::<Vec<_>>(), gained);
    assert!(is_over(&mut of_b).await);
    assert!(is_over(&mut of_b).await, "it stays over");
    let back = next_change(&mut of_a).await;
    assert!(back.gained(universe()).map(Held::into_inner).eq(gained));
}

#[tokio::test(start_paused = true)]
async fn everything_is_lost_at_the_deadline_at_that_moment_and_gained_again_when_contact_is_back() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let mut rebalances = group.rebalances();
    next_change(&mut rebalances).await;
    tokio::time::sleep(3 * SECOND).await;
    let share = group.extract_my_subset(universe()).await.unwrap();
    agent.suspend();
    let deadline = share.deadline();
    let change = next_change(&mut rebalances).await;
    let now = store.connector().clock().now();
    assert!(change.is_total_loss() && change.lost(universe()).count() == universe().len());
    let late = now.saturating_since(deadline);
    assert!(now >= deadline && late <= 2 * MS, "{late:?} after the deadline");

    tokio::time::sleep(SECOND).await;
    agent.resume();
    // Until a heartbeat is confirmed that is a server tick younger than the first one after the outage.
    let change = tokio::time::timeout(3 * SECOND, rebalances.next()).await.unwrap().unwrap();
    assert_eq!(change.gained(universe()).count(), universe().len());
    assert!(group.view().owns("alarm-1"));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_slow_gets_one_change_for_all_that_happened() {
    let store = Store::memory();
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let in_a = a.join("g").await;
    let mut rebalances = in_a.rebalances();
    next_change(&mut rebalances).await;
    let in_b = b.join("g").await;
    let c = store.agent("c").await;
    let in_c = c.join("g").await;
    settles_within(2 * store.round(), &[&in_a, &in_b, &in_c]).await;
    in_b.leave().await.unwrap();
    settles_within(2 * store.round(), &[&in_a, &in_c]).await;

    let change = next_change(&mut rebalances).await;
    assert_eq!(change.members(), (1, 2));
    let view = in_a.view();
    let lost: Vec<_> = change.lost(universe()).collect();
    assert!(universe().iter().all(|key| view.owns(key) != lost.contains(key)));
    let further = tokio::time::timeout(60 * SECOND, rebalances.next()).await;
    assert!(further.is_err(), "{further:?}");
}

#[tokio::test(start_paused = true)]
async fn each_reader_of_rebalances_gets_every_change_by_itself() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let (mut one, mut two) = (group.rebalances(), group.clone().rebalances());
    for rebalances in [&mut one, &mut two] {
        assert_eq!(next_change(rebalances).await.gained(universe()).count(), universe().len());
    }
    drop(one);
    group.leave().await.unwrap();
    assert!(next_change(&mut two).await.is_total_loss());
}

#[tokio::test(start_paused = true)]
async fn a_cancelled_read_of_a_rebalance_loses_nothing() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let mut rebalances = group.rebalances();
    next_change(&mut rebalances).await;
    agent.suspend();
    for _ in 0..70 {
        // Cancelled again and again, also around the deadline.
        if let Ok(change) = tokio::time::timeout(100 * MS, rebalances.next()).await {
            assert!(change.unwrap().is_total_loss());
            return;
        }
    }
    panic!("the loss was lost");
}

#[tokio::test(start_paused = true)]
async fn a_member_that_has_no_share_yet_gains_nothing_until_it_has() {
    let store = Store::memory();
    store.ensemble().refuse_connections(true);
    let agent = store.started("a").await;
    let mut rebalances = agent.join("g").await.rebalances();
    let early = tokio::time::timeout(20 * SECOND, rebalances.next()).await;
    assert!(early.is_err(), "{early:?}");
    store.ensemble().refuse_connections(false);
    let first = tokio::time::timeout(40 * SECOND, rebalances.next()).await.unwrap().unwrap();
    assert_eq!(first.gained(universe()).count(), universe().len());
}
