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
//! | D5 | the delay between attempts to reconnect grows without a cap | [`Hosts`] lists addresses several times for the crate, so that the delay grows more slowly; the coordinator gives up a suspended session |
//! | D6 | it notices an expired session only 1.4 to 1.8 timeouts after contact was lost | as for D5: the coordinator does not wait for it; [`Session::close`] ends requests that wait |
//! | D7 | state changes coalesce; none comes any more once the runtime that opened the session has ended | each connection is a new epoch; the forwarding task ends with that runtime and reports [`Loss::Closed`] |
//! | D8 | without its feature `tokio` it panics on connect | the feature is always enabled |
//! | D9 | more than 128 KiB of watched paths are set again wrongly | watches are few: one for a group |
//! | D10 | sessions to read-only servers fail | such sessions are never requested: a coordinator cannot use stale reads |
//!
//! A request while the session is suspended waits until the connection is up again or the session is lost. It may be
//! sent even if its future is dropped meanwhile. A caller that cannot wait uses a `select!` with [`Session::state`].

mod convert;
mod host;
mod session;

use std::{fmt, sync::Arc, time::Duration};

use zookeeper_client as zk;

pub use self::host::{HostError, HostPort, Hosts};
use self::session::ZooKeeperSession;
use super::{BoxFuture, Connector, Error, Loss, MAX_REQUEST_BYTES, Session};
use crate::clock::{BootClock, Clock};

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
    hosts: Hosts,
    digest: Option<Digest>,
    max_request_bytes: usize,
}

/// Credentials of the scheme `digest`.
#[derive(Clone)]
struct Digest {
    user: String,
    password: String,
}

impl ZooKeeper {
    /// Opens sessions to the servers at `hosts`, without credentials. Every client can access the znodes that they
    /// create.
    pub fn new(hosts: Hosts) -> Self {
        ZooKeeper { hosts, digest: None, max_request_bytes: MAX_REQUEST_BYTES }
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
        self.digest = Some(Digest { user: user.into(), password: password.into() });
        self
    }

    async fn connect(&self, timeout: Duration) -> Result<zk::Client, Error> {
        // The protocol counts milliseconds in 31 bits, and for the crate zero means its own default.
        let timeout = timeout.clamp(Duration::from_millis(1), Duration::from_millis(i32::MAX as u64));
        let mut connector = zk::Client::connector()
            .with_session_timeout(timeout)
            // Without replies the session is suspended after T/5 instead of 0.4 T. Its ephemeral znodes live for
            // another 0.78 T, in which the owner can stop.
            .with_connection_timeout(timeout / 5)
            .with_readonly(false); // D10
        if let Some(Digest { user, password }) = &self.digest {
            connector = connector.with_auth("digest", format!("{user}:{password}").as_bytes());
        }
        let hosts = self.hosts.repeated_for(timeout); // D5
        let unreachable = |why: &dyn fmt::Display| Error::Unreachable(format!("{}: {why}", self.hosts));
        // A name server that does not answer blocks the crate for longer than its timeout.
        match tokio::time::timeout(timeout, connector.connect(&hosts)).await {
            Ok(Ok(client)) => Ok(client),
            Ok(Err(zk::Error::AuthFailed)) => Err(Error::Lost(Loss::AuthFailed)),
            Ok(Err(error)) => Err(unreachable(&error)),
            Err(_) => Err(unreachable(&format_args!("no session within {timeout:?}"))),
        }
    }
}

impl Connector for ZooKeeper {
    /// Opens a new session.
    ///
    /// The session lives on the runtime that runs this future, and ends with it (D7). If the future is dropped while
    /// the server creates the session, that session expires after `timeout`. It owns nothing.
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, Error>> {
        Box::pin(async move {
            let client = self.connect(timeout).await?;
            // For `auth` the server stores the identity of the session: one entry `digest` with the hash of user and
            // password, as every client computes it.
            let acls = if self.digest.is_some() { zk::Acls::creator_all() } else { zk::Acls::anyone_all() };
            let session: Arc<dyn Session> =
                Arc::new(ZooKeeperSession::new(client, acls, self.max_request_bytes));
            Ok(session)
        })
    }

    fn clock(&self) -> Arc<dyn Clock> {
        Arc::new(BootClock)
    }
}

impl fmt::Debug for ZooKeeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ZooKeeper")
            .field("hosts", &format_args!("{}", self.hosts))
            .field("user", &self.digest.as_ref().map(|digest| &digest.user))
            .finish_non_exhaustive()
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
