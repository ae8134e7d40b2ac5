//! What encrypts connections to the broker.

use lapin::tcp::RustlsConnector;

use super::url::Files;
use crate::{tls::Tls, worker::transport::TransportError};

/// Reads the files. The client would check the broker with the authorities of the system, too. So it connects without
/// TLS, and the TLS handshake is done with this.
pub(super) fn connector(files: &Files) -> Result<RustlsConnector, TransportError> {
    let mut tls = Tls::new(&files.ca_certs);
    if let Some((certificate, key)) = &files.identity {
        tls = tls.identity(certificate, key);
    }
    let loaded = tls.load().map_err(|error| TransportError::Unavailable { reason: error.to_string() })?;
    Ok(RustlsConnector::from(loaded.config))
}
