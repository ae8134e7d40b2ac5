//! [`Dialer`]: which servers a session connects to, in which order, and with which credentials.

use std::{fmt, pin::pin, sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use tokio::time::sleep;
use zookeeper_client as zk;

use super::{
    super::{Error, Loss},
    host::Hosts,
    link::{Link, counts_as_silent, silence},
    probe::Encryption,
    resolve::Addresses,
    survey::Survey,
};
#[cfg(feature = "tls")]
use crate::tls::Tls;
use crate::{
    clock::{BootClock, Clock, Moment},
    random::Random,
    task::Tasks,
};

/// The pause after all servers were tried: this part of the session timeout, and its bounds.
const PAUSE_PART: u32 = 40;
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The pause between two rounds over all servers. `random` is from zero to one.
pub(super) fn pause(session_timeout: Duration, random: f64) -> Duration {
    let longest = (session_timeout / PAUSE_PART).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    longest.mul_f64(0.5 + 0.5 * random)
}

/// See the module documentation. Each session has one of its own.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) addresses: Addresses,
    pub(super) login: Option<Login>,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<Tls>,
    /// What [`Dialer::prepare`] has made.
    connector: zk::Connector,
    encryption: Option<Encryption>,
    /// The targets that did not answer last. They are tried after the others.
    silent: Vec<String>,
}

/// Credentials.
#[derive(Clone)]
pub(super) struct Login {
    pub(super) scheme: Scheme,
    pub(super) user: String,
    pub(super) password: String,
}

#[derive(Clone, Copy)]
pub(super) enum Scheme {
    Digest,
    #[cfg(feature = "sasl")]
    SaslDigestMd5,
}

impl Dialer {
    pub(super) fn new(hosts: Hosts) -> Self {
        Dialer {
            addresses: Addresses::new(hosts),
            login: None,
            #[cfg(feature = "tls")]
            tls: None,
            connector: zk::Client::connector(),
            encryption: None,
            silent: Vec::new(),
        }
    }

    /// Whether the access control list of new znodes excludes other clients.
    pub(super) fn is_private(&self) -> bool {
        self.login.is_some()
    }

    /// The access control list of new znodes.
    pub(super) fn acls(&self) -> zk::Acls<'static> {
        // For `auth` the server stores the identity of the session: for `digest` one entry with the hash of user and
        // password, as every client computes it.
        if self.is_private() { zk::Acls::creator_all() } else { zk::Acls::anyone_all() }
    }

    /// Gets ready to open connections of a session of this timeout: reads the files for TLS.
    pub(super) fn prepare(&mut self, timeout: Duration) -> Result<(), Error> {
        let mut connector = zk::Client::connector()
            .with_session_timeout(timeout)
            .with_connection_timeout(silence(timeout))
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
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let unusable = |error: &dyn fmt::Display| Error::Unreachable(error.to_string());
            let loaded = tls.load().map_err(|error| unusable(&error))?;
            let mut options =
                zk::TlsOptions::new().with_pem_ca(&loaded.ca).map_err(|error| unusable(&error))?;
            if let Some((certificates, key)) = &loaded.identity {
                options = options.with_pem_identity(certificates, key).map_err(|error| unusable(&error))?;
            }
            connector = connector.with_tls(options);
            self.encryption = Some(loaded.config.into());
        }
        self.connector = connector;
        Ok(())
    }

    /// The settings of a client of the crate, for the session of [`Dialer::prepare`].
    pub(super) fn connector(&self) -> zk::Connector {
        self.connector.clone()
    }

    /// The connection strings of all servers, in random order, those that did not answer last at the end. There is one
    /// for each address. With TLS there is one for each host: a certificate belongs to a name.
    pub(super) async fn targets(&mut self, session_timeout: Duration, random: &Random) -> Vec<String> {
        let mut targets = if self.encryption.is_some() {
            self.addresses.hosts().iter().map(|host| format!("tcp+tls://{host}")).collect()
        } else {
            self.addresses.look_up(session_timeout).await;
            self.addresses.targets()
        };
        random.shuffle(&mut targets);
        self.silent.retain(|silent| targets.contains(silent));
        targets.sort_by_key(|target| self.silent.contains(target));
        targets
    }

    /// Notes whether a server has answered, for the order of the next attempts.
    pub(super) fn note(&mut self, target: &str, is_silent: bool) {
        self.silent.retain(|silent| silent != target);
        if is_silent {
            self.silent.push(target.to_owned());
        }
    }

    /// Opens the first connection of a new session; also returns when the session was asked for.
    pub(super) async fn connect(
        &mut self,
        timeout: Duration,
        tasks: &Arc<Tasks>,
    ) -> Result<(Link, Moment), Error> {
        // The protocol counts milliseconds in 31 bits, and for the crate zero means its own default.
        let timeout = timeout.clamp(Duration::from_millis(1), Duration::from_millis(i32::MAX as u64));
        self.prepare(timeout)?;
        let (end, addresses, encryption) = (sleep(timeout), self.addresses.clone(), self.encryption.clone());
        // While further attempts are made, it is found out why there is no session yet.
        let reasons = async {
            sleep(timeout / 2).await;
            let survey = Survey::take(&addresses, encryption.as_ref(), timeout / 5).await;
            end.await;
            Err(Error::Unreachable(format!("no session within {timeout:?}: {survey}")))
        };
        let connecting = async {
            let random = Random::new(None);
            loop {
                let targets = self.targets(timeout, &random).await;
                if let Some(connected) = self.connect_to_one(&targets, timeout, tasks).await? {
                    return Ok(connected);
                }
                sleep(pause(timeout, random.unit())).await;
            }
        };
        tokio::select! {
            biased;
            connected = connecting => connected,
            reasons = reasons => reasons,
        }
    }

    /// Opens a new session at one of `targets`. Each has its share of the time; then the next one is tried as well. So a
    /// silent server delays the others, and prevents nothing, and a slow one has all the time that it may take.
    ///
    /// A session that a server opens later than another one belongs to no client, and owns nothing.
    async fn connect_to_one(
        &mut self,
        targets: &[String],
        timeout: Duration,
        tasks: &Arc<Tasks>,
    ) -> Result<Option<(Link, Moment)>, Error> {
        let share =
            silence(timeout).min(timeout / (u32::try_from(targets.len()).unwrap_or(u32::MAX - 1) + 1));
        let mut rest = targets.iter().map(String::as_str);
        let mut attempts = FuturesUnordered::new();
        let mut under_way = Vec::new();
        let mut next = pin!(sleep(Duration::ZERO));
        loop {
            tokio::select! {
                biased;
                Some((target, is_silent, opened)) = attempts.next() => {
                    under_way.retain(|other| *other != target);
                    self.note(target, is_silent);
                    match opened {
                        Ok(connected) => {
                            under_way.into_iter().for_each(|silent| self.note(silent, true));
                            return Ok(Some(connected));
                        }
                        Err(zk::Error::AuthFailed) => return Err(Error::Lost(Loss::AuthFailed)),
                        Err(_) => next.set(sleep(Duration::ZERO)),
                    }
                }
                () = &mut next, if rest.len() > 0 => {
                    let Some(target) = rest.next() else { continue };
                    let connector = self.connector();
                    under_way.push(target);
                    attempts.push(async move {
                        let requested = BootClock.now();
                        let opened = Link::open(connector, target, tasks).await;
                        let took = BootClock.now().saturating_since(requested);
                        let is_silent = opened.is_err() && counts_as_silent(took, timeout);
                        (target, is_silent, opened.map(|link| (link, requested)))
                    });
                    next.set(sleep(share));
                }
                else => return Ok(None),
            }
        }
    }
}

impl fmt::Debug for Dialer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialer")
            .field("hosts", &format_args!("{}", self.addresses.hosts()))
            .field("user", &self.login.as_ref().map(|login| &login.user))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_at_which_the_first_connection_timed_out_is_tried_last() {
        const TIMEOUT: Duration = Duration::from_secs(2);
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let closing = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let targets = [&silent, &closing].map(|listener| listener.local_addr().unwrap().to_string());
        let mut dialer = Dialer::new(targets.join(",").parse().unwrap());
        dialer.prepare(TIMEOUT).unwrap();
        let tasks = Arc::new(Tasks::new());
        let close_each = async {
            while let Ok((connection, _)) = closing.accept().await {
                drop(connection);
            }
        };
        tokio::select! {
            biased;
            () = close_each => panic!("the listener has ended"),
            opened = dialer.connect_to_one(&targets, TIMEOUT, &tasks) => assert!(matches!(opened, Ok(None))),
        }
        assert_eq!(dialer.silent, [targets[0].clone()]);
    }
}
