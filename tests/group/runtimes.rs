//! A coordinator whose runtime has ended, and groups that were left.

use std::sync::Arc;

use apportion::{Error, Group, PartitionCoordinator};

use crate::support::{
    SECOND,
    fleet::{Store, on_both_backends, settles_within, universe},
    until,
};

on_both_backends!(
    after_the_end_of_its_runtime_a_coordinator_is_closed,
    a_group_that_was_left_is_forgotten_with_its_last_view,
);

async fn after_the_end_of_its_runtime_a_coordinator_is_closed(store: Store) {
    let (sender, receiver) = tokio::sync::oneshot::channel::<(PartitionCoordinator, Group)>();
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let config = store.config_via(crate::support::fleet::Via(store.connector()), "a");
    #[allow(clippy::disallowed_methods, reason = "a second runtime needs a thread")]
    let thread = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let coordinator = PartitionCoordinator::connect(config).await.unwrap();
            let group = coordinator.join("g").await.unwrap();
            sender.send((coordinator, group)).unwrap();
            let _ = ended.await;
        });
    });
    let (coordinator, group) = receiver.await.unwrap();
    let share = group.extract_my_subset(universe()).await.unwrap();
    assert!(share.is_valid() && share.len() == universe().len());
    let board = coordinator.job_board("/jobs").await.unwrap();
    end.send(()).unwrap();
    tokio::task::spawn_blocking(move || thread.join().unwrap()).await.unwrap();

    assert!(!share.is_valid(), "its session was closed, so another member may own it");
    assert!(!coordinator.is_active());
    assert_eq!(coordinator.session_id(), None);
    for _ in 0..2 {
        let outcome = group.extract_my_subset(universe()).await;
        assert!(matches!(outcome, Err(Error::Closed { .. })), "{outcome:?}");
        let outcome = coordinator.extract_my_subset("g", universe()).await;
        assert!(matches!(outcome, Err(Error::Closed { .. })), "{outcome:?}");
        let outcome = coordinator.extract_my_subset("another", universe()).await;
        assert!(matches!(outcome, Err(Error::Closed { .. })), "{outcome:?}");
        let outcome = coordinator.join("new").await;
        assert!(matches!(outcome, Err(Error::Closed { .. })), "{outcome:?}");
    }
    assert!(board.post("late").await.unwrap_err().is_closed());
    assert!(group.leave().await.unwrap_err().is_closed());
}

async fn a_group_that_was_left_is_forgotten_with_its_last_view(store: Store) {
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let kept = agent.join("kept").await;
    settles_within(store.round(), &[&group]).await;
    let view = Arc::downgrade(&group.view());
    group.leave().await.unwrap();
    until("forgotten", SECOND, || view.upgrade().is_none()).await;
    let shown = format!("{:?}", agent.coordinator);
    assert!(shown.contains("\"kept\"") && !shown.contains("\"g\""), "{shown}");
    let again = agent.join("g").await;
    settles_within(store.round(), &[&again]).await;
    settles_within(store.round(), &[&kept]).await;
}

#[tokio::test(start_paused = true)]
async fn a_standalone_group_that_was_left_is_forgotten_with_the_next_join() {
    let coordinator = PartitionCoordinator::standalone();
    let group = coordinator.join("g").await.unwrap();
    let view = Arc::downgrade(&group.view());
    group.leave().await.unwrap();
    let _other = coordinator.join("h").await.unwrap();
    assert!(view.upgrade().is_none());
    assert!(!format!("{coordinator:?}").contains("\"g\""));
}
