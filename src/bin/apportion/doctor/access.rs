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
        found.push(Finding::note("session_timeout", format!("the session timeout is {granted:?}")));
    } else {
        found.push(Finding::problem(
            "session_timeout",
            format!("the servers have granted a session timeout of {granted:?}, and the URL says {wanted:?}"),
            "Set timeout in the URL to what the servers grant, or minSessionTimeout and maxSessionTimeout in the servers",
        ));
    }
    match store.config.user() {
        Some(user) => found.push(Finding::note("user", format!("logged in as `{user}`"))),
        None => found.push(Finding::note(
            "no_credentials",
            "the URL has no credentials: znodes that such members create can be changed by every client",
        )),
    }
    if read_only {
        let what = "could not find out: the clock of the servers, because of --read-only";
        found.push(Finding::note("not_found_out", what));
        return found;
    }
    found.push(clocks(store).await);
    found
}

/// Compares the clocks: creates a znode and deletes it in one transaction, so that it is never there.
async fn clocks(store: &Store) -> Finding {
    let folder = store.namespace.parent().unwrap_or_else(ZnodePath::root);
    let Ok(probe) = folder.join(&format!("apportion-doctor-{}", random())) else {
        return Finding::note("not_found_out", "could not find out: the clock of the servers");
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
        Ok(_) => return Finding::note("not_found_out", "could not find out: the clock of the servers"),
        Err(error) => {
            let what = format!(
                "could not find out: the clock of the servers, which needs the permission to create in {folder}"
            );
            return Finding::note("not_found_out", format!("{what}: {error}"));
        }
    };
    let server = from_ms(stat.modified_ms);
    let ahead = server.duration_since(after).unwrap_or_default();
    let behind = before.duration_since(server).unwrap_or_default();
    let apart = ahead.max(behind);
    if apart <= SKEW {
        return Finding::note(
            "clocks",
            "the clocks of this host and of the servers agree within two seconds",
        );
    }
    let which = if ahead > behind { "ahead of" } else { "behind" };
    Finding::problem(
        "clocks",
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
    for place in &doctor.work.board {
        folders.extend(
            [&place.board, &place.trash, &place.attempts, &place.entities, &place.posting].map(Clone::clone),
        );
    }
    for queue in &doctor.work.queue {
        folders.extend(queue.all().map(Clone::clone));
    }
    for folder in folders {
        examine(store, &folder, doctor.read_only, &mut found).await;
    }
    if doctor.read_only {
        let what = "could not find out: what this user may write, because of --read-only";
        found.push(Finding::note("not_found_out", what));
    } else if found.is_empty() {
        found.push(Finding::note(
            "permitted",
            "this user may read, and create and delete children, in all folders that are there",
        ));
    }
    found
}

async fn examine(store: &Store, folder: &ZnodePath, read_only: bool, found: &mut Vec<Finding>) {
    match store.session.get(folder).await {
        Ok(Some(_)) => {}
        Ok(None) => return,
        Err(backend::Error::NotPermitted) => {
            let what = format!("permission to read `{folder}` is denied by its ACL");
            found.push(Finding::problem("denied", what, ADVICE));
            return;
        }
        Err(error) => {
            found.push(Finding::note("not_found_out", format!("could not find out: `{folder}`: {error}")));
            return;
        }
    }
    if store.config.user().is_some() && store.session.is_open_to_others(folder).await.unwrap_or(false) {
        found.push(Finding::problem(
            "open_to_others",
            format!("every client can change `{folder}`, although the URL has credentials"),
            "It was created without them: set its access control list",
        ));
    }
    if !read_only {
        found.extend(may_write(store, folder).await);
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
    let denied = may_write(store, &parent).await.filter(|it| it.code == CREATE_DENIED)?.what;
    Some(Finding::problem(
        "denied",
        format!("`{heads}` is not there, and {denied}: members that hand keys over could not start"),
        "Create that znode, owned by the services, or grant it; a group of Python or immediate members needs none",
    ))
}

const ADVICE: &str =
    "Grant it in the access control list of that znode, or use the credentials of the services in --url";
const CREATE_DENIED: &str = "create_denied";

/// Whether children can be created and deleted: asked by a transaction that fails at its last operation, so that nothing is
/// changed. Returns what is denied, or could not be found out.
async fn may_write(store: &Store, folder: &ZnodePath) -> Option<Finding> {
    let probe = folder.join(&format!("apportion-doctor-{}", random())).ok()?;
    let never = probe.as_str().to_owned() + "-never";
    let ops = vec![
        Op::create(&probe, "", CreateMode::Ephemeral),
        Op::delete(&probe, None),
        Op::exists(&ZnodePath::parse(&never).ok()?),
    ];
    let (code, what) = match store.session.commit(ops).await {
        Err(CommitError { index: Some(2), error: backend::Error::NoNode }) => return None,
        Err(CommitError { index: Some(0), error: backend::Error::NotPermitted }) => (CREATE_DENIED, "create"),
        Err(CommitError { index: Some(1), error: backend::Error::NotPermitted }) => {
            ("delete_denied", "delete")
        }
        other => {
            let why = other.err().map_or_else(String::new, |error| format!(": {error}"));
            let what = format!("could not find out: what this user may write in `{folder}`{why}");
            return Some(Finding::note("not_found_out", what));
        }
    };
    let what = format!("permission to {what} children of `{folder}` is denied by its ACL");
    Some(Finding::problem(code, what, ADVICE))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use apportion::{
        Config,
        backend::{BoxFuture, Connector as _, Memory},
        testing::{Call, Hook, Intercept, Outcome, Request},
    };

    use super::*;

    /// Answers each transaction with an error of its operation.
    struct Answers(usize, backend::Error);

    impl Hook for Answers {
        fn call<'a>(&'a self, call: Call<'a>) -> BoxFuture<'a, Outcome> {
            Box::pin(async move {
                match call.request() {
                    Request::Commit(_) => Err(CommitError { index: Some(self.0), error: self.1.clone() }),
                    _ => call.send().await,
                }
            })
        }
    }

    async fn found(index: usize, error: backend::Error) -> Option<Finding> {
        let memory = Memory::new();
        let intercept = Intercept::new(Arc::new(memory.clone()), Arc::new(Answers(index, error)));
        let session = intercept.open(Duration::from_secs(10)).await.unwrap();
        let store = Store { config: Config::for_backend(memory), namespace: ZnodePath::root(), session };
        may_write(&store, &ZnodePath::parse("/ns").unwrap()).await
    }

    #[tokio::test]
    async fn a_permission_that_could_not_be_tried_is_not_taken_for_granted() {
        assert_eq!(found(2, backend::Error::NoNode).await, None, "granted");
        let denied = found(1, backend::Error::NotPermitted).await.unwrap();
        assert!(denied.is_problem && denied.code == "delete_denied", "{denied:?}");
        for other in [backend::Error::NoNode, backend::Error::Unknown("lost".into())] {
            let unknown = found(0, other).await.unwrap();
            assert!(unknown.code == "not_found_out" && unknown.what.contains("`/ns`"), "{unknown:?}");
        }
    }
}
