//! Connections that break: what becomes of sessions, watches and writes.

use std::{sync::Arc, time::Duration};

use apportion::backend::{CommitError, Connector, CreateMode, Error, Fired, Loss, Op, Session, SessionState};

use super::{create, open, proxied};
use crate::support::{Ensemble, MS, Mode, Proxy, SECOND, Server, eventually, path, shared_server, zookeeper};

async fn reaches(session: &Arc<dyn Session>, bound: Duration, wanted: impl Fn(SessionState) -> bool) {
    let mut state = session.state();
    let waited = tokio::time::timeout(bound, state.wait_for(|state| wanted(*state))).await;
    assert!(waited.is_ok(), "still {:?} after {bound:?}", session.state().borrow());
}

fn reconnected(state: SessionState) -> bool {
    matches!(state, SessionState::Connected { epoch: 2.. })
}

#[tokio::test]
async fn the_credentials_hold_after_a_reconnect() {
    let proxy = Proxy::start(shared_server().await.port()).await;
    let session =
        zookeeper(&proxy.connect_string()).digest("ember", "secret").open(5 * SECOND).await.unwrap();
    let node = path("/digest-again");
    create(&session, &node, CreateMode::Ephemeral).await;
    proxy.reset();
    reaches(&session, 3 * SECOND, reconnected).await;
    assert!(session.get(&node).await.unwrap().is_some());
}

#[tokio::test]
async fn a_watch_survives_a_reconnect_and_fires_for_a_change_in_the_gap() {
    let (proxy, session, other) = proxied(5 * SECOND).await;
    let (root, set, born) = (path("/gap"), path("/gap/set"), path("/gap/born"));
    create(&other, &root, CreateMode::Persistent).await;
    create(&other, &set, CreateMode::Persistent).await;
    let (names, _, mut children) = session.watch_children(&root).await.unwrap();
    assert_eq!(names, ["set"]);
    let (_, mut node) = session.watch_node(&set).await.unwrap();
    let (none, mut birth) = session.watch_node(&born).await.unwrap();
    assert_eq!(none, None);
    let (_, mut unchanged) = session.watch_node(&root).await.unwrap();

    proxy.set(Mode::Cut);
    reaches(&session, SECOND, |state| state == SessionState::Suspended).await;
    let ops = vec![Op::create(&born, b"", CreateMode::Persistent), Op::set(&set, b"new", None)];
    other.commit(ops).await.unwrap();
    proxy.set(Mode::Pass);

    let fired = async { [children.fired().await, node.fired().await, birth.fired().await] };
    let fired = tokio::time::timeout(5 * SECOND, fired).await.expect("all watches fire");
    assert_eq!(fired, [Fired::Changed; 3]);
    reaches(&session, Duration::ZERO, reconnected).await;

    let early = tokio::time::timeout(Duration::from_millis(50), unchanged.fired()).await;
    assert!(early.is_err(), "a watch fired without a change: {early:?}");
    other.commit(vec![Op::set(&root, b"", None)]).await.unwrap();
    assert_eq!(tokio::time::timeout(SECOND, unchanged.fired()).await, Ok(Fired::Changed));
}

/// A request on a connection that has just ended fails at once. If such a connection were given to a caller that tries
/// again, its loop would never yield, and no other task of the thread would open the next one.
#[test]
#[allow(clippy::disallowed_methods, reason = "a second runtime needs a thread, and has no owner of tasks")]
fn callers_that_try_again_at_once_do_not_keep_a_session_from_connecting_again() {
    let (done, is_done) = std::sync::mpsc::channel();
    // A loop that never yields stops all timers of its runtime, so the deadline is that of another thread.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (proxy, session, _) = proxied(5 * SECOND).await;
            let (root, reader) = (path("/"), session.clone());
            let reading = tokio::spawn(async move {
                let mut failures = 0;
                while !reconnected(*reader.state().borrow()) {
                    failures += u32::from(reader.get(&root).await.is_err());
                }
                failures
            });
            let watching = {
                let (root, session) = (path("/"), session.clone());
                let (_, mut watch) = session.watch_node(&root).await.unwrap();
                tokio::spawn(async move { watch.fired().await })
            };
            proxy.reset();
            reaches(&session, 3 * SECOND, reconnected).await;
            assert!(reading.await.unwrap() < 100, "it is told of each break once");
            watching.abort();
        });
        done.send(())
    });
    assert_eq!(is_done.recv_timeout(20 * SECOND), Ok(()), "the session does not connect again");
}

#[tokio::test]
async fn a_write_whose_reply_is_lost_is_unknown_and_may_have_been_applied() {
    let (proxy, session, other) = proxied(2 * SECOND).await;
    let node = path("/reply-lost");
    proxy.set(Mode::SwallowToClient);
    let error = session.commit(vec![Op::create(&node, b"", CreateMode::Ephemeral)]).await.unwrap_err();
    assert!(matches!(error, CommitError { index: None, error: Error::Unknown(_) }), "{error:?}");
    assert!(error.error.is_unknown());
    let (_, stat) = other.get(&node).await.unwrap().expect("the write was applied");
    assert_eq!(stat.ephemeral_owner, Some(session.id()));
    proxy.set(Mode::Pass);
    reaches(&session, 2 * SECOND, reconnected).await;
    assert!(session.get(&node).await.unwrap().is_some());
}

#[tokio::test]
async fn a_write_that_a_reset_interrupts_is_unknown() {
    let (proxy, session, other) = proxied(5 * SECOND).await;
    let node = path("/reset");
    proxy.set(Mode::SwallowToServer);
    let write = session.commit(vec![Op::create(&node, b"", CreateMode::Ephemeral)]);
    let cut = async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        proxy.set(Mode::Cut);
    };
    let (written, ()) = tokio::join!(write, cut);
    let error = written.unwrap_err();
    assert!(matches!(error, CommitError { index: None, error: Error::Unknown(_) }), "{error:?}");
    assert_eq!(other.get(&node).await, Ok(None));
}

#[tokio::test]
async fn silence_suspends_a_session_and_its_requests_wait_until_it_is_over() {
    let (proxy, session, _) = proxied(2 * SECOND).await;
    let node = path("/silence");
    create(&session, &node, CreateMode::Ephemeral).await;
    proxy.set(Mode::BlackHole);
    reaches(&session, SECOND, |state| state == SessionState::Suspended).await;
    let mut read = session.get(&node);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut read).await;
    assert!(early.is_err(), "a suspended session answered: {early:?}");
    proxy.set(Mode::Pass);
    let late = tokio::time::timeout(2 * SECOND, read).await.expect("it answers after the silence");
    assert!(late.unwrap().is_some(), "the session did not survive");
}

#[tokio::test]
async fn closing_a_suspended_session_ends_its_requests_at_once_and_gives_up_after_its_timeout() {
    let (proxy, session, _) = proxied(Duration::from_millis(800)).await;
    proxy.set(Mode::BlackHole);
    reaches(&session, SECOND, |state| state == SessionState::Suspended).await;
    let (root, closer) = (path("/"), session.clone());
    let read = session.get(&root);
    let close = async {
        tokio::time::sleep(Duration::from_millis(20)).await;
        tokio::time::timeout(2 * SECOND, closer.close()).await
    };
    tokio::pin!(close);
    let read = async { tokio::time::timeout(Duration::from_millis(200), read).await };
    let (read, closed) = tokio::join!(read, close);
    assert_eq!(read, Ok(Err(Error::Lost(Loss::Closed))));
    assert_eq!(closed, Ok(()));
    assert!(matches!(*session.state().borrow(), SessionState::Lost(_)));
}

#[tokio::test]
async fn a_session_that_is_out_of_contact_for_too_long_expires_with_its_znodes() {
    let (proxy, session, other) = proxied(Duration::from_millis(800)).await;
    let node = path("/expires");
    create(&session, &node, CreateMode::Ephemeral).await;
    let (_, mut watch) = session.watch_node(&node).await.unwrap();
    let (_, mut gone) = other.watch_node(&node).await.unwrap();
    proxy.set(Mode::Cut);
    assert_eq!(tokio::time::timeout(2 * SECOND, gone.fired()).await, Ok(Fired::Changed));
    assert_eq!(other.get(&node).await, Ok(None));
    proxy.set(Mode::Pass);
    reaches(&session, 2 * SECOND, |state| state == SessionState::Lost(Loss::Expired)).await;
    assert_eq!(tokio::time::timeout(SECOND, watch.fired()).await, Ok(Fired::Lost(Loss::Expired)));
    assert_eq!(session.get(&node).await, Err(Error::Lost(Loss::Expired)));
    session.close().await;
    assert_eq!(session.get(&node).await, Err(Error::Lost(Loss::Expired)));
}

#[tokio::test]
async fn a_session_and_its_znodes_survive_a_server_that_is_killed_and_started_again() {
    let mut server = Server::start().await;
    let session = open(&server.connect_string(), 5 * SECOND).await;
    let node = path("/survives");
    create(&session, &node, CreateMode::Ephemeral).await;
    server.kill();
    reaches(&session, SECOND, |state| state == SessionState::Suspended).await;
    server.restart().await;
    reaches(&session, 5 * SECOND, |state| state == SessionState::Connected { epoch: 2 }).await;
    let (_, stat) = session.get(&node).await.unwrap().expect("its znode is alive");
    assert_eq!(stat.ephemeral_owner, Some(session.id()));
}

#[tokio::test]
async fn behind_a_cut_follower_reads_still_answer_but_a_transaction_of_checks_does_not() {
    let ensemble = Ensemble::start(Duration::from_millis(100)).await;
    let (leader, follower) = (ensemble.leader().await, ensemble.followers().await[0]);
    let connector = zookeeper(&ensemble.server(follower).connect_string());
    // So short a time to open may be too short for servers that have just started.
    let opened = eventually("a session", 20 * SECOND, || async { connector.open(SECOND).await.ok() });
    let session = opened.await;
    let witness = open(&ensemble.server(leader).connect_string(), 10 * SECOND).await;
    let node = path("/cut");
    create(&session, &node, CreateMode::Ephemeral).await;
    witness.sync(&node).await.unwrap();
    let (_, mut gone) = witness.watch_node(&node).await.unwrap();
    session.commit(vec![Op::exists(&node)]).await.unwrap();

    ensemble.cut_from_leader(follower).await;
    assert_eq!(tokio::time::timeout(3 * SECOND, gone.fired()).await, Ok(Fired::Changed));
    assert!(session.get(&node).await.unwrap().is_some(), "the follower has noticed too early for this test");
    assert!(matches!(*session.state().borrow(), SessionState::Connected { .. }));
    let check = tokio::time::timeout(SECOND / 2, session.commit(vec![Op::exists(&node)])).await;
    assert!(!matches!(check, Ok(Ok(_))), "a check was confirmed for a session that has expired");

    ensemble.heal();
    reaches(&session, 10 * SECOND, |state| state == SessionState::Lost(Loss::Expired)).await;
}

#[tokio::test]
async fn a_server_that_opens_another_session_at_a_reconnect_has_ended_this_one() {
    let (proxy, session, other) = proxied(5 * SECOND).await;
    let node = path("/forgotten");
    create(&session, &node, CreateMode::Ephemeral).await;
    let (_, mut watch) = session.watch_node(&node).await.unwrap();
    proxy.set(Mode::Cut);
    proxy.set(Mode::Forget);
    reaches(&session, 3 * SECOND, |state| state == SessionState::Lost(Loss::Expired)).await;
    assert_eq!(tokio::time::timeout(SECOND, watch.fired()).await, Ok(Fired::Lost(Loss::Expired)));
    let write = session.commit(vec![Op::exists(&node)]).await;
    assert_eq!(write, Err(Error::Lost(Loss::Expired).into()), "it would be a write of the other session");
    let (_, stat) = other.get(&node).await.unwrap().expect("its session lives for a while");
    assert_eq!(stat.ephemeral_owner, Some(session.id()));
}

#[tokio::test]
async fn a_session_whose_server_does_not_reply_is_given_up_early_and_goes_on_if_it_is_refused() {
    for (mode, is_given_up) in [(Mode::SwallowToClient, true), (Mode::BlackHole, true), (Mode::Cut, false)] {
        let (proxy, session, _) = proxied(4 * SECOND).await;
        session.give_up_after(2 * SECOND);
        let mut state = session.state();
        let before = proxy.accepted();
        proxy.set(mode);
        let lost = state.wait_for(|state| matches!(state, SessionState::Lost(_)));
        let lost = tokio::time::timeout(3900 * MS, lost).await;
        assert_eq!(lost.is_ok(), is_given_up, "{mode:?}");
        let expected = if is_given_up { SessionState::Lost(Loss::Closed) } else { SessionState::Suspended };
        assert_eq!(*session.state().borrow(), expected, "{mode:?}");
        if is_given_up {
            assert_eq!(proxy.accepted() - before, 1, "{mode:?}: one attempt that may reach a server");
        }
    }
}

#[tokio::test]
async fn a_server_that_was_stopped_for_longer_than_the_validity_still_has_the_session() {
    let server = Server::start().await;
    let session = open(&server.connect_string(), 4 * SECOND).await;
    session.give_up_after(2 * SECOND);
    let node = path("/paused");
    create(&session, &node, CreateMode::Ephemeral).await;
    server.pause();
    tokio::time::sleep(3000 * MS).await;
    server.resume();
    reaches(&session, 2 * SECOND, reconnected).await;
    let (_, stat) = session.get(&node).await.unwrap().expect("its znode is alive");
    assert_eq!(stat.ephemeral_owner, Some(session.id()));
}
