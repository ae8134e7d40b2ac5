//! Registered conductors: whose they are, and that they go with the board.

use apportion::backend::Error as BackendError;
use serde_json::json;

use super::*;
use crate::support::{
    fate::{Fate, Fates},
    fleet::exists,
    hold::Hold,
    path, soon,
};

fn entity(name: &str) -> ZnodePath {
    path(&format!("/board-fleet/.entities/conductor/{name}"))
}

#[tokio::test(start_paused = true)]
async fn a_name_that_a_session_has_which_denies_it_to_others_is_taken() {
    let store = Store::memory();
    let (_other, theirs) = worker(&store, "b").await;
    theirs.register_entity("conductor", "me", json!({})).await.unwrap();
    let (_coordinator, ours, fates) = fated(&store).await;
    fates.decide(|request| match request {
        apportion::testing::Request::Get(at) if **at == entity("me") => {
            Fate::Refuse(BackendError::NotPermitted)
        }
        _ => Fate::Pass,
    });
    let registered = tokio::time::timeout(TIMEOUT, ours.register_entity("conductor", "me", json!({}))).await;
    let taken = registered.expect("it comes to an end");
    assert!(matches!(taken, Err(BoardError::EntityTaken { .. })), "{taken:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_being_registered_again_goes_with_the_board() {
    let store = Store::memory();
    let (coordinator, board, fates) = fated(&store).await;
    board.register_entity("conductor", "me", json!({})).await.unwrap();
    let session = store.session().await;
    fates.decide(|request| match request {
        request if request.is_write() && *request.paths()[0] == entity("me") => Fate::Late(5 * SECOND),
        _ => Fate::Pass,
    });
    store.ensemble().expire(coordinator.session_id().unwrap());
    assert!(!exists(&*session, &entity("me")).await);
    let back = || async { exists(&*session, &entity("me")).await.then_some(()) };
    eventually("registered again", TIMEOUT, back).await;
    board.close().await;
    assert!(!exists(&*session, &entity("me")).await, "no process serves the board");
    assert!(coordinator.session_id().is_some());
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_while_the_board_is_closed_does_not_stay() {
    let store = Store::memory();
    let (_coordinator, board, fates) = fated(&store).await;
    fates.decide(|request| match request {
        request if request.is_write() && request.paths().contains(&&entity("me")) => Fate::Late(5 * SECOND),
        _ => Fate::Pass,
    });
    let session = store.session().await;
    let (registered, ()) = tokio::join!(soon(board.register_entity("conductor", "me", json!({}))), async {
        let there = || async { exists(&*session, &entity("me")).await.then_some(()) };
        eventually("registered", TIMEOUT, there).await;
        board.close().await;
    });
    assert!(matches!(registered, Err(BoardError::Closed { .. })), "{registered:?}");
    let gone = || async { (!exists(&*session, &entity("me")).await).then_some(()) };
    eventually("gone", TIMEOUT, gone).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_while_the_session_ends_is_registered_in_the_next_one() {
    let store = Store::memory();
    let (connector, fates) = Fates::on(store.ensemble());
    let coordinator = store.connect(connector, "a").await;
    let board = coordinator.job_board(place(&store)).await.unwrap();
    // So that the folder exists.
    board.register_entity("conductor", "other", json!({})).await.unwrap();
    let session = store.session().await;
    let mut is_late = false;
    fates.decide(move |request| match request {
        request if request.is_write() && *request.paths()[0] == entity("me") && !is_late => {
            is_late = true;
            Fate::Late(5 * SECOND)
        }
        _ => Fate::Pass,
    });
    let (registered, ()) = tokio::join!(board.register_entity("conductor", "me", json!({})), async {
        tokio::time::sleep(SECOND).await;
        store.ensemble().expire(coordinator.session_id().unwrap());
    });
    registered.unwrap();
    let back = || async { exists(&*session, &entity("me")).await.then_some(()) };
    eventually("registered in the next session", TIMEOUT, back).await;
}

#[tokio::test(start_paused = true)]
async fn closing_a_board_unregisters_its_entities_although_the_connection_breaks_at_that_moment() {
    for reply_is_lost in [false, true] {
        let store = Store::memory();
        let (connector, fates) = Fates::on(store.ensemble());
        let coordinator = store.connect(connector, "a").await;
        let board = coordinator.job_board(place(&store)).await.unwrap();
        board.register_entity("conductor", "me", json!({})).await.unwrap();
        board.post("x").await.unwrap();
        let mut broken = 0;
        fates.decide(move |request| {
            let is_theirs = request.paths().iter().any(|path| path.as_str().contains("/."));
            if !is_theirs || broken == 6 {
                return Fate::Pass;
            }
            broken += 1;
            let error = BackendError::Unknown("the connection broke".into());
            if reply_is_lost { Fate::LoseReply } else { Fate::Refuse(error) }
        });
        soon(board.close()).await;
        let observer = store.session().await;
        assert!(!exists(&*observer, &entity("me")).await);
        let receipts = path("/board-fleet/.posting");
        let gone = || async { children(&*observer, &receipts).await.is_empty().then_some(()) };
        eventually("the receipts are gone, too", TIMEOUT, gone).await;
        // The session is still the same one.
        assert!(coordinator.extract_my_subset("group", ["a"]).await.is_ok());
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_unregistered_before_the_store_has_registered_it_does_not_stay() {
    let store = Store::memory();
    let (connector, hold) = Hold::on(store.ensemble());
    let coordinator = store.connect(connector, "a").await;
    let board = coordinator.job_board(place(&store)).await.unwrap();
    let mut held = hold.after(0, |request| request.is_write() && request.paths().contains(&&entity("me")));
    let (registered, ()) = tokio::join!(soon(board.register_entity("conductor", "me", json!({}))), async {
        held.reached().await;
        tokio::join!(soon(board.unregister_entity("conductor", "me")), async { held.release() });
    });
    registered.unwrap();
    let session = store.session().await;
    assert!(!exists(&*session, &entity("me")).await);
    store.ensemble().expire(coordinator.session_id().unwrap());
    tokio::time::sleep(TIMEOUT).await;
    assert!(!exists(&*session, &entity("me")).await, "nor in the next session");
    soon(board.register_entity("conductor", "me", json!({}))).await.unwrap();
    assert!(exists(&*session, &entity("me")).await, "it can be registered later");
}

#[tokio::test(start_paused = true)]
async fn what_is_registered_again_while_the_store_unregisters_it_stays() {
    let store = Store::memory();
    let (connector, hold) = Hold::on(store.ensemble());
    let coordinator = store.connect(connector, "a").await;
    let board = coordinator.job_board(place(&store)).await.unwrap();
    board.register_entity("conductor", "me", json!({})).await.unwrap();
    let mut held = hold.after(0, |request| request.is_write() && request.paths().contains(&&entity("me")));
    let unregistered = soon(board.unregister_entity("conductor", "me"));
    let ((), registered) = tokio::join!(unregistered, async {
        held.reached().await;
        let registered = soon(board.register_entity("conductor", "me", json!({})));
        tokio::join!(registered, async { held.release() }).0
    });
    registered.unwrap();
    assert!(exists(&*store.session().await, &entity("me")).await);
}
