//! The coordinator as its users meet it, in memory. The tests marked with a row of a table show what this
//! library does where the Python original does something else.

mod failures;
mod rebalances;
mod standalone;

use std::{collections::BTreeSet, time::Duration};

use apportion::{
    Config, Error, HashRing, Held, MemberId, PartitionCoordinator,
    backend::{Memory, Op, path::ZnodePath},
    group::Standing,
};

use crate::support::{
    SECOND, alive_tasks,
    events::Events,
    fleet::{Store, exists, next_change, settles_within, znode},
    until,
};

use tracing::Level;

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("resource-{number}")).collect()
}

// What the tests of the original show.

#[tokio::test(start_paused = true)]
async fn ten_members_share_a_thousand_keys_as_a_ring_over_all_ids_says_in_the_order_given() {
    let store = Store::memory();
    let mut agents = Vec::new();
    for number in 0..10 {
        let agent = store.agent(&format!("agent-{number}")).await;
        let group = agent.join("g").await;
        agents.push((agent, group));
    }
    let groups: Vec<_> = agents.iter().map(|(_, group)| group).collect();
    settles_within(store.round(), &groups).await;
    let ring = HashRing::builder().members((0..10).map(|n| format!("agent-{n}"))).build().unwrap();
    for (agent, group) in &agents {
        let me = agent.coordinator.member_id().as_str();
        let expected: Vec<_> = keys(1000).into_iter().filter(|key| ring.owner(key) == Some(me)).collect();
        assert_eq!(group.extract_my_subset(keys(1000)).await.unwrap().into_vec(), expected);
        let borrowed = keys(1000);
        let share = agent.coordinator.extract_my_subset("g", &borrowed).await.unwrap();
        assert!(share.iter().map(|key| *key.into_inner()).eq(&expected));
        let by = group.extract_my_subset_by(0..1000, |number| format!("resource-{number}")).await.unwrap();
        let named: Vec<_> = by.iter().map(|number| format!("resource-{number}")).collect();
        assert_eq!(named, expected);
        assert!(!expected.is_empty(), "{me} got nothing");
    }
}

#[tokio::test(start_paused = true)]
async fn two_members_of_one_group_see_each_other_and_of_two_groups_do_not() {
    let store = Store::memory();
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (both_a, both_b) = (a.join("both").await, b.join("both").await);
    let (one, two) = (a.join("one").await, b.join("two").await);
    for (group, members) in
        [(&both_a, &["a", "b"][..]), (&both_b, &["a", "b"]), (&one, &["a"]), (&two, &["b"])]
    {
        crate::support::fleet::sees(group, store.round(), members).await;
    }
    assert_eq!(a.coordinator.member_id(), &MemberId::new("a").unwrap());
    assert_eq!(both_a.name(), "both");
}

#[tokio::test(start_paused = true)]
async fn without_a_chosen_id_each_coordinator_draws_one() {
    let ensemble = Memory::new();
    let mut drawn = BTreeSet::new();
    for _ in 0..3 {
        let config = Config::for_backend(ensemble.clone());
        let coordinator = PartitionCoordinator::connect(config).await.unwrap();
        let id = coordinator.member_id().clone();
        assert_eq!((id.as_str().len(), id.as_str().matches('-').count()), (36, 4), "a uuid: {id}");
        drawn.insert(id);
    }
    assert_eq!(drawn.len(), 3);
}

#[tokio::test(start_paused = true)]
async fn an_empty_group_means_that_everything_is_mine_and_touches_nothing() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let before = agent.faults().calls().writes;
    let mine = agent.coordinator.extract_my_subset("", keys(50)).await.unwrap();
    assert_eq!(mine.to_vec(), keys(50));
    let by = agent.coordinator.extract_my_subset_by("", 0..50, i32::to_string).await.unwrap();
    assert_eq!(by.into_iter().map(Held::into_inner).collect::<Vec<_>>(), (0..50).collect::<Vec<_>>());
    assert!(mine.is_valid());
    tokio::time::sleep(100 * SECOND).await;
    assert!(mine.is_valid());
    assert_eq!(agent.faults().calls().writes, before);
    let admin = store.session().await;
    let (children, _) = admin.children(&ZnodePath::parse("/fleet").unwrap()).await.unwrap();
    assert!(children.is_empty(), "{children:?}");
}

#[tokio::test(start_paused = true)]
async fn each_failure_to_reach_the_backend_is_logged_and_so_is_the_success() {
    let events = Events::of("apportion::session");
    let store = Store::memory();
    store.ensemble().refuse_connections(true);
    let agent = store.started("a").await;
    // Attempts of ten seconds each, with growing pauses in between.
    tokio::time::sleep(60 * SECOND).await;
    let failures = events.take(Level::WARN);
    assert!((3..=6).contains(&failures.len()), "{failures:#?}");
    assert!(failures.iter().all(|text| text.contains("refuses connections")), "{failures:#?}");
    assert_eq!(events.take(Level::INFO), [""; 0]);

    store.ensemble().refuse_connections(false);
    let group = agent.join("g").await;
    settles_within(30 * SECOND + store.round(), &[&group]).await;
    let successes = events.take(Level::INFO);
    assert!(matches!(&successes[..], [text] if text.contains("session opened")), "{successes:?}");
}

#[tokio::test(start_paused = true)]
async fn a_member_with_credentials_warns_of_folders_that_were_created_without() {
    let store = Store::memory();
    let anonymous = store.agent("anonymous").await;
    let _open = anonymous.join("open").await;
    // What it leaves behind: an open group with an open head.
    anonymous.join("left").await.leave().await.unwrap();
    let events = Events::of("apportion::session::requests");
    let config = store.config_via(store.ensemble().as_user("ember"), "ember");
    let member = PartitionCoordinator::connect(config).await.unwrap();
    // The anonymous member cannot read the znode of this one, so it could hand no keys over.
    let outcome = member.join("open").await;
    assert!(
        matches!(&outcome, Err(Error::Head { reason, .. }) if reason.contains("permitted to read")),
        "{outcome:?}"
    );
    let _groups = [
        member.join("open").immediate().await.unwrap(),
        member.join("left").await.unwrap(),
        member.join("private").await.unwrap(),
    ];
    tokio::time::sleep(SECOND).await;
    let warnings = events.take(Level::WARN);
    for (folder, is_open) in [
        ("/fleet", true),
        ("/fleet/open", true),
        ("/fleet/left", true),
        ("/fleet.ring", true),
        ("/fleet.ring/left", true),
        ("/fleet/private", false),
        ("/fleet.ring/private", false),
    ] {
        let is_said = warnings.iter().any(|text| text.contains(&format!("znode={folder} ")));
        assert_eq!(is_said, is_open, "{folder}: {warnings:#?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_coordinator_that_was_shut_down_can_be_followed_by_another_of_the_same_id_at_once() {
    let store = Store::memory();
    let clock = store.connector().clock();
    let begin = clock.now();
    for _ in 0..5 {
        let agent = store.agent("a").await;
        let group = agent.join("g").await;
        assert!(agent.coordinator.is_active());
        assert_eq!(group.extract_my_subset(keys(10)).await.unwrap().len(), 10);
        agent.coordinator.shutdown().await.unwrap();
        assert!(!agent.coordinator.is_active());
    }
    assert!(clock.now().saturating_since(begin) < SECOND);
}

// What the tests of the Python client library show, where it concerns groups.

#[tokio::test(start_paused = true)]
async fn a_group_is_created_by_its_first_join_and_joined_by_the_next() {
    let store = Store::memory();
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let admin = store.session().await;
    assert!(!exists(&*admin, &store.path("g")).await, "not before");
    let _in_a = a.join("g").await;
    let (_, first) = znode(&*admin, &store.path("g")).await;
    let _in_b = b.join("g").await;
    let (_, second) = znode(&*admin, &store.path("g")).await;
    assert_eq!(first.czxid, second.czxid);
    let (mut names, _) = admin.children(&store.path("g")).await.unwrap();
    names.sort_unstable();
    assert_eq!(names, ["a", "b"], "nothing but members");
}

#[tokio::test(start_paused = true)]
async fn leaving_twice_or_after_the_end_is_an_error() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    group.clone().leave().await.unwrap();
    assert!(matches!(group.clone().leave().await, Err(Error::Closed { .. })));
    agent.coordinator.shutdown().await.unwrap();
    assert!(matches!(group.leave().await, Err(Error::Closed { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_member_that_was_booted_out_notices_and_comes_back() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let mut rebalances = group.rebalances();
    next_change(&mut rebalances).await;
    store.session().await.commit(vec![Op::delete(&store.path("g/a"), None)]).await.unwrap();
    assert!(next_change(&mut rebalances).await.is_total_loss());
    assert_eq!(next_change(&mut rebalances).await.gained(keys(10)).count(), 10);
}

// Joins that cross each other.

#[tokio::test(start_paused = true)]
async fn a_join_that_was_overtaken_by_a_leave_does_not_end_the_next_join() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let mut slow = Box::pin(agent.joining("g").into_future());
    // Begun, and then not polled for a while.
    assert!(poll_once(slow.as_mut()).is_none());
    let quick = agent.join("g").await;
    quick.leave().await.unwrap();
    let next = agent.join("g").await;
    let overtaken = slow.await;
    assert!(matches!(overtaken, Err(Error::Closed { .. })), "{overtaken:?}");
    tokio::time::sleep(SECOND).await;
    assert_eq!(next.view().standing(), Standing::Member);
    let third = agent.join("g").await;
    assert_eq!(third.extract_my_subset(keys(10)).await.unwrap().len(), 10);
}

/// Polls once.
fn poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> Option<F::Output> {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut context) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_join_during_a_leave_waits_for_it_and_gets_a_znode_of_its_own() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let before = znode(&*store.session().await, &store.path("g/a")).await.1;
    let (left, joined) = tokio::join!(group.leave(), agent.coordinator.join("g").into_future());
    left.unwrap();
    let joined = joined.unwrap();
    let after = znode(&*store.session().await, &store.path("g/a")).await.1;
    assert!(after.czxid > before.czxid);
    settles_within(store.round(), &[&joined]).await;
}

#[tokio::test(start_paused = true)]
async fn one_of_two_waiting_joins_can_be_given_up() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    agent.suspend();
    let given_up = tokio::time::timeout(SECOND, agent.coordinator.join("g").into_future());
    let kept = async {
        let kept = agent.coordinator.join("g").into_future();
        tokio::time::sleep(2 * SECOND).await;
        agent.resume();
        kept.await
    };
    let (given_up, kept) = tokio::join!(given_up, kept);
    assert!(given_up.is_err());
    settles_within(store.round(), &[&kept.unwrap()]).await;
}

#[tokio::test(start_paused = true)]
async fn connecting_while_nothing_answers_is_unreachable_after_the_session_timeout() {
    let store = Store::memory();
    store.ensemble().refuse_connections(true);
    let (config, _line) = store.prepare("a").await;
    let clock = store.connector().clock();
    let begin = clock.now();
    let baseline = alive_tasks();
    let outcome = PartitionCoordinator::connect(config).await;
    let waited = clock.now().saturating_since(begin);
    assert!(matches!(outcome, Err(Error::Unreachable { .. })), "{outcome:?}");
    assert!(waited >= store.session_timeout && waited <= store.session_timeout + SECOND, "{waited:?}");
    until("nothing stays behind", Duration::from_millis(10), || alive_tasks() <= baseline).await;
}
