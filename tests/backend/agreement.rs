//! The backends keep the same promises, and do the same visible things when asked for the same.

use std::sync::Arc;

use apportion::{
    backend::{Connector, CreateMode, Error, Memory, Op},
    testing::{conformance, differential},
};

use crate::support::{
    RELEASES, Release, SECOND, on_both_releases, path, shared_server, shared_server_of, zookeeper,
};

async fn zookeeper_keeps_every_promise_of_a_backend(release: Release) {
    let server = shared_server_of(release).await.connect_string();
    conformance::run(Arc::new(zookeeper(&server)), &path("/conformance")).await;
    let with_credentials = zookeeper(&server).digest("ember", "secret");
    conformance::run(Arc::new(with_credentials), &path("/conformance-digest")).await;
    create_open_root(&zookeeper(&server)).await;
    for other in [zookeeper(&server), zookeeper(&server).digest("ember", "wrong")] {
        let owner = zookeeper(&server).digest("ember", "secret");
        conformance::permissions(Arc::new(owner), Arc::new(other), &path("/permissions")).await;
    }
    let owner = zookeeper(&server).digest("ember", "secret");
    tells_an_open_znode(&zookeeper(&server), &owner).await;
}

on_both_releases!(zookeeper_keeps_every_promise_of_a_backend);

#[tokio::test]
async fn the_in_memory_ensemble_denies_other_users_what_a_server_denies() {
    for other in [None, Some("other")] {
        let memory = Memory::new();
        create_open_root(&memory).await;
        let other = other.map_or_else(|| memory.clone(), |user| memory.as_user(user));
        let owner = Arc::new(memory.as_user("ember"));
        conformance::permissions(owner.clone(), Arc::new(other), &path("/permissions")).await;
        tells_an_open_znode(&memory, &*owner).await;
    }
}

/// The znodes of an anonymous session are open as well, so for it an open znode is nothing to warn of.
async fn tells_an_open_znode(anonymous: &dyn Connector, owner: &dyn Connector) {
    for (connector, is_open) in [(anonymous, false), (owner, true)] {
        let session = connector.open(10 * SECOND).await.unwrap();
        assert_eq!(session.is_open_to_others(&path("/permissions")).await, Ok(is_open));
        session.close().await;
    }
}

/// Runs half of the seeds; one test for each half lets the test runner use what cores there are.
async fn do_the_same(seeds: std::ops::Range<u64>) {
    let server = shared_server().await.connect_string();
    for seed in seeds {
        let root = path(&format!("/differential-{seed}"));
        let (memory, zookeeper) = (Arc::new(Memory::new()), Arc::new(zookeeper(&server)));
        differential::run(memory, zookeeper, &root, seed, 150).await;
    }
}

#[tokio::test]
async fn memory_and_zookeeper_do_the_same_seeds_0_to_11() {
    do_the_same(0..12).await;
}

#[tokio::test]
async fn memory_and_zookeeper_do_the_same_seeds_12_to_23() {
    do_the_same(12..24).await;
}

/// On a current release only: with an older one, the stat of a denied znode is visible to all.
#[tokio::test]
async fn memory_and_zookeeper_3_9_do_the_same_for_sessions_of_several_users() {
    let server = shared_server_of(Release::V39).await.connect_string();
    for seed in 0..12 {
        let memory = Memory::new();
        let of_memory = |user| memory.as_user(user);
        let of_server = |user| zookeeper(&server).digest(user, "secret");
        let [one, two] = ["ember", "pearl"];
        let in_memory: [Arc<dyn Connector>; 3] =
            [Arc::new(memory.clone()), Arc::new(of_memory(one)), Arc::new(of_memory(two))];
        let on_server: [Arc<dyn Connector>; 3] =
            [Arc::new(zookeeper(&server)), Arc::new(of_server(one)), Arc::new(of_server(two))];
        let root = path(&format!("/differential-users-{seed}"));
        differential::run_as_users([&in_memory, &on_server], &root, seed, 150).await;
    }
}

#[tokio::test]
async fn the_stat_of_a_denied_znode_is_denied_from_3_9_on_and_in_memory() {
    for release in RELEASES {
        let server = shared_server_of(release).await.connect_string();
        let owner = zookeeper(&server).digest("ember", "secret");
        let is_denied = stat_is_denied(&owner, &zookeeper(&server)).await;
        // A release of the system may be any.
        assert!(is_denied || release == Release::System, "{release:?}");
    }
    let memory = Memory::new();
    assert!(stat_is_denied(&memory.as_user("ember"), &memory).await);
}

async fn create_open_root(anonymous: &dyn Connector) {
    let session = anonymous.open(10 * SECOND).await.unwrap();
    session.commit(vec![Op::create(&path("/permissions"), "", CreateMode::Persistent)]).await.unwrap();
    session.close().await;
}

async fn stat_is_denied(owner: &dyn Connector, other: &dyn Connector) -> bool {
    let (owner, other) = (owner.open(10 * SECOND).await.unwrap(), other.open(10 * SECOND).await.unwrap());
    let node = path("/denied-stat");
    owner.commit(vec![Op::create(&node, "", CreateMode::Ephemeral)]).await.unwrap();
    let watched = other.watch_node(&node).await;
    owner.close().await;
    match watched {
        Err(error) => error == Error::NotPermitted,
        Ok((stat, _)) => stat.is_none(),
    }
}
