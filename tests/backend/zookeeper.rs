//! The ZooKeeper backend against real servers: what sessions, watches and writes do when connections break.

mod addresses;
mod connections;
#[cfg(feature = "sasl")]
mod sasl;
#[cfg(feature = "tls")]
mod tls;

use std::{sync::Arc, time::Duration};

use apportion::backend::{
    CommitError, Connector, CreateMode, Done, Error, Fired, Loss, MAX_REQUEST_BYTES, Op, Session,
    SessionState, path::ZnodePath,
};

use crate::support::{Mode, Proxy, SECOND, Server, eventually, path, shared_server, until, zookeeper};

async fn open(connect_string: &str, timeout: Duration) -> Arc<dyn Session> {
    zookeeper(connect_string).open(timeout).await.unwrap()
}

/// A session through a proxy to the shared server, and one straight to it.
async fn proxied(timeout: Duration) -> (Proxy, Arc<dyn Session>, Arc<dyn Session>) {
    let server = shared_server().await;
    let proxy = Proxy::start(server.port()).await;
    let session = open(&proxy.connect_string(), timeout).await;
    (proxy, session, open(&server.connect_string(), 10 * SECOND).await)
}

async fn create(session: &Arc<dyn Session>, node: &ZnodePath, mode: CreateMode) {
    session.commit(vec![Op::create(node, b"", mode)]).await.unwrap();
}

fn refused(index: usize, error: Error) -> CommitError {
    CommitError { index: Some(index), error }
}

#[tokio::test]
async fn a_session_opens_writes_reads_and_takes_its_znodes_along_when_it_closes() {
    let server = shared_server().await;
    let session = open(&server.connect_string(), 5 * SECOND).await;
    assert_eq!(session.timeout(), 5 * SECOND);
    assert_eq!(*session.state().borrow(), SessionState::Connected { epoch: 1 });
    let node = path("/opens");
    session.commit(vec![Op::create(&node, b"data", CreateMode::Ephemeral)]).await.unwrap();
    let (data, stat) = session.get(&node).await.unwrap().unwrap();
    assert_eq!((data.as_slice(), stat.ephemeral_owner), (b"data".as_slice(), Some(session.id())));

    let other = open(&server.connect_string(), 5 * SECOND).await;
    assert_ne!(other.id(), session.id());
    session.close().await;
    assert_eq!(*session.state().borrow(), SessionState::Lost(Loss::Closed));
    other.sync(&node).await.unwrap();
    assert_eq!(other.get(&node).await, Ok(None), "the ephemeral znode outlived its session");
    assert_eq!(session.get(&node).await, Err(Error::Lost(Loss::Closed)));
    assert_eq!(session.commit(vec![Op::exists(&node)]).await, Err(Error::Lost(Loss::Closed).into()));
    session.close().await;
}

#[tokio::test]
async fn a_session_that_no_server_answers_is_unreachable_within_its_timeout() {
    let address = format!("127.0.0.1:{}", crate::support::free_port());
    let connector = zookeeper(&address);
    let opened = tokio::time::timeout(2 * SECOND, connector.open(SECOND)).await.unwrap();
    let error = opened.unwrap_err();
    assert!(matches!(&error, Error::Unreachable(why) if why.contains(&address)), "{error}");
}

#[tokio::test]
async fn neither_close_nor_drop_nor_a_cancelled_open_leaves_a_task_behind() {
    let server = shared_server().await;
    let alive = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    let connector = zookeeper(&server.connect_string());
    let before = alive();

    let session = connector.open(5 * SECOND).await.unwrap();
    assert!(alive() > before, "tasks are not counted");
    session.close().await;
    until("the tasks of a closed session end", SECOND, || alive() == before).await;

    let session = connector.open(5 * SECOND).await.unwrap();
    let mut state = session.state();
    drop(session);
    state.wait_for(|state| *state == SessionState::Lost(Loss::Closed)).await.unwrap();
    until("the tasks of a dropped session end", SECOND, || alive() == before).await;

    let proxy = Proxy::start(server.port()).await;
    let before = alive();
    proxy.set(Mode::SwallowToClient);
    let connector = zookeeper(&proxy.connect_string());
    let opening = tokio::time::timeout(Duration::from_millis(50), connector.open(5 * SECOND)).await;
    assert!(opening.is_err());
    // The proxy keeps one task for the connection.
    until("the tasks of a cancelled open end", SECOND, || alive() <= before + 1).await;
}

#[test]
fn a_session_is_closed_for_its_handles_when_its_runtime_ends() {
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(1).build().unwrap();
    let (short, long) = (runtime(), runtime());
    let server = long.block_on(async { Server::start().await });
    let session = short.block_on(async { open(&server.connect_string(), SECOND).await });
    let mut state = session.state();
    drop(short);
    let ended = long.block_on(async {
        let ended =
            tokio::time::timeout(SECOND, state.wait_for(|s| matches!(s, SessionState::Lost(_)))).await;
        *ended.expect("its handles see it").unwrap()
    });
    assert_eq!(ended, SessionState::Lost(Loss::Closed));
}

#[tokio::test]
async fn a_refused_transaction_names_the_operation_and_applies_nothing() {
    let session = open(&shared_server().await.connect_string(), 5 * SECOND).await;
    let (root, child, missing) = (path("/refused"), path("/refused/child"), path("/refused/missing"));
    let ephemeral = path("/refused/ephemeral");
    create(&session, &root, CreateMode::Persistent).await;
    create(&session, &child, CreateMode::Persistent).await;
    create(&session, &ephemeral, CreateMode::Ephemeral).await;
    let fresh = || Op::create(&missing, b"", CreateMode::Persistent);
    for (ops, expected) in [
        (vec![fresh(), Op::create(&child, b"", CreateMode::Persistent)], refused(1, Error::NodeExists)),
        (vec![fresh(), fresh(), Op::delete(&root, None)], refused(1, Error::NodeExists)),
        (vec![Op::exists(&root), fresh(), Op::delete(&root, None)], refused(2, Error::NotEmpty)),
        (vec![fresh(), Op::set(&child, b"", Some(7))], refused(1, Error::BadVersion)),
        (vec![fresh(), Op::Check { path: child.clone(), version: Some(7) }], refused(1, Error::BadVersion)),
        (vec![Op::exists(&child), Op::exists(&missing)], refused(1, Error::NoNode)),
        (vec![Op::exists(&missing)], refused(0, Error::NoNode)),
        (vec![Op::delete(&missing, None), fresh()], refused(0, Error::NoNode)),
        (
            vec![fresh(), Op::create(&ephemeral.join("x").unwrap(), b"", CreateMode::Persistent)],
            refused(1, Error::EphemeralParent),
        ),
    ] {
        assert_eq!(session.commit(ops.clone()).await, Err(expected), "{ops:?}");
        assert_eq!(session.get(&missing).await, Ok(None), "{ops:?} was applied in part");
    }
    assert_eq!(session.commit(vec![]).await, Ok(vec![]));
}

#[tokio::test]
async fn a_create_that_is_set_in_the_same_transaction_tells_its_true_stat() {
    let session = open(&shared_server().await.connect_string(), 5 * SECOND).await;
    let node = path("/created-and-set");
    let ops = vec![Op::create(&node, b"", CreateMode::Ephemeral), Op::set(&node, b"member", None)];
    let done = session.commit(ops).await.unwrap();
    let [Done::Created(created), Done::Set(stat)] = done.as_slice() else { panic!("{done:?}") };
    assert_eq!(*created, node);
    assert!(stat.czxid > 0);
    assert_eq!(stat.ephemeral_owner, Some(session.id()));
    assert_eq!(session.get(&node).await, Ok(Some((b"member".to_vec(), *stat))));
}

#[tokio::test]
async fn many_znodes_are_read_in_the_order_they_were_asked_for_and_missing_ones_are_none() {
    let session = open(&shared_server().await.connect_string(), 5 * SECOND).await;
    let root = path("/many");
    create(&session, &root, CreateMode::Persistent).await;
    let nodes: Vec<_> = (0..700).map(|i| root.join(&i.to_string()).unwrap()).collect();
    let creates = nodes.iter().step_by(2);
    let creates = creates.map(|node| Op::create(node, node.name(), CreateMode::Ephemeral)).collect();
    session.commit(creates).await.unwrap();
    let found = session.get_many(&nodes).await.unwrap();
    assert_eq!(found.len(), nodes.len());
    for (i, found) in found.into_iter().enumerate() {
        let expected = (i % 2 == 0).then(|| i.to_string().into_bytes());
        assert_eq!(found.map(|(data, _)| data), expected, "znode {i}");
    }
    assert_eq!(session.get_many(&[]).await, Ok(vec![]));
}

#[tokio::test]
async fn a_request_that_is_too_large_is_not_sent_and_the_largest_allowed_one_is_taken() {
    let session = open(&shared_server().await.connect_string(), 5 * SECOND).await;
    let node = path("/large");
    let create = |bytes| session.commit(vec![Op::create(&node, vec![7; bytes], CreateMode::Ephemeral)]);
    let Err(CommitError { index: None, error: Error::TooLarge { bytes, .. } }) =
        create(MAX_REQUEST_BYTES).await
    else {
        panic!("it was sent");
    };
    let overhead = bytes - MAX_REQUEST_BYTES;
    assert!(matches!(
        create(MAX_REQUEST_BYTES - overhead + 1).await.unwrap_err().error,
        Error::TooLarge { .. }
    ));
    create(MAX_REQUEST_BYTES - overhead).await.unwrap();
    let read = session.get_many(&[node.clone(), node.clone()]).await.unwrap();
    assert!(read.iter().all(|read| read.as_ref().unwrap().0.len() == MAX_REQUEST_BYTES - overhead));
    assert_eq!(*session.state().borrow(), SessionState::Connected { epoch: 1 }, "the connection was harmed");
}

#[tokio::test]
async fn znodes_of_a_session_with_credentials_belong_to_its_user_alone() {
    // User, password and stored id as kazoo's `make_digest_acl` computes it.
    let (user, password) = ("pearl-30390", "heron-89321");
    let id = "pearl-30390:VyBYGEWx9RPHpRbcw4miQgshoKs=";
    let server = shared_server().await;
    let owner = zookeeper(&server.connect_string()).digest(user, password).open(5 * SECOND).await.unwrap();
    let (root, member) = (path("/digest"), path("/digest/member"));
    let ops = vec![
        Op::create(&root, b"", CreateMode::Persistent),
        Op::create(&member, b"data", CreateMode::EphemeralSequential),
    ];
    let done = owner.commit(ops).await.unwrap();
    let Done::Created(member) = &done[1] else { panic!("{done:?}") };

    let reader = zookeeper_client::Client::connector()
        .with_auth("digest", format!("{user}:{password}").as_bytes())
        .connect(&server.connect_string())
        .await
        .unwrap();
    for node in [&root, member] {
        let (acls, _) = reader.get_acl(node.as_str()).await.unwrap();
        let [acl] = acls.as_slice() else { panic!("{acls:?}") };
        assert_eq!((acl.scheme(), acl.id()), ("digest", id));
        assert_eq!(acl.permission(), zookeeper_client::Permission::ALL);
    }
    drop(reader);

    for other in [
        open(&server.connect_string(), 5 * SECOND).await,
        zookeeper(&server.connect_string()).digest(user, "wrong").open(5 * SECOND).await.unwrap(),
    ] {
        assert_eq!(other.get(member).await, Err(Error::NotPermitted));
        assert_eq!(other.get_many(std::slice::from_ref(member)).await, Err(Error::NotPermitted));
        assert_eq!(other.children(&root).await, Err(Error::NotPermitted));
        let write = vec![Op::exists(&root), Op::set(member, b"", None)];
        let error = other.commit(write).await.unwrap_err();
        assert_eq!(error.error, Error::NotPermitted);
        assert!(error.index.is_some());
    }

    let open_to_all = open(&server.connect_string(), 5 * SECOND).await;
    let node = path("/open-to-all");
    create(&open_to_all, &node, CreateMode::Ephemeral).await;
    let reader = zookeeper_client::Client::connect(&server.connect_string()).await.unwrap();
    let (acls, _) = reader.get_acl(node.as_str()).await.unwrap();
    assert_eq!(acls.as_slice(), &*zookeeper_client::Acls::anyone_all());
}

#[tokio::test]
async fn a_dropped_watch_is_removed_and_another_one_fires_at_the_end_of_the_session() {
    let server = shared_server().await;
    let session = open(&server.connect_string(), 5 * SECOND).await;
    let root = path("/unwatched");
    create(&session, &root, CreateMode::Persistent).await;
    let watched = || async { server.ask("wchp").await.unwrap().contains("/unwatched") };
    // The server lists the watches on znodes, though not those on children.
    let (_, watch) = session.watch_node(&root).await.unwrap();
    assert!(watched().await);
    drop(watch);
    eventually("the watch is gone from the server", SECOND, || async { (!watched().await).then_some(()) })
        .await;

    let (_, _, mut watch) = session.watch_children(&root).await.unwrap();
    session.close().await;
    assert_eq!(tokio::time::timeout(SECOND, watch.fired()).await, Ok(Fired::Lost(Loss::Closed)));
}
