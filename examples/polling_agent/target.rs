//! A target, and the result of polling it.

use std::{borrow::Cow, fmt, path::Path, str::FromStr, time::Duration};

use apportion::RingKey;
use tokio::{net::TcpStream, task::spawn_blocking, time::timeout};
use ureq::{
    Agent,
    http::uri::{InvalidUri, Uri},
};

use crate::support::{Failure, read, screen::reason, time};

/// Where to connect, and what to expect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// As it was written: the key by which it is shared.
    url: String,
    /// Host and port, if it is enough that the port is open.
    tcp: Option<String>,
}

/// The result of one poll.
#[derive(Debug)]
pub struct Poll {
    pub target: Target,
    /// A description of the answer or of the error.
    pub outcome: Result<String, String>,
    pub took: Duration,
}

impl RingKey for Target {
    fn ring_key(&self) -> Cow<'_, [u8]> {
        self.url.ring_key()
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.url)
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(url: &str) -> Result<Target, String> {
        let uri: Uri = url.parse().map_err(|error: InvalidUri| error.to_string())?;
        let authority = uri.authority().ok_or("write http://host/path or tcp://host:port")?;
        // `Uri` reads an invalid port as no port, and accepts a user before an `@`.
        let port = uri.port().map_or(String::new(), |port| format!(":{port}"));
        if authority.host().is_empty() || authority.as_str() != format!("{}{port}", authority.host()) {
            return Err(format!("`{authority}` is no host with a port"));
        }
        let tcp = match (uri.scheme_str(), uri.port_u16(), uri.path()) {
            (Some("http"), ..) => None,
            (Some("tcp"), Some(_), "" | "/") => Some(authority.to_string()),
            (Some("tcp"), ..) => return Err("a tcp:// target has a port, and no path".into()),
            (Some("https"), ..) => return Err("https is not supported: this example has no TLS".into()),
            _ => return Err("write http://host/path or tcp://host:port".into()),
        };
        Ok(Target { url: url.into(), tcp })
    }
}

impl Target {
    /// Polls it, for at most `limit`.
    pub async fn poll(self, limit: Duration) -> Poll {
        let start = time::now();
        let outcome = match &self.tcp {
            Some(host_and_port) => connect(host_and_port, limit).await,
            None => get(self.url.clone(), limit).await,
        };
        Poll { target: self, outcome, took: start.elapsed() }
    }
}

const TOO_LATE: &str = "no answer in time";

async fn connect(host_and_port: &str, limit: Duration) -> Result<String, String> {
    match timeout(limit, TcpStream::connect(host_and_port)).await {
        Ok(Ok(_)) => Ok("open".into()),
        Ok(Err(error)) => Err(reason(error)),
        Err(_) => Err(TOO_LATE.into()),
    }
}

async fn get(url: String, limit: Duration) -> Result<String, String> {
    // Without proxies and redirects, because the target itself is to answer.
    let config = Agent::config_builder().proxy(None).max_redirects(0).max_redirects_will_error(false);
    let agent = config.http_status_as_error(false).timeout_global(Some(limit)).build().new_agent();
    let answer = spawn_blocking(move || agent.get(url).call());
    match answer.await.expect("a request does not panic") {
        Ok(answer) if answer.status().as_u16() < 400 => Ok(answer.status().to_string()),
        Ok(answer) => Err(answer.status().to_string()),
        Err(ureq::Error::Timeout(_)) => Err(TOO_LATE.into()),
        Err(ureq::Error::Io(error)) => Err(reason(error)),
        Err(ureq::Error::Protocol(_)) => Err("the answer is no HTTP".into()),
        Err(error) => Err(reason(error)),
    }
}

/// The targets in `file`: one a line, `#` starts a comment.
pub fn load(file: &Path) -> Result<Vec<Target>, Failure> {
    let mut targets = Vec::new();
    for (number, line) in (1..).zip(read(file)?.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let target: Target =
            line.parse().map_err(|error| format!("{}, line {number}: {error}", file.display()))?;
        targets.push(target);
    }
    targets.sort();
    targets.dedup();
    if targets.is_empty() {
        return Err(format!("{}: there is no target", file.display()).into());
    }
    Ok(targets)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_where_to_connect() {
        let tcp = |url: &str| url.parse::<Target>().unwrap().tcp;
        assert_eq!(tcp("tcp://127.0.0.1:22").as_deref(), Some("127.0.0.1:22"));
        assert_eq!(tcp("tcp://[::1]:5432").as_deref(), Some("[::1]:5432"));
        for url in ["http://host", "http://host/", "http://[::1]:8080/health?deep=1"] {
            assert_eq!(tcp(url), None, "{url}");
        }
    }

    #[test]
    fn what_is_no_target_is_refused() {
        for url in [
            "",
            "host:22",
            "/path",
            "http://",
            "http://:80/",
            "http://a b/",
            "http://host:99999/",
            "http://host:x/",
            "http://user@host/",
            "http://user@/",
            "https://host/",
            "tcp://host",
            "tcp://host:99999",
            "tcp://host:1/path",
            "ftp://host:21/",
        ] {
            assert!(url.parse::<Target>().is_err(), "{url}");
        }
    }
}
