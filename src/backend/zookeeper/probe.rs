//! Asks an address whether a ZooKeeper server is there, with the command `srvr`: servers answer it by default, and say so
//! if they are configured not to.

use std::{fmt, io, net::SocketAddr, time::Duration};

use async_net::TcpStream;
use futures_util::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Why no session can be opened at an address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// The attempt to connect failed at once.
    Connect(io::ErrorKind, String),
    /// No answer, or no connection.
    Silent,
    /// The connection was closed before an answer came.
    Closed,
    /// A server that has no quorum or is starting.
    NotServing,
    /// Something other than a ZooKeeper server.
    Other(String),
    /// The TLS handshake failed.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "only with that feature"))]
    Tls(String),
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Problem::Connect(io::ErrorKind::ConnectionRefused, _) => f.write_str("connection refused"),
            Problem::Connect(_, error) => f.write_str(error),
            Problem::Silent => f.write_str("no answer"),
            Problem::Closed => f.write_str("it closes the connection without an answer"),
            Problem::NotServing => f.write_str("it does not serve requests at the moment"),
            Problem::Other(start) => write!(f, "it is not a ZooKeeper server: it answers `{start}`"),
            Problem::Tls(error) => write!(f, "TLS: {error}"),
        }
    }
}

/// What encrypts connections. Without the feature there is none.
#[cfg(feature = "tls")]
pub(super) type Encryption = futures_rustls::TlsConnector;
#[cfg(not(feature = "tls"))]
#[derive(Clone)]
pub(super) enum Encryption {}

/// Connects to `address`, and asks what is there. Takes at most `limit`. If connections are encrypted, the certificate
/// has to be for `name`.
#[cfg_attr(not(feature = "tls"), allow(unused_variables, reason = "the name is that of a certificate"))]
pub(super) async fn probe(
    address: SocketAddr,
    name: &str,
    encryption: Option<&Encryption>,
    limit: Duration,
) -> Result<(), Problem> {
    let probing = async {
        let stream = TcpStream::connect(address)
            .await
            .map_err(|error| Problem::Connect(error.kind(), error.to_string()))?;
        match encryption {
            None => ask(stream, limit / 2).await,
            #[cfg(feature = "tls")]
            Some(encryption) => {
                let failed = |error: &dyn fmt::Display| Problem::Tls(error.to_string());
                let name = futures_rustls::rustls::pki_types::ServerName::try_from(name.to_owned());
                let name = name.map_err(|error| failed(&error))?;
                let stream = encryption.connect(name, stream).await.map_err(|error| failed(&error))?;
                ask(stream, limit / 2).await
            }
            #[cfg(not(feature = "tls"))]
            Some(never) => match *never {},
        }
    };
    timeout(limit, probing).await.unwrap_or(Err(Problem::Silent))
}

/// How much of an answer is read. The first line is enough.
const ANSWER_BYTES: usize = 128;

/// Asks. If nothing comes within `half`, helps a server of another protocol to answer.
async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, half: Duration) -> Result<(), Problem> {
    stream.write_all(b"srvr").await.map_err(failed)?;
    stream.flush().await.map_err(failed)?;
    let mut answer = [0; ANSWER_BYTES];
    let read = match timeout(half, stream.read(&mut answer)).await {
        Ok(read) => read,
        Err(_) => {
            // A server of a protocol of lines waits for the end of the line.
            stream.write_all(b"\r\n\r\n").await.map_err(failed)?;
            stream.flush().await.map_err(failed)?;
            stream.read(&mut answer).await
        }
    };
    judge(&answer[..read.map_err(failed)?])
}

/// An error after the connection was established: with TLS 1.3 the server refuses the certificate of a client only then.
#[allow(clippy::needless_pass_by_value, reason = "it is for map_err")]
fn failed(error: io::Error) -> Problem {
    match error.kind() {
        io::ErrorKind::InvalidData => Problem::Tls(error.to_string()),
        _ => Problem::Closed,
    }
}

fn judge(answer: &[u8]) -> Result<(), Problem> {
    let text = String::from_utf8_lossy(answer);
    let has = |part: &str| text.contains(part);
    if answer.is_empty() {
        Err(Problem::Closed)
    } else if has("not currently serving") {
        Err(Problem::NotServing)
    } else if has("version:") || has("whitelist") {
        // "Zookeeper version: ..", "ClickHouse Keeper version: ..", "srvr is not executed because it is not in the
        // whitelist."
        Ok(())
    } else {
        let line: String = text.lines().next().unwrap_or_default().chars().take(40).collect();
        Err(Problem::Other(line.escape_debug().to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_tells_a_server_from_something_else() {
        for answer in [
            "Zookeeper version: 3.8.0-, built on 2022-02-25 08:49 UTC\nLatency",
            "srvr is not executed because it is not in the whitelist.\n",
        ] {
            assert_eq!(judge(answer.as_bytes()), Ok(()), "{answer}");
        }
        let is_down = "This ZooKeeper instance is not currently serving requests\n";
        assert_eq!(judge(is_down.as_bytes()), Err(Problem::NotServing));
        assert_eq!(judge(b""), Err(Problem::Closed));
        let other = judge(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0").unwrap_err();
        assert!(other.to_string().contains("`HTTP/1.1 400 Bad Request`"), "{other}");
        assert!(judge(&[0x15, 0x03, 0x03, 0x00]).is_err());
    }
}
