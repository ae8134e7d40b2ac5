//! The ZooKeeper backend: a [`Connector`] over the crate `zookeeper-client`. Only this module uses that crate, and none
//! of its types is public.
//!
//! The crate was measured against real servers before it was chosen. These are the defects and limits of version
//! 0.11.2, and what this module does about each:
//!
//! | | defect | countermeasure |
//! |---|---|---|
//! | D1 | persistent watches no longer fire after a reconnect | one-shot watches only; the crate sets those again |
//! | D2 | pending requests fail with one of several errors when a connection breaks | `convert::error`: every error that is not a reply of a server is [`Error::Unknown`] |
//! | D3 | its lock recipe gives up on those errors | no recipe of the crate is used, only single requests and transactions |
//! | D4 | `tcp+tls://` without TLS options loops for ever and blocks the thread | [`HostPort`] accepts names and addresses only, no schemes |
//! | D5 | the delay between attempts to reconnect grows without a cap | a client is used for one connection; `reconnect.rs` opens the next one, with short pauses |
//! | D6 | it notices an expired session only 1.4 to 1.8 timeouts after contact was lost | the coordinator does not wait for it; `reconnect.rs` gives a session up whose servers do not reply; [`Session::close`] ends requests that wait |
//! | D7 | state changes coalesce; watches panic once the task of their client has ended | any change of the state of a client is a break; watches are polled under a lock that says whether it exists; the end of the runtime is [`Loss::Closed`](super::Loss::Closed) |
//! | D8 | without a spawner it panics on connect | `link.rs` is its spawner |
//! | D9 | more than 128 KiB of watched paths are set again wrongly after a reconnect | it never reconnects; each watch is set again by itself |
//! | D10 | sessions to read-only servers fail | such sessions are never requested: a coordinator cannot use stale reads |
//! | D11 | after a reconnect it does not say that the server has opened another session | the ids are compared |
//! | D12 | it connects to a name through the first of its addresses, even if that is dead, and says only that it has timed out | `resolve.rs` looks names up, and the crate gets single addresses; `survey.rs` finds out what is wrong with each host |
//! | D13 | with several providers of cryptography in the process it panics | `tls::Tls` chooses one before |
//!
//! A connection that is silent for a quarter of the session timeout is closed, and so is an attempt to connect that is not
//! answered for as long. So a server that replies within less than that can be used.
//!
//! A request while the session is suspended waits until the connection is up again or the session is lost. A caller that
//! cannot wait uses a `select!` with [`Session::state`].

mod convert;
mod dial;
mod host;
mod link;
mod probe;
mod reconnect;
mod resolve;
mod session;
mod survey;

#[cfg(feature = "testing")]
use std::net::IpAddr;
use std::{fmt, sync::Arc, time::Duration};

pub use self::host::{HostError, HostPort, Hosts};
use self::{
    dial::{Dialer, Login, Scheme},
    session::ZooKeeperSession,
};
use super::{BoxFuture, Connector, Error, MAX_REQUEST_BYTES, Session};
#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::{
    clock::{BootClock, Clock},
    task::Tasks,
};

/// Opens sessions to a ZooKeeper ensemble.
///
/// ```no_run
/// # async fn example() -> Result<(), Box<dyn std::error::Error>> {
/// use std::time::Duration;
///
/// use apportion::backend::{Connector, zookeeper::ZooKeeper};
///
/// let zookeeper = ZooKeeper::new("zk1:2181,zk2:2181".parse()?).digest("user", "password");
/// let session = zookeeper.open(Duration::from_secs(10)).await?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ZooKeeper {
    dialer: Dialer,
    max_request_bytes: usize,
}

impl ZooKeeper {
    /// Opens sessions to the servers at `hosts`, without credentials. Every client can access the znodes that they
    /// create.
    pub fn new(hosts: Hosts) -> Self {
        ZooKeeper { dialer: Dialer::new(hosts), max_request_bytes: MAX_REQUEST_BYTES }
    }

    /// Sets the largest request that is sent, in bytes. Default: [`MAX_REQUEST_BYTES`]. If the `jute.maxbuffer` of the
    /// servers is not the default of 1 MiB, set it to about a kilobyte less than that.
    #[must_use]
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.max_request_bytes = bytes;
        self
    }

    /// Authenticates each session as `user`. Only this user with this password can access the znodes that these
    /// sessions create.
    ///
    /// The name of the user cannot contain `:`.
    #[must_use]
    pub fn digest(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.dialer.login =
            Some(Login { scheme: Scheme::Digest, user: user.into(), password: password.into() });
        self
    }

    /// Authenticates each session as `user` over SASL with the mechanism DIGEST-MD5, as servers with
    /// `authProvider.sasl` know it. Only this user can access the znodes that these sessions create: their access control
    /// lists have the scheme `sasl`. It replaces [`ZooKeeper::digest`].
    #[cfg(feature = "sasl")]
    #[must_use]
    pub fn sasl_digest_md5(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        let (user, password) = (user.into(), password.into());
        self.dialer.login = Some(Login { scheme: Scheme::SaslDigestMd5, user, password });
        self
    }

    /// Encrypts the connections. All servers must accept TLS at their addresses (`secureClientPort`).
    ///
    /// If a name has several addresses, the first that accepts connections is used, because the certificate belongs to
    /// the name: one that drops packets or is silent keeps sessions from being opened.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.dialer.tls = Some(tls);
        self
    }

    /// Uses these addresses instead of those that a name server gives for `host`: for tests.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn resolve_as(mut self, host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.dialer.addresses.give(host, addresses);
        self
    }
}

impl Connector for ZooKeeper {
    /// Opens a new session.
    ///
    /// The session lives on the runtime that runs this future, and ends with it (D7). If the future is dropped while
    /// the server creates the session, that session expires after `timeout`. It owns nothing.
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, Error>> {
        Box::pin(async move {
            let tasks = Arc::new(Tasks::new());
            let mut dialer = self.dialer.clone();
            let (link, requested) = dialer.connect(timeout, &tasks).await?;
            let session: Arc<dyn Session> =
                Arc::new(ZooKeeperSession::new(link, dialer, requested, self.max_request_bytes, tasks));
            Ok(session)
        })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(BootClock)
    }
}

impl fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeper").field("dialer", &self.dialer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_hosts_and_user_but_never_the_password() {
        let zookeeper = ZooKeeper::new("zk1,[::1]:2182".parse().unwrap()).digest("ember", "secret");
        let shown = format!("{zookeeper:?}");
        assert!(shown.contains("zk1:2181,[::1]:2182") && shown.contains("ember"), "{shown}");
        assert!(!shown.contains("secret"), "{shown}");
    }
}
