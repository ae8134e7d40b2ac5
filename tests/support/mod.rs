//! Real ZooKeeper servers, ensembles, RabbitMQ brokers and connections that break, for tests. Every server runs on
//! free ports of 127.0.0.1, keeps its data in a temporary folder, and dies with the test process, whatever kills
//! that.
//!
//! The servers need Java and ZooKeeper, see [`server`]; the brokers need RabbitMQ, see [`broker`]. A test without
//! them fails; it is never skipped.

#![allow(
    dead_code,
    unused_macros,
    reason = "each test binary compiles this module for itself and uses its own part of it"
)]
#![allow(unreachable_pub, reason = "a module of a test binary has no public interface")]

pub mod broker;
#[cfg(feature = "cli")]
pub mod command;
pub mod driven;
pub mod ensemble;
pub mod events;
pub mod example;
pub mod expiry;
#[cfg(feature = "testing")]
pub mod fate;
pub mod files;
#[cfg(feature = "testing")]
pub mod fleet;
pub mod golden;
#[cfg(feature = "testing")]
pub mod hold;
mod process;
pub mod proxy;
pub mod python;
pub mod server;

use std::{
    future::{Future, IntoFuture},
    time::Duration,
};

use apportion::backend::{memory::LostReply, path::ZnodePath};

#[cfg(feature = "zookeeper")]
use apportion::backend::zookeeper::{Hosts, ZooKeeper};

#[allow(unused_imports, reason = "as above")]
pub use self::{
    broker::{Broker, shared_broker},
    ensemble::Ensemble,
    example::Example,
    proxy::{Mode, Proxy},
    server::{RELEASES, Release, Server, Settings},
};

/// A connector to the servers of `connect_string`, without credentials.
#[cfg(feature = "zookeeper")]
pub fn zookeeper(connect_string: &str) -> ZooKeeper {
    ZooKeeper::new(connect_string.parse::<Hosts>().expect("the harness has valid addresses"))
}

pub const SECOND: Duration = Duration::from_secs(1);
pub const MS: Duration = Duration::from_millis(1);

/// Both ways to lose a reply.
pub const EITHER: [LostReply; 2] = [LostReply::BeforeApplying, LostReply::AfterApplying];

/// A valid path.
pub fn path(text: &str) -> ZnodePath {
    ZnodePath::parse(text).expect("tests have valid paths")
}

/// Waits until `work` has ended, and panics if it hangs.
pub async fn soon<F: IntoFuture>(work: F) -> F::Output {
    tokio::time::timeout(120 * SECOND, work).await.expect("in time")
}

/// How many tasks the runtime of this test has.
pub fn alive_tasks() -> usize {
    tokio::runtime::Handle::current().metrics().num_alive_tasks()
}

/// The server that the tests of one binary share. Each test works under a path of its own.
pub async fn shared_server() -> &'static Server {
    shared_server_of(Release::System).await
}

/// The server of this release that the tests of one binary share.
pub async fn shared_server_of(release: Release) -> &'static Server {
    static SHARED: [tokio::sync::OnceCell<Server>; 2] = [const { tokio::sync::OnceCell::const_new() }; 2];
    let server = || async { Server::start_with(&Settings { release, ..Settings::default() }).await };
    SHARED[usize::from(release == Release::V39)].get_or_init(server).await
}

/// Has each scenario run twice: on a server of each release.
macro_rules! on_both_releases {
    ($($scenario:ident),+ $(,)?) => {
        mod system {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario($crate::support::Release::System).await;
            })+
        }
        mod v39 {
            $(#[tokio::test]
            async fn $scenario() {
                super::$scenario($crate::support::Release::V39).await;
            })+
        }
    };
}
#[allow(unused_imports, reason = "each test binary uses its own part of it")]
pub(crate) use on_both_releases;

/// Waits until `probe` gives a value. Calls it every few milliseconds.
///
/// # Panics
///
/// If it gave none within `bound`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    bound: Duration,
    mut probe: impl FnMut() -> F,
) -> T {
    let probing = async {
        loop {
            if let Some(value) = probe().await {
                return value;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    match tokio::time::timeout(bound, probing).await {
        Ok(value) => value,
        Err(_) => panic!("not within {bound:?}: {what}"),
    }
}

/// Waits until `holds` is true. Calls it every few milliseconds.
///
/// # Panics
///
/// If it was not within `bound`.
pub async fn until(what: &str, bound: Duration, mut holds: impl FnMut() -> bool) {
    eventually(what, bound, || std::future::ready(holds().then_some(()))).await;
}

/// A port of 127.0.0.1 on which no process listens at the moment.
///
/// Outside of the range from which systems choose the ports of outgoing connections, so that a server that is
/// down for a restart finds its port free.
pub fn free_port() -> u16 {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    const LOWEST: u32 = 10_000;
    const HIGHEST: u32 = 32_000;
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..HIGHEST - LOWEST {
        let offset = start.wrapping_add(COUNT.fetch_add(1, Ordering::Relaxed)) % (HIGHEST - LOWEST);
        let port = u16::try_from(LOWEST + offset).expect("32000 fits");
        if std::net::TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port from {LOWEST} to {HIGHEST}");
}
