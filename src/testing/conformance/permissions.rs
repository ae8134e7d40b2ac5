//! What a client can do with the znodes of a user that it is not.

use std::sync::Arc;

use super::place::{Suite, changed, commit, get, persistent};
use crate::{
    backend::{Connector, CreateMode, Error, Op, Session, Stat, Watch, path::ZnodePath},
    testing::{delete_what_it_may, in_time, with_context},
};

/// Runs the cases on permissions below `root`, which has to exist and to be open to every client. The znodes that
/// sessions of `owner` create are accessible only to sessions of the same user; `other` is a client of another user, or
/// anonymous.
///
/// A backend may or may not give the stat of a denied znode, see
/// [`Session::watch_node`](crate::backend::Session::watch_node).
///
/// # Panics
///
/// At the first guarantee that the backend does not keep.
pub async fn permissions(owner: Arc<dyn Connector>, other: Arc<dyn Connector>, root: &ZnodePath) {
    let suite = |connector| Suite { connector, root: root.clone() };
    let (owner, other) = (suite(owner).open().await, suite(other).open().await);
    let (owner, other) = (&*owner, &*other);
    with_context(|| "conformance: a denied znode".into(), reads(owner, other, root)).await;
    with_context(|| "conformance: writes to a denied znode".into(), writes(owner, other, root)).await;
    with_context(|| "conformance: a private znode".into(), privacy(owner, root)).await;
    delete_what_it_may(other, root).await;
    owner.close().await;
    other.close().await;
}

async fn reads(owner: &dyn Session, other: &dyn Session, root: &ZnodePath) {
    let (denied, open) = (child(root, "denied"), child(root, "open"));
    let (_, _, mut watch) = in_time("a list", other.watch_children(root)).await.expect("the root is open");
    commit(owner, vec![Op::create(&denied, "secret", CreateMode::Ephemeral)]).await;
    changed(&mut watch).await;
    commit(other, vec![persistent(&open)]).await;
    let (mut names, _) = in_time("a list", other.children(root)).await.expect("the root is open");
    names.sort_unstable();
    assert_eq!(names, ["denied", "open"], "the names of an open parent are visible");

    assert_eq!(in_time("a read", other.get(&denied)).await, Err(Error::NotPermitted));
    let both = [open.clone(), denied.clone()];
    assert_eq!(in_time("a read", other.get_many(&both)).await, Err(Error::NotPermitted));
    assert_eq!(in_time("a list", other.children(&denied)).await, Err(Error::NotPermitted));
    let listed = in_time("a list", other.watch_children(&denied)).await;
    assert_eq!(listed.err(), Some(Error::NotPermitted));
    let watched: Result<(Option<Stat>, Watch), Error> =
        in_time("watch_node", other.watch_node(&denied)).await;
    match watched {
        Err(error) => assert_eq!(error, Error::NotPermitted),
        Ok((stat, _)) => assert_eq!(stat.and_then(|stat| stat.ephemeral_owner), Some(owner.id())),
    }
    let missing = child(root, "missing");
    assert_eq!(get(other, &missing).await, None, "what does not exist is not denied");
    let (stat, _) = in_time("watch_node", other.watch_node(&missing)).await.expect("it is not denied");
    assert_eq!(stat, None);
    in_time("a sync", other.sync(&denied)).await.expect("a sync reads nothing");
    let (data, _) = get(owner, &denied).await.expect("the owner reads it");
    assert_eq!(data, b"secret");
    commit(owner, vec![Op::set(&denied, "", None), Op::delete(&denied, None)]).await;
}

async fn writes(owner: &dyn Session, other: &dyn Session, root: &ZnodePath) {
    let folder = child(root, "folder");
    commit(owner, vec![persistent(&folder)]).await;
    let inside = child(&folder, "inside");
    for (what, op, error) in [
        ("a check", Op::exists(&folder), Error::NotPermitted),
        ("a set", Op::set(&folder, "", None), Error::NotPermitted),
        ("a create below", persistent(&inside), Error::NotPermitted),
        ("a set of another version", Op::set(&folder, "", Some(7)), Error::NotPermitted),
        ("a check of what does not exist", Op::exists(&inside), Error::NoNode),
    ] {
        let refused = in_time(what, other.commit(vec![Op::exists(root), op])).await;
        let refused = refused.map_err(|refused| (refused.index, refused.error));
        assert_eq!(refused, Err((Some(1), error)), "{what}");
    }
    commit(owner, vec![persistent(&inside)]).await;
    let refused = in_time("a delete below", other.commit(vec![Op::delete(&inside, None)])).await;
    assert_eq!(refused.map_err(|refused| refused.error), Err(Error::NotPermitted));
    commit(owner, vec![Op::delete(&inside, None)]).await;
    // The permission to delete is that of the parent.
    commit(other, vec![Op::delete(&folder, None)]).await;
}

/// A backend need not know which znodes are open, but must not take a private one for open.
async fn privacy(owner: &dyn Session, root: &ZnodePath) {
    let private = child(root, "private");
    commit(owner, vec![Op::create(&private, "", CreateMode::Ephemeral)]).await;
    assert_eq!(in_time("a read", owner.is_open_to_others(&private)).await, Ok(false));
    commit(owner, vec![Op::delete(&private, None)]).await;
}

fn child(parent: &ZnodePath, name: &str) -> ZnodePath {
    parent.join(name).expect("the cases use valid names")
}
