//! [`Dialer`]: which servers a session connects to, and with which credentials.

use std::{sync::Arc, time::Duration};

use tokio::time::sleep;
use zookeeper_client as zk;

use super::{
    super::{Error, Loss},
    host::Hosts,
    link::{Link, silence},
};
use crate::{
    clock::{BootClock, Clock, Moment},
    random::Random,
    task::Tasks,
};

/// The pause after all hosts were tried: this part of the session timeout, and its bounds.
const PAUSE_PART: u32 = 40;
const SHORTEST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// The pause between two rounds over all hosts. `random` is from zero to one.
pub(super) fn pause(session_timeout: Duration, random: f64) -> Duration {
    let longest = (session_timeout / PAUSE_PART).clamp(SHORTEST_PAUSE, LONGEST_PAUSE);
    longest.mul_f64(0.5 + 0.5 * random)
}

/// See the module documentation.
#[derive(Clone)]
pub(super) struct Dialer {
    pub(super) hosts: Hosts,
    pub(super) digest: Option<Digest>,
}

/// Credentials of the scheme `digest`.
#[derive(Clone)]
pub(super) struct Digest {
    pub(super) user: String,
    pub(super) password: String,
}

impl Dialer {
    pub(super) fn new(hosts: Hosts) -> Self {
        Dialer { hosts, digest: None }
    }

    /// Whether the access control list of new znodes excludes other clients.
    pub(super) fn is_private(&self) -> bool {
        self.digest.is_some()
    }

    /// The access control list of new znodes.
    pub(super) fn acls(&self) -> zk::Acls<'static> {
        // For `auth` the server stores the identity of the session: one entry `digest` with the hash of user and
        // password, as every client computes it.
        if self.is_private() { zk::Acls::creator_all() } else { zk::Acls::anyone_all() }
    }

    /// The settings of a client of the crate, for a session of this timeout.
    pub(super) fn connector(&self, timeout: Duration) -> zk::Connector {
        let connector = zk::Client::connector()
            .with_session_timeout(timeout)
            .with_connection_timeout(silence(timeout))
            .with_readonly(false); // D10
        match &self.digest {
            Some(Digest { user, password }) => {
                connector.with_auth("digest", format!("{user}:{password}").as_bytes())
            }
            None => connector,
        }
    }

    /// The connection strings of the single hosts.
    pub(super) fn hosts_in_random_order(&self, random: &Random) -> Vec<String> {
        let mut hosts: Vec<_> = self.hosts.iter().map(ToString::to_string).collect();
        random.shuffle(&mut hosts);
        hosts
    }

    /// Opens the first connection of a new session; also returns when the session was asked for.
    pub(super) async fn connect(
        &self,
        timeout: Duration,
        tasks: &Arc<Tasks>,
    ) -> Result<(Link, Moment), Error> {
        // The protocol counts milliseconds in 31 bits, and for the crate zero means its own default.
        let timeout = timeout.clamp(Duration::from_millis(1), Duration::from_millis(i32::MAX as u64));
        let random = Random::new(None);
        let connecting = async {
            loop {
                for host in self.hosts_in_random_order(&random) {
                    let requested = BootClock.now();
                    match Link::open(self.connector(timeout), &host, tasks).await {
                        Ok(link) => return Ok((link, requested)),
                        Err(zk::Error::AuthFailed) => return Err(Error::Lost(Loss::AuthFailed)),
                        Err(_) => {}
                    }
                }
                sleep(pause(timeout, random.unit())).await;
            }
        };
        // A name server that does not answer blocks the crate for longer than its timeout.
        let connected = tokio::time::timeout(timeout, connecting).await;
        connected.unwrap_or_else(|_| {
            Err(Error::Unreachable(format!("{}: no session within {timeout:?}", self.hosts)))
        })
    }
}
