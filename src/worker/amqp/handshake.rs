//! Connects to a broker, and notices when the connection breaks before the handshake is done.
//!
//! The client may never complete an attempt whose connection is closed after the broker has sent `connection.tune`. But
//! its thread ends then, or opens another TCP connection, on which the handshake is not begun again.

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use lapin::{
    Connection, ConnectionProperties,
    runtime::default_runtime,
    tcp::{AMQPUriTcpExt, OwnedTLSConfig},
    uri::AMQPUri,
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{error::failed, url::Address};
use crate::worker::transport::TransportError;

/// How long the client may take to report an error of its thread.
const REPORT_TIMEOUT: Duration = Duration::from_millis(200);

/// Belongs to the thread of the client, and is dropped with it.
struct Thread {
    has_connected: AtomicBool,
    ended: CancellationToken,
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.ended.cancel();
    }
}

/// Connects to the broker at `address`. If the connection is encrypted, its certificate has to be for the host of that.
pub(super) async fn connect(
    address: &Address,
    properties: ConnectionProperties,
) -> Result<Connection, TransportError> {
    #[cfg(feature = "tls")]
    let encryption = address.files().map(super::tls::connector).transpose()?;
    let ended = CancellationToken::new();
    let thread = Thread { has_connected: AtomicBool::new(false), ended: ended.clone() };
    let open = async move |uri: AMQPUri, runtime| {
        if thread.has_connected.swap(true, Ordering::Relaxed) {
            thread.ended.cancel();
            return Err(lapin::Error::from(aborted()));
        }
        let config = OwnedTLSConfig::default();
        let stream = uri.connect_with_config_async(config.as_ref(), &runtime).await?;
        #[cfg(feature = "tls")]
        if let Some(encryption) = &encryption {
            return Ok(stream.into_rustls(encryption, &uri.authority.host).await?);
        }
        Ok(stream)
    };
    let runtime = default_runtime().map_err(failed)?;
    let connecting = Connection::connector(address.uri(), runtime, open, properties);
    let broken = async {
        ended.cancelled().await;
        sleep(REPORT_TIMEOUT).await;
    };
    tokio::select! {
        biased;
        connected = connecting => connected.map_err(failed),
        () = broken => Err(failed(aborted().into())),
    }
}

fn aborted() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the connection broke during the handshake")
}
