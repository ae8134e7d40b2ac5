//! How sessions begin and end.

use std::{sync::Arc, time::Duration};

use super::place::{Place, Suite, cases, commit, ephemeral, get, gone, persistent};
use crate::{
    backend::{Error, Fired, Loss, Op, SessionState},
    testing::in_time,
};

pub(super) async fn all(suite: &Suite) {
    cases!(
        suite,
        every_open_gives_a_new_session,
        closing_a_session_removes_its_ephemeral_znodes_and_no_others,
        dropping_the_last_handle_closes_the_session,
        a_closed_session_reports_that_it_is_lost,
        a_session_can_be_closed_twice,
        closing_one_session_does_not_affect_the_others,
        the_watches_of_a_closed_session_report_that_it_is_lost,
    );
}

async fn every_open_gives_a_new_session(place: &Place<'_>) {
    let other = place.open().await;
    assert_ne!(place.session.id(), other.id());
    for session in [&place.session, &other] {
        assert!(matches!(*session.state().borrow(), SessionState::Connected { epoch: 1.. }), "{session:?}");
        assert!(session.timeout() > Duration::ZERO, "a session has a timeout");
    }
    let (first, id) = (other.id(), other.id());
    other.close().await;
    let third = place.open().await;
    assert_ne!(third.id(), id, "ids are never used again");
    assert_eq!(other.id(), first, "a closed session keeps its id");
}

async fn closing_a_session_removes_its_ephemeral_znodes_and_no_others(place: &Place<'_>) {
    let other = place.open().await;
    let (passing, staying, mine) = (place.path("passing"), place.path("staying"), place.path("mine"));
    commit(&*other, vec![ephemeral(&passing), persistent(&staying)]).await;
    place.commit(vec![ephemeral(&mine)]).await;
    assert!(get(&*other, &passing).await.is_some());
    in_time("closing", other.close()).await;
    in_time("a sync", place.session.sync(&passing)).await.expect("a connected session syncs");
    assert!(get(&*place.session, &passing).await.is_none(), "gone when `close` returns");
    assert!(get(&*place.session, &staying).await.is_some());
    assert!(get(&*place.session, &mine).await.is_some());
}

async fn dropping_the_last_handle_closes_the_session(place: &Place<'_>) {
    let other = place.open().await;
    let path = place.path("passing");
    commit(&*other, vec![ephemeral(&path)]).await;
    let second_handle = Arc::clone(&other);
    drop(other);
    commit(&*second_handle, vec![Op::exists(&path)]).await;
    drop(second_handle);
    gone(&*place.session, &path).await;
}

async fn a_closed_session_reports_that_it_is_lost(place: &Place<'_>) {
    let other = place.open().await;
    let mut state = other.state();
    in_time("closing", other.close()).await;
    let over = SessionState::Lost(Loss::Closed);
    let seen = in_time("the final state", state.wait_for(|state| *state == over)).await.is_ok();
    assert!(seen, "the last state of a closed session is `Lost(Closed)`");
    assert_eq!(*other.state().borrow(), over, "also for later calls");
    let lost = Error::Lost(Loss::Closed);
    let at = &place.at;
    assert_eq!(in_time("get", other.get(at)).await, Err(lost.clone()));
    assert_eq!(in_time("get_many", other.get_many(std::slice::from_ref(at))).await, Err(lost.clone()));
    assert_eq!(in_time("children", other.children(at)).await, Err(lost.clone()));
    assert_eq!(in_time("watch_node", other.watch_node(at)).await.err(), Some(lost.clone()));
    assert_eq!(in_time("watch_children", other.watch_children(at)).await.err(), Some(lost.clone()));
    assert_eq!(in_time("sync", other.sync(at)).await, Err(lost.clone()));
    let refused = in_time("commit", other.commit(vec![Op::exists(at)])).await;
    assert_eq!(refused, Err(lost.into()));
}

async fn a_session_can_be_closed_twice(place: &Place<'_>) {
    let other = place.open().await;
    in_time("closing", other.close()).await;
    in_time("closing again", other.close()).await;
    assert_eq!(*other.state().borrow(), SessionState::Lost(Loss::Closed));
}

async fn closing_one_session_does_not_affect_the_others(place: &Place<'_>) {
    let epoch = *place.session.state().borrow();
    in_time("closing", place.open().await.close()).await;
    place.commit(vec![Op::exists(&place.at)]).await;
    assert_eq!(*place.session.state().borrow(), epoch);
}

async fn the_watches_of_a_closed_session_report_that_it_is_lost(place: &Place<'_>) {
    let other = place.open().await;
    let (_, mut node) = other.watch_node(&place.at).await.expect("a connected session watches");
    let (.., mut children) = other.watch_children(&place.at).await.expect("a connected session watches");
    in_time("closing", other.close()).await;
    for watch in [&mut node, &mut children] {
        assert_eq!(in_time("a watch", watch.fired()).await, Fired::Lost(Loss::Closed));
    }
}
