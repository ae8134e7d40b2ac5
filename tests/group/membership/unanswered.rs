//! A store that answers late, or not at all.

use apportion::{
    backend::{Memory, Op},
    testing::Request,
};
use tokio::time::sleep;

use crate::support::{
    SECOND,
    fleet::{Store, settles_within, universe},
    hold::Hold,
    until,
};

#[tokio::test(start_paused = true)]
async fn an_ensemble_that_starts_late_is_found() {
    let store = Store::memory();
    let ensemble: &Memory = store.ensemble();
    ensemble.refuse_connections(true);
    let agent = store.started("a").await;
    let clock = store.connector().clock();
    let begin = clock.now();
    let group = agent.join("g").await;
    for _ in 0..100 {
        let share = group.extract_my_subset(universe()).await.unwrap();
        assert!(share.is_empty() && !share.is_valid());
        let share = agent.coordinator.extract_my_subset("h", universe()).await.unwrap();
        assert!(share.is_empty() && !share.is_valid());
    }
    assert_eq!(clock.now(), begin, "nothing waits");
    sleep(300 * SECOND).await;
    assert!(group.extract_my_subset(universe()).await.unwrap().is_empty());
    ensemble.refuse_connections(false);
    // The longest delay between two attempts.
    settles_within(30 * SECOND + store.round(), &[&group]).await;
}

#[tokio::test(start_paused = true)]
async fn a_session_that_took_long_to_open_has_a_share_as_soon_as_it_has_joined() {
    let store = Store::memory();
    store.ensemble().refuse_connections(true);
    let back = async {
        sleep(7 * SECOND).await;
        store.ensemble().refuse_connections(false);
    };
    let (agent, ()) = tokio::join!(store.agent("a"), back);
    let group = agent.join("g").await;
    // The heartbeat validity counts from the request for the session, and it has passed.
    assert_eq!(group.extract_my_subset(["x"]).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_namespace_that_cannot_be_created_again_because_there_is_no_reply_ends_the_session() {
    let store = Store::memory();
    let (connector, hold) = Hold::on(store.ensemble());
    let coordinator = store.connect(connector, "a").await;
    let session = coordinator.session_id().unwrap();
    let creates = |op: &Op| matches!(op, Op::Create { .. });
    hold.each(move |request| matches!(request, Request::Commit(ops) if ops.iter().any(creates)));
    let namespace = store.path("g").parent().unwrap();
    store.session().await.commit(vec![Op::delete(&namespace, None)]).await.unwrap();
    sleep(12 * SECOND).await;
    assert_ne!(coordinator.session_id(), Some(session), "nothing was confirmed for a timeout");
    hold.nothing();
    until("a new session", 120 * SECOND, || coordinator.session_id().is_some()).await;
}
