//! Exclusive shares: no two members act on one key, and a key waits only for those who had it.

mod head;

use std::time::Duration;

use apportion::{
    Error, Group, Held,
    backend::Op,
    group::{HandoverKind, Standing, Status, Waiting, Why},
};
use futures_util::FutureExt as _;
use tokio::{task::JoinSet, time::timeout};

use crate::support::{
    SECOND,
    events::Events,
    eventually,
    fleet::{
        Agent, Store, ids, is_settled, next_change, on_both_backends, owners, sees, settles_within, universe,
    },
    until,
};

on_both_backends![
    a_key_goes_to_a_member_that_joins_as_soon_as_no_work_on_it_is_in_progress,
    work_on_a_key_that_was_lost_goes_on_for_max_drain_and_then_its_guard_ends,
    a_leave_waits_for_work_in_progress_and_hands_over_the_rest_at_once,
    a_leave_from_a_strict_group_is_not_waited_for,
    a_member_that_crashed_in_its_work_is_waited_for_until_its_session_ends_and_not_longer,
    a_member_of_which_another_can_read_nothing_is_not_taken_for_one_that_is_gone,
    a_stuck_member_delays_only_the_keys_that_it_holds,
    a_restart_under_the_same_id_waits_for_nobody_else,
    what_a_rebalance_gains_is_what_may_be_started,
    while_a_member_hands_no_keys_over_shares_are_not_exclusive,
    a_member_that_joins_beside_a_plain_one_says_that_shares_are_not_exclusive,
    keys_of_a_member_that_hands_none_over_wait_for_the_grace,
    a_paused_group_changes_when_it_is_resumed,
    a_member_gets_a_share_when_it_is_ready,
    a_loss_of_most_members_is_waited_out,
    all_keys_have_one_owner_through_many_joins_and_leaves_and_never_two,
];

async fn hold(group: &Group) -> Vec<Held<String>> {
    group.extract_my_subset(universe()).await.unwrap().into_iter().collect()
}

/// One member with all items in progress, and another that has joined since.
async fn overtaken(store: &Store) -> (Agent, Group, Vec<Held<String>>, Agent, Group) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    let held = hold(&in_a).await;
    assert_eq!(held.len(), universe().len());
    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    sees(&in_a, store.round(), &["a", "b"]).await;
    (a, in_a, held, b, in_b)
}

/// The items of which another member is the owner by the ring.
fn moved(of: &Group, to: &Group) -> Vec<String> {
    let (me, ring) = (to.view().me().clone(), of.view());
    universe().into_iter().filter(|key| ring.ring().owner(key) == Some(me.as_str())).collect()
}

async fn waits_for(group: &Group, store: &Store, wanted: impl Fn(&[Waiting]) -> bool) -> Status {
    let probe = || async { Some(group.status()).filter(|status| wanted(&status.waiting)) };
    eventually("it waits as it should", store.round(), probe).await
}

async fn a_key_goes_to_a_member_that_joins_as_soon_as_no_work_on_it_is_in_progress(store: Store) {
    let (_a, in_a, mut held, _b, in_b) = overtaken(&store).await;
    let lost = moved(&in_a, &in_b);
    assert!(lost.len() > 20 && in_a.view().is_exclusive() && in_b.view().is_exclusive());
    let status = waits_for(&in_b, &store, |waiting| {
        waiting.iter().any(|it| it.member.as_str() == "a" && it.why == Why::StillAtWork)
    })
    .await;
    assert!(status.startable < status.owned, "{status}");
    assert!(status.to_string().contains("waits for a with"), "{status}");
    assert!(held.iter().all(Held::is_valid), "work in progress may go on");
    assert!(universe().iter().all(|key| !in_b.view().owns(key)), "all of it is in progress at a");

    // Half of it ends: that half goes over, and the rest stays.
    let (mut done, mut rest) = (Vec::new(), Vec::new());
    for guard in held.drain(..) {
        if lost.contains(&guard) && done.len() < lost.len() / 2 { done.push(guard) } else { rest.push(guard) }
    }
    let gone: Vec<String> = done.into_iter().map(Held::into_inner).collect();
    until("what has ended goes over", store.round(), || gone.iter().all(|key| in_b.view().owns(key))).await;
    let mine = hold(&in_b).await;
    assert!(mine.len() == gone.len() && mine.iter().all(|guard| gone.contains(guard)), "and no more");
    assert!(mine.iter().chain(&rest).all(Held::is_valid));
    drop(rest);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    assert!(mine.iter().all(Held::is_valid));
    let share = in_b.extract_my_subset(universe()).await.unwrap();
    assert!(share.is_exclusive() && share.epoch() == in_b.view().epoch() && in_b.status().waiting.is_empty());
    let ended = eventually("it says so", store.round(), || async { in_b.status().last_handover }).await;
    assert!(ended.kind == HandoverKind::Join && ended.waited > Duration::ZERO, "{ended:?}");
}

async fn work_on_a_key_that_was_lost_goes_on_for_max_drain_and_then_its_guard_ends(store: Store) {
    let a = store.agent("a").await;
    let drain = store.session_timeout;
    let in_a = a.coordinator.join("g").max_drain(drain).await.unwrap();
    let held = hold(&in_a).await;
    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    sees(&in_a, store.round(), &["a", "b"]).await;
    let lost = moved(&in_a, &in_b);
    let theirs: Vec<_> = held.iter().filter(|guard| lost.contains(guard)).collect();
    tokio::time::sleep(drain / 2).await;
    assert!(held.iter().all(Held::is_valid) && lost.iter().all(|key| !in_b.view().owns(key)));
    let ended = timeout(drain + store.session_timeout, theirs[0].lost()).await;
    assert!(ended.is_ok() && theirs.iter().all(|guard| !guard.is_valid()), "they end together");
    settles_within(store.round(), &[&in_a, &in_b]).await;
    assert!(held.iter().filter(|guard| !lost.contains(guard)).all(Held::is_valid));
}

async fn a_leave_waits_for_work_in_progress_and_hands_over_the_rest_at_once(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let mut held = hold(&in_a).await;
    held.truncate(3);
    let busy: Vec<String> = held.iter().map(|guard| (**guard).clone()).collect();
    let mut leaving = JoinSet::new();
    leaving.spawn(in_a.clone().leave());
    let idle = || universe().iter().all(|key| in_b.view().owns(key) != busy.contains(key));
    until("all but the work in progress goes over", store.round(), idle).await;
    assert!(held.iter().all(Held::is_valid) && leaving.try_join_next().is_none());
    assert!(in_a.extract_my_subset(universe()).await.unwrap_err().is_closed(), "it starts nothing more");
    drop(held);
    let left = timeout(store.round(), leaving.join_next()).await.expect("nothing is left");
    left.expect("it was started").unwrap().unwrap();
    settles_within(store.round(), &[&in_b]).await;
    assert_eq!(ids(&in_b), ["b"]);
}

async fn a_leave_from_a_strict_group_is_not_waited_for(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let in_a = a.coordinator.join("g").strict().await.unwrap();
    let in_b = b.coordinator.join("g").strict().await.unwrap();
    settles_within(3 * store.session_timeout, &[&in_a, &in_b]).await;
    in_a.leave().await.unwrap();
    settles_within(store.round(), &[&in_b]).await;
    assert_eq!(ids(&in_b), ["b"]);
    // Nor do those wait that get keys of the one that has left from the one that stays.
    let in_a = a.coordinator.join("g").strict().await.unwrap();
    settles_within(store.round(), &[&in_a, &in_b]).await;
}

async fn a_member_that_crashed_in_its_work_is_waited_for_until_its_session_ends_and_not_longer(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let held = hold(&in_a).await;
    let line = a.crash();
    let both = || {
        let mine = |key: &String| held.iter().any(|guard| **guard == *key && guard.is_valid());
        universe().iter().any(|key| mine(key) && in_b.view().owns(key))
    };
    let all = || {
        assert!(!both(), "two at work on one key");
        universe().iter().all(|key| in_b.view().owns(key))
    };
    until("its keys are owned again", store.expiry() + store.round(), all).await;
    assert!(held.iter().all(|guard| !guard.is_valid()));
    drop(line);
}

async fn a_member_of_which_another_can_read_nothing_is_not_taken_for_one_that_is_gone(store: Store) {
    let (a, in_a, held, b, in_b) = overtaken(&store).await;
    let acting = || held.iter().filter(|guard| guard.is_valid()).count();
    let both = || held.iter().any(|guard| guard.is_valid() && in_b.view().owns(&**guard));
    // From then on an epoch may say that what `a` has lost is released.
    tokio::time::sleep(store.session_timeout).await;
    b.faults().deny(&store.path("g/a"));
    in_b.pause().await.unwrap();
    for _ in 0..10 {
        tokio::time::sleep(store.session_timeout / 20).await;
        assert!(!both() && acting() == held.len(), "permission is denied");
    }
    b.faults().allow();
    in_b.resume().await.unwrap();
    sees(&in_b, store.round(), &["a", "b"]).await;
    // Another process writes into its znode; it cannot write that again.
    a.suspend();
    let admin = store.session().await;
    admin.commit(vec![Op::set(&store.path("g/a"), "garbage", None)]).await.unwrap();
    in_b.pause().await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(store.session_timeout / 20).await;
        assert!(!both(), "its data were overwritten");
    }
    a.resume();
    in_b.resume().await.unwrap();
    drop(held);
    settles_within(store.expiry() + 2 * store.round(), &[&in_a, &in_b]).await;
    until("its data are its own again", store.round(), || in_b.view().is_exclusive()).await;
}

async fn a_stuck_member_delays_only_the_keys_that_it_holds(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let stuck = hold(&in_a).await;
    let c = store.agent("c").await;
    let in_c = c.join("g").await;
    sees(&in_a, store.round(), &["a", "b", "c"]).await;
    let from_a: Vec<&String> = stuck.iter().map(|guard| &**guard).collect();
    let free = || {
        let theirs = moved(&in_a, &in_c);
        theirs.iter().all(|key| in_c.view().owns(key) != from_a.contains(&key))
    };
    until("what b had is c's at once", store.round(), free).await;
    let line = b.crash();
    let rest = || {
        universe()
            .iter()
            .filter(|key| !from_a.contains(key))
            .all(|key| [&in_a, &in_c].iter().filter(|group| group.view().owns(key)).count() == 1)
    };
    until("a crash of another member is not delayed", store.expiry() + store.round(), rest).await;
    assert!(stuck.iter().all(Held::is_valid));
    drop((stuck, line));
    settles_within(store.round(), &[&in_a, &in_c]).await;
}

async fn a_restart_under_the_same_id_waits_for_nobody_else(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let kept = hold(&in_b).await;
    a.coordinator.shutdown().await.unwrap();
    let again = store.agent("a").await;
    let in_a = again.join("g").await;
    let all_but_kept = || {
        let view = in_a.view();
        universe()
            .iter()
            .all(|key| view.ring().owner(key) != Some("a") || view.owns(key) || holds(&kept, key))
    };
    until("its share is its own again", store.round(), all_but_kept).await;
    assert!(kept.iter().all(Held::is_valid));
    drop(kept);
    settles_within(store.round(), &[&in_a, &in_b]).await;
}

fn holds(held: &[Held<String>], key: &String) -> bool {
    held.iter().any(|guard| **guard == *key)
}

async fn what_a_rebalance_gains_is_what_may_be_started(store: Store) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    let mut changes_of_a = in_a.rebalances();
    assert_eq!(next_change(&mut changes_of_a).await.gained(universe()).count(), 100);
    let held = hold(&in_a).await;
    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    let mut changes_of_b = in_b.rebalances();
    let lost = next_change(&mut changes_of_a).await;
    let gone: Vec<String> = lost.lost(universe()).collect();
    assert_eq!(gone, moved(&in_a, &in_b));
    drop(held);
    let mut gained = Vec::new();
    while gained.len() < gone.len() {
        let change = next_change(&mut changes_of_b).await;
        assert!(change.lost(universe()).next().is_none());
        gained.extend(change.gained(universe()).map(Held::into_inner));
    }
    gained.sort_unstable();
    let mut gone = gone;
    gone.sort_unstable();
    assert_eq!(gained, gone);
    assert_eq!(changes_of_b.next().now_or_never().map(drop), None);
}

async fn while_a_member_hands_no_keys_over_shares_are_not_exclusive(store: Store) {
    let a = store.agent("a").await;
    let in_a = a.coordinator.join("g").await.unwrap();
    settles_within(store.round(), &[&in_a]).await;
    assert!(in_a.view().is_exclusive());
    let warnings = Events::of("apportion::group::exclusive::said");
    let python = store.plain("g", "python", b"\xc0").await;
    until("it is noticed", store.round(), || !in_a.view().is_exclusive()).await;
    assert_eq!(ids(&in_a), ["a", "python"]);
    let share = in_a.extract_my_subset(universe()).await.unwrap();
    assert!(!share.is_exclusive() && !share.is_empty() && share.len() < 100);
    let immediate = store.agent("b").await;
    let in_b = immediate.coordinator.join("g").immediate().await.unwrap();
    sees(&in_a, store.round(), &["a", "b", "python"]).await;
    assert!(!in_b.view().is_exclusive() && in_b.status().waiting.is_empty());
    let said = warnings.take(tracing::Level::WARN);
    assert_eq!(said.iter().filter(|text| text.contains("not exclusive")).count(), 1, "{said:?}");
    drop(python);
    in_b.leave().await.unwrap();
    sees(&in_a, store.expiry() + store.round(), &["a"]).await;
    assert!(!in_a.view().is_exclusive(), "its keys are waited for: {}", in_a.status());
}

async fn a_member_that_joins_beside_a_plain_one_says_that_shares_are_not_exclusive(store: Store) {
    let python = store.plain("g", "python", b"\xc0").await;
    let warnings = Events::of("apportion::group::exclusive::said");
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    sees(&in_a, store.round(), &["a", "python"]).await;
    let said = warnings.take(tracing::Level::WARN);
    assert_eq!(said.iter().filter(|text| text.contains("not exclusive")).count(), 1, "{said:?}");
    // A session later there is nothing new to say.
    a.expire(&store).await;
    sees(&in_a, store.expiry() + store.round(), &["a", "python"]).await;
    let said = warnings.take(tracing::Level::WARN);
    assert_eq!(said.iter().filter(|text| text.contains("not exclusive")).count(), 0, "{said:?}");
    drop(python);
}

async fn keys_of_a_member_that_hands_none_over_wait_for_the_grace(store: Store) {
    let a = store.agent("a").await;
    let grace = store.session_timeout;
    let in_a = a.coordinator.join("g").plain_grace(grace).await.unwrap();
    let python = store.plain("g", "python", b"\xc0").await;
    sees(&in_a, store.round(), &["a", "python"]).await;
    let theirs: Vec<String> =
        universe().into_iter().filter(|key| in_a.view().ring().owner(key) == Some("python")).collect();
    until("the rest is ours", store.round(), || owned(&in_a) == 100 - theirs.len()).await;
    drop(python);
    sees(&in_a, store.expiry() + store.round(), &["a"]).await;
    waits_for(&in_a, &store, |waiting| matches!(waiting, [it] if it.why == Why::Plain)).await;
    assert_eq!(owned(&in_a), 100 - theirs.len());
    settles_within(grace + store.round(), &[&in_a]).await;
    until("exclusive again", store.round(), || in_a.view().is_exclusive()).await;
}

fn owned(group: &Group) -> usize {
    universe().iter().filter(|key| group.view().owns(*key)).count()
}

async fn a_paused_group_changes_when_it_is_resumed(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    in_a.pause().await.unwrap();
    until("all members see it", store.round(), || in_b.status().is_paused).await;
    let before = in_a.view().epoch();
    in_b.leave().await.unwrap();
    let c = store.agent("c").await;
    let joining = c.coordinator.join("g");
    let outcome = timeout(4 * store.session_timeout, joining).await.expect("it gives up");
    assert!(matches!(&outcome, Err(Error::Paused { group }) if group == "g"), "{outcome:?}");
    assert_eq!((ids(&in_a), in_a.view().epoch()), (vec!["a".to_owned(), "b".to_owned()], before));
    assert!((1..100).contains(&owned(&in_a)));
    in_a.resume().await.unwrap();
    let in_c = c.join("g").await;
    settles_within(store.round(), &[&in_a, &in_c]).await;
    assert_eq!(ids(&in_a), ["a", "c"]);
}

async fn a_member_gets_a_share_when_it_is_ready(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let in_a = a.join("g").await;
    settles_within(store.round(), &[&in_a]).await;
    let in_b = b.coordinator.join("g").warming().await.unwrap();
    assert_eq!(in_b.view().standing(), Standing::Joining);
    assert!(in_b.extract_my_subset(universe()).await.unwrap().is_empty());
    assert_eq!((ids(&in_a), owned(&in_a)), (vec!["a".to_owned()], 100));
    in_b.ready();
    sees(&in_a, store.round(), &["a", "b"]).await;
    settles_within(store.round(), &[&in_a, &in_b]).await;
}

async fn a_loss_of_most_members_is_waited_out(store: Store) {
    let wait = store.expiry() + store.session_timeout;
    let mut agents = Vec::new();
    let mut groups = Vec::new();
    for id in ["a", "b", "c", "d"] {
        let agent = store.agent(id).await;
        groups.push(agent.coordinator.join("g").mass_loss_wait(wait).await.unwrap());
        agents.push(agent);
    }
    settles_within(store.round(), &groups.iter().collect::<Vec<_>>()).await;
    let lines: Vec<_> = agents.drain(1..).map(Agent::crash).collect();
    // A server may end their sessions in two ticks, and the first of these would be no loss of most.
    let gone = ["g/b", "g/c", "g/d"].map(|name| Op::delete(&store.path(name), None));
    store.session().await.commit(gone.to_vec()).await.unwrap();
    tokio::time::sleep(store.session_timeout).await;
    assert_eq!(ids(&groups[0]), ["a", "b", "c", "d"]);
    assert!(owned(&groups[0]) < 60);
    settles_within(wait + store.round(), &[&groups[0]]).await;
    drop(lines);
}

async fn all_keys_have_one_owner_through_many_joins_and_leaves_and_never_two(store: Store) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    for round in 0..4 {
        let mut others = Vec::new();
        for id in ["b", "c", "d"] {
            let agent = store.agent(id).await;
            let group = agent.join("g").await;
            others.push((agent, group));
            let all: Vec<&Group> = others.iter().map(|(_, group)| group).chain([&in_a]).collect();
            let settled = || {
                assert!(owners(&all).values().all(|owners| owners.len() < 2), "round {round}");
                is_settled(&all)
            };
            until("settled", 2 * store.round(), settled).await;
        }
        for (_, group) in others {
            group.leave().await.unwrap();
        }
        settles_within(2 * store.round(), &[&in_a]).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_gives_work_in_progress_half_of_its_time() {
    let store = Store::memory();
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    let held = hold(&in_a).await;
    let (clock, begin) = (store.connector().clock(), store.connector().clock().now());
    a.coordinator.shutdown().await.unwrap();
    let took = clock.now().saturating_since(begin);
    assert!(took > 2 * SECOND && took < 4 * SECOND, "{took:?}");
    assert!(held.iter().all(|guard| !guard.is_valid() && guard.remaining() == Duration::ZERO));
}
