//! The changes that fire a watch.

use super::place::{Place, Suite, cases, changed, commit, ephemeral, persistent, silent};
use crate::{
    backend::{Op, Session, Watch, path::ZnodePath},
    testing::{fired_by_now, in_time},
};

pub(super) async fn all(suite: &Suite) {
    cases!(
        suite,
        a_node_watch_fires_when_the_znode_is_created_set_or_deleted,
        a_node_watch_does_not_fire_for_children,
        a_children_watch_fires_when_a_child_comes_or_goes,
        a_children_watch_fires_when_the_parent_is_deleted,
        a_children_watch_does_not_fire_for_data,
        a_transaction_of_three_children_fires_a_children_watch_once,
        a_watch_fires_for_the_session_that_made_the_change,
        a_watch_fires_when_the_end_of_a_session_removes_its_znodes,
        all_watches_of_a_znode_fire,
        dropping_a_watch_leaves_the_others_armed,
        a_watch_that_was_polled_before_still_fires,
    );
}

async fn on_node(session: &dyn Session, path: &ZnodePath) -> Watch {
    let (_, watch) =
        in_time("watch_node", session.watch_node(path)).await.expect("a connected session watches");
    watch
}

async fn on_children(session: &dyn Session, path: &ZnodePath) -> Watch {
    let (.., watch) =
        in_time("watch_children", session.watch_children(path)).await.expect("a connected session watches");
    watch
}

async fn a_node_watch_fires_when_the_znode_is_created_set_or_deleted(place: &Place<'_>) {
    let watcher = place.open().await;
    let path = place.path("n");
    let changes =
        [persistent(&path), Op::set(&path, "x", None), Op::set(&path, "x", None), Op::delete(&path, None)];
    for change in changes {
        let mut watch = on_node(&*watcher, &path).await;
        place.commit(vec![change]).await;
        changed(&mut watch).await;
    }
}

async fn a_node_watch_does_not_fire_for_children(place: &Place<'_>) {
    let watcher = place.open().await;
    let mut watch = on_node(&*watcher, &place.at).await;
    let child = place.create("child").await;
    place.commit(vec![Op::set(&child, "x", None)]).await;
    place.commit(vec![Op::delete(&child, None)]).await;
    silent(&*watcher, &place.at, &mut watch).await;
    place.commit(vec![Op::set(&place.at, "x", None)]).await;
    changed(&mut watch).await;
}

async fn a_children_watch_fires_when_a_child_comes_or_goes(place: &Place<'_>) {
    let watcher = place.open().await;
    let path = place.path("child");
    for change in [persistent(&path), Op::delete(&path, None), ephemeral(&path)] {
        let mut watch = on_children(&*watcher, &place.at).await;
        place.commit(vec![change]).await;
        changed(&mut watch).await;
    }
}

async fn a_children_watch_fires_when_the_parent_is_deleted(place: &Place<'_>) {
    let watcher = place.open().await;
    let path = place.create("parent").await;
    let mut watch = on_children(&*watcher, &path).await;
    place.commit(vec![Op::delete(&path, None)]).await;
    changed(&mut watch).await;
}

async fn a_children_watch_does_not_fire_for_data(place: &Place<'_>) {
    let watcher = place.open().await;
    let child = place.create("child").await;
    let mut watch = on_children(&*watcher, &place.at).await;
    place.commit(vec![Op::set(&child, "x", None), Op::set(&place.at, "x", None)]).await;
    place.commit(vec![persistent(&child.join("grandchild").expect("a valid name"))]).await;
    silent(&*watcher, &place.at, &mut watch).await;
    place.create("another").await;
    changed(&mut watch).await;
}

async fn a_transaction_of_three_children_fires_a_children_watch_once(place: &Place<'_>) {
    let watcher = place.open().await;
    let mut first = on_children(&*watcher, &place.at).await;
    place.commit(["x", "y", "z"].map(|name| persistent(&place.path(name))).to_vec()).await;
    changed(&mut first).await;
    let (names, _, mut second) = watcher.watch_children(&place.at).await.expect("the place exists");
    assert_eq!(names.len(), 3, "a listing after a watch has fired shows the whole transaction");
    silent(&*watcher, &place.at, &mut second).await;
}

async fn a_watch_fires_for_the_session_that_made_the_change(place: &Place<'_>) {
    let path = place.path("n");
    let mut node = on_node(&*place.session, &path).await;
    let mut children = on_children(&*place.session, &place.at).await;
    place.commit(vec![persistent(&path)]).await;
    changed(&mut node).await;
    changed(&mut children).await;
}

async fn a_watch_fires_when_the_end_of_a_session_removes_its_znodes(place: &Place<'_>) {
    let other = place.open().await;
    let path = place.path("passing");
    commit(&*other, vec![ephemeral(&path)]).await;
    let mut node = on_node(&*place.session, &path).await;
    let mut children = on_children(&*place.session, &place.at).await;
    in_time("closing", other.close()).await;
    changed(&mut node).await;
    changed(&mut children).await;
}

async fn all_watches_of_a_znode_fire(place: &Place<'_>) {
    let other = place.open().await;
    let path = place.create("n").await;
    let mut watches = Vec::new();
    for session in [&*place.session, &*place.session, &*other] {
        watches.push(on_node(session, &path).await);
        watches.push(on_children(session, &path).await);
    }
    place.commit(vec![Op::delete(&path, None)]).await;
    for watch in &mut watches {
        changed(watch).await;
    }
}

async fn dropping_a_watch_leaves_the_others_armed(place: &Place<'_>) {
    let path = place.create("n").await;
    let dropped = [on_node(&*place.session, &path).await, on_children(&*place.session, &path).await];
    let mut node = on_node(&*place.session, &path).await;
    let mut children = on_children(&*place.session, &path).await;
    drop(dropped);
    place.commit(vec![persistent(&path.join("child").expect("a valid name"))]).await;
    changed(&mut children).await;
    place.commit(vec![Op::set(&path, "x", None)]).await;
    changed(&mut node).await;
}

async fn a_watch_that_was_polled_before_still_fires(place: &Place<'_>) {
    let mut watch = on_children(&*place.session, &place.at).await;
    for _ in 0..3 {
        assert_eq!(fired_by_now(&mut watch).await, None);
    }
    place.create("child").await;
    changed(&mut watch).await;
}
