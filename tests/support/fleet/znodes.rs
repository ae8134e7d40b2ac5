//! What tests do with single znodes.

use apportion::backend::{CommitError, CreateMode, Error, Op, Session, Stat, path::ZnodePath};

/// The data and stat of a znode that exists, as the leader has it.
pub async fn znode(session: &dyn Session, path: &ZnodePath) -> (Vec<u8>, Stat) {
    session.sync(path).await.expect("the store is there");
    session.get(path).await.expect("it can be read").unwrap_or_else(|| panic!("there is no {path}"))
}

/// Whether there is such a znode, as the leader has it.
pub async fn exists(session: &dyn Session, path: &ZnodePath) -> bool {
    session.sync(path).await.expect("the store is there");
    session.get(path).await.expect("it can be read").is_some()
}

/// Creates a znode and its ancestors, as far as they are missing.
pub async fn create_with_ancestors(session: &dyn Session, path: &ZnodePath) {
    for path in path.with_ancestors() {
        match session.commit(vec![Op::create(&path, "", CreateMode::Persistent)]).await {
            Ok(_) | Err(CommitError { error: Error::NodeExists, .. }) => {}
            Err(error) => panic!("{path}: {error}"),
        }
    }
}

/// Deletes a znode and everything below it, whatever is created meanwhile.
pub async fn delete_recursively(session: &dyn Session, path: &ZnodePath) {
    loop {
        let children = match session.children(path).await {
            Ok((children, _)) => children,
            Err(Error::NoNode) => return,
            Err(error) => panic!("{path}: {error}"),
        };
        for child in children {
            Box::pin(delete_recursively(session, &path.join(&child).unwrap())).await;
        }
        match session.commit(vec![Op::delete(path, None)]).await {
            Ok(_) | Err(CommitError { error: Error::NoNode, .. }) => return,
            Err(CommitError { error: Error::NotEmpty, .. }) => {}
            Err(error) => panic!("{path}: {error}"),
        }
    }
}
