//! What takes more than one request of a session.

use crate::backend::{self, CommitError, CreateMode, Op, Session, Znode, path::ZnodePath};

/// Makes sure that the persistent znode `path` and its ancestors exist.
pub(crate) async fn ensure(session: &dyn Session, path: &ZnodePath) -> Result<(), backend::Error> {
    for path in path.with_ancestors() {
        // Looked at first: the right to create children of the root is not needed where they exist.
        if session.get(&path).await?.is_some() {
            continue;
        }
        match session.commit(vec![Op::create(&path, [], CreateMode::Persistent)]).await {
            Ok(_) | Err(CommitError { error: backend::Error::NodeExists, .. }) => {}
            Err(CommitError { error, .. }) => return Err(error),
        }
    }
    Ok(())
}

/// Clears away what keeps the creation `op` from being done and is nobody's intention; whether it is to be tried
/// again. Somebody has removed its folder; or the number is taken that comes next: in a tree that was restored from a
/// backup the numbers begin anew, and a name that is there already would keep everybody from going on.
pub(crate) async fn make_way(session: &dyn Session, op: &Op, refusal: &backend::Error) -> bool {
    let Op::Create { path, mode, .. } = op else { return false };
    let Some(folder) = path.parent() else { return false };
    let made = match refusal {
        backend::Error::NoNode => ensure(session, &folder).await,
        backend::Error::NodeExists if mode.is_sequential() => skip_number(session, &folder).await,
        _ => return false,
    };
    made.map_or_else(|error| error.is_unknown(), |()| true)
}

/// Has the store go on to the next number in a folder.
async fn skip_number(session: &dyn Session, folder: &ZnodePath) -> Result<(), backend::Error> {
    let scratch = folder.join(&uuid::Uuid::new_v4().simple().to_string()).expect("a uuid is a name");
    let ops = vec![Op::create(&scratch, [], CreateMode::Persistent), Op::delete(&scratch, None)];
    session.commit(ops).await.map(drop).map_err(|failed| failed.error)
}

/// An access control list keeps this znode from us.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Denied;

/// Reads many znodes at once; if one of them is kept from us, one by one, so that it does not cost the others.
pub(crate) async fn get_each(
    session: &dyn Session,
    paths: &[ZnodePath],
) -> Result<Vec<Result<Option<Znode>, Denied>>, backend::Error> {
    match session.get_many(paths).await {
        Err(backend::Error::NotPermitted) => {}
        found => return Ok(found?.into_iter().map(Ok).collect()),
    }
    let mut found = Vec::with_capacity(paths.len());
    for path in paths {
        found.push(match session.get(path).await {
            Err(backend::Error::NotPermitted) => Err(Denied),
            read => Ok(read?),
        });
    }
    Ok(found)
}
