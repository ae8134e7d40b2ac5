//! The effects of a commit.

use super::place::{Place, Suite, cases, commit, ephemeral, get, persistent, silent, stat};
use crate::{
    backend::{CreateMode, Done, Error, MAX_REQUEST_BYTES, Op, path::ZnodePath},
    testing::in_time,
};

pub(super) async fn all(suite: &Suite) {
    cases!(
        suite,
        operations_apply_in_order_each_on_top_of_the_ones_before,
        a_refused_transaction_leaves_no_trace_and_names_the_operation,
        an_existing_znode_is_not_created_and_one_with_children_is_not_deleted,
        an_empty_transaction_is_done,
        checks_alone_change_nothing,
        create_and_set_yield_the_true_creation,
        a_transaction_has_one_zxid_and_later_ones_have_higher,
        of_two_creates_at_once_one_wins,
        an_ephemeral_znode_is_taken_over_in_one_transaction,
        a_request_up_to_the_limit_goes_through,
        a_request_over_the_limit_is_refused_unsent,
    );
}

fn below(path: &ZnodePath, name: &str) -> ZnodePath {
    path.join(name).expect("the cases use valid names")
}

async fn operations_apply_in_order_each_on_top_of_the_ones_before(place: &Place<'_>) {
    let a = place.path("a");
    let b = below(&a, "b");
    let done = place
        .commit(vec![
            persistent(&a),
            persistent(&b),
            Op::set(&a, "one", Some(0)),
            Op::set(&a, "two", Some(1)),
            Op::Check { path: a.clone(), version: Some(2) },
            Op::delete(&b, Some(0)),
        ])
        .await;
    let [
        Done::Created(first),
        Done::Created(second),
        Done::Set(one),
        Done::Set(two),
        Done::Checked,
        Done::Deleted,
    ] = &done[..]
    else {
        panic!("one result of the right kind for each operation, not {done:?}");
    };
    assert_eq!((first, second), (&a, &b));
    assert_eq!((one.version, two.version), (1, 2));
    let (data, stat) = get(&*place.session, &a).await.expect("it was created");
    assert_eq!((data, stat.version, stat.num_children, stat.cversion), (b"two".to_vec(), 2, 0, 2));
}

async fn a_refused_transaction_leaves_no_trace_and_names_the_operation(place: &Place<'_>) {
    let (kept, fresh, missing) = (place.create("kept").await, place.path("fresh"), place.path("missing"));
    let before = (place.stat(&place.at).await, get(&*place.session, &kept).await);
    let (.., mut children) = place.session.watch_children(&place.at).await.expect("the place exists");
    let (_, mut node) = place.session.watch_node(&kept).await.expect("a connected session watches");
    let ops = |last: Op| {
        vec![
            Op::set(&kept, "changed", Some(0)),
            persistent(&fresh),
            ephemeral(&below(&fresh, "child")),
            Op::delete(&below(&fresh, "child"), None),
            Op::delete(&kept, Some(1)),
            persistent(&kept),
            last,
        ]
    };
    place.refused(ops(Op::exists(&missing)), 6, Error::NoNode).await;
    place.refused(ops(persistent(&fresh)), 6, Error::NodeExists).await;
    place.refused(ops(Op::set(&kept, "", Some(1))), 6, Error::BadVersion).await;
    place.refused(ops(Op::delete(&place.at, None)), 6, Error::NotEmpty).await;
    place.refused(vec![Op::delete(&kept, None), Op::exists(&missing)], 1, Error::NoNode).await;
    let two_reasons = vec![Op::delete(&kept, Some(9)), Op::exists(&missing)];
    place.refused(two_reasons, 0, Error::BadVersion).await;
    assert_eq!((place.stat(&place.at).await, get(&*place.session, &kept).await), before);
    assert_eq!(get(&*place.session, &fresh).await, None);
    silent(&*place.session, &place.at, &mut children).await;
    silent(&*place.session, &kept, &mut node).await;
}

async fn an_existing_znode_is_not_created_and_one_with_children_is_not_deleted(place: &Place<'_>) {
    let path = place.create("n").await;
    place.refused(vec![persistent(&path)], 0, Error::NodeExists).await;
    place.refused(vec![Op::exists(&path), ephemeral(&path)], 1, Error::NodeExists).await;
    place.refused(vec![Op::delete(&place.at, None)], 0, Error::NotEmpty).await;
    place.refused(vec![Op::delete(&place.at, Some(5))], 0, Error::BadVersion).await;
    place.commit(vec![Op::delete(&path, None), persistent(&path)]).await;
}

async fn an_empty_transaction_is_done(place: &Place<'_>) {
    let before = place.stat(&place.at).await;
    assert!(place.commit(Vec::new()).await.is_empty());
    assert_eq!(place.stat(&place.at).await, before);
}

async fn checks_alone_change_nothing(place: &Place<'_>) {
    let path = place.create("n").await;
    let before = (place.stat(&place.at).await, place.stat(&path).await);
    let (.., mut children) = place.session.watch_children(&place.at).await.expect("the place exists");
    let (_, mut node) = place.session.watch_node(&path).await.expect("a connected session watches");
    let checks = || vec![Op::exists(&place.at), Op::Check { path: path.clone(), version: Some(0) }];
    assert_eq!(place.commit(checks()).await, [Done::Checked, Done::Checked]);
    assert_eq!(place.commit(vec![Op::exists(&path)]).await, [Done::Checked]);
    assert_eq!((place.stat(&place.at).await, place.stat(&path).await), before);
    silent(&*place.session, &place.at, &mut children).await;
    silent(&*place.session, &path, &mut node).await;
}

async fn create_and_set_yield_the_true_creation(place: &Place<'_>) {
    let path = place.path("member");
    let done =
        place.commit(vec![Op::exists(&place.at), ephemeral(&path), Op::set(&path, "x", Some(0))]).await;
    let [Done::Checked, Done::Created(_), Done::Set(set)] = &done[..] else { panic!("{done:?}") };
    let read = place.stat(&path).await;
    assert_eq!(*set, read);
    assert_eq!((set.czxid, set.mzxid, set.version, set.data_length), (read.czxid, read.czxid, 1, 1));
    assert_eq!(set.ephemeral_owner, Some(place.session.id()));
    assert_eq!(set.czxid, place.stat(&place.at).await.pzxid, "it is the last change among its siblings");
}

async fn a_transaction_has_one_zxid_and_later_ones_have_higher(place: &Place<'_>) {
    let (a, b, c) = (place.create("a").await, place.path("b"), place.path("c"));
    place.commit(vec![persistent(&b), Op::set(&a, "x", None), persistent(&below(&b, "child"))]).await;
    let (first, second) = (place.stat(&a).await, place.stat(&b).await);
    assert!(first.czxid < second.czxid);
    assert_eq!([first.mzxid, second.pzxid], [second.czxid; 2]);
    place.commit(vec![persistent(&c)]).await;
    assert!(second.czxid < place.stat(&c).await.czxid);
}

async fn of_two_creates_at_once_one_wins(place: &Place<'_>) {
    let other = place.open().await;
    for round in 0..10 {
        let path = place.path(&format!("lock-{round}"));
        let (mine, theirs) =
            tokio::join!(place.session.commit(vec![ephemeral(&path)]), other.commit(vec![ephemeral(&path)]));
        let winner = match (mine, theirs) {
            (Ok(_), Err(error)) if error.error == Error::NodeExists => place.session.id(),
            (Err(error), Ok(_)) if error.error == Error::NodeExists => other.id(),
            both => panic!("one wins and the other gets `NodeExists`, not {both:?}"),
        };
        assert_eq!(place.stat(&path).await.ephemeral_owner, Some(winner));
    }
}

async fn an_ephemeral_znode_is_taken_over_in_one_transaction(place: &Place<'_>) {
    let other = place.open().await;
    let path = place.path("member");
    commit(&*other, vec![Op::create(&path, "theirs", CreateMode::Ephemeral)]).await;
    let theirs = stat(&*other, &path).await;
    place.commit(vec![Op::delete(&path, Some(0)), Op::create(&path, "mine", CreateMode::Ephemeral)]).await;
    in_time("closing", other.close()).await;
    let (data, mine) =
        get(&*place.session, &path).await.expect("the end of the old owner does not delete it");
    assert_eq!((data.as_slice(), mine.ephemeral_owner), (&b"mine"[..], Some(place.session.id())));
    assert!(mine.czxid > theirs.czxid);
}

/// The bytes that names, versions and frames of one operation may need.
const ROOM: usize = 4096;

async fn a_request_up_to_the_limit_goes_through(place: &Place<'_>) {
    let path = place.path("large");
    let data = vec![7; MAX_REQUEST_BYTES - ROOM];
    place.commit(vec![Op::create(&path, data.clone(), CreateMode::Persistent)]).await;
    let (read, _) = get(&*place.session, &path).await.expect("it was created");
    assert!(read == data, "{} bytes came back as {} others", data.len(), read.len());
}

async fn a_request_over_the_limit_is_refused_unsent(place: &Place<'_>) {
    let before = *place.session.state().borrow();
    let (a, b) = (place.path("a"), place.path("b"));
    let half = || vec![7; MAX_REQUEST_BYTES / 2];
    let together =
        vec![Op::create(&a, half(), CreateMode::Persistent), Op::create(&b, half(), CreateMode::Persistent)];
    let alone = vec![Op::set(&place.at, vec![7; MAX_REQUEST_BYTES], None)];
    for ops in [together, alone] {
        let refused = in_time("a commit", place.session.commit(ops)).await.expect_err("it is too large");
        assert_eq!(refused.index, None, "the request as a whole is too large");
        assert!(
            matches!(refused.error, Error::TooLarge { bytes, .. } if bytes > MAX_REQUEST_BYTES),
            "{refused} is not the error for a large request"
        );
    }
    assert_eq!(get(&*place.session, &a).await, None);
    assert_eq!(*place.session.state().borrow(), before, "the connection was not put at risk");
}
