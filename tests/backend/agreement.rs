//! Both backends keep the same promises, and do the same visible things when asked for the same.

use std::sync::Arc;

use apportion::{
    backend::Memory,
    testing::{conformance, differential},
};

use crate::support::{path, shared_server, zookeeper};

#[tokio::test]
async fn zookeeper_keeps_every_promise_of_a_backend() {
    let zookeeper = zookeeper(&shared_server().await.connect_string());
    conformance::run(Arc::new(zookeeper), &path("/conformance")).await;
}

#[tokio::test]
async fn zookeeper_with_credentials_keeps_every_promise_of_a_backend() {
    let zookeeper = zookeeper(&shared_server().await.connect_string()).digest("ember", "secret");
    conformance::run(Arc::new(zookeeper), &path("/conformance-digest")).await;
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
