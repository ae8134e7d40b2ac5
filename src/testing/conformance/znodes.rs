//! The data and stats of znodes, and how they are read.

use super::place::{Place, Suite, cases, commit, ephemeral, get, persistent, stat};
use crate::{
    backend::{CreateMode, Done, Error, Op, Stat, path::ZnodePath},
    testing::in_time,
};

pub(super) async fn all(suite: &Suite) {
    cases!(
        suite,
        a_znode_is_read_as_it_was_written,
        a_name_may_have_all_characters_that_a_path_accepts,
        a_missing_znode_is_none_or_no_node,
        many_znodes_are_returned_in_the_order_of_the_request,
        children_come_with_the_stat_of_their_parent,
        versions_count_the_sets,
        the_children_version_counts_creates_and_deletes,
        only_creates_and_deletes_of_children_move_pzxid,
        sequence_numbers_count_all_creates_under_the_parent,
        an_ephemeral_znode_names_its_owner,
        an_ephemeral_znode_has_no_children,
        the_root_is_neither_created_nor_deleted,
        after_a_sync_a_session_sees_what_others_wrote,
    );
}

async fn a_znode_is_read_as_it_was_written(place: &Place<'_>) {
    let path = place.path("n");
    let every_byte: Vec<u8> = (0..=255).collect();
    place.commit(vec![Op::create(&path, every_byte.clone(), CreateMode::Persistent)]).await;
    let (data, stat) = get(&*place.session, &path).await.expect("it was created");
    assert_eq!(data, every_byte);
    assert_eq!((stat.version, stat.cversion, stat.num_children, stat.data_length), (0, 0, 0, 256));
    assert_eq!(stat.ephemeral_owner, None);
    assert!(stat.czxid > 0);
    assert_eq!((stat.mzxid, stat.pzxid), (stat.czxid, stat.czxid), "one transaction did it all");
    place.commit(vec![Op::set(&path, "", None)]).await;
    let (data, stat) = get(&*place.session, &path).await.expect("it is still there");
    assert!(data.is_empty() && stat.data_length == 0, "no data is data");
}

async fn a_name_may_have_all_characters_that_a_path_accepts(place: &Place<'_>) {
    let mut expected = Vec::new();
    for name in ["alarm evaluator", "a%2Fb", "группа", "組", "b'id'", "...", "0000000007"] {
        place.create(name).await;
        expected.push(name.to_owned());
    }
    let (mut names, _) = place.session.children(&place.at).await.expect("the place exists");
    names.sort_unstable();
    expected.sort_unstable();
    assert_eq!(names, expected);
}

async fn a_missing_znode_is_none_or_no_node(place: &Place<'_>) {
    let missing = place.path("missing");
    let below = missing.join("child").expect("a valid name");
    assert_eq!(get(&*place.session, &missing).await, None);
    assert_eq!(in_time("children", place.session.children(&missing)).await, Err(Error::NoNode));
    let watched = in_time("watch_children", place.session.watch_children(&missing)).await;
    assert_eq!(watched.err(), Some(Error::NoNode));
    let watched = in_time("watch_node", place.session.watch_node(&missing)).await;
    assert_eq!(watched.map(|(stat, _)| stat), Ok(None));
    place.refused(vec![persistent(&below)], 0, Error::NoNode).await;
    place.refused(vec![Op::set(&missing, "", None)], 0, Error::NoNode).await;
    place.refused(vec![Op::delete(&missing, None)], 0, Error::NoNode).await;
    place.refused(vec![Op::exists(&missing)], 0, Error::NoNode).await;
    place.refused(vec![Op::Check { path: missing, version: Some(0) }], 0, Error::NoNode).await;
}

async fn many_znodes_are_returned_in_the_order_of_the_request(place: &Place<'_>) {
    let paths = ["c", "missing", "a", "b", "a"].map(|name| place.path(name));
    for name in ["a", "b", "c"] {
        let path = place.path(name);
        place.commit(vec![Op::create(&path, name, CreateMode::Persistent)]).await;
    }
    let found = in_time("get_many", place.session.get_many(&paths)).await.expect("a connected session reads");
    let data: Vec<_> = found.iter().map(|found| found.as_ref().map(|(data, _)| data.as_slice())).collect();
    assert_eq!(data, [Some(&b"c"[..]), None, Some(b"a"), Some(b"b"), Some(b"a")]);
    for (path, found) in paths.iter().zip(&found) {
        assert_eq!(*found, get(&*place.session, path).await, "as `get` has it");
    }
    let none = in_time("get_many", place.session.get_many(&[])).await;
    assert_eq!(none, Ok(Vec::new()));
}

async fn children_come_with_the_stat_of_their_parent(place: &Place<'_>) {
    for name in ["x", "y", "z"] {
        place.create(name).await;
    }
    let (mut names, listed) = place.session.children(&place.at).await.expect("the place exists");
    names.sort_unstable();
    assert_eq!(names, ["x", "y", "z"]);
    assert_eq!(listed, place.stat(&place.at).await);
    assert_eq!(listed.num_children, 3);
    let (mut names, watched, _) = place.session.watch_children(&place.at).await.expect("the place exists");
    names.sort_unstable();
    assert_eq!((names.join(""), watched), ("xyz".into(), listed));
}

async fn versions_count_the_sets(place: &Place<'_>) {
    let path = place.create("n").await;
    let created = place.stat(&path).await;
    let mut last = created;
    for version in 0..3 {
        let done = place.commit(vec![Op::set(&path, "x", Some(version))]).await;
        let [Done::Set(after)] = done[..] else { panic!("a set answers with a stat, not {done:?}") };
        assert_eq!(after, place.stat(&path).await, "the stat is the one after the change");
        assert_eq!(after.version, version + 1);
        assert!(after.mzxid > last.mzxid);
        assert_eq!((after.czxid, after.pzxid), (created.czxid, created.pzxid));
        last = after;
    }
    place.refused(vec![Op::set(&path, "", Some(2))], 0, Error::BadVersion).await;
    place.refused(vec![Op::delete(&path, Some(4))], 0, Error::BadVersion).await;
    place.refused(vec![Op::Check { path: path.clone(), version: Some(0) }], 0, Error::BadVersion).await;
    place.commit(vec![Op::Check { path: path.clone(), version: Some(3) }]).await;
    place.commit(vec![Op::delete(&path, Some(3))]).await;
    place.create("n").await;
    assert_eq!(place.stat(&path).await.version, 0, "a znode that is created again starts again");
}

async fn the_children_version_counts_creates_and_deletes(place: &Place<'_>) {
    let (a, b) = (place.create("a").await, place.create("b").await);
    assert_eq!(place.stat(&place.at).await.cversion, 2);
    place.commit(vec![Op::delete(&a, None)]).await;
    assert_eq!(place.stat(&place.at).await.cversion, 3);
    place.commit(vec![Op::set(&b, "x", None), Op::set(&place.at, "x", None)]).await;
    assert_eq!(place.stat(&place.at).await.cversion, 3, "data does not count");
    place.commit(vec![Op::delete(&b, None), persistent(&b), Op::delete(&b, None)]).await;
    let end = place.stat(&place.at).await;
    assert_eq!((end.cversion, end.num_children), (6, 0));
}

async fn only_creates_and_deletes_of_children_move_pzxid(place: &Place<'_>) {
    let before = place.stat(&place.at).await.pzxid;
    let child = place.create("child").await;
    let joined = place.stat(&place.at).await;
    assert!(joined.pzxid > before);
    assert_eq!(joined.pzxid, place.stat(&child).await.czxid, "the transaction that created the child");
    let grandchild = child.join("grandchild").expect("a valid name");
    place
        .commit(vec![Op::set(&child, "x", None), Op::set(&place.at, "x", None), persistent(&grandchild)])
        .await;
    assert_eq!(place.stat(&place.at).await.pzxid, joined.pzxid, "neither data nor grandchildren count");
    let other = place.open().await;
    in_time("a sync", other.sync(&place.at)).await.expect("a connected session syncs");
    assert_eq!(stat(&*other, &place.at).await.pzxid, joined.pzxid, "all sessions read the same");
    let member = place.path("member");
    commit(&*other, vec![ephemeral(&member)]).await;
    let with_member = place_pzxid(place).await;
    assert!(with_member > joined.pzxid);
    in_time("closing", other.close()).await;
    assert!(place_pzxid(place).await > with_member, "the end of a session is a change, too");
    let now = place_pzxid(place).await;
    place.commit(vec![Op::delete(&grandchild, None), Op::delete(&child, None)]).await;
    assert!(place_pzxid(place).await > now);
}

async fn place_pzxid(place: &Place<'_>) -> i64 {
    in_time("a sync", place.session.sync(&place.at)).await.expect("a connected session syncs");
    place.stat(&place.at).await.pzxid
}

async fn sequence_numbers_count_all_creates_under_the_parent(place: &Place<'_>) {
    let path = place.path("n-");
    let numbered = |number: &str| Done::Created(place.path(&format!("n-{number}")));
    let sequential = |mode| Op::create(&path, "", mode);
    let first = place.commit(vec![sequential(CreateMode::PersistentSequential)]).await;
    assert_eq!(first, [numbered("0000000000")]);
    let plain = place.create("plain").await;
    place.commit(vec![ephemeral(&place.path("passing"))]).await;
    let fourth = place.commit(vec![sequential(CreateMode::EphemeralSequential)]).await;
    assert_eq!(fourth, [numbered("0000000003")], "creates of any kind count");
    place.commit(vec![Op::delete(&plain, None)]).await;
    place.commit(vec![Op::set(&place.at, "x", None)]).await;
    let missing = place.path("missing");
    let doomed = vec![sequential(CreateMode::PersistentSequential), Op::exists(&missing)];
    place.refused(doomed, 1, Error::NoNode).await;
    place.refused(vec![persistent(&place.path("passing"))], 0, Error::NodeExists).await;
    let two = vec![
        sequential(CreateMode::PersistentSequential),
        persistent(&plain),
        sequential(CreateMode::EphemeralSequential),
    ];
    let done = place.commit(two).await;
    let expected = [numbered("0000000004"), Done::Created(plain), numbered("0000000006")];
    assert_eq!(done, expected, "deletes and refused transactions do not count");
}

async fn an_ephemeral_znode_names_its_owner(place: &Place<'_>) {
    let other = place.open().await;
    let (plain, numbered) = (place.path("plain"), place.path("numbered-"));
    let done =
        commit(&*other, vec![ephemeral(&plain), Op::create(&numbered, "", CreateMode::EphemeralSequential)])
            .await;
    let owner = |stat: Stat| stat.ephemeral_owner;
    for done in done {
        let Done::Created(path) = done else { panic!("a create answers with a path, not {done:?}") };
        assert_eq!(owner(stat(&*other, &path).await), Some(other.id()));
    }
    let (_, listed) = other.children(&plain).await.expect("it exists");
    assert_eq!(owner(listed), Some(other.id()));
    commit(&*other, vec![Op::set(&plain, "x", None)]).await;
    assert_eq!(owner(stat(&*other, &plain).await), Some(other.id()));
    let mine = place.path("mine");
    place.commit(vec![ephemeral(&mine)]).await;
    assert_eq!(owner(place.stat(&mine).await), Some(place.session.id()));
}

async fn an_ephemeral_znode_has_no_children(place: &Place<'_>) {
    let path = place.path("passing");
    let child = path.join("child").expect("a valid name");
    place.commit(vec![ephemeral(&path)]).await;
    place.refused(vec![persistent(&child)], 0, Error::EphemeralParent).await;
    place.refused(vec![Op::exists(&path), ephemeral(&child)], 1, Error::EphemeralParent).await;
}

async fn the_root_is_neither_created_nor_deleted(place: &Place<'_>) {
    let root = ZnodePath::root();
    let before = *place.session.state().borrow();
    for op in [persistent(&root), Op::delete(&root, None)] {
        let refused = in_time("a commit", place.session.commit(vec![op])).await;
        let refused = refused.expect_err("the root is always there");
        assert!(!refused.error.is_unknown(), "{refused}");
    }
    assert_eq!(*place.session.state().borrow(), before, "such a request is refused without a reconnect");
    assert!(get(&*place.session, &root).await.is_some());
}

async fn after_a_sync_a_session_sees_what_others_wrote(place: &Place<'_>) {
    let other = place.open().await;
    let path = place.create("n").await;
    for round in 0..20 {
        commit(&*other, vec![Op::set(&path, format!("{round}"), None)]).await;
        in_time("a sync", place.session.sync(&path)).await.expect("a connected session syncs");
        let (data, _) = get(&*place.session, &path).await.expect("it was created");
        assert_eq!(data, format!("{round}").into_bytes());
    }
}
