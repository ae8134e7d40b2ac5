//! [`Addresses`]: which addresses the servers have at this moment.
//!
//! The client crate connects to a name through the first of its addresses that accepts. One that drops packets, or accepts
//! and is silent, kept it from ever connecting (D12). So it gets single addresses, and names are looked up here.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use futures_util::future::join_all;
use tokio::time::timeout;

use super::host::{HostPort, Hosts};

/// The hosts, and the addresses that were found for each the last time.
#[derive(Clone)]
pub(super) struct Addresses {
    hosts: Hosts,
    /// Names whose addresses are given instead of being looked up.
    given: Vec<(String, Vec<IpAddr>)>,
    /// In the order of the hosts.
    found: Vec<Vec<SocketAddr>>,
}

impl Addresses {
    pub(super) fn new(hosts: Hosts) -> Self {
        let found = hosts.iter().map(|_| Vec::new()).collect();
        Addresses { hosts, given: Vec::new(), found }
    }

    pub(super) fn hosts(&self) -> &Hosts {
        &self.hosts
    }

    /// From now on this name has these addresses.
    #[cfg(feature = "testing")]
    pub(super) fn give(&mut self, name: &str, addresses: impl IntoIterator<Item = IpAddr>) {
        self.given.push((name.to_owned(), addresses.into_iter().collect()));
    }

    /// Looks up all names. A host keeps the addresses that it had if its name does not resolve at the moment, or not
    /// soon: within a quarter of `session_timeout` the first time, a twentieth later.
    pub(super) async fn look_up(&mut self, session_timeout: Duration) {
        let lookups = self.hosts.iter().zip(&self.found).map(|(host, before)| {
            self.resolve(host, session_timeout / if before.is_empty() { 4 } else { 20 })
        });
        let found = join_all(lookups).await;
        for (before, found) in self.found.iter_mut().zip(found) {
            if let Ok(found) = found {
                *before = found;
            }
        }
    }

    /// Connection strings for the client crate: all addresses, each once.
    pub(super) fn targets(&self) -> Vec<String> {
        let mut targets = Vec::new();
        for (host, found) in self.hosts.iter().zip(&self.found) {
            for address in found {
                let target = match address {
                    // The crate cannot read such an address.
                    SocketAddr::V6(address) if address.scope_id() != 0 => host.to_string(),
                    address => address.to_string(),
                };
                if !targets.contains(&target) {
                    targets.push(target);
                }
            }
        }
        targets
    }

    /// The addresses of one host, each once.
    pub(super) async fn resolve(&self, host: &HostPort, limit: Duration) -> Result<Vec<SocketAddr>, String> {
        let given = self.given.iter().find(|(name, _)| name == host.host());
        let looking_up = async {
            match given {
                Some((_, addresses)) => {
                    Ok(addresses.iter().map(|address| SocketAddr::new(*address, host.port())).collect())
                }
                None => async_net::resolve((host.host(), host.port())).await,
            }
        };
        let found: io::Result<Vec<_>> =
            timeout(limit, looking_up).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let mut addresses = found.map_err(|error| error.to_string())?;
        let mut seen = Vec::new();
        addresses.retain(|address| {
            let is_new = !seen.contains(address);
            seen.push(*address);
            is_new
        });
        if addresses.is_empty() { Err("it has no address".into()) } else { Ok(addresses) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn each_address_is_a_target_once() {
        let mut addresses = Addresses::new("a,[::1],127.0.0.1:7,b".parse().unwrap());
        addresses.given = vec![
            ("a".into(), ["10.0.0.1", "::1", "10.0.0.1"].map(|ip| ip.parse().unwrap()).into()),
            ("b".into(), Vec::new()),
        ];
        assert!(addresses.targets().is_empty());
        addresses.look_up(LONG).await;
        assert_eq!(addresses.targets(), ["10.0.0.1:2181", "[::1]:2181", "127.0.0.1:7"]);
    }

    #[tokio::test]
    async fn a_name_that_no_longer_resolves_keeps_its_addresses_and_one_that_moves_gets_the_new_ones() {
        let mut addresses = Addresses::new("a".parse().unwrap());
        for (given, target) in
            [("10.0.0.1", "10.0.0.1:2181"), ("", "10.0.0.1:2181"), ("10.0.0.2", "10.0.0.2:2181")]
        {
            addresses.given = vec![("a".into(), given.parse().into_iter().collect())];
            addresses.look_up(LONG).await;
            assert_eq!(addresses.targets(), [target]);
        }
    }
}
