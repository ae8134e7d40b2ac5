// Pure: no runtime, no clock, no socket, no random numbers.

//! Reads `amqp://` URLs as kombu does, and never shows the password.
//!
//! kombu accepts some URLs that are errors here: options other than `heartbeat`, `queues` and the files for TLS, several
//! brokers, an empty host, and a user without a password.

use std::{borrow::Cow, fmt};

use lapin::uri::{AMQPAuthority, AMQPQueryString, AMQPScheme, AMQPUri, AMQPUserInfo};
use percent_encoding::percent_decode_str;

use super::error::ConnectError;
use crate::host::{self, HostProblem};

/// The address of a broker and the credentials. `Debug` hides the password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Address {
    user: String,
    password: String,
    /// An IPv6 address without its brackets.
    host: String,
    port: u16,
    vhost: String,
    heartbeat_seconds: u16,
    has_durable_queues: bool,
    /// The files for TLS, if connections are encrypted.
    files: Option<Files>,
}

/// The files for TLS.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub(super) struct Files {
    pub(super) ca_certs: String,
    /// The certificate of this client and its key.
    pub(super) identity: Option<(String, String)>,
}

const DEFAULT_PORT: u16 = 5672;
const DEFAULT_TLS_PORT: u16 = 5671;
const DEFAULT_HEARTBEAT_SECONDS: u16 = 10;

impl Address {
    pub(super) fn parse(url: &str) -> Result<Address, ConnectError> {
        let missing = || bad("scheme", "it is missing: a URL starts with `amqp://`");
        let (scheme, rest) = url.split_once("://").ok_or_else(missing)?;
        let is_encrypted = match scheme.to_ascii_lowercase().as_str() {
            "amqp" | "pyamqp" => false,
            "amqps" if cfg!(feature = "tls") => true,
            "amqps" => {
                let problem = "this build has no TLS for `amqps`: enable the feature `tls` of apportion";
                return Err(bad("scheme", problem));
            }
            // Not shown, because it may be the beginning of credentials.
            _ => return Err(bad("scheme", "a URL starts with `amqp://` or `amqps://`")),
        };
        let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if rest.contains('#') {
            return Err(bad("fragment", "`#` means nothing here: write `%23`"));
        }
        if rest.contains('@') {
            return Err(bad(
                "credentials",
                "an `@` comes after the host: in a password `/`, `?` and `@` are written `%2F`, `%3F` and `%40`",
            ));
        }
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (user_info, netloc) = authority.rsplit_once('@').unwrap_or(("guest:guest", authority));
        let (user, password) = user_info
            .split_once(':')
            .filter(|(user, _)| !user.is_empty())
            .ok_or_else(|| bad("credentials", "they are `user:password`"))?;
        let (host, port) = host_and_port(netloc, if is_encrypted { DEFAULT_TLS_PORT } else { DEFAULT_PORT })?;
        let options = Options::parse(query)?;
        let vhost = decode("path", path.strip_prefix('/').unwrap_or(path))?;
        Ok(Address {
            user: decode("credentials", user)?,
            password: decode("credentials", password)?,
            host,
            port,
            // As in kombu. For AMQP clients that follow the specification, `host/` is the virtual host without a name.
            vhost: if vhost.is_empty() { "/".to_owned() } else { vhost },
            heartbeat_seconds: options.heartbeat_seconds,
            has_durable_queues: options.has_durable_queues,
            files: options.files(is_encrypted)?,
        })
    }

    /// Whether the URL asks for durable queues.
    pub(super) fn has_durable_queues(&self) -> bool {
        self.has_durable_queues
    }

    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "there are none then"))]
    pub(super) fn files(&self) -> Option<&Files> {
        self.files.as_ref()
    }

    /// The URL for the client. Its scheme is that without TLS: the encryption is added to the connection.
    pub(super) fn uri(&self) -> AMQPUri {
        AMQPUri {
            scheme: AMQPScheme::AMQP,
            authority: AMQPAuthority {
                userinfo: AMQPUserInfo { username: self.user.clone(), password: self.password.clone() },
                host: self.host.clone(),
                port: self.port,
            },
            vhost: self.vhost.clone(),
            query: AMQPQueryString { heartbeat: Some(self.heartbeat_seconds), ..AMQPQueryString::default() },
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}://{}:(hidden)@{}/{}",
            if self.files.is_some() { "amqps" } else { "amqp" },
            self.user.escape_debug(),
            host::join(&self.host, self.port),
            self.vhost.escape_debug()
        )
    }
}

fn host_and_port(text: &str, default: u16) -> Result<(String, u16), ConnectError> {
    match host::split(text) {
        Ok((host, port)) => Ok((host.to_owned(), port.unwrap_or(default))),
        Err(HostProblem::Empty | HostProblem::NoHost) => {
            Err(bad("host", "it is empty: write `amqp://localhost` for a broker on this host"))
        }
        Err(problem) => Err(bad("host", format!("`{}`: {problem}", host::shown(text)))),
    }
}

/// The options of a URL.
struct Options {
    heartbeat_seconds: u16,
    has_durable_queues: bool,
    ca_certs: Option<String>,
    certfile: Option<String>,
    keyfile: Option<String>,
}

impl Options {
    fn parse(query: &str) -> Result<Options, ConnectError> {
        let mut options = Options {
            heartbeat_seconds: DEFAULT_HEARTBEAT_SECONDS,
            has_durable_queues: false,
            ca_certs: None,
            certfile: None,
            keyfile: None,
        };
        for option in query.split('&').filter(|option| !option.is_empty()) {
            match option.split_once('=').unwrap_or((option, "")) {
                ("heartbeat", value) => {
                    let value = value.parse().ok().filter(|value| *value > 0);
                    options.heartbeat_seconds =
                        value.ok_or_else(|| bad("options", "`heartbeat` is from 1 to 65535 seconds"))?;
                }
                ("queues", "durable") => options.has_durable_queues = true,
                ("queues", "transient") => options.has_durable_queues = false,
                ("queues", _) => return Err(bad("options", "`queues` is `durable` or `transient`")),
                ("ssl_ca_certs", value) => options.ca_certs = Some(decode("options", value)?),
                ("ssl_certfile", value) => options.certfile = Some(decode("options", value)?),
                ("ssl_keyfile", value) => options.keyfile = Some(decode("options", value)?),
                (name, _) => {
                    return Err(bad("options", format!("`{}` is unknown", name.escape_debug())));
                }
            }
        }
        Ok(options)
    }

    fn files(self, is_encrypted: bool) -> Result<Option<Files>, ConnectError> {
        let Options { ca_certs, certfile, keyfile, .. } = self;
        if !is_encrypted {
            let is_plain = ca_certs.is_none() && certfile.is_none() && keyfile.is_none();
            return if is_plain { Ok(None) } else { Err(bad("scheme", "files for TLS need `amqps://`")) };
        }
        let ca_certs = ca_certs.ok_or_else(|| {
            bad("options", "`ssl_ca_certs` is missing: the certificates that the broker is checked with")
        })?;
        let identity = match (certfile, keyfile) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            _ => return Err(bad("options", "`ssl_certfile` and `ssl_keyfile` belong together")),
        };
        Ok(Some(Files { ca_certs, identity }))
    }
}

/// Decodes percent escapes. The crate accepts a `%` without two digits as itself; in a password that is an error.
fn decode(part: &'static str, text: &str) -> Result<String, ConnectError> {
    let is_escape =
        |rest: &str| matches!(rest.as_bytes(), [a, b, ..] if [a, b].iter().all(|it| it.is_ascii_hexdigit()));
    if !text.split('%').skip(1).all(is_escape) {
        return Err(bad(part, "`%` needs two hexadecimal digits after it: write `%25` for `%` itself"));
    }
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(Cow::into_owned).map_err(|_| bad(part, "it is not UTF-8 after its escapes are decoded"))
}

fn bad(part: &'static str, problem: impl Into<String>) -> ConnectError {
    ConnectError::Url { part, problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(url: &str) -> String {
        format!("{:?}", Address::parse(url).unwrap_or_else(|error| panic!("{url}: {error}")))
    }

    #[test]
    fn missing_parts_have_the_defaults_of_kombu() {
        assert_eq!(shown("amqp://h"), "amqp://guest:(hidden)@h:5672//");
        assert_eq!(shown("pyamqp://h:1/"), "amqp://guest:(hidden)@h:1//");
        assert_eq!(shown("AMQP://u:p@[::1]:7/v"), "amqp://u:(hidden)@[::1]:7/v");
        let uri = Address::parse("amqp://h").unwrap().uri();
        assert_eq!((uri.authority.userinfo.password.as_str(), uri.query.heartbeat), ("guest", Some(10)));
    }

    #[cfg(feature = "tls")]
    #[test]
    fn an_encrypted_connection_names_its_files_as_kombu_does() {
        let url = "amqps://h?ssl_ca_certs=%2Fca.pem&ssl_certfile=c.pem&ssl_keyfile=k.pem";
        let address = Address::parse(url).unwrap();
        assert_eq!(format!("{address:?}"), "amqps://guest:(hidden)@h:5671//");
        let files = address.files().unwrap();
        assert_eq!(files.ca_certs, "/ca.pem");
        assert_eq!(files.identity, Some(("c.pem".into(), "k.pem".into())));
    }

    #[test]
    fn user_password_and_virtual_host_are_decoded() {
        let uri = Address::parse("amqp://a%40b:p%2F%3a%25@h/%2Fv%C3%A9?heartbeat=3").unwrap().uri();
        assert_eq!(uri.authority.userinfo.username, "a@b");
        assert_eq!(uri.authority.userinfo.password, "p/:%");
        assert_eq!((uri.vhost.as_str(), uri.query.heartbeat), ("/vé", Some(3)));
        for root in ["amqp://h//", "amqp://h/%2F", "amqp://h/", "amqp://h"] {
            assert_eq!(Address::parse(root).unwrap().vhost, "/", "{root}");
        }
    }

    #[test]
    fn malformed_urls_say_which_part_is_wrong_and_never_show_the_password() {
        for (url, wrong) in [
            ("", "scheme"),
            ("h:5672", "scheme"),
            ("user:hunter2@h", "scheme"),
            #[cfg(not(feature = "tls"))]
            ("amqps://u:hunter2@h", "scheme"),
            #[cfg(feature = "tls")]
            ("amqps://u:hunter2@h", "options"),
            #[cfg(feature = "tls")]
            ("amqps://u:hunter2@h?ssl_ca_certs=ca&ssl_certfile=c", "options"),
            ("amqp://u:hunter2@h?ssl_ca_certs=ca", "scheme"),
            ("redis://u:hunter2@h", "scheme"),
            ("user:hunter2@h://x", "scheme"),
            ("amqp://", "host"),
            ("amqp:///v", "host"),
            ("amqp://u:hunter2@", "host"),
            ("amqp://u:hunter2", "host"),
            ("amqp://h:0", "host"),
            ("amqp://h:65536", "host"),
            ("amqp://h:+1", "host"),
            ("amqp://::1", "host"),
            ("amqp://[h]", "host"),
            ("amqp://[::1]1", "host"),
            ("amqp://a,b", "host"),
            ("amqp://a;amqp://b", "host"),
            ("amqp://a..b", "host"),
            ("amqp://-a", "host"),
            ("amqp://u@h", "credentials"),
            ("amqp://:hunter2@h", "credentials"),
            ("amqp://u:hun/ter2@h", "credentials"),
            ("amqp://u:hunter2%@h", "credentials"),
            ("amqp://u:hunter2%ff@h", "credentials"),
            ("amqp://h/%zz", "path"),
            ("amqp://h/v#x", "fragment"),
            ("amqp://h?heartbeat=0", "options"),
            ("amqp://h?heartbeat=1.5", "options"),
            ("amqp://h?heartbeat=65536", "options"),
            ("amqp://h?heartbaet=3", "options"),
            ("amqp://h?queues=", "options"),
            ("amqp://h?queues=quorum", "options"),
        ] {
            match Address::parse(url) {
                Err(error @ ConnectError::Url { part, .. }) => {
                    assert_eq!(part, wrong, "{url}");
                    assert!(!error.to_string().contains("hun"), "{error}");
                }
                other => panic!("{url}: {other:?}"),
            }
        }
    }

    #[test]
    fn queues_are_transient_unless_the_url_says_otherwise() {
        for (url, durable) in [
            ("amqp://h", false),
            ("amqp://h?queues=transient", false),
            ("amqp://h?heartbeat=3&queues=durable", true),
        ] {
            assert_eq!(Address::parse(url).unwrap().has_durable_queues(), durable, "{url}");
        }
    }

    #[test]
    fn any_text_is_read_or_refused_without_a_panic() {
        for url in
            ["amqp://%", "amqp://é%é", "amqp://u:%é1@h", "amqp://h/%é", "amqp://@", "amqp://:@:", "://"]
        {
            let _ = Address::parse(url);
        }
    }
}
