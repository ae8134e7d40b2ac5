// Pure: no runtime, no clock, no socket, no random numbers.

//! Reads `host[:port]`, and shows it in an error without what may be a password.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

/// Why a text is not the address of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HostProblem {
    #[error("it is empty")]
    Empty,
    #[error("there is no host before the port")]
    NoHost,
    #[error("a bracket is not closed")]
    OpenBracket,
    #[error("there is no IPv6 address in the brackets")]
    NotIpv6,
    #[error("one colon at most stands before a port; an IPv6 address goes into brackets, as in `[::1]:2181`")]
    Colons,
    #[error("a host name has letters, digits and `-._` only")]
    Name,
    #[error("no part of a host name is empty or begins with `-`")]
    Part,
    #[error("the port is not a number from 1 to 65535")]
    Port,
}

/// Splits `host`, `host:port`, `[::1]` or `[::1]:port`. The host is a name or an address without brackets.
pub(crate) fn split(text: &str) -> Result<(&str, Option<u16>), HostProblem> {
    if text.is_empty() {
        return Err(HostProblem::Empty);
    }
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (address, port) = rest.split_once(']').ok_or(HostProblem::OpenBracket)?;
            address.parse::<Ipv6Addr>().map_err(|_| HostProblem::NotIpv6)?;
            (address, port)
        }
        None if text.matches(':').count() > 1 => return Err(HostProblem::Colons),
        None => {
            let (host, port) = text.split_at(text.find(':').unwrap_or(text.len()));
            check(host)?;
            (host, port)
        }
    };
    if port.is_empty() {
        return Ok((host, None));
    }
    // `parse` would accept a sign.
    let digits = port.strip_prefix(':').filter(|digits| digits.bytes().all(|b| b.is_ascii_digit()));
    let port = digits.and_then(|digits| digits.parse().ok()).filter(|port| *port > 0);
    Ok((host, Some(port.ok_or(HostProblem::Port)?)))
}

/// Checks a host that is a name or an IPv4 address.
pub(crate) fn check(host: &str) -> Result<(), HostProblem> {
    if host.is_empty() {
        return Err(HostProblem::NoHost);
    }
    if !host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Err(HostProblem::Name);
    }
    let mut parts = host.strip_suffix('.').unwrap_or(host).split('.');
    if parts.any(|part| part.is_empty() || part.starts_with('-')) { Err(HostProblem::Part) } else { Ok(()) }
}

/// The text that [`split`] reads.
pub(crate) fn join(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

/// What an error shows of a text that [`split`] refuses. What follows a colon may be a password, if the `@` and the
/// hosts after it are missing, so it is shown only behind something that is no user.
pub(crate) fn shown(text: &str) -> impl fmt::Display {
    let (host, _) = text.split_once(':').unwrap_or((text, ""));
    let is_no_user = host.is_empty() || host.starts_with('[') || host.parse::<Ipv4Addr>().is_ok();
    let is_number = text.bytes().all(|b| b.is_ascii_hexdigit() || b":.[]".contains(&b));
    if is_no_user && is_number { text.escape_debug() } else { host.escape_debug() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        for (text, host, port) in [
            ("zk1", "zk1", None),
            ("zk-1.example.net.:1", "zk-1.example.net.", Some(1)),
            ("zk_1:65535", "zk_1", Some(65535)),
            ("127.0.0.1:2181", "127.0.0.1", Some(2181)),
            ("[::1]", "::1", None),
            ("[2001:db8::7]:2182", "2001:db8::7", Some(2182)),
        ] {
            assert_eq!(split(text), Ok((host, port)), "{text}");
            if let Some(port) = port {
                assert_eq!(join(host, port), text);
            }
        }
    }

    #[test]
    fn any_other_text_is_refused_for_a_reason() {
        use HostProblem::{Colons, Empty, Name, NoHost, NotIpv6, OpenBracket, Part, Port};
        for (text, problem) in [
            ("", Empty),
            (":2181", NoHost),
            ("[::1", OpenBracket),
            ("[]:1", NotIpv6),
            ("[a]:1", NotIpv6),
            ("[fe80::1%eth0]:1", NotIpv6),
            ("::1", Colons),
            ("a:1:2", Colons),
            ("tcp://a:1", Colons),
            ("tcp+tls://a", Name),
            ("a/chroot", Name),
            ("user@a", Name),
            ("a b", Name),
            (" a", Name),
            ("a\n", Name),
            ("höst", Name),
            ("-a", Part),
            (".a", Part),
            ("a..b", Part),
            (".", Part),
            ("a:", Port),
            ("a:0", Port),
            ("a:65536", Port),
            ("a:+1", Port),
            ("a:b", Port),
            ("a:2181/chroot", Port),
            ("[::1]:", Port),
            ("[::1]2181", Port),
        ] {
            assert_eq!(split(text), Err(problem), "{text}");
        }
    }

    #[test]
    fn what_may_be_a_password_is_not_shown() {
        for (text, expected) in [
            ("u:secret", "u"),
            ("u:secret:1", "u"),
            ("abe:cafe", "abe"),
            ("1000:cafe", "1000"),
            ("abe::cafe", "abe"),
            (":secret", ""),
            ("10.0.0.1:99999", "10.0.0.1:99999"),
            ("10.0.0.1:secret", "10.0.0.1"),
            ("::1:23181", "::1:23181"),
            ("[::1:2", "[::1:2"),
            (":2181", ":2181"),
            ("h\n", "h\\n"),
        ] {
            assert_eq!(shown(text).to_string(), expected);
        }
    }
}
