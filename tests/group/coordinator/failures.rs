//! What becomes of a share in each failure for which the documentation compares this library with the Python original.

use apportion::{
    Error, Label, PartitionCoordinator,
    backend::{Memory, Op},
    testing::Request,
};

use super::keys;
use crate::support::{
    MS, SECOND,
    fleet::{Store, delete_recursively, exists, ids, is_settled, owners, settles_within},
    hold::Hold,
};

#[tokio::test(start_paused = true)]
async fn row_server_never_reachable_shares_are_empty_at_once_and_nothing_is_active_in_secret() {
    let store = Store::memory();
    store.ensemble().refuse_connections(true);
    let agent = store.started("a").await;
    assert!(agent.coordinator.is_active() && agent.coordinator.session_id().is_none());
    let share = agent.coordinator.extract_my_subset("g", keys(10)).await.unwrap();
    assert!(share.is_empty() && !share.is_valid());
    assert_eq!(share.iter().count() + share.into_iter().count(), 0);
}

#[tokio::test(start_paused = true)]
async fn row_session_expired_the_member_rejoins_without_being_asked() {
    let store = Store::memory();
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    store.ensemble().expire(a.coordinator.session_id().unwrap());
    // No extraction in between: the original would wait for one.
    tokio::time::sleep(store.round() + SECOND).await;
    assert!(is_settled(&[&in_a, &in_b]));
}

#[tokio::test(start_paused = true)]
async fn row_my_znode_removed_the_member_rejoins_without_being_asked() {
    let store = Store::memory();
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    store.session().await.commit(vec![Op::delete(&store.path("g/a"), None)]).await.unwrap();
    tokio::time::sleep(2 * store.round()).await;
    assert!(is_settled(&[&in_a, &in_b]));
}

#[tokio::test(start_paused = true)]
async fn row_whole_group_removed_no_member_ever_takes_everything() {
    let store = Store::memory();
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    delete_recursively(&*store.session().await, &store.path("g")).await;
    tokio::time::sleep(2 * store.round()).await;
    assert!(is_settled(&[&in_a, &in_b]));
    assert_eq!((ids(&in_a).len(), ids(&in_b).len()), (2, 2));
}

#[tokio::test(start_paused = true)]
async fn row_second_process_with_my_id_is_an_error_for_the_second_and_nothing_for_the_first() {
    let store = Store::memory();
    let (first, second) = (store.agent("same").await, store.agent("same").await);
    let group = first.join("g").await;
    let outcome = second.coordinator.join("g").await;
    assert!(matches!(outcome, Err(Error::MemberIdTaken { .. })), "{outcome:?}");
    assert_eq!(group.extract_my_subset(keys(10)).await.unwrap().len(), 10);
    // When the first stops, the place is free.
    first.coordinator.shutdown().await.unwrap();
    let group = second.join("g").await;
    assert_eq!(group.extract_my_subset(keys(10)).await.unwrap().len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_join_gives_up_after_two_session_timeouts_without_an_answer() {
    let store = Store { session_timeout: 3 * SECOND, server_tick: SECOND / 2, ..Store::memory() };
    let (connector, hold) = Hold::on(store.ensemble());
    let coordinator = store.connect(connector, "a").await;
    let is_check = |op: &Op| matches!(op, Op::Check { .. });
    hold.each(move |request| matches!(request, Request::Commit(ops) if !ops.iter().all(is_check)));
    let clock = store.connector().clock();
    let begin = clock.now();
    let outcome = coordinator.join("g").await;
    let waited = clock.now().saturating_since(begin);
    assert!(matches!(outcome, Err(Error::Unreachable { .. })), "{outcome:?}");
    assert!(waited >= 6 * SECOND && waited <= 6 * SECOND + 10 * MS, "{waited:?}");
    // Another process with this id is an answer, and it is named in that time as well.
    hold.nothing();
    let _other = store.plain("h", "a", b"\xc0").await;
    let begin = clock.now();
    let outcome = coordinator.join("h").await;
    let waited = clock.now().saturating_since(begin);
    assert!(matches!(outcome, Err(Error::MemberIdTaken { .. })), "{outcome:?}");
    assert!(waited >= store.lifetime() && waited <= 6 * SECOND, "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn row_group_not_permitted_is_an_error_at_once_instead_of_a_wait_for_ever() {
    let store = Store::memory();
    let agent = store.started("a").await;
    agent.faults().deny(&store.path("g"));
    tokio::time::sleep(SECOND).await;
    let _join = agent.join("g").await;
    tokio::time::sleep(SECOND).await;
    let extraction = agent.coordinator.extract_my_subset("g", keys(10));
    let outcome = tokio::time::timeout(SECOND, extraction).await.expect("no wait");
    assert!(matches!(outcome, Err(Error::NotPermitted { .. })), "{outcome:?}");
}

#[tokio::test(start_paused = true)]
async fn row_server_hangs_the_last_view_answers_until_the_deadline_and_nothing_does_after_it() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    agent.suspend();
    let clock = store.connector().clock();
    let begin = clock.now();
    assert_eq!(group.extract_my_subset(keys(10)).await.unwrap().len(), 10);
    tokio::time::sleep(5 * SECOND + MS).await;
    let share = group.extract_my_subset(keys(10)).await.unwrap();
    assert!(share.is_empty() && !share.is_valid());
    let waited = clock.now().saturating_since(begin);
    assert!(waited <= 5 * SECOND + 10 * MS, "an extraction waited: {waited:?}");
}

#[tokio::test(start_paused = true)]
async fn row_server_down_after_join_nothing_blocks() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    agent.suspend();
    store.ensemble().refuse_connections(true);
    tokio::time::sleep(30 * SECOND).await;
    let clock = store.connector().clock();
    let begin = clock.now();
    for _ in 0..10 {
        assert!(group.extract_my_subset(keys(10)).await.unwrap().is_empty());
        assert!(agent.coordinator.extract_my_subset("other", keys(10)).await.unwrap().is_empty());
    }
    assert_eq!(clock.now(), begin);
    assert!(!group.view().owns("resource-1"));
    store.ensemble().refuse_connections(false);
    settles_within(30 * SECOND + store.round(), &[&group]).await;
}

#[tokio::test(start_paused = true)]
async fn row_server_back_after_expiry_the_first_member_takes_what_no_member_owns_any_more() {
    let store = Store::memory();
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    store.ensemble().refuse_connections(true);
    a.suspend();
    b.suspend();
    tokio::time::sleep(60 * SECOND).await;
    store.ensemble().refuse_connections(false);
    // At no moment do both own a key.
    for _ in 0..600 {
        tokio::time::sleep(100 * MS).await;
        let double = owners(&[&in_a, &in_b]).into_iter().find(|(_, owners)| owners.len() > 1);
        // There is one exception: until the watch of the first member has fired, both may own it.
        if let Some(double) = double {
            tokio::time::sleep(store.round()).await;
            assert!(is_settled(&[&in_a, &in_b]), "{double:?}");
        }
    }
    assert!(is_settled(&[&in_a, &in_b]));
}

#[tokio::test(start_paused = true)]
async fn row_leave_is_over_when_it_returns() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    group.leave().await.unwrap();
    assert!(!exists(&*store.session().await, &store.path("g/a")).await);
}

#[tokio::test(start_paused = true)]
async fn row_non_ascii_member_ids_are_fine_unless_python_peers_have_to_read_them() {
    let store = Store::memory();
    let agent = store.agent("агент-é").await;
    let group = agent.join("группа").await;
    assert_eq!(group.extract_my_subset(keys(10)).await.unwrap().len(), 10);
    let config = store.config_via(Memory::new(), "агент").label(Label::PythonBytes);
    let outcome = PartitionCoordinator::connect(config).await;
    assert!(matches!(outcome, Err(Error::Config(_))), "{outcome:?}");
}
