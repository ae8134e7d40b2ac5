//! A target, and what polling it says.

use std::{borrow::Cow, fmt, fs, io, path::Path, str::FromStr, time::Duration};

use apportion::RingKey;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use crate::support::{Failure, time};

/// Where to connect, and what to expect.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Target {
    /// As it was written: the key by which it is shared.
    url: String,
    host_and_port: String,
    /// What to GET; `None`: that the port is open is enough.
    path: Option<String>,
}

/// What became of one poll.
#[derive(Debug)]
pub struct Poll {
    pub target: Target,
    /// What is good about it, or what is wrong.
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
        let (scheme, rest) = url.split_once("://").ok_or("write http://host/path or tcp://host:port")?;
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        if authority.is_empty() || authority.contains(['@', ' ']) || authority.starts_with(':') {
            return Err(format!("`{authority}` is no host"));
        }
        // The colons of an IPv6 address are in brackets.
        let after_host = authority.rfind(']').map_or(authority, |at| &authority[at..]);
        let port = after_host.split_once(':').map(|(_, port)| port);
        if let Some(port) = port.filter(|port| port.parse::<u16>().is_err()) {
            return Err(format!("`{port}` is no port"));
        }
        let (default_port, path) = match scheme {
            "http" => ("80", Some(if path.is_empty() { "/" } else { path }.to_owned())),
            "tcp" if !path.is_empty() => return Err("a tcp:// target has no path".into()),
            "tcp" if port.is_none() => return Err("a tcp:// target needs a port".into()),
            "tcp" => ("", None),
            "https" => {
                return Err("https is not supported: this example speaks plain HTTP/1.0 without TLS".into());
            }
            _ => {
                return Err(format!(
                    "`{scheme}` is not supported: write http://host/path or tcp://host:port"
                ));
            }
        };
        let host_and_port = match port {
            Some(_) => authority.to_owned(),
            None => format!("{authority}:{default_port}"),
        };
        Ok(Target { url: url.into(), host_and_port, path })
    }
}

impl Target {
    /// Polls it, for at most `patience`.
    pub async fn poll(self, patience: Duration) -> Poll {
        let start = time::now();
        let outcome = match timeout(patience, self.look()).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(error)) => {
                Err(error.to_string().split(" (os error").next().unwrap_or_default().to_lowercase())
            }
            Err(_) => Err("no answer in time".into()),
        };
        Poll { target: self, outcome, took: start.elapsed() }
    }

    async fn look(&self) -> io::Result<Result<String, String>> {
        let mut stream = TcpStream::connect(&self.host_and_port).await?;
        let Some(path) = &self.path else { return Ok(Ok("open".into())) };
        let request = format!("GET {path} HTTP/1.0\r\nHost: {}\r\n\r\n", self.host_and_port);
        stream.write_all(request.as_bytes()).await?;
        let mut head = Vec::new();
        let mut rest = stream.take(1024);
        while !head.contains(&b'\n') && rest.read_buf(&mut head).await? > 0 {}
        let head = String::from_utf8_lossy(&head);
        let mut words = head.lines().next().unwrap_or_default().splitn(2, ' ');
        let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/"));
        let status = words.next().unwrap_or_default().trim();
        Ok(match status.get(..3).and_then(|code| code.parse::<u16>().ok()).filter(|_| is_http) {
            Some(..400) => Ok(status.into()),
            Some(_) => Err(status.into()),
            None => Err("the answer is no HTTP".into()),
        })
    }
}

/// The targets in `file`: one a line, `#` starts a comment.
pub fn load(file: &Path) -> Result<Vec<Target>, Failure> {
    let text = fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let mut targets = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
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
