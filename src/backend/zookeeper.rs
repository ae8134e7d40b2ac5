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
//! | D11 | it connects to a name through the first of its addresses, even if that is dead, and says only that it has timed out | `resolve`: the addresses are asked before, and the crate gets those that answer |
//! | D12 | with several providers of cryptography in the process it panics | `tls::Tls` chooses one before |
//!
//! A request while the session is suspended waits until the connection is up again or the session is lost. It may be
//! sent even if its future is dropped meanwhile. A caller that cannot wait uses a `select!` with [`Session::state`].

mod convert;
mod host;
mod probe;
mod resolve;
mod session;

#[cfg(feature = "testing")]
use std::net::IpAddr;
use std::{fmt, sync::Arc, time::Duration};

use zookeeper_client as zk;

pub use self::host::{HostError, HostPort, Hosts};
use self::{
    probe::Encryption,
    resolve::{Given, Survey},
    session::ZooKeeperSession,
};
use super::{BoxFuture, Connector, Error, Loss, MAX_REQUEST_BYTES, Session};
use crate::clock::{BootClock, Clock};
#[cfg(feature = "tls")]
use crate::tls::Tls;

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
    login: Option<Login>,
    max_request_bytes: usize,
    #[cfg(feature = "tls")]
    tls: Option<Tls>,
    given: Given,
}

/// Credentials.
#[derive(Clone)]
struct Login {
    scheme: Scheme,
    user: String,
    password: String,
}

#[derive(Clone, Copy)]
enum Scheme {
    Digest,
    #[cfg(feature = "sasl")]
    SaslDigestMd5,
}

impl ZooKeeper {
    /// Opens sessions to the servers at `hosts`, without credentials. Every client can access the znodes that they
    /// create.
    pub fn new(hosts: Hosts) -> Self {
        ZooKeeper {
            hosts,
            login: None,
            max_request_bytes: MAX_REQUEST_BYTES,
            #[cfg(feature = "tls")]
            tls: None,
            given: Given::new(),
        }
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
        self.login = Some(Login { scheme: Scheme::Digest, user: user.into(), password: password.into() });
        self
    }

    /// Authenticates each session as `user` over SASL with the mechanism DIGEST-MD5, as servers with
    /// `authProvider.sasl` know it. Only this user can access the znodes that these sessions create: their access control
    /// lists have the scheme `sasl`. It replaces [`ZooKeeper::digest`].
    #[cfg(feature = "sasl")]
    #[must_use]
    pub fn sasl_digest_md5(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        let (user, password) = (user.into(), password.into());
        self.login = Some(Login { scheme: Scheme::SaslDigestMd5, user, password });
        self
    }

    /// Encrypts the connections. All servers must accept TLS at their addresses (`secureClientPort`).
    ///
    /// If a name has several addresses, the first that accepts connections is used, because the certificate belongs to
    /// the name.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Uses these addresses instead of those that a name server gives for `host`: for tests.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn resolve_as(mut self, host: &str, addresses: impl IntoIterator<Item = IpAddr>) -> Self {
        self.given.push((host.to_owned(), addresses.into_iter().collect()));
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
        match &self.login {
            None => {}
            Some(Login { scheme: Scheme::Digest, user, password }) => {
                connector = connector.with_auth("digest", format!("{user}:{password}").as_bytes());
            }
            #[cfg(feature = "sasl")]
            Some(Login { scheme: Scheme::SaslDigestMd5, user, password }) => {
                connector = connector.with_sasl(zk::SaslOptions::digest_md5(user.clone(), password.clone()));
            }
        }
        let encryption: Option<Encryption> = None;
        #[cfg(feature = "tls")]
        let encryption = match &self.tls {
            None => encryption,
            Some(tls) => {
                let unusable = |error: &dyn fmt::Display| Error::Unreachable(error.to_string());
                let loaded = tls.load().map_err(|error| unusable(&error))?;
                let mut options =
                    zk::TlsOptions::new().with_pem_ca(&loaded.ca).map_err(|error| unusable(&error))?;
                if let Some((certificates, key)) = &loaded.identity {
                    options =
                        options.with_pem_identity(certificates, key).map_err(|error| unusable(&error))?;
                }
                connector = connector.with_tls(options);
                Some(loaded.config.into())
            }
        };
        let begin = BootClock.now();
        let survey = |share| Survey::take(&self.hosts, &self.given, encryption.as_ref(), share);
        let before = survey(timeout / 5).await;
        let hosts = before.hosts(encryption.is_some()).repeated_for(timeout); // D5
        #[cfg(feature = "tls")]
        let connecting = async {
            match encryption {
                None => connector.connect(&hosts).await,
                Some(_) => connector.secure_connect(&hosts).await,
            }
        };
        #[cfg(not(feature = "tls"))]
        let connecting = connector.connect(&hosts);
        // The end is for finding out why there is no session.
        let rest = timeout * 9 / 10;
        let rest = rest.saturating_sub(BootClock.now().saturating_since(begin));
        // A name server that does not answer blocks the crate for longer than its timeout.
        let error = match tokio::time::timeout(rest, connecting).await {
            Ok(Ok(client)) => return Ok(client),
            Ok(Err(zk::Error::AuthFailed)) => return Err(Error::Lost(Loss::AuthFailed)),
            Err(_) | Ok(Err(zk::Error::Timeout)) => format!("no session within {timeout:?}"),
            Ok(Err(error)) => error.to_string(),
        };
        let survey = survey(timeout / 20).await.after(before);
        Err(Error::Unreachable(format!("{error}: {survey}")))
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
            let acls = if self.login.is_some() { zk::Acls::creator_all() } else { zk::Acls::anyone_all() };
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
            .field("user", &self.login.as_ref().map(|login| &login.user))
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
