// Pure: no runtime, no clock, no socket, no random numbers.

//! Reads `zookeeper://` URLs as the Python drivers do, and never shows the password.
//!
//! ```text
//! zookeeper://[user:password@]host[:port][,host[:port]...][?option=value[&option=value...]]
//! ```
//!
//! Differences from Python, each an error here: a path (Python ignores it), `zk://`, a URL that is only a scheme (for
//! Python it means localhost), an empty or invalid host, half a credential, an option without a value, and an `@` after
//! the hosts. Such an `@` shows that the password contains one of `/?#`: the beginning of the password would be taken
//! for a host.

use std::{borrow::Cow, fmt};

use percent_encoding::percent_decode_str;

use super::error::ConfigError;
use crate::host::{self, HostProblem};

/// The parts of a URL. The options are not checked yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Parsed {
    pub(super) servers: Servers,
    /// The options with a value, in the order of the URL, percent-decoded.
    pub(super) options: Vec<(String, String)>,
}

/// The servers of an ensemble, and the credentials for them.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Servers {
    /// Each with its port, IPv6 addresses in brackets.
    pub(crate) hosts: Vec<String>,
    /// Without it the session is anonymous, and every client can change its znodes.
    pub(crate) auth: Option<Auth>,
}

/// Credentials of the scheme `digest`, as the URL has them: percent escapes are not decoded.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Auth {
    /// Not empty.
    pub(crate) user: String,
    /// Not empty.
    pub(crate) password: String,
}

impl fmt::Debug for Auth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Auth").field("user", &self.user).field("password", &format_args!("(hidden)")).finish()
    }
}

const DEFAULT_HOST: &str = "localhost:2181";
const DEFAULT_PORT: u16 = 2181;

/// Reads `url`.
pub(super) fn parse(url: &str) -> Result<Parsed, ConfigError> {
    if url.trim().is_empty() {
        return Err(ConfigError::NoBackend);
    }
    let rest = after_scheme(url)?;
    let (authority, rest) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if rest.contains('@') {
        return Err(bad(
            "credentials",
            "there is an `@` after the hosts: a password cannot contain `/`, `?` or `#`, and in an option `@` is \
             written `%40`",
        ));
    }
    if rest.contains('#') {
        return Err(bad("fragment", "there is none in these URLs: in an option `#` is written `%23`"));
    }
    let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !matches!(path, "" | "/") {
        return Err(bad("path", "the root of the znodes is chosen with `?namespace=`, not with a path"));
    }

    let (user_info, netloc) =
        authority.rsplit_once('@').map_or((None, authority), |(user_info, netloc)| (Some(user_info), netloc));
    if netloc.is_empty() && query.is_empty() {
        return Err(bad(
            "hosts",
            "there is none: write `zookeeper://localhost:2181` for a server on this host",
        ));
    }
    let auth = user_info.map(auth).transpose()?;

    let mut hosts = Vec::new();
    if !netloc.is_empty() {
        add_hosts(netloc, &mut hosts)?;
    }
    let mut options = Vec::new();
    for option in query.split('&').filter(|option| !option.is_empty()) {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let (name, value) = (decode(name)?, decode(value)?);
        // `hosts` adds up; every other option can be repeated, and its last value counts.
        match (name.as_str(), value.as_str()) {
            ("hosts", "") => {
                return Err(bad("hosts", "the option is empty: give it a value or leave it out"));
            }
            ("hosts", list) => add_hosts(list, &mut hosts)?,
            _ => options.push((name, value)),
        }
    }
    if hosts.is_empty() {
        hosts.push(DEFAULT_HOST.into());
    }
    Ok(Parsed { servers: Servers { hosts, auth }, options })
}

/// Python ignores half a credential. Then every client could change the znodes of a session that seems to have one.
fn auth(user_info: &str) -> Result<Auth, ConfigError> {
    match user_info.split_once(':') {
        Some((user, password)) if !user.is_empty() && !password.is_empty() => {
            Ok(Auth { user: user.into(), password: password.into() })
        }
        _ => Err(bad(
            "credentials",
            "before an `@` there are a user and a password, `user:password`: without one of them the session would be \
             anonymous",
        )),
    }
}

/// What follows `zookeeper://`.
fn after_scheme(url: &str) -> Result<&str, ConfigError> {
    let missing = || bad("scheme", "it is missing: a URL starts with `zookeeper://`");
    let (scheme, rest) = url.split_once("://").ok_or_else(missing)?;
    match scheme.to_ascii_lowercase().as_str() {
        "zookeeper" | "kazoo" => Ok(rest),
        "zk" => Err(bad("scheme", "`zk` is unknown here as in Python: write `zookeeper://`")),
        "memory" => Err(bad(
            "scheme",
            "a URL cannot name an in-memory ensemble: use \
             `Config::for_backend(backend::Memory::new())`",
        )),
        // A longer text, or one with other characters, may be the beginning of credentials.
        other
            if other.len() <= 16
                && other.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) =>
        {
            Err(bad("scheme", format!("`{other}` is not supported: write `zookeeper://`")))
        }
        _ => Err(missing()),
    }
}

fn add_hosts(list: &str, hosts: &mut Vec<String>) -> Result<(), ConfigError> {
    for host in list.split(',') {
        hosts.push(host_and_port(host.trim())?);
    }
    Ok(())
}

fn host_and_port(text: &str) -> Result<String, ConfigError> {
    match host::split(text) {
        Ok((host, port)) => Ok(host::join(host, port.unwrap_or(DEFAULT_PORT))),
        Err(HostProblem::Empty) => Err(bad("hosts", "one of them is empty")),
        Err(problem) => Err(bad("hosts", format!("`{}`: {problem}", host::shown(text)))),
    }
}

/// Undoes the escapes of a query as Python does: `+` is a space, and a `%` without two digits is itself.
fn decode(text: &str) -> Result<String, ConfigError> {
    let spaced = text.replace('+', " ");
    let decoded = percent_decode_str(&spaced).decode_utf8();
    decoded
        .map(Cow::into_owned)
        .map_err(|_| bad("options", "one of them is no UTF-8 once its escapes are decoded"))
}

fn bad(part: &'static str, problem: impl Into<String>) -> ConfigError {
    ConfigError::Url { part, problem: problem.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(url: &str) -> Vec<String> {
        parse(url).unwrap_or_else(|error| panic!("{url}: {error}")).servers.hosts
    }

    fn auth(url: &str) -> Option<(String, String)> {
        parse(url).unwrap().servers.auth.map(|auth| (auth.user, auth.password))
    }

    fn part(url: &str) -> &'static str {
        match parse(url) {
            Err(ConfigError::Url { part, .. }) => part,
            other => panic!("{url}: {other:?}"),
        }
    }

    #[test]
    fn hosts_keep_the_order_of_the_url_and_get_the_default_port() {
        assert_eq!(hosts("zookeeper://b:1,a"), ["b:1", "a:2181"]);
        assert_eq!(hosts("kazoo://h?hosts=y1,y2:5&hosts=z"), ["h:2181", "y1:2181", "y2:5", "z:2181"]);
        assert_eq!(hosts("zookeeper:///?hosts=y1,+y2"), ["y1:2181", "y2:2181"]);
        assert_eq!(hosts("zookeeper://?namespace=n"), ["localhost:2181"]);
        assert_eq!(part("zookeeper://h?hosts="), "hosts");
        assert_eq!(
            hosts("ZooKeeper://[::1],[fe80::2]:99,127.0.0.1"),
            ["[::1]:2181", "[fe80::2]:99", "127.0.0.1:2181"]
        );
    }

    #[test]
    fn an_error_shows_the_host_as_it_was_written_without_what_may_be_a_password() {
        const COLONS: &str =
            "one colon at most stands before a port; an IPv6 address goes into brackets, as in `[::1]:2181`";
        let said = |hosts: &str| match parse(&format!("zookeeper://{hosts}")) {
            Err(ConfigError::Url { part: "hosts", problem }) => problem,
            other => panic!("{hosts}: {other:?}"),
        };
        for (shown, hidden, problem) in [
            ("h", ":abc", "the port is not a number from 1 to 65535"),
            ("h", ":0", "the port is not a number from 1 to 65535"),
            ("10.0.0.1:99999", "", "the port is not a number from 1 to 65535"),
            ("h", ":", "the port is not a number from 1 to 65535"),
            ("::1:23181", "", COLONS),
            ("u", ":secret:1", COLONS),
            ("abe", ":cafe", "the port is not a number from 1 to 65535"),
            ("-h", ":1", "no part of a host name is empty or begins with `-`"),
            ("[::1:2", "", "a bracket is not closed"),
            ("[x]", ":2", "there is no IPv6 address in the brackets"),
            (":2181", "", "there is no host before the port"),
            ("h x", "", "a host name has letters, digits and `-._` only"),
        ] {
            assert_eq!(said(&format!("a,{shown}{hidden},b:1")), format!("`{shown}`: {problem}"));
        }
        assert_eq!(said("a,,b"), "one of them is empty");
    }

    #[test]
    fn credentials_need_both_parts_and_are_taken_literally() {
        let pair = |user: &str, password: &str| Some((user.to_owned(), password.to_owned()));
        assert_eq!(auth("zookeeper://u:pa%2Bss@h"), pair("u", "pa%2Bss"));
        assert_eq!(auth("zookeeper://u:a:b@c@h"), pair("u", "a:b@c"));
        assert_eq!(auth("zookeeper://h"), None);
        for half in ["u@h", ":x@h", "u:@h", "@h", ":@h"] {
            assert_eq!(part(&format!("zookeeper://{half}")), "credentials", "{half}");
        }
    }

    #[test]
    fn golden_credentials_are_those_that_python_sends() {
        let golden: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/golden/urls.json")).unwrap();
        let mut seen = 0;
        for row in golden["rows"].as_array().unwrap() {
            let (Some(digest), Ok(parsed)) =
                (row["digest_auth"].as_array(), parse(row["url"].as_str().unwrap()))
            else {
                continue;
            };
            let ours: Vec<_> =
                parsed.servers.auth.iter().map(|auth| format!("{}:{}", auth.user, auth.password)).collect();
            assert_eq!(&ours, digest, "{row}");
            seen += ours.len();
        }
        assert!(seen > 0);
    }

    #[test]
    fn options_are_decoded_as_python_decodes_a_query() {
        let options = parse("zookeeper://h?a=x%2Fy%c3%a9+z&b&c=&&d=1=2&a=%zz%4").unwrap().options;
        let expected = [("a", "x/yé z"), ("b", ""), ("c", ""), ("d", "1=2"), ("a", "%zz%4")];
        assert_eq!(options, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let unusual = parse("zookeeper://h?a=%&b=%%41&c=%4+1&d=%2B%2b%00&%61=%25+").unwrap().options;
        let expected = [("a", "%"), ("b", "%A"), ("c", "%4 1"), ("d", "++\0"), ("a", "% ")];
        assert_eq!(unusual, expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
        for bad in ["%ff", "%C3", "x%e9y"] {
            assert_eq!(part(&format!("zookeeper://h?a={bad}")), "options", "{bad}");
        }
    }

    #[test]
    fn malformed_urls_say_which_part_is_wrong() {
        for (url, wrong) in [
            ("zookeeper://", "hosts"),
            ("zookeeper:///", "hosts"),
            ("zookeeper://?", "hosts"),
            ("kazoo://", "hosts"),
            ("zookeeper:h", "scheme"),
            ("h:2181", "scheme"),
            ("zk://h", "scheme"),
            ("memory://", "scheme"),
            ("tcp+tls://h:2281", "scheme"),
            ("://h", "scheme"),
            ("zookeeper://tcp+tls:2281", "hosts"),
            ("zookeeper://h,,i", "hosts"),
            ("zookeeper://h,", "hosts"),
            ("zookeeper://u:p@", "hosts"),
            ("zookeeper://h:", "hosts"),
            ("zookeeper://h:0", "hosts"),
            ("zookeeper://h:+1", "hosts"),
            ("zookeeper://h:65536", "hosts"),
            ("zookeeper://h:99999999999999999999", "hosts"),
            ("zookeeper://::1", "hosts"),
            ("zookeeper://fe80::2:2181", "hosts"),
            ("zookeeper://[::1", "hosts"),
            ("zookeeper://[::1]2181", "hosts"),
            ("zookeeper://[localhost]", "hosts"),
            ("zookeeper://héron", "hosts"),
            ("zookeeper://a b", "hosts"),
            ("zookeeper://a..b", "hosts"),
            ("zookeeper://h?hosts=tcp%2Btls://x:1", "hosts"),
            ("zookeeper://h?hosts=x/chroot", "hosts"),
            ("zookeeper://h?hosts=,", "hosts"),
            ("zookeeper://h/a/b?timeout=3", "path"),
            ("zookeeper://h//", "path"),
            ("zookeeper://h#x", "fragment"),
            ("zookeeper://h?timeout=3#x", "fragment"),
            ("zookeeper://u:a/b@h", "credentials"),
        ] {
            assert_eq!(part(url), wrong, "{url}");
        }
        assert_eq!(parse(" "), Err(ConfigError::NoBackend));
    }
}
