//! The guards of items: an item that is lost before its turn is skipped, and the guard of one in progress ends.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use apportion::{Group, Held, KeySet, PartitionCoordinator, Share};
use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::{task::JoinSet, time::timeout};
use tracing::Level;

use crate::support::{
    SECOND,
    events::Events,
    eventually,
    fleet::{
        Agent, Store, immediate_on_both_backends, next_change, on_both_backends, sees, settles_within,
        universe,
    },
    until,
};

async fn share(group: &Group) -> Share<String> {
    group.extract_my_subset(universe()).await.unwrap()
}

/// Two members; the share is that of the first, from before the second joined, and its guards are in progress.
async fn overtaken(store: &Store) -> (Agent, Group, Vec<Held<String>>, Agent, Group) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    let held: Vec<_> = share(&in_a).await.into_iter().collect();
    assert_eq!(held.len(), universe().len());
    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    settles_within(store.round(), &[&in_a, &in_b]).await;
    (a, in_a, held, b, in_b)
}

async fn items_that_were_lost_before_their_turn_are_skipped_and_counted(store: Store) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    let (mut owned, lent, dropped) =
        (share(&in_a).await.into_iter(), share(&in_a).await, share(&in_a).await.into_iter());
    let in_progress: Vec<String> = owned.by_ref().take(10).map(Held::into_inner).collect();
    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    settles_within(store.round(), &[&in_a, &in_b]).await;

    let warnings = Events::of("apportion::share");
    let owns = |key: &String| in_a.view().owns(key);
    let rest: Vec<String> = owned.by_ref().map(Held::into_inner).collect();
    assert!(rest.iter().eq(universe()[10..].iter().filter(|key| owns(key))), "{rest:?}");
    assert_eq!(owned.skipped(), 90 - rest.len());
    assert!(owned.skipped() > 20 && owned.next().is_none());
    let mut lending = lent.iter();
    assert!(lending.by_ref().all(|key| owns(&key)));
    assert_eq!(lending.skipped(), universe().iter().filter(|key| !owns(key)).count());
    drop(lending);
    assert_eq!(lent.len(), 100, "the slice never changes");

    let skipped = owned.skipped();
    drop((owned, dropped));
    let said = warnings.take(Level::WARN);
    assert_eq!(
        said.iter().filter(|text| text.contains(&format!("skipped={skipped} "))).count(),
        1,
        "{said:?}"
    );
    assert!(said.iter().all(|text| text.contains("group=g ")), "{said:?}");
    drop(in_progress);
}

async fn the_guard_of_an_item_in_progress_ends_when_another_member_owns_it(store: Store) {
    let (_a, in_a, held, _b, in_b) = overtaken(&store).await;
    let epoch = in_a.view().epoch();
    let mut ended = 0;
    for guard in &held {
        let is_mine = in_a.view().owns(&**guard);
        assert_eq!((guard.is_valid(), guard.remaining().is_zero()), (is_mine, !is_mine), "{guard:?}");
        assert_eq!(guard.lost().now_or_never().is_none(), is_mine);
        ended += usize::from(!is_mine);
    }
    assert!((20..80).contains(&ended), "{ended}");
    assert!(held.iter().all(|guard| guard.token().get() < epoch.unsigned_abs()));

    // Its key comes back, but the guard has ended for good: another process may have acted on the item.
    in_b.leave().await.unwrap();
    settles_within(store.round(), &[&in_a]).await;
    assert_eq!(held.iter().filter(|guard| !guard.is_valid()).count(), ended);
    assert_eq!(share(&in_a).await.into_iter().filter(Held::is_valid).count(), universe().len());
}

async fn work_in_progress_is_dropped_when_its_item_is_lost(store: Store) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    let mut work = JoinSet::new();
    for key in share(&in_a).await {
        work.spawn(async move {
            let forever = std::future::pending::<()>();
            let lost = key.while_held(forever).await.unwrap_err();
            (key.into_inner(), lost.group)
        });
    }
    tokio::task::yield_now().await;
    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    sees(&in_b, store.round(), &["a", "b"]).await;
    let theirs: BTreeSet<String> = share(&in_b).await.into_iter().map(Held::into_inner).collect();
    let mut stopped = BTreeSet::new();
    while stopped.len() < theirs.len() {
        let ended = timeout(store.round(), work.join_next()).await.expect("it goes on").unwrap().unwrap();
        assert_eq!(ended.1, "g");
        stopped.insert(ended.0);
    }
    assert_eq!(stopped, theirs);
    assert!(timeout(SECOND / 2, work.join_next()).await.is_err(), "the others go on");

    in_a.leave().await.unwrap();
    assert_eq!(timeout(store.round(), work.join_all()).await.expect("it goes on").len(), 100 - theirs.len());
}

async fn the_guards_of_a_membership_end_with_it_for_good(store: Store) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    let held: Vec<_> = share(&in_a).await.into_iter().collect();
    a.expire(&store).await;
    until("it has noticed", SECOND, || !held[0].is_valid()).await;
    let again = || async { in_a.view().owns("alarm-1").then_some(()) };
    eventually("back in the group", 10 * SECOND, again).await;
    assert!(held.iter().all(|guard| !guard.is_valid() && guard.lost().now_or_never().is_some()));
    assert!(held.iter().all(|guard| guard.remaining().is_zero()));
    assert_eq!(share(&in_a).await.into_iter().filter(Held::is_valid).count(), universe().len());

    let held: Vec<_> = share(&in_a).await.into_iter().collect();
    a.coordinator.shutdown().await.unwrap();
    assert!(held.iter().all(|guard| !guard.is_valid() && guard.lost().now_or_never().is_some()));
}

async fn what_a_rebalance_gained_is_skipped_if_it_is_lost_again_before_its_turn(store: Store) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    let mut rebalances = in_a.rebalances();
    let first = next_change(&mut rebalances).await;
    let set = KeySet::new(universe());
    let (all, mut lazily) = (universe(), first.gained_of(&set).into_iter());
    let gained: Vec<Held<&String>> = first.gained(&all).collect();
    assert!(gained.len() == 100 && gained.iter().all(Held::is_valid));
    assert!(lazily.next().is_some_and(|first| first.is_valid() && *first == "alarm-0"));

    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let view = in_a.view();
    assert!(first.gained(&all).map(Held::into_inner).eq(all.iter().filter(|key| view.owns(*key))));
    assert!(lazily.map(Held::into_inner).eq(all[1..].iter().filter(|key| view.owns(*key))));
    assert_eq!(gained.iter().filter(|guard| guard.is_valid()).count(), share(&in_a).await.len());
    assert_eq!(first.gained_ranges().select(&all).count(), 100, "to look only");
}

/// A key in progress waits for its guard; the other keys do not wait for it.
async fn an_item_in_progress_stays_with_its_member_until_its_guard_is_dropped(store: Store) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    let mut held: Vec<_> = share(&in_a).await.into_iter().collect();
    let kept = held.split_off(95);
    drop(held);
    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    let theirs = || async {
        let (view, all) = (in_b.view(), universe());
        let (waits, free): (Vec<_>, Vec<_>) = all
            .iter()
            .filter(|key| view.ring().owner(key) == Some("b"))
            .partition(|key| all[95..].contains(key));
        (!free.is_empty() && free.iter().all(|key| view.owns(*key)))
            .then(|| waits.into_iter().cloned().collect())
    };
    let waits: Vec<String> = eventually("b has all that is not in progress", store.round(), theirs).await;
    assert!(!waits.is_empty());
    sees(&in_a, store.round(), &["a", "b"]).await;
    assert!(waits.iter().all(|key| !in_a.view().owns(key) && !in_b.view().owns(key)));
    assert!(kept.iter().all(Held::is_valid), "work goes on, longer than the validity of a heartbeat");
    tokio::time::sleep(store.session_timeout).await;
    assert!(kept.iter().all(Held::is_valid));
    assert!(waits.iter().all(|key| !in_b.view().owns(key)));
    drop(kept);
    settles_within(store.round(), &[&in_a, &in_b]).await;
}

on_both_backends!(
    items_that_were_lost_before_their_turn_are_skipped_and_counted,
    the_guards_of_a_membership_end_with_it_for_good,
    an_item_in_progress_stays_with_its_member_until_its_guard_is_dropped,
);
immediate_on_both_backends!(
    items_that_were_lost_before_their_turn_are_skipped_and_counted,
    the_guards_of_a_membership_end_with_it_for_good,
    the_guard_of_an_item_in_progress_ends_when_another_member_owns_it,
    work_in_progress_is_dropped_when_its_item_is_lost,
    what_a_rebalance_gained_is_skipped_if_it_is_lost_again_before_its_turn,
);

#[tokio::test(start_paused = true)]
async fn a_guard_lapses_at_the_deadline_of_its_share_and_is_valid_again_after_a_later_heartbeat() {
    let store = Store::memory();
    let clock = store.ensemble().clock();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    tokio::time::sleep(3 * SECOND).await;
    let mine = share(&group).await;
    let guard = mine.iter().next().expect("all is mine");
    agent.suspend();
    assert_eq!((guard.deadline(), guard.remaining()), (mine.deadline(), mine.remaining()));
    let worked = guard.while_held(tokio::time::sleep(guard.remaining() / 2)).await;
    assert!(worked.is_ok() && guard.is_valid());
    guard.lost().await;
    let late = apportion::clock::Clock::now(&*clock).saturating_since(mine.deadline());
    assert!(late <= Duration::from_millis(2) && !guard.is_valid(), "{late:?} after the deadline");
    assert!(guard.while_held(async {}).await.is_err(), "the work is not even polled");
    agent.resume();
    until("valid again", SECOND / 10, || guard.is_valid()).await;

    // No timer has run: the clock alone decides.
    clock.jump(60 * SECOND);
    assert!(!guard.is_valid() && guard.while_held(async {}).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_items_of_a_share_can_be_acted_on_at_the_same_time() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let done = Arc::new(Mutex::new(BTreeSet::new()));
    stream::iter(share(&group).await)
        .for_each_concurrent(16, |alarm| {
            let done = done.clone();
            async move {
                let number = alarm.map(|alarm| alarm.len());
                let long = tokio::time::sleep(SECOND / 100 * u32::try_from(*number).unwrap());
                number.while_held(long).await.unwrap();
                done.lock().unwrap().insert((number.token(), *number));
            }
        })
        .await;
    let done: Vec<_> = done.lock().unwrap().iter().map(|(_, length)| *length).collect();
    assert_eq!(done, [7, 8], "alarm-1 and alarm-10");
}

#[tokio::test(start_paused = true)]
async fn a_guard_is_like_its_item() {
    let alone = PartitionCoordinator::standalone();
    let group = alone.join("g").await.unwrap();
    let mut guard = share(&group).await.into_iter().next().expect("all is mine");
    guard.push_str("-x");
    assert_eq!((format!("{guard:>10}"), guard.len(), &**guard), (" alarm-0-x".into(), 9, "alarm-0-x"));
    assert_eq!(
        format!("{guard:?}"),
        "Held { item: \"alarm-0-x\", group: \"g\", token: 0x0, is_valid: true }"
    );
    assert_eq!((guard.remaining(), guard.token().get()), (Duration::MAX, 0));
    let length = guard.map(|name| name.len());
    assert!(length.is_valid() && length.into_inner() == 9);

    let guard = share(&group).await.into_iter().next().expect("all is mine");
    group.leave().await.unwrap();
    let lost = guard.lost().await;
    assert!(!guard.is_valid() && guard.remaining().is_zero());
    assert_eq!(
        lost.to_string(),
        "the item is no longer this member's: another member of `g` may act on it now"
    );
}
