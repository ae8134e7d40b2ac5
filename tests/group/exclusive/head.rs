//! The head of a group: deleted, forbidden, or written by another process.

use apportion::{
    Error, Held,
    backend::{Op, Session},
};

use super::{hold, owned};
use crate::support::{
    eventually,
    fleet::{Store, delete_recursively, exists, on_both_backends, settles_within, znode},
    until,
};

on_both_backends![
    a_head_that_was_deleted_is_made_again_and_no_two_act_meanwhile,
    a_head_that_cannot_be_used_stops_its_members_and_says_why_until_it_is_deleted,
    a_head_that_went_back_to_an_older_version_is_not_followed,
    a_member_of_another_ring_gets_no_share_and_the_others_keep_theirs,
];

async fn a_head_that_was_deleted_is_made_again_and_no_two_act_meanwhile(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let held = hold(&in_a).await;
    let admin = store.session().await;
    delete_recursively(&*admin, &store.head("g")).await;
    let both = || {
        let valid = |key: &String| held.iter().any(|guard| **guard == *key && guard.is_valid());
        in_b.view().members().len() == 2
            && held.iter().any(|guard| valid(guard) && in_b.view().owns(&**guard))
    };
    let ended = || {
        assert!(!both());
        held.iter().all(|guard| !guard.is_valid())
    };
    until("guards under the old head end", store.session_timeout, ended).await;
    settles_within(store.session_timeout + 2 * store.round(), &[&in_a, &in_b]).await;
    assert!(held.iter().all(|guard| !Held::is_valid(guard)), "for good");
}

async fn a_head_that_cannot_be_used_stops_its_members_and_says_why_until_it_is_deleted(store: Store) {
    let admin = store.session().await;
    // A format of the future, and garbage.
    for (data, said) in [(vec![0x92, 0x63, 0x01], "format 99"), (b"\xff\xff".to_vec(), "decoded")] {
        let (a, b) = (store.agent("a").await, store.agent("b").await);
        let (in_a, in_b) = (a.join("g").await, b.join("g").await);
        settles_within(store.round(), &[&in_a, &in_b]).await;
        let held = hold(&in_a).await;
        write(&*admin, &store, data).await;
        until("all stop", store.session_timeout, || held.iter().all(|guard| !guard.is_valid())).await;
        let refused = || async { in_a.extract_my_subset([1, 2, 3]).await.err() };
        let error = eventually("it says why", store.round(), refused).await;
        let Error::Head { group, path, reason } = &error else { panic!("{error}") };
        assert_eq!((group.as_str(), path.as_str()), ("g", store.head("g").to_string().as_str()));
        assert!(reason.contains(said) && !error.is_transient(), "{error}");
        assert!(in_a.status().problem.is_some_and(|problem| problem.contains(said)));
        let newcomer = store.agent("c").await;
        let outcome = newcomer.coordinator.join("g").await;
        assert!(matches!(outcome, Err(Error::Head { .. })), "{outcome:?}");
        delete_recursively(&*admin, &store.head("g")).await;
        settles_within(3 * store.round() + 2 * store.session_timeout, &[&in_a, &in_b]).await;
        drop((a, b));
    }
}

async fn write(admin: &dyn Session, store: &Store, data: Vec<u8>) {
    admin.commit(vec![Op::set(&store.head("g"), data, None)]).await.unwrap();
}

async fn a_head_that_went_back_to_an_older_version_is_not_followed(store: Store) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    settles_within(store.round(), &[&in_a]).await;
    let admin = store.session().await;
    let (old, _) = znode(&*admin, &store.head("g")).await;
    let b = store.agent("b").await;
    let in_b = b.join("g").await;
    settles_within(store.round(), &[&in_a, &in_b]).await;
    // A copy from a backup: its log is older than its data version.
    write(&*admin, &store, old).await;
    until("both stop", 2 * store.session_timeout, || owned(&in_a) + owned(&in_b) == 0).await;
    let refused = || async { in_a.extract_my_subset([1]).await.err() };
    eventually("it says why", store.round(), refused).await;
    delete_recursively(&*admin, &store.head("g")).await;
    settles_within(3 * store.round() + 2 * store.session_timeout, &[&in_a, &in_b]).await;
    assert!(exists(&*admin, &store.head("g")).await);
}

async fn a_member_of_another_ring_gets_no_share_and_the_others_keep_theirs(store: Store) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    settles_within(store.round(), &[&in_a]).await;
    let b = store.agent_with("b", |config| config.replicas(7)).await;
    let outcome = b.coordinator.join("g").await;
    let Err(error) = outcome else { panic!("it has another ring") };
    assert!(error.to_string().contains("100 replicas labelled"), "{error}");
    assert_eq!(owned(&in_a), 100);
}
