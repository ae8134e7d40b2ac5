//! Observers: a group and its changes, seen by a process that is no member.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use apportion::{
    Config, Error, HashRing, Held, Label, PartitionCoordinator,
    backend::{CreateMode, Memory, Op},
    group::{MemberState, Observation, Observer, Why},
    ring::{HashRingBuilder, RingError},
};
use futures_util::{FutureExt as _, StreamExt as _};
use tokio::time::timeout;

use crate::support::{
    SECOND, eventually,
    fleet::{
        Agent, Store, create_with_ancestors, delete_recursively, on_both_backends, settles_within, universe,
    },
};

on_both_backends![
    an_observer_sees_the_members_and_who_owns_what_and_writes_nothing,
    an_observer_sees_who_waits_for_whom_and_since_when,
    a_member_that_does_not_acknowledge_is_shown_until_its_lease_has_ended,
    keys_of_a_plain_member_that_is_gone_are_pending_for_the_grace,
    a_group_of_plain_members_alone_is_listed,
    a_group_of_immediate_members_has_the_ring_of_its_list,
    an_immediate_member_beside_others_is_one_that_hands_no_keys_over,
    the_ring_after_a_change_has_the_weights_that_count_then,
    a_member_that_is_gone_does_not_become_one_of_python,
    a_head_that_cannot_be_read_is_a_problem_until_it_can,
    no_key_has_an_owner_while_the_members_do_not_agree_on_the_ring,
    a_group_that_does_not_exist_yet_is_seen_when_it_does_and_again_when_it_was_deleted_and_made_again,
    a_group_that_may_not_be_read_is_a_typed_error_and_seen_when_it_is_allowed,
    an_observer_goes_on_in_the_next_session,
    an_observer_ends_with_its_coordinator_and_a_dropped_one_leaves_no_task,
    a_replaced_znode_of_the_same_name_is_seen,
];

/// Waits until the observer sees what is wanted.
async fn sees(
    observer: &Observer,
    store: &Store,
    what: &str,
    wanted: impl Fn(&Observation) -> bool,
) -> Arc<Observation> {
    let bound = store.session_timeout + 2 * store.round();
    let probe = || async { Some(observer.observation()).filter(|seen| wanted(seen)) };
    let found = timeout(bound, eventually(what, bound + SECOND, probe)).await;
    found.unwrap_or_else(|_| panic!("not within {bound:?}, {what}: {:#?}", observer.observation()))
}

/// The members with their states.
fn members(seen: &Observation) -> Vec<(String, MemberState)> {
    seen.members().iter().map(|it| (it.member.id().to_string(), it.state)).collect()
}

fn all(ids: &[&str]) -> Vec<(String, MemberState)> {
    ids.iter().map(|id| ((*id).to_owned(), MemberState::Member)).collect()
}

/// The owner of each key of the universe.
fn owners(seen: &Observation) -> BTreeMap<String, Option<String>> {
    let owner = |key: &String| seen.owner(key).map(|it| it.member.id().to_string());
    universe().into_iter().map(|key| (key.clone(), owner(&key))).collect()
}

async fn observe(agent: &Agent, group: &str) -> Observer {
    agent.coordinator.observe(group).await.expect("it may be read")
}

async fn an_observer_sees_the_members_and_who_owns_what_and_writes_nothing(store: Store) {
    let watcher = store.agent("watcher").await;
    let writes = watcher.faults().calls().writes;
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.joining("g").weight(3).await.unwrap());
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let mut observer = observe(&watcher, "g").await;
    let seen = sees(&observer, &store, "both", |seen| members(seen) == all(&["a", "b"])).await;
    assert!(seen.exists() && seen.is_current() && seen.hands_over() && seen.is_exclusive());
    assert!(!seen.is_paused() && seen.problem().is_none() && seen.group() == "g");
    assert_eq!((seen.epoch(), seen.ring().digest()), (in_a.view().epoch(), in_a.view().ring().digest()));
    for (key, owner) in owners(&seen) {
        assert_eq!(owner.as_deref(), Some(if in_a.view().owns(&key) { "a" } else { "b" }), "{key}");
    }
    let first = &seen.members()[0];
    assert_eq!(first.session, a.coordinator.session_id());
    assert!(first.pid == Some(std::process::id()) && first.host.is_some() && !first.is_behind);
    assert!((first.owned - in_a.status().owned).abs() < 1e-9 && seen.members()[1].member.weight() == 3);

    // The next change, and as a stream.
    let now = observer.next().now_or_never().flatten().expect("what is known comes at once");
    assert_eq!(now.epoch(), seen.epoch());
    in_b.leave().await.unwrap();
    let changed = timeout(store.round(), observer.next()).await.expect("in time").unwrap();
    let left = if members(&changed) == all(&["a"]) {
        changed
    } else {
        let mut later =
            observer.clone().filter(|seen| std::future::ready(members(seen) == all(&["a"]))).boxed();
        timeout(store.round(), later.next()).await.expect("in time").unwrap()
    };
    assert!(owners(&left).values().all(|owner| owner.as_deref() == Some("a")));
    let calls = watcher.faults().calls();
    assert_eq!(calls.writes, writes, "it writes nothing: {calls:?}");
}

/// Member `a` with all items in progress, and `b` that has joined since.
async fn overtaken(store: &Store) -> (Agent, apportion::Group, Vec<Held<String>>, Agent, apportion::Group) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    let held = in_a.extract_my_subset(universe()).await.unwrap().into_iter().collect();
    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    (a, in_a, held, b, in_b)
}

async fn an_observer_sees_who_waits_for_whom_and_since_when(store: Store) {
    let watcher = store.agent("watcher").await;
    let observer = observe(&watcher, "g").await;
    let (_a, in_a, mut held, _b, in_b) = overtaken(&store).await;
    let still = |seen: &Observation| seen.pending().iter().any(|it| it.why == Why::StillAtWork);
    let seen = sees(&observer, &store, "a still works", still).await;
    let [pending] = seen.pending() else { panic!("{seen:?}") };
    assert!(!seen.lacks_epoch() && (0..10_000).any(|key| !pending.is_exact(&key)));
    assert_eq!((pending.member.as_str(), pending.is_present), ("a", true));
    assert_eq!(pending.incarnation, in_a.view().members()[0].incarnation());
    let moved: Vec<_> =
        universe().into_iter().filter(|key| in_a.view().ring().owner(key) == Some("b")).collect();
    for key in universe() {
        assert!(!moved.contains(&key) || seen.pending_for(&key).count() == 1, "{key} waits for a");
        assert_eq!(pending.is_exact(&key), moved.contains(&key), "{key}: a guard of it is held");
    }
    assert!(pending.fraction > 0.0 && pending.fraction < 1.0);
    assert_eq!(pending.since, seen.since(), "since the epoch at which b came");
    assert!(seen.members()[0].kept > 0 && !seen.members()[0].is_behind);

    // One that comes later sees the same.
    let late = store.agent("late").await;
    let later = observe(&late, "g").await;
    let same = sees(&later, &store, "the same", still).await;
    assert_eq!((same.pending(), same.epoch()), (seen.pending(), seen.epoch()));

    // Each end of an item is seen, and in the end nothing waits.
    let gone = held.iter().position(|guard| moved.contains(guard)).expect("some have moved");
    let key = held.swap_remove(gone).into_inner();
    let ended = sees(&observer, &store, "one has ended", |seen| seen.pending_for(&key).count() == 0).await;
    assert!(moved.len() == 1 || still(&ended));
    drop(held);
    sees(&observer, &store, "nothing waits", |seen| seen.pending().is_empty()).await;
    sees(&later, &store, "nothing waits", |seen| seen.pending().is_empty()).await;
    settles_within(store.round(), &[&in_a, &in_b]).await;
}

async fn a_member_that_does_not_acknowledge_is_shown_until_its_lease_has_ended(store: Store) {
    let watcher = store.agent("watcher").await;
    let observer = observe(&watcher, "g").await;
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let line = a.crash();
    let c = store.agent("c").await;
    let _in_c = c.join("g").await;
    let waits = |seen: &Observation| {
        seen.pending().iter().any(|it| it.why == Why::NotAcknowledged && it.member.as_str() == "a")
    };
    let seen = sees(&observer, &store, "a has not acknowledged", waits).await;
    let of_a = seen.members().iter().find(|it| it.member.id().as_str() == "a").unwrap();
    assert!(of_a.is_behind && of_a.state == MemberState::Member && seen.pending()[0].is_present, "{seen:?}");
    // Its lease ends before its session does.
    sees(&observer, &store, "it is waited for no more", |seen| !waits(seen)).await;
    let left = |seen: &Observation| members(seen) == all(&["b", "c"]);
    let seen = sees(&observer, &store, "its session has ended", left).await;
    assert!(seen.pending().is_empty(), "{seen:?}");
    drop(line);
}

async fn keys_of_a_plain_member_that_is_gone_are_pending_for_the_grace(store: Store) {
    let (watcher, a) = (store.agent("watcher").await, store.agent("a").await);
    let grace = 4 * SECOND;
    let observer = watcher.coordinator.observe("g").plain_grace(grace).await.unwrap();
    let in_a = a.coordinator.join("g").plain_grace(grace).await.unwrap();
    let python = store.plain("g", "python", b"\xc0").await;
    let both = |seen: &Observation| members(seen) == all(&["a", "python"]);
    let seen = sees(&observer, &store, "both", both).await;
    assert!(seen.hands_over() && !seen.is_exclusive() && seen.members()[1].member.is_plain(), "{seen:?}");
    python.close().await;
    let waits = |seen: &Observation| seen.pending().iter().any(|it| it.why == Why::Plain);
    let seen = sees(&observer, &store, "keys wait", waits).await;
    assert_eq!((seen.pending()[0].member.as_str(), seen.pending()[0].is_present), ("python", false));
    sees(&observer, &store, "the grace is over", |seen| seen.pending().is_empty()).await;
    settles_within(store.round(), &[&in_a]).await;
}

async fn a_group_of_plain_members_alone_is_listed(store: Store) {
    let watcher = store.agent("watcher").await;
    let observer = observe(&watcher, "g").await;
    assert!(!observer.observation().exists());
    let python = store.plain("g", "python-1", b"\xc0").await;
    let second = store.plain("g", "python-2", b"\x81\xa6weight\x05").await;
    // What an election leaves is no member.
    let leader = Op::create(&store.path("g/leader"), "", CreateMode::Persistent);
    second.commit(vec![leader]).await.unwrap();
    let both = |seen: &Observation| members(seen) == all(&["python-1", "python-2"]);
    let seen = sees(&observer, &store, "both", both).await;
    assert!(!seen.hands_over() && !seen.is_exclusive() && seen.pending().is_empty());
    assert!(seen.members().iter().all(|it| it.member.is_plain() && it.host.is_none()));
    assert_eq!(seen.members()[1].session, Some(second.id()));
    let ring = HashRing::builder().members(["python-1", "python-2"]).build().unwrap();
    assert_eq!(seen.ring().digest(), ring.digest(), "weights do not count: Python cannot read them");
    python.close().await;
    let seen = sees(&observer, &store, "one", |seen| members(seen) == all(&["python-2"])).await;
    assert!(owners(&seen).values().all(|owner| owner.as_deref() == Some("python-2")));
}

async fn a_group_of_immediate_members_has_the_ring_of_its_list(store: Store) {
    let store = store.immediate();
    let (watcher, a, b) = (store.agent("watcher").await, store.agent("a").await, store.agent("b").await);
    let observer = observe(&watcher, "g").await;
    let (in_a, in_b) = (a.join("g").await, b.joining("g").weight(2).await.unwrap());
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let seen = sees(&observer, &store, "both", |seen| members(seen) == all(&["a", "b"])).await;
    assert!(!seen.hands_over() && !seen.is_exclusive());
    assert_eq!(seen.ring().digest(), in_a.view().ring().digest());
    assert_eq!(seen.epoch(), in_a.view().epoch());
}

async fn an_immediate_member_beside_others_is_one_that_hands_no_keys_over(store: Store) {
    let (watcher, a, b) = (store.agent("watcher").await, store.agent("a").await, store.agent("b").await);
    let observer = observe(&watcher, "g").await;
    let in_a = a.join("g").await;
    let _in_b = b.coordinator.join("g").immediate().await.unwrap();
    let seen = sees(&observer, &store, "both", |seen| members(seen) == all(&["a", "b"])).await;
    assert!(seen.hands_over() && !seen.is_exclusive(), "{seen:?}");
    let kinds: Vec<_> = seen.members().iter().map(|it| (it.member.is_plain(), it.hands_over)).collect();
    assert_eq!(kinds, [(false, true), (false, false)]);
    eventually("so says the member", store.round(), || async {
        (in_a.view().epoch() == seen.epoch()).then_some(())
    })
    .await;
    assert!(!in_a.view().is_exclusive());
}

async fn the_ring_after_a_change_has_the_weights_that_count_then(store: Store) {
    let (watcher, a, b) = (store.agent("watcher").await, store.agent("a").await, store.agent("b").await);
    let observer = observe(&watcher, "g").await;
    let _in_a = a.joining("g").weight(3).await.unwrap();
    let _in_b = b.coordinator.join("g").immediate().weight(2).await.unwrap();
    let seen = sees(&observer, &store, "both", |seen| members(seen) == all(&["a", "b"])).await;
    assert_eq!(seen.ring_after(&[], &[]).as_ref(), Ok(seen.ring()));
    let ring = |members: &[(&str, u32)]| {
        let add = |ring: HashRingBuilder, &(id, weight): &(&str, u32)| ring.weighted_member(id, weight);
        members.iter().fold(HashRing::builder(), add).build()
    };
    // b hands no keys over, so it may be one that cannot read weights, for all that an epoch says of it.
    assert_eq!(seen.ring_after(&[], &[("c", 4)]), ring(&[("a", 1), ("b", 1), ("c", 1)]));
    assert_eq!(seen.ring_after(&["b"], &[("c", 4)]), ring(&[("a", 3), ("c", 4)]));
    assert_eq!(seen.ring_after(&["b"], &[("a", 5)]), ring(&[("a", 5)]));
    assert_eq!(seen.ring_after(&["a", "b"], &[]), ring(&[]));
    let zero = seen.ring_after(&["b"], &[("c", 0)]).unwrap_err();
    assert_eq!(zero, RingError::ZeroWeight { member: "c".into() });

    // A group without epochs, in which one of Python decides.
    let observer = observe(&watcher, "h").await;
    let _in_h = b.coordinator.join("h").immediate().weight(2).await.unwrap();
    let _python = store.plain("h", "python", b"\xc0").await;
    let seen = sees(&observer, &store, "both", |seen| members(seen) == all(&["b", "python"])).await;
    assert_eq!(seen.ring_after(&[], &[("c", 4)]), ring(&[("b", 1), ("c", 1), ("python", 1)]));
    assert_eq!(seen.ring_after(&["python"], &[("c", 4)]), ring(&[("b", 2), ("c", 4)]));
}

async fn a_member_that_is_gone_does_not_become_one_of_python(store: Store) {
    let (watcher, a, b) = (store.agent("watcher").await, store.agent("a").await, store.agent("b").await);
    let observer = observe(&watcher, "g").await;
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    in_a.pause().await.unwrap();
    b.faults().deny(&store.path("g"));
    let admin = store.session().await;
    delete_recursively(&*admin, &store.path("g/b")).await;
    // Head and list are watched each for itself.
    let is_gone = |seen: &Observation| seen.members().iter().any(|it| it.state == MemberState::Gone);
    let gone = |seen: &Observation| seen.is_paused() && is_gone(seen);
    let seen = sees(&observer, &store, "b is gone, and the group paused", gone).await;
    assert!(seen.is_exclusive(), "{seen:?}");
    assert!(seen.members().iter().all(|it| !it.member.is_plain() && it.hands_over), "{seen:?}");
}

async fn a_head_that_cannot_be_read_is_a_problem_until_it_can(store: Store) {
    let watcher = store.agent("watcher").await;
    let observer = observe(&watcher, "g").await;
    let admin = store.session().await;
    create_with_ancestors(&*admin, &store.head("g")).await;
    let _first = store.plain("g", "python-1", b"\xc0").await;
    let is_head = |seen: &Observation| matches!(seen.problem(), Some(Error::Head { .. }));
    sees(&observer, &store, "the head", is_head).await;
    let _second = store.plain("g", "python-2", b"\xc0").await;
    let both = |seen: &Observation| members(seen) == all(&["python-1", "python-2"]);
    let seen = sees(&observer, &store, "both", both).await;
    assert!(is_head(&seen), "it was not read again: {seen:?}");
    delete_recursively(&*admin, &store.head("g")).await;
    sees(&observer, &store, "it is mended", |seen| seen.problem().is_none()).await;
}

async fn no_key_has_an_owner_while_the_members_do_not_agree_on_the_ring(store: Store) {
    let watcher = store.agent("watcher").await;
    let tooz = |config: Config| config.label(Label::Tooz).replicas(32);
    let a = store.agent_with("a", tooz).await;
    for name in ["exclusive", "immediate"] {
        let observer = observe(&watcher, name).await;
        let join = a.coordinator.join(name);
        let _in_a = if name == "immediate" { join.immediate() } else { join }.await.unwrap();
        let odd = store.plain(name, "odd", b"\xc0").await;
        let unclear = |seen: &Observation| matches!(seen.problem(), Some(Error::RingUnclear { .. }));
        let seen = sees(&observer, &store, "it is unclear", unclear).await;
        assert!(owners(&seen).values().all(Option::is_none), "{seen:?}");
        assert!(seen.members().iter().all(|it| it.owned == 0.0), "{seen:?}");
        odd.close().await;
        let clear = |seen: &Observation| seen.problem().is_none() && members(seen) == all(&["a"]);
        let seen = sees(&observer, &store, "it is clear", clear).await;
        assert!(owners(&seen).values().all(Option::is_some), "{seen:?}");
    }
    let observer = observe(&watcher, "mixed").await;
    let announces = |replicas: u8| {
        [&b"\x82\xa6weight\x01\xa9apportion\x83\xa1v\x01\xa5label\xa5plain\xa8replicas"[..], &[replicas]]
            .concat()
    };
    let _seven = store.plain("mixed", "seven", &announces(7)).await;
    let _nine = store.plain("mixed", "nine", &announces(9)).await;
    let differs = |seen: &Observation| matches!(seen.problem(), Some(Error::RingMismatch { .. }));
    let seen = sees(&observer, &store, "another ring", differs).await;
    assert!(owners(&seen).values().all(Option::is_none), "{seen:?}");
}

async fn a_group_that_does_not_exist_yet_is_seen_when_it_does_and_again_when_it_was_deleted_and_made_again(
    store: Store,
) {
    let watcher = store.agent("watcher").await;
    let observer = observe(&watcher, "g").await;
    let none = observer.observation();
    assert!(!none.exists() && none.is_current() && none.members().is_empty() && none.owner("x").is_none());
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    sees(&observer, &store, "a", |seen| members(seen) == all(&["a"]) && seen.hands_over()).await;
    in_a.leave().await.unwrap();
    let empty = sees(&observer, &store, "no member", |seen| seen.members().is_empty()).await;
    assert!(empty.exists());
    let admin = store.session().await;
    delete_recursively(&*admin, &store.path("g")).await;
    delete_recursively(&*admin, &store.head("g")).await;
    sees(&observer, &store, "it is gone", |seen| !seen.exists()).await;
    let again = a.join("g").await;
    let seen = sees(&observer, &store, "a again", |seen| members(seen) == all(&["a"])).await;
    assert!(seen.exists() && seen.hands_over());
    settles_within(store.session_timeout + store.round(), &[&again]).await;
}

async fn a_group_that_may_not_be_read_is_a_typed_error_and_seen_when_it_is_allowed(store: Store) {
    let a = store.agent("a").await;
    let _in_a = a.join("g").await;
    let watcher = store.agent("watcher").await;
    watcher.faults().deny(&store.path("g"));
    let refused = watcher.coordinator.observe("g").await;
    assert!(matches!(&refused, Err(Error::NotPermitted { path }) if path.ends_with("/g")), "{refused:?}");

    // One that does not wait shows it, and tries again.
    let started = store.started("started").await;
    started.faults().deny(&store.path("g"));
    let observer = started.coordinator.observe("g").await.unwrap();
    let denied = |seen: &Observation| matches!(seen.problem(), Some(Error::NotPermitted { .. }));
    let seen = sees(&observer, &store, "it is denied", denied).await;
    assert!(!seen.is_current() && seen.members().is_empty());
    started.faults().allow();
    let seen = sees(&observer, &store, "it is allowed", |seen| members(seen) == all(&["a"])).await;
    assert!(seen.problem().is_none() && seen.is_current());

    // A head that may not be read hides who waits for whom, and not the members.
    watcher.faults().allow();
    watcher.faults().deny(&store.head("g"));
    let observer = observe(&watcher, "g").await;
    let seen = observer.observation();
    assert!(members(&seen) == all(&["a"]) && denied(&seen) && !seen.hands_over(), "{seen:?}");
}

async fn an_observer_goes_on_in_the_next_session(store: Store) {
    let (watcher, a) = (store.agent("watcher").await, store.agent("a").await);
    let in_a = a.join("g").await;
    let mut observer = observe(&watcher, "g").await;
    sees(&observer, &store, "a", |seen| members(seen) == all(&["a"])).await;
    while observer.next().now_or_never().is_some() {}
    watcher.expire(&store).await;
    let next = timeout(store.session_timeout + store.round(), observer.next()).await.expect("it is told");
    assert!(next.is_some_and(|seen| !seen.is_current() && members(&seen) == all(&["a"])));
    sees(&observer, &store, "a again", |seen| seen.is_current() && members(seen) == all(&["a"])).await;
    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    settles_within(store.round(), &[&in_a, &in_b]).await;
    sees(&observer, &store, "both", |seen| members(seen) == all(&["a", "b"])).await;
}

async fn an_observer_ends_with_its_coordinator_and_a_dropped_one_leaves_no_task(store: Store) {
    let (watcher, a) = (store.agent("watcher").await, store.agent("a").await);
    let _in_a = a.join("g").await;
    let tasks = crate::support::alive_tasks();
    let first = observe(&watcher, "g").await;
    let clone = first.clone();
    assert!(crate::support::alive_tasks() > tasks);
    drop(first);
    sees(&clone, &store, "a clone keeps it", |seen| members(seen) == all(&["a"])).await;
    drop(clone);
    crate::support::until("its task ends", store.round(), || crate::support::alive_tasks() == tasks).await;

    let mut observer = observe(&watcher, "g").await;
    watcher.coordinator.shutdown().await.unwrap();
    let rest = async { while observer.next().await.is_some() {} };
    timeout(store.round(), rest).await.expect("it ends");
    assert!(!observer.observation().is_current());
    let refused = watcher.coordinator.observe("g").await;
    assert!(refused.is_err_and(|error| error.is_closed()));
}

async fn a_replaced_znode_of_the_same_name_is_seen(store: Store) {
    let watcher = store.agent("watcher").await;
    let first = store.plain("g", "p", b"\xc0").await;
    let observer = observe(&watcher, "g").await;
    let before = observer.observation().members()[0].clone();
    let second = store.session().await;
    let path = store.path("g/p");
    let replaced = vec![Op::delete(&path, None), Op::create(&path, "\u{1}", CreateMode::Ephemeral)];
    second.commit(replaced).await.unwrap();
    let is_new = |seen: &Observation| seen.members().iter().any(|it| it.session == Some(second.id()));
    let seen = sees(&observer, &store, "the new one", is_new).await;
    assert!(
        seen.members().len() == 1 && seen.members()[0].member.incarnation() > before.member.incarnation()
    );
    first.close().await;
}

#[tokio::test]
async fn a_group_without_a_backend_has_one_member_and_a_bad_name_is_refused() {
    let alone = PartitionCoordinator::standalone();
    let mut observer = alone.observe("g").await.unwrap();
    let seen = observer.next().await.unwrap();
    assert_eq!(seen.owner("x").map(|it| it.member.id()), Some(alone.member_id()));
    alone.shutdown().await.unwrap();
    assert!(timeout(10 * SECOND, observer.next()).await.expect("it ends").is_none());
    let coordinator = PartitionCoordinator::connect(Config::for_backend(Memory::new())).await.unwrap();
    for name in ["", "a/b", ".."] {
        let refused = coordinator.observe(name).await;
        assert!(matches!(refused, Err(Error::GroupName { .. })), "{name}: {refused:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_of_a_large_group_costs_an_observer_a_few_requests_and_no_watch_for_each_member() {
    let store = Store::memory();
    let watcher = store.agent("watcher").await;
    let mut agents = Vec::new();
    for number in 0..40 {
        let agent = store.agent(&format!("m{number:02}")).await;
        let group = agent.join("g").await;
        agents.push((agent, group));
    }
    let observer = observe(&watcher, "g").await;
    let forty = |seen: &Observation| seen.members().len() == 40 && seen.pending().is_empty();
    sees(&observer, &store, "all", |seen| forty(seen)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = watcher.faults().calls();
    let last = store.agent("m99").await;
    let _in_last = last.join("g").await;
    let all = |seen: &Observation| {
        seen.pending().is_empty() && seen.members().iter().filter(|it| it.owned > 0.0).count() == 41
    };
    sees(&observer, &store, "one more", all).await;
    let after = watcher.faults().calls();
    let (reads, watches) = (
        after.get_manys + after.gets - before.get_manys - before.gets,
        after.node_watches - before.node_watches,
    );
    assert!(reads < 60 && watches < 60, "{reads} reads, {watches} watches");
}
