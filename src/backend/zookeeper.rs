//! The ZooKeeper backend: a [`Connector`] over the crate `zookeeper-client`. No other file than this one and
//! those below it names that crate, and none of its types leaves them.
//!
//! The crate was measured against real servers before it was chosen. These are the defects and limits found
//! in 0.11.2, and what guards against each:
//!
//! | | defect | guard |
//! |---|---|---|
//! | D1 | persistent watches go silent after a reconnect | one-shot watches only; the crate sets those again |
//! | D2 | pending requests fail with one of several errors when a connection breaks | `convert::error`: everything that is no verdict of a server is [`Error::Unknown`] |
//! | D3 | its lock recipe gives up on those errors | no recipe of the crate is used, only single requests and transactions |
//! | D4 | `tcp+tls://` without TLS options spins for ever and blocks the thread | [`HostPort`] admits names and addresses only, no schemes |
//! | D5 | the delay between attempts to reconnect grows without a cap | [`Hosts`] lists addresses several times for the crate, which flattens the growth; the supervisor above gives a suspended session up |
//! | D6 | it notices an expired session only 1.4 to 1.8 timeouts after contact was lost | as for D5: the supervisor does not wait for it; requests are raced against [`Session::close`] |
//! | D7 | state changes coalesce; nothing is heard any more once the runtime that opened the session is gone | each connection counts as a new epoch; the forwarding task ends with that runtime and then says [`Loss::Closed`] |
//! | D8 | without its feature `tokio` it panics on connect | the feature is fixed in our manifest |
//! | D9 | more than 128 KiB of watched paths are set again wrongly | watches are few: one for a group |
//! | D10 | sessions to read-only servers fail | never asked for: a coordinator cannot use stale reads anyway |
//!
//! A request that is made while the session is suspended waits until the connection is back or the session
//! is lost; it may be sent even if its future is dropped meanwhile. Callers race requests against
//! [`Session::state`].

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
    /// Sessions to the servers at `hosts`, without credentials: znodes are created open to everyone.
    pub fn new(hosts: Hosts) -> Self {
        ZooKeeper { hosts, digest: None, max_request_bytes: MAX_REQUEST_BYTES }
    }

    /// The largest request that is sent, in bytes; [`MAX_REQUEST_BYTES`] without it. Set it if the `jute.maxbuffer` of the
    /// servers is not the usual 1 MiB, to about a kilobyte less than that.
    #[must_use]
    pub fn max_request_bytes(mut self, bytes: usize) -> Self {
        self.max_request_bytes = bytes;
        self
    }

    /// Authenticates each session as `user`, and creates each znode with one access control entry: everything
    /// is permitted to that user with that password, and nothing to anybody else.
    ///
    /// The user ends at the first `:`, so its name can contain none.
    #[must_use]
    pub fn digest(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.digest = Some(Digest { user: user.into(), password: password.into() });
        self
    }

    async fn connect(&self, timeout: Duration) -> Result<zk::Client, Error> {
        // The protocol counts milliseconds in 31 bits, and the crate reads zero as its own default.
        let timeout = timeout.clamp(Duration::from_millis(1), Duration::from_millis(i32::MAX as u64));
        let mut connector = zk::Client::connector()
            .with_session_timeout(timeout)
            // Silence suspends the session after T/5 instead of 0.4 T: ephemeral znodes then live for another
            // 0.78 T, which is the time that the owner has to stop.
            .with_connection_timeout(timeout / 5)
            .with_readonly(false); // D10
        if let Some(Digest { user, password }) = &self.digest {
            connector = connector.with_auth("digest", format!("{user}:{password}").as_bytes());
        }
        let hosts = self.hosts.repeated_for(timeout); // D5
        let unreachable = |why: &dyn fmt::Display| Error::Unreachable(format!("{}: {why}", self.hosts));
        // A name server that does not answer blocks the crate for longer than the timeout it was given.
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
    /// The session lives on the runtime on which this runs, and may not outlive it (D7). If the future is
    /// dropped while the server is creating the session, that session ends by itself after `timeout`; it owns
    /// nothing.
    fn open(&self, timeout: Duration) -> BoxFuture<'_, Result<Arc<dyn Session>, Error>> {
        Box::pin(async move {
            let client = self.connect(timeout).await?;
            // The server stores `auth` as what the session is authenticated as: one entry `digest` with the
            // hash of user and password, as every client computes it.
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
