//! The head of a group: deleted, forbidden, or written by another process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use apportion::{
    Error, Held,
    backend::{BoxFuture, Connector, CreateMode, Memory, Op, Session},
    clock::Clock,
};

use super::{hold, owned};
use crate::support::{
    MS, SECOND, eventually,
    fleet::{Agent, Reach, Store, delete_recursively, exists, on_both_backends, settles_within, znode},
    until,
};

on_both_backends![
    a_head_without_its_snapshot_is_reported_and_not_read_all_the_time,
    a_head_that_becomes_forbidden_is_reported_and_tried_at_most_once_a_second,
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

async fn a_head_without_its_snapshot_is_reported_and_not_read_all_the_time(store: Store) {
    let a = store.agent("a").await;
    let in_a = a.join("g").await;
    settles_within(store.round(), &[&in_a]).await;
    let admin = store.session().await;
    let head = store.head("g");
    let (snapshots, _) = admin.children(&head).await.unwrap();
    assert_eq!(snapshots.len(), 1);
    delete_recursively(&*admin, &head.join(&snapshots[0]).unwrap()).await;
    let newcomer = store.agent("b").await;
    let outcome = newcomer.coordinator.join("g").await;
    let Err(Error::Head { reason, .. }) = &outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("its snapshot is missing; delete the head"), "{reason}");
    drop(newcomer);
    assert_eq!(owned(&in_a), 100, "it can follow no other epoch, and needs none");

    let b = store.started("b").await;
    let in_b = b.joining("g").await.expect("it does not wait");
    let told = || async { in_b.status().problem.filter(|problem| problem.contains("snapshot is missing")) };
    eventually("it says why", 2 * SECOND + store.round(), told).await;
    let before = b.faults().calls();
    tokio::time::sleep(SECOND).await;
    let calls = b.faults().calls();
    assert!(calls.gets - before.gets < 8, "{} reads in a second", calls.gets - before.gets);
    delete_recursively(&*admin, &head).await;
    settles_within(3 * store.round() + 2 * store.session_timeout, &[&in_a, &in_b]).await;
}

/// An operator denies all members access to the head, or allows it again.
async fn forbid(store: &Store, agents: &[&Agent], is_forbidden: bool) {
    let head = store.head("g");
    match &store.reach {
        Reach::Memory(_) if is_forbidden => agents.iter().for_each(|agent| agent.faults().deny(&head)),
        Reach::Memory(_) => agents.iter().for_each(|agent| agent.faults().allow()),
        #[cfg(feature = "zookeeper")]
        Reach::Server(port) => {
            use zookeeper_client::{Acl, Acls, AuthId, Client, Permission};
            let connector = Client::connector().with_auth("digest", b"operator:secret");
            let operator = connector.connect(&format!("127.0.0.1:{port}")).await.unwrap();
            let own = [Acl::new(Permission::ALL, AuthId::authed())];
            let acls = if is_forbidden { Acls::from(&own[..]) } else { Acls::anyone_all() };
            operator.set_acl(head.as_str(), &acls, None).await.unwrap();
        }
    }
}

async fn a_head_that_becomes_forbidden_is_reported_and_tried_at_most_once_a_second(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let held = hold(&in_a).await;
    forbid(&store, &[&a, &b], true).await;
    until("both stop", store.session_timeout, || owned(&in_a) + owned(&in_b) == 0).await;
    assert!(held.iter().all(|guard| !guard.is_valid()));
    for group in [&in_a, &in_b] {
        let refused = || async { group.extract_my_subset([1]).await.err() };
        let error = eventually("it says why", store.round(), refused).await;
        let Error::NotPermitted { path } = &error else { panic!("{error}") };
        assert_eq!(*path, store.head("g").to_string());
    }
    let span = if store.is_memory() { 30 } else { 2 };
    let before = a.faults().calls();
    tokio::time::sleep(span * SECOND).await;
    let calls = a.faults().calls();
    let tries = u32::try_from(calls.node_watches - before.node_watches).unwrap();
    assert!(tries <= span + 1 && (tries > 0 || !store.is_memory()), "{tries} tries in {span} s");
    // The session needs one each second, and the members nothing else.
    let (every, commits) = (store.session_timeout / 10, calls.commits - before.commits);
    assert!(every * u32::try_from(commits).unwrap() <= (span + 2) * SECOND, "{commits} in {span} s");
    forbid(&store, &[&a, &b], false).await;
    settles_within(8 * SECOND + store.round(), &[&in_a, &in_b]).await;
}

/// Two ensembles, one after the other.
#[derive(Debug)]
struct Replaced {
    old: Memory,
    new: Memory,
    is_new: AtomicBool,
}

#[derive(Debug, Clone)]
struct Through(Arc<Replaced>);

impl Connector for Through {
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, apportion::backend::Error>> {
        let store = if self.0.is_new.load(Ordering::SeqCst) { &self.0.new } else { &self.0.old };
        store.open(timeout)
    }

    fn clock(&self) -> Arc<dyn Clock> {
        self.0.old.clock()
    }
}

/// As if an operator had deleted them, or restored an older copy: transactions are numbered anew.
#[tokio::test(start_paused = true)]
async fn members_act_again_after_all_data_of_the_servers_were_deleted() {
    let store = Store::memory();
    let old = store.ensemble().clone();
    let replaced =
        Through(Arc::new(Replaced { old: old.clone(), new: Memory::new(), is_new: AtomicBool::new(false) }));
    let admin = store.session().await;
    for number in 0..200 {
        let path = crate::support::path(&format!("/other-{number}"));
        admin.commit(vec![Op::create(&path, "", CreateMode::Persistent)]).await.unwrap();
    }
    let (a, b) = (store.connect(replaced.clone(), "a").await, store.connect(replaced.clone(), "b").await);
    let (in_a, in_b) = (store.join(&a, "g").await.unwrap(), store.join(&b, "g").await.unwrap());
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let (held, epoch) = (hold(&in_a).await, in_a.view().epoch());
    replaced.0.is_new.store(true, Ordering::SeqCst);
    for session in [a.session_id(), b.session_id()] {
        old.expire(session.expect("it has a session"));
    }
    tokio::time::sleep(10 * MS).await;
    assert!(held.iter().all(|guard| !guard.is_valid()));
    settles_within(store.session_timeout + 2 * store.round(), &[&in_a, &in_b]).await;
    assert!(in_a.view().epoch() < epoch, "tokens begin again");
}
