//! The session, the clocks, and what this user may do.

use std::time::Duration;

use apportion::{
    backend::{self, CommitError, CreateMode, Done, Op, path::ZnodePath},
    uuid::Uuid,
};

use crate::{
    arguments::Doctor,
    findings::Finding,
    store::Store,
    time::{from_ms, now, short},
};

/// How much the clocks may differ: pauses of jobs and entries are times.
const SKEW: Duration = Duration::from_secs(2);

/// The timeout that was granted, and the clocks.
pub(super) async fn session(store: &Store, read_only: bool) -> Vec<Finding> {
    let mut found = Vec::new();
    let (wanted, granted) = (store.config.session_timeout, store.session.timeout());
    if wanted.as_millis() == granted.as_millis() {
        found.push(Finding::note(format!("the session timeout is {granted:?}")));
    } else {
        found.push(Finding::problem(
            format!("the servers have granted a session timeout of {granted:?}, and the URL says {wanted:?}"),
            "Set timeout in the URL to what the servers grant, or minSessionTimeout and maxSessionTimeout in the servers",
        ));
    }
    match store.config.user() {
        Some(user) => found.push(Finding::note(format!("logged in as `{user}`"))),
        None => found.push(Finding::note(
            "the URL has no credentials: znodes that such members create can be changed by every client",
        )),
    }
    if read_only {
        found.push(Finding::note("could not find out: the clock of the servers, because of --read-only"));
        return found;
    }
    found.push(clocks(store).await);
    found
}

/// Compares the clocks: creates a znode and deletes it in one transaction, so that it is never there.
async fn clocks(store: &Store) -> Finding {
    let folder = store.namespace.parent().unwrap_or_else(ZnodePath::root);
    let Ok(probe) = folder.join(&format!("apportion-doctor-{}", random())) else {
        return Finding::note("could not find out: the clock of the servers");
    };
    let ops = vec![
        Op::create(&probe, "", CreateMode::Ephemeral),
        Op::set(&probe, "", None),
        Op::delete(&probe, None),
    ];
    let before = now();
    let done = store.session.commit(ops).await;
    let after = now();
    let stat = match done.as_deref() {
        Ok([_, Done::Set(stat), _]) => *stat,
        Ok(_) => return Finding::note("could not find out: the clock of the servers"),
        Err(error) => {
            let what = format!(
                "could not find out: the clock of the servers, which needs the permission to create in {folder}"
            );
            return Finding::note(format!("{what}: {error}"));
        }
    };
    let server = from_ms(stat.modified_ms);
    let ahead = server.duration_since(after).unwrap_or_default();
    let behind = before.duration_since(server).unwrap_or_default();
    let apart = ahead.max(behind);
    if apart <= SKEW {
        return Finding::note("the clocks of this host and of the servers agree within two seconds");
    }
    let which = if ahead > behind { "ahead of" } else { "behind" };
    Finding::problem(
        format!("the clock of the servers is {} {which} that of this host", short(apart)),
        "Pauses of jobs and entries are times by these clocks: synchronize them. What members may act on does not depend on it",
    )
}

fn random() -> String {
    // It need not be unpredictable, only another one for each process and moment.
    let nanos = now().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default().as_nanos();
    Uuid::from_u128(nanos ^ u128::from(std::process::id()) << 96).simple().to_string()
}

/// What this user may read and write, and what other users may.
pub(super) async fn permissions(store: &Store, doctor: &Doctor) -> Vec<Finding> {
    let mut found = Vec::new();
    let namespace = &store.namespace;
    let mut folders = vec![namespace.clone()];
    if let Ok(heads) = ZnodePath::parse(&format!("{namespace}.ring")) {
        if !doctor.read_only {
            found.extend(may_begin(store, &heads).await);
        }
        folders.push(heads.clone());
        let groups = crate::group::chosen(store, &doctor.which).await.unwrap_or_default();
        for group in groups {
            folders.extend(namespace.join(&group).ok());
            folders.extend(heads.join(&group).ok());
        }
    }
    for path in doctor.board.iter().chain(&doctor.queue) {
        folders.extend(ZnodePath::parse(path).ok());
    }
    for board in &doctor.board {
        let beside = ZnodePath::parse(board).ok().and_then(|board| board.parent()?.join(".trash").ok());
        folders.extend(beside);
    }
    for queue in &doctor.queue {
        let Ok(queue) = ZnodePath::parse(queue) else { continue };
        let below = ["unowned", "owned", "done", "dead", "claims"];
        folders.extend(below.iter().filter_map(|name| queue.join(name).ok()));
    }
    for folder in folders {
        examine(store, &folder, doctor.read_only, &mut found).await;
    }
    if doctor.read_only {
        found.push(Finding::note("could not find out: what this user may write, because of --read-only"));
    } else if !found.iter().any(|it| it.is_problem) {
        found.push(Finding::note(
            "this user may read, and create and delete children, in all folders that are there",
        ));
    }
    found
}

async fn examine(store: &Store, folder: &ZnodePath, read_only: bool, found: &mut Vec<Finding>) {
    let advice =
        "Grant it in the access control list of that znode, or use the credentials of the services in --url";
    match store.session.get(folder).await {
        Ok(Some(_)) => {}
        Ok(None) => return,
        Err(backend::Error::NotPermitted) => {
            found.push(Finding::problem(
                format!("permission to read `{folder}` is denied by its ACL"),
                advice,
            ));
            return;
        }
        Err(error) => {
            found.push(Finding::note(format!("could not find out: `{folder}`: {error}")));
            return;
        }
    }
    if store.config.user().is_some() && store.session.is_open_to_others(folder).await.unwrap_or(false) {
        found.push(Finding::problem(
            format!("every client can change `{folder}`, although the URL has credentials"),
            "It was created without them: set its access control list",
        ));
    }
    if !read_only {
        found.extend(may_write(store, folder).await.map(|what| Finding::problem(what, advice)));
    }
}

/// Whether the folder of the heads can be created, if it is not there.
async fn may_begin(store: &Store, heads: &ZnodePath) -> Option<Finding> {
    if !matches!(store.session.get(heads).await, Ok(None)) {
        return None;
    }
    let mut parent = heads.parent()?;
    while let Ok(None) = store.session.get(&parent).await {
        parent = parent.parent()?;
    }
    let denied = may_write(store, &parent).await.filter(|denied| denied.contains("to create"))?;
    Some(Finding::problem(
        format!("`{heads}` is not there, and {denied}: members that hand keys over could not start"),
        "Create that znode, owned by the services, or grant it; a group of Python or immediate members needs none",
    ))
}

/// Whether children can be created and deleted: asked by a transaction that fails at its last operation, so that nothing is
/// changed. Returns what is denied.
async fn may_write(store: &Store, folder: &ZnodePath) -> Option<String> {
    let probe = folder.join(&format!("apportion-doctor-{}", random())).ok()?;
    let never = probe.as_str().to_owned() + "-never";
    let ops = vec![
        Op::create(&probe, "", CreateMode::Ephemeral),
        Op::delete(&probe, None),
        Op::exists(&ZnodePath::parse(&never).ok()?),
    ];
    match store.session.commit(ops).await {
        Err(CommitError { index: Some(0), error: backend::Error::NotPermitted }) => {
            Some(format!("permission to create children of `{folder}` is denied by its ACL"))
        }
        Err(CommitError { index: Some(1), error: backend::Error::NotPermitted }) => {
            Some(format!("permission to delete children of `{folder}` is denied by its ACL"))
        }
        _ => None,
    }
}
