// Pure: no runtime, no clock, no socket, no random numbers.

//! [`Hosts`] and [`HostPort`], the validated addresses of an ensemble.

use std::{fmt, net::Ipv6Addr, str::FromStr};

use crate::host::{self, HostProblem};

/// The address of one server: a host name, an IPv4 or an IPv6 address, and a port.
///
/// As text: `host`, `host:port`, `[::1]` or `[::1]:port`; the default port is 2181. There is no scheme: the client
/// crate loops for ever on `tcp+tls://` if TLS is not configured (D4).
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct HostPort {
    host: Box<str>,
    port: u16,
}

/// The addresses of an ensemble, at least one. As text: [`HostPort`]s separated by commas.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Hosts(Vec<HostPort>);

/// Why a text is not the address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HostError {
    /// There is no address, or nothing between two commas.
    #[error("a host is missing")]
    Missing,
    /// It is neither a host name nor an IP address. This is the text, without what may be a password.
    #[error(
        "`{0}` is neither a host name nor an IP address (an IPv6 address needs brackets, and a scheme or path is not allowed)"
    )]
    Host(String),
    /// The port is invalid. This is the text, without what may be a password.
    #[error("`{0}`: {problem}", problem = HostProblem::Port)]
    Port(String),
}

impl HostError {
    fn new(text: &str, problem: HostProblem) -> Self {
        let shown = || host::shown(text).to_string();
        match problem {
            HostProblem::Empty | HostProblem::NoHost => HostError::Missing,
            HostProblem::Port => HostError::Port(shown()),
            _ => HostError::Host(shown()),
        }
    }
}

impl HostPort {
    /// The default port of ZooKeeper.
    pub const DEFAULT_PORT: u16 = 2181;

    /// The server at `host`, a name or address without brackets.
    ///
    /// # Errors
    ///
    /// [`HostError`] if `host` is neither, or `port` is 0.
    pub fn new(host: &str, port: u16) -> Result<Self, HostError> {
        if host.parse::<Ipv6Addr>().is_err() {
            host::check(host).map_err(|problem| HostError::new(host, problem))?;
        }
        if port == 0 {
            return Err(HostError::new(&host::join(host, port), HostProblem::Port));
        }
        Ok(HostPort { host: host.into(), port })
    }

    /// The name or address, without brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for HostPort {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        let (host, port) = host::split(text).map_err(|problem| HostError::new(text, problem))?;
        Ok(HostPort { host: host.into(), port: port.unwrap_or(HostPort::DEFAULT_PORT) })
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&host::join(&self.host, self.port))
    }
}

impl fmt::Debug for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Hosts {
    /// The ensemble of the servers `hosts`.
    ///
    /// # Errors
    ///
    /// [`HostError::Missing`] if there is none.
    pub fn new(hosts: impl IntoIterator<Item = HostPort>) -> Result<Self, HostError> {
        let hosts: Vec<_> = hosts.into_iter().collect();
        if hosts.is_empty() { Err(HostError::Missing) } else { Ok(Hosts(hosts)) }
    }

    /// The addresses, in the given order. The client tries them in random order.
    pub fn iter(&self) -> impl Iterator<Item = &HostPort> {
        self.0.iter()
    }
}

impl FromStr for Hosts {
    type Err = HostError;

    fn from_str(text: &str) -> Result<Self, HostError> {
        text.split(',').map(str::parse).collect::<Result<_, _>>().map(Hosts)
    }
}

impl fmt::Display for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, host) in self.0.iter().enumerate() {
            write!(f, "{}{host}", if index == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Hosts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_are_names_and_addresses_with_a_port() {
        for (text, shown) in [
            ("zk1", "zk1:2181"),
            ("zk1:2182", "zk1:2182"),
            ("zk-1.example.net.:1", "zk-1.example.net.:1"),
            ("zk_1:65535", "zk_1:65535"),
            ("127.0.0.1:2181", "127.0.0.1:2181"),
            ("[::1]", "[::1]:2181"),
            ("[2001:db8::7]:2182", "[2001:db8::7]:2182"),
            ("a,b:1,[::1]:3", "a:2181,b:1,[::1]:3"),
        ] {
            assert_eq!(text.parse::<Hosts>().unwrap().to_string(), shown);
        }
        assert_eq!(HostPort::new("::1", 7).unwrap().to_string(), "[::1]:7");
    }

    #[test]
    fn texts_that_the_client_crate_cannot_handle_are_refused() {
        for bad in [
            "",
            ",",
            "a,",
            ",a",
            "a,,b",
            ":2181",
            "a:",
            "a:0",
            "a:65536",
            "a:+1",
            "a:b",
            "a:1:2",
            "::1",
            "[::1",
            "[::1]2181",
            "[]:1",
            "[a]:1",
            "[::1]:",
            "[fe80::1%eth0]:1",
            "tcp://a",
            "tcp+tls://a",
            "tcp+tls://a:2281",
            "a/chroot",
            "a:2181/chroot",
            "a b",
            " a",
            "user@a",
            "-a",
            ".a",
            "a..b",
            ".",
            "höst",
            "a\n",
        ] {
            assert!(bad.parse::<Hosts>().is_err(), "{bad:?} was accepted");
        }
        assert_eq!(Hosts::new([]), Err(HostError::Missing));
        assert_eq!(HostPort::new("a", 0), Err(HostError::Port("a".into())));
        assert_eq!(HostPort::new("::1", 0), Err(HostError::Port("[::1]:0".into())));
        assert!(HostPort::new("[::1]", 1).is_err());
    }

    #[test]
    fn neither_form_of_an_error_shows_what_may_be_a_password() {
        for text in ["u:hunter2@h", "u:hunter2", "u:hunter2:1", "zookeeper://u:hunter2@h"] {
            let error = text.parse::<Hosts>().unwrap_err();
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }
}
