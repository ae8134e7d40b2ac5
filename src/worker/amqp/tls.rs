//! Opens encrypted connections.

use lapin::{
    Connection, ConnectionProperties, runtime,
    tcp::{AMQPUriTcpExt as _, RustlsConnector, TLSConfig},
    uri::AMQPUri,
};

use super::{error::failed, url::Files};
use crate::{tls::Tls, worker::transport::TransportError};

/// Connects to the broker at `uri`, whose certificate has to be for the host of that.
pub(super) async fn connect(
    uri: AMQPUri,
    files: &Files,
    properties: ConnectionProperties,
) -> Result<Connection, TransportError> {
    let mut tls = Tls::new(&files.ca_certs);
    if let Some((certificate, key)) = &files.identity {
        tls = tls.identity(certificate, key);
    }
    let loaded = tls.load().map_err(|error| TransportError::Unavailable { reason: error.to_string() })?;
    let connector = RustlsConnector::from(loaded.config);
    let runtime = runtime::default_runtime().map_err(failed)?;
    // The client would check the broker with the authorities of the system, too. So it connects without TLS, and the
    // handshake is done here.
    let connecting = async move |uri: AMQPUri, runtime| {
        let plain = uri.connect_with_config_async(TLSConfig::default(), &runtime).await?;
        Ok(plain.into_rustls(&connector, &uri.authority.host).await?)
    };
    Connection::connector(uri, runtime, connecting, properties).await.map_err(failed)
}
