//! A store that refuses a part of the requests: no permission, and writes that never arrive.

use std::time::Duration;

use apportion::{
    Error, MemberId,
    backend::{memory::LostReply, path::ZnodePath},
    group::Standing,
    testing::{Calls, Faults},
};

use crate::support::{
    MS, SECOND,
    fleet::{Store, ids, in_both_modes, settles_within, universe},
    until,
};

in_both_modes!(
    a_group_that_may_not_be_entered_is_a_typed_error_and_tried_at_most_once_a_second,
    a_join_of_a_group_that_may_not_be_entered_fails,
    a_group_that_becomes_forbidden_takes_the_share_away_until_it_is_allowed_again,
    a_namespace_that_may_not_be_entered_is_a_typed_error_and_tried_at_most_once_a_second,
    a_namespace_that_becomes_forbidden_is_tried_at_most_once_a_second,
    a_leave_that_is_not_permitted_ends_all_the_same,
    five_tries_without_our_znode_end_in_not_in_group_with_the_members_seen,
    a_member_that_can_never_join_reports_it,
);

/// The shortest time between two increases of a count, while `span` passes.
async fn shortest_gap(faults: &Faults, span: Duration, count: impl Fn(Calls) -> u64) -> (u64, Duration) {
    let first = count(faults.calls());
    let (mut seen, mut since, mut shortest) = (first, None, Duration::MAX);
    for step in 0..span.as_millis() / 10 {
        tokio::time::sleep(10 * MS).await;
        let (now, at) = (count(faults.calls()), u32::try_from(step).unwrap() * 10 * MS);
        if now != seen {
            shortest = since.map_or(shortest, |since| shortest.min(at - since));
            (seen, since) = (now, Some(at));
        }
    }
    (seen - first, shortest)
}

/// Whether there was at most one try a second, within the step of the measurement.
fn is_once_a_second((tries, shortest): (u64, Duration), span: Duration) -> bool {
    u128::from(tries) <= span.as_millis() / 1000 && shortest >= SECOND - 20 * MS && tries > 0
}

async fn a_group_that_may_not_be_entered_is_a_typed_error_and_tried_at_most_once_a_second(store: Store) {
    let agent = store.started("a").await;
    agent.faults().deny(&store.path("g"));
    let group = agent.join("g").await;
    until("refused", SECOND, || group.view().standing() == Standing::Refused).await;
    let outcome = group.extract_my_subset(universe()).await;
    let Err(Error::NotPermitted { path }) = outcome else { panic!("{outcome:?}") };
    assert!(path.starts_with("/fleet/g"), "{path}");
    let pace = shortest_gap(agent.faults(), 60 * SECOND, |calls| calls.writes).await;
    assert!(is_once_a_second(pace, 60 * SECOND), "{pace:?}");
    agent.faults().allow();
    settles_within(30 * SECOND + store.round(), &[&group]).await;
}

async fn a_join_of_a_group_that_may_not_be_entered_fails(store: Store) {
    let agent = store.agent("a").await;
    agent.faults().deny(&store.path("g"));
    let outcome = agent.joining("g").await;
    assert!(matches!(outcome, Err(Error::NotPermitted { .. })), "{outcome:?}");
    // Other groups are not affected.
    let other = agent.join("h").await;
    settles_within(store.round(), &[&other]).await;
}

async fn a_group_that_becomes_forbidden_takes_the_share_away_until_it_is_allowed_again(store: Store) {
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let share = group.extract_my_subset(universe()).await.unwrap();
    agent.faults().deny(&store.path("g"));
    // Longest, the validity of the last heartbeat. An immediate member gives its share up at the first refusal.
    tokio::time::sleep(if store.is_immediate { 3 } else { 6 } * SECOND).await;
    assert!(!share.is_valid());
    let outcome = group.extract_my_subset(universe()).await;
    assert!(matches!(outcome, Err(Error::NotPermitted { .. })), "{outcome:?}");
    // An exclusive member still has its znode, and reads it.
    let tries = if store.is_immediate { |calls: Calls| calls.writes } else { |calls: Calls| calls.syncs };
    let pace = shortest_gap(agent.faults(), 60 * SECOND, tries).await;
    assert!(is_once_a_second(pace, 60 * SECOND), "{pace:?}");
    let calls = agent.faults().calls();
    tokio::time::sleep(60 * SECOND).await;
    let commits = agent.faults().calls().commits - calls.commits;
    assert!(commits <= 125, "heartbeats and tries, once a second each: {commits}");
    agent.faults().allow();
    settles_within(30 * SECOND + store.round(), &[&group]).await;
}

async fn a_namespace_that_may_not_be_entered_is_a_typed_error_and_tried_at_most_once_a_second(store: Store) {
    let (config, line) = store.prepare("a").await;
    line.faults.deny(&ZnodePath::parse("/fleet").unwrap());
    let outcome = apportion::PartitionCoordinator::connect(config.clone()).await;
    assert!(matches!(outcome, Err(Error::NotPermitted { .. })), "{outcome:?}");
    assert!(store.ensemble().sessions().is_empty());

    let coordinator = apportion::PartitionCoordinator::start(config).unwrap();
    let group = store.join(&coordinator, "g").await.unwrap();
    tokio::time::sleep(100 * MS).await;
    let outcome = group.extract_my_subset(universe()).await;
    assert!(matches!(outcome, Err(Error::NotPermitted { .. })), "{outcome:?}");
    let pace = shortest_gap(&line.faults, 60 * SECOND, |calls| calls.opens).await;
    assert!(is_once_a_second(pace, 60 * SECOND), "{pace:?}");
    line.faults.allow();
    settles_within(30 * SECOND + store.round(), &[&group]).await;
}

async fn a_namespace_that_becomes_forbidden_is_tried_at_most_once_a_second(store: Store) {
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    agent.faults().deny(&ZnodePath::parse("/fleet").unwrap());
    tokio::time::sleep(3 * SECOND).await;
    let outcome = group.extract_my_subset(universe()).await;
    assert!(matches!(outcome, Err(Error::NotPermitted { .. })), "{outcome:?}");
    let pace = shortest_gap(agent.faults(), 60 * SECOND, |calls| calls.opens).await;
    assert!(is_once_a_second(pace, 60 * SECOND), "{pace:?}");
    agent.faults().allow();
    settles_within(30 * SECOND + store.round(), &[&group]).await;
}

async fn a_leave_that_is_not_permitted_ends_all_the_same(store: Store) {
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    agent.faults().deny(&store.path("g"));
    let left = tokio::time::timeout(20 * SECOND, group.leave()).await;
    assert!(left.is_ok(), "it hangs");
}

async fn five_tries_without_our_znode_end_in_not_in_group_with_the_members_seen(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    for write in 1..1000 {
        a.faults().lose_nth_write(a.faults().calls().writes + write, LostReply::BeforeApplying);
    }
    let admin = store.session().await;
    let gone = vec![apportion::backend::Op::delete(&store.path("g/a"), None)];
    admin.commit(gone).await.unwrap();
    until("out", 2 * SECOND, || in_a.view().standing() == Standing::Joining).await;

    let clock = store.connector().clock();
    let begin = clock.now();
    let outcome = in_a.extract_my_subset(universe()).await;
    let waited = clock.now().saturating_since(begin);
    let Err(Error::NotInGroup { group, member, members }) = outcome else { panic!("{outcome:?}") };
    assert_eq!((&*group, member.as_str()), ("g", "a"));
    let members = members.expect("the group was read");
    assert_eq!(members.iter().map(MemberId::as_str).collect::<Vec<_>>(), ["b"]);
    assert!(waited <= 8 * SECOND, "four pauses of up to two seconds between five tries: {waited:?}");
    settles_within(store.round(), &[&in_b]).await;
    assert_eq!(ids(&in_b), ["b"]);
}

async fn a_member_that_can_never_join_reports_it(store: Store) {
    let agent = store.started("a").await;
    // The first write makes the namespace.
    for write in 2..1000 {
        agent.faults().lose_nth_write(write, LostReply::BeforeApplying);
    }
    let group = agent.join("g").await;
    tokio::time::sleep(SECOND).await;
    let outcome = group.extract_my_subset(universe()).await;
    let Err(error @ Error::NotInGroup { members: None, .. }) = outcome else { panic!("{outcome:?}") };
    assert!(error.to_string().contains("which was not read yet"), "{error}");
    let pace = shortest_gap(agent.faults(), 300 * SECOND, |calls| calls.writes).await;
    assert!(pace.0 <= 40, "the backoff does not grow: {pace:?}");
}
