//! Membership on both backends: after any failure of a member, each key has exactly one owner again within a stated
//! bound, and only members that may act have a share.

mod lost_connections;
mod many_members;
mod other_processes;
mod permissions;
mod reading;
mod settling;
mod unanswered;

use std::time::Duration;

use apportion::{
    Error, Group,
    backend::{Op, memory::LostReply, path::ZnodePath},
    group::Standing,
};

use crate::support::{
    MS, alive_tasks, eventually,
    fleet::{
        Store, delete_recursively, exists, ids, in_both_modes_on_both_backends, settles_within, universe,
        znode,
    },
    until,
};

in_both_modes_on_both_backends!(
    every_key_has_one_owner_after_each_join_leave_and_crash,
    an_expired_member_rejoins_by_itself,
    a_lost_reply_to_any_write_of_a_join_or_a_leave_changes_nothing,
    a_member_whose_znode_was_deleted_rejoins,
    a_group_that_was_deleted_is_created_again,
    a_namespace_that_was_deleted_is_created_again,
    weights_give_shares_in_proportion,
    a_cancelled_join_leaves_no_znode,
    a_second_join_returns_the_same_group_unless_its_options_differ,
    a_member_is_in_several_groups,
);

/// A group or a znode that an administrator deleted is back within this.
const REPAIR: Duration = Duration::from_secs(5);

async fn every_key_has_one_owner_after_each_join_leave_and_crash(store: Store) {
    let (a, b, c) = (store.agent("a").await, store.agent("b").await, store.agent("c").await);
    let in_a = a.join("g").await;
    settles_within(store.round(), &[&in_a]).await;
    let in_b = b.join("g").await;
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let in_c = c.join("g").await;
    settles_within(store.round(), &[&in_a, &in_b, &in_c]).await;

    in_c.clone().leave().await.unwrap();
    assert!(universe().iter().all(|key| !in_c.view().owns(key)));
    settles_within(store.round(), &[&in_a, &in_b]).await;

    let _cut = b.crash();
    settles_within(store.expiry() + store.round(), &[&in_a]).await;
    assert_eq!(ids(&in_a), ["a"]);
    assert!(universe().iter().all(|key| !in_b.view().owns(key)));
}

async fn an_expired_member_rejoins_by_itself(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let before = incarnation(&in_a, "b");
    b.expire(&store).await;
    rejoined(&store, &[(&in_b, before)]).await;
    settles_within(REPAIR + store.slack(), &[&in_a, &in_b]).await;
    assert!(incarnation(&in_a, "b") > before);
    assert!(in_b.view().epoch() > before);
}

/// Which znode of a member a group counts.
fn incarnation(group: &Group, id: &str) -> i64 {
    let view = group.view();
    let member = view.members().iter().find(|member| *member.id() == id);
    member.unwrap_or_else(|| panic!("{id} is not in {view:?}")).incarnation()
}

async fn a_lost_reply_to_any_write_of_a_join_or_a_leave_changes_nothing(store: Store) {
    let clean = store.agent("a").await;
    let group = clean.join("g").await;
    let joining = clean.faults().calls().writes;
    group.leave().await.unwrap();
    let leaving = clean.faults().calls().writes - joining;
    assert!(
        joining >= 3 && leaving == 1,
        "namespace, group and member; then one delete: {joining} {leaving}"
    );

    let admin = store.session().await;
    for write in 1..=joining + leaving {
        for lost in [LostReply::BeforeApplying, LostReply::AfterApplying] {
            let store = store.elsewhere(format!("{}-{write}-{lost:?}", store.namespace));
            let (config, line) = store.prepare("a").await;
            line.faults.lose_nth_write(write, lost);
            let coordinator = apportion::PartitionCoordinator::connect(config).await.unwrap();
            let joined =
                tokio::time::timeout(REPAIR + store.slack(), store.join(&coordinator, "g").into_future())
                    .await;
            let group = joined.unwrap_or_else(|_| panic!("no join, write {write} {lost:?}")).unwrap();
            let (_, stat) = znode(&*admin, &store.path("g/a")).await;
            assert_eq!(stat.ephemeral_owner, coordinator.session_id(), "write {write} {lost:?}");
            assert_eq!(incarnation(&group, "a"), stat.czxid);
            let (_, parent) = znode(&*admin, &store.path("g")).await;
            assert_eq!(parent.cversion, 1, "the znode that it has is not created again");
            settles_within(store.round(), &[&group]).await;
            tokio::time::timeout(REPAIR + store.slack(), group.leave()).await.expect("it leaves").unwrap();
            assert!(!exists(&*admin, &store.path("g/a")).await, "write {write} {lost:?}");
            assert!(line.faults.calls().writes >= write, "the fault was met");
        }
    }
}

async fn a_member_whose_znode_was_deleted_rejoins(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let (before, share) = (incarnation(&in_b, "a"), in_a.extract_my_subset(universe()).await.unwrap());
    store.session().await.commit(vec![Op::delete(&store.path("g/a"), None)]).await.unwrap();
    rejoined(&store, &[(&in_a, before)]).await;
    settles_within(REPAIR, &[&in_a, &in_b]).await;
    assert!(!share.is_valid(), "the share of an earlier membership");
}

/// Waits until the first member that each group counts is another one than before.
async fn rejoined(store: &Store, groups: &[(&Group, i64)]) {
    let again = || async {
        let differs = |(group, before): &(&Group, i64)| {
            let view = group.view();
            let me = view.members().iter().find(|member| member.id() == view.me());
            view.standing() == Standing::Member && me.is_some_and(|me| me.incarnation() != *before)
        };
        groups.iter().all(differs).then_some(())
    };
    eventually("rejoined", REPAIR + store.slack(), again).await;
}

async fn a_group_that_was_deleted_is_created_again(store: Store) {
    let path = store.path("g");
    deleted_and_created_again(&store, &path).await;
}

async fn a_namespace_that_was_deleted_is_created_again(store: Store) {
    let path = store.path("g").parent().unwrap();
    deleted_and_created_again(&store, &path).await;
}

async fn deleted_and_created_again(store: &Store, path: &ZnodePath) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let before = [(&in_a, incarnation(&in_a, "a")), (&in_b, incarnation(&in_b, "b"))];
    delete_recursively(&*store.session().await, path).await;
    rejoined(store, &before).await;
    settles_within(REPAIR + store.slack(), &[&in_a, &in_b]).await;
    assert_eq!(ids(&in_a), ["a", "b"]);
}

async fn weights_give_shares_in_proportion(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let in_a = a.joining("g").weight(3).await.unwrap();
    let in_b = b.joining("g").weight(1).await.unwrap();
    settles_within(store.round(), &[&in_a, &in_b]).await;
    let fraction = in_b.view().ring().fraction("a");
    assert!((0.65..0.85).contains(&fraction), "{fraction}");
    let view = in_b.view();
    let weights: Vec<_> =
        view.members().iter().map(|member| (member.id().as_str(), member.weight())).collect();
    assert_eq!(weights, [("a", 3), ("b", 1)]);
}

async fn a_cancelled_join_leaves_no_znode(store: Store) {
    let agent = store.agent("a").await;
    let admin = store.session().await;
    let baseline = alive_tasks();
    let mut joined = 0;
    // An exclusive join takes more requests, and a pause before the first publication.
    let stages = match (store.is_immediate, store.is_memory()) {
        (true, _) => 24,
        (false, true) => 80,
        (false, false) => 48,
    };
    for stage in 0..stages {
        let name = format!("g{stage}");
        {
            let mut join = std::pin::pin!(agent.joining(&name).into_future());
            let wait = async {
                store.for_a_moment(stage).await;
                tokio::time::sleep(2 * stage.saturating_sub(48) * MS).await;
            };
            tokio::select! {
                biased;
                outcome = &mut join => { drop(outcome.unwrap()); joined += 1; continue }
                () = wait => {}
            }
        }
        until("the membership has ended", REPAIR, || alive_tasks() <= baseline + joined).await;
        assert!(!exists(&*admin, &store.path(&name).join("a").unwrap()).await, "cancelled at stage {stage}");
        let group = agent.join(&name).await;
        settles_within(store.round(), &[&group]).await;
        group.leave().await.unwrap();
    }
    assert!(joined > 0, "the last stages come after the end of the join");
    assert!(joined < stages as usize, "the first stages come before the end of the join");
}

async fn a_second_join_returns_the_same_group_unless_its_options_differ(store: Store) {
    let agent = store.agent("a").await;
    let (first, second) =
        tokio::join!(agent.joining("g").weight(2).into_future(), agent.joining("g").weight(2).into_future());
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_eq!(incarnation(&first, "a"), incarnation(&second, "a"));
    for differs in [agent.joining("g"), agent.joining("g").weight(2).settle(MS)] {
        let outcome = differs.await;
        assert!(matches!(outcome, Err(Error::JoinedDifferently { .. })), "{outcome:?}");
    }
    // The call for one extraction takes the group as it is.
    assert_eq!(agent.coordinator.extract_my_subset("g", universe()).await.unwrap().len(), universe().len());

    first.leave().await.unwrap();
    assert!(matches!(second.extract_my_subset(universe()).await, Err(Error::Closed { .. })));
    assert!(matches!(second.leave().await, Err(Error::Closed { .. })));
    let again = agent.joining("g").weight(1).await.unwrap();
    settles_within(store.round(), &[&again]).await;
}

async fn a_member_is_in_several_groups(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (one, two) = (a.join("one").await, a.join("two").await);
    let other = b.join("two").await;
    settles_within(store.round(), &[&two, &other]).await;
    settles_within(store.round(), &[&one]).await;
    assert_eq!((ids(&one), ids(&two)), (vec!["a".into()], vec!["a".into(), "b".into()]));
    two.leave().await.unwrap();
    settles_within(store.round(), &[&one]).await;
    settles_within(store.round(), &[&other]).await;
}
