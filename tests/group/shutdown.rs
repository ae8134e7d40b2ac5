//! Nothing is left: no task after `shutdown` or drop, no znode after `leave`. An end that the backend does not confirm
//! comes in time all the same.

use std::{
    pin::pin,
    sync::{Arc, Mutex},
    task::{Context, Waker},
    time::Duration,
};

use apportion::{
    Config, Error, PartitionCoordinator, Share,
    backend::{BoxFuture, memory::LostReply},
    group::Standing,
    testing::{Call, Faults, Hook, Intercept, Outcome, Request},
};

use crate::support::{
    MS, SECOND, alive_tasks,
    fleet::{Store, exists, is_over, next_change, on_both_backends, settles_within, universe},
    hold::Hold,
    until,
};

on_both_backends!(
    no_task_survives_a_shutdown,
    no_task_survives_the_drop_of_the_coordinator,
    no_task_survives_a_connect_that_is_given_up,
    no_znode_survives_a_leave,
    a_shutdown_tells_the_peers_at_once,
    a_shutdown_twice_does_no_harm,
    a_shutdown_while_the_backend_is_away_says_so_in_time,
    a_shutdown_without_a_session_succeeds_at_once,
    handles_say_that_the_coordinator_is_gone,
);

/// How long closing the session may take: the session timeout, at most five seconds.
fn close_timeout(store: &Store) -> Duration {
    store.session_timeout.min(5 * SECOND)
}

/// Waits until the runtime has no more tasks than before.
async fn tasks_are_back_to(baseline: usize, bound: Duration) {
    until("the tasks have ended", bound, || alive_tasks() <= baseline).await;
}

/// A coordinator in two groups, with a watch on each and a change under way.
async fn busy(config: Config) -> PartitionCoordinator {
    let coordinator = PartitionCoordinator::connect(config).await.unwrap();
    let (one, two) = (coordinator.join("one").await.unwrap(), coordinator.join("two").await.unwrap());
    assert!(!one.extract_my_subset(universe()).await.unwrap().is_empty());
    next_change(&mut two.rebalances()).await;
    coordinator
}

async fn no_task_survives_a_shutdown(store: Store) {
    let baseline = alive_tasks();
    let coordinator = busy(store.config_via(Faults::new(store.connector()), "a")).await;
    assert!(alive_tasks() > baseline);
    coordinator.shutdown().await.unwrap();
    // The client of a real server tidies up in tasks of its own.
    tasks_are_back_to(baseline, if store.is_memory() { MS } else { SECOND }).await;
    assert!(!coordinator.is_active());
}

async fn no_task_survives_the_drop_of_the_coordinator(store: Store) {
    let baseline = alive_tasks();
    let admin = store.session().await;
    let with_admin = alive_tasks();
    drop(busy(store.config_via(Faults::new(store.connector()), "a")).await);
    tasks_are_back_to(with_admin, 2 * SECOND + store.slack()).await;
    // The drop closes the session: the znodes are deleted before it could expire.
    for group in ["one/a", "two/a"] {
        assert!(!exists(&*admin, &store.path(group)).await, "{group}");
    }
    admin.close().await;
    drop(admin);
    tasks_are_back_to(baseline, SECOND + store.slack()).await;
}

async fn no_task_survives_a_connect_that_is_given_up(store: Store) {
    let baseline = alive_tasks();
    for stage in 0..12 {
        let config = store.config_via(Faults::new(store.connector()), "a");
        let connect = PartitionCoordinator::connect(config);
        let wait = store.for_a_moment(stage);
        tokio::select! {
            biased;
            _ = connect => {}
            () = wait => {}
        }
        // A session that the server was about to open expires by itself; no task waits for it.
        tasks_are_back_to(baseline, store.lifetime() + store.slack()).await;
        if store.is_memory() {
            assert!(store.ensemble().sessions().is_empty(), "stage {stage}");
        }
    }
}

async fn no_znode_survives_a_leave(store: Store) {
    let agent = store.agent("a").await;
    let admin = store.session().await;
    for _ in 0..3 {
        let group = agent.join("g").await;
        assert!(exists(&*admin, &store.path("g/a")).await);
        group.leave().await.unwrap();
        assert!(!exists(&*admin, &store.path("g/a")).await);
    }
    // The group itself stays, as with the Python peers.
    assert!(exists(&*admin, &store.path("g")).await);
}

async fn a_shutdown_tells_the_peers_at_once(store: Store) {
    let (a, b) = (store.agent("a").await, store.agent("b").await);
    let (in_a, in_b) = (a.join("g").await, b.join("g").await);
    settles_within(store.round(), &[&in_a, &in_b]).await;
    b.coordinator.shutdown().await.unwrap();
    assert!(!exists(&*store.session().await, &store.path("g/b")).await);
    settles_within(store.round(), &[&in_a]).await;
}

async fn a_shutdown_twice_does_no_harm(store: Store) {
    let agent = store.agent("a").await;
    let _group = agent.join("g").await;
    let (one, two) = tokio::join!(agent.coordinator.shutdown(), agent.coordinator.shutdown());
    one.unwrap();
    two.unwrap();
    agent.coordinator.shutdown().await.unwrap();
    let outcome = agent.coordinator.join("g").await;
    assert!(matches!(outcome, Err(Error::Closed { .. })), "{outcome:?}");
    let outcome = agent.coordinator.extract_my_subset("g", universe()).await;
    assert!(matches!(outcome, Err(Error::Closed { .. })), "{outcome:?}");
}

async fn a_shutdown_while_the_backend_is_away_says_so_in_time(store: Store) {
    let baseline = alive_tasks();
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let share = group.extract_my_subset(universe()).await.unwrap();
    agent.suspend();
    let clock = store.connector().clock();
    let begin = clock.now();
    let outcome = agent.coordinator.shutdown().await;
    let waited = clock.now().saturating_since(begin);
    let Err(Error::Unreachable { reason }) = outcome else { panic!("{outcome:?}") };
    assert!(reason.contains("expire"), "{reason}");
    assert!(waited <= 2 * close_timeout(&store) + SECOND, "{waited:?}");
    assert!(!share.is_valid());
    if store.is_memory() {
        // It was the truth. (A real session may have expired meanwhile.)
        assert!(exists(&*store.session().await, &store.path("g/a")).await);
    }
    drop(agent);
    tasks_are_back_to(baseline, store.expiry() + SECOND).await;
}

async fn a_shutdown_without_a_session_succeeds_at_once(store: Store) {
    let baseline = alive_tasks();
    let coordinator =
        PartitionCoordinator::start(store.config_via(Faults::new(store.nowhere()), "a")).unwrap();
    let group = coordinator.join("g").await.unwrap();
    tokio::time::sleep(SECOND / 2).await;
    let ended = tokio::time::timeout(SECOND, coordinator.shutdown()).await;
    ended.expect("at once").unwrap();
    assert!(matches!(group.extract_my_subset(universe()).await, Err(Error::Closed { .. })));
    tasks_are_back_to(baseline, SECOND).await;
}

async fn handles_say_that_the_coordinator_is_gone(store: Store) {
    let agent = store.agent("a").await;
    let group = agent.join("g").await;
    let share = group.extract_my_subset(universe()).await.unwrap();
    let mut rebalances = group.rebalances();
    assert!(!next_change(&mut rebalances).await.is_total_loss());
    drop(agent.coordinator);
    let last = next_change(&mut rebalances).await;
    assert!(last.is_total_loss() && last.lost(universe()).count() == universe().len());
    assert!(is_over(&mut rebalances).await);
    assert!(!share.is_valid());
    assert_ne!(group.view().standing(), Standing::Member);
    let outcome = group.extract_my_subset(universe()).await;
    assert!(matches!(outcome, Err(Error::Closed { .. })), "{outcome:?}");
    tokio::time::timeout(SECOND, group.leave()).await.expect("nothing to wait for").unwrap_err();
}

/// Notes whether a share is valid when the session that it comes from is closed.
#[derive(Default)]
struct AtClose {
    share: Mutex<Option<Share<String>>>,
    was_valid: Mutex<Vec<bool>>,
}

impl Hook for AtClose {
    fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
        if let (Request::Close, Some(share)) = (call.request(), &*self.share.lock().unwrap()) {
            self.was_valid.lock().unwrap().push(share.is_valid());
        }
        call.send()
    }
}

/// Once the server has the request to close the session, another member may act.
#[tokio::test(start_paused = true)]
async fn guards_end_before_their_session_is_closed_however_that_comes() {
    for is_cut_off in [false, true] {
        for is_dropped in [false, true] {
            for is_immediate in [false, true] {
                let store = Store::memory();
                let hook = Arc::<AtClose>::default();
                let connector = Intercept::new(store.connector(), hook.clone());
                let coordinator = store.connect(connector, "a").await;
                let join = coordinator.join("g");
                let group = if is_immediate { join.immediate().await } else { join.await }.unwrap();
                settles_within(store.round(), &[&group]).await;
                let share = group.extract_my_subset(universe()).await.unwrap();
                assert!(share.is_valid() && !share.is_empty());
                *hook.share.lock().unwrap() = Some(share);
                if is_cut_off {
                    store.ensemble().suspend(coordinator.session_id().unwrap());
                }
                if is_dropped {
                    drop(coordinator);
                } else {
                    // Whether the store has confirmed it is another matter.
                    let _ = coordinator.shutdown().await;
                }
                let is_closed = || !hook.was_valid.lock().unwrap().is_empty();
                until("closed", 20 * SECOND, is_closed).await;
                assert_eq!(
                    *hook.was_valid.lock().unwrap(),
                    [false],
                    "{is_cut_off} {is_dropped} {is_immediate}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn heartbeats_go_on_while_a_group_is_being_left() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let (leaving, staying) = (agent.join("leaving").await, agent.join("staying").await);
    let share = staying.extract_my_subset(universe()).await.unwrap();
    let before = agent.faults().calls();
    // After a short pause each.
    for write in 1..=40 {
        agent.faults().lose_nth_write(before.writes + write, LostReply::BeforeApplying);
    }
    let clock = store.connector().clock();
    let begin = clock.now();
    leaving.leave().await.unwrap();
    let waited = clock.now().saturating_since(begin);
    assert!(waited > 5 * SECOND, "longer than the heartbeat validity: {waited:?}");
    let after = agent.faults().calls();
    let heartbeats = (after.commits - after.writes) - (before.commits - before.writes);
    assert!(u128::from(heartbeats) >= waited.as_millis() / 1000, "{heartbeats} in {waited:?}");
    assert!(share.is_valid());
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_leaves_all_groups_before_it_closes_the_session() {
    let store = Store::memory();
    let agent = store.agent("a").await;
    let _groups = (agent.join("one").await, agent.join("two").await);
    let before = agent.faults().calls();
    // One of the deletes has to be sent twice; the session has to be there for it.
    agent.faults().lose_nth_write(before.writes + 1, LostReply::BeforeApplying);
    agent.coordinator.shutdown().await.unwrap();
    let after = agent.faults().calls();
    assert_eq!(after.writes - before.writes, 3);
    assert!(store.ensemble().sessions().is_empty());
}

#[cfg(feature = "zookeeper")]
#[tokio::test]
async fn a_shutdown_into_a_black_hole_ends_in_time() {
    use crate::support::{Mode, Proxy, shared_server, zookeeper};

    let server = shared_server().await;
    let store = Store::on(server, "black_hole");
    let proxy = Proxy::start(server.port()).await;
    let config = store.config_via(Faults::new(std::sync::Arc::new(zookeeper(&proxy.connect_string()))), "a");
    let baseline = alive_tasks();
    let coordinator = busy(config).await;
    // Requests arrive, replies do not: the server does not close the connection.
    proxy.set(Mode::SwallowToClient);
    let clock = store.connector().clock();
    let begin = clock.now();
    let outcome = coordinator.shutdown().await;
    let waited = clock.now().saturating_since(begin);
    assert!(matches!(outcome, Err(Error::Unreachable { .. })), "{outcome:?}");
    assert!(waited <= 3 * close_timeout(&store) + SECOND, "{waited:?}");
    drop(proxy);
    tasks_are_back_to(baseline, store.expiry() + SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_join_during_the_shutdown_is_refused() {
    let store = Store::memory();
    let coordinator = store.agent("a").await.coordinator;
    let group = coordinator.join("g").await.unwrap();
    let observer = store.session().await;
    let mut shutdown = pin!(coordinator.shutdown());
    let poll = shutdown.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(poll.is_pending(), "the leave takes a turn of the runtime");
    // As a loop does that evaluates once more.
    let error = coordinator.extract_my_subset("g", ["x"]).await.unwrap_err();
    assert!(matches!(error, Error::Closed { .. }), "{error}");
    shutdown.await.unwrap();
    assert!(observer.children(&store.path("g")).await.unwrap().0.is_empty());
    assert_eq!(group.view().standing(), Standing::Left);
}

#[tokio::test(start_paused = true)]
async fn no_task_survives_a_shutdown_that_the_backend_does_not_answer() {
    let (baseline, store) = (alive_tasks(), Store::memory());
    let (connector, hold) = Hold::on(store.ensemble());
    let coordinator = store.connect(connector, "a").await;
    let _group = coordinator.join("g").await.unwrap();
    hold.each(|request| *request == Request::Close);
    let ended = tokio::time::timeout(16 * SECOND, coordinator.shutdown()).await;
    assert!(ended.is_ok(), "it has to end whatever the backend does");
    assert_eq!(alive_tasks(), baseline);
}
